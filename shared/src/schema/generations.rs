//! What each generation (load of the application) has done, to be set beside the one before.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Responses;

/// A generation. The last few are kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Generation {
    /// Its number.
    pub generation: u32,
    /// `serving`, `canary` while it is tried beside the one that serves, `past`, or `undone` when the canary was taken back.
    pub state: String,
    /// When it was loaded, unix µs.
    pub started_at: u64,
    /// Its living worker processes, without those that are drained.
    pub workers: u32,
    /// Requests completed.
    pub requests: u64,
    /// Requests in which the application raised an exception.
    pub exceptions: u64,
    /// Responses by class.
    pub responses: Responses,
    /// Time in completed requests, µs.
    pub running_time: u64,
    /// Latency of its requests: HDR histogram in µs, V2 encoding, base64.
    pub latency: String,
    /// Memory of its processes, bytes: shared pages are divided among those who share them. Of a past generation, the last
    /// that was seen.
    pub pss: u64,
    /// How many processes that memory is of.
    pub pss_workers: u32,
    /// Exceptions by class name, the most frequent first, at most 20.
    pub errors: Vec<ErrorCount>,
    /// The routes with most of its time, at most 20.
    pub routes: Vec<GenerationRoute>,
}

/// How often an exception was raised.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct ErrorCount {
    /// Class name.
    #[serde(rename = "type")]
    pub kind: String,
    /// How often.
    pub count: u64,
}

/// A route in a generation.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct GenerationRoute {
    /// As in `routes`.
    pub route: String,
    /// Requests completed.
    pub requests: u64,
    /// Time in completed requests, µs.
    pub busy_time: u64,
    /// Latency: HDR histogram in µs, V2 encoding, base64.
    pub latency: String,
}

/// A reload that is tried on a few workers first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Canary {
    /// The new generation.
    pub generation: u32,
    /// How many workers serve it.
    pub workers: u32,
    /// When it began to serve, unix µs; 0 until then.
    pub started_at: u64,
    /// When it is taken back unless it was kept before, unix µs; 0 until it serves.
    pub until: u64,
}
