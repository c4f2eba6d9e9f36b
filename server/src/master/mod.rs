//! The master: owns the sockets, the scoreboard and the policy. No Python in it, ever.
//!
//! One loop owns all state ([`state`]) and takes one [`events::Event`] after another from small tasks that only wait:
//! for a signal, for a fork server's answer, for a worker that says it is ready, for somebody who asks for a snapshot.
//! What is to be done at a time is a timer ([`timers`]). After each event the loop starts what is due.
//!
//! Every process of ours is a record in [`children`], which says what becomes of it without a system call; [`start`]
//! and [`reap`] do what it says. The other modules are the policies: when something is to be started, replaced or
//! stopped.

mod alarm_lines;
mod alarms;
mod app_signals;
mod busyness;
mod calls;
mod canary;
mod capabilities;
mod certificates;
mod children;
mod control;
mod cron_commands;
mod crons;
mod daemons;
mod drain;
mod emperor;
mod events;
mod fifo;
mod generation;
mod hook_queue;
pub(crate) mod hooks;
mod inherited;
mod jobs;
pub(crate) mod launcher;
pub(crate) mod leftovers;
pub(crate) mod listeners;
mod load;
mod log;
mod memory_pressure;
mod otlp;
mod out_of_memory;
mod post;
mod private_socket;
pub(crate) mod privileges;
pub(crate) mod process;
mod queues;
mod readable;
mod readiness;
mod reap;
mod reason;
mod refork;
mod reload;
mod routes;
mod scaling;
pub(crate) mod shell;
mod shutdown;
mod signals;
mod silence;
mod slow_requests;
mod snapshots;
mod stacks;
mod start;
mod startup;
mod state;
mod stats_push;
mod status;
pub(crate) mod supervisor;
pub(crate) mod task;
mod temp;
mod timers;
mod timetable;
mod touch;
mod vassal;
mod watchdog;
mod worker_orders;

use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::mpsc;
use tracing::{error, info};

use self::events::{Command, Event, Reload, Touched};
use self::launcher::Launcher;
use self::reason::Reason;
use self::startup::Started;
pub(crate) use self::state::Reread;
use self::state::{Master, Phase};
use self::timers::Timer;
use crate::daemon::Starter;
use crate::give_back;
use crate::ipc::Notice;
use crate::local_time;
use crate::log_limit;
use crate::pidfile::{self, MASTER_NAME};
use crate::procname;
use crate::stats::snapshot::Purpose;
use crate::system_limits;
use crate::vassal::Link;
use rwsgi_config::{Config, ControlSocket};

/// How long the code of an event is kept, of which most come in groups.
const A_WHILE: Duration = Duration::from_secs(2);

/// Runs the server until it is stopped; returns its exit status. `own_emperor` is the emperor that it is a vassal of.
///
/// # Errors
/// When it cannot start: a socket cannot be bound, a process cannot be started.
pub(crate) fn run(
    config: Config,
    launcher: Launcher,
    reread: Reread,
    starter: Starter,
    own_emperor: Option<Link>,
) -> anyhow::Result<i32> {
    if let Some(title) = procname::master_title(&config.procname) {
        procname::make_space();
        procname::set(&title);
    }
    nix::sys::prctl::set_child_subreaper(true).context("cannot become the subreaper of the workers")?;
    let _ = nix::sys::prctl::set_name(MASTER_NAME);
    // Of crons, and of times in the log.
    local_time::follow(&config);
    raise_descriptor_limit();
    system_limits::of_master(&config.system);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    let served = local.block_on(&runtime, serve(config, launcher, reread, starter, own_emperor));
    drop(local);
    // What still blocks, as on a name that nobody resolves, ends with the process.
    runtime.shutdown_background();
    served
}

/// Thousands of idle connections are ordinary: every process of ours may have as many descriptors as the system allows.
pub(crate) fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        shell::remember_descriptor_limit(soft);
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
    });
    if let Err(error) = raised {
        tracing::warn!("the limit of open descriptors stays as it is: {error}");
    }
}

async fn serve(
    config: Config,
    launcher: Launcher,
    reread: Reread,
    mut starter: Starter,
    own_emperor: Option<Link>,
) -> anyhow::Result<i32> {
    let (events, mut inbox) = mpsc::channel(events::MOST_WAITING);
    let Started { mut master, leftovers: _leftovers, liveness: _liveness } =
        startup::start(config, launcher, reread, events)?;
    master.follow(own_emperor)?;
    master.announce();
    master.load(master.config.clone(), Reload::Rolling, false)?;
    if !starter.after_loading {
        starter.notify();
    }
    master.settle(Instant::now());
    while !master.is_over() {
        let event = tokio::select! {
            event = inbox.recv() => event,
            () = sleep_until(master.timers.next()) => None,
        };
        if let Some(event) = event {
            master.take(event);
            master.give_back_soon(Instant::now());
        }
        let now = Instant::now();
        for timer in master.timers.take_due(now) {
            master.fire(timer, now);
        }
        master.settle(now);
        if master.any_ready {
            starter.notify();
        }
    }
    log_limit::finish();
    hooks::at_the_end(&mut master.config);
    let last = master.otlp.is_some().then(|| master.snapshot(Purpose::Metrics));
    drop(master.log.take());
    if let Some(otlp) = master.otlp.take() {
        otlp.finish(last);
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
        for listener in self.sockets.public().chain(&self.sockets.probes) {
            info!("{} on {}", listener.option, listener.address);
        }
        // The one that nobody has asked for is found by `rwsgi ctl`.
        if let (Some(file), ControlSocket::At(_)) = (&self.control.file, &self.config.control) {
            info!("control socket on {}", file.path().display());
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Child => self.reap_all(),
            Event::Stop(signal) => self.stop(signal.as_str()),
            Event::Reload(how) => self.reload(how),
            Event::Wake => self.wake(),
            Event::Renew(kind) => self.renew_auxiliaries(Some(kind)),
            Event::DaemonTouched(place) => self.daemon_touched(place),
            Event::Command(command) => self.obey(command),
            Event::Answers(generation) => self.take_answers(generation),
            Event::Notice(Notice::Ready(child)) => self.ready(child),
            Event::Notice(Notice::Enough(child)) => self.replace(child, Reason::MaxRequests),
            Event::Notice(Notice::Raised(child)) => self.replace(child, Reason::Exception),
            Event::Notice(Notice::Slow(child)) => self.hear_of_slow(child),
            Event::Call(call) => self.take_call(call),
            Event::Alarm(name, text) => self.raise_alarm(&name, &text),
            Event::Touched(Touched::Command(command)) => self.run_touch_command(&command),
            Event::Touched(Touched::Hooks(hooks)) => hooks.into_iter().for_each(|hook| self.run_hook(hook)),
            Event::Function(function) => self.give_order(function, "unix_signal"),
            Event::FromEmperor(heard) => self.hear_emperor(heard),
            Event::Heartbeat => self.send_heartbeat(),
            Event::SlowStack { slot, thread, started, stack } => self.keep_slow_stack(slot, thread, started, &stack),
            Event::Stats(asked) => self.answer_stats(asked),
            // Who asked may have gone.
            Event::Probe(answer) => drop(answer.send(self.readiness().map_err(|why| why.to_string()))),
            Event::Control(asked) => self.obey_control(*asked),
            Event::Queues { queues, good_until, asked } => self.answer_counted(queues, good_until, asked),
        }
    }

    /// Something was done that is not done all the time: its code is given back.
    fn give_back_soon(&mut self, now: Instant) {
        if self.any_ready {
            self.timers.set_earlier(Timer::GiveBack, now + A_WHILE);
        }
    }

    /// Does what a timer was set for. Its user sets it again if needed.
    fn fire(&mut self, timer: Timer, now: Instant) {
        match timer {
            Timer::Start(post) => self.children.is_due(post),
            Timer::Kill(child) => self.kill_late(child),
            Timer::UserHarakiri(child) => self.user_harakiri(child),
            Timer::MuleHarakiri(child) => self.mule_harakiri(child),
            Timer::Requests => self.watch_requests(now),
            Timer::Sizes => self.watch_sizes(now),
            Timer::Load => self.follow_load(now),
            Timer::Jobs => self.watch_jobs(now),
            Timer::Backlogs => self.look_at_backlogs(now),
            Timer::Profile => self.sample(now),
            Timer::Silence => self.watch_silence(now),
            Timer::SlowRequests => self.watch_slow(now),
            Timer::Timetable if self.phase == Phase::Serving => self.raise_scheduled(now),
            Timer::Timetable => {}
            Timer::Daemons => self.watch_daemons(now),
            Timer::Crons => self.run_crons(now, false),
            Timer::WatchdogSign => self.tell_alive(now),
            Timer::Status => self.tell_status(now),
            Timer::Drained => self.drained(),
            Timer::StopLate => self.stop_late(),
            Timer::Saturation => self.watch_saturation(now),
            Timer::OutOfMemory => {
                self.watch_out_of_memory(now);
                // Of a server that nobody asks anything, this look touches more code than all else together.
                self.give_back_soon(now);
            }
            Timer::GiveBack => give_back::memory_and_pages(),
            Timer::Canary => self.canary_is_over(),
            Timer::WorkerOrders => self.watch_worker_orders(now),
            Timer::Refork => self.cancel_refork("the process that the worker has forked is not ready in time"),
        }
    }

    /// After each event: goes on with a stop, and starts what is due.
    fn settle(&mut self, now: Instant) {
        if self.phase != Phase::Serving {
            self.proceed_with_stop();
            self.proceed_with_daemons(now);
        }
        self.proceed_with_refork();
        self.start_due(now);
        self.answer_awaited();
    }

    /// Does what the fifo, or a signal, says.
    fn obey(&mut self, command: Command) {
        match command {
            Command::Stop(false) => self.stop("master-fifo"),
            Command::Stop(true) => self.stop_at_once("master-fifo"),
            Command::Reload(how) => self.reload(how),
            Command::ReopenLog => self.reopen_log(),
            Command::RotateLog => match &self.log {
                Some(log) => log.rotate(),
                None => info!("there is no log file to put aside: set logto or daemonize"),
            },
            Command::WritePidfiles => {
                for (option, path) in [("pidfile", &self.config.pidfile), ("pidfile2", &self.config.pidfile2)] {
                    if let Some(path) = path
                        && let Err(error) = pidfile::write(option, path, None)
                    {
                        error!("{error:#}");
                    }
                }
            }
            Command::Stacks => self.log_stacks(),
            Command::Stats => self.log_stats(),
            Command::ReopenLogAndStats => {
                self.reopen_log();
                self.log_stats();
            }
            Command::OneMore => self.change_workers(true),
            Command::OneFewer => self.change_workers(false),
        }
    }

    fn reopen_log(&self) {
        match &self.log {
            Some(log) => log.reopen(),
            None => info!("there is no log file to open again: set logto, daemonize or logger"),
        }
    }

    fn log_stats(&mut self) {
        let snapshot = self.snapshot(Purpose::Document);
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
