//! New connections: who they are from, and where they came in.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockaddrLike, SockaddrStorage, accept4, getpeername, getsockname, getsockopt, setsockopt,
    sockopt,
};

use crate::protocol::link::Peer;

/// A listening socket of clients.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) fd: OwnedFd,
    /// Connections have addresses worth asking for.
    tcp: bool,
}

impl Listener {
    /// Takes a bound, listening socket.
    pub(super) fn new(fd: OwnedFd) -> nix::Result<Self> {
        nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK))?;
        let tcp = getsockname::<SockaddrStorage>(fd.as_raw_fd())?.family() != Some(AddressFamily::Unix);
        if tcp {
            // Inherited by what is accepted.
            setsockopt(&fd, sockopt::TcpNoDelay, &true)?;
        }
        Ok(Self { fd, tcp })
    }

    /// The next connection and the text of its [`crate::protocol::link::Peer`]. `None` when there is none.
    pub(super) fn accept(&self) -> nix::Result<Option<(OwnedFd, Box<[u8]>)>> {
        let Some(fd) = accept(&self.fd)? else { return Ok(None) };
        let peer = if self.tcp { peer_text(&fd) } else { Some(Peer::text(None, "", "")) };
        // Without a peer the connection is broken already; the next one may not be.
        match peer {
            Some(peer) => Ok(Some((fd, peer.into_bytes().into_boxed_slice()))),
            None => self.accept(),
        }
    }
}

/// The next connection, not blocking; `None` when there is none.
pub(super) fn accept(listener: &impl AsFd) -> nix::Result<Option<OwnedFd>> {
    loop {
        match accept4(listener.as_fd().as_raw_fd(), SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK) {
            Ok(fd) => return Ok(Some(owned(fd))),
            // The client gave up while it waited in the backlog.
            Err(Errno::EINTR | Errno::ECONNABORTED | Errno::EPROTO) => {}
            Err(Errno::EAGAIN) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

#[allow(unsafe_code)]
fn owned(fd: i32) -> OwnedFd {
    // SAFETY: accept4 has just made it, and nobody else knows of it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

fn peer_text(fd: &OwnedFd) -> Option<String> {
    let client = address(&getpeername(fd.as_raw_fd()).ok()?)?;
    let (server_addr, server_port) = address(&getsockname(fd.as_raw_fd()).ok()?)?;
    Some(Peer::text(Some(client), server_addr, server_port))
}

fn address(address: &SockaddrStorage) -> Option<(IpAddr, u16)> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some((v4.ip().into(), v4.port()));
    }
    // An address of IPv4 on a socket that takes both is shown as what it is.
    address.as_sockaddr_in6().map(|v6| (v6.ip().to_canonical(), v6.port()))
}

/// The process at the other end of a unix socket: its id and its user.
pub(super) fn credentials(fd: &OwnedFd) -> nix::Result<(libc::pid_t, libc::uid_t)> {
    getsockopt(fd, sockopt::PeerCredentials).map(|credentials| (credentials.pid(), credentials.uid()))
}
