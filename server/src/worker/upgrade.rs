//! Takes a client's connection over from the http router, for WebSocket.

use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;

use super::near_end::HandedOver;
use crate::io::pass_fd::receive_fd;
use rwsgi_protocol::link::Hello;

/// The longest wait for the router to hand a client over.
const HAND_OVER: Duration = Duration::from_secs(5);

/// Connects to the http router and sends `hello`.
///
/// # Errors
/// When the router is gone.
pub(super) fn say_hello(router: &str, hello: Hello) -> anyhow::Result<UnixStream> {
    let address = SocketAddr::from_abstract_name(router)?;
    let mut stream = UnixStream::connect_addr(&address).context("cannot connect to the http router")?;
    stream.write_all(&hello.encode()).context("cannot send the hello to the http router")?;
    Ok(stream)
}

/// How a thread gets the connection of the client whose request came over its link: the http router sends the descriptor.
pub(super) struct UpgradePath {
    /// The abstract name of the router's socket.
    router: String,
    hello: Hello,
    handed_over: Arc<HandedOver>,
}

impl UpgradePath {
    pub(super) fn new(router: String, hello: Hello, handed_over: Arc<HandedOver>) -> Self {
        Self { router, hello, handed_over }
    }

    /// The connection of the client whose request this thread serves.
    ///
    /// # Errors
    /// When the router is gone, or refuses.
    pub(super) fn take_client(&self) -> io::Result<OwnedFd> {
        let stream = say_hello(&self.router, self.hello).map_err(io::Error::other)?;
        stream.set_read_timeout(Some(HAND_OVER))?;
        let refused =
            "the http router does not hand the client's connection over: it sent more than its request, or is gone";
        let client = receive_fd(&stream)?.ok_or_else(|| io::Error::other(refused))?;
        self.handed_over.note(&client);
        Ok(client)
    }
}
