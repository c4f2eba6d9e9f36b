//! `rwsgi`: serves a Python WSGI application from a pool of worker processes, and always knows how it is doing.
//!
//! The architecture is described in `docs/design.md`.

mod api;
mod auxiliary;
mod cgroup;
pub mod clock;
mod container;
mod ctl;
mod daemon;
mod descriptor;
mod emperor;
mod fork;
mod forkserver;
mod give_back;
mod hooks;
mod http_router;
mod identity;
pub mod ids;
mod io;
mod ipc;
mod local_time;
mod log_limit;
mod log_text;
mod loggers;
mod master;
mod orders;
mod owned_file;
mod pidfile;
mod process_setup;
mod procfs;
mod procname;
mod python;
mod router;
mod run;
mod share;
mod shared_memory;
mod spooler;
mod stacks;
pub mod stats;
mod system_limits;
mod tls;
mod unused_python;
mod vassal;
mod without_python;
mod worker;
pub mod wsgi;

pub use master::launcher::Launcher;
pub use run::run;
