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

/// A process's (all threads') processor time in ns; `None` when the process is gone.
#[must_use]
pub fn processor_time(pid: nix::unistd::Pid) -> Option<u64> {
    let clock = nix::time::clock_getcpuclockid(pid).ok()?;
    clock_gettime(clock).ok().map(to_nanoseconds)
}

fn nanoseconds(clock: ClockId) -> u64 {
    // The two clocks exist on every Linux, so that there is no error to report.
    clock_gettime(clock).map(to_nanoseconds).unwrap_or_default()
}

fn to_nanoseconds(time: nix::sys::time::TimeSpec) -> u64 {
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
}
