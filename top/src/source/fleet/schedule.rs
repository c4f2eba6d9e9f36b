//! When each server of a fleet is asked, and when all of them have been.

use std::time::{Duration, Instant};

/// Servers are asked in so many groups at most, spread over the interval.
const MOST_GROUPS: u32 = 50;
/// No two groups are nearer to each other.
const LEAST_GAP: Duration = Duration::from_millis(20);
/// The first round takes no longer.
const FIRST_ROUND: Duration = Duration::from_millis(250);
/// A server that fails is asked after 1, 2, 4 … s, but no later than this.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Times, by the servers' slots.
#[derive(Debug)]
pub(super) struct Schedule {
    origin: Instant,
    interval: Duration,
    sweep: Option<Instant>,
}

impl Schedule {
    pub(super) fn new(origin: Instant, interval: Duration) -> Self {
        Self { origin, interval, sweep: None }
    }

    /// When it began.
    pub(super) fn origin(&self) -> Instant {
        self.origin
    }

    pub(super) fn set_interval(&mut self, interval: Duration) {
        self.interval = interval;
        if let Some(sweep) = &mut self.sweep {
            *sweep = (*sweep).min(Instant::now() + interval);
        }
    }

    /// Where in the interval a slot has its place. Neighbours are far from each other, and few slots are spread evenly as well.
    fn phase(&self, slot: usize) -> Duration {
        let groups = (self.interval.as_nanos() / LEAST_GAP.as_nanos()).clamp(1, u128::from(MOST_GROUPS)) as u32;
        let part = (slot as f64 * 0.618_033_988_749_895).fract();
        self.interval * ((part * f64::from(groups)) as u32) / groups
    }

    /// When a server that was just named is asked.
    pub(super) fn first(&self, slot: usize, now: Instant) -> Instant {
        now + self.phase(slot).mul_f64((FIRST_ROUND.as_secs_f64() / self.interval.as_secs_f64()).min(1.0))
    }

    /// When it is asked after an answer: at its place, half an interval away at least.
    pub(super) fn next(&self, slot: usize, now: Instant) -> Instant {
        let (interval, phase) = (self.interval.as_nanos().max(1), self.phase(slot).as_nanos());
        let earliest = now.saturating_duration_since(self.origin).as_nanos() + interval / 2;
        let rounds = earliest.saturating_sub(phase).div_ceil(interval);
        self.origin + Duration::from_nanos(u64::try_from(rounds * interval + phase).unwrap_or(u64::MAX / 2))
    }

    /// When it is asked after so many failures in a row.
    pub(super) fn after_failure(&self, slot: usize, failures: u32, now: Instant) -> Instant {
        let pause = Duration::from_secs(1 << failures.saturating_sub(1).min(5)).min(LONGEST_PAUSE);
        // The first failure is followed by a usual poll.
        let longer = if failures > 1 { pause.saturating_sub(self.interval / 2) } else { Duration::ZERO };
        self.next(slot, now + longer)
    }

    /// When the next sweep ends; `None` until the first one has.
    pub(super) fn sweep(&self) -> Option<Instant> {
        self.sweep
    }

    /// Whether a sweep ends now; the next one does at the next whole interval.
    pub(super) fn take_sweep(&mut self, now: Instant) -> bool {
        if self.sweep.is_some_and(|sweep| now < sweep) {
            return false;
        }
        let interval = self.interval.as_nanos().max(1);
        let earliest = now.saturating_duration_since(self.origin).as_nanos() + interval / 2;
        let next = u64::try_from(earliest.div_ceil(interval) * interval).unwrap_or(u64::MAX / 2);
        self.sweep = Some(self.origin + Duration::from_nanos(next));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn polls_are_spread_over_the_interval_in_groups() {
        let origin = Instant::now();
        let schedule = Schedule::new(origin, SECOND);
        let mut groups = [0; 50];
        for slot in 0..500 {
            let due = schedule.next(slot, origin + 5 * SECOND) - origin;
            groups[(due.subsec_millis() / 20) as usize] += 1;
        }
        assert!(groups.iter().all(|count| (5..=15).contains(count)), "{groups:?}");
        // At an interval of 10 ms there is but one.
        let fast = Schedule::new(origin, Duration::from_millis(10));
        assert!((0..100).all(|slot| fast.phase(slot).is_zero()));
    }

    #[test]
    fn an_answer_is_followed_by_a_poll_of_the_same_place_in_the_interval() {
        let origin = Instant::now();
        let schedule = Schedule::new(origin, SECOND);
        for slot in 0..50 {
            let first = schedule.next(slot, origin + 9 * SECOND);
            // Whether the answer takes 1 or 400 ms.
            for late in [1, 400] {
                assert_eq!(schedule.next(slot, first + Duration::from_millis(late)), first + SECOND);
            }
            let skipped = schedule.next(slot, first + Duration::from_millis(600));
            assert_eq!(skipped, first + 2 * SECOND);
        }
    }

    #[test]
    fn a_server_that_fails_is_asked_less_and_less_often() {
        let origin = Instant::now();
        let schedule = Schedule::new(origin, SECOND);
        let due = schedule.next(7, origin);
        let pauses: Vec<u64> = (1..9).map(|n| (schedule.after_failure(7, n, due) - due).as_secs()).collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30, 30]);
        // A long interval is no shorter for it.
        let slow = Schedule::new(origin, 60 * SECOND);
        let due = slow.next(7, origin);
        assert_eq!(slow.after_failure(7, 9, due) - due, 60 * SECOND);
    }

    #[test]
    fn sweeps_end_once_an_interval_after_the_first() {
        let origin = Instant::now();
        let mut schedule = Schedule::new(origin, SECOND);
        assert!(schedule.take_sweep(origin + Duration::from_millis(300)));
        assert!(!schedule.take_sweep(origin + Duration::from_millis(900)));
        assert!(schedule.take_sweep(origin + Duration::from_millis(1_003)));
        assert_eq!(schedule.sweep(), Some(origin + 2 * SECOND));
    }
}
