//! The supervisor: notifies systemd by `sd_notify(3)`.
//!
//! Ours rather than the crate `sd-notify`: that waits for systemd to read, and knows no abstract sockets.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use tracing::warn;

/// The way to systemd, if it is there.
#[derive(Debug, Default)]
pub(crate) struct Supervisor {
    socket: Option<UnixDatagram>,
    /// How often it wants a keep-alive.
    pub(crate) watchdog: Option<Duration>,
    /// It was notified that the server is ready.
    pub(crate) is_ready: bool,
    /// Requests that were counted at the last status, and when that was.
    pub(crate) counted: Option<(u64, Instant)>,
}

impl Supervisor {
    /// Finds out from the environment.
    pub(crate) fn find() -> Self {
        let Some(path) = std::env::var("NOTIFY_SOCKET").ok().filter(|path| !path.is_empty()) else {
            return Self::default();
        };
        let connect = || {
            let address = match path.strip_prefix('@') {
                Some(name) => SocketAddr::from_abstract_name(name)?,
                None => SocketAddr::from_pathname(&path)?,
            };
            let socket = UnixDatagram::unbound()?;
            socket.connect_addr(&address)?;
            socket.set_nonblocking(true)?;
            std::io::Result::Ok(socket)
        };
        let socket = connect().map_err(|error| warn!("NOTIFY_SOCKET: cannot connect to '{path}': {error}")).ok();
        let number = |name| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
        let for_us = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let watchdog = number("WATCHDOG_USEC").filter(|usec| *usec > 0 && for_us).map(Duration::from_micros);
        Self { watchdog: watchdog.filter(|_| socket.is_some()), socket, ..Self::default() }
    }

    /// Whether somebody listens.
    pub(crate) fn is_there(&self) -> bool {
        self.socket.is_some()
    }

    /// Sends a notification. A systemd that is gone is no error.
    pub(crate) fn notify(&self, what: &str) {
        if let Some(socket) = &self.socket {
            let _ = socket.send(what.as_bytes());
        }
    }
}
