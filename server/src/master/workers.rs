//! Forking, greeting and burying workers.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tracing::{error, info, warn};

use super::pool::{Fate, Reason};
use super::process::{End, Reaped};
use super::shutdown::Phase;
use super::{Master, clock};
use crate::clock::MonotonicNanos;
use crate::ids::SlotId;
use crate::ipc::{Order, Role};
use crate::process_setup::EXIT_NO_APP;
use crate::stats::cell::ThreadCell;
use crate::stats::request::describe;
use crate::stats::scoreboard::CorruptSlot;

/// While the router leaves, a worker that is gone is replaced after this.
const STOPPING_DELAY: Duration = Duration::from_millis(200);

impl Master {
    /// Orders a life for every worker that is due.
    pub(super) fn fork_due(&mut self, now: Instant) {
        let Some(index) = self.generations.iter().position(|g| g.number == self.current) else { return };
        for worker in self.pool.due(now) {
            let unix_seconds = clock::unix_micros() / 1_000_000;
            let Some(slot) = self.pool.begin(worker, self.current, now, unix_seconds) else {
                // Lives that linger after earlier reloads have all slots: the next one that ends frees one.
                self.pool.worker(worker).due = Some(now + Duration::from_millis(100));
                continue;
            };
            if let Err(error) = self.generations[index].order(Order::Fork(Role::Worker { worker, slot })) {
                self.not_forked(slot, &error.to_string());
            }
        }
    }

    /// A worker was forked; it may have ended already.
    pub(super) fn forked(&mut self, slot: u32, pid: Pid) {
        if let Some(life) = self.pool.in_slot(slot) {
            life.pid = Some(pid);
            if life.fate.is_some() {
                signal(pid, Signal::SIGTERM);
            }
        }
        self.bury_unannounced(pid);
    }

    /// Buries a process that ended before its fork server told of it.
    pub(super) fn bury_unannounced(&mut self, pid: Pid) {
        if let Some(position) = self.unannounced.iter().position(|reaped| reaped.pid == pid) {
            let reaped = self.unannounced.remove(position);
            self.bury(reaped);
        }
    }

    /// A worker could not be forked.
    pub(super) fn not_forked(&mut self, slot: u32, reason: &str) {
        let Some(index) = self.pool.lives.iter().position(|life| life.slot == slot) else { return };
        let (life, _) = self.pool.end(index, End::Exited(1), Instant::now());
        error!("worker {}: cannot be forked: {reason}", life.worker);
    }

    /// A worker serves: the lives that it replaces may leave.
    pub(super) fn welcome(&mut self, slot: u32) {
        self.any_ready = true;
        let Some(life) = self.pool.in_slot(slot) else { return };
        life.ready = true;
        // Told to leave before it could listen: between its fork and now the signal was lost.
        if let (Some(_), Some(pid)) = (life.fate, life.pid) {
            signal(pid, Signal::SIGTERM);
        }
        let (worker, generation) = (life.worker, life.generation);
        let old: Vec<_> = self
            .pool
            .lives
            .iter()
            .filter(|life| life.worker == worker && life.slot != slot && life.generation <= generation)
            .map(|life| (life.slot, life.doom.unwrap_or(Reason::Reload)))
            .collect();
        for (slot, reason) in old {
            self.send_away(slot, Fate::Leave(reason));
        }
        self.tell_ready_when_done(worker);
        // What is overdue in the old one has waited for this.
        self.watchdog.due = self.watchdog.due.map(|_| Instant::now());
    }

    /// Goes on with a chain reload, or tells the supervisor that the server is ready (again).
    fn tell_ready_when_done(&mut self, worker: u32) {
        let all_new = self.pool.lives.iter().all(|life| life.worker != worker || life.generation == self.current);
        if self.chain.is_none() {
            self.tell_ready();
        } else if all_new || self.pool.lives.iter().any(|life| life.worker == worker && life.fate.is_some()) {
            self.advance_chain();
        }
    }

    /// Has a life replaced: it serves on until its successor does.
    pub(super) fn replace(&mut self, slot: u32, reason: Reason) {
        if self.phase == Phase::Serving
            && self.pool.doom(slot, reason, Instant::now())
            && let Some(life) = self.pool.in_slot(slot)
        {
            let pid = life.pid.map_or(0, Pid::as_raw);
            info!("worker {} (pid {pid}): {reason}: replacing it", life.worker);
        }
    }

    /// Asks a life to finish what it has and leave, within the mercy that is configured.
    pub(super) fn send_away(&mut self, slot: u32, fate: Fate) {
        let in_haste = self.haste && fate == Fate::Leave(Reason::Reload);
        let mercy = if in_haste { Duration::ZERO } else { Duration::from_secs(self.config.reload_mercy.into()) };
        let Some(life) = self.pool.in_slot(slot) else { return };
        if life.fate.is_some() {
            return;
        }
        life.fate = Some(fate);
        let late = Instant::now() + mercy;
        life.killed_at = Some(life.killed_at.map_or(late, |earlier| earlier.min(late)));
        if let Some(pid) = life.pid {
            signal(pid, Signal::SIGTERM);
        }
    }

    /// Kills the lives that have not left in time.
    pub(super) fn kill_late(&mut self, now: Instant) {
        for life in &mut self.pool.lives {
            if life.killed_at.is_some_and(|at| at <= now) {
                life.killed_at = None;
                if let Some(pid) = life.pid {
                    warn!("worker {} (pid {pid}) did not leave in time: killed", life.worker);
                    signal(pid, Signal::SIGKILL);
                }
            }
        }
    }

    /// A child has ended: finds out which, counts it, says why, and has it replaced.
    pub(super) fn bury(&mut self, reaped: Reaped) {
        let Reaped { pid, end, processor_time } = reaped;
        if self.bury_router(pid, end) || self.bury_fork_server(pid, end) || self.bury_auxiliary(reaped) {
            return;
        }
        let Some(index) = self.pool.lives.iter().position(|life| life.pid == Some(pid)) else {
            // A worker that ended before its fork server told of it, or somebody else's orphan: the master, being
            // a subreaper, inherits what the application's processes leave behind.
            if self.pool.lives.iter().any(|life| life.pid.is_none()) || self.awaits_auxiliary() {
                self.unannounced.push(reaped);
            }
            return;
        };
        let now = Instant::now();
        let (life, delay) = self.pool.end(index, end, now);
        if self.phase == Phase::RouterLeaves {
            // The router may be about to leave as well.
            let entry = self.pool.worker(life.worker);
            entry.due = entry.due.map(|due| due + STOPPING_DELAY);
        }
        let slot = SlotId::new(life.slot);
        let held: Vec<_> = self.scoreboard.threads(slot).filter_map(ThreadCell::held).collect();
        let totals = &mut self.pool.worker(life.worker).totals;
        let absorbed = totals.absorb(&self.scoreboard, slot, MonotonicNanos::now());
        totals.processor_time += processor_time.as_nanos() as u64;
        self.share.board.add_past_requests(absorbed.requests);
        if let Some(corrupt) = absorbed.corrupt {
            let CorruptSlot { thread, corrupt, .. } = corrupt;
            error!("worker {} (pid {pid}): what its thread {thread} counted is lost: {corrupt}", life.worker);
        }
        if let Err(error) = self.scoreboard.clear(slot) {
            // Counts that stay in the slot would be counted twice: better to say so than to guess.
            error!(
                "scoreboard: slot {} cannot be cleared ({error}): counts of worker {} are off",
                life.slot, life.worker
            );
        }
        let is_harakiri = !life.overdue.is_empty() && end == End::Killed(Signal::SIGKILL as i32);
        if is_harakiri {
            info!("worker {} (pid {pid}) of generation {} was ended by harakiri", life.worker, life.generation);
        } else if end != End::Exited(0) || (life.fate.is_none() && self.phase == Phase::Serving) {
            let mut line = format!("worker {} (pid {pid}) died: {end}", life.worker);
            for request in &held {
                line.push_str(&format!(", while it served {}", describe(request, MonotonicNanos::now())));
            }
            match delay {
                Some(Duration::ZERO) => line.push_str("; replacing it"),
                Some(delay) => line.push_str(&format!("; replacing it in {} s", delay.as_secs())),
                None => {}
            }
            error!("{line}");
        } else {
            info!("worker {} (pid {pid}) of generation {} has left", life.worker, life.generation);
        }
        // With lazy-apps it is the workers that load: one that cannot, before any could, is a server without an app.
        if end == End::Exited(EXIT_NO_APP) && !self.any_ready && self.phase == Phase::Serving {
            error!("no application could be loaded: exiting");
            self.fail(EXIT_NO_APP);
        }
    }
}

/// Sends a signal to a child of ours. One that ended a moment ago is still there to be reaped, so that the process id
/// is no other's, and the signal is lost harmlessly.
pub(super) fn signal(pid: Pid, signal: Signal) {
    let _ = kill(pid, signal);
}
