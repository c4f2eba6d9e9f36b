//! Accepting a connection and learning who it is from, in one system call.

#![allow(unsafe_code)]

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;

/// A client's IP address and port; `None` for a unix socket's.
pub(super) type Client = Option<(IpAddr, u16)>;

/// Accepts one connection, non-blocking and closed on exec; its client's address and port, if it has those. `None`
/// when nobody waits.
pub(super) fn accept(listener: BorrowedFd<'_>) -> io::Result<Option<(OwnedFd, Client)>> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    loop {
        // SAFETY: all-zero is a valid `sockaddr_storage`.
        let mut address: libc::sockaddr_storage = unsafe { std::mem::zeroed() };
        let mut len = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
        // SAFETY: the pointers are to locals that live through the call, and `len` is the room that `address` has.
        let fd = unsafe { libc::accept4(listener.as_raw_fd(), (&raw mut address).cast(), &raw mut len, flags) };
        if fd >= 0 {
            // SAFETY: the kernel just made it for us.
            let socket = unsafe { OwnedFd::from_raw_fd(fd) };
            return Ok(Some((socket, ip_of(&address))));
        }
        match Errno::last() {
            Errno::EAGAIN => return Ok(None),
            // A client that gave up while it waited is none of ours.
            Errno::EINTR | Errno::ECONNABORTED | Errno::EPROTO => {}
            error => return Err(error.into()),
        }
    }
}

fn ip_of(address: &libc::sockaddr_storage) -> Client {
    match i32::from(address.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says which structure the kernel wrote; the storage is large and aligned enough.
            let v4 = unsafe { &*(&raw const *address).cast::<libc::sockaddr_in>() };
            Some((IpAddr::from(v4.sin_addr.s_addr.to_ne_bytes()), u16::from_be(v4.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let v6 = unsafe { &*(&raw const *address).cast::<libc::sockaddr_in6>() };
            Some((IpAddr::from(v6.sin6_addr.s6_addr), u16::from_be(v6.sin6_port)))
        }
        _ => None,
    }
}
