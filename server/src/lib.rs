//! `rwsgi`: serves a Python WSGI application from a pool of worker processes, and always knows how it is doing.
//!
//! The architecture is described in `docs/design.md`.

mod api;
mod auxiliary;
pub mod clock;
mod control;
pub mod daemon;
mod descriptor;
pub mod forkserver;
mod http_router;
pub mod ids;
mod io;
pub mod ipc;
pub mod master;
mod pidfile;
pub mod process_setup;
pub mod procfs;
mod procname;
mod python;
pub mod router;
mod run;
mod share;
pub mod shared_memory;
mod spooler;
pub mod stats;
pub mod worker;
pub mod wsgi;

pub use run::run;
