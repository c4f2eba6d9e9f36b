//! The near ends of connections: by which address of ours a client has come.

use std::net::IpAddr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};

use nix::sys::socket::{SockaddrStorage, getsockname};

/// Where connections of ours have an end.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Place {
    Ip(IpAddr, u16),
    Path(std::path::PathBuf),
    Abstract(Vec<u8>),
}

impl Place {
    pub(super) fn of(address: &SockaddrStorage) -> Option<Self> {
        if let Some(v4) = address.as_sockaddr_in() {
            return Some(Self::Ip(v4.ip().into(), v4.port()));
        }
        if let Some(v6) = address.as_sockaddr_in6() {
            // A client of IPv4 at a socket for both.
            return Some(Self::Ip(v6.ip().to_canonical(), v6.port()));
        }
        let unix = address.as_unix_addr()?;
        let path = unix.path().map(|path| Self::Path(path.to_owned()));
        path.or_else(|| unix.as_abstract().map(|name| Self::Abstract(name.to_owned())))
    }

    /// Is a connection with this end from the listener that is bound here?
    pub(super) fn takes_in(&self, end: &Self) -> bool {
        match (self, end) {
            (Self::Ip(any, port), Self::Ip(_, at)) if any.is_unspecified() => port == at,
            _ => self == end,
        }
    }
}

/// Ends here of clients' connections that the http router has handed over: its addresses, which a worker does not know
/// otherwise.
#[derive(Debug, Default)]
pub(super) struct HandedOver(Mutex<Vec<Place>>);

impl HandedOver {
    pub(super) fn note(&self, connection: &OwnedFd) {
        let Some(place) = near_end(connection.as_raw_fd()) else { return };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.contains(&place) {
            known.push(place);
        }
    }

    /// In a child, where nobody unlocks what another thread had locked.
    pub(super) fn has(&self, place: &Place) -> bool {
        self.0.try_lock().is_ok_and(|known| known.contains(place))
    }
}

/// By which address of ours this connection has come; `None` for what is no socket.
pub(super) fn near_end(fd: RawFd) -> Option<Place> {
    getsockname(fd).ok().as_ref().and_then(Place::of)
}
