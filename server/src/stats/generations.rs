//! What each of the last generations has done: of its living processes what a snapshot has read, and of those that ended
//! what the master has kept.

use std::collections::{HashMap, VecDeque};

use rwsgi_stats::{ErrorCount, Generation, GenerationRoute, OTHER_ROUTE, Responses};

use super::cell::{Counters, LatencyCounts, ThreadCell};
use super::generation_sums::GenerationSums;
use super::routes::{RouteCounts, RouteDelta};
use crate::clock::UnixMicros;
use crate::ids::GenerationNumber;

/// So many generations are kept.
const KEPT: usize = 8;
/// So many classes of exceptions are told of each.
const MOST_ERRORS: usize = 20;
/// So many routes are told of each.
const MOST_ROUTES: usize = 20;
/// So many are kept of each: which of them have most of its time changes. One takes up to 7 kB.
const KEPT_ROUTES: usize = 60;

/// How far a generation has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GenerationState {
    /// It serves.
    Serving,
    /// It is tried on a few workers.
    Canary,
    /// It has served.
    Past,
    /// It was tried and taken back.
    Undone,
}

impl GenerationState {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Serving => "serving",
            Self::Canary => "canary",
            Self::Past => "past",
            Self::Undone => "undone",
        }
    }
}

/// The living processes of each generation, as one snapshot saw them.
#[derive(Debug, Default)]
pub struct Living(Vec<(GenerationNumber, LivingSums)>);

/// The living processes of a generation.
#[derive(Debug, Default)]
struct LivingSums {
    sums: GenerationSums,
    processes: u32,
    pss: u64,
    /// Processes whose memory is not known yet.
    unknown: u32,
}

impl Living {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    fn of(&mut self, number: GenerationNumber) -> &mut LivingSums {
        let place = self.0.iter().position(|(other, _)| *other == number).unwrap_or_else(|| {
            self.0.push((number, LivingSums::default()));
            self.0.len() - 1
        });
        &mut self.0[place].1
    }

    /// A thread's cell said this.
    pub(super) fn add(
        &mut self,
        number: GenerationNumber,
        counters: Counters,
        latency: &LatencyCounts,
        cell: &ThreadCell,
    ) {
        self.of(number).sums.add(counters, latency, cell);
    }

    /// A process has this memory; 0 when that is not known yet.
    pub(super) fn add_process(&mut self, number: GenerationNumber, pss: u64) {
        let living = self.of(number);
        living.processes += 1;
        living.pss = living.pss.saturating_add(pss);
        living.unknown += u32::from(pss == 0);
    }

    fn get(&self, number: GenerationNumber) -> Option<&LivingSums> {
        self.0.iter().find(|(other, _)| *other == number).map(|(_, living)| living)
    }
}

/// A generation that is kept.
#[derive(Debug)]
struct Record {
    number: GenerationNumber,
    state: GenerationState,
    started_at: UnixMicros,
    /// What its ended processes add up to.
    past: GenerationSums,
    /// What processes of it have counted by route.
    routes: HashMap<String, RouteCounts>,
    /// Its memory as long as it served, and of how many processes.
    pss: (u64, u32),
}

/// The last generations, the newest first.
#[derive(Debug, Default)]
pub struct GenerationHistory(VecDeque<Record>);

impl GenerationHistory {
    /// A generation was loaded: it serves, or is tried.
    pub fn begin(&mut self, number: GenerationNumber, state: GenerationState, now: UnixMicros) {
        if self.0.iter().any(|record| record.number == number) {
            return self.set(number, state);
        }
        self.settle_serving(state);
        let (past, routes, pss) = (GenerationSums::default(), HashMap::new(), (0, 0));
        self.0.push_front(Record { number, state, started_at: now, past, routes, pss });
        while self.0.len() > KEPT {
            // The one that serves stays, however many were tried since.
            let oldest = self.0.iter().rposition(|record| record.state != GenerationState::Serving);
            let _ = oldest.and_then(|place| self.0.remove(place));
        }
    }

    /// What has become of a generation.
    pub fn set(&mut self, number: GenerationNumber, state: GenerationState) {
        self.settle_serving(state);
        if let Some(record) = self.0.iter_mut().find(|record| record.number == number) {
            record.state = state;
        }
    }

    /// One alone serves.
    fn settle_serving(&mut self, state: GenerationState) {
        if state == GenerationState::Serving {
            let serving = self.0.iter_mut().filter(|record| record.state == GenerationState::Serving);
            serving.for_each(|record| record.state = GenerationState::Past);
        }
    }

    /// Where what an ended process of a generation had is added; `None` for one that is not kept any more.
    pub fn past(&mut self, number: GenerationNumber) -> Option<&mut GenerationSums> {
        self.0.iter_mut().find(|record| record.number == number).map(|record| &mut record.past)
    }

    /// A process of a generation has counted this by route.
    pub fn add_routes(&mut self, number: GenerationNumber, deltas: &[RouteDelta]) {
        if let Some(record) = self.0.iter_mut().find(|record| record.number == number) {
            deltas.iter().for_each(|delta| record.add_route(delta));
        }
    }

    /// The stats document's form, with what a snapshot has seen of the living processes.
    pub fn describe(&mut self, living: &Living) -> Vec<Generation> {
        self.0.iter_mut().map(|record| record.describe(living.get(record.number))).collect()
    }
}

impl Record {
    fn add_route(&mut self, delta: &RouteDelta) {
        let route = delta.route.as_deref().unwrap_or(OTHER_ROUTE);
        if self.routes.len() >= KEPT_ROUTES && !self.routes.contains_key(route) {
            // The one with least of the time gives way to one with more; what it had is of all others.
            let others = self.routes.iter().filter(|(route, _)| *route != OTHER_ROUTE);
            let least = others.min_by_key(|(_, counts)| counts.running);
            let gives_way = least.filter(|(_, counts)| counts.running < delta.counts.running);
            let Some(least) = gives_way.map(|(route, _)| route.clone()) else {
                return self.routes.entry(OTHER_ROUTE.to_owned()).or_default().add(&delta.counts);
            };
            if let Some(counts) = self.routes.remove(&least) {
                self.routes.entry(OTHER_ROUTE.to_owned()).or_default().add(&counts);
            }
        }
        self.routes.entry(route.to_owned()).or_default().add(&delta.counts);
    }

    /// Those with most of the time.
    fn describe_routes(&self) -> Vec<GenerationRoute> {
        let mut routes: Vec<_> = self.routes.iter().collect();
        routes.sort_by(|one, other| other.1.running.cmp(&one.1.running).then_with(|| one.0.cmp(other.0)));
        let route = |(route, counts): (&String, &RouteCounts)| GenerationRoute {
            route: route.clone(),
            requests: counts.requests,
            busy_time: counts.running / 1_000,
            latency: counts.encode_latency(),
        };
        routes.into_iter().take(MOST_ROUTES).map(route).collect()
    }

    fn describe(&mut self, living: Option<&LivingSums>) -> Generation {
        let mut sums = self.past.clone();
        if let Some(living) = living {
            sums.merge(&living.sums);
            let is_tried_or_serves = matches!(self.state, GenerationState::Serving | GenerationState::Canary);
            if is_tried_or_serves && living.unknown == 0 {
                self.pss = (living.pss, living.processes);
            }
        }
        let [informational, success, redirect, client_error, server_error] = sums.counters.responses;
        let errors = sums.errors.most_frequent(MOST_ERRORS).into_iter();
        Generation {
            generation: self.number.get(),
            state: self.state.as_str().to_owned(),
            started_at: self.started_at.as_micros(),
            workers: living.map_or(0, |living| living.processes),
            requests: sums.counters.requests,
            exceptions: sums.counters.exceptions,
            responses: Responses { informational, success, redirect, client_error, server_error },
            running_time: sums.counters.running / 1_000,
            latency: sums.latency.encode(),
            pss: self.pss.0,
            pss_workers: self.pss.1,
            errors: errors.map(|(kind, count)| ErrorCount { kind, count }).collect(),
            routes: self.describe_routes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(number: u32) -> GenerationNumber {
        GenerationNumber::new(number).unwrap()
    }

    fn counted(requests: u64) -> GenerationSums {
        GenerationSums { counters: Counters { requests, ..Counters::default() }, ..GenerationSums::default() }
    }

    fn states(history: &mut GenerationHistory) -> Vec<(u32, String)> {
        let told = history.describe(&Living::default()).into_iter();
        told.map(|generation| (generation.generation, generation.state)).collect()
    }

    #[test]
    fn one_generation_serves_and_what_was_tried_is_told_as_kept_or_undone() {
        let mut history = GenerationHistory::default();
        history.begin(number(1), GenerationState::Serving, UnixMicros::from_micros(1));
        history.begin(number(2), GenerationState::Canary, UnixMicros::from_micros(2));
        history.set(number(2), GenerationState::Undone);
        history.begin(number(3), GenerationState::Canary, UnixMicros::from_micros(3));
        history.begin(number(3), GenerationState::Serving, UnixMicros::from_micros(9));
        let expected = [(3, "serving"), (2, "undone"), (1, "past")].map(|(number, state)| (number, state.to_owned()));
        assert_eq!(states(&mut history), expected);
        assert_eq!(history.describe(&Living::default())[0].started_at, 3, "since it was loaded");
    }

    #[test]
    fn the_last_eight_are_kept_and_the_one_that_serves_is_among_them() {
        let mut history = GenerationHistory::default();
        history.begin(number(1), GenerationState::Serving, UnixMicros::default());
        for tried in 2..20 {
            history.begin(number(tried), GenerationState::Canary, UnixMicros::default());
            history.set(number(tried), GenerationState::Undone);
        }
        let kept: Vec<u32> = states(&mut history).into_iter().map(|(number, _)| number).collect();
        assert_eq!(kept, [19, 18, 17, 16, 15, 14, 13, 1]);
    }

    #[test]
    fn living_and_ended_processes_add_up_and_memory_is_that_of_the_time_when_it_served() {
        let mut history = GenerationHistory::default();
        history.begin(number(1), GenerationState::Serving, UnixMicros::default());
        history.past(number(1)).unwrap().merge(&counted(5));
        let mut living = Living::default();
        living.of(number(1)).sums.merge(&counted(3));
        living.add_process(number(1), 100);
        living.add_process(number(1), 50);
        let told = &history.describe(&living)[0];
        assert_eq!((told.requests, told.workers, told.pss, told.pss_workers), (8, 2, 150, 2));
        // Not known of one of them: what was known stays.
        living.add_process(number(1), 0);
        assert_eq!(history.describe(&living)[0].pss, 150);
        history.begin(number(2), GenerationState::Serving, UnixMicros::default());
        living.clear();
        living.add_process(number(1), 10);
        let told = &history.describe(&living)[1];
        assert_eq!((told.workers, told.pss, told.pss_workers), (1, 150, 2), "its last workers leave");
        assert!(history.past(number(7)).is_none());
    }

    #[test]
    fn routes_are_kept_for_those_with_most_of_the_time_and_none_is_lost() {
        let mut history = GenerationHistory::default();
        history.begin(number(1), GenerationState::Serving, UnixMicros::default());
        let delta = |route: u64| {
            let mut counts = RouteCounts::default();
            (counts.requests, counts.running) = (1, route * 1_000);
            let route = (route > 0).then(|| format!("/{route}"));
            RouteDelta { route, named: false, requests: 1, counts, exception: None, slowest: None }
        };
        for route in (0..100).chain(0..100) {
            history.add_routes(number(1), &[delta(route)]);
        }
        history.add_routes(number(9), &[delta(1)]);
        let told = &history.describe(&Living::default())[0].routes;
        assert_eq!(told.len(), MOST_ROUTES);
        let busiest: Vec<&str> =
            told.iter().map(|route| route.route.as_str()).filter(|name| *name != OTHER_ROUTE).collect();
        assert_eq!(busiest[..3], ["/99", "/98", "/97"]);
        let kept = &history.0[0].routes;
        assert!(kept.len() <= KEPT_ROUTES + 1, "{}", kept.len());
        assert_eq!(kept.values().map(|counts| counts.requests).sum::<u64>(), 200);
    }
}
