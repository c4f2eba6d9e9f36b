//! Refork: a worker that has served forks the next fork server of its generation. Later processes are forked from that
//! one, and share what the application has cached in it. `worker/orders/refork` is the worker's side.
//!
//! The next fork server takes over when it is ready and the one before has reported every process that it was ordered
//! to fork. Until then its end changes nothing. Then the workers are replaced one after another.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tracing::{error, info, warn};

use super::children::Ended;
use super::control::Answering;
use super::events::Reload;
use super::generation::Generation;
use super::post::Post;
use super::process::{Reaped, signal};
use super::reason::Reason;
use super::state::{Master, Phase};
use super::timers::Timer;
use crate::ids::{ChildId, GenerationNumber, WorkerId};
use crate::ipc::worker_order::{OrderNumber, WorkerOrderKind};
use crate::ipc::{Answer, Role};
use crate::stats::cell::ThreadCell;

/// By when the process is ready that a worker has forked: it collects garbage first.
const TO_LOAD: Duration = Duration::from_secs(60);

/// What is known of it.
#[derive(Debug, Default)]
pub(super) struct Reforks {
    next: Option<Next>,
    /// Workers that are to be replaced, one after another.
    to_replace: VecDeque<ChildId>,
}

/// A fork server that has not taken over yet.
#[derive(Debug)]
struct Next {
    generation: GenerationNumber,
    child: ChildId,
    worker: WorkerId,
    /// What connects it, once it is there.
    link: Option<Generation>,
    is_loaded: bool,
    answering: Option<Answering>,
}

impl Reforks {
    /// Whether nothing more is to be ordered from the fork server that serves.
    pub(super) fn is_about_to_take_over(&self) -> bool {
        self.next.as_ref().is_some_and(|next| next.is_loaded)
    }
}

impl Master {
    /// Has a worker fork the next fork server.
    pub(super) fn refork(&mut self, worker: Option<u32>, answering: Answering) {
        match self.begin_refork(worker) {
            Ok(child) => self.order_worker(child, WorkerOrderKind::Refork, answering),
            Err(why) => answering.failed(why),
        }
    }

    /// The process of the worker that is to fork.
    fn begin_refork(&mut self, worker: Option<u32>) -> Result<ChildId, String> {
        if self.phase != Phase::Serving {
            return Err("the server is stopping".into());
        }
        let Some(generation) = self.fork_server().and_then(|child| child.generation) else {
            return Err("the application is not loaded yet".into());
        };
        if let Some(canary) = &self.canary {
            return Err(format!("generation {} is tried on a few workers: keep or undo it first", canary.number()));
        }
        if self.is_loading() || self.chain.is_some() {
            return Err("a reload is under way: ask again when it is over".into());
        }
        if self.refork.next.is_some() || !self.refork.to_replace.is_empty() {
            return Err("a refork is under way: ask again when it is over".into());
        }
        let child = match worker {
            Some(worker) => self.serving_worker(worker)?,
            None => self.busiest_worker().ok_or("no worker serves now")?,
        };
        let of_worker = self.children.get(child).map(|child| (child.post, child.generation));
        let Some((Post::Worker(worker), Some(of_child))) = of_worker else { return Err("the worker has ended".into()) };
        if of_child != generation {
            return Err(format!("worker {worker} is of generation {of_child}, and {generation} serves"));
        }
        let begun = self.begin(Post::ForkServer, Some(generation), Instant::now());
        let next = begun.ok_or("there is no space for its process")?;
        let link = None;
        self.refork.next = Some(Next { generation, child: next, worker, link, is_loaded: false, answering: None });
        Ok(child)
    }

    /// The process that has served the most requests.
    fn busiest_worker(&self) -> Option<ChildId> {
        let requests = |slot| -> u64 {
            let cells = self.scoreboard.threads(slot);
            cells.map(ThreadCell::read).map(|read| read.map_or(0, |sample| sample.counters.requests)).sum()
        };
        let ready = self.children.workers().filter(|child| child.is_ready() && !child.is_replacing());
        ready.filter_map(|child| Some((requests(child.slot?), child.id))).max().map(|(_, id)| id)
    }

    /// A worker reports that it has forked the next fork server.
    pub(super) fn reforked(&mut self, role: Role, order: OrderNumber, pid: i32, channel: OwnedFd) {
        let Some(pending) = self.take_order(role, order).filter(super::worker_orders::Pending::is_refork) else {
            return;
        };
        let pid = Pid::from_raw(pid);
        // Numbers below are groups to kill(2), and init.
        let is_known = pid.as_raw() <= 1 || self.children.with_pid(pid).is_some();
        let (config, events) = (self.config.clone(), self.events.clone());
        let Some(next) = self.refork.next.as_mut() else { return };
        next.answering = Some(pending.answering);
        if is_known {
            return self.cancel_refork(&format!("it says that it has forked process {pid}, which cannot be"));
        }
        let child = next.child;
        match Generation::new(next.generation, channel, config, Reload::Again, events) {
            Ok(link) => next.link = Some(link),
            Err(failure) => return self.cancel_refork(&format!("{failure:#}")),
        }
        info!("refork: worker {} has forked the next fork server (pid {pid})", pending.worker);
        if let Some(number) = self.children.announce(child, pid) {
            signal(pid, number);
        }
        self.timers.set(Timer::Refork, Instant::now() + TO_LOAD);
        if let Some(reaped) = self.children.take_unannounced(child) {
            self.reaped(reaped);
        }
    }

    /// Reads what the next fork server has answered so far.
    pub(super) fn take_refork_answers(&mut self) {
        let Some(next) = &mut self.refork.next else { return };
        let answers = next.link.as_ref().map(Generation::take_answers).into_iter().flatten();
        next.is_loaded |= answers.filter(|answer| matches!(answer, Answer::Loaded { .. })).count() > 0;
    }

    /// Lets the next fork server take over, once it is ready and the one before has answered its orders.
    pub(super) fn proceed_with_refork(&mut self) {
        if !self.refork.is_about_to_take_over() {
            return;
        }
        let Some(next) = self.refork.next.take_if(|next| !self.children.awaits_report(next.generation)) else { return };
        let Next { generation, child, worker, link, answering, .. } = next;
        self.timers.cancel(Timer::Refork);
        // Its predecessor is told to leave.
        self.ready(child);
        if let (Some(generation), Some(link)) = (self.generations.get_mut(generation), link) {
            generation.take_over(link);
        }
        self.refork.to_replace =
            self.children.workers().filter(|child| !child.is_leaving()).map(|child| child.id).collect();
        let count = self.refork.to_replace.len();
        info!(
            "refork: new processes are forked from a copy of worker {worker} from now on; {count} workers are replaced"
        );
        if let Some(answering) = answering {
            answering.text(format!(
                "processes are forked from a copy of worker {worker} from now on, and share its memory; {count} workers are \
                 replaced one after another"
            ));
        }
        self.advance_refork();
    }

    /// Has the next worker replaced.
    pub(super) fn advance_refork(&mut self) {
        while let Some(id) = self.refork.to_replace.pop_front() {
            let is_news = self.children.replace(id, Reason::Refork, &mut self.timers);
            if self.refork.to_replace.is_empty() {
                info!("refork: the last worker is being replaced");
            }
            if is_news {
                return;
            }
        }
    }

    /// Gives up a refork. Nothing else changes.
    pub(super) fn cancel_refork(&mut self, why: &str) {
        let Some(next) = self.refork.next.take() else { return };
        self.timers.cancel(Timer::Refork);
        warn!("refork: everything stays as it was: {why}");
        if let Some(pending) = self.worker_orders.take(super::worker_orders::Pending::is_refork) {
            self.take_back(&pending);
            pending.answering.failed(why);
        }
        if let Some(answering) = next.answering {
            answering.failed(why);
        }
        if let Some(pid) = self.children.get(next.child).and_then(|child| child.pid) {
            signal(pid, Signal::SIGKILL);
        }
        self.children.forget_order(next.child, Instant::now(), &mut self.timers);
    }

    /// A fork server has ended. Whether that is of no consequence: it was one that has not taken over, or one whose
    /// successor has.
    pub(super) fn refork_ended(&mut self, generation: GenerationNumber, ended: &Ended, reaped: Reaped) -> bool {
        let Reaped { pid, end, .. } = reaped;
        if let Some(next) = self.refork.next.take_if(|next| next.child == ended.child.id) {
            self.timers.cancel(Timer::Refork);
            error!("refork: the next fork server (pid {pid}) died: {end}: everything stays as it was");
            if let Some(answering) = next.answering {
                answering
                    .failed(format!("the process that the worker has forked died: {end}; everything stays as it was"));
            }
            return true;
        }
        if self.children.fork_server(generation).is_some_and(super::children::Child::is_ready) {
            info!("fork server of generation {generation} (pid {pid}) has left for the next one");
            return true;
        }
        if self.refork.next.as_ref().is_some_and(|next| next.generation == generation) {
            self.cancel_refork("the fork server of its generation has ended");
        }
        false
    }
}
