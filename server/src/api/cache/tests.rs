use std::collections::BTreeMap;

use proptest::prelude::*;

use super::table::{How, Operation, Refused, Table, size};
use crate::config::Cache;

fn shape(items: u32, bitmap: bool) -> Cache {
    Cache {
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

#[test]
fn what_is_set_is_there_until_it_expires_or_goes() {
    let shape = shape(4, false);
    let mut bytes = vec![0; size(&shape)];
    let mut table = Table::new(&shape, &mut bytes);
    assert_eq!(table.get(b"a", 10), None);
    assert_eq!(table.set(b"a", b"one", 0, How::New, 10), Ok(()));
    assert_eq!(table.set(b"a", b"two", 0, How::New, 10), Err(Refused::Unfit), "there is one");
    assert_eq!(table.get(b"a", 10).unwrap(), b"one");
    assert_eq!(table.set(b"a", b"two", 20, How::Update, 10), Ok(()));
    assert_eq!(table.get(b"a", 19).unwrap(), b"two");
    assert_eq!(table.get(b"a", 20), None, "expired");
    assert_eq!(table.len(), 0);
    assert_eq!(table.set(b"b", &[0; 17], 0, How::New, 10), Err(Refused::Unfit), "larger than a block");
    assert_eq!(table.set(b"123456789", b"x", 0, How::New, 10), Err(Refused::Unfit), "a longer key than fits");
    assert_eq!(table.set(b"b", b"", 0, How::New, 10), Err(Refused::Unfit), "nothing");
}

#[test]
fn a_full_table_refuses_or_lets_the_oldest_go() {
    let mut shape = shape(3, false);
    let mut bytes = vec![0; size(&shape)];
    let fill = |table: &mut Table<'_>| {
        for key in [b"a", b"b", b"c"] {
            table.set(key, b"x", 0, How::Update, 1).unwrap();
        }
    };
    let mut table = Table::new(&shape, &mut bytes);
    fill(&mut table);
    assert_eq!(table.set(b"d", b"x", 0, How::New, 1), Err(Refused::Full));
    assert_eq!(table.set(b"a", b"y", 2, How::Update, 1), Ok(()), "it needs no room");
    assert_eq!(table.set(b"d", b"x", 0, How::New, 5), Ok(()), "an expired one goes first");
    shape.lru = true;
    let mut table = Table::new(&shape, &mut bytes);
    table.clear();
    fill(&mut table);
    table.get(b"a", 1);
    assert_eq!(table.set(b"d", b"x", 0, How::New, 1), Ok(()));
    assert!(table.exists(b"a", 1) && !table.exists(b"b", 1));
}

#[test]
fn numbers_are_counted() {
    let shape = shape(3, false);
    let mut bytes = vec![0; size(&shape)];
    let mut table = Table::new(&shape, &mut bytes);
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

proptest! {
    /// Against a map: whatever is done, the table says the same; and it never loses room.
    #[test]
    fn it_is_a_map(steps in prop::collection::vec((0u8..4, 0u8..6, 1usize..40), 1..200), bitmap: bool) {
        let shape = shape(6, bitmap);
        let mut bytes = vec![0; size(&shape)];
        let mut table = Table::new(&shape, &mut bytes);
        let mut map = BTreeMap::<Vec<u8>, Vec<u8>>::new();
        for (step, (what, key, len)) in steps.into_iter().enumerate() {
            let (key, value) = (vec![key; 3], vec![step as u8; len]);
            match what {
                0 => prop_assert_eq!(table.del(&key, 1), map.remove(&key).is_some()),
                1 => prop_assert_eq!(table.get(&key, 1), map.get(&key).cloned()),
                _ => {
                    let how = if what == 2 { How::New } else { How::Update };
                    if table.set(&key, &value, 0, how, 1).is_ok() {
                        prop_assert!(how == How::Update || !map.contains_key(&key));
                        map.insert(key, value);
                    }
                }
            }
            prop_assert_eq!(table.len(), map.len() as u64);
        }
        let mut keys = table.keys(1);
        keys.sort();
        prop_assert_eq!(keys, map.keys().cloned().collect::<Vec<_>>());
        for key in map.keys() {
            prop_assert!(table.del(key, 1));
        }
        for key in 0..6 {
            prop_assert!(table.set(&[key], b"x", 0, How::New, 1).is_ok());
        }
    }
}
