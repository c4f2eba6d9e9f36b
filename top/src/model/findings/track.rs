//! What rules look at: the last minutes of a server, in a few numbers each second.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use rwsgi_stats::Worker;

use crate::model::{Counts, RouteWindow, Sample};
use crate::source::Monotonic;

/// How far back rules look.
const SPAN: Duration = Duration::from_secs(180);
/// Samples that come closer than this are one moment, as when a screen is fast.
const SPACING: Duration = Duration::from_millis(900);
/// However far apart samples are, rules look at so many.
const LEAST: usize = 3;
/// Of a moment the routes with the most busy time are kept.
const ROUTES: usize = 8;
/// A request that runs for so long, µs, has its route kept.
const LONG: u64 = 1_000_000;
/// For how long the sum of a minute is good.
const FRESH: Duration = Duration::from_secs(5);

/// A minute.
pub(super) const MINUTE: Duration = Duration::from_secs(60);

/// What requests did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Outcomes {
    pub(super) requests: u64,
    /// Responses of 500 and more.
    pub(super) errors: u64,
    pub(super) exceptions: u64,
}

impl Outcomes {
    fn of(worker: &Worker) -> Self {
        let errors = worker.responses.map_or(0, |responses| responses.server_error);
        Self { requests: worker.requests, errors, exceptions: worker.exceptions }
    }

    fn since(self, before: Self) -> Self {
        Self {
            requests: self.requests.saturating_sub(before.requests),
            errors: self.errors.saturating_sub(before.errors),
            exceptions: self.exceptions.saturating_sub(before.exceptions),
        }
    }

    fn add(&mut self, other: Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.errors = self.errors.saturating_add(other.errors);
        self.exceptions = self.exceptions.saturating_add(other.exceptions);
    }
}

/// What happened up to a moment, since the one before or over several.
#[derive(Clone, Debug, Default)]
pub(super) struct Sum {
    /// Seconds that are covered.
    pub(super) seconds: f64,
    /// Moments in it.
    pub(super) moments: usize,
    /// Moments at which every core was in a request.
    pub(super) full: usize,
    /// Moments at which something waited.
    pub(super) waited: usize,
    /// Core-seconds: in requests, and of all cores; `None` when the server does not tell.
    pub(super) busy: Option<(f64, f64)>,
    /// Core-seconds that waited for Python's global lock.
    pub(super) gil: Option<f64>,
    /// How long requests waited in the queue.
    pub(super) waiting: Counts,
    /// Refused because a queue was full.
    pub(super) refused: u64,
    pub(super) all: Outcomes,
    /// By the generation that served them.
    pub(super) generations: BTreeMap<u32, Outcomes>,
    pub(super) harakiri: u64,
    /// Processes that died, by their worker; `None` when the server does not tell why processes end.
    pub(super) crashes: Option<BTreeMap<u32, u64>>,
    /// Connections closed because the client was too slow.
    pub(super) slow_clients: u64,
    /// Bodies for which there was no space.
    pub(super) temp_refused: u64,
    /// The routes that took most of the time.
    pub(super) routes: BTreeMap<String, RouteWindow>,
    /// Busy time of all routes, µs.
    pub(super) routes_busy: u64,
}

impl Sum {
    fn add(&mut self, other: &Self) {
        self.seconds += other.seconds;
        self.moments += other.moments;
        self.full += other.full;
        self.waited += other.waited;
        if let Some((busy, cores)) = other.busy {
            let sum = self.busy.get_or_insert_default();
            *sum = (sum.0 + busy, sum.1 + cores);
        }
        if let Some(gil) = other.gil {
            *self.gil.get_or_insert_default() += gil;
        }
        self.waiting.merge(&other.waiting);
        self.all.add(other.all);
        for (generation, outcomes) in &other.generations {
            self.generations.entry(*generation).or_default().add(*outcomes);
        }
        if let Some(crashes) = &other.crashes {
            let sum = self.crashes.get_or_insert_default();
            for (worker, count) in crashes {
                let sum = sum.entry(*worker).or_default();
                *sum = sum.saturating_add(*count);
            }
        }
        for (sum, count) in [
            (&mut self.refused, other.refused),
            (&mut self.harakiri, other.harakiri),
            (&mut self.slow_clients, other.slow_clients),
            (&mut self.temp_refused, other.temp_refused),
            (&mut self.routes_busy, other.routes_busy),
        ] {
            *sum = sum.saturating_add(count);
        }
        for (route, window) in &other.routes {
            match self.routes.get_mut(route) {
                Some(sum) => sum.add(window),
                None => drop(self.routes.insert(route.clone(), window.clone())),
            }
        }
    }

    /// Share of the cores' time that was spent in requests, 0 to 1.
    pub(super) fn utilization(&self) -> Option<f64> {
        self.busy.filter(|(_, cores)| *cores > 0.0).map(|(busy, cores)| busy / cores)
    }

    /// The route that took most of the time, and its share of the time of all, 0 to 1.
    pub(super) fn top_route(&self) -> Option<(&str, &RouteWindow, f64)> {
        let (route, window) = self.routes.iter().max_by_key(|(_, window)| window.busy)?;
        let all = self.routes_busy.max(window.busy);
        (all > 0).then(|| (route.as_str(), window, window.busy as f64 / all as f64))
    }
}

/// When another generation began to serve.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deploy {
    pub(super) at: Monotonic,
    pub(super) generation: u32,
    /// What was there in the minutes before.
    pub(super) before: Outcomes,
    /// What that generation did since.
    pub(super) since: Outcomes,
}

/// Counters that the next sample's are held against.
#[derive(Debug, Default)]
struct Before {
    refused: u64,
    harakiri: u64,
    slow_clients: u64,
    temp_refused: u64,
    /// By the worker's number: what it did, and how often its process died.
    workers: BTreeMap<u32, (Outcomes, Option<u64>)>,
    generation: u32,
}

/// The last minutes of a server.
#[derive(Debug, Default)]
pub(super) struct Track {
    moments: VecDeque<(Monotonic, Sum)>,
    /// What came since the last moment, too close to it.
    pending: Sum,
    before: Option<Before>,
    pub(super) deploy: Option<Deploy>,
    minute: Option<(Monotonic, Sum)>,
}

impl Track {
    /// Takes a sample in. Returns whether there is a new moment to judge.
    pub(super) fn push(&mut self, sample: &Sample) -> bool {
        let step = self.step(sample);
        self.pending.add(&step);
        let latest = self.moments.back().map(|(at, _)| *at);
        if latest.is_some_and(|latest| sample.at < latest.after(SPACING)) {
            return false;
        }
        let mut moment = std::mem::take(&mut self.pending);
        // Several samples together are one moment, at which all of them were full.
        moment.full = usize::from(moment.full == moment.moments);
        moment.waited = usize::from(moment.waited > 0);
        moment.moments = 1;
        self.moments.push_back((sample.at, moment));
        let oldest = sample.at.before(SPAN);
        while self.moments.len() > LEAST && self.moments.front().is_some_and(|(at, _)| *at < oldest) {
            self.moments.pop_front();
        }
        if self.minute.as_ref().is_none_or(|(at, _)| sample.at.since(*at) >= FRESH || self.moments.len() < 10) {
            self.minute = Some((sample.at, self.over(sample.at, MINUTE)));
        }
        true
    }

    /// What the sample says beyond the one before.
    fn step(&mut self, sample: &Sample) -> Sum {
        let (snapshot, totals) = (&sample.snapshot, &sample.totals);
        let now = Before {
            refused: totals.queue_errors,
            harakiri: totals.harakiri,
            slow_clients: snapshot.slow_clients.unwrap_or(0),
            temp_refused: snapshot.temp_files.as_ref().map_or(0, |files| files.refused),
            workers: snapshot
                .workers
                .iter()
                .map(|worker| (worker.id, (Outcomes::of(worker), worker.recycled.map(|recycled| recycled.crash))))
                .collect(),
            generation: snapshot.generation.unwrap_or(0),
        };
        let running = || snapshot.workers.iter().zip(&sample.workers).filter(|(worker, _)| worker.pid > 0);
        let busy_now = running().flat_map(|(worker, _)| &worker.cores).filter(|core| core.in_request != 0).count();
        let mut step = Sum {
            moments: 1,
            full: usize::from(totals.cores > 0 && busy_now as u64 >= totals.cores),
            waited: usize::from(totals.queue > 0),
            ..Sum::default()
        };
        if let (Some(seconds), Some(before)) = (sample.window, &self.before) {
            let cores = totals.cores as f64 * seconds;
            step.seconds = seconds;
            step.busy = totals.utilization.map(|utilization| (utilization * cores, cores));
            // A worker of one thread waits for nobody.
            let waits = running().filter(|(worker, _)| worker.cores.len() > 1);
            let waits = waits.filter_map(|(worker, rates)| Some(rates.gil? * worker.cores.len() as f64 * seconds));
            step.gil = waits.reduce(|sum, more| sum + more);
            step.waiting = totals.waiting.clone().unwrap_or_default();
            step.refused = now.refused.saturating_sub(before.refused);
            step.harakiri = now.harakiri.saturating_sub(before.harakiri);
            step.slow_clients = now.slow_clients.saturating_sub(before.slow_clients);
            step.temp_refused = now.temp_refused.saturating_sub(before.temp_refused);
            for worker in &snapshot.workers {
                let (outcomes, crashes) = now.workers.get(&worker.id).copied().unwrap_or_default();
                let (then, crashed) = before.workers.get(&worker.id).copied().unwrap_or_default();
                let did = outcomes.since(then);
                step.all.add(did);
                if let Some(generation) = worker.generation {
                    step.generations.entry(generation).or_default().add(did);
                }
                if let Some(crashes) = crashes {
                    let died = crashes.saturating_sub(crashed.unwrap_or(crashes));
                    let sum = step.crashes.get_or_insert_default().entry(worker.id).or_default();
                    *sum = sum.saturating_add(died);
                }
            }
            self.follow_deploys(sample.at, now.generation, &step);
            keep_routes(sample, &mut step);
        }
        self.before = Some(now);
        step
    }

    fn follow_deploys(&mut self, at: Monotonic, generation: u32, step: &Sum) {
        let before = self.before.as_ref().map_or(0, |before| before.generation);
        if generation > before && before > 0 {
            let mut known = Outcomes::default();
            self.moments.iter().for_each(|(_, moment)| known.add(moment.all));
            self.deploy = Some(Deploy { at, generation, before: known, since: Outcomes::default() });
        }
        if let Some(deploy) = &mut self.deploy {
            deploy.since.add(step.generations.get(&deploy.generation).copied().unwrap_or_default());
        }
    }

    /// Whether every core was in a request at the last moment.
    pub(super) fn is_full(&self) -> bool {
        self.moments.back().is_some_and(|(_, moment)| moment.full > 0)
    }

    /// What happened within so long before a moment, of as many moments as it takes to say something.
    pub(super) fn over(&self, now: Monotonic, span: Duration) -> Sum {
        let from = now.before(span);
        let mut sum = Sum::default();
        let recent = self.moments.iter().rev().enumerate();
        for (_, (_, moment)) in recent.take_while(|(place, (at, _))| *at > from || *place < LEAST) {
            sum.add(moment);
        }
        sum
    }

    /// For how long no request has been completed; counted from the first sample on.
    pub(super) fn without_requests(&self, now: Monotonic) -> Duration {
        let last = self.moments.iter().rev().find(|(_, moment)| moment.all.requests > 0);
        let since = last.or(self.moments.front()).map(|(at, _)| *at);
        since.map_or(Duration::ZERO, |since| now.since(since))
    }

    /// What happened before the last minute.
    pub(super) fn before_minute(&self, now: Monotonic) -> Sum {
        let until = now.before(MINUTE);
        let mut sum = Sum::default();
        self.moments.iter().take_while(|(at, _)| *at <= until).for_each(|(_, moment)| sum.add(moment));
        sum
    }

    /// What happened in the last minute, give or take a few seconds.
    pub(super) fn minute(&self) -> Option<&Sum> {
        self.minute.as_ref().map(|(_, sum)| sum)
    }
}

/// Keeps what the busiest routes did.
fn keep_routes(sample: &Sample, step: &mut Sum) {
    let rows = sample.snapshot.routes.iter().flatten().zip(&sample.routes);
    let mut busy: Vec<_> = rows.filter(|(_, window)| window.requests > 0 || window.busy > 0).collect();
    step.routes_busy = busy.iter().map(|(_, window)| window.busy).fold(0, u64::saturating_add);
    // Those with errors first: they are what is asked for by name.
    busy.sort_by_key(|(_, window)| std::cmp::Reverse((window.errors, window.busy)));
    let failing = busy.iter().take(2).filter(|(_, window)| window.errors > 0).count();
    // Then those of which a request runs for long: it is held against the others of its route.
    let workers = sample.snapshot.workers.iter().flat_map(|worker| &worker.cores);
    let long = workers.filter(|core| core.in_request != 0 && core.req_info.elapsed.is_some_and(|time| time >= LONG));
    let long: Vec<&str> = long.filter_map(|core| core.req_info.route.as_deref()).collect();
    busy[failing..]
        .sort_by_key(|(route, window)| std::cmp::Reverse((long.contains(&route.route.as_str()), window.busy)));
    busy.truncate(ROUTES);
    step.routes = busy.into_iter().map(|(route, window)| (route.route.clone(), window.clone())).collect();
}
