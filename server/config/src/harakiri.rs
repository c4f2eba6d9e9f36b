//! When and how a request that has passed `harakiri` ends.

use serde::{Deserialize, Serialize};

use super::row::RECYCLING;
use super::row::{Kind, Row};
use Kind::{Limit, Number};

/// `--harakiri-graceful-*` and `--harakiri-queue-threshold`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HarakiriConfig {
    /// `--harakiri-graceful-timeout`: seconds from the signal to the worker's process until it is killed; `None` for no
    /// signal.
    pub graceful_timeout: Option<u32>,
    /// `--harakiri-graceful-signal`: the signal's number; 0 for none.
    pub graceful_signal: u32,
    /// `--harakiri-queue-threshold`: requests that must be waiting before a request is ended.
    pub queue_threshold: u32,
}

impl Default for HarakiriConfig {
    fn default() -> Self {
        Self { graceful_timeout: None, graceful_signal: 15, queue_threshold: 0 }
    }
}

#[rustfmt::skip]
pub(crate) static ROWS: &[Row] = &[
    Row { names: &["harakiri-graceful-timeout"], kind: Limit(|c| &mut c.harakiri_details.graceful_timeout), takes: "SECONDS",
          help: "Send the worker of a request past its harakiri a signal, and kill it only after this time", ..RECYCLING },
    Row { names: &["harakiri-graceful-signal"], kind: Number(|c| &mut c.harakiri_details.graceful_signal, 0..=31), takes: "NUMBER", default: "15",
          help: "The signal of harakiri-graceful-timeout, for a handler that the application has set", ..RECYCLING },
    Row { names: &["harakiri-queue-threshold"], kind: Number(|c| &mut c.harakiri_details.queue_threshold, 0..=1 << 20), takes: "N", default: "0",
          help: "End a request past its harakiri only while so many others wait", ..RECYCLING },
];
