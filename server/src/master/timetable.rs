//! The application's timers and crons: which signals are raised when.

use std::time::{Duration, Instant};

use rwsgi_stats::Snapshot;

use super::clock;
use crate::ipc::schedule::{Minute, When};

/// The timers of one generation.
#[derive(Debug, Default)]
pub(super) struct Timetable {
    timers: Vec<Timer>,
}

#[derive(Debug)]
struct Timer {
    signal: u8,
    when: When,
    /// When it is due next; `None` until its generation serves.
    due: Option<Instant>,
    /// How often it was raised.
    raised: u32,
    /// When it was raised last, unix seconds; 0 for never.
    last: u64,
}

impl Timetable {
    /// Adds a timer. The same one again, from another worker that loaded the application, is one timer.
    pub(super) fn add(&mut self, signal: u8, when: When) {
        let may_repeat = matches!(when, When::Every { rb: true, .. });
        if may_repeat || !self.timers.iter().any(|timer| timer.signal == signal && timer.when == when) {
            self.timers.push(Timer { signal, when, due: None, raised: 0, last: 0 });
        }
    }

    /// When the next timer is due: `Some(None)` when one is to be started.
    fn due(&self) -> Option<Option<Instant>> {
        self.timers.iter().map(|timer| timer.due).min()
    }

    /// The next moment at which something is to be done.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.due().map(|due| due.unwrap_or_else(Instant::now))
    }

    /// Starts what was added; returns the signals that are due.
    pub(super) fn tick(&mut self, now: Instant, is_first: bool) -> Vec<u8> {
        let mut raised = Vec::new();
        for timer in &mut self.timers {
            let is_due = timer.due.is_some_and(|due| due <= now);
            let (is_raised, next) = match timer.when {
                When::Every { seconds, .. } => {
                    let every = Duration::from_secs(seconds.into());
                    // From when it was due, so that it does not drift; a clock that has slept through some goes on from now.
                    let next = timer.due.filter(|_| is_due).map(|due| due + every).filter(|next| *next > now);
                    (is_due, next.unwrap_or(now + every))
                }
                When::Cron(cron) => {
                    let (minute, rest) = local_minute();
                    // As in uWSGI, the minute in which the server starts counts. That of a reload has had its turn.
                    let is_its_turn = is_due || is_first && timer.due.is_none();
                    (is_its_turn && minute.is_some_and(|minute| cron.names(&minute)), now + rest)
                }
            };
            if is_due || timer.due.is_none() {
                timer.due = Some(next);
            }
            if is_raised {
                timer.raised += 1;
                timer.last = clock::unix_micros() / 1_000_000;
                raised.push(timer.signal);
            }
        }
        let is_over = |timer: &Timer| matches!(timer.when, When::Every { times: 1.., .. }) && timer.is_spent();
        self.timers.retain(|timer| !is_over(timer));
        raised
    }

    /// Adds the timers to a reading of the server.
    pub(super) fn describe(&self, snapshot: &mut Snapshot) {
        for Timer { signal, when, raised, last, .. } in &self.timers {
            match *when {
                When::Every { seconds, times, .. } => {
                    let timer =
                        rwsgi_stats::Timer { signal: *signal, seconds, times, raised: (*raised).into(), last: *last };
                    snapshot.timers.push(timer);
                }
                When::Cron(cron) => snapshot.crons.push(rwsgi_stats::Cron {
                    minute: cron.minute,
                    hour: cron.hour,
                    day: cron.day,
                    month: cron.month,
                    week: cron.week,
                    command: format!("signal {signal}"),
                    unique: 0,
                    pid: -1,
                    started_at: *last,
                    raised: Some((*raised).into()),
                    legion: None,
                }),
            }
        }
    }
}

impl Timer {
    fn is_spent(&self) -> bool {
        matches!(self.when, When::Every { times, .. } if self.raised >= times)
    }
}

/// The present minute, local time, and how long it is to the next.
#[allow(unsafe_code)]
fn local_minute() -> (Option<Minute>, Duration) {
    let now = clock::unix_micros();
    let seconds = (now / 1_000_000) as nix::libc::time_t;
    let rest = Duration::from_micros(60_000_000 - now % 60_000_000);
    // SAFETY: all-zero is a valid `tm`, and both pointers are to locals that live through the call.
    let tm = unsafe {
        let mut tm = std::mem::zeroed::<nix::libc::tm>();
        if nix::libc::localtime_r(&raw const seconds, &raw mut tm).is_null() {
            return (None, rest);
        }
        tm
    };
    let minute =
        Minute { minute: tm.tm_min, hour: tm.tm_hour, day: tm.tm_mday, month: tm.tm_mon + 1, week: tm.tm_wday };
    (Some(minute), rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::schedule::Cron;

    #[test]
    fn a_timer_is_raised_at_its_times_and_no_more_than_so_often() {
        let start = Instant::now();
        let mut table = Timetable::default();
        table.add(7, When::Every { seconds: 2, times: 2, rb: true });
        let after = |seconds| start + Duration::from_secs(seconds);
        assert!(table.tick(start, false).is_empty());
        assert!(table.tick(after(1), false).is_empty());
        assert_eq!(table.tick(after(2), false), [7]);
        assert_eq!(table.due(), Some(Some(after(4))));
        assert_eq!(table.tick(after(10), false), [7], "what was slept through is raised once");
        assert_eq!(table.due(), None, "it is spent");
    }

    #[test]
    fn only_the_minute_that_is_named_raises_a_cron() {
        let mut table = Timetable::default();
        let each = Cron { minute: -1, hour: -1, day: -1, month: -1, week: -1 };
        table.add(7, When::Cron(each));
        let start = Instant::now();
        assert!(table.tick(start, false).is_empty(), "a reload has no part in it");
        let due = table.due().flatten().unwrap();
        assert!(due <= start + Duration::from_secs(60));
        assert_eq!(table.tick(due, false), [7]);
        let mut first = Timetable::default();
        first.add(7, When::Cron(each));
        assert_eq!(first.tick(start, true), [7]);
    }
}
