//! The memory of finished responses that wait for their clients, for which no thread waits. A whole worker process has no
//! more than [`MEMORY_MAX`] of it.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// What may wait in the memory of a process, bytes.
const MEMORY_MAX: u64 = 64 * 1024 * 1024;

/// What waits in a worker's memory.
#[derive(Debug, Default)]
pub(super) struct ParkedMemory(Arc<AtomicU64>);

/// One connection's part of it, until this is dropped.
#[derive(Debug)]
pub(super) struct Parked {
    bytes: u64,
    all: Arc<AtomicU64>,
}

impl ParkedMemory {
    /// Takes so many bytes; `None` where that is too much.
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
