//! What was exported to OpenTelemetry.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the collector has taken since the start, and what was lost on the way to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct OtlpCounts {
    /// Traced requests that were exported.
    pub traces: u64,
    /// Traced requests that were dropped.
    pub traces_dropped: u64,
    /// Exports of metrics.
    pub metrics: u64,
    /// Exports of metrics that were dropped.
    pub metrics_dropped: u64,
    /// Lines of the log that were exported.
    pub logs: u64,
    /// Lines of the log that were dropped.
    pub logs_dropped: u64,
}
