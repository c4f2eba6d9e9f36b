//! Closing connections, so that a client can tell a whole response from a broken one.

use std::os::fd::AsFd;
use std::time::Duration;

use rustix::net::Shutdown;

/// How long a client that was refused may go on sending what nobody reads: closing at once would make its kernel throw
/// our answer away (RFC 9112 section 9.6).
pub(crate) const LINGER: Duration = Duration::from_secs(2);

/// What becomes of a connection when all is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Then {
    NextRequest,
    Close,
    /// Close, but let the client read our answer first: see [`LINGER`].
    Linger,
}

/// Makes closing an error for the client, so that it does not take half a response for a whole one.
pub(crate) fn reset_on_close(socket: impl AsFd) {
    // Where it does not work (unix sockets) the client sees an end, which is the most that can be done.
    let _ = rustix::net::sockopt::set_socket_linger(socket, Some(Duration::ZERO));
}

/// Signals the client that nothing more comes (FIN), while what it still sends can be read and dropped.
pub(crate) fn shut_sending(socket: impl AsFd) {
    // One that is gone already shows when it is read.
    let _ = rustix::net::shutdown(socket, Shutdown::Write);
}
