//! `--stop` and `--reload`: signalling a running server through its pidfile. `--connect-and-read`: what it says.

use std::net::TcpStream;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::Path;

use anyhow::Context;
use nix::sys::signal::{Signal, kill};

use crate::pidfile;
use rwsgi_config::Order;
use rwsgi_stats::Address;

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

/// Writes what comes from `address` to standard output until that closes; returns the exit status.
///
/// # Errors
/// When nobody answers there.
pub(crate) fn read_from(address: &Address) -> anyhow::Result<i32> {
    let failed = || format!("connect-and-read: nothing to read from {address}");
    let mut stream: Box<dyn std::io::Read> = match address {
        Address::Unix(path) => Box::new(UnixStream::connect(path).with_context(failed)?),
        Address::Abstract(name) => {
            let name = SocketAddr::from_abstract_name(name).with_context(failed)?;
            Box::new(UnixStream::connect_addr(&name).with_context(failed)?)
        }
        Address::Tcp { host, port } => {
            let host = if host.is_empty() { "127.0.0.1" } else { host };
            Box::new(TcpStream::connect((host, *port)).with_context(failed)?)
        }
    };
    std::io::copy(&mut stream, &mut std::io::stdout()).with_context(failed)?;
    Ok(0)
}
