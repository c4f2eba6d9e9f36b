//! Sockets that were opened for this process before it was started, as `sd_listen_fds(3)` has it.
//!
//! Ours rather than the crate `listenfd`: that takes the variables away, which a reload reads again, and takes sockets
//! that were opened for another process.

#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{SockaddrStorage, getsockname, getsockopt, sockopt};
use nix::unistd::dup2_stdin;
use rwsgi_stats::Address;
use tracing::warn;

/// The first inherited descriptor.
const FIRST: i32 = 3;

/// Sockets that were opened for this process before it was started.
#[derive(Debug, Default)]
pub(super) struct Inherited(Vec<(Address, OwnedFd)>);

impl Inherited {
    /// Takes the descriptors that the environment names. To be called once, before anything else is opened.
    pub(super) fn take() -> Self {
        let number = |name| std::env::var(name).ok().and_then(|value| value.parse::<u32>().ok());
        let standard_input = take_standard_input();
        if number("LISTEN_PID") != Some(std::process::id()) {
            return Self(standard_input.into_iter().collect());
        }
        let count = i32::try_from(number("LISTEN_FDS").unwrap_or(0)).unwrap_or(0);
        let sockets = (FIRST..FIRST.saturating_add(count)).filter_map(|fd| {
            // SAFETY: nothing closes it while it is borrowed here; a closed descriptor gives an error.
            let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
            if let Err(error) = fcntl(borrowed, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)) {
                warn!("LISTEN_FDS: descriptor {fd} was not passed on: {error}");
                return None;
            }
            // What is no socket may be this server's own: the promise was broken, and the number taken since.
            let Some(address) = address_of(borrowed) else {
                warn!("LISTEN_FDS: descriptor {fd} is no TCP or unix socket");
                return None;
            };
            // SAFETY: it is open, and the protocol gives it to this process, which binds nothing before.
            let fd = unsafe { OwnedFd::from_raw_fd(fd) };
            Some((address, fd))
        });
        Self(standard_input.into_iter().chain(sockets).collect())
    }

    /// The socket that is bound to one of these addresses.
    pub(super) fn find(&mut self, wanted: impl Fn(&Address) -> bool) -> Option<(Address, OwnedFd)> {
        let index = self.0.iter().position(|(address, _)| wanted(address))?;
        Some(self.0.remove(index))
    }
}

/// The socket that is this process's standard input, as an emperor gives it to a vassal that starts on demand.
/// `/dev/null` takes its place.
fn take_standard_input() -> Option<(Address, OwnedFd)> {
    let input = std::io::stdin();
    if !getsockopt(&input, sockopt::AcceptConn).unwrap_or(false) {
        return None;
    }
    let address = address_of(input.as_fd())?;
    let fd = input.as_fd().try_clone_to_owned().ok()?;
    dup2_stdin(std::fs::File::open("/dev/null").ok()?).ok()?;
    Some((address, fd))
}

fn address_of(fd: BorrowedFd<'_>) -> Option<Address> {
    let name: SockaddrStorage = getsockname(fd.as_raw_fd()).ok()?;
    if let Some(v4) = name.as_sockaddr_in() {
        return Some(Address::Tcp { host: v4.ip().to_string(), port: v4.port() });
    }
    if let Some(v6) = name.as_sockaddr_in6() {
        return Some(Address::Tcp { host: v6.ip().to_string(), port: v6.port() });
    }
    let unix = name.as_unix_addr()?;
    match (unix.path(), unix.as_abstract()) {
        (Some(path), _) => Some(Address::Unix(path.to_path_buf())),
        (None, Some(name)) => Some(Address::Abstract(String::from_utf8_lossy(name).into_owned())),
        _ => None,
    }
}
