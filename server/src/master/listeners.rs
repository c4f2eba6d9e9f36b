//! Listening sockets: bound once by the master, inherited by every process, closed by nobody until the end.

use std::io;
use std::net::{TcpListener, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::stat::SFlag;
use rwsgi_config::SocketConfig;
use rwsgi_stats::Address;
use thiserror::Error;

use crate::identity::Identity;
use crate::ipc::inherit::InheritedFd;
use crate::owned_file::{Last, Place};

/// A socket that could not be bound.
#[derive(Debug, Error)]
#[error("{option}: cannot listen on '{address}': {error}")]
pub(crate) struct BindError {
    /// The option that asked for it.
    pub option: &'static str,
    /// The address as configured.
    pub address: Address,
    /// Why.
    pub error: io::Error,
}

/// A bound socket.
#[derive(Debug)]
pub(crate) struct Listener {
    /// Where it is bound: the port is the real one when 0 was asked for.
    pub address: Address,
    /// The option that asked for it.
    pub option: &'static str,
    fd: OwnedFd,
}

impl Listener {
    /// The descriptor.
    #[must_use]
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Takes a socket that was opened for this process.
    ///
    /// # Errors
    /// When it cannot be listened on.
    pub(crate) fn adopt(option: &'static str, address: Address, fd: OwnedFd, backlog: u32) -> Result<Self, BindError> {
        match settle(fd, backlog) {
            Ok(fd) => Ok(Self { address, option, fd }),
            Err(error) => Err(BindError { option, address, error }),
        }
    }

    /// Lets the next process inherit the socket.
    ///
    /// # Errors
    /// Never on an open descriptor.
    pub(crate) fn inherit(&self) -> nix::Result<InheritedFd> {
        InheritedFd::lend(self.fd.as_fd())
    }
}

/// Binds `address` for the option of that name, with a backlog of `backlog` connections that wait, as `sockets` asks for.
/// `user` is who the server becomes.
///
/// # Errors
/// When the address cannot be resolved, is in use, or may not be bound.
pub(crate) fn bind(
    option: &'static str,
    address: &Address,
    backlog: u32,
    user: Option<&Identity>,
    sockets: &SocketConfig,
) -> Result<Listener, BindError> {
    let bound = match address {
        Address::Tcp { host, port } => bind_tcp(host, *port, sockets),
        Address::Unix(path) => bind_unix(path, user).map(|fd| (fd, address.clone())),
        Address::Abstract(name) => SocketAddr::from_abstract_name(name)
            .and_then(|name| UnixListener::bind_addr(&name))
            .map(|listener| (listener.into(), address.clone())),
    };
    let (fd, bound_address) = bound
        .and_then(|(fd, bound_address)| Ok((settle(fd, backlog)?, bound_address)))
        .map_err(|error| BindError { option, address: address.clone(), error: explain(address, error) })?;
    Ok(Listener { address: bound_address, option, fd })
}

/// Whether a socket that is bound to `bound` is what `wanted` asks for.
pub(crate) fn same(bound: &Address, wanted: &Address) -> bool {
    match (bound, wanted) {
        (Address::Tcp { host, port }, Address::Tcp { host: name, port: wanted }) if port == wanted => {
            let any = matches!(host.as_str(), "0.0.0.0" | "::") && name.is_empty();
            let resolved = || (name.as_str(), *wanted).to_socket_addrs();
            any || host == name
                || resolved().is_ok_and(|mut found| found.any(|address| address.ip().to_string() == *host))
        }
        (Address::Unix(path), Address::Unix(wanted)) => {
            std::path::absolute(path).ok() == std::path::absolute(wanted).ok()
        }
        _ => bound == wanted,
    }
}

/// Has a bound socket listen, without ever blocking.
fn settle(fd: OwnedFd, backlog: u32) -> io::Result<OwnedFd> {
    // The standard library, or who opened it, listens with a backlog of its own; a second call replaces it. The kernel knows its
    // limit. `nix` has the C library's SOMAXCONN for one, which is 4096 with glibc and 128 with musl, whatever the system allows.
    rustix::net::listen(&fd, i32::try_from(backlog).unwrap_or(i32::MAX))?;
    set_nonblocking(fd.as_fd())?;
    Ok(fd)
}

/// As the standard library binds, with options that must be set before.
fn bind_with(address: std::net::SocketAddr, sockets: &SocketConfig) -> io::Result<TcpListener> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with, sockopt};
    if !sockets.reuse_port && !sockets.freebind {
        return TcpListener::bind(address);
    }
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    sockopt::set_socket_reuseport(&socket, sockets.reuse_port)?;
    match address.is_ipv4() {
        true => sockopt::set_ip_freebind(&socket, sockets.freebind)?,
        false => sockopt::set_ipv6_freebind(&socket, sockets.freebind)?,
    }
    bind(&socket, &address)?;
    listen(&socket, 128)?;
    Ok(socket.into())
}

fn bind_tcp(host: &str, port: u16, sockets: &SocketConfig) -> io::Result<(OwnedFd, Address)> {
    // As uWSGI, a port alone is every IPv4 interface.
    let host = if host.is_empty() { "0.0.0.0" } else { host };
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for resolved in (host, port).to_socket_addrs()? {
        match bind_with(resolved, sockets) {
            Ok(listener) => {
                let port = listener.local_addr()?.port();
                let fd: OwnedFd = listener.into();
                // Accepted connections inherit it: a response is never held back for an acknowledgement.
                setsockopt(&fd, sockopt::TcpNoDelay, &true)?;
                return Ok((fd, Address::Tcp { host: host.to_owned(), port }));
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Has the kernel keep a client until its first byte is there: a process is woken once for a connection and its request, and
/// finds both. Who says nothing is accepted after a second, when the kernel asks again whether the client is there.
///
/// # Errors
/// When the system does not have it.
#[allow(unsafe_code)]
pub(crate) fn defer_accept(listener: BorrowedFd<'_>) -> nix::Result<()> {
    let seconds: libc::c_int = 1;
    let len = size_of_val(&seconds) as libc::socklen_t;
    // SAFETY: the descriptor is open, and the kernel reads one int.
    let outcome = unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw const seconds).cast(),
            len,
        )
    };
    Errno::result(outcome).map(drop)
}

/// Replaces a socket file that nobody listens on any more, but never a living one, nor another kind of file.
fn bind_unix(path: &Path, user: Option<&Identity>) -> io::Result<OwnedFd> {
    let place = Place::find(path, Last::Keep, user)?;
    if let Some(found) = place.look()? {
        if found.kind() != SFlag::S_IFSOCK {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the file exists and is not a socket"));
        }
        match UnixStream::connect(found.path()) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => place.remove()?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            _ => return Err(io::ErrorKind::AddrInUse.into()),
        }
    }
    let bound = {
        let _rights = place.rights()?;
        UnixListener::bind(path).map_err(|error| place.explain(error))?
    };
    // `bind` takes a path, which may have led elsewhere by then.
    match place.look()? {
        Some(found) if found.kind() == SFlag::S_IFSOCK => Ok(bound.into()),
        _ => Err(io::Error::other(
            "another program has changed a directory or link of its path while it was bound: name a path in a directory of root",
        )),
    }
}

fn set_nonblocking(fd: BorrowedFd<'_>) -> nix::Result<()> {
    use nix::fcntl::OFlag;
    let flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    fcntl(fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).map(drop)
}

/// Says what to do about the failures that people meet.
fn explain(address: &Address, error: io::Error) -> io::Error {
    let advice = match (error.kind(), address) {
        (io::ErrorKind::AddrInUse, _) => "another process listens there: stop it, or choose another address",
        (io::ErrorKind::PermissionDenied, Address::Tcp { port, .. }) if *port < 1024 => {
            "ports below 1024 are for root: start as root and set uid, or choose another port"
        }
        (io::ErrorKind::NotFound, Address::Unix(_)) => "the directory does not exist",
        (io::ErrorKind::AddrNotAvailable, _) => "this machine has no such address",
        _ => return error,
    };
    io::Error::new(error.kind(), format!("{error}: {advice}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_file_without_a_listener_is_replaced_and_a_living_one_is_not() {
        let directory = std::env::temp_dir().join(format!("rwsgi-listeners-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("app.sock");
        let address = Address::Unix(path.clone());
        drop(bind("socket", &address, 10, None, &SocketConfig::default()).unwrap());
        let living = bind("socket", &address, 10, None, &SocketConfig::default()).unwrap();
        let error = bind("socket", &address, 10, None, &SocketConfig::default()).unwrap_err().to_string();
        assert!(error.contains("another process listens"), "{error}");
        drop(living);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "precious").unwrap();
        assert!(bind("socket", &address, 10, None, &SocketConfig::default()).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn port_0_becomes_the_port_that_the_system_chose() {
        let listener =
            bind("http-socket", &"127.0.0.1:0".parse().unwrap(), 10, None, &SocketConfig::default()).unwrap();
        let Address::Tcp { port, .. } = listener.address else { panic!("not TCP") };
        assert_ne!(port, 0);
    }
}
