//! The application's signals: who registered what, when they are raised, and who handles them. (The system's signals to
//! the master are in [`super::signals`].)
//!
//! Each generation has its own table, for a reload brings other handlers; only the present one's timers run. A signal
//! for the first free process waits here until one is free: a process says when it has handled one.

use std::collections::{HashMap, VecDeque};
use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::rc::Rc;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::socket::{MsgFlags, recv, send};
use rwsgi_stats::Snapshot;
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::UnixDatagram;
use tokio::net::unix::pipe::Receiver;
use tracing::{error, warn};

use super::events::{Call, Event, Events};
use super::post::Post;
use super::task::Task;
use super::timetable::Timetable;
use crate::ids::{ChildId, GenerationNumber, WorkerId};
use crate::ipc::calls::receive;
use crate::ipc::target::Target;

/// Signals that wait for somebody who is free: more are dropped.
pub(super) const MOST_WAITING: usize = 1024;
/// Files that are watched for one generation: more are refused, for each needs a descriptor.
const MOST_WATCHED: usize = 256;

/// The tables, and who listens.
#[derive(Debug, Default)]
pub(super) struct AppSignals {
    tables: Vec<Table>,
    /// The one that has had no signal for longest first.
    pub(super) listeners: Vec<SignalListener>,
    next_id: u64,
    /// How often each worker has handled a signal.
    handled: HashMap<WorkerId, u64>,
}

/// What one generation registered.
#[derive(Debug)]
pub(super) struct Table {
    generation: GenerationNumber,
    targets: Vec<(u8, Target)>,
    pub(super) timetable: Timetable,
    /// Each with the task that waits for it.
    watched: Vec<(u8, String, Option<Task>)>,
    /// Signals that nobody could take yet.
    pub(super) waiting: VecDeque<u8>,
}

/// A process that handles signals.
#[derive(Debug)]
pub(super) struct SignalListener {
    pub(super) id: u64,
    pub(super) child: ChildId,
    pub(super) post: Post,
    pub(super) generation: GenerationNumber,
    socket: Rc<UnixDatagram>,
    /// Signals that it was sent and has not handled yet, in order.
    pub(super) pending: VecDeque<u8>,
}

/// Watches the socket that all processes share; returns their end.
///
/// # Errors
/// When the system has no descriptors left.
pub(super) fn watch(events: &Events) -> anyhow::Result<OwnedFd> {
    let (ours, theirs) = crate::ipc::calls::socket()?;
    let socket = listen_on(ours)?;
    let events = events.clone();
    tokio::task::spawn_local(async move {
        loop {
            match socket.async_io(Interest::READABLE, || receive(socket.as_fd())).await {
                Ok(Some((packet, descriptor))) => {
                    if events.send(Event::Call(Call::Packet(packet, descriptor))).await.is_err() {
                        return;
                    }
                }
                Ok(None) => return,
                Err(refused) if refused.kind() == ErrorKind::InvalidData => {
                    warn!("call socket: a packet of the application's is refused: {refused}");
                }
                Err(failure) => {
                    error!("call socket: it cannot be read: {failure}: the application's signals and timers stop");
                    return;
                }
            }
        }
    });
    Ok(theirs)
}

fn listen_on(socket: OwnedFd) -> anyhow::Result<UnixDatagram> {
    fcntl(&socket, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(UnixDatagram::from_std(socket.into())?)
}

impl AppSignals {
    /// What a generation registered.
    pub(super) fn table(&mut self, generation: GenerationNumber) -> &mut Table {
        let index = self.tables.iter().position(|table| table.generation == generation).unwrap_or_else(|| {
            self.tables.push(Table::new(generation));
            self.tables.len() - 1
        });
        &mut self.tables[index]
    }

    /// What generations before this one registered is not needed any more.
    pub(super) fn forget_before(&mut self, generation: GenerationNumber) {
        self.tables.retain(|table| table.generation >= generation);
    }

    /// What a generation registered that does not take over is not needed any more.
    pub(super) fn forget(&mut self, generation: GenerationNumber) {
        self.tables.retain(|table| table.generation != generation);
    }

    /// A process handles signals: they go through `socket`. It has one; a second takes the place of the first.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub(super) fn admit(
        &mut self,
        child: ChildId,
        post: Post,
        generation: GenerationNumber,
        socket: OwnedFd,
        events: Events,
    ) -> anyhow::Result<()> {
        let socket = Rc::new(listen_on(socket)?);
        let id = self.next_id;
        self.next_id += 1;
        let reader = Rc::downgrade(&socket);
        tokio::task::spawn_local(async move {
            let mut byte = [0];
            loop {
                let Some(socket) = reader.upgrade() else { return };
                let read = || Ok(recv(socket.as_raw_fd(), &mut byte, MsgFlags::MSG_DONTWAIT)?);
                let call = match socket.async_io(Interest::READABLE, read).await {
                    Ok(1) => Call::Handled(id),
                    _ => Call::Gone(id),
                };
                let is_gone = matches!(call, Call::Gone(_));
                if events.send(Event::Call(call)).await.is_err() || is_gone {
                    return;
                }
            }
        });
        self.listeners.retain(|listener| listener.child != child);
        self.listeners.push(SignalListener { id, child, post, generation, socket, pending: VecDeque::new() });
        Ok(())
    }

    /// A listener has handled a signal: the generation whose signals can now go to it, and its process.
    pub(super) fn handled(&mut self, id: u64) -> Option<(GenerationNumber, ChildId)> {
        let listener = self.listeners.iter_mut().find(|listener| listener.id == id)?;
        listener.pending.pop_front()?;
        if let Post::Worker(worker) = listener.post {
            *self.handled.entry(worker).or_default() += 1;
        }
        Some((listener.generation, listener.child))
    }

    /// Processes that match do not listen any more.
    pub(super) fn forget_listener(&mut self, is_gone: impl Fn(&SignalListener) -> bool) {
        for listener in self.listeners.extract_if(.., |listener| is_gone(listener)) {
            if let Some(signal) = listener.pending.front() {
                warn!("{} is gone before signal {signal} was handled", listener.post);
            }
        }
    }

    /// Adds what is known here to a snapshot.
    pub(super) fn describe(&self, generation: Option<GenerationNumber>, snapshot: &mut Snapshot) {
        snapshot.signal_queue = self.tables.iter().map(|table| table.waiting.len() as u64).sum();
        for worker in &mut snapshot.workers {
            let id = WorkerId::new(worker.id);
            worker.signals = id.and_then(|id| self.handled.get(&id)).copied().unwrap_or(0);
            let is_its = |listener: &&SignalListener| id.map(Post::Worker) == Some(listener.post);
            for listener in self.listeners.iter().filter(is_its) {
                worker.signal_queue += listener.pending.len().saturating_sub(1) as u64;
                if let Some(signal) = listener.pending.front() {
                    worker.status = format!("sig{signal}");
                }
            }
        }
        if let Some(table) = self.tables.iter().find(|table| Some(table.generation) == generation) {
            table.timetable.describe(snapshot);
        }
    }
}

impl Table {
    fn new(generation: GenerationNumber) -> Self {
        Self {
            generation,
            targets: Vec::new(),
            timetable: Timetable::default(),
            watched: Vec::new(),
            waiting: VecDeque::new(),
        }
    }

    /// A signal has a handler in the processes of `target`.
    pub(super) fn register(&mut self, signal: u8, target: Target) {
        self.targets.retain(|(known, _)| *known != signal);
        self.targets.push((signal, target));
    }

    /// Who handles a signal: any worker, unless something else was said.
    pub(super) fn target(&self, signal: u8) -> Target {
        let target = self.targets.iter().find(|(known, _)| *known == signal);
        target.map_or(Target::Worker, |(_, target)| target.clone())
    }

    /// Raises a signal when a file changes.
    pub(super) fn watch_file(&mut self, signal: u8, path: String, events: Events) {
        if self.watched.iter().any(|(by, known, _)| *by == signal && *known == path) {
            return;
        }
        if self.watched.len() >= MOST_WATCHED {
            warn!("signal {signal}: '{path}' is not watched: {MOST_WATCHED} files are already");
            return;
        }
        let task = watch_file(self.generation, signal, &path, events);
        if let Err(failure) = &task {
            error!("signal {signal}: '{path}' cannot be watched: {failure:#}");
        }
        self.watched.push((signal, path, task.ok()));
    }
}

fn watch_file(generation: GenerationNumber, signal: u8, path: &str, events: Events) -> anyhow::Result<Task> {
    let mut watched = changes_of(Path::new(path))?;
    let task = tokio::task::spawn_local(async move {
        // However many events one change has brought, they are one signal.
        let mut events_of_it = [0; 16 * 1024];
        while watched.read(&mut events_of_it).await.is_ok_and(|len| len > 0) {
            if events.send(Event::Call(Call::Changed { generation, signal })).await.is_err() {
                return;
            }
        }
    });
    Ok(Task(task.abort_handle()))
}

/// Bytes that come whenever the file, or what is in the directory, changes.
///
/// # Errors
/// When there is none, or the system watches no more.
pub(super) fn changes_of(path: &Path) -> anyhow::Result<Receiver> {
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
    let flags = AddWatchFlags::IN_ATTRIB
        | AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_DELETE_SELF
        | AddWatchFlags::IN_MODIFY
        | AddWatchFlags::IN_MOVE_SELF
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_MOVED_TO;
    inotify.add_watch(path, flags)?;
    // It is read like a pipe.
    Ok(Receiver::from_owned_fd_unchecked(inotify.into())?)
}

impl SignalListener {
    /// Sends a signal; it is lost when the process does not take it.
    pub(super) fn send(&mut self, signal: u8) {
        match send(self.socket.as_raw_fd(), &[signal], MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT) {
            Ok(_) => self.pending.push_back(signal),
            Err(error) => warn!("signal {signal} is lost: it cannot be sent to {}: {error}", self.post),
        }
    }
}
