//! The jobs of one directory, as far as they are known: which is the next one to run, and when.
//!
//! Kept in memory so that 100,000 waiting jobs cost nothing until something happens to one of them. What it says may be
//! out of date, for others work in the directory too: taking a job looks at its file again. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::SystemTime;

use super::job::Ticket;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    /// When it may run; `None` when it was returned to be run, and there was no news of it since.
    due: Option<SystemTime>,
    /// This process wants nothing of it until then, whatever its file says.
    held: Option<SystemTime>,
    /// The last scan that has seen it.
    scan: u64,
}

/// The jobs.
#[derive(Debug, Default)]
pub(crate) struct JobIndex {
    jobs: BTreeMap<Rc<Ticket>, State>,
    /// Those that may run, in order.
    ready: BTreeSet<Rc<Ticket>>,
    /// Those that may not yet, by when they may.
    waiting: BTreeSet<(SystemTime, Rc<Ticket>)>,
    scans: u64,
}

impl JobIndex {
    /// A job may run from `due` on. It may be known already.
    pub(crate) fn put(&mut self, ticket: Ticket, due: SystemTime) {
        let held = self.jobs.get(&ticket).and_then(|state| state.held);
        self.set(Rc::new(ticket), due, held);
    }

    /// As [`Self::put`], and whatever else comes to be known of the job, nothing is to be done with it until `due`.
    pub(crate) fn hold(&mut self, ticket: Ticket, due: SystemTime) {
        self.set(Rc::new(ticket), due, Some(due));
    }

    fn set(&mut self, ticket: Rc<Ticket>, due: SystemTime, held: Option<SystemTime>) {
        self.remove(&ticket);
        let due = held.map_or(due, |held| due.max(held));
        self.jobs.insert(Rc::clone(&ticket), State { due: Some(due), held, scan: self.scans });
        self.waiting.insert((due, ticket));
    }

    /// A job is there no more.
    pub(crate) fn remove(&mut self, ticket: &Ticket) {
        if let Some((ticket, state)) = self.jobs.remove_entry(ticket)
            && !self.ready.remove(&ticket)
            && let Some(due) = state.due
        {
            self.waiting.remove(&(due, ticket));
        }
    }

    /// The job to run at `now`. It stays known, and is not returned again before [`Self::put`].
    pub(crate) fn next(&mut self, now: SystemTime) -> Option<Ticket> {
        while self.waiting.first().is_some_and(|(due, _)| *due <= now) {
            if let Some((_, ticket)) = self.waiting.pop_first() {
                self.ready.insert(ticket);
            }
        }
        let ticket = self.ready.pop_first()?;
        if let Some(state) = self.jobs.get_mut(&ticket) {
            // Neither ready nor waiting: `remove` and `set` find nothing of it in either.
            state.due = None;
        }
        Some((*ticket).clone())
    }

    /// When the next job that may not run yet may.
    pub(crate) fn next_due(&self) -> Option<SystemTime> {
        self.waiting.first().map(|(due, _)| *due)
    }

    /// A scan of the whole directory begins.
    pub(crate) fn begin_scan(&mut self) {
        self.scans += 1;
    }

    /// The scan has found this job. Whether it was known.
    pub(crate) fn seen(&mut self, ticket: &Ticket) -> bool {
        let state = self.jobs.get_mut(ticket);
        state.map(|state| state.scan = self.scans).is_some()
    }

    /// The scan is over: what it has not found is there no more.
    pub(crate) fn end_scan(&mut self) {
        let gone: Vec<_> = self
            .jobs
            .iter()
            .filter(|(_, state)| state.scan != self.scans)
            .map(|(ticket, _)| Rc::clone(ticket))
            .collect();
        for ticket in gone {
            self.remove(&ticket);
        }
    }

    /// How many jobs are known.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.jobs.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::ffi::OsStr;
    use std::time::Duration;

    /// So many seconds after a moment.
    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn job(number: u64) -> Ticket {
        Ticket::of(OsStr::new(""), OsStr::new(&super::super::job::new_name("h", 1, number, 0, number))).unwrap()
    }

    #[test]
    fn a_job_is_returned_when_it_is_due_and_only_once() {
        let mut index = JobIndex::default();
        index.put(job(1), at(50));
        index.put(job(2), at(10));
        assert_eq!(index.next_due(), Some(at(10)));
        assert_eq!(index.next(at(20)), Some(job(2)));
        assert_eq!(index.next(at(20)), None);
        assert_eq!(index.next(at(50)), Some(job(1)));
        assert_eq!((index.next(at(99)), index.next_due(), index.len()), (None, None, 2));
        index.put(job(1), at(60));
        assert_eq!(index.next(at(60)), Some(job(1)));
    }

    #[test]
    fn what_is_held_stays_so_whatever_happens_to_its_file() {
        let mut index = JobIndex::default();
        index.hold(job(1), at(100));
        index.put(job(1), at(5));
        assert_eq!(index.next(at(99)), None);
        assert_eq!(index.next(at(100)), Some(job(1)));
        index.put(job(1), at(101));
        assert_eq!(index.next(at(101)), Some(job(1)));
    }

    #[test]
    fn a_scan_forgets_what_it_has_not_found() {
        let mut index = JobIndex::default();
        for number in 1..=3 {
            index.put(job(number), at(0));
        }
        assert_eq!(index.next(at(0)), Some(job(1)));
        index.begin_scan();
        assert!(index.seen(&job(1)));
        assert!(!index.seen(&job(4)));
        index.put(job(4), at(0));
        index.end_scan();
        assert_eq!(index.len(), 2);
        assert_eq!(index.next(at(0)), Some(job(4)));
        assert_eq!(index.next(at(0)), None);
    }

    proptest! {
        #[test]
        fn the_oldest_of_those_that_are_due_comes_next(
            steps in prop::collection::vec((0u8..5, 0u64..12, 0u64..40), 1..200),
        ) {
            let mut index = JobIndex::default();
            // What is there, and whether it was taken.
            let mut model = BTreeMap::new();
            let mut now = 0;
            for (kind, number, amount) in steps {
                match kind {
                    0 | 1 => {
                        index.put(job(number), at(now + amount));
                        model.insert(number, Some(now + amount));
                    }
                    2 => {
                        index.remove(&job(number));
                        model.remove(&number);
                    }
                    3 => now += amount,
                    _ => {
                        let expected =
                            model.iter().find(|(_, due)| due.is_some_and(|due| due <= now)).map(|(number, _)| *number);
                        prop_assert_eq!(index.next(at(now)), expected.map(job));
                        if let Some(number) = expected {
                            model.insert(number, None);
                        }
                    }
                }
                prop_assert_eq!(index.len(), model.len());
            }
        }
    }
}
