//! Vassals that die before they serve wait before they are started again, each time longer: uWSGI's blacklist.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use rwsgi_stats::Blacklisted;

use super::ids::{Moment, VassalId};

/// The early deaths of one vassal.
#[derive(Debug)]
struct Entry {
    /// Its file as it was then: another one deserves another try.
    modified: SystemTime,
    /// How long it waits.
    level: Duration,
    /// Deaths after the first.
    attempts: u64,
    first: u64,
    last: u64,
    until: Instant,
}

/// All vassals that have died early.
#[derive(Debug)]
pub(super) struct Throttle {
    entries: BTreeMap<VassalId, Entry>,
    step: Duration,
    longest: Duration,
}

impl Throttle {
    /// Each death adds `step` to the wait, up to `longest`.
    pub(super) fn new(step: Duration, longest: Duration) -> Self {
        Self { entries: BTreeMap::new(), step, longest }
    }

    /// A vassal has died early; returns how long it waits.
    pub(super) fn count(&mut self, id: &VassalId, modified: SystemTime, now: Moment) -> Duration {
        let (step, longest) = (self.step, self.longest);
        let Some(entry) = self.entries.get_mut(id) else {
            // The first time may be bad luck: a thousandth, as in uWSGI.
            let level = step / 1000;
            let (first, last, until) = (now.unix, now.unix, now.at + level);
            self.entries.insert(id.clone(), Entry { modified, level, attempts: 0, first, last, until });
            return level;
        };
        // Half of it when it was at its longest, as in uWSGI: a vassal whose trouble is over is found sooner.
        entry.level = if entry.level < longest { (entry.level + step).min(longest) } else { entry.level / 2 };
        entry.attempts += 1;
        entry.last = now.unix;
        entry.until = now.at + entry.level;
        entry.level
    }

    /// Whether a vassal must wait; one whose file has changed need not.
    pub(super) fn holds(&mut self, id: &VassalId, modified: SystemTime, now: Moment) -> bool {
        let Some(entry) = self.entries.get(id) else { return false };
        if entry.modified != modified {
            self.entries.remove(id);
            return false;
        }
        entry.until > now.at
    }

    /// Nothing is held against a vassal any more.
    pub(super) fn forgive(&mut self, id: &VassalId) {
        self.entries.remove(id);
    }

    /// Nothing is held against any of a monitor's vassals that is not one of these files any more.
    pub(super) fn keep(&mut self, monitor: usize, is_there: impl Fn(&str) -> bool) {
        self.entries.retain(|id, _| id.monitor != monitor || is_there(&id.name));
    }

    /// Nothing is held against any vassal any more.
    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }

    /// When the next one that waits may be started.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        self.entries.values().map(|entry| entry.until).filter(|until| *until > now).min()
    }

    /// For the stats document.
    pub(super) fn document(&self) -> Vec<Blacklisted> {
        let item = |(id, entry): (&VassalId, &Entry)| Blacklisted {
            id: id.name.clone(),
            throttle_level: entry.level.as_millis() as u64,
            attempt: entry.attempts,
            first_attempt: entry.first,
            last_attempt: entry.last,
        };
        self.entries.iter().map(item).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_early_death_makes_the_wait_longer_up_to_the_longest_and_then_half_of_it() {
        let mut throttle = Throttle::new(Duration::from_secs(1), Duration::from_secs(3));
        let (id, now) = (VassalId { monitor: 0, name: "a.ini".into() }, Moment::now());
        let file = SystemTime::UNIX_EPOCH;
        let waits: Vec<_> = (0..6).map(|_| throttle.count(&id, file, now).as_millis()).collect();
        assert_eq!(waits, [1, 1001, 2001, 3000, 1500, 2500]);
        assert!(throttle.holds(&id, file, now) && throttle.next(now.at).is_some());
        let later = Moment { at: now.at + Duration::from_secs(3), ..now };
        assert!(!throttle.holds(&id, file, later));
        assert_eq!(throttle.document()[0].attempt, 5);
    }

    #[test]
    fn a_changed_file_is_tried_at_once_and_a_removed_one_is_forgotten() {
        let mut throttle = Throttle::new(Duration::from_secs(9), Duration::from_secs(90));
        let (id, now) = (VassalId { monitor: 0, name: "a.ini".into() }, Moment::now());
        throttle.count(&id, SystemTime::UNIX_EPOCH, now);
        assert!(!throttle.holds(&id, SystemTime::now(), now));
        assert!(throttle.document().is_empty());
        throttle.count(&id, SystemTime::UNIX_EPOCH, now);
        throttle.keep(1, |_| false);
        assert_eq!(throttle.document().len(), 1);
        throttle.keep(0, |_| false);
        assert!(throttle.document().is_empty());
    }
}
