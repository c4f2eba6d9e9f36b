//! Starts, reloads and stops vassals, as [`super::vassals`] decides.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::{Signal, kill};
use nix::unistd::geteuid;
use tokio::sync::mpsc;
use tracing::{error, info, warn};

use super::ids::{Moment, VassalId};
use super::on_demand;
use super::scan::Monitor;
use super::spawn::Spawn;
use super::vassals::{Ended, Seen, Stage, Then, Verdict};
use super::{Channel, Emperor, Event, Socket};
use crate::master::process::{Change, End, next_change};
use crate::master::task::Task;
use crate::owned_file::named;
use crate::vassal::{Order, Report};

impl Emperor {
    /// Looks for vassals' files: starts, reloads and stops what has changed.
    pub(super) fn scan(&mut self) {
        let now = Moment::now();
        let mut monitors = std::mem::take(&mut self.monitors);
        for (number, monitor) in monitors.iter_mut().enumerate() {
            let Some(found) = monitor.scan(number, &self.config.emperor) else { continue };
            let is_there = |name: &str| found.binary_search_by(|seen| seen.id.name.as_str().cmp(name)).is_ok();
            let gone: Vec<VassalId> = self
                .vassals
                .iter()
                .filter(|vassal| vassal.id.monitor == number && !is_there(&vassal.id.name))
                .map(|vassal| vassal.id.clone())
                .collect();
            for id in gone {
                if self.vassals.get(&id).is_some_and(|vassal| !matches!(vassal.stage, Stage::Stopping { .. })) {
                    info!("emperor: {id} was removed: stopping the vassal");
                }
                self.stop_vassal(&id, Then::Remove);
            }
            if let Some(throttle) = &mut self.vassals.throttle {
                throttle.keep(number, is_there);
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
            config: &self.config,
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

    pub(super) fn connected(&mut self, id: &VassalId) {
        if self.is_stopping || self.vassals.get(id).is_none_or(|vassal| vassal.stage != Stage::Waiting) {
            return;
        }
        info!("emperor: {id}: first connection: starting the vassal");
        let Some(directory) = self.monitors.get(id.monitor).map(|monitor| monitor.directory.clone()) else { return };
        self.begin(id, &directory);
    }

    /// Starts a vassal, after its start hook if there is one.
    fn begin(&mut self, id: &VassalId, directory: &Path) {
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

    fn spawn<'a>(&'a self, id: &'a VassalId, directory: &'a Path) -> Option<Spawn<'a>> {
        let owner = self.vassals.get(id)?.owner;
        let socket = self.sockets.get(id).map(|socket| &socket.fd);
        let (config, launcher) = (&self.config, &self.launcher);
        Some(Spawn { config, launcher, name: &id.name, directory, owner, socket })
    }

    fn start(&mut self, id: &VassalId, directory: &Path) {
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
                self.run_hooks(id, pid, directory);
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

    pub(super) fn reload_vassal(&mut self, id: &VassalId, modified: Option<SystemTime>, now: Moment) {
        self.tell(id, Order::Reload);
        self.vassals.reloaded(id, modified, now);
    }

    fn stop_vassal(&mut self, id: &VassalId, then: Then) {
        let tolerance = Duration::from_secs(self.config.emperor.curse_tolerance.into());
        self.stop_within(id, then, tolerance);
    }

    pub(super) fn stop_within(&mut self, id: &VassalId, then: Then, tolerance: Duration) {
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
    pub(super) fn heard(&mut self, run: u64, bytes: &[u8]) {
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
    pub(super) fn reap(&mut self) {
        while let Some(change) = next_change() {
            let Change::Ended(reaped) = change else { continue };
            if self.hook_ended(reaped) {
                continue;
            }
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

    /// Waits no longer for stop hooks: each is reaped as a hook that has failed.
    pub(super) fn kill_stop_hooks(&self) {
        for vassal in self.vassals.iter() {
            if let Stage::AfterStop(hook, _) = vassal.stage
                && let Err(failure) = kill(hook, Signal::SIGKILL)
            {
                error!("vassals-stop-hook: for {} (pid {hook}): cannot be killed: {failure}", vassal.id);
            }
        }
    }

    pub(super) fn kill_overdue(&mut self, now: Moment) {
        let config = &self.config.emperor;
        let tolerance = Duration::from_secs(config.curse_tolerance.into());
        let heartbeat = Duration::from_secs(config.required_heartbeat.into());
        for (id, pid, is_silent) in self.vassals.overdue(heartbeat, tolerance, now) {
            match is_silent {
                true => error!("emperor: {id} (pid {pid}) has sent no heartbeat in time: killed"),
                false => error!("emperor: {id} (pid {pid}) has not stopped in time: killed"),
            }
            if let Err(failure) = kill(pid, Signal::SIGKILL) {
                error!("emperor: {id} (pid {pid}) cannot be killed: {failure}");
            }
        }
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
