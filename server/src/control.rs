//! `--stop` and `--reload`: telling a running server something through its pidfile.

use std::ffi::CStr;
use std::path::Path;

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::config::Order;

/// The name that a master has in `/proc`; a process id in a stale pidfile is another program's by now.
pub(crate) const MASTER_NAME: &CStr = c"rwsgi master";

/// Sends `order` to the server whose pidfile this is; returns the exit status.
///
/// # Errors
/// When there is no such server.
pub(crate) fn send(order: Order, pidfile: &Path) -> anyhow::Result<i32> {
    let path = pidfile.display();
    let text = std::fs::read_to_string(pidfile).with_context(|| format!("cannot read the pidfile '{path}'"))?;
    let pid: i32 = match text.trim().parse() {
        Ok(pid) if pid > 1 => pid,
        _ => bail!("'{path}' is no pidfile: it should hold a process id alone"),
    };
    match std::fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(name) if name.trim_end().as_bytes() == MASTER_NAME.to_bytes() => {}
        Ok(name) => bail!("the pidfile '{path}' is stale: process {pid} is '{}', not a rwsgi master", name.trim_end()),
        Err(_) => bail!("the pidfile '{path}' is stale: there is no process {pid}"),
    }
    let signal = match order {
        Order::Stop => Signal::SIGTERM,
        Order::Reload => Signal::SIGHUP,
    };
    kill(Pid::from_raw(pid), signal).with_context(|| format!("cannot signal process {pid} of '{path}'"))?;
    Ok(0)
}
