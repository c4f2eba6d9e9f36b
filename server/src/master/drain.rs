//! `drain-delay`: a server that is told to stop goes on accepting for a while, in which it says that it is not ready and closes
//! connections after each response. Balancers meanwhile send requests elsewhere. Then it stops as without the option.

use std::time::{Duration, Instant};

use tracing::info;

use super::state::{Master, Phase};
use super::timers::Timer;

/// What a service manager that was told how long a stop takes is told more, for what is done between its steps.
const MARGIN: Duration = Duration::from_secs(5);

impl Master {
    /// Begins to drain, unless there is nothing to drain, or it is done so already; returns whether the stop has to wait.
    pub(super) fn drain(&mut self, by: &str) -> bool {
        let delay = Duration::from_secs(self.config.probes.drain_delay.into());
        // One that never served is in nobody's list.
        if delay.is_zero() || self.is_draining || self.generations.current().is_none() {
            return false;
        }
        info!(
            "{by}: draining: requests are accepted for {} s more, and /-/ready says no; the next order to stop ends this",
            delay.as_secs()
        );
        self.is_draining = true;
        self.scoreboard.limits().close_connections();
        self.timers.set(Timer::Drained, Instant::now() + delay);
        // systemd's own time for a stop may be shorter than the delay.
        let needed = delay + self.grace() + MARGIN;
        self.supervisor.notify(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={}", needed.as_micros()));
        true
    }

    /// The delay is over.
    pub(super) fn drained(&mut self) {
        if self.phase == Phase::Serving {
            info!("drained: stopping after the requests in progress");
            self.begin_stop();
        }
    }

    /// Whether the server was told to stop.
    pub(super) fn is_stopping(&self) -> bool {
        self.is_draining || self.phase != Phase::Serving
    }
}
