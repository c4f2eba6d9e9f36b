//! What a server of a fleet says in one answer: the counters that a row is made of.

use std::sync::Arc;

use crate::source::Monotonic;
use rwsgi_assertions::Counts;

/// One answer of one server. Counters are since the server's start, over all its workers.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ServerSample {
    /// When the answer was there.
    pub(crate) at: Monotonic,
    /// By the server's clock, unix µs; uWSGI does not tell.
    pub(crate) now: Option<u64>,
    /// Which run of the server it is of, and what that says of itself.
    pub(crate) run: Arc<Run>,
    /// The generation that serves; uWSGI does not tell.
    pub(crate) generation: Option<u32>,
    /// Its workers serve more than one generation: it is being reloaded, or that hangs.
    pub(crate) mixed_generations: bool,
    /// Whether it wants new requests; `None` when it does not tell.
    pub(crate) ready: Option<bool>,
    /// Whether it finishes what it has, to stop; `None` when it does not tell.
    pub(crate) draining: Option<bool>,
    /// Requests completed.
    pub(crate) requests: u64,
    /// Requests that raised.
    pub(crate) exceptions: u64,
    /// Responses by status: from 400 to 499, and 500 or more; uWSGI does not tell.
    pub(crate) failed: Option<[u64; 2]>,
    /// Requests ended for running too long.
    pub(crate) harakiri: u64,
    /// Processes started beyond each worker's first.
    pub(crate) respawns: u64,
    /// Bytes sent.
    pub(crate) tx: u64,
    /// Time in completed requests, µs.
    pub(crate) running_time: u64,
    /// Time in requests, those in progress included, µs; uWSGI does not tell.
    pub(crate) busy_time: Option<u64>,
    /// Processor time of its workers, µs; uWSGI does not tell.
    pub(crate) cpu_time: Option<u64>,
    /// Latencies; uWSGI does not tell.
    pub(crate) latency: Option<Latency>,
    /// Workers that have a process.
    pub(crate) workers: u32,
    /// Threads of those.
    pub(crate) threads: u32,
    /// Threads in a request.
    pub(crate) busy_threads: u32,
    /// Connections and requests that wait.
    pub(crate) waiting: u64,
    /// The most that may wait; 0 when it is not known.
    pub(crate) capacity: u64,
    /// Turned away because a queue was full.
    pub(crate) rejected: u64,
    /// Resident memory of all workers, bytes; 0 when the server does not tell.
    pub(crate) rss: u64,
    /// The most of any one worker, bytes.
    pub(crate) rss_max: u64,
    /// Memory with shared pages divided, bytes; `None` when it is not known of every process.
    pub(crate) pss: Option<u64>,
}

/// What stays as it is while a server runs; samples share it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Run {
    /// Whether it is `rwsgi`; otherwise uWSGI.
    pub(crate) is_rwsgi: bool,
    /// Version of the program.
    pub(crate) version: String,
    /// Name of the machine, where the server tells.
    pub(crate) hostname: Option<String>,
    /// Process id of the master.
    pub(crate) pid: i32,
    /// When the master started, unix µs; uWSGI does not tell.
    pub(crate) started_at: Option<u64>,
}

/// Latencies since a server's start. Samples in which no request was completed share one.
pub(crate) type Latency = Arc<Counts>;

impl ServerSample {
    /// Busy threads and what waits, by threads, as `rwsgi_stats::saturation`; `None` without threads.
    pub(crate) fn saturation(&self) -> Option<f64> {
        let busy = u64::from(self.busy_threads).saturating_add(self.waiting);
        (self.threads > 0).then(|| busy as f64 / f64::from(self.threads))
    }
}
