//! `rwsgi`: serves a Python WSGI application from a pool of worker processes, and always knows how it is doing.
//!
//! The rooms and the ways between them are described in `docs/design.md`.

pub mod config;
pub mod protocol;
pub mod stats;
