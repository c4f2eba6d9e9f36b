//! What the application asks of the master through the call socket. The sender may be broken: what it says is
//! checked against what is known, and refused when that cannot be.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::Pid;
use tracing::{error, warn};

use super::app_signals::MOST_WAITING;
use super::children::Child;
use super::events::Call;
use super::post::Post;
use super::reason::{Reason, Why};
use super::state::Master;
use super::timers::Timer;
use crate::ids::{ChildId, GenerationNumber, WorkerId};
use crate::ipc::calls::{CallPacket, CallRequest, WorkerState};
use crate::ipc::schedule::When;
use crate::ipc::target::Target;
use crate::ipc::{Auxiliary, AuxiliaryKind, Role, send_message};
use crate::stats::snapshot::Purpose;
use rwsgi_config::{Config, Farm};

impl Master {
    /// Takes what concerns the application's signals.
    pub(super) fn take_call(&mut self, call: Call) {
        match call {
            Call::Packet(CallPacket { generation, what }, descriptor) => {
                if Some(generation) <= self.generations.newest() {
                    self.take_packet(generation, what, descriptor);
                } else {
                    warn!("a process says that it is of generation {generation}, which is none: refused");
                }
            }
            Call::Changed { generation, signal } => self.raise(generation, signal),
            Call::Handled(id) => {
                if let Some((generation, child)) = self.app_signals.handled(id) {
                    self.limit_mule(child, true);
                    self.deliver_waiting(generation);
                }
            }
            Call::Gone(id) => self.app_signals.forget_listener(|listener| listener.id == id),
        }
    }

    /// Whether a generation is older than the one that serves, or one that was loaded beside it and is not to serve.
    fn has_been(&self, generation: GenerationNumber) -> bool {
        let is_wanted = || self.children.fork_server(generation).is_some_and(|child| !child.is_leaving());
        let current = self.generations.current();
        current.is_some_and(|current| generation < current || generation > current && !is_wanted())
    }

    fn take_packet(&mut self, generation: GenerationNumber, what: CallRequest, descriptor: Option<OwnedFd>) {
        // What it still registers nobody would handle.
        let is_over = self.has_been(generation);
        match what {
            CallRequest::Register { .. } | CallRequest::Schedule { .. } | CallRequest::Watch { .. } if is_over => {}
            CallRequest::Register { signal, target } => {
                if let Some(problem) = self.doubt(&target) {
                    warn!("signal {signal}: {problem}");
                }
                self.app_signals.table(generation).register(signal, target);
            }
            CallRequest::Raise(signal) => self.raise(generation, signal),
            CallRequest::Schedule { signal, when } => {
                self.app_signals.table(generation).timetable.add(signal, when);
                self.set_timetable();
            }
            CallRequest::Watch { signal, path } => {
                self.app_signals.table(generation).watch_file(signal, path, self.events.clone());
            }
            CallRequest::Listen(role) => {
                let (Some(socket), Some(child)) = (descriptor, self.child_in(role)) else { return };
                let (id, post) = (child.id, child.post);
                if let Err(failure) = self.app_signals.admit(id, post, generation, socket, self.events.clone()) {
                    error!("{post} cannot be sent signals: {failure:#}");
                }
                self.deliver_waiting(generation);
            }
            CallRequest::Harakiri { role, seconds } => {
                let Some(child) = self.child_in(role) else { return };
                let timer = Timer::UserHarakiri(child.id);
                match seconds {
                    0 => self.timers.cancel(timer),
                    seconds => self.timers.set(timer, Instant::now() + Duration::from_secs(seconds.into())),
                }
            }
            CallRequest::Alarm { name, text } => self.raise_alarm(&name, &text),
            CallRequest::Begun { role, order, cost } => self.order_begun(role, order, &cost),
            CallRequest::Obeyed { role, order, outcome } => self.order_obeyed(role, order, outcome),
            CallRequest::Reforked { role, order, pid } => {
                if let Some(channel) = descriptor {
                    self.reforked(role, order, pid, channel);
                }
            }
            CallRequest::Workers => {
                let Some(descriptor) = descriptor else { return };
                let workers = self.worker_states();
                // Who asked may have gone; who does not read is not waited for.
                let _ = fcntl(&descriptor, FcntlArg::F_SETFL(OFlag::O_NONBLOCK));
                let _ = send_message(descriptor.as_fd(), &workers);
            }
        }
    }

    /// The process that says that this is its role; `None`, with a word in the log, when it cannot be.
    pub(super) fn child_in(&self, role: Role) -> Option<&Child> {
        let child = match role {
            Role::Worker { worker, slot } => {
                self.children.in_slot(slot).filter(|child| child.post == Post::Worker(worker))
            }
            Role::Auxiliary(who) => self.children.of(Post::Auxiliary(who)).next(),
        };
        if child.is_none() {
            warn!("a process says that it is {role:?}, which there is not: refused");
        }
        child
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

    /// Has a signal handled by whom it was registered for.
    pub(super) fn raise(&mut self, generation: GenerationNumber, signal: u8) {
        // What is left of another generation raises signals of the one that serves.
        let current = self.generations.current().filter(|_| self.has_been(generation));
        let generation = current.unwrap_or(generation);
        let table = self.app_signals.table(generation);
        if table.waiting.len() >= MOST_WAITING {
            warn!("signal {signal} is dropped: {MOST_WAITING} signals wait to be handled already");
            return;
        }
        table.waiting.push_back(signal);
        self.deliver_waiting(generation);
    }

    /// Sends the signals that wait to the processes that can take them.
    fn deliver_waiting(&mut self, generation: GenerationNumber) {
        let waiting = std::mem::take(&mut self.app_signals.table(generation).waiting);
        let left = waiting.into_iter().filter(|signal| !self.deliver(generation, *signal)).collect();
        self.app_signals.table(generation).waiting = left;
    }

    /// Whether somebody could be sent the signal.
    fn deliver(&mut self, generation: GenerationNumber, signal: u8) -> bool {
        let target = self.app_signals.table(generation).target(signal);
        let (children, config) = (&self.children, &self.config);
        let listeners = &mut self.app_signals.listeners;
        let is_meant = |post: Post, child: ChildId| match post {
            // One that leaves has handled its last.
            Post::Worker(worker) => {
                is_worker_meant(&target, worker) && children.get(child).is_some_and(|child| !child.is_leaving())
            }
            Post::Auxiliary(who) => is_auxiliary_meant(&target, who, config),
            Post::HttpRouter | Post::Emperor | Post::ForkServer => false,
        };
        let mut meant = listeners
            .iter_mut()
            .enumerate()
            .filter(|(_, listener)| listener.generation == generation && is_meant(listener.post, listener.child));
        if target.is_all() || matches!(target, Target::WorkerNumber(_) | Target::MuleNumber(_)) {
            let sent: Vec<ChildId> = meant
                .map(|(_, listener)| {
                    listener.send(signal);
                    listener.child
                })
                .collect();
            sent.iter().for_each(|child| self.limit_mule(*child, false));
            return !sent.is_empty();
        }
        let Some((index, free)) = meant.find(|(_, listener)| listener.pending.is_empty()) else { return false };
        free.send(signal);
        let child = free.child;
        self.limit_mule(child, false);
        // In turn: the one that has had none for longest goes first.
        let listener = self.app_signals.listeners.remove(index);
        self.app_signals.listeners.push(listener);
        true
    }

    /// The time is over that the application has set itself for a process.
    pub(super) fn user_harakiri(&mut self, id: ChildId) {
        let Some(child) = self.children.get(id) else { return };
        let (post, pid) = (child.post, child.pid.map_or(0, Pid::as_raw));
        error!("harakiri: {post} (pid {pid}) has not ended in the time that the application set: ending it");
        if let Post::Worker(worker) = post
            && let Some(totals) = self.totals_of(worker)
        {
            totals.harakiri += 1;
        }
        self.kill(id, Why::For(Reason::Harakiri));
    }

    /// `mule-harakiri`: a mule has so long from now for the signal that it handles. `is_next`: it has handled the one
    /// before.
    fn limit_mule(&mut self, child: ChildId, is_next: bool) {
        let Some(limit) = self.config.between.mule_harakiri else { return };
        let is_mule = |listener: &&super::app_signals::SignalListener| {
            let is_mule = matches!(listener.post, Post::Auxiliary(Auxiliary { kind: AuxiliaryKind::Mule, .. }));
            listener.child == child && is_mule
        };
        let Some(mule) = self.app_signals.listeners.iter().find(is_mule) else { return };
        let timer = Timer::MuleHarakiri(child);
        match mule.pending.len() {
            0 => self.timers.cancel(timer),
            // More wait behind the one that it handles.
            2.. if !is_next => {}
            _ => self.timers.set(timer, Instant::now() + Duration::from_secs(limit.into())),
        }
    }

    /// A mule has handled a signal for longer than `mule-harakiri` allows.
    pub(super) fn mule_harakiri(&mut self, id: ChildId) {
        let Some(child) = self.children.get(id) else { return };
        let (post, pid) = (child.post, child.pid.map_or(0, Pid::as_raw));
        error!("mule-harakiri: {post} (pid {pid}) has handled a signal for too long: ending it");
        self.kill(id, Why::For(Reason::Harakiri));
    }

    /// The application's timers are looked at when the next is due. Only those of the generation that serves run.
    pub(super) fn set_timetable(&mut self) {
        let current = self.generations.current();
        let due = current.and_then(|current| self.app_signals.table(current).timetable.deadline());
        match due {
            Some(due) => self.timers.set(Timer::Timetable, due),
            None => self.timers.cancel(Timer::Timetable),
        }
    }

    /// A generation serves: its signals are raised at the times and for the files that the configuration says.
    pub(super) fn schedule_configured(&mut self, generation: GenerationNumber) {
        let (signals, table) = (&self.config.signals, self.app_signals.table(generation));
        for &(signal, seconds, rb) in &signals.timers {
            table.timetable.add(signal, When::Every { seconds, times: 0, rb });
        }
        for (path, signal) in &signals.watched {
            table.watch_file(*signal, path.clone(), self.events.clone());
        }
    }

    /// Raises what the timetable says.
    pub(super) fn raise_scheduled(&mut self, now: Instant) {
        let Some(current) = self.generations.current() else { return };
        let is_first = current == GenerationNumber::FIRST;
        for signal in self.app_signals.table(current).timetable.tick(now, is_first) {
            self.raise(current, signal);
        }
        self.set_timetable();
    }

    fn worker_states(&mut self) -> Vec<WorkerState> {
        let workers = self.snapshot(Purpose::Document).workers.into_iter();
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

fn is_worker_meant(target: &Target, worker: WorkerId) -> bool {
    match target {
        Target::Worker | Target::Workers => true,
        Target::WorkerNumber(number) => *number == worker.get(),
        _ => false,
    }
}

fn is_auxiliary_meant(target: &Target, who: Auxiliary, config: &Config) -> bool {
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
