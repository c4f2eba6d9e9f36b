//! Reaping processes that have ended: which they were, why they ended, and what becomes of their posts.

use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tracing::{error, info, warn};

use super::children::{Cause, Child, Ended, Stage};
use super::post::Post;
use super::process::{Change, End, Reaped, next_change, signal};
use super::queues::put_off;
use super::reason::{Reason, Why};
use super::state::{Master, Phase};
use crate::clock::MonotonicNanos;
use crate::hooks::EXIT_HOOK_FAILED;
use crate::ids::{ChildId, GenerationNumber, SlotId, WorkerId};
use crate::ipc::{Auxiliary, AuxiliaryKind};
use crate::process_setup::EXIT_NO_APP;
use crate::spooler::tries;
use crate::stats::cell::{ThreadCell, Verdict};
use crate::stats::generation_sums::GenerationSums;
use crate::stats::request::describe;
use crate::stats::scoreboard::{CorruptSlot, TempHolder};

/// While the router leaves, a worker that is gone is replaced after this: the router may be about to be gone as well.
const STOPPING_DELAY: Duration = Duration::from_millis(200);

impl Master {
    /// Reaps every child that has ended, and takes note of those that are stopped or go on.
    pub(super) fn reap_all(&mut self) {
        while let Some(change) = next_change() {
            match change {
                Change::Ended(reaped) => self.reaped(reaped),
                Change::Stopped(pid) => self.stopped(pid, Some(Instant::now())),
                Change::Continued(pid) => self.stopped(pid, None),
            }
        }
    }

    /// A process has ended.
    pub(super) fn reaped(&mut self, reaped: Reaped) {
        if self.hook_ended(reaped) {
            return;
        }
        let Some(child) = self.children.with_pid(reaped.pid) else {
            // One that was killed before its fork server reported it, or somebody else's orphan: the master, being a
            // subreaper, inherits what the application's processes leave behind.
            let now = Instant::now();
            if !self.daemon_ended(reaped, now) && !self.cron_ended(reaped, now) {
                self.children.keep_unannounced(reaped);
            }
            return;
        };
        let (id, post, generation) = (child.id, child.post, child.generation);
        if let (Post::ForkServer, Some(number)) = (post, generation) {
            let last = self.generations.get(number).map(super::generation::Generation::take_last_answers);
            last.into_iter().flatten().for_each(|answer| self.take_answer(number, answer));
        }
        let now = Instant::now();
        let Some(ended) = self.children.reap(id, reaped.end, now, &mut self.timers) else { return };
        self.app_signals.forget_listener(|listener| listener.child == id);
        self.orders_end(id);
        let name = format!("{post} (pid {})", reaped.pid);
        if !matches!(ended.child.stage, Stage::Killed(_)) {
            self.explain_kill(&name, reaped.end);
        }
        self.alarm_of_end(&name, reaped.end);
        if reaped.end == End::Exited(EXIT_HOOK_FAILED) && self.phase == Phase::Serving {
            error!("{post} (pid {}) ended because a hook has failed: stopping", reaped.pid);
            self.fail(1);
        }
        match (post, generation) {
            (Post::Worker(worker), _) => self.worker_ended(worker, &ended, reaped, now),
            (Post::Auxiliary(who), _) => self.auxiliary_ended(who, &ended, reaped, now),
            (Post::HttpRouter, _) => self.router_ended(&ended, reaped),
            (Post::Emperor, _) => self.emperor_ended(&ended, reaped),
            (Post::ForkServer, Some(number)) => self.fork_server_ended(number, &ended, reaped, now),
            // A fork server has a generation.
            (Post::ForkServer, None) => {}
        }
    }

    /// A worker's process has ended: counts what it did, and says why it ended.
    fn worker_ended(&mut self, worker: WorkerId, ended: &Ended, reaped: Reaped, now: Instant) {
        let Reaped { pid, end, processor_time } = reaped;
        let generation = generation_of(ended);
        if self.phase == Phase::RouterLeaves {
            self.children.postpone(Post::Worker(worker), STOPPING_DELAY, now, &mut self.timers);
        }
        self.trace_ended(&ended.child);
        self.slow_of_ended(&ended.child);
        let held =
            ended.child.slot.map_or_else(Vec::new, |slot| self.clear_slot(worker, pid, slot, ended.child.generation));
        if let Some(totals) = self.totals_of(worker) {
            totals.processor_time += processor_time.as_nanos() as u64;
            match ended.cause {
                Cause::Asked(Why::For(reason)) => *reason.count(&mut totals.recycled) += 1,
                Cause::Asked(Why::Stop) => {}
                Cause::Crash => totals.recycled.crash += 1,
            }
        }
        let was_overdue = self.overdue.remove(&ended.child.id).is_some();
        if was_overdue && end == End::Killed(Signal::SIGKILL as i32) {
            info!("worker {worker} (pid {pid}) of generation {generation} was ended by harakiri");
        } else if end != End::Exited(0) || (!ended.child.is_leaving() && self.phase == Phase::Serving) {
            let while_it_served: String = held.iter().map(|request| format!(", while it served {request}")).collect();
            let next = match ended.next {
                Some(Duration::ZERO) => "; replacing it".to_owned(),
                Some(delay) => format!("; replacing it in {} s", delay.as_secs()),
                None => String::new(),
            };
            error!("worker {worker} (pid {pid}) died: {end}{while_it_served}{next}");
        } else {
            info!("worker {worker} (pid {pid}) of generation {generation} has left");
        }
        if ended.cause == Cause::Crash && self.phase == Phase::Serving {
            let how = format!("its worker {worker} (pid {pid}) died ({end})");
            self.canary_died(ended.child.generation, &how);
        }
        if !self.children.workers().any(Child::is_replacing) {
            // One that was being replaced is not wanted any more, and no successor will say that it serves.
            self.advance_refork();
        }
        // With lazy-apps it is the workers that load: one that cannot, before any could, is a server without an app.
        if end == End::Exited(EXIT_NO_APP) && !self.any_ready && self.phase == Phase::Serving {
            error!("no application could be loaded: exiting");
            self.fail(EXIT_NO_APP);
        }
    }

    /// Adds what a slot counted to its worker's totals, and makes it free for another process. Returns the requests
    /// that were in progress there, in words.
    fn clear_slot(
        &mut self,
        worker: WorkerId,
        pid: Pid,
        slot: SlotId,
        generation: Option<GenerationNumber>,
    ) -> Vec<String> {
        let now = MonotonicNanos::now();
        let held = self.scoreboard.threads(slot).filter_map(ThreadCell::held);
        let held = held.map(|request| describe(&request, now, self.config.show_request)).collect();
        if let Some(totals) = self.totals.get_mut(worker.index()) {
            // What is of a generation that is not kept any more is nobody's.
            let mut nobodys = GenerationSums::default();
            let sums = generation.and_then(|number| self.generation_history.past(number)).unwrap_or(&mut nobodys);
            let absorbed = totals.absorb(&self.scoreboard, slot, now, sums);
            self.share.board.add_past_requests(absorbed.requests);
            if let Some(CorruptSlot { thread, corrupt, .. }) = absorbed.corrupt {
                error!("worker {worker} (pid {pid}): what its thread {thread} counted is lost: {corrupt}");
            }
        }
        self.absorb_routes(worker, pid, slot, generation, now);
        if let Err(failure) = self.scoreboard.clear(slot) {
            // Counts that stay in the slot would be counted twice: better to say so than to guess.
            error!("scoreboard: slot {slot} cannot be cleared ({failure}): counts of worker {worker} are off");
        }
        if let Err(failure) = self.stacks.memory().clear(slot) {
            warn!("stacks: slot {slot} cannot be cleared ({failure}): its memory is lost");
        }
        held
    }

    /// An auxiliary process has ended.
    fn auxiliary_ended(&mut self, who: Auxiliary, ended: &Ended, reaped: Reaped, now: Instant) {
        let Reaped { pid, end, .. } = reaped;
        let held = match who.kind {
            AuxiliaryKind::Spooler => self.give_job_back(who, pid, end),
            AuxiliaryKind::Mule => None,
        };
        let lived = now.saturating_duration_since(ended.child.since).as_secs();
        let next = match ended.next {
            Some(delay) if !delay.is_zero() => format!("; starting another in {} s", delay.as_secs()),
            Some(_) => "; starting another".to_owned(),
            None => String::new(),
        };
        match end {
            End::Exited(0) => info!("{who} (pid {pid}) has left{next}"),
            end if self.phase != Phase::Serving => info!("{who} (pid {pid}): {end}"),
            end => error!("{who} (pid {pid}) died after {lived} s: {end}{next}"),
        }
        if let Some(held) = held {
            warn!("{who} (pid {pid}) ended while it ran {held}");
        }
    }

    /// A spooler's process has ended: what it held is counted, and left to others. Returns what it held, in words.
    fn give_job_back(&self, who: Auxiliary, pid: Pid, end: End) -> Option<String> {
        let cell = self.scoreboard.spooler(who.number - 1);
        if cell.pid() == Some(pid) {
            cell.vacate();
        }
        // What is no job of its directory is nobody's to put off.
        let job = cell.held().ok()??;
        let now = MonotonicNanos::now();
        cell.finish(now, Verdict::Failed);
        let name = job.path.to_string_lossy();
        let config = &self.config.spooler;
        let path = config.directory_of(who.number)?.join(&job.path);
        let age = now.since(job.started);
        let is_harakiri = end == End::Killed(Signal::SIGKILL as i32)
            && config.harakiri.is_some_and(|limit| age >= Duration::from_secs(limit.into()));
        let tries = tries::count_one(&path);
        // One that was killed with its process is innocent at first. One that does it again may be what kills.
        let delay =
            if is_harakiri || tries > 1 { Duration::from_secs(config.frequency.into()) } else { Duration::ZERO };
        if let Err(failure) = put_off(&path, delay) {
            // It was done, and the process died before it could say so.
            if failure != nix::errno::Errno::ENOENT {
                warn!("{who}: the job {name} cannot be put off: {failure}");
            }
        }
        let next = if delay.is_zero() { "at once".to_owned() } else { format!("in {} s", delay.as_secs()) };
        Some(format!("{name} for {} s (try {tries}): again {next}", age.as_secs()))
    }

    /// The http router has ended.
    fn router_ended(&mut self, ended: &Ended, reaped: Reaped) {
        let Reaped { pid, end, .. } = reaped;
        self.router_channel = None;
        self.scoreboard.temporary(TempHolder::Router).store(0, SeqCst);
        if self.phase == Phase::Serving {
            let next = match ended.next {
                Some(delay) if !delay.is_zero() => format!("starting another in {} s", delay.as_secs()),
                _ => "starting another".to_owned(),
            };
            error!("http router (pid {pid}) died: {end}; {next}");
        }
    }

    /// A fork server has ended: what it was to fork and has not reported is ordered from another.
    fn fork_server_ended(&mut self, number: GenerationNumber, ended: &Ended, reaped: Reaped, now: Instant) {
        let Reaped { pid, end, .. } = reaped;
        if self.refork_ended(number, ended, reaped) {
            return;
        }
        self.children.forget_orders(number, now, &mut self.timers);
        let was_loaded = self.generations.get(number).is_some_and(|generation| generation.python.is_some());
        self.generations.remove(number);
        if self.phase != Phase::Serving {
            return;
        }
        let next = match ended.next {
            Some(delay) if !delay.is_zero() => format!(" in {} s", delay.as_secs()),
            _ => String::new(),
        };
        match self.generations.current() {
            // It was told to leave.
            Some(current) if number < current || ended.child.is_leaving() => {}
            Some(current) if number == current && self.canary.is_some() => {
                error!(
                    "fork server of generation {number} (pid {pid}) died: {end}; until the canary is over, processes are \
                     forked from its generation"
                );
            }
            Some(_) if self.canary.as_ref().is_some_and(|canary| canary.number() == number) => {
                if !was_loaded {
                    self.reload_count.failed();
                }
                self.canary_died(
                    Some(number),
                    &format!("its application was not loaded, or its fork server died ({end})"),
                );
            }
            Some(current) if number == current => {
                error!(
                    "fork server of generation {number} (pid {pid}) died: {end}; loading the application again{next}"
                );
            }
            Some(current) => {
                self.app_signals.forget(number);
                self.reload_count.failed();
                error!("reload: generation {number} failed to load ({end}): generation {current} goes on");
                self.tell_ready();
            }
            None => {
                match end {
                    End::Exited(EXIT_NO_APP) => error!("no application could be loaded: exiting"),
                    end => error!("the application could not be loaded: its process ended with {end}: exiting"),
                }
                self.fail(if let End::Exited(status @ 1..) = end { status } else { EXIT_NO_APP });
            }
        }
    }

    /// Signals a child to finish what it has and leave, within the configured `*-reload-mercy`.
    pub(super) fn dismiss(&mut self, id: ChildId, why: Why) {
        let Some(child) = self.children.get(id) else { return };
        let (post, generation) = (child.post, child.generation);
        let in_haste = self.haste && why == Why::For(Reason::Reload) && post != Post::ForkServer;
        let grace = if in_haste { Duration::ZERO } else { self.grace() };
        let pid = self.children.dismiss(id, why, grace, Instant::now(), &mut self.timers);
        match (post, pid) {
            // It handles no signals, but sees the end of its channel.
            (Post::ForkServer, _) => {
                if let Some(generation) = generation.and_then(|number| self.generations.get(number)) {
                    generation.dismiss();
                }
            }
            (_, Some(pid)) => signal(pid, Signal::SIGTERM),
            // It is signalled once its process id is known.
            (_, None) => {}
        }
    }

    /// Kills a child that has not left in time.
    pub(super) fn kill_late(&mut self, id: ChildId) {
        let Some(post) = self.children.get(id).map(|child| child.post) else { return };
        if let Some(pid) = self.children.kill_late(id, &mut self.timers) {
            warn!("{post} (pid {pid}) did not leave in time: killed");
            signal(pid, Signal::SIGKILL);
        }
    }

    /// Kills a child, whatever it is doing.
    pub(super) fn kill(&mut self, id: ChildId, why: Why) {
        if let Some(pid) = self.children.kill(id, why, &mut self.timers) {
            signal(pid, Signal::SIGKILL);
        }
    }
}

/// The generation of a process that had one, for the log.
fn generation_of(ended: &Ended) -> u32 {
    ended.child.generation.map_or(0, GenerationNumber::get)
}
