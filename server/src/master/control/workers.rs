//! Recycling and draining a worker, and how many there are.

use nix::unistd::Pid;
use tracing::{info, warn};

use super::Answering;
use super::waits::{Wait, What, workers};
use crate::ids::{SlotId, WorkerId};
use crate::master::children::Child;
use crate::master::post::Post;
use crate::master::reason::Reason;
use crate::master::state::Master;

impl Master {
    /// A worker of this number and its process that serves, or why there is none.
    fn serving(&self, number: u32) -> Result<(WorkerId, &Child), String> {
        let worker = WorkerId::new(number).filter(|worker| worker.get() <= self.config.processes);
        let worker =
            worker.ok_or_else(|| format!("there is no worker {number}: they are 1 to {}", self.config.processes))?;
        let serves = |child: &&Child| child.is_ready() && child.pid.is_some();
        match self.children.of(Post::Worker(worker)).rev().find(serves) {
            Some(child) => Ok((worker, child)),
            None if self.children.post(Post::Worker(worker)).is_wanted => {
                Err(format!("worker {worker} does not serve at the moment: it is being started"))
            }
            None => Err(format!(
                "worker {worker} has no process: it is not needed (cheaper, idle, or the number of workers)"
            )),
        }
    }

    /// Has a worker's process replaced, and answers when it has left.
    pub(super) fn control_recycle(&mut self, number: u32, answering: Answering) {
        let (worker, child) = match self.serving(number) {
            Ok((worker, child)) if child.is_replacing() => {
                return answering.failed(format!("worker {worker} is being replaced already"));
            }
            Ok((worker, child)) => (worker, child.id),
            Err(why) => return answering.failed(why),
        };
        self.replace(child, Reason::Recycle);
        answering.progress(format!("worker {worker} serves until its successor does"));
        self.control.waits.push(Wait { what: What::Successor(worker, child), answering });
    }

    /// Has a worker take no new requests, or take them again.
    pub(super) fn control_drain(&mut self, number: u32, is_drained: bool, answering: Answering) {
        let (worker, slot, pid) = match self.serving(number) {
            Ok((worker, Child { slot: Some(slot), pid: Some(pid), .. })) => (worker, *slot, *pid),
            // A worker that serves has both.
            Ok((worker, _)) => return answering.failed(format!("worker {worker} has no process")),
            Err(why) => return answering.failed(why),
        };
        let cell = self.scoreboard.worker(slot);
        if cell.drained() == is_drained {
            let state = if is_drained { "is drained already" } else { "is not drained" };
            return answering.text(format!("worker {worker} (pid {pid}) {state}"));
        }
        if is_drained && !self.another_takes_requests(slot) {
            return answering.failed(format!(
                "worker {worker} is the only one that takes requests, and they would wait: start another one first \
                 (workers N), or recycle it"
            ));
        }
        cell.set_drained(is_drained);
        answering.text(drained(worker, pid, is_drained));
    }

    /// Whether a worker's process beside the one in this slot serves and is not drained.
    fn another_takes_requests(&self, slot: SlotId) -> bool {
        let others = self.children.workers().filter(|child| child.is_ready());
        let mut others = others.filter_map(|child| child.slot).filter(|other| *other != slot);
        others.any(|other| !self.scoreboard.worker(other).drained())
    }

    /// Whether a worker's process is drained.
    pub(in crate::master) fn is_drained(&self, worker: WorkerId) -> bool {
        let newest = self.children.of(Post::Worker(worker)).rev().find(|child| !child.is_leaving());
        newest.and_then(|child| child.slot).is_some_and(|slot| self.scoreboard.worker(slot).drained())
    }

    /// Has so many workers run, and says what has become of that.
    pub(super) fn control_workers(&mut self, count: u32, answering: Answering) {
        match self.run_workers(count, true) {
            Ok(done) => answering.text(done),
            Err(why) => answering.failed(why),
        }
    }

    /// Has one worker more run, or one fewer, as a signal asks for.
    pub(in crate::master) fn change_workers(&mut self, is_more: bool) {
        if self.is_stopping() {
            return;
        }
        let (signal, now) =
            (if is_more { "SIGTTIN" } else { "SIGTTOU" }, self.control.most_workers.unwrap_or(self.config.processes));
        // Where the load decides how many run, only the most changes: one fewer must not start those that it has no use for.
        let by_load = self.config.cheaper.workers.is_some() || self.load.asleep.is_some();
        match self.run_workers(if is_more { now + 1 } else { now.saturating_sub(1) }, !by_load) {
            Ok(done) => info!("{signal}: {done}"),
            Err(why) => warn!("{signal}: {why}"),
        }
    }

    /// Has so many workers run, or at most so many where those that are missing are not to start now. Where `cheaper` decides
    /// that, it does so below this number from now on.
    fn run_workers(&mut self, count: u32, starts: bool) -> Result<String, String> {
        let most = self.config.processes;
        if !(1..=most).contains(&count) {
            return Err(format!(
                "{count} workers cannot run: it has space for 1 to {most} (processes); a restart with another number has more"
            ));
        }
        if let Some(canary) = &self.canary {
            return Err(format!(
                "generation {} is tried on a few workers: keep or undo it first (canary-keep, canary-undo)",
                canary.number()
            ));
        }
        let is_fewer = self.running().count() > count as usize;
        if is_fewer && self.running().take(count as usize).all(|worker| self.is_drained(worker)) {
            return Err(format!(
                "the {} that would stay take no requests, which would wait: undrain one first",
                workers(count)
            ));
        }
        self.control.most_workers = (count < most).then_some(count);
        if starts {
            // When no worker runs until a request comes, one has come.
            self.wake();
        }
        let before = self.running().count() as u32;
        if count > before && !starts {
            return Ok(format!("at most {} of {most} run from now on, {before} at present", workers(count)));
        }
        if count > before {
            self.add_workers(count - before);
        }
        let beyond: Vec<_> = self.running().skip(count as usize).collect();
        for worker in &beyond {
            self.make_cheap(*worker);
        }
        if !beyond.is_empty() {
            info!("{} run now", workers(count));
        }
        let change = match count.cmp(&before) {
            std::cmp::Ordering::Greater => format!(", {} more", count - before),
            std::cmp::Ordering::Equal => String::new(),
            std::cmp::Ordering::Less => format!(": {} finish their requests and leave", before - count),
        };
        let cheaper = match self.config.cheaper.workers {
            Some(_) => format!("; cheaper starts and stops them from now on, up to {count}"),
            None => String::new(),
        };
        Ok(format!("{} of {most} run now{change}{cheaper}", workers(count)))
    }
}

fn drained(worker: WorkerId, pid: Pid, is_drained: bool) -> String {
    match is_drained {
        true => format!(
            "worker {worker} (pid {pid}) takes no new requests from the next second on, and finishes those that it has; \
             undrain or the end of its process ends that"
        ),
        false => format!("worker {worker} (pid {pid}) takes requests again within a second"),
    }
}
