//! `--stop` and `--reload`: signalling a running server through its pidfile.

use std::path::Path;

use anyhow::Context;
use nix::sys::signal::{Signal, kill};

use crate::pidfile;
use rwsgi_config::Order;

/// Sends `order` to the server whose pidfile this is; returns the exit status.
///
/// # Errors
/// When there is no such server.
pub(crate) fn send(order: Order, path: &Path) -> anyhow::Result<i32> {
    let pid = pidfile::running(path)?;
    let signal = match order {
        // Not SIGTERM, which reloads when brutal-reload-on-term is set.
        Order::Stop => Signal::SIGINT,
        Order::Reload => Signal::SIGHUP,
    };
    kill(pid, signal).with_context(|| format!("cannot signal process {pid} of '{}'", path.display()))?;
    Ok(0)
}
