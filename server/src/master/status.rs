//! What the supervisor is notified of: that the server is ready, that it is alive, its status.

use std::time::{Duration, Instant};

use super::state::{Master, Phase};
use super::timers::Timer;
use crate::clock::MonotonicNanos;

/// How often the status is sent.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);

impl Master {
    /// Begins to notify the supervisor, if there is one.
    pub(super) fn watch_status(&mut self, now: Instant) {
        if self.supervisor.is_there() {
            self.timers.set(Timer::Status, now);
        }
        if self.supervisor.watchdog.is_some() {
            self.timers.set(Timer::WatchdogSign, now);
        }
    }

    /// Notifies the supervisor that the first worker serves, or the next generation.
    pub(super) fn tell_ready(&mut self) {
        if !std::mem::replace(&mut self.supervisor.is_ready, true) {
            self.supervisor.notify("READY=1");
            self.report_ready();
            self.watch_status(Instant::now());
        }
    }

    /// Notifies the supervisor that the configuration is read again.
    pub(super) fn tell_reloading(&mut self) {
        self.supervisor.is_ready = false;
        self.supervisor.notify(&format!("RELOADING=1\nMONOTONIC_USEC={}", MonotonicNanos::now().as_micros()));
    }

    /// Sends the supervisor its watchdog's keep-alive.
    pub(super) fn tell_alive(&mut self, now: Instant) {
        self.supervisor.notify("WATCHDOG=1");
        if let Some(every) = self.supervisor.watchdog {
            self.timers.set(Timer::WatchdogSign, now + every / 2);
        }
    }

    /// Sends the supervisor the status line.
    pub(super) fn tell_status(&mut self, now: Instant) {
        let status = self.status_line(now);
        self.supervisor.notify(&format!("STATUS={status}"));
        self.timers.set(Timer::Status, now + STATUS_INTERVAL);
    }

    fn status_line(&mut self, now: Instant) -> String {
        let (mut busy, mut idle, mut requests) = (0, 0, 0);
        for child in self.children.workers() {
            let Some(slot) = child.slot else { continue };
            let mut is_busy = false;
            for thread in self.scoreboard.threads(slot).filter_map(|cell| cell.read().ok()) {
                requests += thread.counters.requests;
                is_busy |= thread.started.is_some();
            }
            if child.is_ready() {
                *if is_busy { &mut busy } else { &mut idle } += 1;
            }
        }
        let past = self.totals.iter().flat_map(|totals| &totals.threads);
        requests += past.map(|thread| thread.requests).sum::<u64>();
        let before = self.supervisor.counted.replace((requests, now));
        let rate = before.map_or(0.0, |(counted, at)| {
            requests.saturating_sub(counted) as f64 / now.duration_since(at).as_secs_f64().max(0.001)
        });
        let doing = match self.phase {
            Phase::Serving if self.generations.current().is_none() => "loading the application, ",
            Phase::Serving if self.is_draining => "draining, ",
            Phase::Serving => "",
            _ => "stopping, ",
        };
        format!("{doing}{} workers: {busy} busy, {idle} idle; {rate:.1} requests/s", busy + idle)
    }
}
