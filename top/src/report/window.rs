//! What happened between two moments: the sums of what each step in between added.
//!
//! Everything is a difference of counters and of histograms, gathered reading by reading, so totals since boot never
//! count, and a restart in the middle is seen.

use crate::model::{Counts, Pool, Reading};

/// What one server, or several together, did while we watched.
#[derive(Clone, Debug, Default)]
pub(crate) struct Window {
    /// Readings that were taken in.
    pub(crate) readings: u64,
    /// Readings that failed.
    pub(crate) failures: u64,
    /// Servers that began anew in between.
    pub(crate) restarts: u64,
    /// Seconds that are covered.
    pub(crate) seconds: f64,
    /// Requests completed.
    pub(crate) requests: u64,
    /// Requests that raised.
    pub(crate) exceptions: u64,
    /// Responses with a status of 500 or more; `None` when the server does not tell.
    pub(crate) server_errors: Option<u64>,
    /// Responses with a status of 400 to 499; `None` when the server does not tell.
    pub(crate) client_errors: Option<u64>,
    /// Requests ended for running too long.
    pub(crate) harakiri: u64,
    /// Processes started.
    pub(crate) respawns: u64,
    /// Refused because a queue was full.
    pub(crate) refused: u64,
    /// Bytes sent.
    pub(crate) tx: u64,
    /// Latencies; `None` when the server does not tell.
    pub(crate) latency: Option<Counts>,
    /// Waiting times in the front's queue; `None` when the server does not tell.
    pub(crate) waiting: Option<Counts>,
    /// Seconds of cores in requests and of cores in all; `None` when the server does not tell.
    pub(crate) busy: Option<(f64, f64)>,
    /// Seconds of processors; `None` when the server does not tell.
    pub(crate) cpu: Option<f64>,
    /// The most resident memory of a worker, bytes.
    pub(crate) rss_max: Option<u64>,
    /// The most resident memory of all workers together, bytes.
    pub(crate) rss_sum: Option<u64>,
    /// The most memory of all workers with shared pages divided, bytes.
    pub(crate) pss_sum: Option<u64>,
    /// The most that waited.
    pub(crate) queue_max: Option<u64>,
    /// The fewest workers that had a process.
    pub(crate) workers_min: Option<u64>,
}

/// Counters of a reading that the next is subtracted from.
#[derive(Clone, Copy, Debug, Default)]
struct Marks {
    requests: u64,
    exceptions: u64,
    server_errors: u64,
    client_errors: u64,
    harakiri: u64,
    respawns: u64,
    refused: u64,
    tx: u64,
}

impl Marks {
    fn of(reading: &Reading) -> Self {
        let totals = &reading.totals;
        let workers = &reading.snapshot.workers;
        let responses = |count: fn(&rwsgi_stats::Responses) -> u64| {
            workers.iter().filter_map(|worker| worker.responses.as_ref()).map(count).fold(0, u64::saturating_add)
        };
        Self {
            requests: totals.requests,
            exceptions: totals.exceptions,
            server_errors: responses(|responses| responses.server_error),
            client_errors: responses(|responses| responses.client_error),
            harakiri: totals.harakiri,
            respawns: workers.iter().map(|worker| worker.respawn_count).fold(0, u64::saturating_add),
            refused: totals.queue_errors,
            tx: totals.tx,
        }
    }
}

/// Gathers a window from the pools as they take samples in.
#[derive(Debug, Default)]
pub(crate) struct Gatherer {
    window: Window,
    /// By target: the counters of its last reading, and its restarts then.
    marks: Vec<Option<(Marks, u64)>>,
    /// By target: seconds that its readings cover.
    seconds: Vec<f64>,
}

impl Gatherer {
    /// Takes in what a pool has just learned; `fresh` when that is a new reading and not a failure.
    pub(crate) fn push(&mut self, target: usize, pool: &Pool, fresh: bool) {
        if self.marks.len() <= target {
            self.marks.resize(target + 1, None);
            self.seconds.resize(target + 1, 0.0);
        }
        let Some(reading) = pool.current.as_ref().filter(|_| fresh) else {
            self.window.failures += 1;
            return;
        };
        let now = Marks::of(reading);
        let before = self.marks[target].replace((now, pool.restarts));
        self.levels(reading);
        let Some((before, restarts)) = before else { return };
        if restarts != pool.restarts {
            self.window.restarts += 1;
            return;
        }
        self.window.readings += 1;
        self.differences(target, reading, before, now);
    }

    /// What is a height and not a count: the most that was seen.
    fn levels(&mut self, reading: &Reading) {
        let most = |highest: &mut Option<u64>, value: u64| *highest = Some(highest.map_or(value, |h| h.max(value)));
        let window = &mut self.window;
        let workers = &reading.snapshot.workers;
        // A server that does not read memory sends zeros; no worker is that small.
        if let Some(rss) = workers.iter().map(|worker| worker.rss).max().filter(|rss| *rss > 0) {
            most(&mut window.rss_max, rss);
            most(&mut window.rss_sum, reading.totals.rss);
        }
        if let Some(pss) = reading.totals.pss {
            most(&mut window.pss_sum, pss);
        }
        most(&mut window.queue_max, reading.totals.queue);
        let alive = workers.iter().filter(|worker| worker.pid > 0).count() as u64;
        window.workers_min = Some(window.workers_min.map_or(alive, |fewest| fewest.min(alive)));
    }

    fn differences(&mut self, target: usize, reading: &Reading, before: Marks, now: Marks) {
        let window = &mut self.window;
        let Some(seconds) = reading.window else { return };
        self.seconds[target] += seconds;
        window.seconds = self.seconds.iter().copied().fold(0.0, f64::max);
        window.requests += now.requests.saturating_sub(before.requests);
        window.exceptions += now.exceptions.saturating_sub(before.exceptions);
        window.harakiri += now.harakiri.saturating_sub(before.harakiri);
        window.respawns += now.respawns.saturating_sub(before.respawns);
        window.refused += now.refused.saturating_sub(before.refused);
        window.tx += now.tx.saturating_sub(before.tx);
        if reading.snapshot.workers.iter().any(|worker| worker.responses.is_some()) {
            *window.server_errors.get_or_insert(0) += now.server_errors.saturating_sub(before.server_errors);
            *window.client_errors.get_or_insert(0) += now.client_errors.saturating_sub(before.client_errors);
        }
        let totals = &reading.totals;
        for (sum, counts) in [(&mut window.latency, &totals.latency), (&mut window.waiting, &totals.waiting)] {
            if let Some(counts) = counts {
                sum.get_or_insert_default().merge(counts);
            }
        }
        if let Some(utilization) = totals.utilization {
            let (busy, all) = window.busy.get_or_insert((0.0, 0.0));
            *busy += utilization * totals.cores as f64 * seconds;
            *all += totals.cores as f64 * seconds;
        }
        if let Some(cpu) = totals.cpu {
            *window.cpu.get_or_insert(0.0) += cpu * seconds;
        }
    }

    /// Begins the next window where this one ends.
    pub(crate) fn begin_again(&mut self) {
        self.window = Window::default();
        self.seconds.fill(0.0);
    }

    /// What was gathered.
    pub(crate) fn window(&self) -> &Window {
        &self.window
    }

    /// How many of the targets have been read at least once.
    pub(crate) fn seen(&self) -> usize {
        self.marks.iter().flatten().count()
    }
}
