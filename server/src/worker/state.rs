//! What the threads of a worker share: its epoll set, its listeners, its connections.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, PoisonError};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::eventfd::EventFd;
use tracing::error;

use super::connection::{Connection, Wait};
use super::connections::Connections;
use super::near_end::HandedOver;
use super::notices::Notices;
use super::parked::ParkedMemory;
use super::peers::Peers;
use super::streams::Streams;
use crate::ids::{SlotId, ThreadIndex};
use crate::io::accept::Listener;
use crate::io::body::BodyLimits;
use crate::io::descriptors::ClientCap;
use crate::io::pace::MinRates;
use crate::io::temp::TempFiles;
use crate::ipc::LinkEndpoint;
use crate::stats::routes::RouteTable;
use crate::stats::scoreboard::Scoreboard;
use crate::stats::traces::TraceCells;
use rwsgi_config::Config;
use rwsgi_protocol::SocketProtocol;

/// A socket that a worker accepts from, what is spoken there, and how slow its clients may be.
pub(super) struct OwnListener {
    pub(super) socket: Listener,
    pub(super) protocol: SocketProtocol,
    pub(super) rates: MinRates,
}

/// See the module.
pub(super) struct Worker {
    /// Its number, from 1.
    pub(super) id: u32,
    /// Its slot on the scoreboard.
    pub(super) slot: SlotId,
    pub(super) config: Config,
    pub(super) body_limits: BodyLimits,
    pub(super) scoreboard: Arc<Scoreboard>,
    /// Requests by route; `None` when they are not counted.
    pub(super) routes: Option<Mutex<RouteTable>>,
    /// Requests that are traced; `None` when none are.
    pub(super) traces: Option<Arc<TraceCells>>,
    pub(super) temp: TempFiles,
    /// Finished responses that wait in memory for their clients.
    pub(super) parked: ParkedMemory,
    /// Responses that come in many pieces.
    pub(super) streams: Arc<Streams>,
    pub(super) epoll: Epoll,
    pub(super) listeners: Vec<OwnListener>,
    /// Where the router is.
    pub(super) link: Option<LinkEndpoint>,
    /// The other workers, to which connections go that wait here; `None` where there are none, or none go.
    pub(super) peers: Option<Peers>,
    /// Threads whose connection to the router is to be made (again).
    pub(super) lost_links: Mutex<Vec<ThreadIndex>>,
    /// What the router has handed over.
    pub(super) handed_over: Arc<HandedOver>,
    pub(super) connections: Connections,
    /// Connections that are open.
    pub(super) open: AtomicUsize,
    pub(super) cap: ClientCap,
    /// Nothing is accepted because there are as many as there may be.
    pub(super) is_full: AtomicBool,
    /// The log says that accepting failed, and it has not succeeded since.
    pub(super) accept_failed: AtomicBool,
    /// When connections were last looked through for those that waited too long, monotonic ns.
    pub(super) swept: AtomicU64,
    /// Whether the listeners are in the epoll set.
    pub(super) listening: Mutex<bool>,
    /// The worker leaves: nothing new is accepted, connections close when they are idle.
    pub(super) leaving: AtomicBool,
    /// It leaves, or is drained: connections are not kept alive for another request.
    pub(super) declining: AtomicBool,
    /// Threads that have seen it.
    pub(super) leaving_threads: AtomicU32,
    /// Readable when the worker is to leave; edge-triggered, so that each thread wakes the next.
    pub(super) stop: EventFd,
    pub(super) notices: Notices,
    /// Where the access log goes, when it has loggers of its own.
    pub(super) request_log: Option<Arc<File>>,
    /// Kept to see the master's end.
    pub(super) liveness: OwnedFd,
    /// It accepts from all sockets that workers accept from.
    pub(super) has_all_listeners: bool,
    /// What the child that is being forked keeps, for it is to be a fork server.
    pub(super) kept_in_child: Mutex<Vec<RawFd>>,
}

/// Epoll tokens below this are connections, by descriptor.
pub(super) const TOKEN_LISTENER: u64 = 1 << 32;
/// The worker is to leave: a signal, or the master's end.
pub(super) const TOKEN_STOP: u64 = 1 << 33;
/// The master is gone.
pub(super) const TOKEN_LIVENESS: u64 = 1 << 34;
/// Another worker has handed over a connection.
pub(super) const TOKEN_PEERS: u64 = 1 << 35;

impl Worker {
    pub(super) fn watch(&self) -> anyhow::Result<()> {
        self.listen_again()?;
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        self.epoll.add(&self.stop, EpollEvent::new(flags, TOKEN_STOP))?;
        self.epoll.add(&self.liveness, EpollEvent::new(EpollFlags::empty(), TOKEN_LIVENESS))?;
        Ok(())
    }

    /// Takes connections from the listeners, if it does not.
    pub(super) fn listen_again(&self) -> anyhow::Result<()> {
        let mut listening = self.listening.lock().unwrap_or_else(PoisonError::into_inner);
        if *listening || self.declining.load(Acquire) {
            return Ok(());
        }
        *listening = true;
        for (index, listener) in self.listeners.iter().enumerate() {
            self.watch_listener(index, listener)?;
        }
        if let Some(peers) = &self.peers {
            let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLEXCLUSIVE;
            self.epoll.add(peers.queue.exit(), EpollEvent::new(flags, TOKEN_PEERS))?;
        }
        Ok(())
    }

    /// Whether there is space for one more connection. If not, nothing is accepted until one is closed.
    pub(super) fn has_space(&self) -> anyhow::Result<bool> {
        // Links were reserved for.
        if !self.cap.is_reached(self.open.load(Acquire).saturating_sub(self.links())) {
            return Ok(true);
        }
        self.stop_listening()?;
        self.is_full.store(true, Release);
        Ok(false)
    }

    /// How many of the connections are links.
    fn links(&self) -> usize {
        if self.link.is_some() { self.config.threads as usize } else { 0 }
    }

    /// A connection was closed.
    pub(super) fn closed(&self) {
        self.open.fetch_sub(1, AcqRel);
        if self.is_full.load(Relaxed)
            && self.is_full.swap(false, AcqRel)
            && let Err(failure) = self.listen_again()
        {
            // The next sweep tries again.
            error!("worker {}: cannot watch its listening sockets: {failure:#}", self.id);
        }
    }

    /// Accepting has failed. The connections wait, and so does this worker: the holders of descriptors or memory need
    /// time to release them.
    pub(super) fn pause_accepting(&self, failure: &std::io::Error) -> anyhow::Result<()> {
        if !self.accept_failed.swap(true, AcqRel) {
            error!("worker {}: cannot accept connections: {failure}; they wait, it is tried once a second", self.id);
        }
        self.stop_listening()
    }

    /// Whether a connection from this listener binds a thread for longer than a request, or one GIL more than
    /// another's: then the workers take turns.
    pub(super) fn shares(&self, listener: &OwnListener) -> bool {
        self.config.processes > 1 && (listener.protocol == SocketProtocol::Http || self.config.threads > 1)
    }

    /// Lets the other workers go first for the next connection.
    ///
    /// The kernel gives it to the exclusive waiters in the order in which they came, and the first one that sleeps
    /// takes it: the first worker would have every kept-alive connection as long as one of its threads sleeps.
    pub(super) fn step_back(&self, index: usize) -> anyhow::Result<()> {
        let listening = self.listening.lock().unwrap_or_else(PoisonError::into_inner);
        if let (true, Some(listener)) = (*listening, self.listeners.get(index)) {
            self.epoll.delete(&listener.socket.fd)?;
            self.watch_listener(index, listener)?;
        }
        Ok(())
    }

    /// A listener at which somebody waits. Whom the kernel woke for it may have been killed before it accepted, and nobody
    /// else is woken.
    pub(super) fn overlooked(&self) -> Option<usize> {
        if !*self.listening.lock().unwrap_or_else(PoisonError::into_inner) {
            return None;
        }
        let mut fds: Vec<_> =
            self.listeners.iter().map(|listener| PollFd::new(listener.socket.fd.as_fd(), PollFlags::POLLIN)).collect();
        poll(&mut fds, PollTimeout::ZERO).ok()?;
        fds.iter().position(|fd| fd.any() == Some(true))
    }

    fn watch_listener(&self, index: usize, listener: &OwnListener) -> nix::Result<()> {
        // A connection wakes one of the workers that sleep, not all.
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLEXCLUSIVE;
        self.epoll.add(&listener.socket.fd, EpollEvent::new(flags, TOKEN_LISTENER + index as u64))
    }

    /// Leaves connections to wait in the backlog, or for other workers.
    pub(super) fn stop_listening(&self) -> anyhow::Result<()> {
        let mut listening = self.listening.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::take(&mut *listening) {
            for listener in &self.listeners {
                self.epoll.delete(&listener.socket.fd)?;
            }
            if let Some(peers) = &self.peers {
                self.epoll.delete(peers.queue.exit())?;
            }
        }
        Ok(())
    }

    /// A thread ends, whatever for: the others must not go on without it.
    pub(super) fn leave(&self) {
        self.begin_to_leave();
        if let Err(failure) = self.wake_next() {
            error!("worker {}: cannot wake its threads: {failure}", self.id);
        }
    }

    /// From now on nothing new is accepted.
    pub(super) fn begin_to_leave(&self) {
        self.leaving.store(true, Release);
        self.declining.store(true, Release);
    }

    /// Wakes a thread that sleeps.
    pub(super) fn wake_next(&self) -> nix::Result<()> {
        self.stop.write(1).map(drop)
    }

    /// Has a connection wait in the set; gives it back when that cannot be.
    #[inline]
    pub(super) fn arm(&self, mut connection: Box<Connection>, wait: Wait) -> Result<(), Box<Connection>> {
        let fd = connection.fd();
        let armed = connection.armed.replace(wait);
        let flags = match wait {
            Wait::Read => EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP,
            Wait::Write => EpollFlags::EPOLLOUT,
        };
        let one_shot = self.one_shot();
        let flags = if one_shot { flags | EpollFlags::EPOLLONESHOT } else { flags };
        // The row is filled before the set can speak of it: another thread may be woken at once.
        let socket = Arc::clone(&connection.socket);
        if let Err(connection) = self.connections.put(fd, connection) {
            error!("descriptor {fd} is beyond what a worker can hold: the connection is closed");
            return Err(connection);
        }
        let mut event = EpollEvent::new(flags, fd as u64);
        let set = match armed {
            None => self.epoll.add(&*socket, event),
            Some(before) if before == wait && !one_shot => Ok(()),
            Some(_) => self.epoll.modify(&*socket, &mut event),
        };
        // One that is not there any more was handed over meanwhile: by what the set knew of it before.
        if let Err(failure) = set
            && let Some(connection) = self.connections.take(fd)
        {
            error!("cannot watch a connection: {failure}: it is closed");
            return Err(connection);
        }
        Ok(())
    }

    /// Whether connections are armed for one event at a time.
    pub(super) fn one_shot(&self) -> bool {
        self.config.threads > 1
    }
}
