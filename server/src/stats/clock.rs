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
    // Linux's number for it (`clock_getcpuclockid(3)` makes the same, and spends a system call on whether there is such
    // a process, which reading the clock tells as well): the pid's complement above the clock's kind.
    const SCHEDULED: i32 = 2;
    clock_gettime(ClockId::from_raw(!pid.as_raw() << 3 | SCHEDULED)).ok().map(to_nanoseconds)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_s_time_is_what_the_library_s_clock_says() {
        let me = nix::unistd::Pid::this();
        let library = || clock_gettime(nix::time::clock_getcpuclockid(me).unwrap()).map(to_nanoseconds).unwrap();
        let (before, ours, after) = (library(), processor_time(me).unwrap(), library());
        assert!(before <= ours && ours <= after && before > 0, "{before} {ours} {after}");
        assert_eq!(processor_time(nix::unistd::Pid::from_raw(i32::MAX >> 4)), None);
    }
}
