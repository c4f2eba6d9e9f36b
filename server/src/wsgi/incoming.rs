//! A request as it came in.

use rwsgi_protocol::http::Head;
use rwsgi_protocol::link::Peer;
use rwsgi_protocol::uwsgi;

/// A request as it came in: what its environ is made of.
pub enum Incoming<'a> {
    /// HTTP, and what is known of the connection.
    Http {
        /// The head.
        head: &'a Head<'a, 'a>,
        /// The connection's ends.
        peer: Peer<'a>,
        /// Length of the body, if there is one.
        body_len: Option<u64>,
    },
    /// A uwsgi packet.
    Uwsgi(&'a uwsgi::Packet<'a>),
}
