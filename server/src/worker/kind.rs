//! Who is at the other end of a connection, and what is spoken with them.

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
