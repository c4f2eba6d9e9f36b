//! A whole request.

use crate::clock::MonotonicNanos;
use crate::io::body::StoredBody;

/// A whole request that waits for a thread.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) head: Vec<u8>,
    pub(super) body: StoredBody,
    /// When it was complete.
    pub(super) since: MonotonicNanos,
}
