//! A thread that reads one server again and again, so that a server that hangs never holds up the screen.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use super::{Clock, Fetcher, Poll, Target};

/// Owner of the thread; it ends soon after this is dropped.
#[derive(Debug)]
pub(crate) struct Poller {
    interval: Sender<Duration>,
}

impl Poller {
    /// Starts reading `target` at every whole multiple of `interval` on `clock`, so that several servers are read at the
    /// same time, giving each sample to `deliver` until that returns false.
    pub(crate) fn start(
        index: usize,
        target: Target,
        interval: Duration,
        timeout: Duration,
        clock: Clock,
        deliver: impl Fn(Poll) -> bool + Send + 'static,
    ) -> std::io::Result<Self> {
        let (sender, changes) = mpsc::channel();
        let mut interval = interval;
        thread::Builder::new().name(format!("poll {index}")).spawn(move || {
            let mut fetcher = Fetcher::new(target, timeout);
            loop {
                let outcome = fetcher.fetch();
                if !deliver(Poll { target: index, at: clock.at(), taken: Clock::local(), outcome }) {
                    return;
                }
                // A slow answer skips polls rather than being followed by a burst.
                let mut next = clock.next_poll(interval);
                loop {
                    match changes.recv_timeout(next.saturating_duration_since(Instant::now())) {
                        Ok(changed) => {
                            interval = changed;
                            next = clock.next_poll(interval);
                        }
                        Err(RecvTimeoutError::Timeout) => break,
                        Err(RecvTimeoutError::Disconnected) => return,
                    }
                }
            }
        })?;
        Ok(Self { interval: sender })
    }

    /// Reads every `interval` from now on.
    pub(crate) fn set_interval(&self, interval: Duration) {
        // The thread is gone only when nobody takes its samples any more.
        let _ = self.interval.send(interval);
    }
}
