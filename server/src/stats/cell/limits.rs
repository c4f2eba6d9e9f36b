//! How often clients came up against a limit of the whole server.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// Counted by all processes together: it is rare, and no process takes its part with it when it ends.
#[repr(C, align(64))]
pub struct LimitsCell {
    bodies_refused: AtomicU64,
    slow_clients: AtomicU64,
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

    /// Bodies that got 503.
    pub fn bodies_refused(&self) -> u64 {
        self.bodies_refused.load(Relaxed)
    }

    /// Connections that were closed.
    pub fn slow_clients(&self) -> u64 {
        self.slow_clients.load(Relaxed)
    }
}
