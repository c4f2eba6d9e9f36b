//! The fork server: one per generation. It loads Python and the application once, and forks workers, and the
//! auxiliary processes beside them, when the master orders it. The master starts it by exec, so that no import, leak or
//! crash can reach the master. A worker can fork the next one, which shares what the application has cached.
//!
//! Not for: serving (that is the worker's), or deciding when to fork (the master's).

mod other_threads;

use std::mem;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use pyo3::{Py, PyAny, Python};
use rustix::event::PollFlags;
use tracing::{error, info, warn};

use crate::api::{self, here};
use crate::auxiliary;
use crate::fork::{Forked, fork_announced};
use crate::give_back;
use crate::hooks;
use crate::io::wait::until_ready;
use crate::ipc::first::receive_first;
use crate::ipc::inherit::InheritedFd;
use crate::ipc::{Answer, Order, Role, Setup, receive_message, send_message};
use crate::log_text;
use crate::process_setup::{EXIT_NO_APP, ignore, ignore_terminal_signals, limit_address_space};
use crate::procname;
use crate::share::PeerQueue;
use crate::stacks;
use crate::stats::scoreboard::Scoreboard;
use crate::system_limits;
use crate::worker::{self, Next, NextForkServer};
use crate::wsgi::{application, interpreter, threads};
use rwsgi_config::hooks::Phase;

/// After this time without an order there is probably no further one soon.
const QUIET: Duration = Duration::from_secs(1);

/// Serves one generation's forks until the master closes `channel`. In a forked process, does its work instead.
/// Returns the exit status of the process.
///
/// # Errors
/// When what was inherited cannot be used, or the channel breaks.
pub(crate) fn run(mut channel: InheritedFd) -> anyhow::Result<i32> {
    let channel = channel.take()?;
    let mut setup: Setup = receive_first(channel.as_fd())
        .context("fork server: cannot read its setup from the master")?
        .context("fork server: the master is gone")?;
    log_text::begin_with(&setup.config.logs.date);
    ignore_terminal_signals()?;
    // A supervisor that stops the whole group means the master, which stops this process in its own time.
    ignore(&[Signal::SIGTERM])?;
    limit_address_space(&setup.config)?;
    system_limits::lock_memory(&setup.config.system);
    let _ = nix::sys::prctl::set_name(c"rwsgi forksrv");
    let generation = setup.generation.context("fork server: the master has not said which generation it is")?;
    let title = format!("rwsgi forkserver {generation}");
    procname::set(&procname::title(&setup.config.procname, &title));
    let memory = setup.scoreboard.take()?;
    let scoreboard = Scoreboard::map(setup.layout, memory).context("fork server: cannot map the scoreboard")?;
    interpreter::start(setup.config.home.as_deref())?;
    Python::attach(|py| {
        // The workers' sockets must not leak into programs that the application starts while it is loaded.
        for listener in &setup.listeners {
            listener.fd.close_on_exec()?;
        }
        let inherited = [&setup.liveness, &setup.notices, &setup.stacks];
        for fd in inherited.into_iter().chain(&setup.request_log).chain(&setup.routes).chain(&setup.traces) {
            fd.close_on_exec()?;
        }
        serve_forks(py, channel, setup, scoreboard)
    })
}

fn serve_forks(py: Python<'_>, channel: OwnedFd, mut setup: Setup, scoreboard: Scoreboard) -> anyhow::Result<i32> {
    let started = Instant::now();
    interpreter::prepare(py, &setup.config)?;
    here::settle(&mut setup, &scoreboard)?;
    api::install(py, &setup)?;
    let listeners = setup.listeners.iter().map(|listener| listener.fd.number());
    let peers = here::server().and_then(|server| server.share.peers.as_ref()).map(PeerQueue::numbers);
    let held = listeners
        .chain(peers.into_iter().flatten())
        .chain([setup.liveness.number(), setup.notices.number(), channel.as_raw_fd()])
        .collect();
    worker::release::release_in_early_children(py, held)?;
    if setup.again
        && let Err(failure) = hooks::run_again(py, &setup.config)
    {
        return hook_failed(&channel, &failure);
    }
    for module in &setup.config.shared_import {
        interpreter::import(py, module);
    }
    let application = if setup.config.lazy_apps {
        None
    } else {
        if let Err(failure) = hooks::run_in_python(py, Phase::PreApp, &setup.config) {
            return hook_failed(&channel, &failure);
        }
        match application::load(py, &setup.config) {
            Ok(application) => Some(application),
            Err(failure) => {
                error!("{failure}");
                send_message(channel.as_fd(), &Answer::Failed)?;
                return Ok(EXIT_NO_APP);
            }
        }
    };
    if application.is_some()
        && let Err(failure) = hooks::run_in_python(py, Phase::PostApp, &setup.config)
    {
        return hook_failed(&channel, &failure);
    }
    interpreter::tell_of_lock(py);
    stacks::check::run(py);
    interpreter::settle(py, setup.config.processes)?;
    other_threads::warn_of_them(py);
    warn_of_greenlets(py);
    // Before the first fork: what is free would be copied into each worker that allocates it.
    give_back::memory_and_pages();
    tell_loaded(py, &channel, started)?;
    let mut server = ForkServer { channel, setup, scoreboard, application };
    loop {
        match server.take_orders(py)? {
            Next::Exit(status) => return Ok(status),
            Next::ForkServer(next) => {
                let started = Instant::now();
                let NextForkServer { channel, setup, scoreboard, application } = *next;
                let generation = setup.generation.map_or(0, crate::ids::GenerationNumber::get);
                let title = format!("rwsgi forkserver {generation}");
                procname::set(&procname::title(&setup.config.procname, &title));
                tell_loaded(py, &channel, started)?;
                server = ForkServer { channel, setup, scoreboard, application: Some(application) };
            }
        }
    }
}

fn tell_loaded(py: Python<'_>, channel: &OwnedFd, started: Instant) -> anyhow::Result<()> {
    let took = started.elapsed().as_millis() as u64;
    Ok(send_message(channel.as_fd(), &Answer::Loaded { python: interpreter::version(py), took })?)
}

/// What processes are forked with.
struct ForkServer {
    channel: OwnedFd,
    setup: Setup,
    scoreboard: Scoreboard,
    /// Unless each worker loads its own.
    application: Option<Py<PyAny>>,
}

impl ForkServer {
    /// Forks what the master orders, until it closes the channel. In a forked process, does its work instead, and says what
    /// the process does after that.
    fn take_orders(self, py: Python<'_>) -> anyhow::Result<Next> {
        let Self { channel, setup, scoreboard, application } = self;
        // One that a worker has forked holds what that has served with.
        let mut has_forked = true;
        loop {
            if mem::take(&mut has_forked) && until_ready(&channel, PollFlags::IN, QUIET).is_err() {
                give_back::pages();
            }
            let order = match receive_message(channel.as_fd()) {
                Ok(Some(order)) => order,
                Ok(None) => return Ok(Next::Exit(0)),
                Err(error) => {
                    info!("fork server: the master is gone ({error})");
                    return Ok(Next::Exit(0));
                }
            };
            let Order::Fork { child, role, is_first } = order;
            other_threads::let_them_rest(py);
            has_forked = true;
            let announce = |pid: Pid| send_message(channel.as_fd(), &Answer::Forked { child, pid: pid.as_raw() });
            match fork_announced(py, announce) {
                Ok(Forked::Parent) => {}
                Ok(Forked::Child) => {
                    // The fork server's alone: the master must see its end when the fork server ends.
                    drop(channel);
                    here::enter(role);
                    system_limits::lock_memory(&setup.config.system);
                    return match role {
                        Role::Worker { worker, slot } => {
                            system_limits::bind_worker(&setup.config.system, worker);
                            let context =
                                worker::WorkerContext { worker, slot, child, setup, scoreboard, application, is_first };
                            worker::run(py, context)
                        }
                        Role::Auxiliary(who) => {
                            system_limits::limit_processes(&setup.config.system);
                            let is_loaded = application.is_some();
                            let context = auxiliary::AuxiliaryContext { who, child, setup, scoreboard, is_loaded };
                            auxiliary::run(py, context).map(Next::Exit)
                        }
                    };
                }
                Err(error) => {
                    send_message(channel.as_fd(), &Answer::NotForked { child, reason: error.to_string() })?;
                }
            }
        }
    }
}

/// A hook has failed: this generation does not serve.
fn hook_failed(channel: &OwnedFd, failure: &anyhow::Error) -> anyhow::Result<i32> {
    error!("{failure:#}");
    send_message(channel.as_fd(), &Answer::Failed)?;
    Ok(1)
}

/// Greenlets run while a request of their thread waits in gevent, and no longer: so do the threads of agents then.
fn warn_of_greenlets(py: Python<'_>) {
    if threads::are_greenlets(py).unwrap_or(false) {
        warn!(
            "the application has replaced Python's threads by gevent's greenlets (monkey.patch_all()): what it or a monitoring \
             agent runs in the background runs only while a request of the same thread waits; leave patch_all() out: each \
             request has a thread of its own here"
        );
    }
}
