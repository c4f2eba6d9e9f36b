//! Judging: samples in, a verdict out. The same samples give the same verdict, live or from a recording.

use std::collections::BTreeMap;
use std::time::Duration;

mod case;
mod fleet;

use self::case::Case;
use super::generations::{self, Generations};
use super::verdict::{Moment, Verdict};
use super::window::{Span, Step, Steps};
use crate::format;
use crate::model::Pool;
use crate::source::{EndedBy, Ending, LocalMicros, Monotonic};
use rwsgi_assertions::Assertion;

/// So many poll intervals may pass between two samples of a server, and no less than [`SHORTEST_GAP`].
const GAP: u32 = 3;
/// On a busy machine a short poll interval is missed now and then.
const SHORTEST_GAP: Duration = Duration::from_secs(1);
/// Windows that are not judged yet because a server may still add to them; more are not waited for.
const OPEN: usize = 8;

/// Which part of a run is judged, and in which pieces.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Phases {
    /// Nothing counts before so much time has passed since all servers answered.
    pub(crate) warmup: Duration,
    /// Each window of this length must hold by itself; `None` for one window.
    pub(crate) window: Option<Duration>,
}

/// What a recording has of a metric.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Baseline {
    /// The metric's value.
    pub(crate) value: f64,
    /// Whether exceptions were counted in place of status codes.
    pub(crate) counts_exceptions: bool,
    /// Of how many servers it is.
    pub(crate) servers: usize,
}

/// A server while it is watched.
#[derive(Debug, Default)]
struct Server {
    label: String,
    steps: Steps,
    /// Its last good sample.
    last: Option<Monotonic>,
    /// The longest time between two good samples, and when that began.
    gap: (Duration, Monotonic),
    /// Why there was none after the last good one.
    failure: Option<String>,
    /// It has been asked, and has not answered yet.
    is_slow: bool,
    /// What it has told of its generations last.
    generations: Option<Generations>,
    /// Steps that count.
    steps_taken: u64,
    /// Them put together.
    span: Span,
}

/// What was judged, whatever was asserted.
#[derive(Clone, Debug, Default)]
pub(super) struct Watched {
    /// By server.
    pub(super) spans: Vec<Span>,
    /// When all servers had answered.
    pub(super) begun: Option<Monotonic>,
    /// When what is judged begins: after the warm-up.
    pub(super) from: Option<Monotonic>,
}

/// A window that samples still come for.
#[derive(Debug)]
struct Open {
    /// By server.
    spans: Vec<Span>,
    /// By assertion: the worst step with its badness.
    worst: Vec<Option<(f64, Moment)>>,
}

/// Takes in samples of servers, and judges them at the end.
#[derive(Debug)]
pub(crate) struct Judge {
    cases: Vec<Case>,
    phases: Phases,
    servers: Vec<Server>,
    /// The longest gap that is allowed.
    allowed: Duration,
    /// When all servers had answered.
    begun: Option<Monotonic>,
    open: BTreeMap<u64, Open>,
    /// Windows that were judged.
    windows: u64,
    samples: u64,
    failures: u64,
    restarts: u64,
    seconds: f64,
    /// Why nothing counts.
    void: Vec<String>,
    /// Servers come and go: those of a fleet.
    is_fleet: bool,
}

impl Judge {
    /// Judges `assertions`, each with what the baseline has of its metric, over servers of these names.
    pub(crate) fn new(
        assertions: &[Assertion],
        baseline: &[Result<Baseline, String>],
        servers: impl Iterator<Item = String>,
        phases: Phases,
        interval: Duration,
    ) -> Self {
        let servers: Vec<Server> = servers.map(|label| Server { label, ..Server::default() }).collect();
        let pieces = phases.window.is_some();
        let case = |(place, assertion)| Case::new(assertion, baseline.get(place), servers.len(), pieces);
        let cases = assertions.iter().enumerate().map(case).collect();
        let mut judge = Self {
            cases,
            phases,
            servers: Vec::new(),
            allowed: Duration::ZERO,
            begun: None,
            open: BTreeMap::new(),
            windows: 0,
            samples: 0,
            failures: 0,
            restarts: 0,
            seconds: 0.0,
            void: Vec::new(),
            is_fleet: false,
        };
        judge.servers = servers;
        judge.set_interval(interval);
        judge
    }

    /// Says how often servers are polled.
    pub(crate) fn set_interval(&mut self, interval: Duration) {
        self.allowed = (interval * GAP).max(SHORTEST_GAP);
        if let Some(window) = self.phases.window.filter(|window| *window < 2 * interval) {
            let [window, interval] = [window, interval].map(|time| format::micros(time.as_micros() as u64));
            self.void.push(format!("a window of {window} has no two samples {interval} apart"));
        }
    }

    /// Says why nothing counts.
    pub(crate) fn void(&mut self, why: String) {
        self.void.push(why);
    }

    /// Whether all servers have answered.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun.is_some()
    }

    /// How many samples each ended a step, and how many attempts failed.
    pub(crate) fn counted(&self) -> (u64, u64) {
        (self.samples, self.failures)
    }

    /// Takes in that a server gave no sample.
    pub(crate) fn failed(&mut self, target: usize, why: &str) {
        self.failures += 1;
        if let Some(server) = self.servers.get_mut(target) {
            server.failure = Some(why.to_owned());
        }
        self.is_dead(target);
        self.begin_without_the_dead();
    }

    /// Takes in what a server's pool has just learned. Returns whether that is from before all servers had answered, and
    /// so is not judged: a poll that ended before another's may be taken in after it.
    pub(crate) fn push(&mut self, target: usize, pool: &Pool, taken: LocalMicros) -> bool {
        let Some(server) = self.servers.get_mut(target) else { return false };
        let Some(step) = server.steps.step(pool, taken) else { return false };
        server.failure = None;
        if self.cases.iter().any(|case| case.assertion.previous_generation().is_some()) {
            server.generations = pool.current.as_ref().and_then(|sample| Generations::of(&sample.snapshot));
        }
        // The very document that came before, as a cache gives it, says nothing of the time since.
        if step.begin < step.end && step.whole.restarts == 0 && step.whole.seconds <= 0.0 {
            return false;
        }
        if let Some(last) = server.last {
            let gap = step.end.since(last);
            if self.begun.is_some() && gap > server.gap.0 {
                server.gap = (gap, last);
            }
        }
        let first = server.last.replace(step.end).is_none();
        if first && self.servers.iter().all(|server| server.last.is_some()) {
            self.begun = Some(step.end);
        }
        self.begin_without_the_dead();
        if self.is_judged(&step) {
            self.take(target, &step);
        }
        self.begun.is_some_and(|begun| step.end < begun)
    }

    /// When what is judged begins.
    fn from(&self) -> Option<Monotonic> {
        self.begun.map(|begun| begun.after(self.phases.warmup))
    }

    fn is_judged(&self, step: &Step) -> bool {
        // Of the warm-up nothing counts. Without one, the step that the beginning falls into does: a command that was
        // started then has its first requests in it.
        let warmup = self.phases.warmup > Duration::ZERO;
        self.from().is_some_and(|from| if warmup { step.begin >= from } else { step.end >= from })
    }

    fn take(&mut self, target: usize, step: &Step) {
        self.samples += step.whole.samples;
        self.restarts += step.whole.restarts;
        if let Some(server) = self.servers.get_mut(target) {
            server.steps_taken += step.whole.samples + step.whole.restarts;
            server.span.then(step);
        }
        let since = self.from().map_or(Duration::ZERO, |from| step.end.since(from));
        let number = self.phases.window.map_or(0, |window| (since.as_micros() / window.as_micros().max(1)) as u64);
        // What comes too late for its window belongs to the first that is still open.
        let number = number.max(self.open.keys().next().copied().unwrap_or(0));
        let servers = self.servers.len();
        let cases = self.cases.len();
        let open = self
            .open
            .entry(number)
            .or_insert_with(|| Open { spans: vec![Span::default(); servers], worst: vec![None; cases] });
        if let Some(span) = open.spans.get_mut(target) {
            span.then(step);
        }
        if step.whole.samples > 0 || step.whole.restarts > 0 {
            for (case, worst) in self.cases.iter().zip(&mut open.worst) {
                let Some(badness) = case.badness_of(&case.part_of(&step.whole)) else { continue };
                if worst.as_ref().is_none_or(|(before, _)| badness > *before) {
                    let after = self.begun.map_or(Duration::ZERO, |begun| step.end.since(begun));
                    *worst = Some((badness, Moment { taken: step.taken, after }));
                }
            }
        }
        while self.open.len() > OPEN {
            self.close_first();
        }
    }

    fn close_first(&mut self) {
        let Some((_, open)) = self.open.pop_first() else { return };
        self.windows += 1;
        let labels: Vec<&str> = self.servers.iter().map(|server| server.label.as_str()).collect();
        let longest = open.spans.iter().map(|span| span.whole.seconds).fold(0.0, f64::max);
        self.seconds += longest;
        let pieces = self.phases.window.is_some();
        for (case, worst) in self.cases.iter_mut().zip(open.worst) {
            case.close(&open.spans, &labels, worst.map(|(_, moment)| moment), pieces);
        }
    }

    /// A rest that is shorter than half of a window belongs to the window before it.
    fn join_rest(&mut self) {
        let Some(window) = self.phases.window.filter(|_| self.open.len() > 1 || self.windows > 0) else { return };
        let Some((&last, rest)) = self.open.last_key_value() else { return };
        let covered = rest.spans.iter().map(|span| span.whole.seconds).fold(0.0, f64::max);
        if covered >= window.as_secs_f64() / 2.0 || self.open.len() < 2 {
            return;
        }
        let Some(rest) = self.open.remove(&last) else { return };
        let Some(mut before) = self.open.last_entry() else { return };
        for (span, more) in before.get_mut().spans.iter_mut().zip(&rest.spans) {
            span.append(more);
        }
        for (worst, other) in before.get_mut().worst.iter_mut().zip(rest.worst) {
            let worse = |(badness, _): &(f64, Moment)| worst.as_ref().is_none_or(|(before, _)| badness > before);
            if let Some(other) = other.filter(worse) {
                *worst = Some(other);
            }
        }
    }

    /// What was judged until now.
    pub(super) fn watched(&self) -> Watched {
        let spans = self.servers.iter().map(|server| server.span.clone()).collect();
        Watched { spans, begun: self.begun, from: self.from() }
    }

    /// The verdict on all that was taken in.
    pub(crate) fn finish(mut self, ending: &Ending) -> Verdict {
        self.join_rest();
        while !self.open.is_empty() {
            self.close_first();
        }
        let mut void = std::mem::take(&mut self.void);
        void.extend(ending.why.clone());
        void.extend(self.servers.iter().filter_map(|server| self.complaint(server, ending)));
        let asserted = self.cases.iter().any(|case| case.assertion.metric.name == "restarts");
        if self.is_fleet && self.servers.is_empty() {
            void.push("there are no servers".to_owned());
        }
        if self.restarts > 0 && !asserted {
            void.push(self.restarted());
        }
        let (samples, windows) = (self.samples, self.windows);
        let (servers, in_pieces) = (&self.servers, self.phases.window.is_some());
        let judgements = self.cases.into_iter().map(|case| match case.assertion.previous_generation() {
            None => case.judgement(samples, windows),
            Some(_) => {
                let servers = servers.iter().map(|server| (server.label.as_str(), server.generations.as_ref()));
                generations::judgement(case.assertion, servers, in_pieces, samples)
            }
        });
        let judgements = judgements.collect();
        let void = (!void.is_empty()).then(|| void.join("; "));
        Verdict { judgements, void, seconds: self.seconds }
    }

    /// Why a server was not watched well enough.
    fn complaint(&self, server: &Server, ending: &Ending) -> Option<String> {
        if self.is_fleet || self.asserts_states() {
            return self.complaint_of_fleet(server, ending);
        }
        let time = |time: Duration| format::micros(time.as_micros() as u64);
        let why = || server.failure.as_ref().map_or_else(String::new, |failure| format!(": {failure}"));
        let told = match server.last {
            None => format!("no sample{}", if server.failure.is_some() { why() } else { ": no answer".to_owned() }),
            Some(_) if server.failure.is_some() && ending.by != EndedBy::Exit => {
                format!("no sample at the end{}", why())
            }
            Some(last) if ending.by != EndedBy::Count && ending.at.since(last) > self.allowed => {
                format!("no sample for the last {}{}", time(ending.at.since(last)), why())
            }
            Some(_) if server.gap.0 > self.allowed => {
                let from = self.begun.map_or(Duration::ZERO, |begun| server.gap.1.since(begun));
                format!(
                    "no sample for {} from +{} on, where {} are allowed",
                    time(server.gap.0),
                    time(from),
                    time(self.allowed)
                )
            }
            Some(_) if server.steps_taken == 0 => "fewer than two samples, so there is nothing between them".to_owned(),
            Some(_) => return None,
        };
        Some(format!("{}: {told}", server.label))
    }
}
