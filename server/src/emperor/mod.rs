//! The emperor: a process that runs a server, a vassal, for each configuration file of a directory.
//!
//! One loop owns all state, as in the master: small tasks wait for signals, connections and what vassals report, and send
//! the loop an [`Event`]. What becomes of a vassal is decided in [`vassals`], without a system call.
//!
//! Between emperor and vassal is uWSGI's protocol ([`crate::vassal`]), so a vassal may be a uWSGI, and a uWSGI may be the
//! emperor of vassals of ours.

mod document;
mod on_demand;
mod rights;
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
use nix::sys::signal::{Signal, kill};
use nix::unistd::geteuid;
use rwsgi_stats::Snapshot;
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};

use self::scan::Monitor;
use self::spawn::Spawn;
pub(crate) use self::start::{run_alone, run_beside};
use self::vassals::{Ended, Moment, Seen, Stage, Then, VassalId, Vassals, Verdict};
use crate::clock::UnixMicros;
use crate::master::launcher::Launcher;
use crate::master::process::{Change, End, next_change};
use crate::master::supervisor::Supervisor;
use crate::master::task::Task;
use crate::owned_file::named;
use crate::vassal::{Heard, Link, Order, Report};
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
    supervisor: Supervisor,
    /// The emperor that this one is a vassal of.
    superior: Option<Link>,
    /// Reads the configuration again; `None` for an emperor beside a server.
    reread: Option<crate::master::Reread>,
    next_scan: Instant,
    is_stopping: bool,
    started_at: UnixMicros,
    exit_status: i32,
}

impl Emperor {
    /// Runs until it is stopped and every vassal has gone; returns the exit status.
    async fn run(mut self, mut inbox: mpsc::Receiver<Event>) -> i32 {
        self.scan();
        self.supervisor.notify("READY=1");
        self.tell_status();
        if let Some(superior) = &self.superior {
            [Report::Ready, Report::Accepting, Report::Loyal].into_iter().for_each(|report| superior.tell(report));
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
            self.kill_overdue(now);
            if !self.is_stopping && self.next_scan <= now.at {
                self.scan();
            }
        }
        info!("emperor: every vassal has gone");
        self.exit_status
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

    /// Looks for vassals' files: starts, reloads and stops what has changed.
    fn scan(&mut self) {
        let now = Moment::now();
        let mut monitors = std::mem::take(&mut self.monitors);
        for (number, monitor) in monitors.iter_mut().enumerate() {
            let Some(found) = monitor.scan(number, &self.config.emperor) else { continue };
            let gone: Vec<VassalId> = self
                .vassals
                .iter()
                .filter(|vassal| vassal.id.monitor == number && !found.iter().any(|seen| seen.id == vassal.id))
                .map(|vassal| vassal.id.clone())
                .collect();
            for id in gone {
                if self.vassals.get(&id).is_some_and(|vassal| !matches!(vassal.stage, Stage::Stopping { .. })) {
                    info!("emperor: {id} was removed: stopping the vassal");
                }
                self.stop_vassal(&id, Then::Remove);
            }
            if let Some(throttle) = &mut self.vassals.throttle {
                throttle.keep(number, |name| found.iter().any(|seen| seen.id.name == name));
            }
            for seen in found {
                self.judge(seen, monitor, now);
            }
        }
        self.monitors = monitors;
        let freq = Duration::from_secs(self.config.emperor.frequency.into());
        let throttled = self.vassals.throttle.as_ref().and_then(|throttle| throttle.next(now.at));
        let regular = now.at + freq;
        self.next_scan = throttled.map_or(regular, |throttled| throttled.min(regular));
    }

    fn judge(&mut self, seen: Seen, monitor: &Monitor, now: Moment) {
        match self.vassals.judge(&seen, now) {
            Verdict::Nothing => {}
            Verdict::Add => self.add(seen, monitor),
            Verdict::Stop => {
                warn!("emperor: {} belongs to {} now: stopping the vassal", seen.id, named(seen.owner.uid));
                self.stop_vassal(&seen.id, Then::Remove);
            }
            Verdict::Reload => {
                info!("emperor: {} has changed: reloading the vassal", seen.id);
                self.reload_vassal(&seen.id, Some(seen.modified), now);
            }
        }
    }

    /// A file is new: starts its vassal, or has it wait for a connection.
    fn add(&mut self, seen: Seen, monitor: &Monitor) {
        let (id, owner, now) = (seen.id.clone(), seen.owner, Moment::now());
        let config = &self.config.emperor;
        if config.tyrant && (owner.uid == 0 || owner.gid == 0) {
            return self.give_up(
                &seen,
                "emperor-tyrant: it belongs to root, and no vassal may run as root: give it to the user that is to run it",
                now,
            );
        }
        if !config.tyrant && owner.uid != 0 && geteuid().is_root() {
            warn!(
                "emperor: {id} belongs to {}, and its vassal starts as root: who writes that file is root; set \
                 emperor-tyrant, or have root own it",
                named(owner.uid)
            );
        }
        let spawn = Spawn {
            config,
            launcher: &self.launcher,
            name: &id.name,
            directory: &monitor.directory,
            owner,
            socket: None,
        };
        let bound = on_demand::address_of(&spawn).and_then(|address| {
            let bind = |address: &String| on_demand::bind(address, &monitor.directory, self.config.listen);
            Ok((address.as_ref().map(bind).transpose()?, address))
        });
        match bound {
            Err(failure) => self.give_up(&seen, &format!("{failure:#}"), now),
            Ok((None, _)) => {
                self.vassals.add(seen, None, &monitor.name);
                self.begin(&id, &monitor.directory);
            }
            Ok((Some(fd), address)) => {
                let address = address.unwrap_or_default();
                info!("emperor: {id} starts at the first connection to {address}");
                self.vassals.add(seen, Some(address), &monitor.name);
                self.sockets.insert(id.clone(), Socket { fd, watch: None });
                self.wait(&id, now.at);
            }
        }
    }

    /// A vassal cannot be made of a file; it is tried again, less and less often.
    fn give_up(&mut self, seen: &Seen, why: &str, now: Moment) {
        let wait = self.vassals.throttle.as_mut().map(|throttle| throttle.count(&seen.id, seen.modified, now));
        // The first times differ by little.
        if wait.is_none_or(|wait| wait < Duration::from_secs(1)) {
            error!("emperor: {}: {why}", seen.id);
        }
    }

    /// Has a vassal wait for a connection, from `from` on.
    fn wait(&mut self, id: &VassalId, from: Instant) {
        self.vassals.wait(id);
        let Some(socket) = self.sockets.get_mut(id) else { return };
        match on_demand::watch(&socket.fd, id.clone(), from, self.events.clone()) {
            Ok(watch) => socket.watch = Some(watch),
            Err(failure) => {
                error!("emperor: {id}: its socket cannot be watched: {failure:#}");
                self.forget(id);
            }
        }
    }

    fn connected(&mut self, id: &VassalId) {
        if self.is_stopping || self.vassals.get(id).is_none_or(|vassal| vassal.stage != Stage::Waiting) {
            return;
        }
        info!("emperor: {id}: somebody has connected");
        let Some(directory) = self.monitors.get(id.monitor).map(|monitor| monitor.directory.clone()) else { return };
        self.begin(id, &directory);
    }

    /// Starts a vassal, after its start hook if there is one.
    fn begin(&mut self, id: &VassalId, directory: &std::path::Path) {
        let Some(hook) = self.config.emperor.start_hook.clone() else { return self.start(id, directory) };
        let Some(spawn) = self.spawn(id, directory) else { return };
        match spawn.hook(&hook, true) {
            Ok(pid) => self.vassals.hook_runs(id, pid),
            Err(failure) => {
                error!("vassals-start-hook: '{hook}' cannot be run for {id}: {failure}");
                self.start(id, directory);
            }
        }
    }

    fn spawn<'a>(&'a self, id: &'a VassalId, directory: &'a std::path::Path) -> Option<Spawn<'a>> {
        let owner = self.vassals.get(id)?.owner;
        let socket = self.sockets.get(id).map(|socket| &socket.fd);
        let (config, launcher) = (&self.config.emperor, &self.launcher);
        Some(Spawn { config, launcher, name: &id.name, directory, owner, socket })
    }

    fn start(&mut self, id: &VassalId, directory: &std::path::Path) {
        let now = Moment::now();
        let Some(started) = self.spawn(id, directory).map(|spawn| spawn.vassal()) else { return };
        match started {
            Ok((pid, stream)) => {
                let run = self.vassals.started(id, pid, now);
                info!("emperor: {id}: started (pid {pid})");
                match read(&stream, run, self.events.clone()) {
                    Ok(reader) => {
                        self.channels.insert(id.clone(), Channel { stream, _reader: reader });
                    }
                    Err(failure) => error!("emperor: {id}: its reports cannot be read: {failure}"),
                }
            }
            Err(failure) => {
                error!("emperor: {id}: cannot be started: {failure}");
                let modified = self.vassals.get(id).map(|vassal| vassal.modified);
                if let (Some(throttle), Some(modified)) = (&mut self.vassals.throttle, modified) {
                    let wait = throttle.count(id, modified, now);
                    self.next_scan = self.next_scan.min(now.at + wait);
                }
                self.forget(id);
            }
        }
        self.tell_status();
    }

    fn reload_vassal(&mut self, id: &VassalId, modified: Option<std::time::SystemTime>, now: Moment) {
        self.tell(id, Order::Reload);
        self.vassals.reloaded(id, modified, now);
    }

    fn stop_vassal(&mut self, id: &VassalId, then: Then) {
        let tolerance = Duration::from_secs(self.config.emperor.curse_tolerance.into());
        self.stop_within(id, then, tolerance);
    }

    fn stop_within(&mut self, id: &VassalId, then: Then, tolerance: Duration) {
        if self.vassals.stop(id, then, tolerance, Moment::now()) {
            let is_graceful = self.config.emperor.graceful_shutdown;
            self.tell(id, if is_graceful { Order::StopGracefully } else { Order::Stop });
        } else if self
            .vassals
            .get(id)
            .is_some_and(|vassal| matches!(vassal.stage, Stage::Waiting | Stage::BeforeStart(_)))
        {
            self.forget(id);
        }
    }

    fn tell(&self, id: &VassalId, order: Order) {
        use std::io::Write;
        if let Some(channel) = self.channels.get(id)
            && let Err(failure) = (&channel.stream).write(&[order as u8])
        {
            // It is about to be reaped, or killed when its time is over.
            warn!("emperor: {id}: cannot be told to {order:?}: {failure}");
        }
    }

    /// A vassal is gone for good.
    fn forget(&mut self, id: &VassalId) {
        self.vassals.remove(id);
        self.channels.remove(id);
        self.sockets.remove(id);
    }

    /// Takes what a vassal reports.
    fn heard(&mut self, run: u64, bytes: &[u8]) {
        let Some(id) = self.vassals.of_run(run).map(|vassal| vassal.id.clone()) else { return };
        let now = Moment::now();
        if bytes.is_empty() {
            let tolerance = Duration::from_secs(self.config.emperor.curse_tolerance.into());
            self.vassals.lost(&id, tolerance, now);
            self.channels.remove(&id);
            return;
        }
        for report in bytes.iter().filter_map(|byte| Report::of(*byte)) {
            if report == Report::Loyal {
                info!("emperor: {id} serves");
            }
            if self.vassals.heard(&id, report, now) {
                let waits = self.sockets.contains_key(&id);
                info!("emperor: {id} asks to be stopped{}", if waits { " until somebody connects" } else { "" });
                self.stop_vassal(&id, if waits { Then::Wait } else { Then::Remove });
            }
        }
    }

    /// Takes note of every process that has ended.
    fn reap(&mut self) {
        while let Some(change) = next_change() {
            let Change::Ended(reaped) = change else { continue };
            let now = Moment::now();
            match self.vassals.ended(reaped.pid, now) {
                Ended::Unknown => {}
                Ended::Hook(id) => {
                    if reaped.end != End::Exited(0) {
                        warn!("vassals-start-hook: for {id}: {}", reaped.end);
                    }
                    if let Some(directory) = self.monitors.get(id.monitor).map(|monitor| monitor.directory.clone()) {
                        self.start(&id, &directory);
                    }
                }
                Ended::Vassal(id, then, wait) => {
                    self.channels.remove(&id);
                    let again = wait.filter(|wait| wait.as_secs() > 0 && !self.is_stopping);
                    let next =
                        again.map_or_else(String::new, |wait| format!("; it is started again in {} s", wait.as_secs()));
                    match reaped.end {
                        End::Exited(0) => info!("emperor: {id} (pid {}) has left{next}", reaped.pid),
                        end => error!("emperor: {id} (pid {}) died: {end}{next}", reaped.pid),
                    }
                    self.after_vassal(&id, then, now.at + wait.unwrap_or_default());
                }
                Ended::StopHook(id, then) => {
                    if reaped.end != End::Exited(0) {
                        warn!("vassals-stop-hook: for {id}: {}", reaped.end);
                    }
                    self.after_hook(&id, then, now.at);
                }
            }
        }
        self.tell_status();
    }

    /// A vassal's process is gone: runs the stop hook if there is one.
    fn after_vassal(&mut self, id: &VassalId, then: Then, from: Instant) {
        let directory = self.monitors.get(id.monitor).map(|monitor| monitor.directory.clone());
        if let (Some(hook), Some(directory)) = (self.config.emperor.stop_hook.clone(), directory) {
            let started = self.spawn(id, &directory).map(|spawn| spawn.hook(&hook, false));
            match started {
                Some(Ok(pid)) => return self.vassals.stop_hook_runs(id, pid, then),
                Some(Err(failure)) => error!("vassals-stop-hook: '{hook}' cannot be run for {id}: {failure}"),
                None => {}
            }
        }
        self.after_hook(id, then, from);
    }

    fn after_hook(&mut self, id: &VassalId, then: Then, from: Instant) {
        match then {
            Then::Wait if !self.is_stopping => self.wait(id, from),
            _ => {
                self.forget(id);
                // Its file may still be there.
                self.next_scan = self.next_scan.min(from.max(Instant::now()));
            }
        }
    }

    fn kill_overdue(&mut self, now: Moment) {
        let config = &self.config.emperor;
        let tolerance = Duration::from_secs(config.curse_tolerance.into());
        for (id, pid, is_silent) in self.vassals.overdue(config.required_heartbeat.into(), tolerance, now) {
            match is_silent {
                true => error!("emperor: {id} (pid {pid}) has sent no heartbeat in time: killed"),
                false => error!("emperor: {id} (pid {pid}) has not stopped in time: killed"),
            }
            if let Err(failure) = kill(pid, Signal::SIGKILL) {
                error!("emperor: {id} (pid {pid}) cannot be killed: {failure}");
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

    /// Its own superior has told this emperor to reload: takes what the configuration says now, as far as it concerns
    /// vassals, and reloads them.
    fn read_again(&mut self) {
        let Some(reread) = &self.reread else { return self.reload_all() };
        let read = reread().and_then(|config| Ok((start::monitors(&config.emperor)?, config)));
        match read {
            Ok((monitors, config)) if !config.emperor.monitors.is_empty() => {
                if config.emperor.monitors == self.config.emperor.monitors {
                    self.monitors = monitors;
                    self.config.emperor = config.emperor;
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

/// Reads what a vassal reports, and tells the loop.
fn read(stream: &UnixStream, run: u64, events: mpsc::Sender<Event>) -> std::io::Result<Task> {
    use tokio::io::AsyncReadExt;
    let mut stream = tokio::net::UnixStream::from_std(stream.try_clone()?)?;
    let task = tokio::task::spawn_local(async move {
        let mut bytes = [0; 64];
        loop {
            let count = stream.read(&mut bytes).await.unwrap_or(0);
            if events.send(Event::Bytes(run, bytes[..count].to_vec())).await.is_err() || count == 0 {
                return;
            }
        }
    });
    Ok(Task(task.abort_handle()))
}

/// Passes the orders of the emperor's own superior on to the loop.
async fn obey(superior: Option<crate::vassal::Orders>, events: mpsc::Sender<Event>) -> anyhow::Result<()> {
    let mut superior = superior.context("no superior")?;
    loop {
        let (event, is_last) = match superior.next().await {
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
