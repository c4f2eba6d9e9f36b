//! Who watches over the server: systemd is told how it stands, and may have opened its sockets before.
//!
//! The words are those of `sd_notify(3)` and `sd_listen_fds(3)`; both are simple enough to need no library.

#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{SockaddrStorage, getsockname};
use rwsgi_stats::Address;
use tracing::warn;

use super::Master;
use super::shutdown::Phase;
use crate::ids::SlotId;

/// The variables that are for this process alone.
pub(super) const VARIABLES: [&str; 6] =
    ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"];

/// How often the status is told.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);
/// The first inherited descriptor.
const FIRST: i32 = 3;

/// The way to systemd, if it is there.
#[derive(Debug, Default)]
pub(super) struct Supervisor {
    socket: Option<UnixDatagram>,
    /// How often it wants a sign of life.
    watchdog: Option<Duration>,
    /// When it is told something next.
    pub(super) due: Option<Instant>,
    alive_due: Option<Instant>,
    status_due: Option<Instant>,
    /// Requests that were counted at the last status, and when that was.
    counted: Option<(u64, Instant)>,
    ready: bool,
}

impl Supervisor {
    /// Finds out from the environment.
    pub(super) fn find() -> Self {
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
        let now = Instant::now();
        let due = socket.is_some().then_some(now);
        Self { socket, watchdog, due, alive_due: watchdog.and(due), status_due: due, ..Self::default() }
    }

    /// Tells something; systemd may have gone, which harms nobody.
    pub(super) fn tell(&self, what: &str) {
        if let Some(socket) = &self.socket {
            let _ = socket.send(what.as_bytes());
        }
    }
}

impl Master {
    /// Tells the supervisor that the first worker serves, or the next generation.
    pub(super) fn tell_ready(&mut self) {
        if !std::mem::replace(&mut self.supervisor.ready, true) {
            self.supervisor.tell("READY=1");
            self.supervisor.status_due = self.supervisor.socket.as_ref().map(|_| Instant::now());
            self.supervisor.due = self.supervisor.status_due;
        }
    }

    /// Tells the supervisor that the configuration is read again.
    pub(super) fn tell_reloading(&mut self) {
        self.supervisor.ready = false;
        self.supervisor.tell(&format!("RELOADING=1\nMONOTONIC_USEC={}", crate::stats::clock::monotonic() / 1_000));
    }

    /// Tells the supervisor what is due.
    pub(super) fn tell_supervisor(&mut self, now: Instant) {
        if self.supervisor.due.is_none_or(|due| due > now) {
            return;
        }
        if self.supervisor.alive_due.is_some_and(|due| due <= now) {
            self.supervisor.tell("WATCHDOG=1");
            self.supervisor.alive_due = self.supervisor.watchdog.map(|every| now + every / 2);
        }
        if self.supervisor.status_due.is_some_and(|due| due <= now) {
            let status = self.status_line(now);
            self.supervisor.tell(&format!("STATUS={status}"));
            self.supervisor.status_due = Some(now + STATUS_INTERVAL);
        }
        self.supervisor.due = self.supervisor.alive_due.into_iter().chain(self.supervisor.status_due).min();
    }

    fn status_line(&mut self, now: Instant) -> String {
        let (mut busy, mut idle, mut requests) = (0, 0, 0);
        for life in self.pool.lives.iter().filter(|life| life.ready && life.fate.is_none()) {
            let mut threads = self.scoreboard.threads(SlotId::new(life.slot)).filter_map(|cell| cell.read().ok());
            let is_busy = threads.any(|thread| thread.started.is_some());
            *if is_busy { &mut busy } else { &mut idle } += 1;
        }
        for life in &self.pool.lives {
            let threads = self.scoreboard.threads(SlotId::new(life.slot)).filter_map(|cell| cell.read().ok());
            requests += threads.map(|thread| thread.counters.requests).sum::<u64>();
        }
        let past = self.pool.workers.iter().flat_map(|worker| &worker.totals.threads);
        requests += past.map(|thread| thread.requests).sum::<u64>();
        let before = self.supervisor.counted.replace((requests, now));
        let rate = before.map_or(0.0, |(counted, at)| {
            requests.saturating_sub(counted) as f64 / now.duration_since(at).as_secs_f64().max(0.001)
        });
        let doing = match self.phase {
            Phase::Serving if self.current == 0 => "loading the application, ",
            Phase::Serving => "",
            _ => "stopping, ",
        };
        format!("{doing}{} workers: {busy} busy, {idle} idle; {rate:.1} requests/s", busy + idle)
    }
}

/// Sockets that were opened for this process before it was started.
#[derive(Debug, Default)]
pub(super) struct Inherited(Vec<(Address, OwnedFd)>);

impl Inherited {
    /// Takes what the environment tells of. To be called once, before anything else is opened.
    pub(super) fn take() -> Self {
        let number = |name| std::env::var(name).ok().and_then(|value| value.parse::<u32>().ok());
        if number("LISTEN_PID") != Some(std::process::id()) {
            return Self::default();
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
        Self(sockets.collect())
    }

    /// The socket that is bound to one of these addresses.
    pub(super) fn find(&mut self, wanted: impl Fn(&Address) -> bool) -> Option<(Address, OwnedFd)> {
        let index = self.0.iter().position(|(address, _)| wanted(address))?;
        Some(self.0.remove(index))
    }
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
