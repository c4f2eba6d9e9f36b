//! What a worker process reports of itself as a whole.

use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{Acquire, Release};

/// One process of a worker: written by that process, but for what the master tells it.
#[repr(C, align(64))]
pub struct WorkerCell {
    accepting: AtomicU32,
    /// The master's word.
    drained: AtomicU32,
}

impl WorkerCell {
    /// Whether the worker takes new requests.
    pub fn set_accepting(&self, accepting: bool) {
        self.accepting.store(accepting.into(), Release);
    }

    /// Whether the worker is to take no new requests.
    pub fn set_drained(&self, drained: bool) {
        self.drained.store(drained.into(), Release);
    }

    /// Whether the worker is to take no new requests.
    pub fn drained(&self) -> bool {
        self.drained.load(Acquire) != 0
    }

    /// Whether the worker takes new requests.
    pub fn accepting(&self) -> bool {
        self.accepting.load(Acquire) != 0
    }
}
