//! The bytes and time that one turn of the loop may spend on bulk bytes: bodies, files, long responses, discarded input.
//! Other clients wait that long at most. A connection that got none of it is first in the next turn. When links have used
//! it up, waiting clients have as much again.

use crate::clock::MonotonicNanos;

/// Bytes for one turn.
pub(super) const BULK_BYTES: u64 = 2 * 1024 * 1024;
/// Time for one turn, ns. A read or write that has begun is finished, so a turn may take that much longer.
const BULK_NANOS: u64 = 1_000_000;

/// What is left for this turn. When the time is used up, no bytes are left either.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bulk {
    bytes: u64,
    nanos: u64,
}

impl Bulk {
    /// At the beginning of a turn.
    pub(super) const WHOLE: Self = Self { bytes: BULK_BYTES, nanos: BULK_NANOS };

    /// Whether nothing is left.
    #[inline]
    pub(super) fn is_used_up(self) -> bool {
        self.bytes == 0
    }

    /// Takes off `bytes`, for a transfer too short to be worth a look at the clock.
    #[inline]
    pub(super) fn use_bytes(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes as u64);
    }

    /// Takes off `bytes`, and the time since `before`.
    pub(super) fn use_since(&mut self, bytes: usize, before: MonotonicNanos) {
        self.use_bytes(bytes);
        self.nanos = self.nanos.saturating_sub(MonotonicNanos::now().nanos_since(before));
        if self.nanos == 0 {
            self.bytes = 0;
        }
    }
}
