//! The server's routes: what all worker processes have counted, since the server started.

use std::collections::HashMap;

use rwsgi_stats::{LastException, OTHER_ROUTE, Route, Shown, SlowestRequest};

use super::cells::RouteMemory;
use super::counts::{RouteCounts, RouteDelta, SLOWEST_LASTS, Slowest};
use super::reader::{self, Seen};
use crate::clock::{Clock, MonotonicNanos};
use crate::ids::SlotId;
use crate::stats::cell::{Corrupt, ExceptionReport};
use crate::stats::totals::newest;

/// How often a route has to have come to a worker for the row of another.
const EARNS: u64 = 8;
/// How long it takes until it counts half how often a row was used, ns.
const AGING: u64 = 60_000_000_000;

/// See the module.
#[derive(Debug)]
pub struct RouteBook {
    memory: RouteMemory,
    threads: u32,
    seen: Vec<Seen>,
    rows: HashMap<String, Row>,
    other: Row,
    aged: MonotonicNanos,
}

/// What was counted of a route.
#[derive(Debug, Default)]
struct Row {
    named: bool,
    counts: RouteCounts,
    exception: Option<ExceptionReport>,
    slowest: Option<Slowest>,
    /// How often it came lately.
    weight: u64,
}

impl Row {
    fn add(&mut self, delta: &RouteDelta) {
        self.named |= delta.named;
        self.counts.add(&delta.counts);
        self.weight = self.weight.saturating_add(delta.counts.requests);
        newest(&mut self.exception, delta.exception.clone());
        let is_slower =
            |kept: &Slowest, new: &Slowest| new.took >= kept.took || new.when.nanos_since(kept.when) > SLOWEST_LASTS;
        if let Some(new) = &delta.slowest
            && self.slowest.as_ref().is_none_or(|kept| is_slower(kept, new))
        {
            self.slowest = Some(new.clone());
        }
    }
}

impl RouteBook {
    /// Empty, with memory for worker processes in this many slots, each of `threads` threads; it tells `most` routes apart.
    ///
    /// # Errors
    /// When the system has no memory or descriptors left.
    pub fn create(slots: u32, threads: u32, most: u32) -> nix::Result<Self> {
        let memory = RouteMemory::create(slots, most)?;
        let seen = (0..slots).map(|_| Seen::default()).collect();
        let aged = MonotonicNanos::now();
        Ok(Self { memory, threads, seen, rows: HashMap::new(), other: Row::default(), aged })
    }

    /// The tables, for workers to inherit.
    #[must_use]
    pub fn memory(&self) -> &RouteMemory {
        &self.memory
    }

    /// Adds what the process in a slot has counted since this was asked last, and returns it.
    ///
    /// # Errors
    /// When no worker has written that: nothing is added then.
    pub fn collect(&mut self, slot: SlotId, now: MonotonicNanos) -> Result<Vec<RouteDelta>, Corrupt> {
        let deltas = reader::read(self.memory.table(slot), &mut self.seen[slot.index()], now, self.threads)?;
        self.add(&deltas, now);
        Ok(deltas)
    }

    /// The same when no process has the slot any more, whose table is made empty for the next one.
    ///
    /// # Errors
    /// As [`Self::collect`]; the table is empty then, too.
    pub fn absorb(&mut self, slot: SlotId, now: MonotonicNanos) -> Result<Vec<RouteDelta>, Corrupt> {
        let mut seen = std::mem::take(&mut self.seen[slot.index()]);
        let deltas = reader::read_last(self.memory.table(slot), &mut seen, now, self.threads);
        if self.memory.clear(slot).is_err() {
            // What stays in the table was seen.
            self.seen[slot.index()] = seen;
        }
        let deltas = deltas?;
        self.add(&deltas, now);
        Ok(deltas)
    }

    fn add(&mut self, deltas: &[RouteDelta], now: MonotonicNanos) {
        let times = now.nanos_since(self.aged) / AGING;
        if times > 0 {
            self.aged = now;
            let shift = u32::try_from(times).unwrap_or(u32::MAX);
            self.rows.values_mut().for_each(|row| row.weight = row.weight.checked_shr(shift).unwrap_or(0));
        }
        for delta in deltas {
            self.row_for(delta).add(delta);
        }
    }

    fn row_for(&mut self, delta: &RouteDelta) -> &mut Row {
        let Some(route) = &delta.route else { return &mut self.other };
        if !self.rows.contains_key(route) {
            let has_space = self.rows.len() < self.memory.most() as usize || self.make_space(delta.requests);
            if !has_space {
                return &mut self.other;
            }
        }
        self.rows.entry(route.clone()).or_default()
    }

    /// Gives up the row that was used least lately, for one that has come so often.
    fn make_space(&mut self, requests: u64) -> bool {
        let least = self.rows.iter().min_by_key(|(_, row)| row.weight);
        let Some((route, _)) = least.filter(|(_, row)| requests >= EARNS && row.weight < requests) else {
            return false;
        };
        let route = route.clone();
        if let Some(row) = self.rows.remove(&route) {
            self.other.add(&RouteDelta {
                route: None,
                named: false,
                requests: 0,
                counts: row.counts,
                exception: row.exception,
                slowest: row.slowest,
            });
        }
        true
    }

    /// The rows of the stats document: those with most time first, and all others last, when there are any.
    #[must_use]
    pub fn describe(&self, clock: Clock, now: MonotonicNanos, shown: Shown) -> Vec<Route> {
        let mut routes: Vec<_> = self.rows.iter().map(|(route, row)| row.describe(route, clock, now, shown)).collect();
        routes.sort_by(|one, other| other.busy_time.cmp(&one.busy_time).then_with(|| one.route.cmp(&other.route)));
        if self.other.counts.requests > 0 {
            routes.push(self.other.describe(OTHER_ROUTE, clock, now, shown));
        }
        routes
    }
}

impl Row {
    fn describe(&self, route: &str, clock: Clock, now: MonotonicNanos, shown: Shown) -> Route {
        let recent = self.slowest.as_ref().filter(|slowest| now.nanos_since(slowest.when) <= SLOWEST_LASTS);
        Route {
            last_exception: self.exception.as_ref().map(|report| describe_exception(report, shown)),
            slowest: recent.map(|slowest| SlowestRequest {
                when: clock.unix_at(slowest.when).as_micros(),
                elapsed: slowest.took,
                request: shown.target(&slowest.request).into_owned(),
            }),
            ..self.counts.row(route, self.named)
        }
    }
}

/// What is shown of an exception. Its text is the application's: URLs are all that is known to hold secrets.
pub(crate) fn describe_exception(report: &ExceptionReport, shown: Shown) -> LastException {
    LastException {
        kind: report.kind.clone(),
        message: shown.text(&report.message).into_owned(),
        location: report.traceback.first().cloned().unwrap_or_default(),
        traceback: report.traceback.clone(),
        when: report.when.as_micros(),
        request: shown.target(&report.request).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::super::cells::RouteTableCells;
    use super::super::table::tests::{SLOT, finished, table};
    use super::super::table::{Finished, RouteTable};
    use super::*;
    use crate::clock::UnixMicros;

    fn book(most: u32) -> RouteBook {
        RouteBook::create(4, 1, most).unwrap()
    }

    fn requests(book: &RouteBook) -> Vec<(String, u64)> {
        let routes = book.describe(Clock::default(), MonotonicNanos::now(), Shown::default());
        let mut counts: Vec<_> = routes.into_iter().map(|route| (route.route, route.requests)).collect();
        counts.sort();
        counts
    }

    fn owned<const N: usize>(counts: [(&str, u64); N]) -> Vec<(String, u64)> {
        counts.map(|(route, count)| (route.to_owned(), count)).to_vec()
    }

    #[test]
    fn processes_add_up_and_what_a_dead_one_counted_stays() {
        let mut book = book(200);
        let other_slot = SlotId::new(2);
        let mut first = table(&book.memory);
        let mut second = {
            let file = book.memory.memory().try_clone_to_owned().unwrap();
            RouteTable::new(RouteTableCells::map(file, other_slot, 200).unwrap())
        };
        let now = MonotonicNanos::now;
        for round in 1..=3 {
            first.count(&finished("/a/1", 200));
            second.count(&finished("/a/2", 200));
            second.count(&finished("/b", 500));
            let [one, two] = [SLOT, other_slot].map(|slot| book.collect(slot, now()).unwrap());
            assert_eq!((one.len(), two.len()), (1, 2));
            assert_eq!(requests(&book), owned([("/a/{}", 2 * round), ("/b", round)]));
        }
        second.count(&finished("/b", 200));
        let last = book.absorb(other_slot, now()).unwrap();
        assert_eq!((last.len(), last[0].counts.requests), (1, 1));
        assert_eq!(requests(&book), owned([("/a/{}", 6), ("/b", 4)]));
        assert!(book.collect(other_slot, now()).unwrap().is_empty(), "the table is empty");
        let routes = book.describe(Clock::default(), now(), Shown::default());
        let b = routes.iter().find(|route| route.route == "/b").unwrap();
        assert_eq!((b.responses.server_error, b.responses.success, b.tx, b.busy_time), (3, 1, 400, 12));
        assert_eq!(rwsgi_stats::latency::decode(&b.latency).unwrap().len(), 4);
    }

    #[test]
    fn counts_of_a_row_that_is_taken_over_are_counted_once() {
        let mut book = book(2);
        let mut table = table(&book.memory);
        let mut sent = 0;
        for round in 0..50 {
            for (path, times) in [("/a", 3), ("/b", 1 + round % 5), ("/c", 9), ("/d", round), ("/e", 30 - round / 2)] {
                for _ in 0..times {
                    table.count(&finished(path, 200));
                    sent += 1;
                }
                if round % 3 != 0 {
                    book.collect(SLOT, MonotonicNanos::now()).unwrap();
                }
            }
        }
        book.absorb(SLOT, MonotonicNanos::now()).unwrap();
        let counted = requests(&book);
        assert_eq!(counted.iter().map(|(_, count)| count).sum::<u64>(), sent, "{counted:?}");
        assert!(counted.len() <= 3);
    }

    #[test]
    fn no_sum_falls_while_rows_change_hands_under_the_reader() {
        const SENT: u64 = 30_000;
        let mut book = book(2);
        let mut table = table(&book.memory);
        let writer = std::thread::spawn(move || {
            for number in 0..SENT {
                // Each of five routes is the busiest for a while.
                let route = if number % 3 == 0 { number } else { number / 500 };
                table.count(&finished(["/a", "/b", "/c", "/d", "/e"][route as usize % 5], 200));
            }
        });
        let mut before = 0;
        while !writer.is_finished() {
            book.collect(SLOT, MonotonicNanos::now()).unwrap();
            let sum = requests(&book).iter().map(|(_, count)| count).sum();
            assert!((before..=SENT).contains(&sum), "{sum} after {before}");
            before = sum;
        }
        book.absorb(SLOT, MonotonicNanos::now()).unwrap();
        assert_eq!(requests(&book).iter().map(|(_, count)| count).sum::<u64>(), SENT);
    }

    #[test]
    fn routes_beyond_the_most_are_all_others_until_one_earns_the_row_of_an_idle_one() {
        let mut book = book(2);
        let later = |minutes: u64| MonotonicNanos::now().after_nanos(minutes * AGING);
        let delta = |route: &str, requests| RouteDelta {
            route: Some(route.to_owned()),
            named: false,
            requests,
            counts: RouteCounts { requests, ..RouteCounts::default() },
            exception: None,
            slowest: None,
        };
        book.add(&[delta("/a", 20), delta("/b", 30), delta("/c", 9)], later(0));
        assert_eq!(requests(&book), owned([("(other)", 9), ("/a", 20), ("/b", 30)]));
        book.add(&[delta("/b", 300), delta("/c", 9)], later(3));
        assert_eq!(requests(&book), owned([("(other)", 29), ("/b", 330), ("/c", 9)]));
    }

    #[test]
    fn the_last_exception_and_the_slowest_request_are_told_without_secrets() {
        let mut book = book(200);
        let mut table = table(&book.memory);
        let report = ExceptionReport {
            when: UnixMicros::from_micros(7),
            kind: "ValueError".into(),
            message: "no".into(),
            traceback: vec!["a.py:1 in f".into()],
            request: "GET /a?token=secret".into(),
        };
        table.count(&Finished { exception: Some(&report), took: 9_000_000, ..finished("/a?token=secret", 500) });
        table.count(&Finished { memory_growth: Some(-4096), gil_wait: 5_000, ..finished("/a", 200) });
        book.collect(SLOT, MonotonicNanos::now()).unwrap();
        let route = &book.describe(Clock::default(), MonotonicNanos::now(), Shown::default())[0];
        let exception = route.last_exception.as_ref().unwrap();
        assert_eq!((exception.location.as_str(), exception.request.as_str()), ("a.py:1 in f", "GET /a?token=…"));
        let slowest = route.slowest.as_ref().unwrap();
        assert_eq!((slowest.elapsed, slowest.request.as_str()), (9_000, "GET /a?token=…"));
        assert_eq!((route.memory_samples, route.memory_growth, route.gil_wait, route.exceptions), (1, -4096, 5, 1));
        let later = MonotonicNanos::now().after_nanos(SLOWEST_LASTS + 1_000_000_000);
        assert_eq!(book.describe(Clock::default(), later, Shown::default())[0].slowest, None);
    }

    #[test]
    fn what_no_worker_writes_is_refused_and_adds_nothing() {
        type Spoil = fn(&super::super::cells::RouteRow);
        let spoils: [Spoil; 8] = [
            |row| row.requests.store(u64::MAX, Relaxed),
            |row| row.requests.store(1, Relaxed),
            |row| row.running.store(u64::MAX, Relaxed),
            |row| row.responses[1].store(99, Relaxed),
            |row| row.memory_growth.store(u64::MAX / 2, Relaxed),
            |row| row.text.store(b""),
            |row| row.text.store(b"(other)"),
            |row| (0..99).for_each(|_| row.latency.record(1)),
        ];
        for spoil in spoils {
            let mut book = book(200);
            let mut table = table(&book.memory);
            (0..3).for_each(|_| table.count(&finished("/a", 200)));
            book.collect(SLOT, MonotonicNanos::now()).unwrap();
            table.count(&finished("/a", 200));
            spoil(book.memory.table(SLOT).row(1));
            assert!(book.collect(SLOT, MonotonicNanos::now()).is_err());
            assert!(book.absorb(SLOT, MonotonicNanos::now()).is_err());
            assert_eq!(requests(&book), owned([("/a", 3)]));
            assert!(book.collect(SLOT, MonotonicNanos::now()).unwrap().is_empty(), "it is empty for the next process");
        }
    }

    #[test]
    fn a_process_that_died_while_it_gave_a_row_away_loses_no_other_row() {
        let mut book = book(200);
        let mut table = table(&book.memory);
        table.count(&finished("/a", 200));
        book.collect(SLOT, MonotonicNanos::now()).unwrap();
        table.count(&finished("/a", 200));
        let head = book.memory.table(SLOT).head();
        head.begin_of_test();
        let now = MonotonicNanos::now();
        assert_eq!(book.collect(SLOT, now), Ok(Vec::new()), "it may only be held up");
        assert_eq!(book.collect(SLOT, now.after_nanos(6_000_000_000)), Err(Corrupt::Unsteady));
        book.absorb(SLOT, MonotonicNanos::now()).unwrap();
        assert_eq!(requests(&book), owned([("/a", 2)]));
    }
}
