//! A sample: one snapshot, and what it says together with the snapshot before it.

use rwsgi_stats::{Core, Snapshot, Worker};

use super::{Counts, Finding, Percentiles, PhaseCounts, RouteWindow};
use crate::source::{Monotonic, ServerMicros, shown_of};

/// One server at one moment. Rates are `None` until there is a snapshot before it to subtract.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Sample {
    /// When it was taken.
    pub(crate) at: Monotonic,
    /// What the server's clock said then.
    pub(crate) clock: ServerMicros,
    /// Seconds since the sample before it, of the same run of the server.
    pub(crate) window: Option<f64>,
    /// The document. What is digested elsewhere is taken out: histograms, locks, request variables.
    pub(crate) snapshot: Snapshot,
    /// What the differences say, a row for each of the snapshot's workers.
    pub(crate) workers: Vec<Rates>,
    /// What the differences say of routes, a row for each of the snapshot's.
    pub(crate) routes: Vec<RouteWindow>,
    /// All workers together.
    pub(crate) totals: Totals,
    /// What is wrong, the most important first.
    pub(crate) findings: Vec<Finding>,
}

/// What a worker did in the window.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Rates {
    /// Requests completed per second.
    pub(crate) rps: Option<f64>,
    /// Bytes sent per second.
    pub(crate) tx: Option<f64>,
    /// Fraction of its cores' time spent in requests, 0 to 1.
    pub(crate) utilization: Option<f64>,
    /// Processors used: 1 is one whole processor.
    pub(crate) cpu: Option<f64>,
    /// Fraction of its cores' time spent waiting for Python's global lock, 0 to 1.
    pub(crate) gil: Option<f64>,
    /// Latencies of the requests that it completed in the window.
    pub(crate) latency: Option<Percentiles>,
    /// What they come from; the history does not keep it.
    pub(crate) counts: Option<Counts>,
    /// How often its process was started within the last minute.
    pub(crate) respawned: u64,
    /// Requests per second of each of its cores; empty until known.
    pub(crate) cores: Vec<f64>,
}

/// A server as a whole, or several servers together.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Totals {
    /// Workers by status, in the order of [`Status`].
    pub(crate) statuses: [u64; 6],
    /// Cores of workers that have a process.
    pub(crate) cores: u64,
    /// Requests completed.
    pub(crate) requests: u64,
    /// Requests that raised.
    pub(crate) exceptions: u64,
    /// Requests ended for running too long.
    pub(crate) harakiri: u64,
    /// Processes started beyond each worker's first.
    pub(crate) respawns: u64,
    /// Bytes sent.
    pub(crate) tx: u64,
    /// Resident memory, bytes; pages that workers share are counted for each of them.
    pub(crate) rss: u64,
    /// Memory with shared pages divided, bytes.
    pub(crate) pss: Option<u64>,
    /// Requests and connections that wait.
    pub(crate) queue: u64,
    /// The most that may wait; 0 when it is not known.
    pub(crate) queue_capacity: u64,
    /// Refused because a queue was full.
    pub(crate) queue_errors: u64,
    /// Requests per second.
    pub(crate) rps: Option<f64>,
    /// Requests per second that raised.
    pub(crate) exception_rate: Option<f64>,
    /// Bytes sent per second.
    pub(crate) tx_rate: Option<f64>,
    /// Fraction of all cores' time spent in requests, 0 to 1.
    pub(crate) utilization: Option<f64>,
    /// Processors used by all workers.
    pub(crate) cpu: Option<f64>,
    /// Latencies in the window; `None` when the server does not tell.
    pub(crate) latency: Option<Counts>,
    /// Waiting times in the router's queue in the window; `None` when the server does not tell.
    pub(crate) waiting: Option<Counts>,
    /// How long the phases took of the requests in the window; `None` when the server does not tell.
    pub(crate) phases: Option<PhaseCounts>,
}

/// What a worker is doing; the words are uWSGI's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Status {
    /// In a request.
    Busy,
    /// Waiting for one.
    Idle,
    /// Has no process, because there is not enough to do.
    Cheap,
    /// Takes no requests for now.
    Pause,
    /// Handles a uWSGI signal.
    Signal,
    /// A word of a later version.
    Other,
}

impl Status {
    /// Every status, in the order of [`Totals::statuses`].
    pub(crate) const ALL: [(Self, &'static str); 6] = [
        (Self::Busy, "busy"),
        (Self::Idle, "idle"),
        (Self::Cheap, "cheap"),
        (Self::Pause, "pause"),
        (Self::Signal, "sig"),
        (Self::Other, "other"),
    ];
}

/// The status that a document's word stands for.
pub(crate) fn status_of(word: &str) -> Status {
    match word {
        "busy" => Status::Busy,
        "idle" => Status::Idle,
        "cheap" => Status::Cheap,
        "pause" => Status::Pause,
        _ if word.starts_with("sig") => Status::Signal,
        _ => Status::Other,
    }
}

impl Totals {
    /// What one snapshot says without another: no rates, no windows.
    pub(crate) fn of(snapshot: &Snapshot) -> Self {
        Self::default().with_counters_of(snapshot)
    }

    /// The counters alone: what is still known of a server that is silent.
    pub(crate) fn without_rates(&self) -> Self {
        let silent = Self::default();
        Self {
            rps: silent.rps,
            exception_rate: silent.exception_rate,
            tx_rate: silent.tx_rate,
            utilization: silent.utilization,
            cpu: silent.cpu,
            latency: silent.latency,
            waiting: silent.waiting,
            phases: silent.phases,
            ..self.clone()
        }
    }

    /// These rates and windows, with the counters of a snapshot. Divided memory is known when that of every process is: a
    /// server tells 0 of one whose pages it has not counted yet.
    pub(super) fn with_counters_of(self, snapshot: &Snapshot) -> Self {
        let workers = &snapshot.workers;
        // Saturating, for a document of nonsense.
        let sum = |value: fn(&Worker) -> u64| workers.iter().map(value).fold(0, u64::saturating_add);
        let mut totals = Self {
            requests: sum(|w| w.requests),
            exceptions: sum(|w| w.exceptions),
            harakiri: sum(|w| w.harakiri_count),
            respawns: sum(|w| w.respawn_count.saturating_sub(1)),
            tx: sum(|w| w.tx),
            rss: sum(|w| w.rss),
            pss: {
                let known = workers.iter().filter(|w| w.rss > 0).map(|w| w.pss.filter(|pss| *pss > 0));
                known.reduce(|sum, pss| sum.zip(pss).map(|(sum, pss)| sum.saturating_add(pss))).flatten()
            },
            cores: workers.iter().filter(|w| w.pid > 0).map(|w| w.cores.len() as u64).sum(),
            queue: snapshot.queue.as_ref().map_or(snapshot.listen_queue, |queue| queue.depth),
            queue_capacity: match &snapshot.queue {
                Some(queue) => queue.capacity,
                None => snapshot.sockets.iter().map(|socket| socket.max_queue).max().unwrap_or(0),
            },
            queue_errors: snapshot.listen_queue_errors,
            ..self
        };
        totals.statuses = [0; 6];
        for worker in workers {
            totals.statuses[status_of(&worker.status) as usize] += 1;
        }
        totals
    }

    /// Several servers as one: sums, merged histograms, utilization weighted by cores.
    pub(crate) fn merged<'a>(all: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut merged = Self::default();
        let (mut busy_cores, mut known_cores) = (None, 0);
        // Where one tells resident memory only, a sum of the others' divided memory would say less than there is.
        let mut all_pss = Some(0u64);
        for one in all {
            for (sum, count) in merged.statuses.iter_mut().zip(one.statuses) {
                *sum += count;
            }
            merged.cores = merged.cores.saturating_add(one.cores);
            merged.requests = merged.requests.saturating_add(one.requests);
            merged.exceptions = merged.exceptions.saturating_add(one.exceptions);
            merged.harakiri = merged.harakiri.saturating_add(one.harakiri);
            merged.respawns = merged.respawns.saturating_add(one.respawns);
            merged.tx = merged.tx.saturating_add(one.tx);
            merged.rss = merged.rss.saturating_add(one.rss);
            merged.queue = merged.queue.saturating_add(one.queue);
            merged.queue_capacity = merged.queue_capacity.saturating_add(one.queue_capacity);
            merged.queue_errors = merged.queue_errors.saturating_add(one.queue_errors);
            if one.rss > 0 {
                all_pss = all_pss.zip(one.pss).map(|(sum, pss)| sum.saturating_add(pss));
            }
            if one.utilization.is_some() {
                known_cores += one.cores;
            }
            for (sum, rate) in [
                (&mut merged.rps, one.rps),
                (&mut merged.exception_rate, one.exception_rate),
                (&mut merged.tx_rate, one.tx_rate),
                (&mut merged.cpu, one.cpu),
                (&mut busy_cores, one.utilization.map(|utilization| utilization * one.cores as f64)),
            ] {
                if let Some(rate) = rate {
                    *sum.get_or_insert(0.0) += rate;
                }
            }
            if let Some(phases) = &one.phases {
                merged.phases.get_or_insert_default().merge(phases);
            }
            for (sum, counts) in [(&mut merged.latency, &one.latency), (&mut merged.waiting, &one.waiting)] {
                if let Some(counts) = counts {
                    sum.get_or_insert_default().merge(counts);
                }
            }
        }
        merged.utilization = busy_cores.filter(|_| known_cores > 0).map(|busy| busy / known_cores as f64);
        merged.pss = all_pss.filter(|pss| *pss > 0);
        merged
    }

    /// How many workers there are.
    pub(crate) fn workers(&self) -> u64 {
        self.statuses.iter().sum()
    }
}

/// Takes out of a document what is not kept, and puts the request in progress where `rwsgi` has it, for uWSGI too.
pub(crate) fn digest(snapshot: &mut Snapshot, now: ServerMicros) {
    // Nothing shows them.
    (snapshot.locks, snapshot.caches, snapshot.timers) = Default::default();
    snapshot.metrics.clear();
    let shown = shown_of(snapshot.server.as_deref());
    for core in snapshot.workers.iter_mut().flat_map(|worker| &mut worker.cores) {
        let vars = std::mem::take(&mut core.vars);
        if core.in_request != 0 {
            describe_request(core, &vars, now);
            core.req_info.uri = core.req_info.uri.take().map(|uri| shown.target(&uri).into_owned());
        }
    }
}

fn describe_request(core: &mut Core, vars: &[String], now: ServerMicros) {
    let variable = |name: &str| {
        let value = vars.iter().find_map(|var| var.strip_prefix(name)?.strip_prefix('='));
        value.filter(|value| !value.is_empty()).map(str::to_owned)
    };
    let request = &mut core.req_info;
    if request.method.is_none() {
        request.method = variable("REQUEST_METHOD");
    }
    if request.uri.is_none() {
        request.uri = variable("REQUEST_URI").or_else(|| variable("PATH_INFO"));
    }
    if request.remote_addr.is_none() {
        request.remote_addr = variable("REMOTE_ADDR");
    }
    if request.protocol.is_none() {
        request.protocol = variable("SERVER_PROTOCOL");
    }
    if request.elapsed.is_none() {
        let started = request.started.or(request.request_start.map(|seconds| seconds.saturating_mul(1_000_000)));
        request.elapsed = started.map(|started| now.since(started).as_micros() as u64);
    }
}

impl Sample {
    /// The request in progress that a worker has held for the longest.
    pub(crate) fn oldest_request(worker: &Worker) -> Option<&Core> {
        let in_request = worker.cores.iter().filter(|core| core.in_request != 0);
        in_request.max_by_key(|core| core.req_info.elapsed.unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rwsgi_stats::latency;

    fn busy_cheap() -> Snapshot {
        serde_json::from_str(include_str!("../../../shared/tests/fixtures/uwsgi-busy-cheap.json")).unwrap()
    }

    #[test]
    fn totals_are_the_sums_that_uwsgitop_shows() {
        let totals = Totals::of(&busy_cheap());
        assert_eq!((totals.requests, totals.exceptions, totals.tx, totals.respawns), (6, 1, 235, 0));
        assert_eq!(totals.statuses, [1, 1, 2, 0, 0, 0]);
        assert_eq!((totals.workers(), totals.cores), (4, 4));
        assert_eq!((totals.queue, totals.queue_capacity), (0, 100));
    }

    #[test]
    fn uwsgi_s_request_variables_become_the_request_in_progress_and_are_not_kept() {
        let mut snapshot = busy_cheap();
        digest(&mut snapshot, ServerMicros(1_795_227_103_500_000));
        let core = Sample::oldest_request(&snapshot.workers[1]).unwrap();
        assert_eq!(core.req_info.method.as_deref(), Some("GET"));
        assert_eq!(core.req_info.uri.as_deref(), Some("/sleep?…"));
        assert_eq!(core.req_info.elapsed, Some(2_500_000));
        assert!(core.vars.is_empty());
        assert_eq!(Sample::oldest_request(&snapshot.workers[0]), None);
    }

    #[test]
    fn merged_percentiles_come_from_merged_counts() {
        let server = |value: u64, count: u64, utilization, cores| {
            let counts = latency::from_counts([(latency::index_of(value), count)]);
            Totals {
                latency: Counts::decode(&latency::encode(&counts)),
                rps: Some(count as f64),
                utilization: Some(utilization),
                cores,
                ..Totals::default()
            }
        };
        let merged = Totals::merged([&server(1_000, 99, 1.0, 1), &server(100_000, 1, 0.0, 3), &Totals::default()]);
        let percentiles = merged.latency.unwrap().percentiles().unwrap();
        assert!(percentiles.p99 < 1_010 && percentiles.max >= 100_000, "{percentiles:?}");
        assert_eq!((merged.rps, merged.utilization), (Some(100.0), Some(0.25)));
    }

    #[test]
    fn a_server_that_tells_less_takes_nothing_from_what_the_others_tell() {
        let ours = Totals { cores: 4, utilization: Some(0.5), rss: 100, pss: Some(40), ..Totals::default() };
        let uwsgi = Totals { cores: 8, rss: 70, ..Totals::default() };
        let merged = Totals::merged([&ours, &uwsgi]);
        assert_eq!((merged.utilization, merged.cores), (Some(0.5), 12), "of the cores that it is known of");
        assert_eq!((merged.rss, merged.pss), (170, None), "resident memory is what all tell");
        assert_eq!(Totals::merged([&ours, &ours]).pss, Some(80));
    }
}
