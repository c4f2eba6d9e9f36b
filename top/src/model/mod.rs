//! From snapshots to what is shown: differences, rates, windows, percentiles, history.
//!
//! Nothing here draws, and nothing here opens a socket: a model is fed [`Sample`](crate::source::Sample)s and asked.

mod alerts;
pub(crate) mod columns;
mod history;
mod latency;
mod memory;
mod pack;
mod pool;
mod reading;
mod walk;

pub(crate) use alerts::{Alert, Thresholds, alerts};
pub(crate) use history::{HEAT_ROWS, History, Point, heat_floor};
pub(crate) use latency::{Counts, Percentiles};
pub(crate) use memory::{MemoryPoint, MemoryTrack};
pub(crate) use pool::Pool;
pub(crate) use reading::{Rates, Reading, Status, Totals, status_of};
