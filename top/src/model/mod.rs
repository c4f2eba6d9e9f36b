//! From snapshots to what is shown: differences, rates, windows, percentiles, history.
//!
//! Nothing here draws, and nothing here opens a socket: a model is fed [`Poll`](crate::source::Poll)s and asked.

mod alerts;
mod beside;
mod clean;
pub(crate) mod columns;
pub(crate) mod fields;
mod findings;
pub(crate) mod flame;
pub(crate) mod fleet;
mod generations;
mod history;
pub(crate) mod hot;
mod lists;
mod memory;
pub(crate) mod outliers;
mod pack;
mod pool;
mod routes;
mod sample;
mod servers;
mod slow;
mod spoolers;
pub(crate) mod threads;
mod walk;

pub(crate) use alerts::{Alert, Thresholds, alerts};
pub(crate) use beside::beside;
pub(crate) use findings::{AskRoom, Finding, RULES};
pub(crate) use generations::Generations;
pub(crate) use history::{HEAT_ROWS, History, Point, heat_floor};
pub(crate) use lists::{List, Mark, servers, vassals};
pub(crate) use memory::{LARGEST, MOST_LINES, MemoryPoint, MemoryTrack, Slope};
pub(crate) use pool::Pool;
pub(crate) use routes::{RouteRow, RouteWindow, routes, running};
pub(crate) use rwsgi_assertions::{Counts, Percentiles};
pub(crate) use sample::{Rates, Sample, Status, Totals, status_of};
pub(crate) use servers::{FleetTotals, SERVER_FIELDS, ServerRow, server_list, server_rows, share};
pub(crate) use slow::{PHASES, PhaseCounts, SlowLog, phase_times};
pub(crate) use spoolers::spoolers;
