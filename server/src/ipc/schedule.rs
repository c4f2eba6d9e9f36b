//! When a signal is raised: every N seconds, or at times of the calendar. Pure: the master keeps the clock.

use serde::{Deserialize, Serialize};

/// When a signal is raised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum When {
    /// Every N seconds.
    Every {
        /// At least 1.
        seconds: u32,
        /// How often; 0 forever.
        times: u32,
        /// It was asked for with `add_rb_timer`, of which there may be several alike.
        rb: bool,
    },
    /// At times of the calendar.
    Cron(Cron),
}

/// Times of the calendar, local time. A negative number stands for every so many: -1 for each, -5 for those that 5
/// divides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cron {
    /// 0 to 59.
    pub minute: i32,
    /// 0 to 23.
    pub hour: i32,
    /// 1 to 31.
    pub day: i32,
    /// 1 to 12.
    pub month: i32,
    /// 0 to 7: 0 and 7 are Sunday.
    pub week: i32,
}

/// A minute of the calendar, in the numbers of [`Cron`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Minute {
    pub minute: i32,
    pub hour: i32,
    pub day: i32,
    pub month: i32,
    pub week: i32,
}

impl Cron {
    /// Whether it names this minute. With both a day and a weekday, either will do, as in crontab(5).
    #[must_use]
    pub(crate) fn names(&self, now: &Minute) -> bool {
        let fits = |wanted: i32, is: i32| if wanted < 0 { is % wanted == 0 } else { is == wanted };
        let (day, week) = (fits(self.day, now.day), fits(if self.week == 7 { 0 } else { self.week }, now.week));
        let is_day = if self.day >= 0 && self.week >= 0 { day || week } else { day && week };
        is_day && fits(self.minute, now.minute) && fits(self.hour, now.hour) && fits(self.month, now.month)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Minute = Minute { minute: 30, hour: 4, day: 21, month: 11, week: 6 };
    const EACH: Cron = Cron { minute: -1, hour: -1, day: -1, month: -1, week: -1 };

    #[test]
    fn times_are_named_as_in_uwsgi() {
        assert!(EACH.names(&NOW));
        assert!(Cron { minute: -15, hour: -2, ..EACH }.names(&NOW));
        assert!(!Cron { minute: -7, ..EACH }.names(&NOW));
        assert!(Cron { minute: 30, hour: 4, day: 21, month: 11, week: -1 }.names(&NOW));
        assert!(!Cron { month: 10, ..EACH }.names(&NOW));
        assert!(Cron { day: 1, week: 6, ..EACH }.names(&NOW), "the weekday will do");
        assert!(!Cron { day: 1, ..EACH }.names(&NOW));
        assert!(Cron { week: 7, ..EACH }.names(&Minute { week: 0, ..NOW }));
        assert!(Cron { minute: -15, ..EACH }.names(&Minute { minute: 0, ..NOW }));
    }
}
