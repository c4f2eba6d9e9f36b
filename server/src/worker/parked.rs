//! The memory of finished responses that wait for slow clients without a thread: up to [`MEMORY_MAX`] for a worker process.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// Bytes of finished responses that may wait in the memory of one process.
const MEMORY_MAX: u64 = 64 * 1024 * 1024;

/// Bytes that wait in this worker's memory.
#[derive(Debug, Default)]
pub(super) struct ParkedMemory(Arc<AtomicU64>);

/// The bytes of one connection, counted until this is dropped.
#[derive(Debug)]
pub(super) struct Parked {
    bytes: u64,
    all: Arc<AtomicU64>,
}

impl ParkedMemory {
    /// Counts `bytes`; `None` when that exceeds [`MEMORY_MAX`].
    pub(super) fn take(&self, bytes: u64) -> Option<Parked> {
        let parked = Parked { bytes, all: Arc::clone(&self.0) };
        (self.0.fetch_add(bytes, Relaxed) + bytes <= MEMORY_MAX).then_some(parked)
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_connections_together_have_no_more_than_the_limit() {
        let memory = ParkedMemory::default();
        let first = memory.take(MEMORY_MAX - 10).unwrap();
        let second = memory.take(10).unwrap();
        assert!(memory.take(1).is_none());
        drop(second);
        assert!(memory.take(11).is_none() && memory.take(10).is_some());
        drop(first);
        assert!(memory.take(MEMORY_MAX).is_some());
    }
}
