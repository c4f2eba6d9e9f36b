//! The application's signals: who registered what, when they are raised, and who handles them. (The system's signals to
//! the master are in [`super::signals`].)
//!
//! Each generation has its own table, for a reload brings other handlers; only the present one's timers run. A signal
//! for whoever is free first waits here until somebody is: a process says when it has handled one.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::signal::Signal;
use nix::sys::socket::{MsgFlags, recv, send};
use nix::unistd::Pid;
use rwsgi_stats::Snapshot;
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::UnixDatagram;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::AbortHandle;
use tracing::{error, warn};

use super::pool::Reason;
use super::timetable::Timetable;
use super::workers::signal;
use super::{Event, Master};
use crate::config::Farm;
use crate::ipc::control::{Told, What, WorkerState, hear};
use crate::ipc::target::Target;
use crate::ipc::{Auxiliary, AuxiliaryKind, Role, send_message};

/// Signals that wait for somebody who is free: more are dropped.
const MOST_WAITING: usize = 1024;

/// What concerns the application's signals.
#[derive(Debug)]
pub enum Call {
    /// A process says something, and may bring a descriptor.
    Told(Told, Option<OwnedFd>),
    /// A process has handled a signal.
    Handled(u64),
    /// A process does not listen any more.
    Gone(u64),
    /// A file has changed.
    Changed {
        /// The generation that asked for it.
        generation: u32,
        /// The signal to raise.
        signal: u8,
    },
}

/// The tables, and who listens.
#[derive(Debug, Default)]
pub(super) struct Calls {
    tables: Vec<Table>,
    listeners: Vec<Listener>,
    next_id: u64,
    /// Processes that the application wants ended when they are not done by then.
    harakiri: Vec<(Role, Pid, Instant)>,
    /// How often each worker has handled a signal, by its number from 1.
    handled: Vec<u64>,
}

/// What one generation registered.
#[derive(Debug, Default)]
struct Table {
    generation: u32,
    targets: Vec<(u8, Target)>,
    timetable: Timetable,
    /// Each with the task that waits for it.
    watched: Vec<(u8, String, Option<Task>)>,
    /// Signals that nobody could take yet.
    waiting: VecDeque<u8>,
}

/// A task that ends with its owner.
#[derive(Debug)]
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A process that handles signals.
#[derive(Debug)]
struct Listener {
    id: u64,
    generation: u32,
    role: Role,
    socket: Rc<UnixDatagram>,
    /// Signals that it was sent and has not handled yet, in order.
    pending: VecDeque<u8>,
}

/// Watches the socket that all processes share; returns their end.
///
/// # Errors
/// When the system has no descriptors left.
pub(super) fn watch(events: &UnboundedSender<Event>) -> anyhow::Result<OwnedFd> {
    let (ours, theirs) = crate::ipc::control::socket()?;
    let socket = listen_on(ours)?;
    let events = events.clone();
    tokio::task::spawn_local(async move {
        loop {
            match socket.async_io(Interest::READABLE, || hear(socket.as_fd())).await {
                Ok(Some((told, descriptor))) => {
                    if events.send(Event::Call(Call::Told(told, descriptor))).is_err() {
                        return;
                    }
                }
                Ok(None) => return,
                Err(error) => warn!("the application said what cannot be understood: {error}"),
            }
        }
    });
    Ok(theirs)
}

fn listen_on(socket: OwnedFd) -> anyhow::Result<UnixDatagram> {
    fcntl(&socket, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(UnixDatagram::from_std(socket.into())?)
}

impl Calls {
    fn table(&mut self, generation: u32) -> &mut Table {
        let index = self.tables.iter().position(|table| table.generation == generation).unwrap_or_else(|| {
            self.tables.push(Table { generation, ..Table::default() });
            self.tables.len() - 1
        });
        &mut self.tables[index]
    }

    /// The next moment at which something is to be done about a timer of this generation.
    pub(super) fn deadline(&self, generation: u32) -> Option<Instant> {
        let table = self.tables.iter().find(|table| table.generation == generation);
        let timer = table.and_then(|table| table.timetable.deadline());
        self.harakiri.iter().map(|(_, _, at)| *at).chain(timer).min()
    }

    /// Adds what is known here to a reading of the server.
    pub(super) fn describe(&self, generation: u32, snapshot: &mut Snapshot) {
        snapshot.signal_queue = self.tables.iter().map(|table| table.waiting.len() as u64).sum();
        for worker in &mut snapshot.workers {
            worker.signals = self.handled.get(worker.id as usize).copied().unwrap_or(0);
            let is_its = |role| matches!(role, Role::Worker { worker: number, .. } if number == worker.id);
            for listener in self.listeners.iter().filter(|listener| is_its(listener.role)) {
                worker.signal_queue += listener.pending.len().saturating_sub(1) as u64;
                if let Some(signal) = listener.pending.front() {
                    worker.status = format!("sig{signal}");
                }
            }
        }
        let Some(table) = self.tables.iter().find(|table| table.generation == generation) else { return };
        table.timetable.describe(snapshot);
    }
}

impl Listener {
    fn send(&mut self, signal: u8) {
        match send(self.socket.as_raw_fd(), &[signal], MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT) {
            Ok(_) => self.pending.push_back(signal),
            Err(error) => warn!("signal {signal} is lost: it cannot be sent to {}: {error}", describe(self.role)),
        }
    }
}

fn describe(role: Role) -> String {
    match role {
        Role::Worker { worker, .. } => format!("worker {worker}"),
        Role::Auxiliary(who) => who.to_string(),
    }
}

impl Master {
    /// Takes what concerns the application's signals.
    pub(super) fn take_call(&mut self, call: Call) {
        match call {
            Call::Told(Told { generation, what }, descriptor) => self.take_told(generation, what, descriptor),
            Call::Changed { generation, signal } => self.raise(generation, signal),
            Call::Handled(id) => {
                let Some(listener) = self.calls.listeners.iter_mut().find(|listener| listener.id == id) else { return };
                listener.pending.pop_front();
                let generation = listener.generation;
                if let Role::Worker { worker, .. } = listener.role {
                    let handled = &mut self.calls.handled;
                    handled.resize(handled.len().max(worker as usize + 1), 0);
                    handled[worker as usize] += 1;
                }
                self.deliver_waiting(generation);
            }
            Call::Gone(id) => {
                let Some(index) = self.calls.listeners.iter().position(|listener| listener.id == id) else { return };
                let listener = self.calls.listeners.remove(index);
                if let Some(signal) = listener.pending.front() {
                    warn!("{} is gone before signal {signal} was handled", describe(listener.role));
                }
            }
        }
    }

    fn take_told(&mut self, generation: u32, what: What, descriptor: Option<OwnedFd>) {
        match what {
            What::Register { signal, target } => {
                if let Some(problem) = self.doubt(&target) {
                    warn!("signal {signal}: {problem}");
                }
                let table = self.calls.table(generation);
                table.targets.retain(|(known, _)| *known != signal);
                table.targets.push((signal, target));
            }
            What::Raise(signal) => self.raise(generation, signal),
            What::Schedule { signal, when } => self.calls.table(generation).timetable.add(signal, when),
            What::Watch { signal, path } => self.watch_file(generation, signal, path),
            What::Listen(role) => {
                let Some(socket) = descriptor else { return };
                if let Err(error) = self.admit(generation, role, socket) {
                    error!("{} cannot be sent signals: {error:#}", describe(role));
                }
                self.deliver_waiting(generation);
            }
            What::Harakiri { role, seconds } => self.set_harakiri(role, seconds),
            What::Workers => {
                let Some(descriptor) = descriptor else { return };
                let workers = self.worker_states();
                // Who asked may have gone; who does not read is not waited for.
                let _ = fcntl(&descriptor, FcntlArg::F_SETFL(OFlag::O_NONBLOCK));
                let _ = send_message(descriptor.as_fd(), &workers);
            }
        }
    }

    /// What is wrong with a target, if nobody answers to it.
    fn doubt(&self, target: &Target) -> Option<String> {
        match target {
            Target::WorkerNumber(number) if *number > self.config.processes => {
                Some(format!("there is no worker {number}: it will not be handled"))
            }
            Target::Spooler if self.config.spooler.directories.is_empty() => {
                Some("there is no spooler: it will not be handled".into())
            }
            Target::Mule | Target::Mules if self.config.between.mules.is_empty() => {
                Some("there is no mule: it will not be handled".into())
            }
            Target::MuleNumber(number) if *number as usize > self.config.between.mules.len() => {
                Some(format!("there is no mule {number}: it will not be handled"))
            }
            _ => None,
        }
    }

    fn admit(&mut self, generation: u32, role: Role, socket: OwnedFd) -> anyhow::Result<()> {
        let socket = Rc::new(listen_on(socket)?);
        let id = self.calls.next_id;
        self.calls.next_id += 1;
        let (reader, events) = (Rc::downgrade(&socket), self.events.clone());
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
                if events.send(Event::Call(call)).is_err() || is_gone {
                    return;
                }
            }
        });
        self.calls.listeners.push(Listener { id, generation, role, socket, pending: VecDeque::new() });
        Ok(())
    }

    /// Has a signal handled by whom it was registered for.
    fn raise(&mut self, generation: u32, signal: u8) {
        // What is left of an older generation raises signals of the one that took over.
        let generation = generation.max(self.current);
        let table = self.calls.table(generation);
        if table.waiting.len() >= MOST_WAITING {
            warn!("signal {signal} is dropped: {MOST_WAITING} wait already for somebody to handle them");
            return;
        }
        table.waiting.push_back(signal);
        self.deliver_waiting(generation);
    }

    /// Sends the signals that wait to whoever can take them.
    fn deliver_waiting(&mut self, generation: u32) {
        let waiting = std::mem::take(&mut self.calls.table(generation).waiting);
        let left = waiting.into_iter().filter(|signal| !self.deliver(generation, *signal)).collect();
        self.calls.table(generation).waiting = left;
    }

    /// Whether somebody could be sent the signal.
    fn deliver(&mut self, generation: u32, signal: u8) -> bool {
        let table = self.calls.table(generation);
        let target = table.targets.iter().find(|(known, _)| *known == signal).map(|(_, target)| target.clone());
        let target = target.unwrap_or(Target::Worker);
        let (pool, config) = (&mut self.pool, &self.config);
        let mut meant: Vec<_> = self
            .calls
            .listeners
            .iter_mut()
            .filter(|listener| listener.generation == generation)
            .filter(|listener| match listener.role {
                Role::Worker { worker, slot } => {
                    let is_meant = match target {
                        Target::Worker | Target::Workers => true,
                        Target::WorkerNumber(number) => number == worker,
                        _ => false,
                    };
                    // One that leaves has handled its last.
                    is_meant && pool.in_slot(slot).is_some_and(|life| life.fate.is_none())
                }
                Role::Auxiliary(who) => is_auxiliary_meant(&target, who, config),
            })
            .collect();
        if target.is_all() || matches!(target, Target::WorkerNumber(_) | Target::MuleNumber(_)) {
            for listener in &mut meant {
                listener.send(signal);
            }
            return !meant.is_empty();
        }
        // In turn: the one that has had none for longest goes first.
        let Some(free) = meant.iter_mut().find(|listener| listener.pending.is_empty()) else { return false };
        free.send(signal);
        let id = free.id;
        if let Some(index) = self.calls.listeners.iter().position(|listener| listener.id == id) {
            let listener = self.calls.listeners.remove(index);
            self.calls.listeners.push(listener);
        }
        true
    }

    /// The process of this role now.
    fn pid_of(&mut self, role: Role) -> Option<Pid> {
        match role {
            Role::Worker { slot, .. } => self.pool.in_slot(slot)?.pid,
            Role::Auxiliary(who) => self.auxiliaries.iter().find(|post| post.who == who)?.pid(),
        }
    }

    fn set_harakiri(&mut self, role: Role, seconds: u32) {
        self.calls.harakiri.retain(|(known, ..)| *known != role);
        if seconds > 0
            && let Some(pid) = self.pid_of(role)
        {
            self.calls.harakiri.push((role, pid, Instant::now() + Duration::from_secs(seconds.into())));
        }
    }

    /// Ends the processes whose application has set itself a time that is over.
    fn end_late(&mut self, now: Instant) {
        let late: Vec<_> = self.calls.harakiri.extract_if(.., |(_, _, at)| *at <= now).collect();
        for (role, pid, _) in late {
            if self.pid_of(role) != Some(pid) {
                continue;
            }
            error!(
                "harakiri: {} (pid {pid}) has not ended in the time that the application set: ending it",
                describe(role)
            );
            if let Role::Worker { worker, slot } = role {
                self.pool.worker(worker).totals.harakiri += 1;
                self.pool.doom(slot, Reason::Harakiri, now);
            }
            signal(pid, Signal::SIGKILL);
        }
    }

    /// Raises what is due.
    pub(super) fn ring(&mut self, now: Instant) {
        self.end_late(now);
        let generation = self.current;
        if generation == 0 {
            return;
        }
        for signal in self.calls.table(generation).timetable.tick(now, generation == 1) {
            self.raise(generation, signal);
        }
    }

    /// A generation has gone: what it registered goes too.
    pub(super) fn forget_calls(&mut self) {
        let current = self.current;
        let is_wanted = |generation: u32| generation >= current;
        self.calls.tables.retain(|table| is_wanted(table.generation));
    }

    fn watch_file(&mut self, generation: u32, signal: u8, path: String) {
        let watched = &self.calls.table(generation).watched;
        if watched.iter().any(|(by, known, _)| *by == signal && *known == path) {
            return;
        }
        let events = self.events.clone();
        let started = || -> anyhow::Result<Task> {
            let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
            let flags = AddWatchFlags::IN_ATTRIB
                | AddWatchFlags::IN_CREATE
                | AddWatchFlags::IN_DELETE
                | AddWatchFlags::IN_DELETE_SELF
                | AddWatchFlags::IN_MODIFY
                | AddWatchFlags::IN_MOVE_SELF
                | AddWatchFlags::IN_MOVED_FROM
                | AddWatchFlags::IN_MOVED_TO;
            inotify.add_watch(path.as_str(), flags)?;
            // It is read like a pipe.
            let mut watched = Receiver::from_owned_fd_unchecked(inotify.into())?;
            let task = tokio::task::spawn_local(async move {
                // However many events one change has brought, they are one signal.
                let mut events_of_it = [0; 16 * 1024];
                while watched.read(&mut events_of_it).await.is_ok_and(|len| len > 0) {
                    if events.send(Event::Call(Call::Changed { generation, signal })).is_err() {
                        return;
                    }
                }
            });
            Ok(Task(task.abort_handle()))
        };
        let task = started();
        if let Err(error) = &task {
            error!("signal {signal}: '{path}' cannot be watched: {error:#}");
        }
        self.calls.table(generation).watched.push((signal, path, task.ok()));
    }

    fn worker_states(&mut self) -> Vec<WorkerState> {
        let workers = self.snapshot().workers.into_iter();
        workers
            .map(|worker| WorkerState {
                id: worker.id,
                pid: worker.pid,
                requests: worker.requests,
                delta_requests: worker.delta_requests,
                signals: worker.signals,
                exceptions: worker.exceptions,
                status: worker.status,
                rss: worker.rss,
                vsz: worker.vsz,
                running_time: worker.running_time,
                last_spawn: worker.last_spawn,
                respawn_count: worker.respawn_count,
                tx: worker.tx,
                avg_rt: worker.avg_rt,
            })
            .collect()
    }
}

fn is_auxiliary_meant(target: &Target, who: Auxiliary, config: &crate::config::Config) -> bool {
    let farms = &config.between.farms;
    let is_in = |farm: Option<&Farm>| farm.is_some_and(|farm| farm.mules.contains(&who.number));
    match (who.kind, target) {
        (AuxiliaryKind::Spooler, Target::Spooler) | (AuxiliaryKind::Mule, Target::Mule | Target::Mules) => true,
        (AuxiliaryKind::Mule, Target::MuleNumber(number)) => *number == who.number,
        (AuxiliaryKind::Mule, Target::Farm(name)) => is_in(farms.iter().find(|farm| farm.name == *name)),
        (AuxiliaryKind::Mule, Target::FarmNumber(number)) => {
            is_in((*number as usize).checked_sub(1).and_then(|index| farms.get(index)))
        }
        _ => false,
    }
}
