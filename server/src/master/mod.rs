//! The master: owns the sockets, the scoreboard and the policy. No Python in it, ever.
//!
//! One loop owns all state and takes one [`Event`] after another from small tasks that only wait: for a signal, for a
//! fork server's answer, for a worker that says it is ready, for somebody who asks for a snapshot.

mod auxiliaries;
mod busyness;
mod calls;
mod cheaper;
mod fifo;
mod generation;
mod http_router;
mod leftovers;
mod listeners;
mod log;
mod pool;
mod privileges;
pub mod process;
mod shutdown;
mod signals;
mod spoolers;
mod supervisor;
mod timetable;
mod touch;
mod watchdog;
mod workers;

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Instant;

use anyhow::Context;
use nix::sys::signal::Signal;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::stat::{Mode, umask};
use rwsgi_stats::{Address, Snapshot};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info};

use self::auxiliaries::{Post, posts};
use self::calls::{Call, Calls};
use self::cheaper::Cheaper;
use self::fifo::Command;
use self::generation::{Generation, Reload};
use self::http_router::HttpRouter;
use self::leftovers::Leftovers;
use self::listeners::{Listener, bind};
use self::log::Log;
use self::pool::{Pool, Reason};
use self::process::{Launcher, Reaped, reap};
use self::shutdown::Phase;
use self::spoolers::Spoolers;
use self::supervisor::{Inherited, Supervisor};
use self::watchdog::Watchdog;
use crate::clock::{self, UnixMicros};
use crate::config::Config;
use crate::daemon::Starter;
use crate::ids::{GenerationNumber, WorkerId};
use crate::ipc::{Answer, Notice};
use crate::pidfile::{self, MASTER_NAME};
use crate::procname;
use crate::protocol::SocketProtocol;
use crate::share::Share;
use crate::spooler::Queue;
use crate::stats::scoreboard::{Layout, Scoreboard};
use crate::stats::snapshot::{self, SocketView, Subject, Taken, WorkerView};
use crate::stats::state::SnapshotState;

/// Reads the configuration again, for a reload.
pub type Reread = Box<dyn Fn() -> anyhow::Result<Config>>;

/// What the loop takes one after another.
#[derive(Debug)]
pub enum Event {
    /// A child has ended.
    Child,
    /// Stop: gracefully at first, at once when it comes again.
    Stop(Signal),
    /// Load a new generation.
    Reload(Reload),
    /// An order through the fifo.
    Command(Command),
    /// The fork server of this generation answered.
    Answer(u32, Answer),
    /// Somebody connected while no worker ran.
    Wake,
    /// A worker says how it stands.
    Notice(Notice),
    /// The application's signals.
    Call(Call),
    /// Somebody wants to know how the server is doing.
    Stats(oneshot::Sender<Snapshot>),
    /// The spoolers' jobs were counted for that.
    Queues {
        /// In the order of the configuration.
        queues: Vec<Queue>,
        /// Until when they are not counted again.
        good_until: Instant,
        /// Who wants to know.
        answer: oneshot::Sender<Snapshot>,
    },
}

/// The loop's state; one owner of everything.
struct Master {
    config: Config,
    launcher: Launcher,
    reread: Reread,
    listeners: Vec<(Listener, SocketProtocol)>,
    router: HttpRouter,
    router_listeners: Vec<Listener>,
    scoreboard: Scoreboard,
    pool: Pool,
    watchdog: Watchdog,
    cheaper: Cheaper,
    supervisor: Supervisor,
    /// The processes beside the workers.
    auxiliaries: Vec<Post>,
    /// The application's signals.
    calls: Calls,
    spoolers: Spoolers,
    /// What the application's processes share.
    share: Share,
    /// The log file, when the master writes it.
    log: Option<Rc<Log>>,
    /// Workers that a chain reload has still to replace, one after another.
    chain: Option<VecDeque<u32>>,
    /// The present reload gives nobody time to finish.
    haste: bool,
    /// Fork servers: the one that serves, one that loads, ones whose last workers leave.
    generations: Vec<Generation>,
    /// The generation that new workers are forked from; 0 until the first is loaded.
    current: u32,
    newest: u32,
    /// When a fork server that died is to be started again.
    reload_due: Option<Instant>,
    /// A worker has said that it serves, at any time since the start.
    any_ready: bool,
    /// Processes that ended before their fork server told of them.
    unannounced: Vec<Reaped>,
    liveness: OwnedFd,
    notices: OwnedFd,
    control: OwnedFd,
    phase: Phase,
    /// When everything that has not left by itself is killed.
    killed_at: Option<Instant>,
    exit_status: i32,
    snapshot_state: SnapshotState,
    started_at: u64,
    events: mpsc::UnboundedSender<Event>,
}

/// Runs the server until it is stopped; returns its exit status.
///
/// # Errors
/// When it cannot start: a socket cannot be bound, a process cannot be started.
pub fn run(config: Config, launcher: Launcher, reread: Reread, starter: Starter) -> anyhow::Result<i32> {
    if let Some(title) = procname::master_title(&config.procname) {
        procname::make_room();
        procname::set(&title);
    }
    nix::sys::prctl::set_child_subreaper(true).context("cannot become the subreaper of the workers")?;
    let _ = nix::sys::prctl::set_name(MASTER_NAME);
    raise_descriptor_limit();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, serve(config, launcher, reread, starter))
}

/// Thousands of idle connections are ordinary: every process of ours may have as many descriptors as the system allows.
fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised =
        getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!("the limit of open descriptors stays as it is: {error}");
    }
}

async fn serve(config: Config, mut launcher: Launcher, reread: Reread, mut starter: Starter) -> anyhow::Result<i32> {
    let mut inherited = Inherited::take();
    let supervisor = Supervisor::find();
    if let Some(mask) = config.umask {
        umask(Mode::from_bits_truncate(mask));
    }
    let mut log = Log::open(&config)?;
    if let Some((_, writer)) = &log {
        launcher.output = Some(writer.try_clone()?);
    }
    let log = log.take().map(|(log, _)| log);
    let mut leftovers = Leftovers::default();
    if let Some(pidfile) = &config.pidfile {
        pidfile::write("pidfile", pidfile)?;
        if config.vacuum {
            leftovers.add(pidfile);
        }
    }
    let (events, mut inbox) = mpsc::unbounded_channel();
    signals::watch(&events, config.brutal_reload_on_term)?;
    let (liveness_reader, liveness_writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    let notices = signals::watch_notices(&events)?;
    let control = calls::watch(&events)?;

    let mut open = |option, address: &Address| -> anyhow::Result<Listener> {
        if let Some((address, fd)) = inherited.find(|bound| listeners::same(bound, address)) {
            return Ok(Listener::adopt(option, address, fd, config.listen)?);
        }
        let listener = bind(option, address, config.listen)?;
        if let (Address::Tcp { .. }, true) = (&listener.address, config.so_keepalive) {
            // Inherited by what is accepted.
            setsockopt(&listener.fd(), sockopt::KeepAlive, &true)?;
        }
        if let Address::Unix(path) = &listener.address {
            if config.vacuum {
                leftovers.add(path);
            }
            if option != "stats" {
                privileges::adjust_socket(path, &config)?;
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
    let router_listeners: Vec<_> = config.http.iter().map(|address| open("http", address)).collect::<Result<_, _>>()?;
    for address in &config.stats {
        let listener = open("stats", address)?;
        info!("stats server on {}", listener.address);
        let ask = events.clone();
        let fd = listener.fd().try_clone_to_owned()?;
        tokio::task::spawn_local(crate::stats::server::serve(fd, config.stats_http, move |answer| {
            // The loop is gone only when the process is about to be.
            let _ = ask.send(Event::Stats(answer));
        }));
    }
    while let Some((address, fd)) = inherited.find(|_| true) {
        // As uWSGI does with a socket that nothing else is said of.
        listeners.push((Listener::adopt("LISTEN_FDS", address, fd, config.listen)?, SocketProtocol::Uwsgi));
    }
    anyhow::ensure!(
        !(listeners.is_empty() && router_listeners.is_empty()),
        "no socket was inherited, and none is configured"
    );
    for path in &config.master_fifo {
        fifo::watch(path, &events)?;
        if config.vacuum {
            leftovers.add(path);
        }
    }
    privileges::drop_privileges(&config)?;
    if let Some(pidfile) = &config.pidfile2 {
        pidfile::write("pidfile2", pidfile)?;
        if config.vacuum {
            leftovers.add(pidfile);
        }
    }
    touch::watch(&config, &events);
    let layout = Layout::new(config.processes, config.threads).with_spoolers(config.spooler.count());
    let scoreboard = Scoreboard::create(layout).context("cannot create the scoreboard")?;
    let mut master = Master {
        pool: Pool::new(config.processes, config.threads, layout.slots),
        watchdog: Watchdog::default(),
        cheaper: Cheaper::default(),
        supervisor,
        calls: Calls::default(),
        share: Share::create(&config.between)?,
        auxiliaries: posts(&config, Instant::now()),
        spoolers: Spoolers::default(),
        log,
        chain: None,
        haste: false,
        config,
        launcher,
        reread,
        listeners,
        router: if router_listeners.is_empty() { HttpRouter::default() } else { HttpRouter::new()? },
        router_listeners,
        scoreboard,
        generations: Vec::new(),
        current: 0,
        newest: 0,
        reload_due: None,
        any_ready: false,
        unannounced: Vec::new(),
        liveness: liveness_reader,
        notices,
        control,
        phase: Phase::Serving,
        killed_at: None,
        exit_status: 0,
        snapshot_state: SnapshotState::new(tokio::runtime::Handle::current()),
        started_at: clock::unix_micros(),
        events,
    };
    // Held until the process ends: its end is how everybody else learns of it.
    let _lifeline_writer = liveness_writer;
    master.announce();
    master.load(master.config.clone(), Reload::Rolling)?;
    if !starter.after_loading {
        starter.tell();
    }
    while !master.is_over() {
        let deadline = master.next_deadline();
        let event = tokio::select! {
            event = inbox.recv() => event,
            () = sleep_until(deadline) => None,
        };
        if let Some(event) = event {
            master.take(event);
        }
        master.act_on_time(Instant::now());
        if master.any_ready {
            starter.tell();
        }
    }
    if let Some(log) = &master.log {
        log.pump();
    }
    Ok(master.exit_status)
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

impl Master {
    fn announce(&self) {
        info!(
            "rwsgi {}: {} worker{} of {} thread{}",
            env!("CARGO_PKG_VERSION"),
            self.config.processes,
            if self.config.processes == 1 { "" } else { "s" },
            self.config.threads,
            if self.config.threads == 1 { "" } else { "s" },
        );
        let all = self.listeners.iter().map(|(listener, _)| listener).chain(&self.router_listeners);
        for listener in all {
            info!("{} on {}", listener.option, listener.address);
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Child => {
                while let Some(reaped) = reap() {
                    self.bury(reaped);
                }
            }
            Event::Stop(signal) => self.stop(signal.as_str()),
            Event::Reload(how) => self.reload(how),
            Event::Wake => self.wake(),
            Event::Command(command) => self.obey(command),
            Event::Answer(generation, answer) => self.hear(generation, answer),
            Event::Notice(Notice::Ready(slot)) => self.welcome(slot),
            Event::Notice(Notice::Enough(slot)) => self.replace(slot, Reason::MaxRequests),
            Event::Call(call) => self.take_call(call),
            Event::Stats(answer) => self.answer_stats(answer),
            Event::Queues { queues, good_until, answer } => self.answer_counted(queues, good_until, answer),
        }
    }

    /// The next moment at which something is to be done although nothing happens.
    fn next_deadline(&self) -> Option<Instant> {
        // Workers that are due while no fork server is there wait for it, not for a time.
        let pool = self.pool.next_deadline(self.can_fork() && self.may_fork());
        [
            pool,
            self.router.due,
            self.reload_due,
            self.killed_at,
            self.watchdog.due,
            self.cheaper.due,
            self.supervisor.due,
            self.auxiliary_deadline(),
            self.calls.deadline(self.current).filter(|_| self.phase == Phase::Serving),
            self.spoolers.harakiri_due,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Does what is due.
    fn act_on_time(&mut self, now: Instant) {
        self.kill_late(now);
        self.tell_supervisor(now);
        self.watch_over(now);
        self.watch_spoolers(now);
        if self.phase != Phase::Serving {
            self.proceed_with_stop();
            if self.may_fork() {
                self.fork_due(now);
            }
            self.tend_auxiliaries(now);
            return;
        }
        self.start_router(now);
        self.restart_fork_server(now);
        self.follow_load(now);
        self.ring(now);
        self.fork_due(now);
        self.tend_auxiliaries(now);
        self.retire_generations();
    }

    /// Does what the fifo says.
    fn obey(&mut self, command: Command) {
        match command {
            Command::Stop(false) => self.stop("master-fifo"),
            Command::Stop(true) => self.stop_at_once("master-fifo"),
            Command::Reload(how) => self.reload(how),
            Command::ReopenLog => match &self.log {
                Some(log) => log.reopen(),
                None => info!("there is no log file to open again: set logto or daemonize"),
            },
            Command::WritePidfiles => {
                for (option, path) in [("pidfile", &self.config.pidfile), ("pidfile2", &self.config.pidfile2)] {
                    if let Some(path) = path
                        && let Err(error) = pidfile::write(option, path)
                    {
                        error!("{error:#}");
                    }
                }
            }
            Command::Stats => {
                let snapshot = self.snapshot();
                for worker in &snapshot.workers {
                    info!(
                        "worker {} (pid {}) is {}: {} requests, {} exceptions, rss {}, busy for {} s",
                        worker.id,
                        worker.pid,
                        worker.status,
                        worker.requests,
                        worker.exceptions,
                        worker.rss,
                        worker.running_time / 1_000_000
                    );
                }
            }
        }
    }

    fn snapshot(&mut self) -> Snapshot {
        let mut sockets: Vec<_> = self
            .listeners
            .iter()
            .map(|(listener, protocol)| SocketView {
                address: &listener.address,
                protocol: protocol.as_str(),
                fd: listener.fd(),
            })
            .collect();
        let router = self.router_listeners.iter();
        sockets.extend(router.map(|listener| SocketView {
            address: &listener.address,
            protocol: "http",
            fd: listener.fd(),
        }));
        let workers = WorkerId::first(self.config.processes)
            .zip(&self.pool.workers)
            .map(|(id, worker)| WorkerView { id, totals: &worker.totals, processes: self.pool.processes_of(id) })
            .collect();
        let python = self.generations.iter().find(|generation| generation.number == self.current);
        let subject = Subject {
            scoreboard: &self.scoreboard,
            config: &self.config,
            started_at: UnixMicros::from_micros(self.started_at),
            generation: GenerationNumber::new(self.current),
            python: python.and_then(|generation| generation.python.as_deref()).unwrap_or_default(),
            sockets,
            workers,
            spoolers: self.spoolers.views(&self.config, &self.auxiliaries),
        };
        let Taken { mut snapshot, corrupt } = snapshot::take(&subject, &mut self.snapshot_state);
        for corrupt in corrupt {
            error!("{corrupt}");
            self.replace(corrupt.found.slot.get(), Reason::Corrupt);
        }
        self.calls.describe(self.current, &mut snapshot);
        self.share.describe(&self.config.between, &mut snapshot);
        snapshot
    }
}
