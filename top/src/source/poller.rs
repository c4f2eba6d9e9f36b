//! A thread that reads one server again and again, so that a server that hangs never holds up the screen.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::{Reader, Sample, Target, fetch};

/// The two clocks that a sample is stamped with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock whose `at` counts from now.
    pub(crate) fn start() -> Self {
        Self { origin: Instant::now() }
    }

    /// µs since the start, never going back.
    pub(crate) fn at(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// The next whole multiple of `interval` since the start.
    fn beat_after(&self, interval: Duration) -> Instant {
        let passed = self.origin.elapsed();
        let into = passed.as_nanos() % interval.as_nanos().max(1);
        self.origin + passed + interval.saturating_sub(Duration::from_nanos(into as u64))
    }

    /// Unix µs by this machine.
    pub(crate) fn unix() -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
    }
}

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
        deliver: impl Fn(Sample) -> bool + Send + 'static,
    ) -> std::io::Result<Self> {
        let (sender, changes) = mpsc::channel();
        let mut interval = interval;
        thread::Builder::new().name(format!("poll {index}")).spawn(move || {
            let mut reader = Reader::default();
            loop {
                let outcome = fetch(&target, timeout, &mut reader);
                if !deliver(Sample { target: index, at: clock.at(), taken: Clock::unix(), outcome }) {
                    return;
                }
                // A slow answer skips beats rather than being followed by a burst.
                let mut next = clock.beat_after(interval);
                loop {
                    match changes.recv_timeout(next.saturating_duration_since(Instant::now())) {
                        Ok(changed) => {
                            interval = changed;
                            next = clock.beat_after(interval);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beats_are_whole_multiples_and_lie_ahead() {
        let clock = Clock { origin: Instant::now() - Duration::from_millis(10_250) };
        for (interval, beat) in [(1_000, 11_000), (5_000, 15_000), (60_000, 60_000)] {
            let next = clock.beat_after(Duration::from_millis(interval));
            assert_eq!(next - clock.origin, Duration::from_millis(beat), "{interval}");
        }
    }
}
