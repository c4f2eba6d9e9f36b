//! Finished responses that wait for slow clients without a thread. Up to [`MEMORY_MAX`] of a worker process they stay in
//! memory, the rest goes to temporary files. When those have no space, the thread waits for the client.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use pyo3::prelude::*;

use super::connection::Connection;
use super::worker_thread::WorkerThread;
use crate::io::temp::log_response_not_kept;

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
    fn take(&self, bytes: u64) -> Option<Parked> {
        let parked = Parked { bytes, all: Arc::clone(&self.0) };
        (self.0.fetch_add(bytes, Relaxed) + bytes <= MEMORY_MAX).then_some(parked)
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes, Relaxed);
    }
}

impl WorkerThread {
    /// Has a finished response wait for its client, in memory or in a file.
    ///
    /// # Errors
    /// When the thread had to wait for the client, and the client is gone or too slow.
    pub(super) fn park(&self, py: Python<'_>, connection: &mut Connection) -> std::io::Result<()> {
        connection.parked = self.worker.parked.take(connection.unsent.in_memory());
        if connection.parked.is_some() {
            return Ok(());
        }
        py.detach(|| match connection.unsent.move_to_file(&self.worker.temp) {
            Ok(()) => Ok(()),
            Err(problem) => {
                log_response_not_kept(&problem);
                connection.wait_until_sent()
            }
        })
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
