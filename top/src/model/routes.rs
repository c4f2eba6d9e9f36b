//! Requests by route: what each did in the window, and the rows that the screen and reports show, of one server or several.

use std::collections::{BTreeMap, HashMap};

use rwsgi_stats::{Core, LastException, OTHER_ROUTE, Route, SlowestRequest};

use super::{Counts, Percentiles, Sample};

/// What a route did in the window. Zeros without one.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct RouteWindow {
    /// Requests completed.
    pub(crate) requests: u64,
    /// Time in them, µs.
    pub(crate) busy: u64,
    /// Responses of 500 and more.
    pub(crate) errors: u64,
    /// Requests in which the application raised an exception.
    pub(crate) exceptions: u64,
    /// Bytes sent.
    pub(crate) tx: u64,
    /// Time that they waited for Python's global lock, µs.
    pub(crate) gil_wait: u64,
    /// Their latencies; `None` without requests.
    pub(crate) latency: Option<Percentiles>,
    /// What those come from; the history does not keep it.
    pub(crate) counts: Counts,
}

impl RouteWindow {
    /// Takes in another window of it, with the latencies of both.
    pub(crate) fn add(&mut self, other: &Self) {
        for (sum, count) in [
            (&mut self.requests, other.requests),
            (&mut self.busy, other.busy),
            (&mut self.errors, other.errors),
            (&mut self.exceptions, other.exceptions),
            (&mut self.tx, other.tx),
            (&mut self.gil_wait, other.gil_wait),
        ] {
            *sum = sum.saturating_add(count);
        }
        self.counts.merge(&other.counts);
        self.latency = self.counts.percentiles();
    }
}

/// A row's counts in a document, which those of the next are held against.
#[derive(Debug, Default)]
struct Counted {
    requests: u64,
    busy: u64,
    errors: u64,
    exceptions: u64,
    tx: u64,
    gil_wait: u64,
    /// What the counts were decoded from: an unchanged text is not decoded again.
    text: String,
    counts: Counts,
}

impl Counted {
    /// What a row says, with `before` of the same name. Its histogram is taken out of it.
    fn of(route: &mut Route, before: Option<&Self>) -> Self {
        let text = std::mem::take(&mut route.latency);
        let counts = match before {
            Some(before) if before.text == text => before.counts.clone(),
            _ => Counts::decode(&text).unwrap_or_default(),
        };
        Self {
            requests: route.requests,
            busy: route.busy_time,
            errors: route.responses.server_error,
            exceptions: route.exceptions,
            tx: route.tx,
            gil_wait: route.gil_wait,
            text,
            counts,
        }
    }

    /// What happened since `before`; `None` when a count became smaller: the row is another one of the same name.
    fn since(&self, before: &Self) -> Option<RouteWindow> {
        let counts = if self.text == before.text { Counts::default() } else { self.counts.since(&before.counts)? };
        Some(RouteWindow {
            requests: self.requests.checked_sub(before.requests)?,
            busy: self.busy.checked_sub(before.busy)?,
            errors: self.errors.checked_sub(before.errors)?,
            exceptions: self.exceptions.checked_sub(before.exceptions)?,
            tx: self.tx.checked_sub(before.tx)?,
            gil_wait: self.gil_wait.checked_sub(before.gil_wait)?,
            latency: counts.percentiles(),
            counts,
        })
    }

    fn add(&mut self, other: &Self) {
        for (sum, count) in [
            (&mut self.requests, other.requests),
            (&mut self.busy, other.busy),
            (&mut self.errors, other.errors),
            (&mut self.exceptions, other.exceptions),
            (&mut self.tx, other.tx),
            (&mut self.gil_wait, other.gil_wait),
        ] {
            *sum = sum.saturating_add(count);
        }
        self.counts.merge(&other.counts);
        self.text.clear();
    }
}

/// The routes of the document before.
#[derive(Debug, Default)]
pub(super) struct RoutesBefore(HashMap<String, Counted>);

impl RoutesBefore {
    /// Takes over what the document says, and returns what each row did since the document before.
    ///
    /// A row that is gone was added to [`OTHER_ROUTE`], so its counts are not what that did in the window; and one that came
    /// back begins at 0.
    pub(super) fn advance(&mut self, routes: &mut [Route]) -> Vec<RouteWindow> {
        let mut before = std::mem::take(&mut self.0);
        let mut gone = Counted::default();
        let mut windows = Vec::with_capacity(routes.len());
        let mut other = None;
        for (place, route) in routes.iter_mut().enumerate() {
            let known = before.remove(&route.route);
            let now = Counted::of(route, known.as_ref());
            if route.route == OTHER_ROUTE && other.is_none() {
                other = Some((place, known.unwrap_or_default(), now));
                windows.push(RouteWindow::default());
                continue;
            }
            let window = known.as_ref().and_then(|known| now.since(known));
            if let (None, Some(known)) = (&window, &known) {
                gone.add(known);
            }
            windows.push(window.or_else(|| now.since(&Counted::default())).unwrap_or_default());
            self.0.insert(route.route.clone(), now);
        }
        before.values().for_each(|row| gone.add(row));
        if let Some((place, mut known, now)) = other {
            let alone = now.since(&known);
            known.add(&gone);
            windows[place] = now.since(&known).or(alone).unwrap_or_default();
            self.0.insert(OTHER_ROUTE.to_owned(), now);
        }
        windows
    }

    /// Latency of a route since its row began.
    pub(super) fn latency(&self, route: &str) -> Option<&Counts> {
        self.0.get(route).map(|row| &row.counts).filter(|counts| counts.total() > 0)
    }
}

/// A route as it is shown, of one server or added up over several.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct RouteRow {
    /// Its name.
    pub(crate) route: String,
    /// The application has named it.
    pub(crate) named: bool,
    /// Requests completed.
    pub(crate) requests: u64,
    /// Responses of 500 and more.
    pub(crate) errors: u64,
    /// Requests in which the application raised an exception.
    pub(crate) exceptions: u64,
    /// Bytes sent.
    pub(crate) tx: u64,
    /// Requests around which memory was read.
    pub(crate) memory_samples: u64,
    /// By how much it grew in those, bytes.
    pub(crate) memory_growth: i64,
    /// The last exception.
    pub(crate) last_exception: Option<LastException>,
    /// The slowest request of the last minutes.
    pub(crate) slowest: Option<SlowestRequest>,
    /// Requests per second.
    pub(crate) rps: Option<f64>,
    /// Share of the busy time of all routes, 0 to 1.
    pub(crate) share: Option<f64>,
    /// Share of its busy time that waited for Python's global lock, 0 to 1.
    pub(crate) gil: Option<f64>,
    /// Latencies of the window.
    pub(crate) latency: Option<Percentiles>,
    busy: u64,
    gil_wait: u64,
    counts: Counts,
}

impl RouteRow {
    /// Bytes that a request makes its process grow by; `None` where that is not read.
    pub(crate) fn growth(&self) -> Option<f64> {
        (self.memory_samples > 0).then(|| self.memory_growth as f64 / self.memory_samples as f64)
    }

    fn add(&mut self, route: &Route, window: &RouteWindow, seconds: Option<f64>, only: bool) {
        self.named |= route.named;
        for (sum, count) in [
            (&mut self.requests, route.requests),
            (&mut self.errors, route.responses.server_error),
            (&mut self.exceptions, route.exceptions),
            (&mut self.tx, route.tx),
            (&mut self.memory_samples, route.memory_samples),
            (&mut self.busy, window.busy),
            (&mut self.gil_wait, window.gil_wait),
        ] {
            *sum = sum.saturating_add(count);
        }
        self.memory_growth = self.memory_growth.saturating_add(route.memory_growth);
        if let Some(seconds) = seconds.filter(|seconds| *seconds > 0.0) {
            *self.rps.get_or_insert(0.0) += window.requests as f64 / seconds;
        }
        let later = |theirs: &&LastException| self.last_exception.as_ref().is_none_or(|ours| ours.when < theirs.when);
        if let Some(exception) = route.last_exception.as_ref().filter(later) {
            self.last_exception = Some(exception.clone());
        }
        let slower = |theirs: &&SlowestRequest| self.slowest.as_ref().is_none_or(|ours| ours.elapsed < theirs.elapsed);
        if let Some(slowest) = route.slowest.as_ref().filter(slower) {
            self.slowest = Some(slowest.clone());
        }
        self.counts.merge(&window.counts);
        // The past has no histograms of routes: what it has are one server's percentiles.
        self.latency = if only { window.latency } else { self.counts.percentiles() };
    }
}

/// The routes of these samples, one of each server, added up by name.
pub(crate) fn routes(samples: &[&Sample]) -> Vec<RouteRow> {
    let mut rows: BTreeMap<&str, RouteRow> = BTreeMap::new();
    for sample in samples {
        for (route, window) in sample.snapshot.routes.iter().flatten().zip(&sample.routes) {
            let row = rows
                .entry(route.route.as_str())
                .or_insert_with(|| RouteRow { route: route.route.clone(), ..RouteRow::default() });
            row.add(route, window, sample.window, samples.len() == 1);
        }
    }
    let busy = rows.values().map(|row| row.busy).fold(0, u64::saturating_add);
    rows.into_values()
        .map(|row| RouteRow {
            share: (busy > 0).then(|| row.busy as f64 / busy as f64),
            gil: (row.busy > 0).then(|| (row.gil_wait as f64 / row.busy as f64).min(1.0)),
            ..row
        })
        .collect()
}

/// The requests of a route that run now: the worker's number and the core.
pub(crate) fn running<'a>(sample: &'a Sample, route: &str) -> Vec<(u32, &'a Core)> {
    let cores = sample.snapshot.workers.iter().flat_map(|worker| worker.cores.iter().map(|core| (worker.id, core)));
    let of_route = |(_, core): &(u32, &Core)| core.in_request != 0 && core.req_info.route.as_deref() == Some(route);
    let mut found: Vec<_> = cores.filter(of_route).collect();
    found.sort_by_key(|(_, core)| std::cmp::Reverse(core.req_info.elapsed));
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use rwsgi_stats::{Snapshot, latency};

    fn route(name: &str, requests: u64, micros: u64) -> Route {
        let counts = latency::from_counts([(latency::index_of(micros), requests)]);
        Route {
            route: name.to_owned(),
            requests,
            busy_time: requests * micros,
            latency: latency::encode(&counts),
            ..Route::default()
        }
    }

    fn requests(windows: &[RouteWindow]) -> Vec<u64> {
        windows.iter().map(|window| window.requests).collect()
    }

    #[test]
    fn a_window_is_the_difference_of_two_documents() {
        let mut before = RoutesBefore::default();
        before.advance(&mut [route("/a", 10, 1_000), route("/b", 5, 2_000)]);
        let windows = before.advance(&mut [route("/a", 30, 1_000), route("/b", 5, 2_000), route("/new", 3, 9_000)]);
        assert_eq!(requests(&windows), [20, 0, 3]);
        assert_eq!(windows[0].busy, 20_000);
        assert!(windows[2].latency.unwrap().p99 >= 9_000 && windows[1].latency.is_none());
        assert_eq!(before.latency("/a").unwrap().total(), 30);
    }

    #[test]
    fn a_row_that_begins_again_is_new_and_what_others_took_over_did_not_happen_now() {
        let mut before = RoutesBefore::default();
        before.advance(&mut [route(OTHER_ROUTE, 100, 1_000), route("/a", 40, 1_000), route("/b", 7, 1_000)]);
        // /a lost its row and came back with two requests, /b lost its row: 40 and 7 of theirs went to the others.
        let windows = before.advance(&mut [route(OTHER_ROUTE, 150, 1_000), route("/a", 2, 1_000)]);
        assert_eq!(requests(&windows), [3, 2]);
        assert_eq!(windows[0].latency.map(|_| windows[0].counts.total()), Some(3));
    }

    #[test]
    fn servers_are_added_up_by_name() {
        let sample = |micros: u64, window: f64| {
            let mut before = RoutesBefore::default();
            before.advance(&mut [route("/a", 0, micros)]);
            let mut routes = vec![route("/a", 99, micros), route("/b", 1, 100_000)];
            let windows = before.advance(&mut routes);
            let snapshot = Snapshot { routes: Some(routes), ..Snapshot::default() };
            Sample { snapshot, routes: windows, window: Some(window), ..Sample::default() }
        };
        let (first, second) = (sample(1_000, 1.0), sample(3_000, 1.0));
        let rows = routes(&[&first, &second]);
        assert_eq!(rows.iter().map(|row| row.route.as_str()).collect::<Vec<_>>(), ["/a", "/b"]);
        assert_eq!((rows[0].requests, rows[0].rps), (198, Some(198.0)));
        assert!(rows[0].latency.unwrap().p50 < 1_100 && rows[0].latency.unwrap().p99 >= 3_000);
        assert!((rows[0].share.unwrap() + rows[1].share.unwrap() - 1.0).abs() < 1e-9);
    }
}
