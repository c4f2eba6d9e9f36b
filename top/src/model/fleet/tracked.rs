//! One server of a fleet over time: differences of its counters, restarts, silence.

use std::time::Duration;

use super::Points;
use crate::format;
use crate::source::Monotonic;
use crate::source::fleet::{Figure, Figures, Server, ServerId, ServerSample};
use rwsgi_assertions::{Told, Window};

/// By so much one answer may have been longer on its way than another.
const LATE: Duration = Duration::from_secs(1);

/// Whether a server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It has not answered yet.
    New,
    /// Its last answer is not older than a poll interval.
    Up,
    /// It was asked, and has not answered when it was to be asked again.
    Slow {
        /// When that was first so.
        since: Monotonic,
    },
    /// It could not be read.
    Dead {
        /// Since when.
        since: Monotonic,
        /// Why, in a line.
        why: String,
    },
}

/// What is known of a server of a fleet.
#[derive(Debug)]
pub(crate) struct Tracked {
    /// Which it is.
    pub(crate) id: ServerId,
    /// What its source says of it.
    pub(crate) server: Server,
    /// Whether it answers.
    pub(crate) state: State,
    /// Its last answer; kept while it is silent. `None` too of what gives only [`Figures`].
    pub(crate) sample: Option<Box<ServerSample>>,
    /// What it did in the last window, and its levels at the end of that; kept while it is silent.
    pub(crate) figures: Figures,
    /// The same in whole numbers, for assertions: it is replaced at each answer. Without samples nothing was seen yet, or
    /// the server was just restarted.
    pub(crate) window: Window,
    /// How often another run of it answered.
    pub(crate) restarts: u64,
    /// When that was last.
    pub(crate) restarted: Option<Monotonic>,
    /// The generation that served before this one, and when this one was first seen; `None` when there was no other.
    pub(crate) generation_before: Option<(u32, Monotonic)>,
    /// Its figures over time.
    pub(crate) history: Points,
}

impl Tracked {
    pub(super) fn new(id: ServerId, server: Server) -> Self {
        Self {
            id,
            server,
            state: State::New,
            sample: None,
            figures: Figures::default(),
            window: Window::default(),
            restarts: 0,
            restarted: None,
            generation_before: None,
            history: Points::default(),
        }
    }

    /// For how long it has been without a new answer; `None` while it is up.
    pub(crate) fn silent_since(&self) -> Option<Monotonic> {
        match self.state {
            State::New | State::Up => None,
            State::Slow { since } | State::Dead { since, .. } => Some(since),
        }
    }

    pub(super) fn advance(&mut self, sample: Box<ServerSample>) {
        let at = sample.at;
        let before = self.sample.take();
        let continued = before.as_deref().filter(|before| continues(before, &sample));
        if before.is_some() && continued.is_none() {
            self.restarts += 1;
            self.restarted = Some(at);
            self.generation_before = None;
        }
        self.window = continued.and_then(|before| window(before, &sample)).unwrap_or_default();
        if before.is_some() && continued.is_none() {
            self.window.restarts = 1;
        }
        let mut figures = levels(&sample);
        rates(&mut figures, &self.window, continued, &sample);
        self.sample = Some(sample);
        self.told(figures);
    }

    pub(super) fn told(&mut self, figures: Figures) {
        if let (Some(was), Some(is)) = (self.figures.generation, figures.generation)
            && was != is
            && self.restarted != Some(figures.at)
        {
            self.generation_before = Some((was, figures.at));
        }
        self.state = State::Up;
        self.figures = figures;
        self.history.push(&figures);
    }

    pub(super) fn late(&mut self, at: Monotonic) {
        if matches!(self.state, State::New | State::Up) {
            self.state = State::Slow { since: at };
        }
    }

    pub(super) fn failed(&mut self, at: Monotonic, why: String) {
        let since = self.silent_since().unwrap_or(at);
        self.state = State::Dead { since, why: format::one_line(&why) };
    }

    pub(super) fn remember(&mut self, past: &[(Duration, Figures)]) {
        self.history.remember(past);
    }
}

/// Whether a sample is a later one of the same run of the same server.
fn continues(before: &ServerSample, next: &ServerSample) -> bool {
    let grew = [(before.requests, next.requests), (before.exceptions, next.exceptions), (before.tx, next.tx)];
    before.run.pid == next.run.pid
        && before.run.started_at == next.run.started_at
        && grew.iter().all(|(before, next)| before <= next)
}

/// The time from a sample to the next; `None` when they are one document.
fn time_between(before: &ServerSample, next: &ServerSample) -> Option<Duration> {
    let passed = next.at.since(before.at);
    let told = match (before.now, next.now) {
        // Two samples of one cached document have no time between them.
        (Some(earlier), Some(later)) if earlier == later => return None,
        (Some(earlier), Some(later)) => later.checked_sub(earlier).map(Duration::from_micros),
        _ => None,
    };
    // A clock that was set in between tells nothing.
    Some(told.filter(|told| told.abs_diff(passed) <= LATE).unwrap_or(passed)).filter(|time| !time.is_zero())
}

/// What a server did from a sample to the next.
fn window(before: &ServerSample, next: &ServerSample) -> Option<Window> {
    let seconds = time_between(before, next)?.as_secs_f64();
    let grown = |count: fn(&ServerSample) -> u64| count(next).saturating_sub(count(before));
    let both = |time: fn(&ServerSample) -> Option<u64>| Some(time(next)?.saturating_sub(time(before)?) as f64 / 1e6);
    let failed = next
        .failed
        .zip(before.failed)
        .map(|(next, before)| [0, 1].map(|class: usize| next[class].saturating_sub(before[class])));
    let latency =
        next.latency.as_ref().zip(before.latency.as_ref()).map(|(next, before)| next.since(before).unwrap_or_default());
    Some(Window {
        samples: 1,
        seconds,
        requests: grown(|sample| sample.requests),
        exceptions: grown(|sample| sample.exceptions),
        harakiri: grown(|sample| sample.harakiri),
        respawns: grown(|sample| sample.respawns),
        refused: grown(|sample| sample.rejected),
        tx: grown(|sample| sample.tx),
        failed: Told::of(failed),
        latency: Told::of(latency),
        busy: Told::of(both(|sample| sample.busy_time).map(|busy| (busy, f64::from(next.threads) * seconds))),
        cpu: Told::of(both(|sample| sample.cpu_time)),
        rss_max: Told::of((next.rss_max > 0).then_some(next.rss_max)),
        rss_sum: Told::of((next.rss > 0).then_some(next.rss)),
        pss_sum: Told::of(next.pss),
        queue_max: Told::Yes(next.waiting),
        workers_min: Told::Yes(u64::from(next.workers)),
        ..Window::default()
    })
}

/// What one sample tells without another.
fn levels(sample: &ServerSample) -> Figures {
    let mut figures = Figures { at: sample.at, generation: sample.generation, ..Figures::default() };
    figures.set(Figure::Saturation, sample.saturation());
    figures.set(Figure::Waiting, Some(sample.waiting as f64));
    figures.set(Figure::Rss, (sample.rss > 0).then_some(sample.rss as f64));
    figures
}

/// What the window before a sample tells.
fn rates(figures: &mut Figures, window: &Window, before: Option<&ServerSample>, sample: &ServerSample) {
    let Some(before) = before.filter(|_| window.samples > 0) else { return };
    let of_requests = |count: u64| (window.requests > 0).then(|| count as f64 / window.requests as f64);
    figures.set(Figure::Rps, Some(window.requests as f64 / window.seconds));
    let errors = window.failed.get().map_or(window.exceptions, |[_, server]| *server);
    figures.set(Figure::Errors, of_requests(errors).map(|share| share.min(1.0)));
    figures.set(Figure::Mean, of_requests(sample.running_time.saturating_sub(before.running_time)));
    if let Some(percentiles) = window.latency.get().and_then(rwsgi_assertions::Counts::percentiles) {
        figures.set(Figure::P50, Some(percentiles.p50 as f64));
        figures.set(Figure::P95, Some(percentiles.p95 as f64));
        figures.set(Figure::P99, Some(percentiles.p99 as f64));
    }
    let utilization = window.busy.get().filter(|(_, all)| *all > 0.0).map(|(busy, all)| (busy / all).min(1.0));
    figures.set(Figure::Utilization, utilization);
}
