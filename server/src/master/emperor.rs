//! The emperor beside a server: a process that the master starts and stops.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tracing::{error, info};

use super::children::Ended;
use super::launcher::EMPEROR_ROLE;
use super::post::Post;
use super::process::{Reaped, signal};
use super::state::{Master, Phase};

impl Master {
    /// Starts the emperor.
    pub(super) fn start_emperor(&mut self, now: Instant) {
        let Some(child) = self.begin(Post::Emperor, None, now) else { return };
        let started = self
            .setup(None, &self.config, Vec::new())
            .and_then(|setup| Ok(self.launcher.start(EMPEROR_ROLE, None, &setup)?));
        match started {
            Ok((pid, channel)) => {
                info!("emperor started (pid {pid})");
                self.emperor_channel = Some(channel);
                // It was ordered this moment, so it was not ordered to leave.
                let _ = self.children.announce(child, pid);
            }
            Err(failure) => self.start_failed(child, &format!("{failure:#}")),
        }
    }

    /// The emperor has ended.
    pub(super) fn emperor_ended(&mut self, ended: &Ended, reaped: Reaped) {
        self.emperor_channel = None;
        if self.phase == Phase::Serving {
            let delay = ended.next.unwrap_or(Duration::ZERO).as_secs();
            error!("emperor (pid {}) died: {}; starting another in {delay} s", reaped.pid, reaped.end);
        }
    }

    /// The server has reloaded, and so do the vassals.
    pub(super) fn reload_vassals(&self) {
        for pid in self.children.of(Post::Emperor).filter_map(|child| child.pid) {
            signal(pid, Signal::SIGHUP);
        }
    }
}
