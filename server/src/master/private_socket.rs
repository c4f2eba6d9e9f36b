//! The socket for links between workers and the http router: its name is chosen by the kernel, and a secret guards it.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::Context;
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, getsockname, listen, socket};

use crate::ipc::LinkEndpoint;

/// The socket that the router accepts workers from, and how they find it.
#[derive(Debug)]
pub(super) struct PrivateSocket {
    /// The listening socket; `None` once no router will accept from it any more.
    pub(super) listener: Option<OwnedFd>,
    /// What workers need to connect to it.
    pub(super) endpoint: LinkEndpoint,
}

impl PrivateSocket {
    /// Binds one.
    ///
    /// # Errors
    /// When the system has no descriptor or no randomness left.
    pub(super) fn bind() -> anyhow::Result<Self> {
        let mut token = [0; 16];
        getrandom::fill(&mut token).context("cannot make the http router's secret")?;
        let (listener, name) = listen_anywhere().context("cannot bind the http router's private socket")?;
        Ok(Self { listener: Some(listener), endpoint: LinkEndpoint { name, token } })
    }
}

/// A listening unix socket, and its abstract name: one that nobody has, which the kernel chooses (unix(7), "autobind").
/// So nobody can have taken it before, in whatever network namespace this is, with whatever process ids.
fn listen_anywhere() -> io::Result<(OwnedFd, String)> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let listener = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    bind(listener.as_raw_fd(), &UnixAddr::new_unnamed())?;
    listen(&listener, Backlog::MAXALLOWABLE)?;
    let bound: UnixAddr = getsockname(listener.as_raw_fd())?;
    let name = bound.as_abstract().and_then(|name| std::str::from_utf8(name).ok());
    let name = name.ok_or_else(|| io::Error::other("the kernel has chosen no name that can be passed on"))?;
    Ok((listener, name.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixStream};

    use super::*;

    #[test]
    fn each_has_a_name_and_a_secret_of_its_own_and_can_be_found() {
        let sockets = [PrivateSocket::bind().unwrap(), PrivateSocket::bind().unwrap()];
        let [first, second] = sockets.each_ref().map(|socket| &socket.endpoint);
        assert_ne!(first.name, second.name);
        assert_ne!(first.token, second.token);
        for endpoint in [first, second] {
            let address = SocketAddr::from_abstract_name(&endpoint.name).unwrap();
            UnixStream::connect_addr(&address).unwrap();
        }
    }
}
