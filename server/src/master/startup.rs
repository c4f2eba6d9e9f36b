//! Starting: what is opened and bound before the first process is started.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::Context;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::stat::{Mode, umask};
use rwsgi_stats::Address;
use tracing::info;

use super::alarm_lines::{Alarms, LineWatch};
use super::alarms;
use super::app_signals::{self, AppSignals};
use super::certificates::Certificates;
use super::children::Children;
use super::control::ControlState;
use super::cron_commands::Crons;
use super::daemons::running::Daemons;
use super::events::{Event, Events};
use super::generation::Generations;
use super::hook_queue::HookQueue;
use super::inherited::Inherited;
use super::launcher::Launcher;
use super::leftovers::Leftovers;
use super::listeners::{self, Listener, bind};
use super::load::LoadWatch;
use super::log::Log;
use super::otlp::Otlp;
use super::out_of_memory::OomWatch;
use super::post::Post;
use super::private_socket::PrivateSocket;
use super::queues::Queues;
use super::readiness::{ReloadCount, SaturationWatch};
use super::refork::Reforks;
use super::slow_requests::SlowRequests;
use super::stacks::Questions;
use super::state::{Master, Phase, Reread, Sockets};
use super::supervisor::Supervisor;
use super::timers::Timers;
use super::worker_orders::WorkerOrders;
use super::{control, fifo, hooks, privileges, routes, signals, stats_push, temp, touch};
use crate::cgroup::ControlGroup;
use crate::clock::UnixMicros;
use crate::identity::Identity;
use crate::ids::WorkerId;
use crate::ipc::{Auxiliary, AuxiliaryKind};
use crate::log_text;
use crate::pidfile;
use crate::share::Share;
use crate::stacks::area::StackMemory;
use crate::stats::generations::GenerationHistory;
use crate::stats::scoreboard::{Layout, Scoreboard};
use crate::stats::server::{self, HttpAccess, MetricsAccess, OwnNames, Probes, Service};
use crate::stats::state::SnapshotState;
use crate::stats::totals::Totals;
use rwsgi_config::{Config, SocketConfig};
use rwsgi_protocol::SocketProtocol;

/// A server that is about to start its first process.
pub(super) struct Started {
    pub(super) master: Master,
    /// Files that are removed at its end.
    pub(super) leftovers: Leftovers,
    /// Held until the process ends: its end is how everybody else learns of it.
    pub(super) liveness: std::os::fd::OwnedFd,
}

/// Opens and binds everything, and becomes the user that is configured.
///
/// # Errors
/// When something cannot be opened or bound.
pub(super) fn start(
    mut config: Config,
    mut launcher: Launcher,
    reread: Reread,
    events: Events,
) -> anyhow::Result<Started> {
    let mut inherited = Inherited::take();
    let supervisor = Supervisor::find();
    if let Some(mask) = config.umask {
        umask(Mode::from_bits_truncate(mask));
    }
    let user = Identity::of(&config)?;
    let user = user.as_ref();
    let mut otlp = Otlp::new(&config)?;
    let copy = otlp.as_ref().and_then(|otlp| otlp.line_copy(&config));
    let mut log = Log::open(&config, user, &events, copy)?;
    if let Some((_, writer)) = &log {
        launcher.output = Some(writer.try_clone()?);
    }
    let log = log.take().map(|(log, _)| log);
    if let Some(watch) = LineWatch::new(&config, &events).filter(|_| !log.as_ref().is_some_and(Log::has_own_lines)) {
        // The master's own lines do not go through the pipe.
        let watch = Mutex::new(watch);
        log_text::observe(move |line| watch.lock().unwrap_or_else(PoisonError::into_inner).look(line));
    }
    let mut leftovers = Leftovers::default();
    if let Some(pidfile) = &config.pidfile {
        pidfile::write("pidfile", pidfile, user)?;
        if config.vacuum {
            leftovers.add(pidfile);
        }
    }
    hooks::before_binding(&mut config, &mut launcher)?;
    let is_held_up = hooks::hold_up_start(&config);
    if !is_held_up {
        signals::watch(&events, &config)?;
    }
    let (liveness_reader, liveness) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let notices = signals::watch_notices(&events)?;
    let calls = app_signals::watch(&events)?;
    let Bound { workers, router, probes } = bind_all(&config, user, &mut inherited, &mut leftovers, &events)?;
    let is_reachable = !(workers.is_empty() && router.is_empty());
    anyhow::ensure!(is_reachable || config.processes == 0, "no socket was inherited, and none is configured");
    // Keys are often root's alone.
    let certificates = Certificates::read(&config)?;
    for path in &config.master_fifo {
        fifo::watch(path, user, &events)?;
        if config.vacuum {
            leftovers.add(path);
        }
    }
    let control = control::open(&config, user)?;
    let was_root = nix::unistd::getuid().is_root();
    privileges::drop_privileges(&config, user)?;
    hooks::after_dropping(&mut config, &mut launcher, was_root)?;
    if is_held_up {
        signals::watch(&events, &config)?;
    }
    if let Some(pidfile) = &config.pidfile2 {
        pidfile::write("pidfile2", pidfile, None)?;
        if config.vacuum {
            leftovers.add(pidfile);
        }
    }
    let control_file = control.map(|(file, socket)| control::serve(socket, &events).map(|()| file));
    let control_file = control_file.transpose().context("control: cannot listen")?;
    let temp = temp::choose(&config)?;
    touch::watch(&config, &events)?;
    alarms::watch_descriptors(&config, &events)?;
    stats_push::start(&config, &events)?;
    let layout = Layout::new(config.processes, config.threads).with_spoolers(config.spooler.count());
    if let Some(otlp) = &mut otlp {
        otlp.start(&config, layout, &events)?;
    }
    let mut timers = Timers::default();
    let mut children = Children::new(posts(&config, !router.is_empty()), layout.slots);
    children.fill(Post::HttpRouter, &mut timers);
    if !config.emperor.monitors.is_empty() {
        children.fill(Post::Emperor, &mut timers);
    }
    let link = (!router.is_empty()).then(PrivateSocket::bind).transpose()?;
    let mut master = Master {
        sockets: Sockets { workers, router, probes, link, liveness: liveness_reader, notices, calls },
        scoreboard: Scoreboard::create(layout).context("cannot create the scoreboard")?,
        profile: None,
        stacks: Questions::new(StackMemory::create(layout).context("cannot create the memory for stacks")?),
        routes: routes::create(&config, layout)?,
        otlp,
        temp,
        share: Share::create(&config.between)?,
        children,
        totals: (0..config.processes).map(|_| Totals::new(config.threads)).collect(),
        timers,
        generations: Generations::default(),
        generation_history: GenerationHistory::default(),
        canary: None,
        router_channel: None,
        certificates,
        chain: None,
        haste: false,
        any_ready: false,
        overdue: HashMap::new(),
        slow: SlowRequests::default(),
        load: LoadWatch::default(),
        app_signals: AppSignals::default(),
        daemons: Daemons::default(),
        crons: Crons::default(),
        queues: Queues::default(),
        hook_queue: HookQueue::default(),
        alarms: Alarms::default(),
        supervisor,
        own_emperor: None,
        emperor_channel: None,
        log,
        control: ControlState::new(control_file),
        phase: Phase::Serving,
        is_draining: false,
        saturation: SaturationWatch::default(),
        exit_status: 0,
        reload_count: ReloadCount::default(),
        control_group: ControlGroup::find(),
        oom: OomWatch::default(),
        worker_orders: WorkerOrders::new(),
        refork: Reforks::default(),
        snapshot_state: SnapshotState::new(tokio::runtime::Handle::current()),
        started_at: UnixMicros::now(),
        config,
        launcher,
        reread,
        events,
    };
    master.configure_slow_requests();
    master.watch_status(Instant::now());
    master.watch_silence(Instant::now());
    master.watch_out_of_memory(Instant::now());
    master.watch_backlogs(Instant::now());
    Ok(Started { master, leftovers, liveness })
}

/// Every post of a server.
fn posts(config: &Config, has_router: bool) -> Vec<Post> {
    let mules = config.between.mules.len() as u32;
    let auxiliaries = [(AuxiliaryKind::Spooler, config.spooler.count()), (AuxiliaryKind::Mule, mules)];
    let auxiliaries = auxiliaries
        .into_iter()
        .flat_map(|(kind, count)| (1..=count).map(move |number| Post::Auxiliary(Auxiliary { kind, number })));
    let workers = WorkerId::first(config.processes).map(Post::Worker);
    let emperor = (!config.emperor.monitors.is_empty()).then_some(Post::Emperor);
    has_router
        .then_some(Post::HttpRouter)
        .into_iter()
        .chain(emperor)
        .chain([Post::ForkServer])
        .chain(workers)
        .chain(auxiliaries)
        .collect()
}

/// The sockets that clients connect to.
struct Bound {
    workers: Vec<(Listener, SocketProtocol)>,
    router: Vec<Listener>,
    probes: Vec<Listener>,
}

/// Binds every socket that is configured, or takes it from who opened it before; starts the stats servers.
fn bind_all(
    config: &Config,
    user: Option<&Identity>,
    inherited: &mut Inherited,
    leftovers: &mut Leftovers,
    events: &Events,
) -> anyhow::Result<Bound> {
    let mut open = |option, address: &Address| -> anyhow::Result<Listener> {
        if let Some((address, fd)) = inherited.find(|bound| listeners::same(bound, address)) {
            return Ok(Listener::adopt(option, address, fd, config.listen)?);
        }
        let is_private = matches!(option, "stats" | "probe");
        let sockets = if is_private { &SocketConfig::default() } else { &config.sockets };
        let listener = bind(option, address, config.listen, user, sockets)?;
        // Inherited by what is accepted.
        if let Some(bytes) = sockets.send_buffer {
            setsockopt(&listener.fd(), sockopt::SndBuf, &(bytes as usize))?;
        }
        if let Some(bytes) = sockets.receive_buffer {
            setsockopt(&listener.fd(), sockopt::RcvBuf, &(bytes as usize))?;
        }
        if let (Address::Tcp { .. }, true) = (&listener.address, config.so_keepalive) {
            // Inherited by what is accepted.
            setsockopt(&listener.fd(), sockopt::KeepAlive, &true)?;
        }
        if let (Address::Tcp { .. }, false, true) = (&listener.address, is_private, sockets.defers_accept()) {
            // Not every sandbox has it. It saves work, and nothing depends on it.
            let _ = listeners::defer_accept(listener.fd());
        }
        if let Address::Unix(path) = &listener.address {
            if config.vacuum {
                leftovers.add(path);
            }
            if !is_private {
                privileges::adjust_socket(path, config, user)?;
            }
        }
        Ok(listener)
    };
    let mut listeners = Vec::new();
    for (option, addresses, protocol) in
        [("http-socket", &config.http_socket, SocketProtocol::Http), ("socket", &config.socket, SocketProtocol::Uwsgi)]
    {
        for address in addresses {
            listeners.push((open(option, address)?, protocol));
        }
    }
    // In this order the router knows them.
    let https = config.tls.https.iter().map(|socket| ("https", &socket.address));
    let redirects = config.tls.redirects.iter().map(|socket| ("http-to-https", &socket.address));
    let router = config.http.iter().map(|address| ("http", address)).chain(https).chain(redirects);
    let router: Vec<_> = router.map(|(option, address)| open(option, address)).collect::<Result<_, _>>()?;
    let asked = events.clone();
    let asker = Probes::new(move |answer| {
        let ask = asked.clone();
        tokio::task::spawn_local(async move {
            // The loop is gone only when the process is about to be.
            let _ = ask.send(Event::Probe(answer)).await;
        });
    });
    let mut probes = Vec::new();
    for address in &config.probes.addresses {
        let listener = open("probe", address)?;
        let ask = |_| {};
        let service = Service::Probes(asker.clone());
        tokio::task::spawn_local(server::serve(listener.fd().try_clone_to_owned()?, service, ask));
        probes.push(listener);
    }
    for address in &config.stats {
        let listener = open("stats", address)?;
        info!("stats server on {}", listener.address);
        let ask = events.clone();
        let fd = listener.fd().try_clone_to_owned()?;
        let bound = std::net::TcpListener::from(fd.try_clone()?).local_addr().ok().map(|bound| bound.ip());
        let service = if config.stats_http {
            let names = OwnNames::of(bound, address);
            Service::Http(HttpAccess {
                cors: config.stats_http_cors.clone(),
                metrics: MetricsAccess::of(config, &listener.address),
                names,
                probes: asker.clone(),
            })
        } else {
            Service::Plain
        };
        tokio::task::spawn_local(server::serve(fd, service, move |asked| {
            let ask = ask.clone();
            // Bounded by the connections that the server takes.
            tokio::task::spawn_local(async move {
                // The loop is gone only when the process is about to be.
                let _ = ask.send(Event::Stats(asked)).await;
            });
        }));
    }
    while let Some((address, fd)) = inherited.find(|_| true) {
        // As uWSGI does with a socket that nothing else is said of.
        listeners.push((Listener::adopt("LISTEN_FDS", address, fd, config.listen)?, SocketProtocol::Uwsgi));
    }
    Ok(Bound { workers: listeners, router, probes })
}
