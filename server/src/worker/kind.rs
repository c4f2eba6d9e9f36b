//! What is spoken on a connection.

use crate::ids::ThreadIndex;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// HTTP/1.
    Http,
    /// The uwsgi protocol: one request, then it is over.
    Uwsgi,
    /// With the router, for this thread.
    Link(ThreadIndex),
}
