//! When something is due that comes again and again ([`Schedule`]), and the application's timers and crons: which signals
//! are raised when.

use std::time::{Duration, Instant};

use rwsgi_stats::Snapshot;

use tracing::warn;

use crate::clock::UnixMicros;
use crate::ipc::schedule::{Cron, Minute, When};
use crate::local_time;

/// Timers of one generation: more are refused.
const MOST_TIMERS: usize = 1024;
/// When the clock is set back by less than this, what names a certain minute is not raised again; a change by more is
/// taken for a correction of what was wrong before, as cron(8) does it. Minutes.
const SET_BACK: u64 = 3 * 60;

/// The timers of one generation.
#[derive(Debug, Default)]
pub(super) struct Timetable {
    timers: Vec<Timer>,
}

#[derive(Debug)]
struct Timer {
    signal: u8,
    schedule: Schedule,
}

/// When one thing is due, again and again.
#[derive(Debug)]
pub(super) struct Schedule {
    when: When,
    /// When it is to be looked at next; `None` before the first look.
    due: Option<Instant>,
    /// How often it was due.
    raised: u32,
    /// When it was due last, unix seconds; 0 for never.
    last: u64,
}

impl Schedule {
    /// One that was not looked at yet.
    pub(super) fn new(when: When) -> Self {
        Self { when, due: None, raised: 0, last: 0 }
    }

    /// When it is to be looked at.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// Looks whether it is due, and begins with the first look. `is_first`: the server has just started.
    pub(super) fn tick(&mut self, now: Instant, unix: UnixMicros, is_first: bool) -> bool {
        let seconds = unix.as_secs();
        let has_come = self.due.is_some_and(|due| due <= now);
        let (is_due, next) = match self.when {
            When::Every { seconds, .. } => {
                // A shorter period would keep the loop busy with nothing else.
                let every = Duration::from_secs(seconds.max(1).into());
                // From when it was due, so that it does not drift; a clock that has slept through some goes on from
                // now.
                let next = self.due.filter(|_| has_come).map(|due| due + every).filter(|next| *next > now);
                (has_come, next.unwrap_or(now + every))
            }
            When::Cron(cron) => {
                // As in uWSGI, the minute in which the server starts counts. That of a reload has had its turn.
                let is_its_turn = has_come || is_first && self.due.is_none();
                let is_named = || local_minute(seconds).is_some_and(|minute| cron.names(&minute));
                let rest = Duration::from_micros(60_000_000 - unix.as_micros() % 60_000_000);
                (is_its_turn && is_news(&cron, self.last, seconds) && is_named(), now + rest)
            }
        };
        if has_come || self.due.is_none() {
            self.due = Some(next);
        }
        if is_due {
            self.raised += 1;
            self.last = seconds;
        }
        is_due
    }

    fn is_spent(&self) -> bool {
        matches!(self.when, When::Every { times: times @ 1.., .. } if self.raised >= times)
    }
}

impl Timetable {
    /// Adds a timer. The same one again, from another worker that loaded the application, is one timer.
    pub(super) fn add(&mut self, signal: u8, when: When) {
        let may_repeat = matches!(when, When::Every { rb: true, .. });
        if !may_repeat && self.timers.iter().any(|timer| timer.signal == signal && timer.schedule.when == when) {
            return;
        }
        if self.timers.len() >= MOST_TIMERS {
            warn!("signal {signal}: its timer is not kept: there are {MOST_TIMERS} already");
            return;
        }
        self.timers.push(Timer { signal, schedule: Schedule::new(when) });
    }

    /// When the next timer is due: `Some(None)` when one is to be started.
    fn due(&self) -> Option<Option<Instant>> {
        self.timers.iter().map(|timer| timer.schedule.due).min()
    }

    /// The next moment at which something is to be done.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.due().map(|due| due.unwrap_or_else(Instant::now))
    }

    /// Starts what was added; returns the signals that are due.
    pub(super) fn tick(&mut self, now: Instant, is_first: bool) -> Vec<u8> {
        self.tick_at(now, UnixMicros::now(), is_first)
    }

    /// The same when the system's clock shows `unix`.
    fn tick_at(&mut self, now: Instant, unix: UnixMicros, is_first: bool) -> Vec<u8> {
        let due =
            self.timers.iter_mut().filter_map(|timer| timer.schedule.tick(now, unix, is_first).then_some(timer.signal));
        let raised = due.collect();
        self.timers.retain(|timer| !timer.schedule.is_spent());
        raised
    }

    /// Adds the timers to a reading of the server.
    pub(super) fn describe(&self, snapshot: &mut Snapshot) {
        for Timer { signal, schedule: Schedule { when, raised, last, .. } } in &self.timers {
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

/// Whether a cron that was raised `last` may be raised `now` (unix seconds, `last` 0 for never): when the clock is set
/// back, no minute has it twice.
fn is_news(cron: &Cron, last: u64, now: u64) -> bool {
    let (last, now) = (last / 60, now / 60);
    // What comes every so many minutes goes on by the new time, after the minute that began twice.
    let waits = if cron.minute < 0 { 1 } else { SET_BACK };
    now > last || last - now > waits
}

/// The minute of the calendar at a moment (unix seconds), local time.
fn local_minute(seconds: u64) -> Option<Minute> {
    let tm = local_time::of(seconds)?;
    Some(Minute { minute: tm.tm_min, hour: tm.tm_hour, day: tm.tm_mday, month: tm.tm_mon + 1, week: tm.tm_wday })
}

#[cfg(test)]
mod tests {
    use super::*;

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

    const EACH: Cron = Cron { minute: -1, hour: -1, day: -1, month: -1, week: -1 };
    /// 12:00 on some day, unix µs; minutes of local time change with the seconds of unix time everywhere.
    const NOON: u64 = 1_700_000_040 * 1_000_000;

    /// What a cron raises when the clock shows these seconds after noon, one after another.
    fn raised_at(cron: Cron, seconds: &[i64]) -> Vec<i64> {
        let (mut table, mut now) = (Timetable::default(), Instant::now());
        table.add(7, When::Cron(cron));
        table.tick_at(now, UnixMicros::from_micros(NOON - 60_000_000), false);
        let raised = seconds.iter().filter(|seconds| {
            // What the system's clock does is no matter of the monotonic one.
            now = table.deadline().unwrap();
            !table
                .tick_at(now, UnixMicros::from_micros(NOON.checked_add_signed(**seconds * 1_000_000).unwrap()), false)
                .is_empty()
        });
        raised.copied().collect()
    }

    #[test]
    fn no_minute_has_a_cron_twice_when_the_clock_is_set_back() {
        assert_eq!(raised_at(EACH, &[0, 60]), [0, 60]);
        // By a second, just behind the minute: it begins a second time.
        assert_eq!(raised_at(EACH, &[0, -1, 0, 60]), [0, 60]);
        let minute = local_minute(NOON / 1_000_000).unwrap();
        let named = Cron { minute: minute.minute, ..EACH };
        assert_eq!(raised_at(named, &[0, -1, 0, 1, 60]), [0]);
        // An hour back: that minute of the hour before was not missed, and noon comes again.
        assert_eq!(raised_at(named, &[0, -3_600, 0, 3_600]), [0, 3_600]);
        // A clock that was wrong by a day starts again.
        assert_eq!(raised_at(named, &[0, -86_400]), [0, -86_400]);
        assert_eq!(raised_at(EACH, &[0, -3_600, -3_540]), [0, -3_600, -3_540]);
    }

    #[test]
    fn timers_are_bounded_in_number_and_in_haste() {
        let (mut table, start) = (Timetable::default(), Instant::now());
        for _ in 0..2 * MOST_TIMERS {
            table.add(7, When::Every { seconds: 0, times: 0, rb: true });
        }
        assert_eq!(table.timers.len(), MOST_TIMERS);
        table.tick(start, false);
        assert!(table.deadline().unwrap() >= start + Duration::from_secs(1));
    }
}
