//! The cache's table, as bytes: a hash table of items, and the blocks that their values lie in. Pure: whoever has the
//! bytes is alone with them. All zero is an empty table.

use crate::config::Cache;

/// Bytes of an item before its key.
const ITEM: usize = 48;
/// Bytes before the chains.
const STATE: usize = 64;

/// A number in the bytes, by its offset.
const USED: usize = 0;
/// The first of the items that were used before and are free, plus one.
const FREE: usize = 8;
/// Items that were ever used.
const TOUCHED: usize = 16;
/// Counts uses, to tell which was last.
const CLOCK: usize = 24;
/// No item expires before this, unix seconds; 0 for never.
const EARLIEST: usize = 32;

const HASH: usize = 0;
/// The next item of the chain (or of the free ones), plus one.
const NEXT: usize = 4;
const BLOCK: usize = 8;
const LENGTH: usize = 16;
/// Unix seconds; 0 for never.
const EXPIRES: usize = 24;
const LAST: usize = 32;
const KEY_LENGTH: usize = 40;
const IS_USED: usize = 42;

/// How an item is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Only if there is none.
    New,
    /// In any case.
    Update,
    /// By counting the number that it holds.
    Math(Operation),
}

/// What is done to a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "they say it all")]
pub enum Operation {
    Add,
    Subtract,
    Multiply,
    Divide,
}

/// Why an item could not be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is one, it is too large, or it is empty.
    Unfit,
    /// There is no room left.
    Full,
}

/// How many bytes a table takes.
#[must_use]
pub(super) fn size(shape: &Cache) -> usize {
    Places::of(shape).end
}

/// Where things are.
struct Places {
    items: usize,
    item: usize,
    map: usize,
    data: usize,
    end: usize,
}

impl Places {
    fn of(shape: &Cache) -> Self {
        let items = (STATE + shape.hashsize as usize * 4).next_multiple_of(8);
        let item = (ITEM + shape.keysize as usize).next_multiple_of(8);
        let map = items + shape.items as usize * item;
        let marks = if shape.bitmap { shape.blocks as usize } else { 0 };
        let data = (map + marks).next_multiple_of(4096);
        Self { items, item, map, data, end: data + shape.blocks as usize * shape.blocksize as usize }
    }
}

/// A table, for as long as somebody is alone with it.
pub(super) struct Table<'a> {
    shape: &'a Cache,
    places: Places,
    bytes: &'a mut [u8],
}

fn fnv(key: &[u8]) -> u32 {
    key.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

impl<'a> Table<'a> {
    /// On bytes that are as many as [`size`] says.
    #[must_use]
    pub(super) fn new(shape: &'a Cache, bytes: &'a mut [u8]) -> Self {
        Self { shape, places: Places::of(shape), bytes }
    }

    fn word(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.bytes[at..at + 8].try_into().unwrap_or_default())
    }

    fn set_word(&mut self, at: usize, value: u64) {
        self.bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }

    fn half(&self, at: usize) -> u32 {
        u32::from_le_bytes(self.bytes[at..at + 4].try_into().unwrap_or_default())
    }

    fn set_half(&mut self, at: usize, value: u32) {
        self.bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    fn item(&self, index: u32) -> usize {
        self.places.items + index as usize * self.places.item
    }

    fn chain(&self, hash: u32) -> usize {
        STATE + (hash % self.shape.hashsize) as usize * 4
    }

    fn key(&self, index: u32) -> &[u8] {
        let at = self.item(index);
        let len = u16::from_le_bytes([self.bytes[at + KEY_LENGTH], self.bytes[at + KEY_LENGTH + 1]]);
        &self.bytes[at + ITEM..at + ITEM + len as usize]
    }

    fn is_expired(&self, index: u32, now: u64) -> bool {
        let expires = self.word(self.item(index) + EXPIRES);
        expires != 0 && expires <= now && !self.shape.no_expire
    }

    /// The item of a key. One that has expired goes.
    fn find(&mut self, key: &[u8], now: u64) -> Option<u32> {
        let hash = fnv(key);
        let mut next = self.half(self.chain(hash));
        while next != 0 {
            let index = next - 1;
            let at = self.item(index);
            if self.half(at + HASH) == hash && self.key(index) == key {
                if self.is_expired(index, now) {
                    self.remove(index);
                    return None;
                }
                let clock = self.word(CLOCK) + 1;
                self.set_word(CLOCK, clock);
                self.set_word(at + LAST, clock);
                return Some(index);
            }
            next = self.half(at + NEXT);
        }
        None
    }

    fn value(&self, index: u32) -> &[u8] {
        let at = self.item(index);
        let start = self.places.data + self.word(at + BLOCK) as usize * self.shape.blocksize as usize;
        &self.bytes[start..start + self.word(at + LENGTH) as usize]
    }

    /// A key's value.
    pub(super) fn get(&mut self, key: &[u8], now: u64) -> Option<Vec<u8>> {
        self.find(key, now).map(|index| self.value(index).to_vec())
    }

    /// Whether a key has a value.
    pub(super) fn exists(&mut self, key: &[u8], now: u64) -> bool {
        self.find(key, now).is_some()
    }

    /// Every key, in no order.
    pub(super) fn keys(&self, now: u64) -> Vec<Vec<u8>> {
        let used = (0..self.word(TOUCHED) as u32).filter(|index| self.bytes[self.item(*index) + IS_USED] != 0);
        used.filter(|index| !self.is_expired(*index, now)).map(|index| self.key(index).to_vec()).collect()
    }

    /// How many items there are, expired ones included that nobody has asked for since.
    #[must_use]
    pub(super) fn len(&self) -> u64 {
        self.word(USED)
    }

    /// Takes a key's value away; whether there was one.
    pub(super) fn del(&mut self, key: &[u8], now: u64) -> bool {
        let found = self.find(key, now);
        if let Some(index) = found {
            self.remove(index);
        }
        found.is_some()
    }

    /// Takes everything away.
    pub(super) fn clear(&mut self) {
        self.bytes[..STATE + self.shape.hashsize as usize * 4].fill(0);
        self.bytes[self.places.map..self.places.data].fill(0);
    }

    fn remove(&mut self, index: u32) {
        let at = self.item(index);
        let chain = self.chain(self.half(at + HASH));
        let next = self.half(at + NEXT);
        let mut link = chain;
        while self.half(link) != index + 1 {
            let previous = self.half(link);
            if previous == 0 {
                break;
            }
            link = self.item(previous - 1) + NEXT;
        }
        self.set_half(link, next);
        self.release_blocks(index);
        self.bytes[at + IS_USED] = 0;
        let free = self.word(FREE) as u32;
        self.set_half(at + NEXT, free);
        self.set_word(FREE, u64::from(index) + 1);
        self.set_word(USED, self.word(USED).saturating_sub(1));
    }

    fn blocks_of(&self, len: usize) -> usize {
        len.div_ceil(self.shape.blocksize as usize).max(1)
    }

    fn release_blocks(&mut self, index: u32) {
        if self.shape.bitmap {
            let at = self.item(index);
            let first = self.places.map + self.word(at + BLOCK) as usize;
            let count = self.blocks_of(self.word(at + LENGTH) as usize);
            self.bytes[first..first + count].fill(0);
        }
    }

    /// Takes blocks in a row for a value; `None` when there are none.
    fn take_blocks(&mut self, index: u32, len: usize) -> Option<u64> {
        if !self.shape.bitmap {
            return Some(index.into());
        }
        let wanted = self.blocks_of(len);
        let map = &mut self.bytes[self.places.map..self.places.map + self.shape.blocks as usize];
        let mut run = 0;
        for block in 0..map.len() {
            run = if map[block] == 0 { run + 1 } else { 0 };
            if run == wanted {
                let first = block + 1 - wanted;
                map[first..=block].fill(1);
                return Some(first as u64);
            }
        }
        None
    }

    /// A free item, made free if need be.
    fn take_item(&mut self, now: u64) -> Option<u32> {
        for attempt in 0..2 {
            let free = self.word(FREE) as u32;
            if free != 0 {
                let next = self.half(self.item(free - 1) + NEXT);
                self.set_word(FREE, next.into());
                return Some(free - 1);
            }
            let touched = self.word(TOUCHED) as u32;
            if touched < self.shape.items {
                self.set_word(TOUCHED, u64::from(touched) + 1);
                return Some(touched);
            }
            if attempt == 0 && !self.make_room(now) {
                return None;
            }
        }
        None
    }

    /// Whether something has gone.
    fn make_room(&mut self, now: u64) -> bool {
        // A full table is not looked through for each item that does not fit.
        let may_expire = (1..=now).contains(&self.word(EARLIEST));
        if !may_expire && !self.shape.lru {
            if self.shape.clear_on_full {
                self.clear();
            }
            return self.shape.clear_on_full;
        }
        let used: Vec<u32> =
            (0..self.word(TOUCHED) as u32).filter(|index| self.bytes[self.item(*index) + IS_USED] != 0).collect();
        let expired: Vec<u32> = used.iter().copied().filter(|index| self.is_expired(*index, now)).collect();
        let left = used.iter().map(|index| self.word(self.item(*index) + EXPIRES)).filter(|expires| *expires > now);
        let earliest = left.min().unwrap_or(0);
        self.set_word(EARLIEST, earliest);
        if !expired.is_empty() {
            expired.into_iter().for_each(|index| self.remove(index));
            return true;
        }
        if self.shape.lru
            && let Some(oldest) = used.into_iter().min_by_key(|index| self.word(self.item(*index) + LAST))
        {
            self.remove(oldest);
            return true;
        }
        if self.shape.clear_on_full {
            self.clear();
        }
        self.shape.clear_on_full
    }

    /// Sets a key's value. `expires` is unix seconds, 0 for never. With [`How::Math`] the value is eight bytes, a number
    /// of this machine's, and an item that exists keeps its time.
    ///
    /// # Errors
    /// See [`Refused`].
    pub(super) fn set(&mut self, key: &[u8], value: &[u8], expires: u64, how: How, now: u64) -> Result<(), Refused> {
        let most = self.shape.blocksize as usize * if self.shape.bitmap { self.shape.blocks as usize } else { 1 };
        if key.is_empty() || value.is_empty() || key.len() > self.shape.keysize as usize || value.len() > most {
            return Err(Refused::Unfit);
        }
        let found = self.find(key, now);
        if found.is_some() && how == How::New {
            return Err(Refused::Unfit);
        }
        let counted;
        let value = match how {
            How::Math(operation) => {
                let old = found.map(|index| self.value(index).try_into().map(i64::from_ne_bytes));
                // What is no number counts from the beginning.
                let old = old.and_then(Result::ok).unwrap_or(self.shape.math_initial);
                let by = value.try_into().map(i64::from_ne_bytes).map_err(|_| Refused::Unfit)?;
                counted = operation.apply(old, by).to_ne_bytes();
                &counted[..]
            }
            How::New | How::Update => value,
        };
        let index = match found {
            Some(index) => {
                self.replace(index, value.len(), now)?;
                index
            }
            None => self.insert(key, value.len(), now)?,
        };
        let at = self.item(index);
        if found.is_none() || !matches!(how, How::Math(_)) {
            self.set_word(at + EXPIRES, expires);
            let earliest = self.word(EARLIEST);
            if expires != 0 && (earliest == 0 || expires < earliest) {
                self.set_word(EARLIEST, expires);
            }
        }
        let start = self.places.data + self.word(at + BLOCK) as usize * self.shape.blocksize as usize;
        self.bytes[start..start + value.len()].copy_from_slice(value);
        Ok(())
    }

    fn replace(&mut self, index: u32, len: usize, _now: u64) -> Result<(), Refused> {
        let at = self.item(index);
        let (block, old) = (self.word(at + BLOCK), self.word(at + LENGTH) as usize);
        if self.shape.bitmap && self.blocks_of(len) != self.blocks_of(old) {
            self.release_blocks(index);
            let Some(first) = self.take_blocks(index, len) else {
                // What was there stays.
                let first = self.places.map + block as usize;
                let count = self.blocks_of(old);
                self.bytes[first..first + count].fill(1);
                return Err(Refused::Full);
            };
            self.set_word(at + BLOCK, first);
        }
        self.set_word(at + LENGTH, len as u64);
        Ok(())
    }

    fn insert(&mut self, key: &[u8], len: usize, now: u64) -> Result<u32, Refused> {
        let index = self.take_item(now).ok_or(Refused::Full)?;
        let at = self.item(index);
        let mut block = self.take_blocks(index, len);
        if block.is_none() && self.make_room(now) {
            block = self.take_blocks(index, len);
        }
        let Some(block) = block else {
            let free = self.word(FREE) as u32;
            self.set_half(at + NEXT, free);
            self.set_word(FREE, u64::from(index) + 1);
            return Err(Refused::Full);
        };
        let hash = fnv(key);
        let chain = self.chain(hash);
        let clock = self.word(CLOCK) + 1;
        self.set_word(CLOCK, clock);
        self.set_half(at + HASH, hash);
        self.set_half(at + NEXT, self.half(chain));
        self.set_half(chain, index + 1);
        self.set_word(at + BLOCK, block);
        self.set_word(at + LENGTH, len as u64);
        self.set_word(at + LAST, clock);
        self.bytes[at + KEY_LENGTH..at + KEY_LENGTH + 2].copy_from_slice(&(key.len() as u16).to_le_bytes());
        self.bytes[at + IS_USED] = 1;
        self.bytes[at + ITEM..at + ITEM + key.len()].copy_from_slice(key);
        self.set_word(USED, self.word(USED) + 1);
        Ok(index)
    }
}

impl Operation {
    fn apply(self, old: i64, by: i64) -> i64 {
        match self {
            Self::Add => old.wrapping_add(by),
            Self::Subtract => old.wrapping_sub(by),
            Self::Multiply => old.wrapping_mul(by),
            // As uWSGI has it.
            Self::Divide if by == 0 => 0,
            Self::Divide => old.wrapping_div(by),
        }
    }
}
