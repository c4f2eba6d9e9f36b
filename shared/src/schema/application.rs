//! What the application asks of the server, and what runs beside it: caches, metrics, crons, timers, spoolers, programs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A cache of the application's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Cache {
    /// By which the application calls it.
    pub name: String,
    /// How keys are hashed.
    pub hash: String,
    /// Number of chains of the hash table.
    pub hashsize: u64,
    /// Length of the longest key, bytes.
    pub keysize: u64,
    /// How many items it holds.
    pub max_items: u64,
    /// Blocks that values are kept in.
    pub blocks: u64,
    /// Size of a block, bytes.
    pub blocksize: u64,
    /// Items in it (uWSGI counts one more).
    pub items: u64,
    /// Lookups that found an item.
    pub hits: u64,
    /// Lookups that found no item.
    pub miss: u64,
    /// Items that were not stored because the cache was full.
    pub full: u64,
    /// When it was changed last, unix seconds (uWSGI: only with `lastmod`).
    pub last_modified_at: u64,
}

/// A number that the application keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Metric {
    /// 0 for a counter, 1 for a gauge, 2 for an absolute number, 3 for an alias.
    #[serde(rename = "type")]
    pub kind: u8,
    /// Its number for SNMP.
    pub oid: String,
    /// Its value.
    pub value: i64,
}

/// Something that is started at times of the calendar: -1 stands for each, -5 for those that 5 divides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Cron {
    /// 0 to 59.
    pub minute: i32,
    /// 0 to 23.
    pub hour: i32,
    /// 1 to 31.
    pub day: i32,
    /// 1 to 12.
    pub month: i32,
    /// 0 to 7: 0 and 7 are Sunday.
    pub week: i32,
    /// The command line, or (`rwsgi` alone) `signal` and the number of the application's signal that is raised.
    pub command: String,
    /// 1 when it is not started while it still runs.
    pub unique: u8,
    /// Process id of the command that was started last, -1 when none runs.
    pub pid: i32,
    /// When the command that runs was started, or when the signal was raised last, unix seconds; 0 for none.
    pub started_at: u64,
    /// How often it was started or raised.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raised: Option<u64>,
    /// uWSGI alone: the legion whose lord starts it, empty when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub legion: Option<String>,
}

/// A program that runs beside the server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Daemon {
    /// The command line.
    pub cmd: String,
    /// Process id, 0 when it does not run.
    pub pid: i32,
    /// How often it was started again (uWSGI: always 0).
    pub respawns: u64,
    /// `running`, `starting` until its pidfile names it, or `waiting` between its end and the next start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// When this server started it last, unix seconds; 0 for never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<u64>,
}

/// A signal of the application that is raised every so often.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Timer {
    /// The signal's number.
    pub signal: u8,
    /// How often it is raised: the interval, seconds.
    pub seconds: u32,
    /// After how many times it ends; 0 for never.
    pub times: u32,
    /// How often it was raised.
    pub raised: u64,
    /// When it was raised last, unix seconds; 0 for never.
    pub last: u64,
}

/// A spooler process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Spooler {
    /// The directory that it takes jobs from.
    pub dir: String,
    /// Process id, 0 when there is no process.
    pub pid: i32,
    /// Jobs that its present process has run, whatever came of them.
    pub tasks: u64,
    /// How often its process was started again.
    pub respawns: u64,
    /// 1 while it runs a job.
    pub running: u8,

    /// Jobs that wait in the directory (which other spoolers may share), those included that may not run yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<u64>,
    /// How long ago the oldest job in the directory was queued, µs; 0 when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oldest_age: Option<u64>,
    /// Jobs done since the server started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub done: Option<u64>,
    /// Runs since the server started whose function wanted the job to be tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retried: Option<u64>,
    /// Runs since the server started that ended with an exception, or with the process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed: Option<u64>,
    /// How long jobs ran, since the server started: HDR histogram in µs, V2 encoding, base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_time: Option<String>,
    /// The job that it runs; left out when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub job: Option<SpoolerJob>,
}

/// A job that a spooler runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct SpoolerJob {
    /// Its file, relative to the spooler's directory.
    pub name: String,
    /// When it began, unix µs.
    pub started: u64,
    /// For how long it has run, µs.
    pub elapsed: u64,
}
