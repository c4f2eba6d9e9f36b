//! The control group (version 2) that the server runs in: a container's limits.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Limits and pressure of a control group.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Cgroup {
    /// Memory that the group uses and that the kernel cannot drop at once (`memory.current` without `inactive_file` of
    /// `memory.stat`, as Kubernetes counts it), bytes.
    pub memory: u64,
    /// The most that it may use (`memory.max`), bytes; absent when there is no limit. Where groups around it have lower limits,
    /// this is the lowest, and `memory` is of the group that has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_limit: Option<u64>,
    /// Processors that it may use (`cpu.max`: quota divided by period); absent when there is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpus: Option<f64>,
    /// Periods in which the group was stopped because its quota was used up (`cpu.stat`, `nr_throttled`).
    pub throttled: u64,
    /// For how long it was stopped so, µs.
    pub throttled_time: u64,
    /// Processes of the group that the kernel killed for want of memory (`memory.events`, `oom_kill`).
    pub oom_kills: u64,
    /// Time that work waited for processors (PSI).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_pressure: Option<Pressure>,
    /// Time that work waited for memory (PSI).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_pressure: Option<Pressure>,
    /// Time that work waited for disks (PSI).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub io_pressure: Option<Pressure>,
}

/// What the kernel's pressure stall information counts for one resource; both only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Pressure {
    /// Time in which at least one task waited, µs.
    pub some: u64,
    /// Time in which all tasks waited at once, µs.
    pub full: u64,
}
