//! Numbers that name things, each a type of its own, so that a slot cannot be passed where a worker is meant.
//!
//! Those that people see count from 1 and are never 0; those that are places in a table count from 0. As JSON and on
//! the wire each is a plain number.

use std::fmt;
use std::num::NonZeroU32;

use serde::{Deserialize, Serialize};

/// A place for one worker process on the scoreboard, from 0. A process has it from its fork until it is reaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SlotId(u32);

/// A thread of a worker, from 0. It serves one request at a time; uWSGI and the stats call it a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ThreadIndex(u32);

/// A worker, from 1: it keeps its number over all the processes that it has one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WorkerId(NonZeroU32);

/// A generation (a load of the application), from 1: each reload has the next number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GenerationNumber(NonZeroU32);

/// One process that the master has started or ordered, from 1: no number is ever given twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ChildId(u64);

impl ChildId {
    /// The one of this number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// What counts from 0.
macro_rules! place {
    ($name:ident) => {
        impl $name {
            /// The one at this place of a table.
            #[must_use]
            pub const fn new(index: u32) -> Self {
                Self(index)
            }

            /// The first `count` of them, in order.
            pub fn first(count: u32) -> impl ExactSizeIterator<Item = Self> + DoubleEndedIterator + Clone {
                (0..count as usize).map(|index| Self(index as u32))
            }

            /// The number.
            #[must_use]
            pub const fn get(self) -> u32 {
                self.0
            }

            /// Its place in a table.
            #[must_use]
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

place!(SlotId);
place!(ThreadIndex);

/// What counts from 1.
macro_rules! number {
    ($name:ident) => {
        impl $name {
            /// The first one: 1.
            pub const FIRST: Self = Self(NonZeroU32::MIN);

            /// The one of this number; `None` for 0, which is nobody's.
            #[must_use]
            pub const fn new(number: u32) -> Option<Self> {
                match NonZeroU32::new(number) {
                    Some(number) => Some(Self(number)),
                    None => None,
                }
            }

            /// The number.
            #[must_use]
            pub const fn get(self) -> u32 {
                self.0.get()
            }

            /// The one after it; the last one that there can be stays itself.
            #[must_use]
            pub const fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number!(WorkerId);
number!(GenerationNumber);

impl WorkerId {
    /// The first `count` workers, in order.
    pub fn first(count: u32) -> impl DoubleEndedIterator<Item = Self> + Clone {
        (1..=count).filter_map(Self::new)
    }

    /// Its place in a table of all workers: worker 1 is at 0.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0.get() as usize - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_s_number_is_one_more_than_its_place() {
        let workers: Vec<_> = WorkerId::first(3).collect();
        assert_eq!(
            workers.iter().map(|worker| (worker.get(), worker.index())).collect::<Vec<_>>(),
            [(1, 0), (2, 1), (3, 2)]
        );
        assert_eq!(WorkerId::new(0), None);
        assert_eq!(SlotId::first(2).map(SlotId::index).collect::<Vec<_>>(), [0, 1]);
    }

    #[test]
    fn a_number_is_a_plain_one_on_the_wire_and_zero_is_refused_where_it_is_nobody_s() {
        let worker = WorkerId::new(7).unwrap();
        assert_eq!(serde_json::to_string(&worker).unwrap(), "7");
        assert_eq!(serde_json::from_str::<WorkerId>("7").unwrap(), worker);
        assert!(serde_json::from_str::<WorkerId>("0").is_err());
        assert_eq!(serde_json::from_str::<SlotId>("0").unwrap(), SlotId::new(0));
        assert_eq!(format!("worker {worker} in slot {}", SlotId::new(3)), "worker 7 in slot 3");
    }

    #[test]
    fn generations_grow() {
        assert!(GenerationNumber::FIRST < GenerationNumber::FIRST.next());
        let last = GenerationNumber::new(u32::MAX).unwrap();
        assert_eq!(last.next(), last);
    }
}
