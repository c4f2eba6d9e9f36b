//! One assertion while it is judged: what each window says of it, and who is the worst.

use std::borrow::Cow;

use super::Baseline;
use super::fleet::some_of;
use crate::report::verdict::{Judgement, Measured, Moment, Part};
use crate::report::window::Span;
use rwsgi_assertions::{Aggregate, Assertion, Missing, Window, measure};

/// An assertion while it is judged.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) assertion: Assertion,
    /// What it is held against, or why that is not known.
    threshold: Result<f64, String>,
    /// What the baseline's value was made from, where it is compared with one.
    counts_exceptions: Option<bool>,
    /// Of the windows that are over, the worst, with its badness.
    worst: Option<(f64, Measured)>,
    /// Why one of the windows has no value.
    missing: Option<String>,
    /// Nothing that is measured counts.
    is_untold: bool,
}

impl Case {
    /// Holds an assertion against what the baseline has of its metric, over so many servers; `pieces` when windows are judged
    /// by themselves.
    pub(super) fn new(
        assertion: &Assertion,
        baseline: Option<&Result<Baseline, String>>,
        servers: usize,
        pieces: bool,
    ) -> Self {
        let told = baseline.cloned().unwrap_or_else(|| Err("there is none".to_owned()));
        let known = told.and_then(|known| match known.servers {
            // Sums of more servers are larger.
            count if count != servers => Err(format!("it is of {count} servers, and this run is of {servers}")),
            _ if pieces && assertion.metric.is_total() => {
                Err("it is a total of the whole run, and --window judges pieces".to_owned())
            }
            _ => Ok(known),
        });
        let compared = known.as_ref().ok().filter(|_| assertion.needs_baseline());
        Self {
            assertion: assertion.clone(),
            counts_exceptions: compared.map(|known| known.counts_exceptions),
            threshold: assertion
                .threshold(known.as_ref().ok().map(|known| known.value))
                .ok_or_else(|| format!("the baseline: {}", known.as_ref().err().map_or("", String::as_str))),
            worst: None,
            missing: None,
            is_untold: false,
        }
    }

    /// Says that nothing tells it.
    pub(super) fn not_told(&mut self, why: &str) {
        self.missing.get_or_insert_with(|| why.to_owned());
        self.is_untold = true;
    }

    /// How bad a window is where the worst part is looked for; `None` when it has no value, or parts do not matter.
    pub(super) fn badness_of(&self, window: &Window) -> Option<f64> {
        let threshold = *self.threshold.as_ref().ok().filter(|threshold| self.assertion.has_worst_part(**threshold))?;
        let value = (self.assertion.metric.value)(window).ok()?;
        Some(self.assertion.badness(value, threshold))
    }

    /// The part of a window that it is about.
    pub(super) fn part_of<'w>(&self, window: &'w Window) -> Cow<'w, Window> {
        match &self.assertion.route {
            None => Cow::Borrowed(window),
            Some(route) => Cow::Owned(window.of_route(route).unwrap_or_default()),
        }
    }

    /// The parts of all servers' windows that it is about, or why there is none: a route that nobody asked for says nothing.
    fn parts_of<'s>(&self, spans: &'s [Span], labels: &[&str]) -> Result<Cow<'s, [Span]>, String> {
        let Some(route) = &self.assertion.route else { return Ok(Cow::Borrowed(spans)) };
        let windows: Vec<Option<Window>> = spans.iter().map(|span| span.whole.of_route(route)).collect();
        let untold: Vec<usize> = (0..windows.len()).filter(|place| windows[*place].is_none()).collect();
        if !untold.is_empty() {
            return Err(format!("routes: {}", told_missing(&Missing::NotTold(untold), labels)));
        }
        if windows.iter().flatten().all(|window| window.requests == 0) {
            let known = spans.iter().filter_map(|span| span.whole.routes.get()).flatten();
            let nearest = known.map(|(name, _)| name).min_by_key(|name| strsim::levenshtein(route, name));
            let meant = nearest.map_or_else(String::new, |name| format!("; did you mean {name:?}?"));
            return Err(format!("no requests of the route {route:?}{meant}"));
        }
        let span = |window: Option<Window>| Span { whole: window.unwrap_or_default(), workers: Vec::new() };
        Ok(windows.into_iter().map(span).collect())
    }

    /// Takes in a window that is over; `pieces` when it is one of several, each of which needs samples of every server.
    pub(super) fn close(&mut self, spans: &[Span], labels: &[&str], moment: Option<Moment>, pieces: bool) {
        let Ok(threshold) = self.threshold else { return };
        if self.is_untold {
            return;
        }
        if let Some(aggregate) = self.assertion.servers {
            return self.close_of_servers(aggregate, spans, labels, moment, threshold);
        }
        let empty = |(span, label): (&Span, &&str)| (span.whole.samples == 0).then(|| (*label).to_owned());
        if let (true, Some(label)) = (pieces, spans.iter().zip(labels).find_map(empty)) {
            self.missing.get_or_insert_with(|| format!("{label}: a window without a sample"));
            return;
        }
        let spans = &*match self.parts_of(spans, labels) {
            Ok(spans) => spans,
            Err(why) => {
                self.missing.get_or_insert(why);
                return;
            }
        };
        let actual = match measure(self.assertion.metric, spans.iter().map(|span| &span.whole)) {
            Ok(actual) => actual,
            Err(missing) => {
                self.missing.get_or_insert_with(|| told_missing(&missing, labels));
                return;
            }
        };
        let note = self.note(spans, labels);
        if let Some(before) = self.counts_exceptions.filter(|before| *before != note.is_some()) {
            let [counts, does_not] = if before { ["the baseline", "this run"] } else { ["this run", "the baseline"] };
            self.missing.get_or_insert_with(|| format!("{counts} counts exceptions, and {does_not} status codes"));
            return;
        }
        let badness = self.assertion.badness(actual, threshold);
        if self.worst.as_ref().is_some_and(|(worst, _)| badness <= *worst) {
            return;
        }
        // Where nothing happened, nobody did it.
        let part = if actual == 0.0 { None } else { self.worst_part(spans, labels) };
        let moment = moment.filter(|_| actual != 0.0);
        self.worst = Some((badness, Measured { value: actual, part, moment, note }));
    }

    /// The same of an assertion on each server: a server that was dead, or had no requests where those are needed, is left out.
    fn close_of_servers(
        &mut self,
        aggregate: Aggregate,
        spans: &[Span],
        labels: &[&str],
        moment: Option<Moment>,
        threshold: f64,
    ) {
        let metric = self.assertion.metric;
        let spans = match self.parts_of(spans, labels) {
            Ok(spans) => spans,
            Err(why) => {
                self.missing.get_or_insert(why);
                return;
            }
        };
        let answered = |span: &Span| span.whole.samples > 0 || metric.is_state();
        let (mut values, mut untold, mut idle) = (Vec::new(), Vec::new(), Vec::new());
        for (place, span) in spans.iter().enumerate().filter(|(_, span)| answered(span)) {
            match (metric.value)(&span.whole) {
                Ok(value) => values.push((place, value)),
                Err(Missing::NoRequests) => idle.push(labels[place]),
                Err(Missing::NotTold(_)) => untold.push(labels[place]),
            }
        }
        if !untold.is_empty() {
            let verb = if untold.len() == 1 { "does" } else { "do" };
            self.missing.get_or_insert_with(|| format!("{} {verb} not tell", some_of(&untold)));
            return;
        }
        let Some(made) = aggregate.of(&values, |value| self.assertion.badness(value, threshold)) else {
            let why = if idle.is_empty() { "no server answered" } else { "no requests" };
            self.missing.get_or_insert_with(|| why.to_owned());
            return;
        };
        let badness = self.assertion.badness(made.value, threshold);
        if self.worst.as_ref().is_some_and(|(worst, _)| badness <= *worst) {
            return;
        }
        let counted = (!idle.is_empty())
            .then(|| format!("of {} of {} servers: no requests at {}", values.len(), spans.len(), some_of(&idle)));
        let notes: Vec<String> = self.note(&spans, labels).into_iter().chain(counted).collect();
        let note = (!notes.is_empty()).then(|| notes.join("; "));
        let named = |place: usize| labels.get(place).map(|label| (*label).to_owned());
        let part = if metric.is_state() {
            // Those that are not as they should be.
            let wanted = if metric.of_route() == "up" { 0.0 } else { 1.0 };
            let are = values.iter().filter(|(_, value)| *value == wanted).filter_map(|(place, _)| labels.get(*place));
            let names: Vec<&str> = are.copied().collect();
            (!names.is_empty()).then(|| Part { server: Some(some_of(&names)), worker: None, value: names.len() as f64 })
        } else {
            let place = made.place.filter(|_| made.value != 0.0);
            let value =
                |place: usize| values.iter().find(|(known, _)| *known == place).map_or(0.0, |(_, value)| *value);
            place.map(|place| Part { server: named(place), worker: None, value: value(place) })
        };
        let moment = moment.filter(|_| made.value != 0.0 && !metric.is_state());
        self.worst = Some((badness, Measured { value: made.value, part, moment, note }));
    }

    /// The server and the worker that are the worst of all.
    fn worst_part(&self, spans: &[Span], labels: &[&str]) -> Option<Part> {
        let known = |(place, span): (usize, &Span)| Some((self.badness_of(&span.whole)?, place));
        let (_, place) = spans.iter().enumerate().filter_map(known).max_by(|a, b| a.0.total_cmp(&b.0))?;
        let span = spans.get(place)?;
        let mut part = Part {
            server: labels.get(place).filter(|_| labels.len() > 1).map(|label| (*label).to_owned()),
            worker: None,
            value: (self.assertion.metric.value)(&span.whole).ok()?,
        };
        if self.assertion.metric.of_workers {
            let known = |(id, window): &(u32, Window)| Some((self.badness_of(window)?, *id, window.clone()));
            let worst = span.workers.iter().filter_map(known).max_by(|a, b| a.0.total_cmp(&b.0));
            if let Some((_, id, window)) = worst {
                part.worker = Some(id);
                part.value = (self.assertion.metric.value)(&window).ok()?;
            }
        }
        (part.server.is_some() || part.worker.is_some()).then_some(part)
    }

    /// What has to be said of how it was measured.
    fn note(&self, spans: &[Span], labels: &[&str]) -> Option<String> {
        if !self.assertion.metric.falls_back {
            return None;
        }
        let silent = spans.iter().zip(labels).filter(|(span, _)| span.whole.failed.get().is_none());
        let silent: Vec<&str> = silent.map(|(_, label)| *label).collect();
        let verb = if silent.len() == 1 { "does" } else { "do" };
        (!silent.is_empty())
            .then(|| format!("counts exceptions, for {} {verb} not tell status codes", some_of(&silent)))
    }

    pub(super) fn judgement(self, samples: u64, windows: u64) -> Judgement {
        let measured = self.worst.map(|(_, measured)| measured).filter(|_| !self.is_untold);
        let failed = match (&measured, &self.threshold) {
            (Some(measured), Ok(threshold)) => !self.assertion.holds(measured.value, *threshold),
            _ => false,
        };
        let actual = match (measured, self.missing, &self.threshold) {
            (_, _, Err(why)) => Err(why.clone()),
            // One window that does not hold is enough, whatever is not known of the others.
            (Some(measured), None, _) => Ok(measured),
            (Some(measured), Some(_), _) if failed => Ok(measured),
            (_, Some(missing), _) => Err(missing),
            (None, None, _) => Err("nothing was measured".to_owned()),
        };
        let holds = actual.is_ok().then_some(!failed);
        Judgement { threshold: self.threshold.ok(), assertion: self.assertion, actual, holds, samples, windows }
    }
}

fn told_missing(missing: &Missing, labels: &[&str]) -> String {
    match missing {
        Missing::NoRequests => "no requests".to_owned(),
        Missing::NotTold(_) if labels.len() < 2 => "the server does not tell".to_owned(),
        Missing::NotTold(places) => {
            let named: Vec<&str> = places.iter().filter_map(|place| labels.get(*place).copied()).collect();
            format!("{} {} not tell", some_of(&named), if named.len() == 1 { "does" } else { "do" })
        }
    }
}
