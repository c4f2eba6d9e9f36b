//! A whole request.

use crate::clock::MonotonicNanos;
use crate::io::body::StoredBody;

/// A whole request that waits for a thread.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) head: Vec<u8>,
    pub(super) body: StoredBody,
    pub(super) arrival: Arrival,
}

/// When a request came.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    /// When it was complete.
    pub(super) since: MonotonicNanos,
    /// How long its body took to come, µs.
    pub(super) gathered: u32,
}
