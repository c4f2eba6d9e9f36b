//! The peer of a connection (a client or the router) and its protocol.

use crate::ids::ThreadIndex;
use rwsgi_protocol::SocketProtocol;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A client, or its proxy. After one request of the uwsgi protocol it is over.
    Client(SocketProtocol),
    /// The http router, for this thread.
    Link(ThreadIndex),
}
