//! Slow requests, and the phases of all.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How long the phases of requests took: HDR histograms in µs, V2 encoding, base64, all workers merged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Phases {
    /// Waiting before a thread took the request: by the client's proxy (`X-Request-Start`) or the http router's clock.
    pub queue: String,
    /// Reading the body.
    pub body: String,
    /// Waiting for Python's global lock before the application was called.
    pub gil: String,
    /// In the application, which includes what it writes itself, and sending less than 16 kB without a wait.
    pub application: String,
    /// Sending what the application has returned, and waiting for the client.
    pub write: String,
}

/// How long the phases of one request took, µs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct PhaseTimes {
    /// Waiting before a thread took it.
    pub queue: u64,
    /// Reading the body.
    pub body: u64,
    /// Waiting for Python's global lock before the application was called.
    pub gil: u64,
    /// In the application.
    pub application: u64,
    /// Sending what the application has returned, and waiting for the client.
    pub write: u64,
}

/// A request that took longer than `slow-request`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct SlowRequest {
    /// Counts from 1 since the server started; a monitor knows by it what it has seen. Numbers are passed over when more
    /// ended at once than the server could take.
    pub id: u64,
    /// The worker.
    pub worker: u32,
    /// Its core.
    pub core: u32,
    /// Its process.
    pub pid: i32,
    /// The generation that served it.
    pub generation: u32,
    /// When it started, unix µs.
    pub started: u64,
    /// How long it took, µs.
    pub elapsed: u64,
    /// HTTP method.
    pub method: String,
    /// Request target, without the values of its query.
    pub uri: String,
    /// Its route, as in `routes`; empty when routes are not counted.
    pub route: String,
    /// Client address.
    pub remote_addr: String,
    /// Status code; 0 when none was sent.
    pub status: u16,
    /// `done`, `harakiri`, or `died` when its process did.
    pub outcome: String,
    /// Where its time went.
    pub phases: PhaseTimes,
    /// Where its thread was when the threshold had passed: file, line and function, the innermost first; empty when the
    /// stack could not be taken.
    pub stack: Vec<String>,
    /// When the stack was taken, µs after the start.
    pub stack_at: u64,
    /// Resident memory of the process when the stack was taken, bytes; 0 when unknown.
    pub rss_before: u64,
    /// Resident memory of the process at the end, bytes; 0 when unknown.
    pub rss_after: u64,
    /// What the application raised; empty for nothing.
    pub exception: String,
}

/// Python's garbage collections in a worker, counted when `gc-stats` is on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct GarbageCollections {
    /// Collections since the server started.
    pub collections: u64,
    /// Time in them, µs.
    pub time: u64,
    /// The longest, µs.
    pub longest: u64,
    /// Objects that they freed.
    pub collected: u64,
    /// Collections by Python's generation of objects, the youngest first.
    pub by_generation: [u64; 3],
}
