//! What one server did between two moments: the sums of what each step from a sample to the next added.
//!
//! Everything is a difference of counters and of histograms, so totals since boot never count, and a restart in the middle
//! is seen. Windows of one server follow each other; windows of several are put beside each other by [`measure`].
//!
//! [`measure`]: rwsgi_assertions::measure

use std::time::Duration;

use rwsgi_stats::{Responses, Worker};

use crate::model::{Pool, Rates, RouteWindow, Sample};
use crate::source::{LocalMicros, Monotonic};
use rwsgi_assertions::{RouteSum, Routes, States, Told, Window};

/// Counters of a server or a worker that the next sample's are subtracted from.
#[derive(Clone, Copy, Debug, Default)]
struct Marks {
    requests: u64,
    exceptions: u64,
    failed: [u64; 2],
    harakiri: u64,
    respawns: u64,
    refused: u64,
    tx: u64,
}

impl Marks {
    fn of_server(sample: &Sample) -> Self {
        let totals = &sample.totals;
        let workers = &sample.snapshot.workers;
        let sum = |count: fn(&Responses) -> u64| {
            workers.iter().filter_map(|worker| worker.responses.as_ref()).map(count).fold(0, u64::saturating_add)
        };
        Self {
            requests: totals.requests,
            exceptions: totals.exceptions,
            failed: [sum(|responses| responses.client_error), sum(|responses| responses.server_error)],
            harakiri: totals.harakiri,
            respawns: totals.respawns,
            refused: totals.queue_errors,
            tx: totals.tx,
        }
    }

    /// Those of a server that has just started.
    fn at_start(sample: &Sample, ended: &Self) -> Self {
        // A socket that was kept counts on.
        let kept = sample.totals.queue_errors >= ended.refused;
        Self { refused: if kept { ended.refused } else { 0 }, ..Self::default() }
    }

    fn of_worker(worker: &Worker) -> Self {
        let responses = worker.responses.unwrap_or_default();
        Self {
            requests: worker.requests,
            exceptions: worker.exceptions,
            failed: [responses.client_error, responses.server_error],
            harakiri: worker.harakiri_count,
            // Its first process belongs to the server's start.
            respawns: worker.respawn_count.saturating_sub(1),
            refused: 0,
            tx: worker.tx,
        }
    }

    /// What happened since `before`.
    fn since(self, before: Self, tells_responses: bool) -> Window {
        let [client, server] = [0, 1].map(|class| self.failed[class].saturating_sub(before.failed[class]));
        Window {
            samples: 1,
            requests: self.requests.saturating_sub(before.requests),
            exceptions: self.exceptions.saturating_sub(before.exceptions),
            harakiri: self.harakiri.saturating_sub(before.harakiri),
            respawns: self.respawns.saturating_sub(before.respawns),
            refused: self.refused.saturating_sub(before.refused),
            tx: self.tx.saturating_sub(before.tx),
            failed: Told::of(tells_responses.then_some([client, server])),
            ..Window::default()
        }
    }
}

/// What happened from one sample of a server to the next.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// The sample before.
    pub(crate) begin: Monotonic,
    /// The sample that ends it; the first sample of a server is a step of no length.
    pub(crate) end: Monotonic,
    /// What this machine's clock said at its end.
    pub(crate) taken: LocalMicros,
    /// The server as a whole.
    pub(crate) whole: Window,
    /// Each of its workers, by its number.
    pub(crate) workers: Vec<(u32, Window)>,
}

impl Step {
    /// Takes in what the sample at its end says beyond what was known before.
    fn count(&mut self, sample: &Sample, server: Marks, workers: &[Marks]) {
        self.whole = of_server(sample, server);
        let worker = |place| of_worker(sample, place, workers.get(place).copied().unwrap_or_default());
        self.workers = (0..sample.workers.len()).filter_map(worker).collect();
    }
}

/// Makes steps of a server's samples.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    before: Option<Before>,
}

#[derive(Debug)]
struct Before {
    at: Monotonic,
    restarts: u64,
    server: Marks,
    workers: Vec<Marks>,
}

impl Steps {
    /// The step that ends with what a pool has just learned; `None` when it has learned nothing.
    pub(crate) fn step(&mut self, pool: &Pool, taken: LocalMicros) -> Option<Step> {
        let sample = pool.current.as_ref()?;
        let now = Before {
            at: sample.at,
            restarts: pool.restarts,
            server: Marks::of_server(sample),
            workers: sample.snapshot.workers.iter().map(Marks::of_worker).collect(),
        };
        let before = self.before.replace(now);
        let begin = before.as_ref().map_or(sample.at, |before| before.at);
        let mut step = Step { begin, end: sample.at, taken, whole: Window::default(), workers: Vec::new() };
        match before {
            Some(before) if before.restarts == pool.restarts => step.count(sample, before.server, &before.workers),
            Some(before) => {
                // All that it tells happened since, when it was started after the sample before.
                if sample.window.is_some() {
                    step.count(sample, Marks::at_start(sample, &before.server), &[]);
                }
                step.whole.restarts = 1;
            }
            None => {}
        }
        levels(sample, &mut step);
        Some(step)
    }
}

/// What all workers did together since `before`.
fn of_server(sample: &Sample, before: Marks) -> Window {
    let (totals, seconds) = (&sample.totals, sample.window.unwrap_or(0.0));
    let workers = &sample.snapshot.workers;
    let cores = totals.cores as f64 * seconds;
    // Without a core there is nothing to be busy; without time between two samples nothing was done.
    let unseen = totals.cores == 0 || seconds <= 0.0;
    let share = |told: Option<f64>| if unseen { Told::Unseen } else { Told::of(told) };
    let tells = |worker: &Worker| worker.responses.is_some();
    let tells_responses = workers.iter().any(tells) && workers.iter().all(|worker| tells(worker) || worker.pid == 0);
    let window = Marks::of_server(sample).since(before, tells_responses);
    Window {
        seconds,
        latency: Told::of(totals.latency.clone()),
        waiting: Told::of(totals.waiting.clone()),
        busy: match share(totals.utilization) {
            Told::Yes(utilization) => Told::Yes((utilization * cores, cores)),
            Told::No => Told::No,
            Told::Unseen => Told::Unseen,
        },
        cpu: share(totals.cpu.map(|cpu| cpu * seconds)),
        routes: of_routes(sample),
        ..window
    }
}

/// What the routes did that had requests.
fn of_routes(sample: &Sample) -> Told<Routes> {
    let Some(routes) = &sample.snapshot.routes else { return Told::No };
    let busy = routes.iter().zip(&sample.routes).filter(|(_, window)| window.requests > 0);
    let sum = |window: &RouteWindow| RouteSum {
        requests: window.requests,
        busy: window.busy,
        errors: window.errors,
        exceptions: window.exceptions,
        tx: window.tx,
        latency: window.counts.clone(),
    };
    Told::Yes(busy.map(|(route, window)| (route.route.clone(), sum(window))).collect())
}

/// What the worker at a place did since `before`.
fn of_worker(sample: &Sample, place: usize, before: Marks) -> Option<(u32, Window)> {
    let (worker, rates): (&Worker, &Rates) = (sample.snapshot.workers.get(place)?, sample.workers.get(place)?);
    let seconds = sample.window.unwrap_or(0.0);
    let cores = worker.cores.len().max(1) as f64 * seconds;
    // A process that was just started has no difference yet.
    fn known<T>(told: Option<T>) -> Told<T> {
        told.map_or(Told::Unseen, Told::Yes)
    }
    let window = Marks::of_worker(worker).since(before, worker.responses.is_some());
    let window = Window {
        seconds,
        latency: known(rates.counts.clone()),
        busy: known(rates.utilization.map(|utilization| (utilization * cores, cores))),
        cpu: known(rates.cpu.map(|cpu| cpu * seconds)),
        ..window
    };
    Some((worker.id, window))
}

/// Resident memory. uWSGI reads it after a request, and without `--memory-report` never: 0 is no process's, and says nothing.
fn read(rss: u64) -> Told<u64> {
    if rss > 0 { Told::Yes(rss) } else { Told::Unseen }
}

/// What is a height and not a count: as it is at the step's end.
fn levels(sample: &Sample, step: &mut Step) {
    let (totals, workers) = (&sample.totals, &sample.snapshot.workers);
    let running = || workers.iter().filter(|worker| worker.pid > 0);
    let window = &mut step.whole;
    if let Some(rss) = running().map(|worker| worker.rss).max() {
        window.rss_max = read(rss);
        // That of some is not that of all.
        window.rss_sum = if running().all(|worker| worker.rss > 0) { read(totals.rss) } else { Told::Unseen };
        window.pss_mean = match totals.pss {
            Some(pss) => Told::Yes(pss / running().count().max(1) as u64),
            None if running().all(|worker| worker.pss.is_some()) => Told::Unseen,
            None => Told::No,
        };
        window.pss_sum = match totals.pss {
            Some(pss) => Told::Yes(pss),
            // Pages are counted less often than documents are asked for: 0 is a process whose are not yet.
            None if running().all(|worker| worker.pss.is_some()) => Told::Unseen,
            None => Told::No,
        };
    }
    window.queue_max = Told::Yes(totals.queue);
    window.findings = Told::Yes(sample.findings.len() as u64);
    let draining = sample.snapshot.draining == Some(true);
    window.states = Told::Yes(States { up: true, draining, ..States::default() });
    window.saturation = Told::of(rwsgi_stats::saturation(&sample.snapshot));
    window.workers_min = Told::Yes(running().count() as u64);
    for ((_, window), worker) in step.workers.iter_mut().zip(workers).filter(|(_, worker)| worker.pid > 0) {
        window.rss_max = read(worker.rss);
        window.rss_sum = read(worker.rss);
        window.pss_sum = match worker.pss {
            Some(0) => Told::Unseen,
            told => Told::of(told),
        };
    }
}

/// Steps of one server put together: the server and its workers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Span {
    /// The server as a whole.
    pub(crate) whole: Window,
    /// Its workers, by their place, each with its number.
    pub(crate) workers: Vec<(u32, Window)>,
}

impl Span {
    /// Takes in the step that follows.
    pub(crate) fn then(&mut self, step: &Step) {
        self.whole.then(&step.whole);
        self.join(&step.workers);
    }

    /// Takes in the span that follows.
    pub(crate) fn append(&mut self, next: &Self) {
        self.whole.then(&next.whole);
        self.join(&next.workers);
    }

    fn join(&mut self, workers: &[(u32, Window)]) {
        for (place, (id, window)) in workers.iter().enumerate() {
            match self.workers.get_mut(place) {
                Some((known, sum)) => {
                    *known = *id;
                    sum.then(window);
                }
                None => self.workers.push((*id, window.clone())),
            }
        }
    }
}

/// How long a run was, as text.
pub(crate) fn offset(time: Duration) -> String {
    format!("+{:.1}s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{Poll, parse};

    /// The window of these documents, one a second.
    fn window(documents: &[&str]) -> Window {
        let (mut pool, mut steps, mut window) = (Pool::new("web1".into(), None), Steps::default(), Window::default());
        for (second, document) in (0u64..).zip(documents) {
            let (at, taken) = (Monotonic::from_micros(second * 1_000_000), LocalMicros(second));
            let document = format!("{{\"version\":\"1\",\"pid\":7,\"workers\":[{document}]}}");
            pool.ingest(Poll { target: 0, at, taken, outcome: parse(document.into_bytes()) });
            window.then(&steps.step(&pool, taken).unwrap().whole);
        }
        window
    }

    #[test]
    fn memory_that_is_not_known_yet_is_not_taken_for_memory_that_is_never_told() {
        let worker = |pss: &str| format!("{{\"id\":1,\"pid\":8,\"rss\":9000{pss}}}");
        let (not_yet, known) = (worker(",\"pss\":0"), worker(",\"pss\":5000"));
        assert_eq!(window(&[&not_yet, &known, &not_yet]).pss_sum, Told::Yes(5_000));
        assert_eq!(window(&[&not_yet]).pss_sum, Told::Unseen);
        assert_eq!(window(&[&worker(""), &worker("")]).pss_sum, Told::No);
        let cheap = "{\"id\":1}";
        assert_eq!(window(&[cheap, &worker(""), cheap]).rss_max, Told::Yes(9_000));
        let idle = "{\"id\":1,\"pid\":8}";
        assert_eq!(window(&[idle, &known, idle]).rss_max, Told::Yes(9_000), "uWSGI reads it after a request");
        assert_eq!(window(&[idle, idle]).rss_max, Told::Unseen);
    }

    #[test]
    fn a_window_is_the_same_however_its_steps_are_put_together() {
        let worker = |requests: u64| format!("{{\"id\":1,\"pid\":8,\"rss\":9000,\"requests\":{requests}}}");
        let documents: Vec<String> = [5, 9, 30, 31].map(worker).into();
        let documents: Vec<&str> = documents.iter().map(String::as_str).collect();
        let whole = window(&documents);
        assert_eq!((whole.requests, whole.samples, whole.seconds), (26, 3, 3.0));
        let mut parts = window(&documents[..2]);
        parts.then(&window(&documents[1..]));
        assert_eq!(parts, whole);
        // Another server in the same time.
        parts.beside(&whole);
        assert_eq!((parts.requests, parts.seconds), (52, 3.0));
    }
}
