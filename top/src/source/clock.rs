//! The three clocks, each a type of its own, so that no time of one can be compared with a time of another.
//!
//! Servers stand on other machines, and clocks are set: only [`Monotonic`] tells how long ago something was. The other two
//! are shown, and subtracted from what the same clock said.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rwsgi_stats::Snapshot;

/// Time since rtop started (a recording: since it began), in µs, on a clock that only goes forward: what order, ages and
/// the history go by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Monotonic(u64);

impl Monotonic {
    /// Later than everything.
    pub(crate) const MAX: Self = Self(u64::MAX);

    /// So many µs after the start.
    pub(crate) const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// µs since the start.
    pub(crate) const fn as_micros(self) -> u64 {
        self.0
    }

    /// The time since an earlier moment; zero when it is later.
    pub(crate) const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// The moment so much later.
    pub(crate) fn after(self, time: Duration) -> Self {
        Self(self.0.saturating_add(micros(time)))
    }

    /// The moment so much earlier, or the start.
    pub(crate) fn before(self, time: Duration) -> Self {
        Self(self.0.saturating_sub(micros(time)))
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Unix µs by this machine's clock, which may be set back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct LocalMicros(pub(crate) u64);

/// Unix µs by a server's clock: comparable with what the same server's documents say, and with nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ServerMicros(pub(crate) u64);

impl ServerMicros {
    /// What a document says; where it tells no time, as uWSGI's, its server's clock is taken to agree with this machine's.
    pub(crate) fn of(snapshot: &Snapshot, local: LocalMicros) -> Self {
        snapshot.now.map_or(Self::agreeing_with(local), Self)
    }

    /// What a clock that agrees with this machine's says.
    pub(crate) const fn agreeing_with(local: LocalMicros) -> Self {
        Self(local.0)
    }

    /// Unix seconds.
    pub(crate) const fn seconds(self) -> u64 {
        self.0 / 1_000_000
    }

    /// The time since something that the server told in unix µs; zero when that lies ahead.
    pub(crate) const fn since(self, told: u64) -> Duration {
        Duration::from_micros(self.0.saturating_sub(told))
    }
}

/// What samples are stamped by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock that counts from now.
    pub(crate) fn start() -> Self {
        Self { origin: Instant::now() }
    }

    /// The time since the start.
    pub(crate) fn at(&self) -> Monotonic {
        Monotonic(micros(self.origin.elapsed()))
    }

    /// The next whole multiple of `interval` since the start.
    pub(crate) fn next_poll(&self, interval: Duration) -> Instant {
        let passed = self.origin.elapsed();
        let into = passed.as_nanos() % interval.as_nanos().max(1);
        self.origin + passed + interval.saturating_sub(Duration::from_nanos(into as u64))
    }

    /// The time by this machine's clock.
    pub(crate) fn local() -> LocalMicros {
        LocalMicros(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, micros))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn polls_are_whole_multiples_and_lie_ahead() {
        let clock = Clock { origin: Instant::now() - Duration::from_millis(10_250) };
        for (interval, expected) in [(1_000, 11_000), (5_000, 15_000), (60_000, 60_000)] {
            let next = clock.next_poll(Duration::from_millis(interval));
            assert_eq!(next - clock.origin, Duration::from_millis(expected), "{interval}");
        }
    }

    #[test]
    fn a_moment_that_lies_ahead_was_no_time_ago() {
        let (earlier, later) = (Monotonic::from_micros(5), Monotonic::from_micros(7));
        assert_eq!((later.since(earlier), earlier.since(later)), (Duration::from_micros(2), Duration::ZERO));
        assert_eq!(Monotonic::MAX.after(Duration::from_secs(1)), Monotonic::MAX);
        assert_eq!(earlier.before(Duration::MAX), Monotonic::default());
    }
}
