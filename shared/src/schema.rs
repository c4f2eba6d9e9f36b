//! The stats document: every key that uWSGI 2.0 emits, with its type and unit, and what `rwsgi` adds.
//!
//! Keys that uWSGI does not send are `Option`s: always present from `rwsgi`, absent from uWSGI. Times are
//! microseconds where uWSGI's are and unix seconds where its are; every key of ours says its own unit. The JSON
//! Schema in `docs/` is made from these types and their comments.

mod application;
mod cgroup;
mod emperor;
mod generations;
mod otlp;
mod routes;
mod slow;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::application::*;
pub use self::cgroup::*;
pub use self::emperor::*;
pub use self::generations::*;
pub use self::otlp::*;
pub use self::routes::*;
pub use self::slow::*;

/// The version of this document's shape; it grows when a key changes its meaning or goes away.
pub const SCHEMA_VERSION: u32 = 1;

/// One snapshot of a whole server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Snapshot {
    /// Version of the server program.
    pub version: String,
    /// Connections that wait to be accepted, over all sockets, and requests in the http router's own queue.
    pub listen_queue: u64,
    /// Attempts to connect that were dropped because a socket's queue was full (a client that tries again counts again;
    /// TCP only: unix sockets make clients wait), and requests that the http router turned away. Where another program of the
    /// same network namespace drops some at the same time, they may be counted, too. Of TCP sockets that wait for a
    /// client's first byte, up to a second late.
    pub listen_queue_errors: u64,
    /// uWSGI signals that wait for the master.
    pub signal_queue: u64,
    /// Requests that wait and are worked on (uWSGI: those that wait).
    pub load: u64,
    /// Process id of the master.
    pub pid: i32,
    /// User id of the master.
    pub uid: u32,
    /// Group id of the master.
    pub gid: u32,
    /// Working directory of the master.
    pub cwd: String,
    /// Programs that run beside the server (`attach-daemon`), in the order of the configuration; left out when there are
    /// none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub daemons: Vec<Daemon>,
    /// Locks between processes, by name, each with the process that has it (0 for nobody): in `rwsgi` those of the
    /// application, in uWSGI also its own.
    pub locks: Vec<BTreeMap<String, i64>>,
    /// The sockets that requests arrive on.
    pub sockets: Vec<Socket>,
    /// The workers, in the order of their ids.
    pub workers: Vec<Worker>,
    /// The application's caches; left out when there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub caches: Vec<Cache>,
    /// The application's numbers (uWSGI: also its own), by name; left out when there are none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metrics: BTreeMap<String, Metric>,
    /// What is started at times of the calendar; left out when there is nothing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub crons: Vec<Cron>,
    /// Signals of the application that are raised every so often; left out when there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub timers: Vec<Timer>,
    /// The spooler processes; left out when there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub spoolers: Vec<Spooler>,
    /// An emperor: its vassals; left out by everything else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vassals: Option<Vec<Vassal>>,
    /// An emperor: the vassals that do not stay up, between two attempts; left out by everything else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub blacklist: Option<Vec<Blacklisted>>,
    /// An emperor: the directories (or other monitors) that it watches; left out by everything else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub emperor: Option<Vec<String>>,
    /// An emperor: 1 when vassals run as the owners of their configurations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub emperor_tyrant: Option<i64>,
    /// An emperor: for how long it does nothing because vassals do not stay up, ms; 0 while it does not wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttle_level: Option<u64>,

    /// Name of the server program: `rwsgi`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// Version of this document's shape.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<u32>,
    /// Name of the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// When the master started, unix µs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<u64>,
    /// When this snapshot was taken, unix µs, on a clock that never goes back: rates divide by its differences.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub now: Option<u64>,
    /// The generation (load of the application) that serves; it grows by one at each reload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<u32>,
    /// Version of the Python interpreter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub python: Option<String>,
    /// The queue before the workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<Queue>,
    /// Latency of every request since the start, all workers merged: HDR histogram in µs, V2 encoding, base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<String>,
    /// The limits in force, for marking what comes near them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// Temporary files: request bodies beyond `post-buffering`, and responses that wait for slow clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temp_files: Option<TempFiles>,
    /// Connections that were closed because the client was too slow (`body-min-rate`, `response-min-rate`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_clients: Option<u64>,
    /// The control socket's file; left out when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control: Option<String>,
    /// Requests by route, at most 201 rows; left out when routes are not counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub routes: Option<Vec<Route>>,
    /// How long the phases of requests took; left out when that is not measured.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phases: Option<Phases>,
    /// Requests that took longer than `slow-request`, the newest first, at most 200; left out when it is not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow: Option<Vec<SlowRequest>>,
    /// The last generations, the newest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generations: Option<Vec<Generation>>,
    /// The reload that is tried; left out when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
    /// Whether the server wants new requests: the application is loaded, a worker accepts, and the server was not told to stop
    /// and is not saturated (`/-/ready`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready: Option<bool>,
    /// Whether the server was told to stop: it still accepts (`drain-delay`), or finishes what it has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub draining: Option<bool>,
    /// Reloads since the start, by outcome.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reloads: Option<Reloads>,
    /// The server's control group: its limits and how near they are; left out where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cgroup: Option<Cgroup>,
    /// What was exported to OpenTelemetry since the start; left out when nothing is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp: Option<OtlpCounts>,
}

/// A socket that requests arrive on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Socket {
    /// The address it is bound to.
    pub name: String,
    /// `http` or `uwsgi`.
    pub proto: String,
    /// Connections that wait to be accepted.
    pub queue: u64,
    /// The most that may wait.
    pub max_queue: u64,
    /// uWSGI's shared-socket number.
    pub shared: i64,
    /// uWSGI: whether the socket can be offloaded.
    pub can_offload: i64,
}

/// A worker process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Worker {
    /// The worker's number, from 1; uWSGI sends 0 for one that never ran.
    pub id: u32,
    /// Process id, 0 when there is no process.
    pub pid: i32,
    /// 1 when it takes new requests.
    pub accepting: u8,
    /// Requests completed by this worker since the server started, by all its processes.
    pub requests: u64,
    /// Requests completed by its present process.
    pub delta_requests: u64,
    /// Requests in which the application raised an exception.
    pub exceptions: u64,
    /// Requests that were ended for running too long.
    pub harakiri_count: u64,
    /// uWSGI signals handled.
    pub signals: u64,
    /// uWSGI signals waiting.
    pub signal_queue: u64,
    /// `idle`, `busy`, `cheap`, `pause`, or `sig` and a number.
    pub status: String,
    /// Resident memory, bytes. Of a process that does not run, read once a second.
    pub rss: u64,
    /// Address space, bytes.
    pub vsz: u64,
    /// Time spent in completed requests since the server started, µs, summed over cores.
    pub running_time: u64,
    /// When the process started, unix seconds.
    pub last_spawn: u64,
    /// How often a process was started for this worker.
    pub respawn_count: u64,
    /// Bytes sent to clients, heads included.
    pub tx: u64,
    /// uWSGI's moving average of the response time, µs: half the last request, half the average before it.
    pub avg_rt: u64,
    /// The applications that it serves.
    pub apps: Vec<App>,
    /// Its cores (threads).
    pub cores: Vec<Core>,

    /// The generation (load of the application) that it serves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<u32>,
    /// Time in requests since the server started, µs, summed over cores, the ones in progress included. Monotonic:
    /// utilization is its difference divided by the time between and the number of cores.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub busy_time: Option<u64>,
    /// Processor time (user and system) of all its processes, µs. Monotonic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_time: Option<u64>,
    /// Time that its threads waited for Python's global lock, µs; 0 where it has none. Monotonic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gil_wait: Option<u64>,
    /// For how long its process has shown no sign of life (it is stopped, or does not begin with a request that it was sent),
    /// µs; 0 while it responds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unresponsive_for: Option<u64>,
    /// Resident memory with shared pages divided among those who share them, bytes; read less often than `rss`, and 0 until
    /// the document after the first that was asked for since the process started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pss: Option<u64>,
    /// Memory that only this process has, bytes; read when `pss` is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uss: Option<u64>,
    /// The most resident memory that its present process was seen to have, bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rss_peak: Option<u64>,
    /// Responses by class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub responses: Option<Responses>,
    /// How often its process ended, by reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recycled: Option<Recycled>,
    /// Latency of every request since the server started: HDR histogram in µs, V2 encoding, base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<String>,
    /// The last exception that the application raised; null when it never did.
    pub last_exception: Option<LastException>,
    /// Python's garbage collections; left out when they are not counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gc: Option<GarbageCollections>,
}

/// An application in a worker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct App {
    /// The application's number, from 0.
    pub id: u32,
    /// uWSGI's language plugin number; 0 is Python.
    pub modifier1: u32,
    /// URL prefix that it is mounted on.
    pub mountpoint: String,
    /// Time to load it, seconds.
    pub startup_time: u64,
    /// Requests that it completed.
    pub requests: u64,
    /// Requests in which it raised an exception.
    pub exceptions: u64,
    /// Directory that it was loaded in.
    pub chdir: String,
}

/// A core: one thread of a worker, which serves one request at a time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Core {
    /// The core's number in its worker, from 0.
    pub id: u32,
    /// Requests completed.
    pub requests: u64,
    /// Static files served.
    pub static_requests: u64,
    /// uWSGI's routed requests.
    pub routed_requests: u64,
    /// uWSGI's offloaded requests.
    pub offloaded_requests: u64,
    /// Responses that could not be sent whole.
    pub write_errors: u64,
    /// Requests that could not be read whole.
    pub read_errors: u64,
    /// 1 while it is in a request.
    pub in_request: u8,
    /// The request in progress as `NAME=value`, without its secrets.
    pub vars: Vec<String>,
    /// The request in progress; empty when there is none.
    pub req_info: RequestInfo,
}

/// The request that a core is working on. Every key is absent when there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RequestInfo {
    /// When it started, unix seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_start: Option<u64>,
    /// HTTP method.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Request target, without the values of its query.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// Client address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_addr: Option<String>,
    /// `HTTP/1.0` or `HTTP/1.1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// When it started, unix µs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<u64>,
    /// For how long it has run, µs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub elapsed: Option<u64>,
    /// Its route, as in `routes`, as far as it is known before its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<String>,
}

/// The queue before the workers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Queue {
    /// Requests and connections that wait now.
    pub depth: u64,
    /// The most that may wait, over all sockets.
    pub capacity: u64,
    /// How long requests waited in the http router: HDR histogram in µs, V2 encoding, base64.
    pub waiting: String,
    /// Attempts to connect and requests turned away because a queue was full.
    pub rejected: u64,
}

/// Reloads of the application by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Reloads {
    /// The new generation serves.
    pub done: u64,
    /// The new generation did not load; the one before it serves on.
    pub failed: u64,
}

/// Responses by class of status code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Responses {
    /// Informational.
    #[serde(rename = "1xx")]
    pub informational: u64,
    /// Successful.
    #[serde(rename = "2xx")]
    pub success: u64,
    /// Redirections and not modified.
    #[serde(rename = "3xx")]
    pub redirect: u64,
    /// The client's errors.
    #[serde(rename = "4xx")]
    pub client_error: u64,
    /// The server's errors.
    #[serde(rename = "5xx")]
    pub server_error: u64,
}

/// How often a worker's process ended, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Recycled {
    /// It had served as many requests as it may.
    pub max_requests: u64,
    /// Its resident memory passed `reload-on-rss`.
    pub rss: u64,
    /// Its address space passed `reload-on-as`.
    #[serde(rename = "as")]
    pub address_space: u64,
    /// It had run for `max-worker-lifetime`.
    pub lifetime: u64,
    /// A request ran longer than `harakiri`.
    pub harakiri: u64,
    /// It died: a signal, or an exit that nobody asked for.
    pub crash: u64,
    /// A newer generation replaced it.
    pub reload: u64,
    /// It had nothing to do.
    pub idle: u64,
}

/// The last exception that an application raised.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct LastException {
    /// Class name.
    #[serde(rename = "type")]
    pub kind: String,
    /// Its text, cut to a few hundred bytes, without the values of queries in URLs.
    pub message: String,
    /// File, line and function of the innermost frame.
    #[serde(rename = "where")]
    pub location: String,
    /// Head of the traceback: file, line and function of the innermost frames, at most five, the innermost first.
    pub traceback: Vec<String>,
    /// When, unix µs.
    pub when: u64,
    /// Method and URI of the request, without the values of its query.
    pub request: String,
}

/// The limits in force; 0 means that there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Limits {
    /// A request may run this long, seconds.
    pub harakiri: u64,
    /// A worker is replaced above this resident memory, bytes.
    pub reload_on_rss: u64,
    /// A worker is replaced above this address space, bytes.
    pub reload_on_as: u64,
    /// A worker is replaced after this many requests.
    pub max_requests: u64,
    /// A request that takes longer is slow (`slow-request`), µs.
    pub slow_request: u64,
}

/// The temporary files of all processes together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct TempFiles {
    /// The directory that they are in.
    pub dir: String,
    /// What they hold now, bytes, rounded up in steps.
    pub bytes: u64,
    /// The most that they may hold (`temp-size`), bytes; 0 means that there is no limit.
    pub limit: u64,
    /// Request bodies that got 503 because there was no space for them.
    pub refused: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_core_s_request_is_an_empty_object_as_uwsgi_writes_it() {
        let core = serde_json::to_value(Core::default()).unwrap();
        assert_eq!(core["req_info"], serde_json::json!({}));
        assert_eq!(core["vars"], serde_json::json!([]));
    }

    #[test]
    fn keys_that_are_not_known_yet_are_passed_over() {
        let snapshot: Snapshot = serde_json::from_str(r#"{"version":"9","workers":[{"id":3,"new":1}]}"#).unwrap();
        assert_eq!(snapshot.workers[0].id, 3);
        assert_eq!(snapshot.latency, None);
    }
}
