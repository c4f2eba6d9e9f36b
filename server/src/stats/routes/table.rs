//! A worker's side: which row a request belongs to, and its counters.
//!
//! While half of the rows are free, a route gets a free row at its first request; later, after a few requests. When no
//! row is free, the route needs more requests than the least used row, whose counts are then added to `(other)`. How
//! often a row was used is halved every few thousand requests that have no row. A path that the application does not
//! know (404) never gets a row. So clients that invent paths can take neither the rows of routes in use nor memory or
//! much time.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, Release};

use super::cells::{OTHER_ROW, RouteRow, RouteTableCells, View};
use super::counts::SLOWEST_LASTS;
use super::probation::Probation;
use crate::clock::MonotonicNanos;
use crate::stats::cell::{ExceptionReport, add};
use crate::stats::route_text::RouteText;
use rwsgi_stats::OTHER_ROUTE;

/// How often a route has to come for one of the last free rows.
const EARNS_FREE: u32 = 3;
/// How often it has to come for a row of another.
const EARNS_USED: u32 = 8;
/// After this many requests that have no row it is halved how often each row was used.
const AGING: u32 = 4_096;
/// The longest path that is remembered for the next request, bytes.
const LAST_PATH_MAX: usize = 128;

/// A request that has ended.
#[derive(Clone, Copy)]
pub struct Finished<'a> {
    /// What the application has called its route.
    pub name: Option<&'a RouteText>,
    /// HTTP method.
    pub method: &'a [u8],
    /// Request target.
    pub target: &'a [u8],
    /// Status code; 0 when none was sent.
    pub status: u16,
    /// How long it took, ns.
    pub took: u64,
    /// How long its client waited, µs.
    pub latency: u64,
    /// Bytes that were sent.
    pub tx: u64,
    /// How long it waited for Python's global lock, ns.
    pub gil_wait: u64,
    /// By how much resident memory grew, bytes, when that was looked at.
    pub memory_growth: Option<i64>,
    /// What the application raised.
    pub exception: Option<&'a ExceptionReport>,
    /// When it ended.
    pub now: MonotonicNanos,
}

/// The routes of a worker process. One thread at a time writes to it.
#[derive(Debug)]
pub struct RouteTable {
    cells: RouteTableCells,
    rows: HashMap<Box<[u8]>, usize, foldhash::fast::RandomState>,
    /// How often each row was used lately, beginning with [`OTHER_ROW`]; as many as were ever given away.
    uses: Vec<Uses>,
    probation: Probation,
    /// Whose results clients cannot foresee.
    hasher: RandomState,
    until_aging: u32,
    /// The path of the last request that had a row for its pattern, and that row.
    last_path: Vec<u8>,
    last_row: usize,
}

impl RouteTable {
    /// With the cells of this process, which nobody else writes.
    #[must_use]
    pub fn new(cells: RouteTableCells) -> Self {
        Self {
            cells,
            rows: HashMap::default(),
            uses: vec![Uses::default()],
            probation: Probation::new(),
            hasher: RandomState::new(),
            until_aging: AGING,
            last_path: Vec::with_capacity(LAST_PATH_MAX),
            last_row: OTHER_ROW,
        }
    }

    /// From now on what this process writes is its own: for a child that is no worker.
    pub fn detach(&self) {
        self.cells.detach();
    }

    /// Counts a request.
    #[inline]
    pub fn count(&mut self, request: &Finished<'_>) {
        let row = match request.name {
            Some(name) => self.find(name, true, request.status),
            None => self.find_by_target(request.target, request.status),
        };
        let view = self.cells.view();
        if let Some(report) = request.exception {
            view.exception(row).store(report);
        }
        count(view.row(row), request);
    }

    #[inline]
    fn find_by_target(&mut self, target: &[u8], status: u16) -> usize {
        if self.last_row != OTHER_ROW
            && let Some(rest) = target.strip_prefix(&self.last_path[..])
            && matches!(rest, [] | [b'?' | b'#', ..])
        {
            return self.last_row;
        }
        self.find_by_pattern(target, status)
    }

    fn find_by_pattern(&mut self, target: &[u8], status: u16) -> usize {
        let row = self.find(&RouteText::pattern_of(target), false, status);
        if row != OTHER_ROW {
            let end = target.iter().position(|byte| matches!(byte, b'?' | b'#')).unwrap_or(target.len());
            if end <= LAST_PATH_MAX {
                self.last_path.clear();
                self.last_path.extend_from_slice(&target[..end]);
                self.last_row = row;
            }
        }
        row
    }

    fn find(&mut self, text: &RouteText, named: bool, status: u16) -> usize {
        if let Some(row) = self.rows.get(text.as_bytes()) {
            if named {
                self.cells.view().row(*row).named.store(1, Relaxed);
            }
            return *row;
        }
        if (!named && status == 404) || text.as_str() == OTHER_ROUTE {
            return OTHER_ROW;
        }
        let rows = self.cells.view().len();
        if self.uses.len() <= rows / 2 {
            return self.give(self.uses.len(), text, named, 0);
        }
        self.until_aging -= 1;
        if self.until_aging == 0 {
            self.until_aging = AGING;
            let view = self.cells.view();
            self.uses.iter_mut().enumerate().for_each(|(row, uses)| uses.age(view.row(row)));
        }
        let hash = self.hasher.hash_one(text.as_bytes());
        let came = self.probation.came(hash);
        if came >= EARNS_FREE && self.uses.len() < rows {
            self.probation.begin_again(hash);
            return self.give(self.uses.len(), text, named, came);
        }
        if came < EARNS_USED || !came.is_multiple_of(EARNS_USED) {
            return OTHER_ROW;
        }
        let view = self.cells.view();
        let uses = self.uses.iter().enumerate().skip(OTHER_ROW + 1);
        match uses.map(|(row, uses)| (row, uses.lately(view.row(row)))).min_by_key(|(_, lately)| *lately) {
            Some((row, lately)) if lately < came.into() => {
                self.probation.begin_again(hash);
                self.give(row, text, named, came)
            }
            _ => OTHER_ROW,
        }
    }

    /// Gives a row, the next free one or a used one, to a route.
    fn give(&mut self, row: usize, text: &RouteText, named: bool, came: u32) -> usize {
        let view = self.cells.view();
        self.rows.retain(|_, other| *other != row);
        self.last_row = OTHER_ROW;
        let cell = view.row(row);
        view.head().change(|| {
            let owner = cell.owner.load(Relaxed);
            cell.owner.store(owner.wrapping_add(1).max(1), Relaxed);
            if owner != 0 {
                move_to_other(view, row);
            }
            cell.text.store(text.as_bytes());
            cell.named.store(named.into(), Relaxed);
        });
        self.rows.insert(text.as_bytes().into(), row);
        let uses = Uses { before: came.into(), counted: 0 };
        match self.uses.get_mut(row) {
            Some(known) => *known = uses,
            None => self.uses.push(uses),
        }
        row
    }
}

/// How often a row was used lately.
#[derive(Clone, Copy, Debug, Default)]
struct Uses {
    /// Up to the last time that it was halved.
    before: u64,
    /// The row's requests at that time.
    counted: u64,
}

impl Uses {
    fn lately(self, row: &RouteRow) -> u64 {
        self.before.saturating_add(row.requests.load(Relaxed).saturating_sub(self.counted))
    }

    fn age(&mut self, row: &RouteRow) {
        *self = Self { before: self.lately(row) / 2, counted: row.requests.load(Relaxed) };
    }
}

#[inline]
fn count(row: &RouteRow, request: &Finished<'_>) {
    let class = usize::from(request.status / 100).wrapping_sub(1);
    if let Some(class) = row.responses.get(class) {
        add(class, 1);
    }
    add(&row.running, request.took);
    add(&row.tx, request.tx);
    row.latency.record(request.latency);
    if request.gil_wait > 0 {
        add(&row.gil_wait, request.gil_wait);
    }
    if let Some(grown) = request.memory_growth {
        add(&row.memory_samples, 1);
        add(&row.memory_growth, grown.cast_unsigned());
    }
    if request.exception.is_some() {
        add(&row.exceptions, 1);
    }
    let took = request.took / 1_000;
    if took > row.slowest_took.load(Relaxed)
        || request.now.as_nanos().saturating_sub(row.slowest_when.load(Relaxed)) > SLOWEST_LASTS
    {
        keep_slowest(row, took, request);
    }
    // Last: who sees it sees all of the above.
    row.requests.store(row.requests.load(Relaxed).wrapping_add(1), Release);
}

#[cold]
fn keep_slowest(row: &RouteRow, took: u64, request: &Finished<'_>) {
    row.slowest_when.store(request.now.as_nanos(), Relaxed);
    row.slowest_took.store(took, Relaxed);
    row.slowest_request.store(&[request.method, request.target].join(&b' '));
}

/// Adds what a row has counted to what all others have, and makes it 0.
fn move_to_other(view: View<'_>, row: usize) {
    let (from, to) = (view.row(row), view.row(OTHER_ROW));
    let shift = |from: &AtomicU64, to: &AtomicU64| {
        add(to, from.load(Relaxed));
        from.store(0, Relaxed);
    };
    if from.exceptions.load(Relaxed) > 0
        && let Some(report) = view.exception(row).load()
    {
        view.exception(OTHER_ROW).store(&report);
    }
    for (from, to) in [
        (&from.exceptions, &to.exceptions),
        (&from.running, &to.running),
        (&from.tx, &to.tx),
        (&from.gil_wait, &to.gil_wait),
        (&from.memory_samples, &to.memory_samples),
        (&from.memory_growth, &to.memory_growth),
        (&from.requests, &to.requests),
    ] {
        shift(from, to);
    }
    from.responses.iter().zip(&to.responses).for_each(|(from, to)| shift(from, to));
    from.latency.move_to(&to.latency);
    from.slowest_when.store(0, Relaxed);
    from.slowest_took.store(0, Relaxed);
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::cells::RouteMemory;
    use super::*;
    use crate::ids::SlotId;

    pub(in super::super) const SLOT: SlotId = SlotId::new(1);

    pub(in super::super) fn table(memory: &RouteMemory) -> RouteTable {
        let file = memory.memory().try_clone_to_owned().unwrap();
        RouteTable::new(RouteTableCells::map(file, SLOT, memory.most()).unwrap())
    }

    pub(in super::super) fn finished(target: &str, status: u16) -> Finished<'_> {
        Finished {
            name: None,
            method: b"GET",
            target: target.as_bytes(),
            status,
            took: 3_000,
            latency: 5,
            tx: 100,
            gil_wait: 0,
            memory_growth: None,
            exception: None,
            now: MonotonicNanos::now(),
        }
    }

    fn requests_of(memory: &RouteMemory, text: &str) -> Option<u64> {
        let view = memory.table(SLOT);
        let is_it = |row: &usize| view.row(*row).text.load() == text.as_bytes();
        (1..view.len()).find(is_it).map(|row| view.row(row).requests.load(Relaxed))
    }

    fn all_requests(memory: &RouteMemory) -> u64 {
        let view = memory.table(SLOT);
        (0..view.len()).map(|row| view.row(row).requests.load(Relaxed)).sum()
    }

    fn word(mut number: u64) -> String {
        let mut word = String::new();
        while number > 0 {
            word.push(char::from(b'g' + (number % 20) as u8));
            number /= 20;
        }
        word
    }

    #[test]
    fn requests_of_one_pattern_are_counted_together_and_names_beside_them() {
        let memory = RouteMemory::create(4, 200).unwrap();
        let mut table = table(&memory);
        for target in ["/users/1", "/users/2?x", "/users/2", "/", "/missing"] {
            table.count(&finished(target, if target == "/missing" { 404 } else { 200 }));
        }
        let name = RouteText::named(b"orders").unwrap();
        for target in ["/o/1", "/o/2"] {
            table.count(&Finished { name: Some(&name), ..finished(target, 404) });
        }
        assert_eq!(
            ["/users/{}", "/", "orders", "/missing"].map(|text| requests_of(&memory, text)),
            [Some(3), Some(1), Some(2), None]
        );
        let other = memory.table(SLOT).row(OTHER_ROW);
        assert_eq!((other.requests.load(Relaxed), other.responses[3].load(Relaxed)), (1, 1));
        let row = memory.table(SLOT).row(1);
        assert_eq!((row.tx.load(Relaxed), row.running.load(Relaxed)), (300, 9_000));
    }

    #[test]
    fn a_flood_of_a_million_made_up_paths_takes_no_row_of_a_route_in_use() {
        let memory = RouteMemory::create(4, 200).unwrap();
        let mut table = table(&memory);
        let routes: Vec<_> = (0..100).map(|number| format!("/{}/known", word(20 + number))).collect();
        for route in &routes {
            table.count(&finished(route, 200));
        }
        for number in 0..1_000_000 {
            let path = format!("/{}/{}", word(number), word(number / 7 + 3));
            table.count(&finished(&path, 200));
            // One request in a hundred is of a known route, that is one in ten thousand of each.
            if number % 100 == 0 {
                table.count(&finished(&routes[(number / 100) as usize % 100], 200));
            }
        }
        let kept = routes.iter().filter_map(|route| requests_of(&memory, route));
        assert_eq!(kept.collect::<Vec<_>>(), vec![101; 100]);
        assert_eq!(all_requests(&memory), 1_010_100);
        assert!(table.rows.len() <= 200 && table.uses.len() <= 201);
    }

    #[test]
    fn a_route_that_comes_after_a_flood_gets_a_row() {
        let memory = RouteMemory::create(4, 200).unwrap();
        let mut table = table(&memory);
        for number in 0..100_000 {
            // Each twice, so that some take free rows.
            table.count(&finished(&format!("/{}/x", word(number / 2)), 200));
        }
        for number in 0..10_000 {
            table.count(&finished(&format!("/{}/y", word(number)), 200));
            if number % 20 == 0 {
                table.count(&finished("/late", 200));
            }
        }
        assert!(requests_of(&memory, "/late") > Some(400), "{:?}", requests_of(&memory, "/late"));
        assert_eq!(all_requests(&memory), 110_500);
    }

    #[test]
    fn paths_that_the_application_does_not_know_get_no_row() {
        let memory = RouteMemory::create(4, 200).unwrap();
        let mut table = table(&memory);
        (0..1_000).for_each(|_| table.count(&finished("/wp-login.php", 404)));
        assert_eq!((requests_of(&memory, "/wp-login.php"), all_requests(&memory)), (None, 1_000));
        table.count(&finished("/known/7", 200));
        table.count(&finished("/known/8", 404));
        assert_eq!(requests_of(&memory, "/known/{}"), Some(2));
    }

    #[test]
    fn an_idle_row_is_taken_over_and_its_counts_are_those_of_all_others() {
        let memory = RouteMemory::create(4, 2).unwrap();
        let mut table = table(&memory);
        let report = ExceptionReport { kind: "Old".into(), ..ExceptionReport::default() };
        table.count(&Finished { exception: Some(&report), ..finished("/old", 500) });
        for _ in 0..20 {
            table.count(&finished("/busy", 200));
        }
        for _ in 0..8 {
            table.count(&finished("/new", 200));
        }
        let requests = ["/old", "/busy", "/new"].map(|text| requests_of(&memory, text));
        // It has earned the second row at its third request, and the first at its eighth.
        assert_eq!(requests, [None, Some(18), Some(1)]);
        let view = memory.table(SLOT);
        let other = view.row(OTHER_ROW);
        let counted = [&other.requests, &other.exceptions, &other.responses[4]].map(|count| count.load(Relaxed));
        assert_eq!(counted, [10, 1, 1]);
        assert_eq!(view.exception(OTHER_ROW).load().unwrap().kind, "Old");
        assert_eq!(other.latency.load().iter().sum::<u64>(), 10);
        assert_eq!(all_requests(&memory), 29);
    }

    #[test]
    fn the_slowest_request_is_kept_until_a_slower_one_comes_or_it_is_old() {
        let memory = RouteMemory::create(4, 200).unwrap();
        let mut table = table(&memory);
        let at = |seconds: u64| MonotonicNanos::from_nanos(1_000_000_000 * seconds);
        let slowest = || memory.table(SLOT).row(1).slowest_request.load_text();
        for (target, took, now, kept) in [
            ("/a/1?q=2", 5_000, at(1), "GET /a/1?q=2"),
            ("/a/2", 4_000, at(2), "GET /a/1?q=2"),
            ("/a/3", 6_000, at(3), "GET /a/3"),
            ("/a/4", 2_000, at(400), "GET /a/4"),
        ] {
            table.count(&Finished { took, now, ..finished(target, 200) });
            assert_eq!(slowest(), kept);
        }
    }
}
