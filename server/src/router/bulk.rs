//! What one turn of the loop may spend on the many bytes of few: bodies, files, long responses, what nobody wants. All
//! others wait that long at most; who has not had a share is the first of the next turn. Clients that wait have a share
//! of their own where links that wait have used up the first.

use crate::clock::MonotonicNanos;

/// Bytes of one turn.
pub(super) const BULK_BYTES: u64 = 2 * 1024 * 1024;
/// Time of one turn, ns. What is begun is finished, so that a turn takes that and one read, or one write to a disk.
const BULK_NANOS: u64 = 1_000_000;

/// What is left of a turn's share: no bytes either when its time is over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bulk {
    bytes: u64,
    nanos: u64,
}

impl Bulk {
    /// All of it.
    pub(super) const WHOLE: Self = Self { bytes: BULK_BYTES, nanos: BULK_NANOS };

    /// Whether nothing is left.
    #[inline]
    pub(super) fn is_used_up(self) -> bool {
        self.bytes == 0
    }

    /// So many bytes were moved, and took no time that is worth a look at the clock.
    #[inline]
    pub(super) fn use_bytes(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_sub(bytes as u64);
    }

    /// So many bytes were moved from `before` on.
    pub(super) fn use_since(&mut self, bytes: usize, before: MonotonicNanos) {
        self.use_bytes(bytes);
        self.nanos = self.nanos.saturating_sub(MonotonicNanos::now().nanos_since(before));
        if self.nanos == 0 {
            self.bytes = 0;
        }
    }
}
