//! One server over time: takes samples in, subtracts neighbours, notices restarts and silence.

use std::collections::VecDeque;
use std::time::Duration;

use rwsgi_stats::control::Profile;
use rwsgi_stats::{Snapshot, Worker};

use super::clean::clean;
use super::findings::Findings;
use super::routes::RoutesBefore;
use super::sample::digest;
use super::slow::PhasesBefore;
use super::{
    AskRoom, Counts, History, MemoryPoint, MemoryTrack, PhaseCounts, Rates, RouteWindow, Sample, Slope, SlowLog, Totals,
};
use crate::format;
use crate::source::{LocalMicros, Monotonic, Poll, ServerMicros};

/// For how long a start is counted.
const MINUTE: Duration = Duration::from_secs(60);

/// By so much one answer may have been longer on its way than another: what the server's clock and ours may differ in.
const LATE: Duration = Duration::from_secs(1);

/// What is known of one server.
#[derive(Debug)]
pub(crate) struct Pool {
    /// The target as it was typed, or as a recording calls it.
    pub(crate) label: String,
    /// The machine it runs on, as far as the address tells.
    pub(crate) node: Option<String>,
    /// The last whole sample; kept on the screen while the server is silent.
    pub(crate) current: Option<Sample>,
    /// Why there is nothing newer; `None` when all is well.
    pub(crate) trouble: Option<Trouble>,
    /// How often another master answered, or the same one with smaller counters.
    pub(crate) restarts: u64,
    /// When that last happened.
    pub(crate) restarted: Option<Monotonic>,
    /// The last hour.
    pub(crate) history: History,
    /// The slow requests that were seen.
    pub(crate) slow: SlowLog,
    /// Asks for memory that more workers could take; `None` for what is not watched live.
    pub(crate) room: Option<AskRoom>,
    findings: Findings,
    before: Option<Before>,
    memory: Vec<MemoryTrack>,
}

/// A server that gives no documents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// Since when.
    pub(crate) since: Monotonic,
    /// Why, in a line.
    pub(crate) message: String,
}

/// What the next snapshot is subtracted from.
#[derive(Debug, Default)]
struct Before {
    at: Monotonic,
    clock: ServerMicros,
    now: Option<u64>,
    pid: i32,
    started_at: Option<u64>,
    requests: u64,
    exceptions: u64,
    tx: u64,
    latency: Cumulative,
    waiting: Cumulative,
    phases: PhasesBefore,
    routes: RoutesBefore,
    workers: Vec<WorkerBefore>,
}

#[derive(Debug, Default)]
struct WorkerBefore {
    id: u32,
    pid: i32,
    requests: u64,
    tx: u64,
    busy: Option<u64>,
    cpu: Option<u64>,
    gil: Option<u64>,
    cores: Vec<u64>,
    latency: Cumulative,
    respawns: Option<u64>,
    /// When its process was started again, within the last minute.
    respawned: VecDeque<Monotonic>,
}

/// Counts since the server's start, with the text that they were decoded from: an unchanged text, which is what an
/// idle worker sends, is not decoded again.
#[derive(Debug, Default)]
pub(super) struct Cumulative {
    text: String,
    counts: Counts,
}

impl Cumulative {
    /// Takes over what the document says, and returns what is new in it; `None` when the server does not tell.
    pub(super) fn advance(&mut self, text: Option<String>) -> Option<Counts> {
        let text = text?;
        if text == self.text {
            return Some(Counts::default());
        }
        let counts = Counts::decode(&text)?;
        let difference = counts.since(&self.counts).unwrap_or_default();
        *self = Self { text, counts };
        Some(difference)
    }
}

impl Pool {
    /// A server of which nothing is known yet.
    pub(crate) fn new(label: String, node: Option<String>) -> Self {
        Self {
            label: format::one_line(&label),
            node: node.map(|node| format::one_line(&node)),
            current: None,
            trouble: None,
            restarts: 0,
            restarted: None,
            history: History::default(),
            slow: SlowLog::default(),
            room: None,
            findings: Findings::default(),
            before: None,
            memory: Vec::new(),
        }
    }

    /// Takes a sample in. Returns whether it brought a new sample.
    pub(crate) fn ingest(&mut self, poll: Poll) -> bool {
        match poll.outcome {
            Ok(document) => {
                self.trouble = None;
                self.advance(*document.snapshot, poll.at, poll.taken);
                true
            }
            Err(error) => {
                let since = self.trouble.as_ref().map_or(poll.at, |trouble| trouble.since);
                self.trouble = Some(Trouble { since, message: error.to_string() });
                false
            }
        }
    }

    /// Latency of a worker (by its place) since the server started; empty when the server does not tell.
    pub(crate) fn latency_since_start(&self, place: usize) -> Option<&Counts> {
        let counts = &self.before.as_ref()?.workers.get(place)?.latency.counts;
        (counts.total() > 0).then_some(counts)
    }

    /// Latency of a route since its row began; `None` when the server does not tell.
    pub(crate) fn route_latency(&self, route: &str) -> Option<&Counts> {
        self.before.as_ref()?.routes.latency(route)
    }

    /// Takes a profile of it in, for the rules that ask where time goes.
    pub(crate) fn profiled(&mut self, profile: &Profile) {
        let at = self.current.as_ref().map_or(Monotonic::default(), |sample| sample.at);
        self.findings.profiled(profile, at);
    }

    /// Memory over time of a worker (by its place).
    pub(crate) fn memory(&self, place: usize) -> Option<&MemoryTrack> {
        self.memory.get(place)
    }

    /// How fast the memory of all workers together grew per hour up to a moment; `None` when fewer than two are known well
    /// enough.
    pub(crate) fn growth(&self, until: Monotonic) -> Option<Slope> {
        let slopes: Vec<Slope> = self.memory.iter().filter_map(|track| Some(track.growth(until)?.per_hour)).collect();
        if slopes.len() < 2 { None } else { Slope::sum(slopes) }
    }

    fn advance(&mut self, mut snapshot: Snapshot, at: Monotonic, local: LocalMicros) {
        let clock = ServerMicros::of(&snapshot, local);
        digest(&mut snapshot, clock);
        clean(&mut snapshot);
        let mut totals = Totals::of(&snapshot);
        let continues = self.before.take_if(|before| before.is_continued_by(&snapshot, &totals));
        let (window, mut before) = match (continues, self.before.take()) {
            (Some(before), _) => (before.time_until(&snapshot, at), before),
            (None, None) => (None, Before::default()),
            (None, Some(ended)) => {
                self.restarts += 1;
                self.restarted = Some(at);
                self.findings = Findings::default();
                match age_of_run(&snapshot, clock, ended.clock) {
                    Some(age) => (Some(age), Before::at_start(&snapshot)),
                    None => (None, Before::default()),
                }
            }
        };
        let window = window.filter(|window| !window.is_zero()).map(|window| window.as_secs_f64());
        let per_second = |now: u64, then: u64| window.map(|window| now.saturating_sub(then) as f64 / window);
        totals.rps = per_second(totals.requests, before.requests);
        totals.exception_rate = per_second(totals.exceptions, before.exceptions);
        totals.tx_rate = per_second(totals.tx, before.tx);

        before.workers.resize_with(snapshot.workers.len(), WorkerBefore::default);
        let mut merged = Counts::default();
        let mut workers = Vec::with_capacity(snapshot.workers.len());
        for (worker, before) in snapshot.workers.iter_mut().zip(&mut before.workers) {
            let latency = before.latency.advance(worker.latency.take());
            if let Some(latency) = &latency {
                merged.merge(latency);
            }
            workers.push(before.advance(worker, at, window, latency));
        }
        let tells = !before.workers.iter().all(|worker| worker.latency.text.is_empty());
        let overall = before.latency.advance(snapshot.latency.take());
        // A first sample tells that there are latencies, but of no window.
        let in_window = |counts: Counts| if window.is_some() { counts } else { Counts::default() };
        totals.latency = overall.or(tells.then_some(merged)).map(in_window);
        let waiting = snapshot.queue.as_mut().map(|queue| std::mem::take(&mut queue.waiting));
        totals.waiting = before.waiting.advance(waiting).map(in_window);
        let phases = snapshot.phases.take().map(|phases| before.phases.advance(phases));
        totals.phases = phases.map(|phases| if window.is_some() { phases } else { PhaseCounts::default() });
        let mut routes = before.routes.advance(snapshot.routes.as_deref_mut().unwrap_or_default());
        if window.is_none() {
            routes.iter_mut().for_each(|route| *route = RouteWindow::default());
        }
        self.slow.push(self.restarts, snapshot.slow.take().unwrap_or_default());

        let cores = |worker: &Worker| worker.cores.len().max(1) as f64;
        let weighted = |value: fn(&Rates) -> Option<f64>, weight: &dyn Fn(&Worker) -> f64| {
            let pairs = workers.iter().zip(&snapshot.workers);
            let known = pairs.filter_map(|(rates, worker)| value(rates).map(|value| value * weight(worker)));
            known.reduce(|a, b| a + b)
        };
        totals.cpu = weighted(|rates| rates.cpu, &|_| 1.0);
        let busy = weighted(|rates| rates.utilization, &cores);
        totals.utilization = busy.filter(|_| totals.cores > 0).map(|busy| (busy / totals.cores as f64).min(1.0));

        (before.at, before.clock) = (at, clock);
        before.now = snapshot.now;
        before.pid = snapshot.pid;
        before.started_at = snapshot.started_at;
        (before.requests, before.exceptions, before.tx) = (totals.requests, totals.exceptions, totals.tx);
        self.before = Some(before);
        self.memory.resize_with(snapshot.workers.len(), MemoryTrack::default);
        for (worker, track) in snapshot.workers.iter().zip(&mut self.memory) {
            track.push(worker.pid, MemoryPoint { at, rss: worker.rss, requests: worker.requests });
        }
        let findings = Vec::new();
        let mut sample = Sample { at, clock, window, snapshot, workers, routes, totals, findings };
        sample.findings = self.findings.advance(&sample, &self.memory, self.room);
        self.history.push(&mut sample);
        self.current = Some(sample);
    }
}

/// For how long a server has run, when it was started after another run of it was seen last: all of its counts are of that time.
fn age_of_run(snapshot: &Snapshot, clock: ServerMicros, seen: ServerMicros) -> Option<Duration> {
    if let Some(started) = snapshot.started_at {
        return (started >= seen.0).then(|| clock.since(started));
    }
    // uWSGI tells when its workers' processes were started, in whole seconds, and its clock may be a little ahead of ours.
    let spawned = snapshot.workers.iter().map(|worker| worker.last_spawn).filter(|spawned| *spawned > 0).min()?;
    let [since_start, since_seen] = [clock.since(spawned.saturating_mul(1_000_000)), clock.since(seen.0)];
    let age = if since_start.is_zero() { since_seen } else { since_start.min(since_seen) };
    (spawned >= seen.seconds()).then_some(age)
}

impl Before {
    /// What a run that has just begun is subtracted from: nothing, and clocks at 0.
    fn at_start(snapshot: &Snapshot) -> Self {
        let none = |clock: Option<u64>| clock.map(|_| 0);
        let workers = snapshot.workers.iter().map(|worker| WorkerBefore {
            busy: none(worker.busy_time),
            cpu: none(worker.cpu_time),
            gil: none(worker.gil_wait),
            ..WorkerBefore::default()
        });
        Self { workers: workers.collect(), ..Self::default() }
    }

    /// The time from this sample to `next`; `None` when they are one document.
    fn time_until(&self, next: &Snapshot, at: Monotonic) -> Option<Duration> {
        let passed = at.since(self.at);
        let told = match (self.now, next.now) {
            // Two samples of one cached document have no time between them.
            (Some(earlier), Some(later)) if earlier == later => return None,
            (Some(earlier), Some(later)) => later.checked_sub(earlier).map(Duration::from_micros),
            _ => None,
        };
        // A clock that was set in between tells nothing.
        Some(told.filter(|told| told.abs_diff(passed) <= LATE).unwrap_or(passed))
    }

    /// Whether `next` is a later sample of the same run of the same server.
    fn is_continued_by(&self, next: &Snapshot, totals: &Totals) -> bool {
        let grew = [(self.requests, totals.requests), (self.exceptions, totals.exceptions), (self.tx, totals.tx)];
        // uWSGI's master keeps its number when it reloads, and does not say when it started. Of its workers' counts none may
        // be smaller yet, but their processes are others, though none was started for them.
        let replaced = |(before, worker): (&WorkerBefore, &Worker)| {
            let other = before.id == worker.id && before.pid > 0 && worker.pid > 0 && before.pid != worker.pid;
            other && before.respawns.is_some_and(|respawns| worker.respawn_count <= respawns)
        };
        self.pid == next.pid
            && self.started_at == next.started_at
            && grew.iter().all(|(before, now)| before <= now)
            && !(next.started_at.is_none() && self.workers.iter().zip(&next.workers).any(replaced))
    }
}

impl WorkerBefore {
    /// Takes over what the worker's counters say, and returns what they did in the window.
    fn advance(&mut self, worker: &Worker, at: Monotonic, window: Option<f64>, latency: Option<Counts>) -> Rates {
        let per_second = |now: u64, then: u64| window.map(|window| now.saturating_sub(then) as f64 / window);
        // A clock that was not there before, as after a cheap worker's start, has no difference yet.
        let micros_per_second = |now: Option<u64>, then: Option<u64>| per_second(now?, then?).map(|rate| rate / 1e6);
        let cores = worker.cores.len().max(1) as f64;
        let started = self.respawns.map_or(0, |before| worker.respawn_count.saturating_sub(before));
        // A minute holds no more starts than would be told; a counter of nonsense is not believed.
        self.respawned.extend(std::iter::repeat_n(at, started.min(100) as usize));
        while self.respawned.front().is_some_and(|started| at.since(*started) > MINUTE) {
            self.respawned.pop_front();
        }
        self.respawns = Some(worker.respawn_count);
        let latency = latency.filter(|_| window.is_some());
        let rates = Rates {
            respawned: self.respawned.len() as u64,
            rps: per_second(worker.requests, self.requests),
            tx: per_second(worker.tx, self.tx),
            utilization: micros_per_second(worker.busy_time, self.busy).map(|busy| (busy / cores).min(1.0)),
            cpu: micros_per_second(worker.cpu_time, self.cpu),
            gil: micros_per_second(worker.gil_wait, self.gil).map(|waited| (waited / cores).min(1.0)),
            latency: latency.as_ref().and_then(Counts::percentiles),
            counts: latency,
            cores: match window {
                Some(window) => {
                    let before = self.cores.iter().copied().chain(std::iter::repeat(0));
                    let pairs = worker.cores.iter().zip(before);
                    pairs.map(|(core, then)| core.requests.saturating_sub(then) as f64 / window).collect()
                }
                None => Vec::new(),
            },
        };
        (self.id, self.pid) = (worker.id, worker.pid);
        (self.requests, self.tx) = (worker.requests, worker.tx);
        (self.busy, self.cpu, self.gil) = (worker.busy_time, worker.cpu_time, worker.gil_wait);
        self.cores.clear();
        self.cores.extend(worker.cores.iter().map(|core| core.requests));
        rates
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{SourceError, parse};
    use rwsgi_stats::{Queue, latency};

    fn snapshot(requests: u64) -> Snapshot {
        let core = rwsgi_stats::Core { requests, ..Default::default() };
        let worker = Worker {
            id: 1,
            pid: 8,
            requests,
            tx: requests * 10,
            status: "idle".into(),
            cores: vec![core, rwsgi_stats::Core::default()],
            ..Worker::default()
        };
        Snapshot { version: "1".into(), pid: 7, workers: vec![worker], ..Snapshot::default() }
    }

    fn poll(at: u64, snapshot: &Snapshot) -> Poll {
        let document = parse(serde_json::to_vec(snapshot).unwrap()).unwrap();
        Poll {
            target: 0,
            at: Monotonic::from_micros(at),
            taken: LocalMicros(1_000_000_000 + at),
            outcome: Ok(document),
        }
    }

    fn pool(polls: impl IntoIterator<Item = Poll>) -> Pool {
        let mut pool = Pool::new(":9191".into(), None);
        for poll in polls {
            pool.ingest(poll);
        }
        pool
    }

    #[test]
    fn the_first_sample_has_totals_and_no_rates() {
        let pool = pool([poll(0, &snapshot(50))]);
        let sample = pool.current.unwrap();
        assert_eq!((sample.totals.requests, sample.totals.rps, sample.workers[0].rps), (50, None, None));
    }

    #[test]
    fn without_a_server_s_clock_rates_divide_by_ours() {
        let pool = pool([poll(0, &snapshot(50)), poll(2_000_000, &snapshot(150))]);
        let sample = pool.current.unwrap();
        assert_eq!((sample.totals.rps, sample.workers[0].rps), (Some(50.0), Some(50.0)));
        assert_eq!((sample.totals.tx_rate, sample.workers[0].cores.as_slice()), (Some(500.0), &[50.0, 0.0][..]));
    }

    #[test]
    fn a_server_s_own_clock_goes_before_ours() {
        let mut snapshots = [snapshot(0), snapshot(100)];
        snapshots[0].now = Some(5_000_000);
        snapshots[1].now = Some(7_000_000);
        let pool = pool([poll(0, &snapshots[0]), poll(1_000_000, &snapshots[1])]);
        assert_eq!(pool.current.unwrap().totals.rps, Some(50.0));
    }

    #[test]
    fn a_restarted_server_gives_no_rates_across_the_restart() {
        let mut other = snapshot(900);
        other.pid = 99;
        for second in [other, snapshot(10)] {
            let pool = pool([poll(0, &snapshot(50)), poll(1_000_000, &second)]);
            assert_eq!((pool.restarts, pool.current.unwrap().totals.rps), (1, None));
        }
    }

    #[test]
    fn silence_keeps_the_last_sample_and_says_since_when() {
        let silence = |at, error| {
            let (at, taken) = (Monotonic::from_micros(at), LocalMicros(at));
            Poll { target: 0, at, taken, outcome: Err(error) }
        };
        let mut pool = pool([poll(0, &snapshot(50)), silence(1, SourceError::Empty), silence(2, SourceError::Half(9))]);
        let trouble = pool.trouble.clone().unwrap();
        assert_eq!((trouble.since, pool.current.is_some()), (Monotonic::from_micros(1), true));
        assert!(trouble.message.contains("truncated response"));
        pool.ingest(poll(1_000_000, &snapshot(60)));
        assert_eq!((&pool.trouble, pool.current.unwrap().totals.rps), (&None, Some(10.0)));
    }

    #[test]
    fn utilization_and_percentiles_are_of_the_window_alone() {
        let with = |busy: u64, values: &[(u64, u64)], requests| {
            let mut snapshot = snapshot(requests);
            let counts = latency::from_counts(values.iter().map(|(value, n)| (latency::index_of(*value), *n)));
            snapshot.workers[0].busy_time = Some(busy);
            snapshot.workers[0].latency = Some(latency::encode(&counts));
            snapshot.latency = snapshot.workers[0].latency.clone();
            snapshot.queue = Some(Queue { depth: 3, capacity: 10, waiting: latency::encode(&counts), rejected: 0 });
            snapshot
        };
        let before = with(1_000_000, &[(100_000, 10)], 10);
        let after = with(2_000_000, &[(100, 99), (100_000, 11)], 110);
        let pool = pool([poll(0, &before), poll(1_000_000, &after)]);
        assert_eq!(pool.latency_since_start(0).unwrap().total(), 110);
        let sample = pool.current.unwrap();
        assert_eq!(sample.workers[0].utilization, Some(0.5), "one second of two cores");
        assert_eq!(sample.totals.utilization, Some(0.5));
        let percentiles = sample.workers[0].latency.unwrap();
        assert_eq!((percentiles.p50, percentiles.max >= 100_000), (100, true));
        assert_eq!(sample.totals.latency.unwrap().total(), 100);
        assert_eq!(sample.totals.waiting.unwrap().total(), 100);
        assert_eq!((sample.totals.queue, sample.totals.queue_capacity), (3, 10));
    }

    #[test]
    fn workers_may_come_and_go() {
        let mut more = snapshot(60);
        more.workers.push(Worker { id: 2, requests: 5, ..Worker::default() });
        let pool = pool([poll(0, &snapshot(50)), poll(1_000_000, &more), poll(2_000_000, &snapshot(65))]);
        assert_eq!(pool.current.unwrap().workers.len(), 1);
    }
}
