//! What the master orders a worker through the worker's cell in shared memory: a number and a kind in one word. A thread of
//! the worker obeys between two requests, and says through the call socket what came of it.

use std::num::NonZeroU64;

use serde::{Deserialize, Serialize};

/// The number of an order: no two of a server have the same, as long as anybody remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct OrderNumber(u32);

impl OrderNumber {
    /// Before the first.
    pub(crate) const NONE: Self = Self(0);

    /// The one after this.
    pub(crate) fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}

/// What is ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum WorkerOrderKind {
    /// Count the objects that the application has, by type.
    Types = 1,
    /// Begin to record where memory is allocated.
    TraceStart,
    /// Say where it was allocated.
    Trace,
    /// End that.
    TraceStop,
    /// Say what could be saved.
    Savings,
    /// Fork a fork server.
    Refork,
}

/// An order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WorkerOrder {
    /// Which one.
    pub(crate) number: OrderNumber,
    /// What is ordered.
    pub(crate) kind: WorkerOrderKind,
}

impl WorkerOrder {
    /// The word in the cell.
    pub(crate) fn encode(self) -> NonZeroU64 {
        let word = u64::from(self.number.0) << 8 | self.kind as u64;
        // A kind is never 0.
        NonZeroU64::new(word).unwrap_or(NonZeroU64::MIN)
    }

    /// Reads what [`Self::encode`] made; `None` for what it never makes.
    pub(crate) fn decode(word: NonZeroU64) -> Option<Self> {
        use WorkerOrderKind::{Refork, Savings, Trace, TraceStart, TraceStop, Types};
        let kinds = [Types, TraceStart, Trace, TraceStop, Savings, Refork];
        let kind = kinds.into_iter().find(|kind| *kind as u64 == word.get() & 0xff)?;
        Some(Self { number: OrderNumber(u32::try_from(word.get() >> 8).ok()?), kind })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_comes_as_it_was_given() {
        let number = OrderNumber::NONE.next();
        for kind in [WorkerOrderKind::Types, WorkerOrderKind::TraceStop, WorkerOrderKind::Refork] {
            let order = WorkerOrder { number, kind };
            assert_eq!(WorkerOrder::decode(order.encode()), Some(order));
        }
        for nothing in [0x100, 0x1ff, u64::MAX] {
            assert_eq!(WorkerOrder::decode(NonZeroU64::new(nothing).unwrap()), None);
        }
    }
}
