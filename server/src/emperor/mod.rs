//! The emperor: a process that runs a server, a vassal, for each configuration file of a directory.
//!
//! One loop owns all state, as in the master: small tasks wait for signals, connections and what vassals report, and send
//! the loop an [`Event`]. What becomes of a vassal is decided in [`vassals`], without a system call.
//!
//! Between emperor and vassal is uWSGI's protocol ([`crate::vassal`]), so a vassal may be a uWSGI, and a uWSGI may be the
//! emperor of vassals of ours.

mod as_vassal;
mod document;
mod hooks;
mod ids;
mod lifecycle;
mod on_demand;
mod scan;
mod spawn;
mod start;
mod throttle;
mod vassals;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::Context;
use rwsgi_stats::Snapshot;
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};

pub(crate) use self::as_vassal::become_vassal;
use self::hooks::HookQueue;
use self::ids::{Moment, VassalId};
use self::scan::Monitor;
pub(crate) use self::start::{run_alone, run_beside};
use self::vassals::{Stage, Then, Vassals};
use crate::clock::UnixMicros;
use crate::master::launcher::Launcher;
use crate::master::supervisor::Supervisor;
use crate::master::task::Task;
use crate::vassal::{Heard, Link, Report};
use rwsgi_config::Config;

/// What the loop takes one after another.
#[derive(Debug)]
enum Event {
    /// A signal that asks to stop; a second one asks to stop at once.
    Stop(&'static str),
    /// Every vassal is to reload.
    ReloadAll,
    /// The emperor's own configuration is to be read again.
    ReadAgain,
    /// Look for files now.
    Scan,
    /// Log the state of the vassals.
    Log,
    /// Nothing is held against any vassal any more.
    Forgive,
    /// A process has ended.
    Child,
    /// The vassal of this run has sent bytes; none for the end.
    Bytes(u64, Vec<u8>),
    /// Somebody has connected to a vassal that waits.
    Connected(VassalId),
    /// Somebody wants to know how the vassals are doing.
    Stats(oneshot::Sender<Snapshot>),
}

/// The connection to a running vassal.
struct Channel {
    stream: UnixStream,
    /// Reads what it reports.
    _reader: Task,
}

/// The socket of a vassal that starts on demand.
struct Socket {
    fd: OwnedFd,
    /// Waits for a connection while the vassal does not run.
    watch: Option<Task>,
}

/// The loop's state.
struct Emperor {
    config: Config,
    launcher: Launcher,
    monitors: Vec<Monitor>,
    vassals: Vassals,
    channels: HashMap<VassalId, Channel>,
    sockets: HashMap<VassalId, Socket>,
    events: mpsc::Sender<Event>,
    hook_queue: HookQueue,
    supervisor: Supervisor,
    /// The emperor that this one is a vassal of.
    own_emperor: Option<Link>,
    /// Reads the configuration again; `None` for an emperor beside a server.
    reread: Option<crate::master::Reread>,
    next_scan: Instant,
    is_stopping: bool,
    started_at: UnixMicros,
    exit_status: i32,
}

impl Emperor {
    /// Runs until it is stopped and every vassal has gone; returns the exit status.
    ///
    /// # Errors
    /// When a hook of its start fails.
    async fn run(mut self, mut inbox: mpsc::Receiver<Event>) -> anyhow::Result<i32> {
        self.run_first_hooks()?;
        self.scan();
        self.supervisor.notify("READY=1");
        self.tell_status();
        if let Some(own_emperor) = &self.own_emperor {
            [Report::Ready, Report::Accepting, Report::Loyal].into_iter().for_each(|report| own_emperor.tell(report));
        }
        let mut next_sign = self.supervisor.watchdog.map(|_| Instant::now());
        while !(self.is_stopping && self.vassals.iter().next().is_none()) {
            let wake = [self.next_due(), next_sign].into_iter().flatten().min();
            let event = tokio::select! {
                event = inbox.recv() => event,
                () = sleep_until(wake) => None,
            };
            if let Some(event) = event {
                self.take(event);
            }
            let now = Moment::now();
            if let (Some(at), Some(every)) = (next_sign, self.supervisor.watchdog)
                && at <= now.at
            {
                self.supervisor.notify("WATCHDOG=1");
                next_sign = Some(now.at + every / 2);
            }
            if self.next_due().is_some_and(|due| due <= now.at) {
                self.kill_overdue(now);
            }
            if !self.is_stopping && self.next_scan <= now.at {
                self.scan();
            }
        }
        info!("emperor: every vassal has gone");
        if self.config.emperor.is_alone {
            crate::master::hooks::at_the_end(&mut self.config);
        }
        Ok(self.exit_status)
    }

    /// When there is something to do although nothing happens.
    fn next_due(&self) -> Option<Instant> {
        let scan = (!self.is_stopping).then_some(self.next_scan);
        [scan, self.vassals.next_kill()].into_iter().flatten().min()
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Stop(by) => self.stop(by),
            Event::ReloadAll => self.reload_all(),
            Event::ReadAgain => self.read_again(),
            Event::Scan => self.next_scan = Instant::now(),
            Event::Log => self.log_state(),
            Event::Forgive => {
                if let Some(throttle) = &mut self.vassals.throttle {
                    throttle.clear();
                }
                self.next_scan = Instant::now();
            }
            Event::Child => self.reap(),
            Event::Bytes(run, bytes) => self.heard(run, &bytes),
            Event::Connected(id) => self.connected(&id),
            // Who asked may be gone.
            Event::Stats(answer) => {
                let is_tyrant = self.config.emperor.tyrant;
                let _ = answer.send(document::document(&self.vassals, &self.monitors, is_tyrant, self.started_at));
            }
        }
    }

    fn stop(&mut self, by: &str) {
        let ids: Vec<VassalId> = self.vassals.iter().map(|vassal| vassal.id.clone()).collect();
        let mercy = Duration::from_secs(self.config.reload_mercy.into());
        // A vassal of the same mercy kills what is late in time.
        let grace = if self.is_stopping { Duration::ZERO } else { mercy + Duration::from_secs(2) };
        if self.is_stopping {
            warn!("{by} again: killing what is left of the vassals");
            self.kill_stop_hooks();
        } else {
            info!("{by}: stopping {} vassals", ids.len());
            self.supervisor.notify("STOPPING=1");
        }
        self.is_stopping = true;
        for id in ids {
            self.stop_within(&id, Then::Remove, grace);
        }
    }

    fn reload_all(&mut self) {
        info!("emperor: reloading every vassal");
        let now = Moment::now();
        let running = self.vassals.iter().filter(|vassal| matches!(vassal.stage, Stage::Running(_)));
        for id in running.map(|vassal| vassal.id.clone()).collect::<Vec<_>>() {
            self.reload_vassal(&id, None, now);
        }
        self.next_scan = now.at;
    }

    /// Its own own_emperor has told this emperor to reload: takes what the configuration says now, as far as it concerns
    /// vassals, and reloads them.
    fn read_again(&mut self) {
        let Some(reread) = &self.reread else { return self.reload_all() };
        let read = reread().and_then(|config| Ok((start::monitors(&config.emperor)?, config)));
        match read {
            Ok((monitors, config)) if !config.emperor.monitors.is_empty() => {
                if config.emperor.monitors == self.config.emperor.monitors {
                    self.monitors = monitors;
                    self.config.emperor = config.emperor;
                    (self.config.hooks, self.config.env, self.config.unenv) = (config.hooks, config.env, config.unenv);
                } else {
                    warn!("reload: emperor cannot change while it runs: it stays {:?}", self.config.emperor.monitors);
                }
            }
            Ok(_) => error!("reload: the configuration names no vassals any more: going on as before"),
            Err(failure) => error!("reload: going on as before: {failure:#}"),
        }
        self.reload_all();
    }

    fn log_state(&self) {
        for vassal in self.vassals.iter() {
            let record = &vassal.record;
            info!(
                "emperor: {} (pid {}): {:?}, loyal {}, last modified {}, {} reloads",
                vassal.id, record.pid, vassal.stage, record.loyal, record.last_mod, record.respawns
            );
        }
    }

    fn tell_status(&self) {
        let running = self.vassals.iter().filter(|vassal| vassal.pid().is_some()).count();
        self.supervisor.notify(&format!("STATUS=The emperor governs {running} vassals"));
    }
}

/// Passes the orders of the emperor's own own_emperor on to the loop.
async fn obey(own_emperor: Option<crate::vassal::Orders>, events: mpsc::Sender<Event>) -> anyhow::Result<()> {
    let mut own_emperor = own_emperor.context("no own_emperor")?;
    loop {
        let (event, is_last) = match own_emperor.next().await {
            Heard::Reload => (Event::ReadAgain, false),
            Heard::Stop => (Event::Stop("the emperor of this emperor"), false),
            Heard::Lost => (Event::Stop("lost connection with the emperor of this emperor"), true),
        };
        events.send(event).await?;
        if is_last {
            return Ok(());
        }
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}
