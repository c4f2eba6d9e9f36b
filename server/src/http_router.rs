//! The http router as a process: takes what the master gives it and runs the router.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;

use anyhow::Context;

use crate::hooks::{self, EXIT_HOOK_FAILED};
use crate::io::pass_fd::receive_fd;
use crate::ipc::Setup;
use crate::ipc::first::receive_first;
use crate::ipc::inherit::InheritedFd;
use crate::log_text;
use crate::process_setup::{ignore_terminal_signals, limit_address_space};
use crate::procname;
use crate::router::{self, Limits, ListenOptions, RouterConfig};
use crate::stats::scoreboard::Scoreboard;
use crate::system_limits;
use rwsgi_config::hooks::Phase;

/// Runs the router until the master stops it; returns the exit status of the process.
///
/// # Errors
/// When what was inherited cannot be used.
pub(crate) fn run(mut channel: InheritedFd) -> anyhow::Result<i32> {
    let channel = channel.take()?;
    let mut setup: Setup = receive_first(channel.as_fd())
        .context("http router: cannot read its setup from the master")?
        .context("http router: the master is gone")?;
    let _ = nix::sys::prctl::set_name(c"rwsgi http");
    procname::set(&procname::title(&setup.config.procname, "rwsgi http 1"));
    log_text::begin_with(&setup.config.logs.date);
    ignore_terminal_signals()?;
    let mut certificates = None;
    if setup.has_certificates {
        // The application runs as the same user, and could read the keys in this process's memory and descriptors.
        nix::sys::prctl::set_dumpable(false).context("http router: cannot protect its memory")?;
        let file = receive_fd(&channel).context("http router: cannot receive the certificates")?;
        // Without them, what is for TLS must not be served as plain HTTP.
        certificates = Some(File::from(file.context("http router: the master is gone")?));
    }
    limit_address_space(&setup.config)?;
    system_limits::lock_memory(&setup.config.system);
    if setup.config.hooks.has(Phase::AsGateway) {
        // Not for its commands.
        setup.descriptors().try_for_each(InheritedFd::close_on_exec)?;
    }
    if let Err(failure) = hooks::run(Phase::AsGateway, &mut setup.config) {
        tracing::error!("http router: {failure:#}");
        return Ok(EXIT_HOOK_FAILED);
    }
    let scoreboard = Arc::new(
        Scoreboard::map(setup.layout, setup.scoreboard.take()?).context("http router: cannot map the scoreboard")?,
    );
    let board = Arc::clone(&scoreboard);
    log_text::follow_level(move || board.limits().log_level());
    // For the workers alone: a pipe that the router held open would never end.
    drop(setup.notices.take()?);
    drop(setup.request_log.as_mut().map(InheritedFd::take).transpose()?);
    let listeners = setup.listeners.iter_mut().map(|listener| Ok((listener.fd.take()?, listener.address.clone())));
    let router = RouterConfig {
        listeners: listeners.collect::<anyhow::Result<_>>()?,
        listen_options: ListenOptions::all(&setup.config),
        certificates,
        link_listener: setup.link_listener.as_mut().context("http router: no link listener")?.take()?,
        token: setup.link.as_ref().context("http router: no link endpoint")?.token,
        orders: channel,
        liveness: setup.liveness.take()?,
        limits: Limits::new(&setup.config),
        temp: setup.temp,
    };
    router::run(router, &scoreboard)?;
    Ok(0)
}
