//! The clock that the scoreboard is written with: nanoseconds that never go back and mean the same in every process.

use nix::time::{ClockId, clock_gettime};

/// `CLOCK_MONOTONIC` in ns. It reads the vDSO, without a system call.
#[must_use]
#[inline]
pub fn monotonic() -> u64 {
    nanoseconds(ClockId::CLOCK_MONOTONIC)
}

/// Unix time in µs, by the system's clock: it may jump when that is set.
#[must_use]
pub fn unix_micros() -> u64 {
    nanoseconds(ClockId::CLOCK_REALTIME) / 1_000
}

/// Unix time that never goes back: the system's clock as it stood once, and the monotonic clock since then.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    unix: u64,
    monotonic: u64,
}

impl Default for Clock {
    fn default() -> Self {
        Self { unix: unix_micros(), monotonic: monotonic() }
    }
}

impl Clock {
    /// Unix µs at a moment of the monotonic clock (ns), which may be before this clock was made.
    #[must_use]
    pub fn unix_at(&self, moment: u64) -> u64 {
        if moment >= self.monotonic {
            self.unix + (moment - self.monotonic) / 1_000
        } else {
            self.unix.saturating_sub((self.monotonic - moment) / 1_000)
        }
    }
}

/// A process's (all threads') processor time in ns; `None` when the process is gone.
#[must_use]
pub fn processor_time(pid: nix::unistd::Pid) -> Option<u64> {
    let clock = nix::time::clock_getcpuclockid(pid).ok()?;
    clock_gettime(clock).ok().map(to_nanoseconds)
}

/// The calling thread's processor time in ns.
#[must_use]
pub fn thread_time() -> u64 {
    nanoseconds(ClockId::CLOCK_THREAD_CPUTIME_ID)
}

fn nanoseconds(clock: ClockId) -> u64 {
    // These clocks exist on every Linux, so that there is no error to report.
    clock_gettime(clock).map(to_nanoseconds).unwrap_or_default()
}

fn to_nanoseconds(time: nix::sys::time::TimeSpec) -> u64 {
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
}
