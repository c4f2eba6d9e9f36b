//! Programs that the server starts, watches and stops: `attach-daemon` and the like.
//!
//! As in uWSGI, they are started once the application is loaded and the server has become its user; a reload ends those
//! that have no pidfile and starts the configured ones when they have left; a chain reload leaves them alone. A stop ends
//! them when the workers have left, since requests may need them until then.

mod group;
mod programs;
pub(super) mod running;
#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use tracing::{error, info, warn};

use self::programs::{Look, Told};
use super::events::Event;
use super::process::Reaped;
use super::shell::{ShellCommand, in_place, shortened};
use super::state::{Master, Phase};
use super::task::Task;
use super::timers::Timer;
use super::touch;
use crate::clock::UnixMicros;

/// How long a program has to leave, unless `reload-mercy` says something else; as in uWSGI.
const GRACE: Duration = Duration::from_secs(3);

impl Master {
    /// A generation serves, and its configuration is in force.
    pub(super) fn renew_daemons(&mut self, now: Instant) {
        let grace = self.daemons_grace();
        let Self { daemons, config, events, .. } = self;
        let told = daemons.programs.renew(&config.daemons.programs, grace, now);
        let watches = config.daemons.programs.iter().enumerate().filter_map(|(place, program)| {
            let order = move || Event::DaemonTouched(place);
            let watch = touch::watch_files("attach-daemon2: touch", &program.touch, order, events)?;
            Some(Task(watch.abort_handle()))
        });
        daemons.watches = watches.collect();
        tell(&told);
        self.watch_daemons(now);
    }

    fn daemons_grace(&self) -> Duration {
        match self.config.given.iter().any(|(name, _)| name == "reload-mercy") {
            true => self.grace(),
            false => GRACE,
        }
    }

    /// Does what is due, and sets the timer for what is due next.
    pub(super) fn watch_daemons(&mut self, now: Instant) {
        for (command, pid) in self.daemons.programs.see_off(group::is_left, now) {
            warn!("daemon {} (pid {pid}) did not leave in time: killed", shortened(&command));
            group::kill_group(pid);
        }
        for place in self.daemons.programs.places_to_look_at(now) {
            self.look_at_pidfile(place, now);
        }
        for place in self.daemons.programs.due(now) {
            self.start_daemon(place, now);
        }
        // What was started just now may need a look.
        let _ = self.daemons.programs.places_to_look_at(now);
        match self.daemons.programs.deadline(now) {
            Some(at) => self.timers.set(Timer::Daemons, at),
            None => self.timers.cancel(Timer::Daemons),
        }
    }

    fn start_daemon(&mut self, place: usize, now: Instant) {
        let Self { daemons, config, launcher, .. } = self;
        let programs = &mut daemons.programs;
        let Some(program) = programs.list.get(place) else { return };
        let daemon = &program.config;
        let name = shortened(&daemon.command);
        if let Some(pid) = daemon.pidfile.as_deref().and_then(group::named_in) {
            info!("daemon {name} runs already (pid {pid}), as its pidfile says");
            return programs.adopted(place, pid);
        }
        let shell = ShellCommand {
            command: &in_place(&daemon.command),
            directory: daemon.chdir.as_deref(),
            honours_stdin: daemon.honour_stdin || config.daemons.honour_stdin,
            uid: daemon.uid,
            gid: daemon.gid,
            dies_with_server: daemon.pidfile.is_none(),
            pidfile: daemon.pidfile.as_deref().filter(|_| daemon.daemonize),
        };
        match launcher.run_shell(shell, config) {
            Ok(pid) => {
                info!("daemon {name} started (pid {pid})");
                programs.started(place, pid, now, UnixMicros::now().as_secs());
            }
            Err(failure) => {
                let delay = programs.not_started(place, now).as_secs();
                error!("daemon {name} cannot be started: {failure}; trying again in {delay} s");
            }
        }
    }

    fn look_at_pidfile(&mut self, place: usize, now: Instant) {
        let programs = &mut self.daemons.programs;
        let Some(daemon) = programs.list.get(place).map(|program| &program.config) else { return };
        let Some(pidfile) = daemon.pidfile.clone() else { return };
        let (name, path) = (shortened(&daemon.command), pidfile.display());
        match programs.looked(place, group::named_in(&pidfile), now) {
            Look::AsBefore => {}
            Look::Changed(pid) => info!("daemon {name} is process {pid}, as '{path}' says"),
            Look::NotDaemonized => warn!(
                "daemon {name} has not written '{path}', and runs in the foreground: let it go to the background, or \
                 have the pidfile written with smart-attach-daemon2 or daemonize=1"
            ),
            Look::Gone(delay) => {
                error!("daemon {name} is gone: '{path}' names no process; starting it again{}", after(delay));
            }
        }
    }

    /// Takes the end of a process that is no child. Whether it was a program's.
    pub(super) fn daemon_ended(&mut self, reaped: Reaped, now: Instant) -> bool {
        let Some(ended) = self.daemons.programs.ended(reaped.pid, now) else { return false };
        let (name, Reaped { pid, end, .. }) = (shortened(&ended.command), reaped);
        match ended.next {
            None => info!("daemon {name} (pid {pid}): {end}"),
            Some(_) if ended.is_control => error!("daemon {name} (pid {pid}) ended: {end}"),
            Some(delay) => error!("daemon {name} (pid {pid}) ended: {end}; starting it again{}", after(delay)),
        }
        if ended.is_control && self.phase == Phase::Serving {
            self.stop("attach-control-daemon");
        }
        self.watch_daemons(now);
        true
    }

    /// A file has changed that a program is to learn of.
    pub(super) fn daemon_touched(&mut self, place: usize) {
        let Some(program) = self.daemons.programs.list.get(place) else { return };
        let Some(pid) = program.pid() else { return };
        let signal = program.config.stop_signal;
        info!("daemon {} (pid {pid}) is sent signal {signal}", shortened(&program.config.command));
        group::signal_group(pid, signal);
    }

    /// While the server stops: the programs leave when the workers have.
    pub(super) fn proceed_with_daemons(&mut self, now: Instant) {
        if self.phase < Phase::WorkersLeave || !self.children.is_empty() || self.daemons.have_left() {
            return;
        }
        if !self.daemons.programs.list.is_empty() {
            self.daemons.watches.clear();
            let grace = self.daemons_grace();
            tell(&self.daemons.programs.stop(grace, now));
        }
        self.watch_daemons(now);
    }

    /// Ends the programs at once.
    pub(super) fn kill_daemons(&mut self) {
        let now = Instant::now();
        let told = self.daemons.programs.stop(Duration::ZERO, now);
        tell(&told);
        self.daemons.programs.end_grace(now);
        self.watch_daemons(now);
    }
}

fn tell(told: &[Told]) {
    for Told { command, pid, signal } in told {
        info!("daemon {} (pid {pid}) is sent signal {signal}", shortened(command));
        group::signal_group(*pid, *signal);
    }
}

fn after(delay: Duration) -> String {
    if delay.is_zero() { String::new() } else { format!(" in {} s", delay.as_secs()) }
}
