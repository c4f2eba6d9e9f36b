//! The other workers of the server: a connection that waits here for a thread, while all are busy, goes to a thread of
//! theirs. The `watcher` sends it; here are the queue's messages, and who takes them.
//!
//! Only a connection between two requests goes, of which nothing was read. It belongs to whoever has taken it from the
//! table of this worker, as always, so that a thread and the watcher cannot both have it. A worker that leaves looks into
//! the queue last of all: what it has sent there is served, by itself if by nobody else.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Mutex;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};
use std::sync::atomic::{AtomicBool, AtomicI32};
use std::thread::JoinHandle;

use nix::sys::eventfd::{EfdFlags, EventFd};
use pyo3::prelude::*;
use tracing::error;

use super::connection::{Connection, ConnectionPhase};
use super::kind::Kind;
use super::worker_thread::{ACCEPTS, WorkerThread};
use crate::api::here;
use crate::share::PeerQueue;

/// The longest message, bytes: the text of a peer is much shorter.
const LONGEST: usize = 1024;
/// Bytes of a message before the text.
const FIXED: usize = 3;
/// The connection has had a request.
const HAS_SERVED: u8 = 1;
/// A proxy may say who its client is.
const AWAITS_PROXY: u8 = 2;

/// See the module.
pub(super) struct Peers {
    pub(super) queue: &'static PeerQueue,
    /// The watcher sleeps or is not there: who begins a request wakes it.
    pub(super) is_asleep: AtomicBool,
    /// It is to end; the event wakes it from its wait for connections.
    pub(super) ends: AtomicBool,
    pub(super) end_event: EventFd,
    pub(super) watcher: Mutex<Option<JoinHandle<()>>>,
    /// What the system calls it.
    pub(super) number: AtomicI32,
}

impl Peers {
    /// Those of a worker, if it can have what any of them has.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub(super) fn of(has_all_listeners: bool) -> nix::Result<Option<Self>> {
        let queue = here::server().and_then(|server| server.share.peers.as_ref()).filter(|_| has_all_listeners);
        let Some(queue) = queue else { return Ok(None) };
        let (is_asleep, ends) = (AtomicBool::new(true), AtomicBool::new(false));
        let end_event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Some(Self { queue, is_asleep, ends, end_event, watcher: Mutex::default(), number: AtomicI32::new(0) }))
    }

    /// Whether this is one of its descriptors.
    pub(super) fn has(&self, fd: RawFd) -> bool {
        self.queue.numbers().contains(&fd) || self.end_event.as_raw_fd() == fd
    }

    /// Puts a connection into the queue. The caller closes its own copy then.
    ///
    /// # Errors
    /// When it cannot be: the connection is as before.
    pub(super) fn send(&self, connection: &Connection) -> std::io::Result<()> {
        let mut message = Vec::with_capacity(FIXED + connection.peer.len());
        let listener = u16::try_from(connection.listener).map_err(std::io::Error::other)?;
        message.extend_from_slice(&listener.to_le_bytes());
        let has_served = matches!(connection.phase, ConnectionPhase::Idle);
        let flag = |is_so, flag| if is_so { flag } else { 0 };
        message.push(flag(has_served, HAS_SERVED) | flag(connection.awaits_proxy, AWAITS_PROXY));
        message.extend_from_slice(connection.peer.as_bytes());
        if message.len() > LONGEST {
            return Err(std::io::ErrorKind::InvalidInput.into());
        }
        self.queue.send(&*connection.socket, &message)
    }
}

impl WorkerThread {
    /// Has the watcher awake while connections may come to wait for this request. Once for each request.
    #[inline]
    pub(super) fn watch_over_others(&self) {
        if let Some(peers) = &self.worker.peers
            && peers.is_asleep.load(Relaxed)
            && self.worker.may_keep_waiting()
        {
            self.worker.wake_watcher(peers);
        }
    }

    /// Takes what was overlooked: whom the kernel woke for it may have been killed. A worker that leaves, or is drained, does
    /// so only when there is no other.
    pub(super) fn take_overlooked(&mut self, py: Python<'_>, scratch: &mut [u8]) -> anyhow::Result<()> {
        if self.is_declining() && self.worker.accepting_others().next().is_some() {
            return Ok(());
        }
        self.take_all_handed_over(py, scratch)
    }

    /// Takes what other workers have handed over, one after another, so that nothing waits behind a slow request. They have
    /// waited longer than what is ready here.
    pub(super) fn take_all_handed_over(&mut self, py: Python<'_>, scratch: &mut [u8]) -> anyhow::Result<()> {
        let ready = self.ready;
        for _ in 0..ACCEPTS {
            if !self.take_handed_over(py, scratch)? {
                break;
            }
            // The next one may have come meanwhile.
            self.ready = self.now;
        }
        self.ready = ready;
        Ok(())
    }

    /// Takes a connection that another worker has handed over, and serves it; whether there was one.
    pub(super) fn take_handed_over(&mut self, py: Python<'_>, scratch: &mut [u8]) -> anyhow::Result<bool> {
        let Some(peers) = &self.worker.peers else { return Ok(false) };
        if !self.worker.has_space()? {
            return Ok(false);
        }
        // Without a descriptor for it the connection would be lost, and not wait as in a backlog.
        match self.worker.liveness.try_clone() {
            Ok(spare) => drop(spare),
            Err(failure) => return self.worker.pause_accepting(&failure).map(|()| false),
        }
        let mut message = [0; LONGEST];
        let (socket, message) = match peers.queue.take(&mut message) {
            Ok(Some(taken)) => taken,
            Ok(None) => return Ok(false),
            Err(failure) => {
                error!("worker {}: cannot take a connection from another: {failure}: it is closed", self.worker.id);
                return Ok(false);
            }
        };
        let parts = message.split_first_chunk::<FIXED>();
        let parts = parts.and_then(|([low, high, flags], peer)| {
            let index = usize::from(u16::from_le_bytes([*low, *high]));
            Some((index, self.worker.listeners.get(index)?, *flags, std::str::from_utf8(peer).ok()?))
        });
        // All workers have the same listeners.
        let Some((index, listener, flags, peer)) = parts else { return Ok(false) };
        let kind = Kind::Client(listener.protocol);
        let mut connection = Connection::new(socket, kind, peer.to_owned(), self.patience(), listener.rates);
        connection.listener = index;
        connection.awaits_proxy = flags & AWAITS_PROXY != 0;
        if flags & HAS_SERVED != 0 {
            connection.phase = ConnectionPhase::Idle;
        }
        self.worker.open.fetch_add(1, AcqRel);
        self.work(py, connection, scratch)?;
        // As with one that was accepted.
        self.worker.has_space()?;
        Ok(true)
    }

    /// Whether nothing is left to do for a worker that leaves. What it has handed over may have met nobody.
    pub(super) fn has_left(&mut self, py: Python<'_>, scratch: &mut [u8]) -> anyhow::Result<bool> {
        while self.worker.open.load(Acquire) == 0 {
            if !self.take_handed_over(py, scratch)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
