//! What is known of the server, and how it is told: the scoreboard that workers write, the snapshot that is made of
//! it, and the servers that send it. No policy lives here.

pub mod backlog;
pub mod cell;
pub mod memory_sampler;
pub mod metrics;
pub mod request;
pub mod scoreboard;
pub mod server;
pub mod snapshot;
pub mod spoolers;
pub mod state;
pub mod totals;
