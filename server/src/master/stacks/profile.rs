//! A profile: at each tick the loop asks every thread that is in a request, and counts what the tick before brought.
//!
//! So what is sampled is the wall time of requests. Ticks come at random moments around the rate's, so that no program
//! that does something periodically is in step with them.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use rwsgi_stats::control;
use tracing::debug;

use super::aggregate::Aggregate;
use super::target::answering_threads;
use crate::clock::MonotonicNanos;
use crate::ids::{ChildId, SlotId, ThreadIndex};
use crate::ipc::thread_signal::{self, stacks_signal};
use crate::master::control::Answering;
use crate::master::state::Master;
use crate::master::timers::Timer;
use crate::stacks::answer;
use crate::stacks::area::StackMemory;

/// Limits of what may be asked for.
const LONGEST: f64 = 600.0;
const FASTEST: u32 = 1_000;
/// How long a thread may take to answer, that gets no processor or waits for a disk.
const PATIENCE: Duration = Duration::from_secs(2);
/// After the last tick its answers are waited for.
const LAST_ANSWERS: Duration = Duration::from_millis(200);
/// How often it is said how far it has come, and looked at which threads can be asked.
const REPORT: Duration = Duration::from_secs(1);

/// A profile that is being taken.
#[derive(Debug)]
pub(in crate::master) struct Profile {
    answering: Answering,
    rate: u32,
    started: Instant,
    /// When the last tick is.
    end: Instant,
    /// When the next tick is.
    due: Instant,
    /// How many threads the last tick was about.
    asked: u64,
    next_report: Instant,
    /// For the moments of the ticks.
    random: u64,
    /// Which threads of a process can be asked, by place; looked at anew with each report.
    threads: HashMap<ChildId, Vec<Option<Pid>>>,
    open: Vec<Open>,
    slots: Vec<SlotId>,
    seen: Aggregate,
    missed: u64,
}

/// An answer that is waited for.
#[derive(Debug)]
struct Open {
    child: ChildId,
    slot: SlotId,
    thread: ThreadIndex,
    question: u64,
    since: Instant,
    /// Ticks that the answer is for: until it comes the thread has not gone on, for the handler would have run first.
    ticks: u64,
    route: String,
}

impl Master {
    /// Begins a profile.
    pub(in crate::master) fn control_profile(&mut self, seconds: f64, rate: u32, answering: Answering) {
        if !(seconds > 0.0 && seconds <= LONGEST) {
            return answering.failed(format!("a profile takes up to {LONGEST} seconds, not {seconds}"));
        }
        if !(1..=FASTEST).contains(&rate) {
            return answering.failed(format!("a profile has 1 to {FASTEST} samples a second, not {rate}"));
        }
        let now = Instant::now();
        if let Some(profile) = self.profile.as_ref().filter(|profile| !profile.answering.is_gone()) {
            let left = profile.end.saturating_duration_since(now).as_secs_f64();
            return answering.failed(format!("a profile is being taken already: ask again in {left:.0} s"));
        }
        self.profile = Some(Profile {
            answering,
            rate,
            started: now,
            end: now + Duration::from_secs_f64(seconds),
            due: now,
            asked: 0,
            next_report: now + REPORT,
            random: MonotonicNanos::now().as_nanos() | 1,
            threads: HashMap::new(),
            open: Vec::new(),
            slots: Vec::new(),
            seen: Aggregate::default(),
            missed: 0,
        });
        self.timers.set(Timer::Profile, now);
    }

    /// A tick of the profile.
    pub(in crate::master) fn sample(&mut self, now: Instant) {
        let Some(mut profile) = self.profile.take() else { return };
        if profile.answering.is_gone() {
            debug!("profile: who asked for it has gone");
            return self.forget_answers(&profile);
        }
        profile.collect(self.stacks.memory(), now, |child| self.children.get(child).is_some());
        if now >= profile.end {
            profile.missed += profile.pass_ticks(profile.end) * profile.asked;
            if profile.open.is_empty() || now >= profile.end + LAST_ANSWERS {
                self.forget_answers(&profile);
                return profile.finish(now);
            }
            self.timers.set(Timer::Profile, now + LAST_ANSWERS / 20);
            self.profile = Some(profile);
            return;
        }
        profile.asked = self.ask_all_in_requests(&mut profile, now);
        // One of them is this one; when there are more, the loop or the machine was busy.
        profile.missed += profile.pass_ticks(now).saturating_sub(1) * profile.asked;
        if now >= profile.next_report {
            profile.report(now);
        }
        self.timers.set(Timer::Profile, profile.due.min(profile.end));
        self.profile = Some(profile);
    }

    /// Asks every thread that is in a request; returns how many there are.
    fn ask_all_in_requests(&mut self, profile: &mut Profile, now: Instant) -> u64 {
        let mut asked = 0;
        let question = self.stacks.next_question();
        for child in self.children.workers() {
            let (Some(pid), Some(slot)) = (child.pid, child.slot) else { continue };
            for index in ThreadIndex::first(self.scoreboard.layout().threads) {
                // What is corrupt is the watchdog's to see.
                if self.scoreboard.read(slot, index).map_or(true, |sample| sample.started.is_none()) {
                    continue;
                }
                asked += 1;
                if let Some(open) = profile.open.iter_mut().find(|open| (open.slot, open.thread) == (slot, index)) {
                    open.ticks += 1;
                    continue;
                }
                // Not before it has a request: threads of a worker that begins cannot be asked yet.
                let threads = profile.threads.entry(child.id);
                let threads = threads.or_insert_with(|| answering_threads(self.stacks.memory(), pid, slot));
                let id = threads.get(index.index()).copied().flatten();
                let sent = id.is_some_and(|id| thread_signal::send(pid, id, stacks_signal(), question).is_ok());
                if sent {
                    let held = self.scoreboard.thread(slot, index).held();
                    let route = held.map(|held| self.route_in(&held)).unwrap_or_default();
                    profile.open.push(Open {
                        child: child.id,
                        slot,
                        thread: index,
                        question,
                        since: now,
                        ticks: 1,
                        route,
                    });
                    if !profile.slots.contains(&slot) {
                        profile.slots.push(slot);
                    }
                } else {
                    profile.missed += 1;
                }
            }
        }
        asked
    }

    /// Gives the memory of the answers back.
    fn forget_answers(&self, profile: &Profile) {
        for slot in &profile.slots {
            // What it costs is memory, until the process ends.
            let _ = self.stacks.memory().forget_answers(*slot);
        }
    }
}

impl Profile {
    /// Counts the answers that are there, and as missed what is overdue or was asked of a process that is none any more:
    /// another one has its slot.
    fn collect(&mut self, memory: &StackMemory, now: Instant, is_there: impl Fn(ChildId) -> bool) {
        let Self { open, seen, missed, .. } = self;
        open.retain(|open| {
            if !is_there(open.child) {
                *missed += open.ticks;
                return false;
            }
            if let Some(answer) = answer::read(memory, open.slot, open.thread.get(), open.question) {
                seen.add(&open.route, &answer, open.ticks);
                return false;
            }
            let is_overdue = now.saturating_duration_since(open.since) > PATIENCE;
            *missed += if is_overdue { open.ticks } else { 0 };
            !is_overdue
        });
    }

    /// Lets the ticks until that moment be over; returns how many they were.
    fn pass_ticks(&mut self, until: Instant) -> u64 {
        let interval = Duration::from_secs(1) / self.rate;
        let mut passed = 0;
        while self.due <= until {
            // From half to one and a half of it.
            let random = self.fraction();
            self.due += interval / 2 + interval.mul_f64(random);
            passed += 1;
        }
        passed
    }

    fn report(&mut self, now: Instant) {
        let (so_far, all) = (now - self.started, self.end - self.started);
        let Self { seen, missed, .. } = self;
        let (so_far, all, samples) = (so_far.as_secs_f64(), all.as_secs_f64(), seen.samples);
        self.answering.progress(format!("{so_far:.0} of {all:.0} s: {samples} samples, {missed} missed"));
        self.next_report = now + REPORT;
        self.threads.clear();
    }

    /// Answers.
    fn finish(self, now: Instant) {
        let Self { answering, rate, started, end, seen, missed, open, .. } = self;
        let micros = now.min(end).saturating_duration_since(started).as_micros() as u64;
        let missed = missed + open.iter().map(|open| open.ticks).sum::<u64>();
        tokio::task::spawn_local(async move {
            // Thousands of stacks are sorted.
            let told = tokio::task::spawn_blocking(move || {
                let profile = seen.into_profile();
                control::Profile { micros, rate, missed, ..profile }
            });
            if let Ok(profile) = told.await {
                answering.done(control::Answer::Profile(profile));
            }
        });
    }

    /// From 0 to 1.
    fn fraction(&mut self) -> f64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as f64 / (1_u64 << 53) as f64
    }
}
