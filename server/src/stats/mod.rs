//! The server's statistics: the scoreboard that workers write, the snapshot that is made of
//! it, and the servers that send it. No policy is here.

pub mod backlog;
pub mod cell;
mod drops;
pub mod generation_sums;
pub mod generations;
pub mod memory_sampler;
pub(crate) mod numbers;
pub mod request;
pub mod route_text;
pub mod routes;
pub mod scoreboard;
pub mod server;
pub mod snapshot;
pub mod spoolers;
pub mod state;
pub mod totals;
pub mod traces;
