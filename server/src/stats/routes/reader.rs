//! The master's side of one table: what has come since it was read last. What it finds is not trusted, for the
//! application can write there.

use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::atomic::fence;

use super::cells::{OTHER_ROW, RouteRow, View};
use super::counts::{RouteCounts, RouteDelta, Slowest};
use crate::clock::MonotonicNanos;
use crate::stats::cell::Corrupt;
use crate::stats::route_text::RouteText;
use rwsgi_stats::OTHER_ROUTE;

/// How long a process may be held up by the system while it gives a row away, ns: longer, and it was not our code.
const HELD_UP: u64 = 5_000_000_000;

/// What was read of a table last.
#[derive(Debug, Default)]
pub(super) struct Seen {
    rows: Vec<SeenRow>,
    /// What its head said when it was found unsteady, and when it said so first.
    unsteady: Option<(u64, MonotonicNanos)>,
}

#[derive(Clone, Debug, Default)]
struct SeenRow {
    owner: u64,
    counts: RouteCounts,
    slowest_when: u64,
}

/// A row as it stood at one moment.
struct Found {
    row: usize,
    owner: u64,
    named: bool,
    text: Vec<u8>,
    counts: RouteCounts,
    /// Its requests when all of that was read.
    requests_after: u64,
    slowest: Option<Slowest>,
}

/// What has come to a table that `threads` threads fill since it was `seen` last: nothing while its process is held up in
/// the middle of giving a row away.
///
/// # Errors
/// When no worker has written that. What was seen stays as it was then.
pub(super) fn read(
    view: View<'_>,
    seen: &mut Seen,
    now: MonotonicNanos,
    threads: u32,
) -> Result<Vec<RouteDelta>, Corrupt> {
    let Some(found) = view.head().read(|| changed(view, seen)) else {
        let sequence = view.head().sequence();
        let since = seen.unsteady.filter(|(before, _)| *before == sequence).map_or(now, |(_, since)| since);
        seen.unsteady = Some((sequence, since));
        return if now.nanos_since(since) > HELD_UP { Err(Corrupt::Unsteady) } else { Ok(Vec::new()) };
    };
    seen.unsteady = None;
    difference(view, seen, found, now, threads)
}

/// The same of a table that nobody fills any more, whose process may have died while it gave a row to another route: that
/// row is left out then.
///
/// # Errors
/// As [`read`].
pub(super) fn read_last(
    view: View<'_>,
    seen: &mut Seen,
    now: MonotonicNanos,
    threads: u32,
) -> Result<Vec<RouteDelta>, Corrupt> {
    let found = view.head().read(|| changed(view, seen)).unwrap_or_else(|| {
        let mut found = changed(view, seen);
        found.retain(|found| found.row != OTHER_ROW && seen.owner(found.row) == found.owner);
        found
    });
    difference(view, seen, found, now, threads)
}

impl Seen {
    /// Whose the row was.
    fn owner(&self, row: usize) -> u64 {
        self.rows.get(row).map_or(0, |seen| seen.owner)
    }
}

/// The rows to which something has come.
fn changed(view: View<'_>, seen: &Seen) -> Vec<Found> {
    let mut changed = Vec::new();
    for nth in 0..view.len() {
        let row = view.row(nth);
        let (owner, requests) = (row.owner.load(Relaxed), row.requests.load(Acquire));
        // They are given away in order.
        if owner == 0 && nth != OTHER_ROW {
            break;
        }
        let is_seen = seen.rows.get(nth).map_or((0, 0), |seen| (seen.owner, seen.counts.requests)) == (owner, requests);
        if !is_seen {
            changed.push(load(nth, row, owner, requests));
        }
    }
    changed
}

fn load(nth: usize, row: &RouteRow, owner: u64, requests: u64) -> Found {
    let when = row.slowest_when.load(Relaxed);
    let slowest = (when > 0).then(|| Slowest {
        when: MonotonicNanos::from_nanos(when),
        took: row.slowest_took.load(Relaxed),
        request: row.slowest_request.load_text(),
    });
    let counts = RouteCounts {
        requests,
        exceptions: row.exceptions.load(Relaxed),
        running: row.running.load(Relaxed),
        tx: row.tx.load(Relaxed),
        responses: row.responses.each_ref().map(|class| class.load(Relaxed)),
        gil_wait: row.gil_wait.load(Relaxed),
        memory_samples: row.memory_samples.load(Relaxed),
        memory_growth: row.memory_growth.load(Relaxed).cast_signed(),
        latency: row.latency.load(),
    };
    // The worker goes on meanwhile, and this process may be held up: what was counted after `requests` is in the others.
    fence(Acquire);
    let requests_after = row.requests.load(Relaxed);
    let (named, text) = (row.named.load(Relaxed) != 0, row.text.load());
    Found { row: nth, owner, named, text, counts, requests_after, slowest }
}

fn difference(
    view: View<'_>,
    seen: &mut Seen,
    found: Vec<Found>,
    now: MonotonicNanos,
    threads: u32,
) -> Result<Vec<RouteDelta>, Corrupt> {
    let none = SeenRow::default();
    let before = |row: usize| seen.rows.get(row).unwrap_or(&none);
    // What was seen of rows that are another route's now has been added to all others.
    let mut moved = before(OTHER_ROW).counts.clone();
    for found in found.iter().filter(|found| found.row != OTHER_ROW) {
        let before = before(found.row);
        if before.owner != found.owner {
            moved.add(&before.counts);
        }
    }
    let mut deltas = Vec::with_capacity(found.len());
    let mut rows = Vec::with_capacity(found.len());
    for found in found {
        let Found { row, owner, named, text, counts, requests_after, slowest } = found;
        counts.refuse_impossible(now, threads, requests_after)?;
        let before = before(row);
        let new = match (row, before.owner == owner) {
            (OTHER_ROW, _) => counts.since(&moved)?,
            (_, true) => counts.since(&before.counts)?,
            (_, false) => counts.clone(),
        };
        let slowest = slowest.filter(|slowest| slowest.when.as_nanos() != before.slowest_when && slowest.when <= now);
        let route = match (row, RouteText::named(&text)) {
            (OTHER_ROW, _) => None,
            // Such a name has no row of its own.
            (_, Some(text)) if text.as_str() != OTHER_ROUTE => Some(text.as_str().to_owned()),
            _ => return Err(Corrupt::Counters),
        };
        let slowest_when = slowest.as_ref().map_or(before.slowest_when, |slowest| slowest.when.as_nanos());
        deltas.push(RouteDelta {
            route,
            named,
            requests: counts.requests,
            exception: (new.exceptions > 0).then(|| view.exception(row).load()).flatten(),
            counts: new,
            slowest,
        });
        rows.push((row, SeenRow { owner, counts, slowest_when }));
    }
    // Only now: what is refused was not seen.
    for (row, new) in rows {
        if seen.rows.len() <= row {
            seen.rows.resize(row + 1, SeenRow::default());
        }
        seen.rows[row] = new;
    }
    Ok(deltas)
}

#[cfg(test)]
mod tests {
    use super::super::cells::RouteMemory;
    use super::super::table::tests::{SLOT, finished, table};
    use super::*;

    #[test]
    fn a_reader_that_is_overtaken_believes_what_was_counted_meanwhile() {
        let memory = RouteMemory::create(4, 200).unwrap();
        let mut table = table(&memory);
        table.count(&finished("/a", 200));
        let (view, mut seen) = (memory.table(SLOT), Seen::default());
        let row = view.row(1);
        let (owner, requests) = (row.owner.load(Relaxed), row.requests.load(Acquire));
        (0..5).for_each(|_| table.count(&finished("/a", 200)));
        let found = load(1, row, owner, requests);
        let deltas = difference(view, &mut seen, vec![found], MonotonicNanos::now(), 1).unwrap();
        assert_eq!(deltas[0].counts.requests, 1);
        let rest = read(view, &mut seen, MonotonicNanos::now(), 1).unwrap();
        assert_eq!((rest[0].counts.requests, rest[0].counts.responses), (5, [0; 5]));
    }
}
