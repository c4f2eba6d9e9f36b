//! `rwsgi`: serves a Python WSGI application from a pool of worker processes, and always knows how it is doing.
//!
//! The rooms and the ways between them are described in `docs/design.md`.

pub mod api;
pub mod clock;
mod companion;
pub mod config;
mod control;
pub mod daemon;
pub mod forkserver;
mod front;
pub mod ids;
pub mod master;
mod mule;
mod pidfile;
mod procname;
pub mod protocol;
mod python;
pub mod router;
mod run;
mod spooler;
pub mod stats;
pub mod worker;
pub mod wsgi;

pub use run::run;
