//! A canary: a new generation that a few workers serve beside the others, until a client keeps it (all workers serve
//! it) or undoes it (none does). The master undoes it when its time is over, so a client that dies undoes its deploy.
//!
//! [`Canary`] is bookkeeping without system calls. What is decided:
//!
//! - A worker that is replaced meanwhile, for whatever reason, gets a process of the generation that it had.
//! - With `lazy-apps` a process that starts later loads the files as they are then. So the processes that a canary's
//!   workers had are kept, drained, and serve again when it is undone.
//! - A canary's process that dies, or cannot start, undoes it. So does the end of its fork server.
//! - The end of the other fork server does not undo it: its workers serve on, and new processes are of the canary's
//!   generation. If that is undone, the application is loaded again, as always when a fork server has died.
//! - A reload undoes it and then loads for all. A stop ends everything.
//! - `cheaper` starts workers and stops none meanwhile; `idle` waits.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rwsgi_stats::Canary as Told;
use tracing::{info, warn};

use super::children::{self, Child};
use super::control::Answering;
use super::events::Reload;
use super::post::Post;
use super::reason::{Reason, Why};
use super::state::{Master, Phase};
use super::timers::Timer;
use crate::clock::UnixMicros;
use crate::ids::{ChildId, GenerationNumber, WorkerId};
use crate::stats::generations::GenerationState;

/// The longest time that a canary is tried.
const LONGEST: Duration = Duration::from_secs(86_400);

/// How far a canary has come.
#[derive(Debug)]
enum Stage {
    /// Its application is loaded; who asked waits.
    Loading(Answering),
    /// Its workers start; who asked waits.
    Starting(Answering),
    /// They serve, since and until then.
    Tried(UnixMicros, UnixMicros),
}

/// A generation that is tried on a few workers.
#[derive(Debug)]
pub(super) struct Canary {
    number: GenerationNumber,
    /// How many workers are to serve it.
    size: u32,
    /// For how long it is tried.
    time: Duration,
    /// Which they are, once it is loaded.
    workers: BTreeSet<WorkerId>,
    stage: Stage,
}

impl Canary {
    fn new(number: GenerationNumber, size: u32, time: Duration, answering: Answering) -> Self {
        Self { number, size, time, workers: BTreeSet::new(), stage: Stage::Loading(answering) }
    }

    /// Its generation.
    pub(super) fn number(&self) -> GenerationNumber {
        self.number
    }

    /// Whether a worker is to serve it.
    pub(super) fn has(&self, worker: WorkerId) -> bool {
        self.workers.contains(&worker)
    }

    /// Its application was loaded, and these workers are to serve it.
    fn loaded(&mut self, workers: BTreeSet<WorkerId>) {
        self.workers = workers;
        self.stage =
            match std::mem::replace(&mut self.stage, Stage::Tried(UnixMicros::default(), UnixMicros::default())) {
                Stage::Loading(answering) => Stage::Starting(answering),
                other => other,
            };
    }

    /// A process of it serves; `serves` says of which workers one does. When that is all of them for the first time, it is
    /// tried from now on: whom to tell.
    fn served(&mut self, serves: impl Fn(WorkerId) -> bool, now: UnixMicros) -> Option<Answering> {
        if !matches!(self.stage, Stage::Starting(_)) || !self.workers.iter().all(|worker| serves(*worker)) {
            return None;
        }
        let until = UnixMicros::from_micros(now.as_micros().saturating_add(self.time.as_micros() as u64));
        match std::mem::replace(&mut self.stage, Stage::Tried(now, until)) {
            Stage::Starting(answering) => Some(answering),
            Stage::Loading(_) | Stage::Tried(..) => None,
        }
    }

    fn is_tried(&self) -> bool {
        matches!(self.stage, Stage::Tried(..))
    }

    /// What the stats document has of it.
    pub(super) fn describe(&self) -> Told {
        let (started_at, until) = match self.stage {
            Stage::Tried(since, until) => (since.as_micros(), until.as_micros()),
            Stage::Loading(_) | Stage::Starting(_) => (0, 0),
        };
        let workers = if self.workers.is_empty() { self.size } else { self.workers.len() as u32 };
        Told { generation: self.number.get(), workers, started_at, until }
    }

    /// It was given up: tells who waits, if anybody does.
    fn give_up(self, why: &str) {
        if let Stage::Loading(answering) | Stage::Starting(answering) = self.stage {
            answering.failed(format!(
                "the canary is undone: {why}; the generation before it goes on, and the log says more"
            ));
        }
    }
}

/// What is wrong with asking for a canary of so many workers for so long.
fn doubt(size: u32, seconds: f64, processes: u32) -> Result<Duration, String> {
    let time = Duration::try_from_secs_f64(seconds).unwrap_or_default();
    if time < Duration::from_secs(1) || time > LONGEST {
        return Err(format!("canary: it is tried for {seconds} s: expected 1 s to {} s", LONGEST.as_secs()));
    }
    if processes < 2 {
        return Err("canary: this server has one worker, and needs another to compare it with: set processes to 2 or \
                    more, or reload"
            .to_owned());
    }
    if size == 0 || size >= processes {
        return Err(format!(
            "canary: {size} of {processes} workers: at least one is tried, and one serves what served before: expected 1 \
             to {}",
            processes - 1
        ));
    }
    Ok(time)
}

impl Master {
    /// Loads a new generation for a few workers. Who asked is told when they serve, or why they do not.
    pub(super) fn begin_canary(&mut self, size: u32, seconds: f64, answering: Answering) {
        let (current, newest) = (self.generations.current(), self.generations.newest());
        let most = self.control.most_workers.unwrap_or(self.config.processes);
        let time = match doubt(size, seconds, most) {
            Ok(time) => time,
            Err(why) => return answering.failed(why),
        };
        let refused = if self.is_stopping() {
            Some("canary: the server is stopping".to_owned())
        } else if let Some(canary) = &self.canary {
            Some(format!("canary: generation {} is tried: keep or undo it first", canary.number))
        } else if self.config.reactions.exit_on_reload {
            Some("canary: with exit-on-reload a reload ends the server".to_owned())
        } else if current.is_none() || self.fork_server().is_none() || self.is_loading() {
            Some(format!(
                "canary: generation {} is loaded: wait until it serves",
                newest.map_or(0, GenerationNumber::get)
            ))
        } else if self.chain.is_some() {
            Some("canary: a chain reload is under way: wait until it is over".to_owned())
        } else {
            None
        };
        if let Some(why) = refused {
            return answering.failed(why);
        }
        self.wake();
        let current = current.map_or(0, GenerationNumber::get);
        match self.load_next(Reload::Rolling) {
            Ok(number) => {
                info!(
                    "canary: loading generation {number} beside generation {current}, for {size} of {most} workers and {} s",
                    time.as_secs_f64()
                );
                self.canary = Some(Canary::new(number, size, time, answering));
            }
            Err(failure) => {
                self.reload_count.failed();
                warn!("canary: generation {current} goes on: {failure:#}");
                answering.failed(format!("canary: generation {current} goes on: {failure:#}"));
            }
        }
    }

    /// Whether a generation is loaded that is to serve.
    pub(super) fn is_loading(&self) -> bool {
        let current = self.generations.current();
        self.children.of(Post::ForkServer).any(|child| child.generation > current && !child.is_leaving())
    }

    /// The canary's generation was loaded: a few workers get a process of it. `false` when it is none.
    pub(super) fn canary_loaded(&mut self, number: GenerationNumber, fork_server: ChildId) -> bool {
        let Some(canary) = &self.canary else { return false };
        if canary.number != number {
            return false;
        }
        let size = canary.size;
        // Whatever the reload before did: it loses no request, nor when it is undone.
        self.haste = false;
        // Beside the other: that one does not leave.
        let _ = self.children.mark_serving(fork_server);
        self.generation_history.begin(number, GenerationState::Canary, UnixMicros::now());
        // As many must run that do not serve it.
        let is_cheap = |worker: &WorkerId| !self.children.post(Post::Worker(*worker)).is_wanted;
        let (cheap, running): (Vec<_>, Vec<_>) = self.worker_ids().partition(is_cheap);
        let missing = (size as usize + 1).saturating_sub(running.len());
        let started: Vec<WorkerId> = cheap.into_iter().take(missing).collect();
        let workers: BTreeSet<WorkerId> =
            running.into_iter().chain(started.iter().copied()).take(size as usize).collect();
        if let Some(canary) = &mut self.canary {
            canary.loaded(workers.clone());
        }
        for worker in started {
            self.children.fill(Post::Worker(worker), &mut self.timers);
        }
        let current = self.generations.current();
        self.replace_of(|worker, generation| generation == current && workers.contains(&worker));
        true
    }

    /// Has processes of workers replaced that are of these workers and generations.
    fn replace_of(&mut self, is_meant: impl Fn(WorkerId, Option<GenerationNumber>) -> bool) {
        for id in self.workers_of(is_meant) {
            self.children.replace(id, Reason::Reload, &mut self.timers);
        }
    }

    /// The processes of these workers and generations.
    fn workers_of(&self, is_meant: impl Fn(WorkerId, Option<GenerationNumber>) -> bool) -> Vec<ChildId> {
        let meant = self.children.workers().filter_map(|child| match child.post {
            Post::Worker(worker) => is_meant(worker, child.generation).then_some(child.id),
            _ => None,
        });
        meant.collect()
    }

    /// A worker's process serves: when all of the canary's do, it is tried from now on.
    pub(super) fn canary_served(&mut self) {
        let Some(canary) = &mut self.canary else { return };
        let (number, children) = (canary.number, &self.children);
        let serves = |worker| {
            children.of(Post::Worker(worker)).any(|child| child.generation == Some(number) && child.is_ready())
        };
        let Some(answering) = canary.served(serves, UnixMicros::now()) else { return };
        self.timers.set(Timer::Canary, Instant::now() + canary.time);
        let said = format!(
            "generation {number} serves with {} of {} workers, and is undone after {} s unless it is kept",
            canary.workers.len(),
            self.config.processes,
            canary.time.as_secs_f64()
        );
        info!("canary: {said}");
        answering.text(said);
    }

    /// The canary's generation is for all workers.
    pub(super) fn keep_canary(&mut self, answering: Answering) {
        let Some(canary) = self.canary.take_if(|canary| canary.is_tried()) else {
            return answering.failed(match &self.canary {
                Some(canary) => {
                    format!("canary: generation {} does not serve yet: keep it when it does", canary.number)
                }
                None => "canary: there is none to keep".to_owned(),
            });
        };
        self.timers.cancel(Timer::Canary);
        let number = canary.number;
        let Some(fork_server) = self.children.fork_server(number).map(|child| child.id) else {
            // Its end undoes the canary, so this cannot be.
            return answering.failed("canary: its fork server is gone");
        };
        info!("canary: generation {number} is kept");
        let held: Vec<_> = self.replaced_by(&canary).map(|child| child.id).collect();
        held.into_iter().for_each(|id| self.dismiss(id, Why::For(Reason::Reload)));
        // Now the other one leaves.
        self.ready(fork_server);
        self.promote(number);
        answering.progress(format!("generation {number} is kept: the other workers are replaced"));
        self.answer_when_all_serve(number, answering);
    }

    /// A process has a successor that serves. When that is a canary's, with `lazy-apps`, it is drained instead of leaving,
    /// for no later process would have its code. Whether this is so.
    pub(super) fn hold_for_canary(&self, id: ChildId, successor: ChildId) -> bool {
        let Some(canary) = self.canary.as_ref().filter(|_| self.config.lazy_apps) else { return false };
        if self.children.get(successor).and_then(|child| child.generation) != Some(canary.number) {
            return false;
        }
        let held = self.replaced_by(canary).find(|child| child.id == id);
        let Some(slot) = held.and_then(|child| child.slot) else { return false };
        self.scoreboard.worker(slot).set_drained(true);
        true
    }

    /// The processes that a canary's replace, while they are there: until their successors serve, or held.
    fn replaced_by(&self, canary: &Canary) -> impl Iterator<Item = &Child> {
        let current = self.generations.current();
        self.children.workers().filter(move |child| {
            child.generation == current
                && matches!(child.post, Post::Worker(worker) if canary.has(worker))
                && matches!(child.stage, children::Stage::Replacing { reason: Reason::Reload, .. })
        })
    }

    /// Somebody wants the canary undone.
    pub(super) fn undo_canary_for(&mut self, answering: Answering) {
        let Some(number) = self.canary.as_ref().map(Canary::number) else {
            return answering.failed("canary: there is none to undo");
        };
        self.undo_canary("it was asked for");
        let current = self.generations.current().map_or(0, GenerationNumber::get);
        answering.text(format!("generation {number} is undone: generation {current} goes on"));
    }

    /// The time is over in which somebody could have kept it.
    pub(super) fn canary_is_over(&mut self) {
        let seconds = self.canary.as_ref().map_or(0.0, |canary| canary.time.as_secs_f64());
        self.undo_canary(&format!("nobody has kept it within {seconds} s"));
    }

    /// Gives the canary's workers back to the generation before it, and lets its fork server go.
    pub(super) fn undo_canary(&mut self, why: &str) {
        let Some(canary) = self.canary.take() else { return };
        self.timers.cancel(Timer::Canary);
        let number = canary.number;
        self.generation_history.set(number, GenerationState::Undone);
        self.app_signals.forget(number);
        let replaced: Vec<_> = self.replaced_by(&canary).map(|child| (child.id, child.post, child.slot)).collect();
        canary.give_up(why);
        if self.phase != Phase::Serving {
            return;
        }
        let current = self.generations.current().map_or(0, GenerationNumber::get);
        warn!("canary: generation {number} is undone: {why}; generation {current} goes on");
        if self.fork_server().is_none() {
            warn!(
                "canary: the fork server of generation {current} has died: the application is loaded again, as its files are now"
            );
            self.children.fill(Post::ForkServer, &mut self.timers);
        }
        let fork_server = self.children.fork_server(number).map(|child| child.id);
        fork_server.into_iter().for_each(|id| self.dismiss(id, Why::For(Reason::Reload)));
        // Where the process before it is there yet, that one goes on, unless a request of it is overdue: it is killed for that.
        let mut kept = BTreeSet::new();
        for (id, post, slot) in replaced {
            if !self.overdue.contains_key(&id) && self.children.keep(id, &mut self.timers) {
                slot.into_iter().for_each(|slot| self.scoreboard.worker(slot).set_drained(false));
                kept.insert(post);
            }
        }
        let is_of = |worker, generation| generation == Some(number) && kept.contains(&Post::Worker(worker));
        for id in self.workers_of(is_of) {
            self.dismiss(id, Why::For(Reason::Reload));
        }
        self.replace_of(|_, generation| generation == Some(number));
    }

    /// A process of this generation has ended unasked: the canary's is not wanted any more.
    pub(super) fn canary_died(&mut self, number: Option<GenerationNumber>, what: &str) {
        if self.canary.as_ref().is_some_and(|canary| Some(canary.number) == number) {
            self.undo_canary(what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(number: u32) -> WorkerId {
        WorkerId::new(number).unwrap()
    }

    fn canary() -> Canary {
        Canary::new(GenerationNumber::FIRST.next(), 2, Duration::from_secs(30), Answering::to_nobody())
    }

    #[test]
    fn its_time_begins_when_all_of_its_workers_serve() {
        let mut canary = canary();
        let now = UnixMicros::from_micros(1_000_000);
        assert!(canary.served(|_| true, now).is_none() && !canary.is_tried(), "it is loaded yet");
        assert_eq!(canary.describe(), Told { generation: 2, workers: 2, started_at: 0, until: 0 });
        canary.loaded([1, 2].map(worker).into());
        assert!(canary.has(worker(2)) && !canary.has(worker(3)));
        assert!(canary.served(|which| which == worker(1), now).is_none());
        assert!(canary.served(|_| true, now).is_some() && canary.is_tried());
        let told = Told { generation: 2, workers: 2, started_at: 1_000_000, until: 31_000_000 };
        assert_eq!(canary.describe(), told);
        let later = UnixMicros::from_micros(9_000_000);
        assert!(canary.served(|_| true, later).is_none(), "a worker of it that is replaced does not begin it again");
        assert_eq!(canary.describe(), told);
    }

    #[test]
    fn a_canary_leaves_a_worker_that_it_is_compared_with() {
        assert_eq!(doubt(1, 30.0, 2), Ok(Duration::from_secs(30)));
        assert_eq!(doubt(3, 1.5, 4), Ok(Duration::from_millis(1_500)));
        for (size, seconds, processes, told) in [
            (4, 30.0, 4, "1 to 3"),
            (0, 30.0, 4, "1 to 3"),
            (1, 30.0, 1, "one worker"),
            (1, 0.0, 4, "expected 1 s"),
            (1, -1.0, 4, "expected 1 s"),
            (1, f64::NAN, 4, "expected 1 s"),
            (1, 1e9, 4, "expected 1 s"),
        ] {
            let why = doubt(size, seconds, processes).unwrap_err();
            assert!(why.contains(told), "{why}");
        }
    }
}
