//! Starting the emperor: alone, or beside a server that a master runs.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use rwsgi_stats::Address;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::scan::Monitor;
use super::throttle::Throttle;
use super::vassals::Vassals;
use super::{Emperor, Event, obey};
use crate::clock::UnixMicros;
use crate::daemon::{Starter, open_log, redirect};
use crate::identity::Identity;
use crate::ipc::Setup;
use crate::ipc::first::receive_first;
use crate::ipc::inherit::InheritedFd;
use crate::master::launcher::Launcher;
use crate::master::leftovers::Leftovers;
use crate::master::shell::remember_descriptor_limit;
use crate::master::supervisor::Supervisor;
use crate::master::{Reread, hooks, listeners, privileges, raise_descriptor_limit};
use crate::pidfile::{self, EMPEROR_NAME};
use crate::process_setup::ignore;
use crate::procname;
use crate::stats::server::{self, HttpAccess, MetricsAccess, OwnNames, Probes, Service};
use crate::system_limits;
use crate::vassal::Link;
use rwsgi_config::{Config, EmperorConfig, SocketConfig};

/// Events that may wait for the loop; tasks with more wait themselves.
const MOST_WAITING: usize = 256;

/// Runs the emperor and nothing else in this process; returns the exit status.
///
/// # Errors
/// When it cannot start: a file cannot be written, a socket cannot be bound.
pub(crate) fn run_alone(
    mut config: Config,
    mut launcher: Launcher,
    reread: Reread,
    mut starter: Starter,
    own_emperor: Option<Link>,
) -> anyhow::Result<i32> {
    name_process(&config);
    raise_descriptor_limit();
    system_limits::of_master(&config.system);
    if let Some(limit) = config.system.max_fd {
        remember_descriptor_limit(limit.into());
    }
    if let Some(mask) = config.umask {
        umask(Mode::from_bits_truncate(mask));
    }
    let user = Identity::of(&config)?;
    let user = user.as_ref();
    let mut leftovers = Leftovers::default();
    let logs = [&config.logto2, &config.logto, &config.daemonize, &config.daemonize2];
    if let Some(path) = logs.into_iter().flatten().next() {
        let log = open_log(path, user).with_context(|| format!("cannot open the log file '{}'", path.display()))?;
        redirect(&log)?;
    }
    write_pidfile("pidfile", config.pidfile.as_deref(), user, &config, &mut leftovers)?;
    hooks::before_binding(&mut config, &mut launcher)?;
    in_loop(async {
        let (events, inbox) = mpsc::channel(MOST_WAITING);
        // As in uWSGI, an emperor's stats may be asked for by its own option. That of any server means the same here.
        for (option, address) in config
            .stats
            .iter()
            .map(|address| ("stats", address))
            .chain(config.emperor.stats.iter().map(|address| ("emperor-stats", address)))
        {
            serve_stats(option, address, &config, user, &events, &mut leftovers)?;
        }
        let was_root = nix::unistd::getuid().is_root();
        // One that gives vassals the rights of their owners is root for that.
        if user.is_some() || !config.emperor.tyrant || config.cap.is_some() {
            privileges::drop_privileges(&config, user)?;
        }
        hooks::after_dropping(&mut config, &mut launcher, was_root)?;
        write_pidfile("pidfile2", config.pidfile2.as_deref(), None, &config, &mut leftovers)?;
        write_pidfile("emperor-pidfile", config.emperor.pidfile.as_deref(), None, &config, &mut leftovers)?;
        watch_signals(&events, true)?;
        if let Some(own_emperor) = &own_emperor {
            tokio::task::spawn_local(obey(Some(own_emperor.orders()?), events.clone()));
        }
        let mut emperor = emperor(config, launcher, events)?;
        emperor.supervisor = Supervisor::find();
        (emperor.own_emperor, emperor.reread) = (own_emperor, Some(reread));
        starter.notify();
        emperor.run(inbox).await
    })
}

/// Runs the emperor beside a server, until the master stops it; returns the exit status.
///
/// # Errors
/// As [`run_alone`].
pub(crate) fn run_beside(mut channel: InheritedFd, launcher: Launcher) -> anyhow::Result<i32> {
    let channel = channel.take()?;
    let mut setup: Setup = receive_first(channel.as_fd())
        .context("emperor: cannot read its setup from the master")?
        .context("emperor: the master is gone")?;
    name_process(&setup.config);
    // The master acts on them: a terminal's reach the whole foreground group.
    ignore(&[Signal::SIGINT, Signal::SIGQUIT])?;
    // For the workers alone: a pipe that the emperor held open would never end.
    drop(setup.notices.take()?);
    drop(setup.scoreboard.take()?);
    let liveness = setup.liveness.take()?;
    let config = setup.config;
    in_loop(async {
        let (events, inbox) = mpsc::channel(MOST_WAITING);
        let mut leftovers = Leftovers::default();
        for address in &config.emperor.stats {
            serve_stats("emperor-stats", address, &config, None, &events, &mut leftovers)?;
        }
        write_pidfile("emperor-pidfile", config.emperor.pidfile.as_deref(), None, &config, &mut leftovers)?;
        watch_signals(&events, false)?;
        let liveness = tokio::net::unix::pipe::Receiver::from_owned_fd(liveness)?;
        let lost = events.clone();
        tokio::task::spawn_local(async move {
            // Nobody writes there: it ends when the master is gone.
            while liveness.readable().await.is_ok() && !matches!(liveness.try_read(&mut [0]), Ok(0)) {}
            let _ = lost.send(Event::Stop("the master is gone")).await;
        });
        emperor(config, launcher, events)?.run(inbox).await
    })
}

fn in_loop(work: impl Future<Output = anyhow::Result<i32>>) -> anyhow::Result<i32> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, work)
}

fn name_process(config: &Config) {
    let _ = nix::sys::prctl::set_name(EMPEROR_NAME);
    let names = &config.procname;
    let own = config.emperor.procname.clone();
    let title = own.or_else(|| {
        let is_named = names.auto || names.all.is_some() || !config.emperor.is_alone;
        is_named.then(|| procname::title(names, "rwsgi emperor"))
    });
    if let Some(title) = title {
        procname::make_space();
        procname::set(&title);
    }
}

fn emperor(config: Config, launcher: Launcher, events: mpsc::Sender<Event>) -> anyhow::Result<Emperor> {
    let emperor = &config.emperor;
    let monitors = monitors(emperor)?;
    info!("rwsgi {}: emperor of {}", env!("CARGO_PKG_VERSION"), emperor.monitors.join(", "));
    let ms = |ms: u32| Duration::from_millis(ms.into());
    let throttle = (!emperor.no_blacklist).then(|| Throttle::new(ms(emperor.throttle), ms(emperor.max_throttle)));
    if emperor.tyrant && !nix::unistd::geteuid().is_root() && config.cap.is_none() {
        warn!(
            "emperor-tyrant: only root can give vassals the rights of others: start the emperor as root without uid, or with \
             cap = setuid,setgid"
        );
    }
    Ok(Emperor {
        vassals: Vassals::new(throttle, emperor.tyrant),
        monitors,
        channels: std::collections::HashMap::new(),
        sockets: std::collections::HashMap::new(),
        hook_queue: super::hooks::HookQueue::default(),
        supervisor: Supervisor::default(),
        own_emperor: None,
        reread: None,
        next_scan: Instant::now(),
        is_stopping: false,
        started_at: UnixMicros::now(),
        exit_status: 0,
        launcher,
        events,
        config,
    })
}

/// What the emperor watches.
///
/// # Errors
/// When an option names neither a directory nor a pattern.
pub(super) fn monitors(config: &EmperorConfig) -> anyhow::Result<Vec<Monitor>> {
    config.monitors.iter().map(|option| Monitor::of(option, &config.start)).collect()
}

fn write_pidfile(
    option: &'static str,
    path: Option<&std::path::Path>,
    user: Option<&Identity>,
    config: &Config,
    leftovers: &mut Leftovers,
) -> anyhow::Result<()> {
    let Some(path) = path else { return Ok(()) };
    pidfile::write(option, path, user)?;
    if config.vacuum {
        leftovers.add(path);
    }
    Ok(())
}

fn serve_stats(
    option: &'static str,
    address: &Address,
    config: &Config,
    user: Option<&Identity>,
    events: &mpsc::Sender<Event>,
    leftovers: &mut Leftovers,
) -> anyhow::Result<()> {
    let listener = listeners::bind(option, address, config.listen, user, &SocketConfig::default())?;
    if let Address::Unix(path) = &listener.address {
        if config.vacuum {
            leftovers.add(path);
        }
        privileges::adjust_socket(path, config, user)?;
    }
    info!("{option} on {}", listener.address);
    let service = if config.stats_http {
        Service::Http(HttpAccess {
            cors: config.stats_http_cors.clone(),
            metrics: MetricsAccess::of(config, &listener.address),
            names: OwnNames::of(None, address),
            probes: Probes::default(),
        })
    } else {
        Service::Plain
    };
    let ask = events.clone();
    tokio::task::spawn_local(server::serve(listener.fd().try_clone_to_owned()?, service, move |asked| {
        let ask = ask.clone();
        // Bounded by the connections that the server takes.
        tokio::task::spawn_local(async move {
            let _ = ask.send(Event::Stats(asked.answer)).await;
        });
    }));
    Ok(())
}

/// Watches the signals that uWSGI's emperor acts on. One that is beside a server leaves a terminal's to the master.
fn watch_signals(events: &mpsc::Sender<Event>, is_alone: bool) -> anyhow::Result<()> {
    type Maker = fn() -> Event;
    let all: [(SignalKind, Maker); 6] = [
        (SignalKind::child(), || Event::Child),
        (SignalKind::terminate(), || Event::Stop("SIGTERM")),
        (SignalKind::hangup(), || Event::ReloadAll),
        (SignalKind::user_defined1(), || Event::Log),
        (SignalKind::from_raw(Signal::SIGURG as i32), || Event::Forgive),
        (SignalKind::from_raw(Signal::SIGWINCH as i32), || Event::Scan),
    ];
    let alone: [(SignalKind, Maker); 2] =
        [(SignalKind::interrupt(), || Event::Stop("SIGINT")), (SignalKind::quit(), || Event::Stop("SIGQUIT"))];
    for (kind, event) in all.into_iter().chain(alone.into_iter().filter(|_| is_alone)) {
        let mut stream = signal(kind).with_context(|| format!("cannot watch signal {}", kind.as_raw_value()))?;
        let events = events.clone();
        tokio::task::spawn_local(async move {
            while stream.recv().await.is_some() && events.send(event()).await.is_ok() {}
        });
    }
    Ok(())
}
