//! What is known of the server, and how it is told: the scoreboard that workers write, the snapshot that is made of
//! it, and the servers that send it. No policy lives here.

pub mod ahead;
pub mod backlog;
pub mod cell;
pub mod footprint;
pub mod memory;
pub mod metrics;
pub mod request;
pub mod scoreboard;
pub mod server;
mod shared_metrics;
pub mod snapshot;
pub mod spooler_cell;
mod spooler_metrics;
pub mod spoolers;
pub mod totals;

// For those who import it from here yet.
pub use crate::clock;
