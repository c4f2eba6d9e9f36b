//! Counts of clients that a limit of the whole server stopped, and what the log tells.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};

/// One for all processes: they count rarely, and no count is lost when a process ends.
#[repr(C, align(64))]
pub struct LimitsCell {
    bodies_refused: AtomicU64,
    slow_clients: AtomicU64,
    /// The master's word; 0 for what is so without it.
    log_level: AtomicU32,
    /// The master's word; 0 for connections that are kept for the next request.
    closes: AtomicU32,
}

impl LimitsCell {
    /// A body got 503 because temporary files had no space for it.
    pub fn refuse_body(&self) {
        self.bodies_refused.fetch_add(1, Relaxed);
    }

    /// A connection was closed because its client was too slow (`body-min-rate`, `response-min-rate`).
    pub fn end_slow_client(&self) {
        self.slow_clients.fetch_add(1, Relaxed);
    }

    /// From now on the log tells this much: 1 for errors alone, to 4.
    pub fn set_log_level(&self, level: u32) {
        self.log_level.store(level, Relaxed);
    }

    /// From now on no connection is kept for another request: the server drains.
    pub fn close_connections(&self) {
        self.closes.store(1, Relaxed);
    }

    /// Whether a connection is closed after its response.
    pub fn closes_connections(&self) -> bool {
        self.closes.load(Relaxed) != 0
    }

    /// How much the log tells; 0 when nobody has said.
    pub fn log_level(&self) -> u32 {
        self.log_level.load(Relaxed)
    }

    /// Bodies that got 503.
    pub fn bodies_refused(&self) -> u64 {
        self.bodies_refused.load(Relaxed)
    }

    /// Connections that were closed.
    pub fn slow_clients(&self) -> u64 {
        self.slow_clients.load(Relaxed)
    }
}
