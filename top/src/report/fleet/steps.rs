//! What each server of a fleet did from one sweep to the next, for the judge.

use std::collections::BTreeMap;

use super::super::judge::Judge;
use super::super::window::Step;
use crate::model::fleet::{Fleet, State, Tracked};
use crate::model::outliers::Outliers;
use crate::source::fleet::{Figure, Figures, ServerId};
use crate::source::{LocalMicros, Monotonic};
use rwsgi_assertions::{Assertion, Counts, States, Told, Window};
use rwsgi_stats::latency;

/// What is asserted of servers whose source tells rates and percentiles alone, as Prometheus does.
const TOLD_BY_FIGURES: [&str; 15] = [
    "rps",
    "requests",
    "p50",
    "p95",
    "p99",
    "error_rate",
    "errors",
    "utilization",
    "rss.sum",
    "queue.max",
    "server.up",
    "server.slow",
    "server.dead",
    "server.saturation",
    "server.outliers",
];

/// Of each server: its place at the judge, and the figures that were taken in last.
#[derive(Debug, Default)]
pub(super) struct Steps {
    known: BTreeMap<ServerId, (usize, Option<Monotonic>)>,
    /// What servers did since the last sweep: one whose answers come early or late has none of it, or two windows.
    done: BTreeMap<ServerId, Window>,
    last: Option<Monotonic>,
    /// Only percentiles are asserted that figures tell.
    is_told: bool,
}

impl Steps {
    pub(super) fn new(assertions: &[Assertion]) -> Self {
        let is_told = assertions.iter().all(|assertion| TOLD_BY_FIGURES.contains(&assertion.metric.name));
        Self { is_told, ..Self::default() }
    }

    /// Takes in what a server has just answered with.
    pub(super) fn answered(&mut self, fleet: &Fleet, id: ServerId) {
        let Some(server) = fleet.get(id) else { return };
        let saturation = Told::of(server.figures.get(Figure::Saturation));
        self.done.entry(id).or_default().then(&Window { saturation, ..server.window.clone() });
    }

    /// Takes a sweep in.
    pub(super) fn sweep(
        &mut self,
        fleet: &Fleet,
        outliers: &Outliers,
        judge: &mut Judge,
        at: Monotonic,
        taken: LocalMicros,
    ) {
        judge.begin(at);
        let before = self.last.replace(at).unwrap_or(at);
        for server in fleet.servers() {
            let (place, seen) =
                self.known.entry(server.id).or_insert_with(|| (judge.join(server.server.name.clone()), None));
            let mut whole = self.done.remove(&server.id).unwrap_or_default();
            if server.sample.is_none() && server.state == State::Up && *seen != Some(server.figures.at) {
                let begin = seen.replace(server.figures.at);
                if !self.is_told {
                    judge.void_what_is_not_in(&TOLD_BY_FIGURES);
                }
                whole = of_figures(&server.figures, begin);
                whole.saturation = Told::of(server.figures.get(Figure::Saturation));
            }
            if let Some(states) = states(server) {
                whole.states = Told::Yes(states);
            }
            whole.outliers = Told::Yes(outliers.count_of(server.id) as u64);
            let why = if let State::Dead { why, .. } = &server.state { Some(why.as_str()) } else { None };
            // Its end is the sweep's: of the first sweep, servers answer one after the other.
            let step = Step { begin: before, end: at, taken, whole, workers: Vec::new() };
            judge.push_step(*place, &step, why);
        }
        self.done.clear();
        self.known.retain(|id, (place, _)| {
            let stays = fleet.get(*id).is_some();
            if !stays {
                judge.leave(*place);
            }
            stays
        });
    }
}

fn states(server: &Tracked) -> Option<States> {
    let draining = server.sample.as_ref().is_some_and(|sample| sample.draining == Some(true));
    match server.state {
        State::New => None,
        State::Up => Some(States { up: true, draining, ..States::default() }),
        State::Slow { .. } => Some(States { slow: true, ..States::default() }),
        State::Dead { .. } => Some(States { dead: true, ..States::default() }),
    }
}

/// What rates and percentiles say of the time since the look before. Latencies are so many requests at each percentile: what
/// they say of others is nothing, and nobody is let ask.
fn of_figures(figures: &Figures, before: Option<Monotonic>) -> Window {
    let levels = Window {
        rss_sum: Told::of(figures.get(Figure::Rss).map(|bytes| bytes as u64)),
        queue_max: Told::of(figures.get(Figure::Waiting).map(|count| count as u64)),
        ..Window::default()
    };
    let seconds = before.map_or(0.0, |before| figures.at.since(before).as_secs_f64());
    let Some(rps) = figures.get(Figure::Rps).filter(|_| seconds > 0.0) else { return levels };
    let requests = (rps * seconds).round();
    let errors = figures.get(Figure::Errors).map_or(0.0, |share| (share * requests).round());
    let percentiles = [Figure::P50, Figure::P95, Figure::P99].map(|figure| figures.get(figure));
    let latency = match percentiles {
        [Some(p50), Some(p95), Some(p99)] => Told::Yes(spread(requests as u64, [p50, p95, p99])),
        _ if requests > 0.0 => Told::No,
        _ => Told::Unseen,
    };
    Window {
        samples: 1,
        seconds,
        requests: requests as u64,
        exceptions: errors as u64,
        latency,
        busy: Told::of(figures.get(Figure::Utilization).map(|share| (share * seconds, seconds))),
        ..levels
    }
}

/// So many requests with these percentiles: half at the first, up to 95 of 100 at the second, and the rest at the third.
fn spread(requests: u64, percentiles: [f64; 3]) -> Counts {
    let middle = (requests as f64 * 0.5).ceil() as u64;
    let most = ((requests as f64 * 0.95).ceil() as u64).max(middle);
    let counts = [middle, most - middle, requests - most];
    let mut sum = Counts::default();
    for (micros, count) in percentiles.into_iter().zip(counts).filter(|(_, count)| *count > 0) {
        let index = latency::index_of(micros.max(0.0) as u64) as u16;
        let mut one = Counts::default();
        one.pairs_mut().push((index, count));
        sum.merge(&one);
    }
    sum
}
