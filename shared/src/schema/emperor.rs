//! The vassals of an emperor, of `rwsgi` or of uWSGI.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A server that an emperor governs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Vassal {
    /// Name of its configuration.
    pub id: String,
    /// Process id.
    pub pid: i32,
    /// When its configuration had last changed as the emperor first saw it, unix seconds.
    pub born: u64,
    /// When its configuration last changed, unix seconds.
    pub last_mod: u64,
    /// When it was first started, unix seconds.
    pub first_run: u64,
    /// When it was last started or told to reload, unix seconds.
    pub last_run: u64,
    /// When it last reported, unix seconds.
    pub last_heartbeat: u64,
    /// When it was last ready, unix seconds.
    pub last_ready: u64,
    /// When it last took requests, unix seconds.
    pub last_accepting: u64,
    /// When it last reported that it is loyal, unix seconds.
    pub last_loyal: u64,
    /// 1 when it is ready.
    pub ready: u8,
    /// 1 when it takes requests.
    pub accepting: u8,
    /// 1 when it reported that it is loyal.
    pub loyal: u8,
    /// When it was found that it does not stay up, unix seconds; 0 while it does.
    pub cursed: u64,
    /// 1 when it was started to help another one.
    pub zerg: u8,
    /// The socket whose first connection starts it; empty when it runs at once.
    pub on_demand: String,
    /// User id that it runs as, in tyrant mode.
    pub uid: u32,
    /// Group id that it runs as, in tyrant mode.
    pub gid: u32,
    /// The directory (or other monitor) that it was found in.
    pub monitor: String,
    /// How often it was told to reload, for its configuration changed.
    pub respawns: u64,
}

/// A vassal that did not stay up, and waits for the next attempt to start it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Blacklisted {
    /// Name of its configuration.
    pub id: String,
    /// For how long it waits before the next attempt, ms.
    pub throttle_level: u64,
    /// How often it was tried to start it.
    pub attempt: u64,
    /// When that was first tried, unix seconds.
    pub first_attempt: u64,
    /// When that was last tried, unix seconds.
    pub last_attempt: u64,
}
