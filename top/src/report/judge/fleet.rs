//! What is judged of servers that come and go, and that may be dead: those of a fleet, and of several where their states are
//! asserted.

use super::{Judge, Server};
use crate::report::window::{Span, Step};
use crate::source::{Ending, Monotonic};
use rwsgi_assertions::{Assertion, States, Told, Window};

/// Servers that are named where all of them would be too many.
const NAMED: usize = 5;

impl Judge {
    /// Judges `assertions` over servers that [`join`](Self::join) later.
    pub(crate) fn of_fleet(assertions: &[Assertion], phases: super::Phases, interval: std::time::Duration) -> Self {
        let mut judge = Self::new(assertions, &[], std::iter::empty(), phases, interval);
        judge.is_fleet = true;
        judge
    }

    /// A server that is watched from now on; returns its place.
    pub(crate) fn join(&mut self, label: String) -> usize {
        self.servers.push(Server { label, ..Server::default() });
        for open in self.open.values_mut() {
            open.spans.push(Span::default());
        }
        self.servers.len() - 1
    }

    /// All servers that are known have been asked once.
    pub(crate) fn begin(&mut self, at: Monotonic) {
        self.begun.get_or_insert(at);
    }

    /// Takes in a step of a server of a fleet; `why` it did not answer, when it did not.
    pub(crate) fn push_step(&mut self, target: usize, step: &Step, why: Option<&str>) {
        let Some(server) = self.servers.get_mut(target) else { return };
        match why {
            Some(why) => {
                self.failures += 1;
                server.failure = Some(why.to_owned());
                server.is_slow = false;
            }
            None => {
                server.failure = None;
                server.is_slow = step.whole.states.get().is_some_and(|states| states.slow);
                if !server.is_slow {
                    server.last = Some(step.end);
                }
            }
        }
        if self.is_judged(step) {
            self.take(target, step);
        }
    }

    /// A server is watched no more: that it does not answer is of no interest.
    pub(crate) fn leave(&mut self, target: usize) {
        if let Some(server) = self.servers.get_mut(target) {
            server.is_slow = false;
        }
    }

    /// Whatever is asserted of another metric than these is not measured: a server's source does not tell it.
    pub(crate) fn void_what_is_not_in(&mut self, told: &[&str]) {
        for case in self.cases.iter_mut().filter(|case| !told.contains(&case.assertion.metric.name)) {
            case.not_told("it is not told of servers that are known through Prometheus");
        }
    }

    /// Whether one of these states is asserted.
    fn asserts(&self, states: &[&str]) -> bool {
        self.cases.iter().any(|case| states.contains(&case.assertion.metric.name))
    }

    /// Whether states are asserted, so that servers that do not answer are judged and not waited for.
    pub(super) fn asserts_states(&self) -> bool {
        self.cases.iter().any(|case| case.assertion.metric.is_state())
    }

    /// Notes that a server has not answered.
    pub(super) fn is_dead(&mut self, target: usize) {
        if self.begun.is_none() {
            return;
        }
        let dead = Window { states: Told::Yes(States { dead: true, ..States::default() }), ..Window::default() };
        let open = self.open.values_mut().last().and_then(|open| open.spans.get_mut(target));
        let whole = self.servers.get_mut(target).map(|server| &mut server.span);
        for span in open.into_iter().chain(whole) {
            span.whole.then(&dead);
        }
    }

    /// Where states are asserted, a server that cannot be read is not waited for.
    pub(super) fn begin_without_the_dead(&mut self) {
        let tried = |server: &Server| server.last.is_some() || server.failure.is_some();
        if self.begun.is_none() && !self.is_fleet && self.asserts_states() && self.servers.iter().all(tried) {
            self.begun = self.servers.iter().filter_map(|server| server.last).max();
        }
    }

    /// Why a server of a fleet was not watched well enough.
    pub(super) fn complaint_of_fleet(&self, server: &Server, ending: &Ending) -> Option<String> {
        let why = || server.failure.as_ref().map_or_else(String::new, |failure| format!(": {failure}"));
        if self.servers.iter().all(|server| server.steps_taken == 0) {
            return Some(format!("{}: no sample{}", server.label, why()));
        }
        let dead = server.span.whole.states.get().is_some_and(|states| states.dead);
        if dead && !self.asserts(&["server.up", "server.dead"]) {
            let allowed = "where that may be, assert it: server.dead.count < 2";
            return Some(format!("{} was dead{} ({allowed})", server.label, why()));
        }
        let silent = server.last.is_none_or(|last| ending.at.since(last) > self.allowed);
        (server.is_slow && silent && !self.asserts(&["server.up", "server.slow"])).then(|| {
            let since = if server.last.is_some() { "any more" } else { "at all" };
            format!("{} did not answer {since} (where that may be, assert it: server.slow.count < 2)", server.label)
        })
    }

    /// Who was restarted.
    pub(super) fn restarted(&self) -> String {
        let restarted = self.servers.iter().filter(|server| server.span.whole.restarts > 0);
        let names: Vec<&str> = restarted.map(|server| server.label.as_str()).collect();
        match (self.is_fleet, names.as_slice()) {
            (false, _) | (true, []) => "a server was restarted while it was watched".to_owned(),
            (true, names) => {
                format!("{} restarted while watched (where that may be, assert server.restarts.sum)", some_of(names))
            }
        }
    }
}

/// Names, and how many more there are.
pub(super) fn some_of(names: &[&str]) -> String {
    let more = names.len().saturating_sub(NAMED);
    let named = names[..names.len() - more].join(", ");
    if more > 0 { format!("{named} and {more} more") } else { named }
}
