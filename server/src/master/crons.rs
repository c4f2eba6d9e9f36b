//! Runs the commands of `cron` and its like: starts what is due, kills what takes too long.
//!
//! As in uWSGI, a command is not ended by a reload or by the server's end.

use std::time::Instant;

use nix::sys::signal::{Signal, killpg};
use rwsgi_config::CronsConfig;
use tracing::{error, info, warn};

use super::process::{End, Reaped};
use super::shell::{ShellCommand, shortened};
use super::state::{Master, Phase};
use super::timers::Timer;
use crate::clock::UnixMicros;

impl Master {
    /// A generation serves, and its configuration is in force. `is_first`: none did before.
    pub(super) fn renew_crons(&mut self, now: Instant, is_first: bool) {
        self.crons.renew(&self.config.crons.commands);
        self.run_crons(now, is_first);
    }

    /// Starts what is due, ends what takes too long, and sets the timer for what is next.
    pub(super) fn run_crons(&mut self, now: Instant, is_first: bool) {
        if self.phase == Phase::Serving {
            for place in self.crons.due(now, UnixMicros::now(), is_first) {
                self.start_cron(place, now);
            }
        }
        for (command, pid) in self.crons.late(now) {
            error!("cron-harakiri: {} (pid {pid}) has run for too long: killed", shortened(&command));
            // What ended a moment ago needs no signal.
            let _ = killpg(pid, Signal::SIGKILL);
        }
        match self.crons.deadline(now) {
            Some(at) if self.phase == Phase::Serving => self.timers.set(Timer::Crons, at),
            _ => self.timers.cancel(Timer::Crons),
        }
    }

    fn start_cron(&mut self, place: usize, now: Instant) {
        let Self { crons, config, launcher, .. } = self;
        let Some(command) = crons.0.get(place).map(|command| command.config.command.as_str()) else { return };
        let name = shortened(command);
        let shell = ShellCommand {
            command,
            directory: None,
            honours_stdin: false,
            uid: None,
            gid: None,
            dies_with_server: false,
            pidfile: None,
        };
        match launcher.run_shell(shell, config) {
            Ok(pid) => {
                info!("cron: running {name} (pid {pid})");
                let CronsConfig { harakiri, .. } = config.crons;
                crons.started(place, pid, now, UnixMicros::now(), harakiri);
            }
            Err(failure) => error!("cron: {name} cannot be started: {failure}"),
        }
    }

    /// Takes the end of a process that is no child. Whether it was a command's.
    pub(super) fn cron_ended(&mut self, reaped: Reaped, now: Instant) -> bool {
        let Reaped { pid, end, .. } = reaped;
        let Some((command, started, again)) = self.crons.ended(pid, UnixMicros::now()) else { return false };
        let (name, took) = (shortened(&command), now.saturating_duration_since(started).as_secs());
        match end {
            End::Exited(0) => info!("cron: {name} (pid {pid}) has ended after {took} s"),
            end => warn!("cron: {name} (pid {pid}) has ended after {took} s: {end}"),
        }
        if let Some(place) = again.filter(|_| self.phase == Phase::Serving) {
            self.start_cron(place, now);
        }
        self.run_crons(now, false);
        true
    }
}
