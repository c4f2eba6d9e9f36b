//! The workers: which lives there are, in which slots, and what becomes of a worker whose process ends.
//!
//! This is bookkeeping without system calls; the loop in [`super`] acts on what it says.

use std::time::{Duration, Instant};

use nix::unistd::Pid;
use rwsgi_stats::Recycled;

use super::process::End;
use crate::clock::UnixMicros;
use crate::ids::{GenerationNumber, SlotId, WorkerId};
use crate::stats::snapshot::ProcessView;
use crate::stats::totals::Totals;

/// A process that dies sooner than this after it was started is replaced with a delay.
pub(super) const EARLY: Duration = Duration::from_secs(1);
/// The first delay; it doubles with each early death in a row.
const FIRST_DELAY: Duration = Duration::from_secs(1);
/// The longest delay.
const LONGEST_DELAY: Duration = Duration::from_secs(30);

/// How long to wait before a process is started again that has died early so many times in a row.
pub(super) fn delay_after(early_deaths: u32) -> Duration {
    match early_deaths {
        0 => Duration::ZERO,
        deaths => FIRST_DELAY.saturating_mul(1 << (deaths - 1).min(5)).min(LONGEST_DELAY),
    }
}

/// Why a worker's process gives its place to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// A newer generation takes over.
    Reload,
    /// It has served as many requests as it may.
    MaxRequests,
    /// Its resident memory is too large.
    Rss,
    /// Its address space is too large.
    AddressSpace,
    /// It has run as long as it may.
    Lifetime,
    /// It holds a request that runs too long.
    Harakiri,
    /// There is nothing to do for it; it has no successor.
    Idle,
    /// It has written where it must not.
    Corrupt,
}

impl Reason {
    /// Where ends for this reason are counted.
    fn count(self, recycled: &mut Recycled) -> &mut u64 {
        match self {
            Self::Reload => &mut recycled.reload,
            Self::MaxRequests => &mut recycled.max_requests,
            Self::Rss => &mut recycled.rss,
            Self::AddressSpace => &mut recycled.address_space,
            Self::Lifetime => &mut recycled.lifetime,
            Self::Harakiri => &mut recycled.harakiri,
            Self::Idle => &mut recycled.idle,
            // The schema has no word of its own for it.
            Self::Corrupt => &mut recycled.crash,
        }
    }
}

impl std::fmt::Display for Reason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Reload => "reload",
            Self::MaxRequests => "max-requests",
            Self::Rss => "resident memory",
            Self::AddressSpace => "address space",
            Self::Lifetime => "max-worker-lifetime",
            Self::Harakiri => "harakiri",
            Self::Idle => "idle",
            Self::Corrupt => "corrupt shared memory",
        })
    }
}

/// What a life was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// To leave, for this reason.
    Leave(Reason),
    /// To leave, because the server stops.
    Stop,
}

/// One process of one worker, from the order to fork it until it is reaped.
#[derive(Clone, Debug)]
pub(super) struct Life {
    /// The worker's number, from 1.
    pub worker: u32,
    /// Its slot on the scoreboard.
    pub slot: u32,
    /// The generation that it serves.
    pub generation: u32,
    /// Its process, once the fork server has told.
    pub pid: Option<Pid>,
    /// When it was ordered.
    pub since: Instant,
    /// When it was ordered, unix seconds.
    pub spawned_at: u64,
    /// It has said that it serves.
    pub ready: bool,
    /// It is to leave, for this reason, as soon as its successor serves; until then it serves on.
    pub doom: Option<Reason>,
    /// It was told to leave, and why.
    pub fate: Option<Fate>,
    /// Requests that it holds beyond `harakiri`: the thread, and when the request began (monotonic ns).
    pub overdue: Vec<(u32, u64)>,
    /// When it is killed if it has not left by then.
    pub killed_at: Option<Instant>,
}

/// A worker's number and what its past lives add up to.
#[derive(Debug)]
pub(super) struct Worker {
    /// Sums over its ended lives.
    pub totals: Totals,
    /// Early deaths in a row.
    early_deaths: u32,
    /// It is meant to have no process: there is nothing to do for it.
    pub cheap: bool,
    /// When it is to be started, if it has no life and is meant to have one.
    pub due: Option<Instant>,
}

/// All workers and their lives.
#[derive(Debug)]
pub(super) struct Pool {
    /// Worker `n` is at `n - 1`.
    pub workers: Vec<Worker>,
    /// In the order in which they were started.
    pub lives: Vec<Life>,
    slots: u32,
}

impl Pool {
    /// `workers` of `threads` threads each, none of them alive, with `slots` slots for their lives.
    #[must_use]
    pub(super) fn new(workers: u32, threads: u32, slots: u32) -> Self {
        let worker = |_| Worker { totals: Totals::new(threads), early_deaths: 0, cheap: false, due: None };
        Self { workers: (0..workers).map(worker).collect(), lives: Vec::new(), slots }
    }

    /// The worker of that number.
    pub(super) fn worker(&mut self, worker: u32) -> &mut Worker {
        &mut self.workers[worker as usize - 1]
    }

    /// Begins a life of `worker` in a free slot, whose number is returned; `None` when all are taken.
    pub(super) fn begin(&mut self, worker: u32, generation: u32, now: Instant, unix_seconds: u64) -> Option<u32> {
        let slot = (0..self.slots).find(|slot| self.lives.iter().all(|life| life.slot != *slot))?;
        self.lives.push(Life {
            worker,
            slot,
            generation,
            pid: None,
            since: now,
            spawned_at: unix_seconds,
            ready: false,
            doom: None,
            fate: None,
            overdue: Vec::new(),
            killed_at: None,
        });
        let entry = self.worker(worker);
        entry.totals.respawns += 1;
        entry.due = None;
        Some(slot)
    }

    /// The life in a slot.
    pub(super) fn in_slot(&mut self, slot: u32) -> Option<&mut Life> {
        self.lives.iter_mut().find(|life| life.slot == slot)
    }

    /// Has the life in `slot` replaced: it leaves when its successor serves. Whether this is news: it may be about to
    /// leave already.
    pub(super) fn doom(&mut self, slot: u32, reason: Reason, now: Instant) -> bool {
        let Some(life) = self.in_slot(slot) else { return false };
        if life.fate.is_some() || life.doom.is_some() {
            return false;
        }
        life.doom = Some(reason);
        let worker = life.worker;
        if !self.has_heir(worker) {
            let entry = self.worker(worker);
            // One that waits out a delay after early deaths keeps it.
            entry.due = entry.due.or(Some(now));
        }
        true
    }

    /// Whether a life of the worker serves, or is about to, with nothing against it.
    fn has_heir(&self, worker: u32) -> bool {
        self.lives.iter().any(|life| life.worker == worker && life.fate.is_none() && life.doom.is_none())
    }

    /// Takes a life out of the pool, and says when its worker is to be started again if nobody asked it to leave.
    pub(super) fn end(&mut self, index: usize, end: End, now: Instant) -> (Life, Option<Duration>) {
        let life = self.lives.remove(index);
        let early = now.duration_since(life.since) < EARLY;
        let entry = self.worker(life.worker);
        match (life.fate, life.doom) {
            (Some(Fate::Leave(reason)), _) | (None, Some(reason @ Reason::Harakiri)) => {
                *reason.count(&mut entry.totals.recycled) += 1;
            }
            (Some(Fate::Stop), _) => {}
            (None, _) => entry.totals.recycled.crash += 1,
        }
        // A clean exit that nobody asked for is a worker that was told to leave by hand: it is replaced at once.
        let asked = life.fate.is_some() || end == End::Exited(0);
        entry.early_deaths = if early && !asked { entry.early_deaths + 1 } else { 0 };
        let delay = delay_after(entry.early_deaths);
        let unwanted = life.fate == Some(Fate::Stop) || self.worker(life.worker).cheap;
        if unwanted || self.has_heir(life.worker) {
            return (life, None);
        }
        let due = now + delay;
        let entry = self.worker(life.worker);
        // What is due already was so for a reason of its own.
        entry.due = Some(entry.due.map_or(due, |earlier| earlier.min(due)));
        (life, Some(delay))
    }

    /// Workers that are to be started by `now`.
    pub(super) fn due(&self, now: Instant) -> Vec<u32> {
        let is_due = |worker: &Worker| worker.due.is_some_and(|due| due <= now);
        (1..).zip(&self.workers).filter(|(_, worker)| is_due(worker)).map(|(id, _)| id).collect()
    }

    /// The next moment at which a life is to be killed, or (`with_due`) a worker to be started.
    pub(super) fn next_deadline(&self, with_due: bool) -> Option<Instant> {
        let due = self.workers.iter().filter_map(|worker| worker.due).filter(|_| with_due);
        due.chain(self.lives.iter().filter_map(|life| life.killed_at)).min()
    }

    /// A worker's living processes: the newest that serves first, then the newest.
    pub(super) fn processes_of(&self, worker: WorkerId) -> Vec<ProcessView> {
        let mut lives: Vec<_> = self.lives.iter().rev().filter(|life| life.worker == worker.get()).collect();
        // One that loads yet, for minutes maybe, is not the worker as long as another serves.
        lives.sort_by_key(|life| !life.ready || life.fate.is_some());
        lives
            .into_iter()
            .filter_map(|life| {
                Some(ProcessView {
                    slot: SlotId::new(life.slot),
                    pid: life.pid?,
                    generation: GenerationNumber::new(life.generation)?,
                    spawned_at: UnixMicros::from_micros(life.spawned_at * 1_000_000),
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn early_deaths_in_a_row_wait_longer_and_longer_and_a_long_life_forgives() {
        let mut pool = Pool::new(1, 1, 4);
        let mut now = Instant::now();
        let mut delays = Vec::new();
        for _ in 0..7 {
            pool.begin(1, 1, now, 0).unwrap();
            let (_, delay) = pool.end(0, End::Killed(11), now);
            delays.push(delay.unwrap().as_secs());
            now += delay.unwrap();
            assert_eq!(pool.due(now), [1]);
        }
        assert_eq!(delays, [1, 2, 4, 8, 16, 30, 30]);
        pool.begin(1, 1, now, 0).unwrap();
        let (_, delay) = pool.end(0, End::Killed(11), now + Duration::from_secs(2));
        assert_eq!(delay, Some(Duration::ZERO));
        assert_eq!(pool.worker(1).totals.recycled.crash, 8);
        assert_eq!(pool.worker(1).totals.respawns, 8);
    }

    #[test]
    fn a_life_that_was_replaced_is_not_started_again() {
        let mut pool = Pool::new(1, 1, 4);
        let now = Instant::now();
        let old = pool.begin(1, 1, now, 0).unwrap();
        let new = pool.begin(1, 2, now, 0).unwrap();
        assert_ne!(old, new);
        pool.in_slot(old).unwrap().fate = Some(Fate::Leave(Reason::Reload));
        let (life, delay) = pool.end(0, End::Exited(0), now);
        assert_eq!((life.slot, delay), (old, None));
        assert!(pool.due(now).is_empty());
        assert_eq!(pool.worker(1).totals.recycled.reload, 1);
    }

    #[test]
    fn a_doomed_life_has_a_successor_started_and_its_reason_is_counted() {
        let mut pool = Pool::new(1, 1, 4);
        let now = Instant::now();
        let old = pool.begin(1, 1, now, 0).unwrap();
        assert!(pool.doom(old, Reason::MaxRequests, now));
        assert!(!pool.doom(old, Reason::Rss, now), "one reason is enough");
        assert_eq!(pool.due(now), [1]);
        let new = pool.begin(1, 1, now, 0).unwrap();
        pool.in_slot(old).unwrap().fate = Some(Fate::Leave(Reason::MaxRequests));
        assert_eq!(pool.end(0, End::Exited(0), now).1, None);
        assert_eq!(pool.worker(1).totals.recycled.max_requests, 1);
        assert_eq!(pool.lives[0].slot, new);
    }

    #[test]
    fn a_successor_that_dies_early_is_tried_again_while_the_old_one_serves() {
        let mut pool = Pool::new(1, 1, 4);
        let now = Instant::now();
        let old = pool.begin(1, 1, now, 0).unwrap();
        pool.doom(old, Reason::Reload, now);
        pool.begin(1, 2, now, 0).unwrap();
        let (_, delay) = pool.end(1, End::Killed(11), now);
        assert_eq!(delay, Some(FIRST_DELAY));
        assert!(pool.due(now).is_empty());
        assert_eq!(pool.due(now + FIRST_DELAY), [1]);
        assert_eq!(pool.lives.len(), 1);
    }

    #[test]
    fn no_life_begins_without_a_slot() {
        let mut pool = Pool::new(1, 1, 2);
        let now = Instant::now();
        assert!(pool.begin(1, 1, now, 0).is_some());
        assert!(pool.begin(1, 2, now, 0).is_some());
        assert!(pool.begin(1, 3, now, 0).is_none());
    }
}
