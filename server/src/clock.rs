//! The clocks, with a type for each, so that they cannot be mixed up.

use std::ops::Add;
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// A moment of `CLOCK_MONOTONIC` in ns, which never goes back and means the same in every process of a machine, so that
/// it can lie in shared memory (an `Instant` cannot).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
#[repr(transparent)]
pub struct MonotonicNanos(u64);

impl MonotonicNanos {
    /// Now. It reads the vDSO, without a system call.
    #[must_use]
    #[inline]
    pub fn now() -> Self {
        Self(nanoseconds(read(ClockId::CLOCK_MONOTONIC)))
    }

    /// A moment as it was stored.
    #[must_use]
    #[inline]
    pub const fn from_nanos(nanoseconds: u64) -> Self {
        Self(nanoseconds)
    }

    /// The moment as it is stored, ns.
    #[must_use]
    #[inline]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The moment in µs, as systemd wants it.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0 / 1_000
    }

    /// How long after `earlier` this is, ns; 0 when it is not later. For counters: it saves a `Duration`'s division.
    #[must_use]
    #[inline]
    pub const fn nanos_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The moment N ns later; the last one that can be represented if there is none.
    #[must_use]
    #[inline]
    pub const fn after_nanos(self, nanoseconds: u64) -> Self {
        Self(self.0.saturating_add(nanoseconds))
    }

    /// How long after `earlier` this is; zero when it is not later.
    #[must_use]
    #[inline]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.nanos_since(earlier))
    }
}

impl Add<Duration> for MonotonicNanos {
    type Output = Self;

    /// The moment that much later; the last one that can be represented if there is none.
    fn add(self, later: Duration) -> Self {
        self.after_nanos(later.as_nanos().try_into().unwrap_or(u64::MAX))
    }
}

/// Unix time in µs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
#[repr(transparent)]
pub struct UnixMicros(u64);

impl UnixMicros {
    /// Now, by the system's clock: it may jump when that is set.
    #[must_use]
    pub fn now() -> Self {
        Self(nanoseconds(read(ClockId::CLOCK_REALTIME)) / 1_000)
    }

    /// A moment as it was stored.
    #[must_use]
    pub const fn from_micros(microseconds: u64) -> Self {
        Self(microseconds)
    }

    /// The moment, µs since 1970.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// The moment, whole seconds since 1970.
    #[must_use]
    pub const fn as_secs(self) -> u64 {
        self.0 / 1_000_000
    }

    /// The moment N ns later; the last one that can be represented if there is none.
    #[must_use]
    #[inline]
    pub const fn after_nanos(self, nanoseconds: u64) -> Self {
        Self(self.0.saturating_add(nanoseconds))
    }

    /// How long after `earlier` this is; zero when it is not later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// Unix time that never goes back: the system's clock as it stood once, and the monotonic clock since then.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    unix: UnixMicros,
    monotonic: MonotonicNanos,
}

impl Default for Clock {
    fn default() -> Self {
        Self { unix: UnixMicros::now(), monotonic: MonotonicNanos::now() }
    }
}

impl Clock {
    /// Unix time at a moment, which may be before this clock was made.
    #[must_use]
    pub fn unix_at(&self, moment: MonotonicNanos) -> UnixMicros {
        let (after, before) = (moment.nanos_since(self.monotonic), self.monotonic.nanos_since(moment));
        UnixMicros(self.unix.0.saturating_add(after / 1_000).saturating_sub(before / 1_000))
    }
}

/// A process's (all threads') processor time; `None` when the process is gone.
#[must_use]
pub fn processor_time(pid: Pid) -> Option<Duration> {
    // Linux's number for it (`clock_getcpuclockid(3)` makes the same, and spends a system call on whether there is such
    // a process, which reading the clock reports as well): the pid's complement above the clock's kind.
    const SCHEDULED: i32 = 2;
    clock_gettime(ClockId::from_raw(!pid.as_raw() << 3 | SCHEDULED)).ok().map(Duration::from)
}

/// The calling thread's processor time.
#[must_use]
pub fn thread_time() -> Duration {
    read(ClockId::CLOCK_THREAD_CPUTIME_ID).into()
}

#[inline]
fn read(clock: ClockId) -> TimeSpec {
    // These clocks exist on every Linux, so that there is no error to report.
    clock_gettime(clock).unwrap_or(TimeSpec::new(0, 0))
}

#[inline]
fn nanoseconds(time: TimeSpec) -> u64 {
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_s_time_is_what_the_library_s_clock_says() {
        let me = Pid::this();
        let library = || Duration::from(clock_gettime(nix::time::clock_getcpuclockid(me).unwrap()).unwrap());
        let (before, ours, after) = (library(), processor_time(me).unwrap(), library());
        assert!(before <= ours && ours <= after && !before.is_zero(), "{before:?} {ours:?} {after:?}");
        assert_eq!(processor_time(Pid::from_raw(i32::MAX >> 4)), None);
    }

    #[test]
    fn times_that_no_clock_shows_saturate() {
        let (zero, last) = (MonotonicNanos::from_nanos(0), MonotonicNanos::from_nanos(u64::MAX));
        assert_eq!(zero.since(last), Duration::ZERO);
        assert_eq!(last + Duration::MAX, last);
        let clock = Clock::default();
        assert!(clock.unix_at(zero) < clock.unix_at(last));
        assert_eq!(UnixMicros::from_micros(1).since(UnixMicros::from_micros(u64::MAX)), Duration::ZERO);
    }

    #[test]
    fn unix_time_that_never_goes_back_is_about_the_system_s() {
        let clock = Clock::default();
        let now = MonotonicNanos::now();
        assert_eq!(clock.unix_at(now + Duration::from_micros(5)).since(clock.unix_at(now)), Duration::from_micros(5));
        assert!(clock.unix_at(now).since(UnixMicros::now()) < Duration::from_secs(60));
    }
}
