//! The table against a plain model, with every option; the cache against a panic.

use std::panic::{AssertUnwindSafe, catch_unwind};

use proptest::prelude::*;

use super::table::{CacheTable, How, NotStored, Operation, size};
use super::{Cache, Shape};

fn shape(items: u32, bitmap: bool) -> Shape {
    Shape {
        name: "c".into(),
        items,
        blocks: items,
        blocksize: 16,
        keysize: 8,
        hashsize: 3,
        bitmap,
        lru: false,
        clear_on_full: false,
        no_expire: false,
        ignore_full: false,
        math_initial: 0,
    }
}

/// An empty table's memory, aligned as a mapping is.
fn memory(shape: &Shape) -> Vec<u64> {
    vec![0; size(shape).unwrap().div_ceil(8)]
}

fn table<'a>(shape: &'a Shape, memory: &'a mut [u64]) -> CacheTable<'a> {
    CacheTable::new(shape, bytemuck::cast_slice_mut(memory))
}

#[test]
fn what_is_set_is_there_until_it_expires_or_goes() {
    let shape = shape(4, false);
    let mut memory = memory(&shape);
    let mut table = table(&shape, &mut memory);
    assert_eq!(table.get(b"a", 10), None);
    assert_eq!(table.set(b"a", b"one", 0, How::New, 10), Ok(()));
    assert_eq!(table.set(b"a", b"two", 0, How::New, 10), Err(NotStored::Unfit), "there is one");
    assert_eq!(table.get(b"a", 10).unwrap(), b"one");
    assert_eq!(table.set(b"a", b"two", 20, How::Update, 10), Ok(()));
    assert_eq!(table.get(b"a", 19).unwrap(), b"two");
    assert_eq!(table.get(b"a", 20), None, "expired");
    assert_eq!(table.len(), 0);
    assert_eq!(table.set(b"b", &[0; 17], 0, How::New, 10), Err(NotStored::Unfit), "larger than a block");
    assert_eq!(table.set(b"123456789", b"x", 0, How::New, 10), Err(NotStored::Unfit), "a longer key than fits");
    assert_eq!(table.set(b"b", b"", 0, How::New, 10), Err(NotStored::Unfit), "nothing");
}

#[test]
fn a_full_table_refuses_or_lets_the_oldest_go() {
    let mut shape = shape(3, false);
    let mut memory = memory(&shape);
    let fill = |table: &mut CacheTable<'_>| {
        for key in [b"a", b"b", b"c"] {
            table.set(key, b"x", 0, How::Update, 1).unwrap();
        }
    };
    let mut full = table(&shape, &mut memory);
    fill(&mut full);
    assert_eq!(full.set(b"d", b"x", 0, How::New, 1), Err(NotStored::Full));
    assert_eq!(full.set(b"a", b"y", 2, How::Update, 1), Ok(()), "it needs no space");
    assert_eq!(full.set(b"d", b"x", 0, How::New, 5), Ok(()), "an expired one goes first");
    shape.lru = true;
    let mut full = table(&shape, &mut memory);
    full.clear();
    fill(&mut full);
    full.get(b"a", 1);
    assert_eq!(full.set(b"d", b"x", 0, How::New, 1), Ok(()));
    assert!(full.exists(b"a", 1) && !full.exists(b"b", 1));
}

#[test]
fn a_full_bitmap_cache_that_is_cleared_holds_each_item_once() {
    let mut shape = shape(4, true);
    (shape.blocks, shape.clear_on_full) = (8, true);
    let mut memory = memory(&shape);
    let mut table = table(&shape, &mut memory);
    for (key, blocks) in [(b"a", 3), (b"b", 2), (b"c", 1)] {
        table.set(key, &vec![1; blocks * 16], 0, How::New, 1).unwrap();
    }
    // There is an item left for it, and no three blocks in a row: everything goes.
    table.set(b"d", &[2; 48], 0, How::New, 1).unwrap();
    for key in [b"e", b"f", b"g"] {
        table.set(key, b"x", 0, How::New, 1).unwrap();
    }
    let mut keys = table.keys(1);
    keys.sort();
    assert_eq!(keys, [b"d", b"e", b"f", b"g"]);
    assert_eq!(table.get(b"d", 1).unwrap(), [2; 48]);
    // No item is left: everything goes again.
    table.set(b"h", b"x", 0, How::New, 1).unwrap();
    assert_eq!((table.keys(1), table.len()), (vec![b"h".to_vec()], 1));
}

#[test]
fn a_cleared_table_has_no_items_left_that_could_go() {
    let mut shape = shape(3, true);
    shape.lru = true;
    let mut memory = memory(&shape);
    let mut table = table(&shape, &mut memory);
    for key in [b"a", b"b", b"c"] {
        table.set(key, b"x", 0, How::New, 1).unwrap();
    }
    table.clear();
    assert_eq!(table.keys(1), Vec::<Vec<u8>>::new());
    table.set(b"d", b"x", 0, How::New, 1).unwrap();
    assert_eq!(table.keys(1), [b"d"]);
    (0..9).for_each(|_| drop(table.get(b"d", 1)));
    // More than what is left: only what is there can go for it.
    table.set(b"e", &[2; 48], 0, How::New, 1).unwrap();
    assert_eq!(table.keys(1), [b"e"]);
    assert_eq!((table.len(), table.get(b"e", 1).unwrap()), (1, vec![2; 48]));
}

#[test]
fn numbers_are_counted() {
    let shape = shape(3, false);
    let mut memory = memory(&shape);
    let mut table = table(&shape, &mut memory);
    let mut count = |operation, by: i64| {
        table.set(b"n", &by.to_ne_bytes(), 0, How::Math(operation), 1).unwrap();
        i64::from_ne_bytes(table.get(b"n", 1).unwrap().try_into().unwrap())
    };
    assert_eq!(count(Operation::Add, 5), 5);
    assert_eq!(count(Operation::Multiply, 4), 20);
    assert_eq!(count(Operation::Subtract, 2), 18);
    assert_eq!(count(Operation::Divide, 3), 6);
    assert_eq!(count(Operation::Divide, 0), 0);
}

/// What a cache does, said as plainly as possible: a list of items, the one that was used least recently first.
struct Model {
    shape: Shape,
    items: Vec<ModelItem>,
}

#[derive(Clone)]
struct ModelItem {
    key: Vec<u8>,
    value: Vec<u8>,
    expires: u64,
    blocks: std::ops::Range<usize>,
}

impl Model {
    fn is_expired(&self, item: &ModelItem, now: u64) -> bool {
        !self.shape.no_expire && item.expires != 0 && item.expires <= now
    }

    fn find(&mut self, key: &[u8], now: u64) -> Option<usize> {
        let at = self.items.iter().position(|item| item.key == key)?;
        if self.is_expired(&self.items[at], now) {
            self.items.remove(at);
            return None;
        }
        Some(at)
    }

    fn get(&mut self, key: &[u8], now: u64) -> Option<Vec<u8>> {
        let at = self.find(key, now)?;
        let item = self.items.remove(at);
        self.items.push(item.clone());
        Some(item.value)
    }

    fn del(&mut self, key: &[u8], now: u64) -> bool {
        self.find(key, now).map(|at| self.items.remove(at)).is_some()
    }

    fn keys(&self, now: u64) -> Vec<Vec<u8>> {
        let mut keys: Vec<_> =
            self.items.iter().filter(|item| !self.is_expired(item, now)).map(|item| item.key.clone()).collect();
        keys.sort();
        keys
    }

    /// The first blocks in a row that are free.
    fn place(&self, len: usize) -> Option<std::ops::Range<usize>> {
        if self.items.len() == self.shape.items as usize {
            return None;
        }
        if !self.shape.bitmap {
            return Some(0..0);
        }
        let (count, most) = (len.div_ceil(self.shape.blocksize as usize), self.shape.blocks as usize);
        let is_free = |wanted: &std::ops::Range<usize>| {
            self.items.iter().all(|item| item.blocks.end <= wanted.start || wanted.end <= item.blocks.start)
        };
        (0..=most.checked_sub(count)?).map(|first| first..first + count).find(is_free)
    }

    /// Whether something has gone.
    fn make_space(&mut self, now: u64) -> bool {
        let before = self.items.len();
        let gone: Vec<_> = self.items.iter().map(|item| self.is_expired(item, now)).collect();
        let mut gone = gone.into_iter();
        self.items.retain(|_| gone.next() == Some(false));
        if self.items.len() == before && before > 0 && self.shape.lru {
            self.items.remove(0);
        } else if self.items.len() == before && self.shape.clear_on_full {
            self.items.clear();
        }
        self.items.len() < before
    }

    fn set(&mut self, key: &[u8], value: &[u8], expires: u64, how: How, now: u64) -> Result<(), NotStored> {
        let most = self.shape.blocksize as usize * if self.shape.bitmap { self.shape.blocks as usize } else { 1 };
        if key.len() > self.shape.keysize as usize || value.len() > most {
            return Err(NotStored::Unfit);
        }
        let found = self.find(key, now);
        if found.is_some() && how == How::New {
            return Err(NotStored::Unfit);
        }
        let old = found.map(|at| self.items.remove(at));
        let (value, expires) = match (how, &old) {
            (How::Math(_), Some(old)) => {
                let by = i64::from_ne_bytes(value.try_into().unwrap());
                let number = old.value.clone().try_into().map_or(self.shape.math_initial, i64::from_ne_bytes);
                (number.wrapping_add(by).to_ne_bytes().to_vec(), old.expires)
            }
            (How::Math(_), None) => {
                let by = i64::from_ne_bytes(value.try_into().unwrap());
                (self.shape.math_initial.wrapping_add(by).to_ne_bytes().to_vec(), expires)
            }
            _ => (value.to_vec(), expires),
        };
        let count = |len: usize| len.div_ceil(self.shape.blocksize as usize);
        // As long as it needs as many blocks as before it stays where it is.
        let same =
            old.as_ref().filter(|old| count(old.value.len()) == count(value.len())).map(|old| old.blocks.clone());
        let blocks = loop {
            if let Some(blocks) = same.clone().or_else(|| self.place(value.len())) {
                break blocks;
            }
            if !self.make_space(now) {
                // What was there stays.
                self.items.extend(old);
                return Err(NotStored::Full);
            }
        };
        self.items.push(ModelItem { key: key.to_vec(), value, expires, blocks });
        Ok(())
    }
}

#[derive(Clone, Debug)]
enum Step {
    Get(u8),
    Exists(u8),
    Del(u8),
    Clear,
    Set { key: u8, len: usize, seconds: u64, how: How },
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let key = 0..9_u8;
    let how = prop_oneof![Just(How::New), Just(How::Update), Just(How::Math(Operation::Add))];
    let seconds = prop_oneof![3 => Just(0), 1 => 1..6_u64];
    let set = (key.clone(), 1..70_usize, seconds, how);
    let step = prop_oneof![
        12 => set.prop_map(|(key, len, seconds, how)| Step::Set { key, len, seconds, how }),
        4 => key.clone().prop_map(Step::Get),
        2 => key.clone().prop_map(Step::Exists),
        4 => key.prop_map(Step::Del),
        1 => Just(Step::Clear),
        2 => (1..4_u64).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..150)
}

prop_compose! {
    fn shapes()(
        (items, more_blocks, hashsize, math_initial) in (1..7_u32, 0..5_u32, 1..4_u32, -3..3_i64),
        (bitmap, lru, clear_on_full, no_expire) in any::<(bool, bool, bool, bool)>(),
    ) -> Shape {
        let blocks = items + more_blocks;
        Shape { items, blocks, hashsize, math_initial, lru, clear_on_full, no_expire, ..shape(items, bitmap) }
    }
}

proptest! {
    /// Whatever is done to a cache of any kind, it answers as the model does.
    #[test]
    fn a_table_does_what_the_model_does(shape in shapes(), steps in steps()) {
        let mut memory = memory(&shape);
        let mut table = table(&shape, &mut memory);
        let mut model = Model { shape: shape.clone(), items: Vec::new() };
        let mut now = 1_000;
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Get(key) => prop_assert_eq!(table.get(&[key], now), model.get(&[key], now)),
                Step::Exists(key) => prop_assert_eq!(table.exists(&[key], now), model.find(&[key], now).is_some()),
                Step::Del(key) => prop_assert_eq!(table.del(&[key], now), model.del(&[key], now)),
                Step::Clear => {
                    table.clear();
                    model.items.clear();
                }
                Step::Set { key, len, seconds, how } => {
                    let value = if matches!(how, How::Math(_)) { (len as i64).to_ne_bytes().to_vec() } else { vec![number as u8; len] };
                    let expires = if seconds == 0 { 0 } else { now + seconds };
                    let expected = model.set(&[key], &value, expires, how, now);
                    prop_assert_eq!(table.set(&[key], &value, expires, how, now), expected);
                }
                Step::Wait(seconds) => now += seconds,
            }
            prop_assert_eq!(table.len(), model.items.len() as u64);
            let mut keys = table.keys(now);
            keys.sort();
            prop_assert_eq!(keys, model.keys(now));
        }
        for key in model.keys(now) {
            prop_assert_eq!(table.get(&key, now), model.get(&key, now));
        }
        // No space was lost on the way.
        table.clear();
        for key in 0..shape.items {
            prop_assert_eq!(table.set(&[key as u8], b"x", 0, How::New, now), Ok(()));
        }
    }
}

proptest! {
    /// A process that writes where it should not must not make the others hang with the lock: what makes no sense is a
    /// panic, after which the table is emptied.
    #[test]
    fn whatever_lies_in_its_memory_every_operation_ends(
        shape in shapes(),
        words in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![0u32..9, any::<u32>()]), 1..40),
        steps in steps(),
    ) {
        let mut memory = memory(&shape);
        let mut now = 1_000;
        for key in 0..shape.items {
            let _ = table(&shape, &mut memory).set(&[key as u8], b"abcdefgh", 1_002, How::New, now);
        }
        for (at, word) in words {
            let halves: &mut [u32] = bytemuck::cast_slice_mut(&mut memory);
            let at = at.index(halves.len());
            halves[at] = word;
        }
        for step in steps {
            let ended = catch_unwind(AssertUnwindSafe(|| {
                let mut table = table(&shape, &mut memory);
                match step {
                    Step::Get(key) => drop(table.get(&[key], now)),
                    Step::Exists(key) => drop(table.exists(&[key], now)),
                    Step::Del(key) => drop(table.del(&[key], now)),
                    Step::Clear => drop(table.keys(now)),
                    Step::Set { key, len, seconds, how } => {
                        let _ = table.set(&[key], &vec![b'x'; len], now + seconds, how, now);
                    }
                    Step::Wait(seconds) => now += seconds,
                }
            }));
            if ended.is_err() {
                table(&shape, &mut memory).clear();
            }
        }
    }
}

#[test]
fn a_panic_lets_the_lock_go_and_empties_the_cache() {
    let cache = Cache::create(&shape(3, false)).unwrap();
    assert_eq!(cache.set(b"a", b"x", 0, How::New), Ok(true));
    let panicked = catch_unwind(AssertUnwindSafe(|| cache.with(|_, _| panic!("on purpose"))));
    assert!(panicked.is_err());
    // Another thread is as good as another process, for the lock.
    let found = std::thread::scope(|scope| scope.spawn(|| cache.get(b"a")).join().unwrap());
    assert_eq!(found, Ok(None), "it was being changed");
    assert_eq!(cache.set(b"a", b"y", 0, How::New), Ok(true));
}

#[test]
fn a_cache_larger_than_any_memory_is_an_error() {
    let mut shape = shape(1 << 30, true);
    (shape.blocks, shape.blocksize) = (1 << 30, 1 << 40);
    assert!(Cache::create(&shape).is_err());
}
