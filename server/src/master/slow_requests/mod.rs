//! Slow requests: the master takes the stack of a request that has taken as long as `slow-request` says, and keeps the
//! record that its thread writes at its end.
//!
//! The master looks again when the first request in progress could become slow. When none is in progress it sleeps, and
//! the next request that begins wakes it: at most one write to a pipe in each time of `slow-request`, and none on an
//! idle server. A worker also notifies the master when a slow request has ended.

mod kept;
mod line;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rwsgi_stats::control::ThreadStack;
use rwsgi_stats::{PhaseTimes, SlowRequest, Snapshot};
use tracing::warn;

pub(super) use self::kept::SlowRequests;
use self::kept::{StackTaken, in_a_line};
use super::children::Child;
use super::events::Event;
use super::post::Post;
use super::state::Master;
use super::timers::Timer;
use super::watchdog::in_progress;
use crate::clock::MonotonicNanos;
use crate::ids::{ChildId, GenerationNumber, SlotId, ThreadIndex, WorkerId};
use crate::log_limit::{self, LineKind};
use crate::procfs;
use crate::stats::cell::{HeldRequest, PhaseNanos, SlowEnd, SlowReport, SlowTaken};
use crate::stats::request::{Vars, route_of};

/// The shortest time between two looks.
const SHORTEST: Duration = Duration::from_millis(50);
/// Stacks that are asked for at one look: the others are at the next.
const STACKS: usize = 16;

/// Who served a request.
#[derive(Clone, Copy)]
struct Server {
    worker: WorkerId,
    pid: i32,
    generation: Option<GenerationNumber>,
    slot: SlotId,
}

impl Server {
    fn of(child: &Child) -> Option<Self> {
        let (Post::Worker(worker), Some(pid), Some(slot)) = (child.post, child.pid, child.slot) else { return None };
        Some(Self { worker, pid: pid.as_raw(), generation: child.generation, slot })
    }
}

impl Master {
    /// Begins to look at what the configuration says is slow: it may have changed.
    pub(super) fn configure_slow_requests(&mut self) {
        let threshold = self.config.slow_requests.threshold;
        self.set_slow_request(threshold);
    }

    /// From now on a request is slow when it takes longer than that; `None` for never.
    pub(super) fn set_slow_request(&mut self, threshold: Option<Duration>) {
        self.slow.threshold = threshold;
        let nanos = threshold.map(|threshold| u64::try_from(threshold.as_nanos()).unwrap_or(u64::MAX - 1));
        self.scoreboard.slow().set_threshold(nanos);
        match threshold {
            Some(_) => self.timers.set(Timer::SlowRequests, Instant::now()),
            None => {
                self.scoreboard.slow().set_sleeps(false);
                self.slow.stacks.clear();
            }
        }
    }

    /// What is slow, in words.
    pub(super) fn describe_slow_threshold(&self) -> String {
        match self.slow.threshold {
            Some(threshold) => format!("a request is slow when it takes longer than {} s", threshold.as_secs_f64()),
            None => "no request is slow: none is recorded".to_owned(),
        }
    }

    /// A worker says that a slow request has ended, or that one has begun while the master slept.
    pub(super) fn hear_of_slow(&mut self, id: ChildId) {
        let now = Instant::now();
        if let Some(server) = self.children.get(id).and_then(Server::of) {
            self.scoreboard.worker(server.slot).hears();
            self.collect_slow(server);
        }
        self.slow.is_quiet = false;
        if let Some(threshold) = self.slow.threshold {
            self.timers.set_earlier(Timer::SlowRequests, now + threshold.max(SHORTEST));
        }
    }

    /// Takes the stacks of requests that are slow by now, and looks again when one could next be.
    pub(super) fn watch_slow(&mut self, now: Instant) {
        let clock = MonotonicNanos::now();
        log_limit::report(clock);
        self.collect_all_slow();
        let Some(threshold) = self.slow.threshold else { return self.report_slow_later(now) };
        // Before the look: who begins after it wakes the master.
        self.scoreboard.slow().set_sleeps(true);
        let mut next: Option<Duration> = None;
        let mut due = Vec::new();
        let mut held = Vec::new();
        for child in self.children.workers() {
            let Some(server) = Server::of(child) else { continue };
            // What is corrupt the snapshots find.
            for (thread, started) in in_progress(&self.scoreboard, server.slot).unwrap_or_default() {
                let age = clock.since(started);
                held.push(((server.slot, thread), started));
                if age < threshold {
                    next = Some(next.unwrap_or(threshold).min(threshold - age));
                } else if self
                    .slow
                    .stacks
                    .get(&(server.slot, thread))
                    .is_none_or(|taken| taken.started != started || taken.is_unanswered)
                {
                    due.push((child.id, server, thread, started));
                }
            }
        }
        if !self.slow.stacks.is_empty() {
            let held: HashMap<_, _> = held.into_iter().collect();
            self.slow.stacks.retain(|place, taken| held.get(place) == Some(&taken.started));
        }
        if due.len() > STACKS {
            next = Some(SHORTEST);
        }
        for (child, server, thread, started) in due.into_iter().take(STACKS) {
            let pid = nix::unistd::Pid::from_raw(server.pid);
            let rss = procfs::memory_of(pid).map_or(0, |size| size.resident);
            let at = MonotonicNanos::now();
            let taken = StackTaken { started, at, rss, lines: Vec::new(), is_unanswered: false };
            self.slow.stacks.insert((server.slot, thread), taken);
            self.ask_for_slow_stack(child, server.slot, thread, started);
        }
        match next {
            Some(next) => {
                self.scoreboard.slow().set_sleeps(false);
                self.slow.is_quiet = false;
                self.timers.set(Timer::SlowRequests, now + next.max(SHORTEST));
            }
            // One may have begun just then, and have seen no reason to wake the master.
            None if !self.slow.is_quiet => {
                self.slow.is_quiet = true;
                self.timers.set(Timer::SlowRequests, now + threshold.max(SHORTEST));
            }
            None => self.report_slow_later(now),
        }
    }

    /// Lines that were not written are counted in one.
    fn report_slow_later(&mut self, now: Instant) {
        if let Some(due) = log_limit::next_report() {
            self.timers.set_earlier(Timer::SlowRequests, now + due.since(MonotonicNanos::now()));
        }
    }

    fn ask_for_slow_stack(&mut self, child: ChildId, slot: SlotId, thread: ThreadIndex, started: MonotonicNanos) {
        let Some(answer) = self.ask_stack(child, thread) else { return };
        let events = self.events.clone();
        tokio::task::spawn_local(async move {
            let stack = answer.await;
            // The loop is gone only when the process is about to be.
            let _ = events.send(Event::SlowStack { slot, thread, started, stack }).await;
        });
    }

    /// The stack of a thread has come, whose request began then.
    pub(super) fn keep_slow_stack(
        &mut self,
        slot: SlotId,
        thread: ThreadIndex,
        started: MonotonicNanos,
        stack: &ThreadStack,
    ) {
        // It is not the request's if that has ended meanwhile.
        let is_held = self.scoreboard.read(slot, thread).is_ok_and(|sample| sample.started == Some(started));
        if let Some(taken) = self.slow.stacks.get_mut(&(slot, thread))
            && taken.started == started
            && is_held
        {
            taken.at = MonotonicNanos::now();
            taken.lines = stack.frames.iter().map(in_a_line).collect();
            taken.is_unanswered = stack.state.is_none() && stack.frames.is_empty();
            if taken.is_unanswered
                && let Some(threshold) = self.slow.threshold
            {
                self.timers.set_earlier(Timer::SlowRequests, Instant::now() + threshold.max(SHORTEST));
            }
        }
    }

    /// Takes what all threads tell of slow requests that have ended.
    pub(super) fn collect_all_slow(&mut self) {
        let servers: Vec<_> = self.children.workers().filter_map(Server::of).collect();
        servers.into_iter().for_each(|server| self.collect_slow(server));
    }

    fn collect_slow(&mut self, server: Server) {
        for thread in ThreadIndex::first(self.scoreboard.layout().threads) {
            let place = (server.slot, thread);
            let cell = self.scoreboard.thread(server.slot, thread);
            let taken = self.slow.taken(place);
            if cell.slow.written() == *taken {
                continue;
            }
            let served = || cell.read().map_or(0, |sample| sample.counters.requests);
            let SlowTaken { reports, lost } = cell.slow.take(taken, served);
            if lost > 0 {
                self.slow.skip(lost);
                if log_limit::allows(LineKind::SlowRequestsLost) {
                    warn!(
                        "slow: {lost} slow requests of worker {} core {thread} are not recorded: more ended at once than \
                         are kept for the master",
                        server.worker
                    );
                }
            }
            for report in reports {
                let request = self.describe_slow(server, thread, &report);
                self.record_slow(request);
            }
        }
    }

    fn describe_slow(&mut self, server: Server, thread: ThreadIndex, report: &SlowReport) -> SlowRequest {
        let shown = self.config.show_request;
        let [kind, message] = &report.exception;
        SlowRequest {
            status: report.status,
            outcome: match report.end {
                SlowEnd::Done => "done",
                SlowEnd::Harakiri => "harakiri",
            }
            .to_owned(),
            rss_after: report.rss,
            exception: match (kind.as_str(), message.as_str()) {
                ("", _) => String::new(),
                (kind, "") => kind.to_owned(),
                (kind, message) => format!("{kind}: {}", shown.text(message)),
            },
            ..self.describe_slow_held(server, thread, &report.request, report.phases)
        }
    }

    /// What is the same however a request ended.
    fn describe_slow_held(
        &mut self,
        server: Server,
        thread: ThreadIndex,
        held: &HeldRequest,
        phases: PhaseNanos,
    ) -> SlowRequest {
        let stack = self.slow.take_stack((server.slot, thread), held.started);
        let info = Vars::of(held, "", self.config.show_request).info();
        let waited = phases.queue + phases.body + phases.gil;
        let came = MonotonicNanos::from_nanos(held.started.as_nanos().saturating_sub(waited));
        let times = phases.in_micros();
        let PhaseTimes { queue, body, gil, application, write } = times;
        SlowRequest {
            worker: server.worker.get(),
            core: thread.get(),
            pid: server.pid,
            generation: server.generation.map_or(0, GenerationNumber::get),
            started: self.snapshot_state.clock.unix_at(came).as_micros(),
            elapsed: queue + body + gil + application + write,
            method: info.method.unwrap_or_default(),
            uri: info.uri.unwrap_or_default(),
            route: if self.config.routes.most > 0 { route_of(held).as_str().to_owned() } else { String::new() },
            remote_addr: info.remote_addr.unwrap_or_default(),
            phases: times,
            stack_at: stack.as_ref().map_or(0, |taken| taken.at.nanos_since(came) / 1_000),
            rss_before: stack.as_ref().map_or(0, |taken| taken.rss),
            stack: stack.map(|taken| taken.lines).unwrap_or_default(),
            ..SlowRequest::default()
        }
    }

    fn record_slow(&mut self, request: SlowRequest) {
        let form = self.config.slow_requests.log;
        let request = self.slow.keep(request);
        if let Some(line) = line::of(request, form)
            && log_limit::allows(LineKind::SlowRequest)
        {
            warn!("slow: {line}");
        }
        self.report_slow_later(Instant::now());
    }

    /// A worker's process has ended: what it told is taken, and what it held is lost. Before its slot is cleared.
    pub(super) fn slow_of_ended(&mut self, child: &Child) {
        let Some(server) = Server::of(child) else { return };
        self.collect_slow(server);
        let overdue = self.overdue.get(&child.id).cloned().unwrap_or_default();
        let now = MonotonicNanos::now();
        for thread in ThreadIndex::first(self.scoreboard.layout().threads) {
            let cell = self.scoreboard.thread(server.slot, thread);
            // One from the future is nobody's.
            let Some(held) = cell.held().filter(|held| held.started <= now) else { continue };
            let phases = PhaseNanos { application: now.nanos_since(held.started), ..cell.phases.waited() };
            let is_harakiri = overdue.iter().any(|ended| (ended.thread, ended.started) == (thread, held.started));
            let is_slow =
                self.slow.threshold.is_some_and(|threshold| u128::from(phases.total()) > threshold.as_nanos());
            if is_slow || is_harakiri && self.slow.threshold.is_some() {
                let outcome = if is_harakiri { "harakiri" } else { "died" }.to_owned();
                let request = self.describe_slow_held(server, thread, &held, phases);
                self.record_slow(SlowRequest { outcome, ..request });
            }
        }
        self.slow.forget(server.slot);
    }

    /// Says in a snapshot which requests were slow.
    pub(super) fn describe_slow_requests(&self, snapshot: &mut Snapshot) {
        let micros = self.slow.threshold.map_or(0, |threshold| threshold.as_micros() as u64);
        if let Some(limits) = &mut snapshot.limits {
            limits.slow_request = micros;
        }
        snapshot.slow = self.slow.threshold.is_some().then(|| self.slow.last());
    }
}
