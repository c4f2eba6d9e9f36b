//! What rules look at: the last seconds of a server, in few numbers.

use std::collections::VecDeque;
use std::time::Duration;

use crate::model::fleet::{State, Tracked};
use crate::source::Monotonic;
use crate::source::fleet::{Figure, Figures};
use rwsgi_assertions::Counts;

/// A block is over after so many looks, and after [`SHORTEST`]; two of them are looked at.
const LOOKS: usize = 15;
/// A block is no shorter.
const SHORTEST: Duration = Duration::from_secs(10);
/// Figures of so many looks are kept, of sources that give nothing else.
const FIGURES: usize = 30;
/// Restarts are kept for so long.
pub(super) const RESTARTS: Duration = Duration::from_secs(600);
/// A poll interval is at most so long, for the requests that a rate stands for.
const LONGEST: f64 = 120.0;

/// What a server did over some looks.
#[derive(Clone, Debug, Default)]
struct Block {
    begun: Monotonic,
    looks: usize,
    requests: f64,
    errors: f64,
    saturation: f64,
    saturations: usize,
    counts: Counts,
}

/// A server's last seconds.
#[derive(Debug, Default)]
pub(super) struct Track {
    current: Block,
    before: Block,
    figures: VecDeque<Figures>,
    /// The last look.
    seen: Option<Monotonic>,
    generation: Option<u32>,
    restarts: u64,
    /// When it was restarted, the newest last.
    pub(super) restarted: VecDeque<Monotonic>,
    /// When its present generation was first seen, if another one was before.
    pub(super) generation_since: Option<Monotonic>,
    /// Since when its workers serve several generations.
    pub(super) mixed_since: Option<Monotonic>,
    /// What its last seconds say.
    pub(super) recent: Recent,
}

/// What the last seconds say of a server.
#[derive(Clone, Debug, Default)]
pub(super) struct Recent {
    pub(super) looks: usize,
    pub(super) requests: f64,
    pub(super) errors: f64,
    /// The mean of it.
    pub(super) saturation: Option<f64>,
    /// By [`LATENCIES`]: the value, and one that the true value is hardly below.
    pub(super) latencies: [Option<(f64, f64)>; LATENCIES.len()],
}

/// A kind of latency that servers are compared by.
pub(super) struct Latency {
    pub(super) figure: Figure,
    pub(super) name: &'static str,
    quantile: f64,
    /// Fewer requests say nothing of it.
    least: f64,
}

/// Each of them.
pub(super) const LATENCIES: [Latency; 3] = [
    Latency { figure: Figure::P50, name: "median", quantile: 0.5, least: 50.0 },
    Latency { figure: Figure::P99, name: "p99", quantile: 0.99, least: 300.0 },
    Latency { figure: Figure::Mean, name: "mean", quantile: f64::NAN, least: 100.0 },
];

/// How many standard errors a true percentile is hardly beyond.
const ERRORS: f64 = 4.0;

impl Track {
    /// Takes in what a sweep has found.
    pub(super) fn push(&mut self, server: &Tracked, at: Monotonic) {
        if server.restarts > self.restarts {
            self.restarts = server.restarts;
            self.restarted.push_back(server.restarted.unwrap_or(at));
            self.forget();
        }
        while self.restarted.front().is_some_and(|then| at.since(*then) > RESTARTS) {
            self.restarted.pop_front();
        }
        let figures = server.figures;
        if server.state != State::Up || self.seen == Some(figures.at) {
            return;
        }
        let seconds = self.seen.replace(figures.at).map_or(0.0, |seen| figures.at.since(seen).as_secs_f64());
        let mixed = server.sample.as_ref().is_some_and(|sample| sample.mixed_generations);
        self.mixed_since = mixed.then(|| self.mixed_since.unwrap_or(figures.at));
        if self.generation != figures.generation {
            if self.generation.is_some() && figures.generation.is_some() {
                self.generation_since = Some(figures.at);
            }
            self.generation = figures.generation;
            self.forget();
        }
        self.add(server, &figures, seconds.min(LONGEST));
        self.recent = self.sum();
    }

    /// What was before says nothing of what is now.
    fn forget(&mut self) {
        (self.current, self.before, self.recent) = Default::default();
        self.figures.clear();
    }

    fn add(&mut self, server: &Tracked, figures: &Figures, seconds: f64) {
        let block = &mut self.current;
        if block.looks >= LOOKS && figures.at.since(block.begun) >= SHORTEST {
            self.before = std::mem::take(block);
        }
        if block.looks == 0 {
            block.begun = figures.at;
        }
        block.looks += 1;
        let window = &server.window;
        let (requests, errors) = if window.samples > 0 {
            let failed = window.failed.get().map_or(window.exceptions, |[_, server]| *server);
            (window.requests as f64, failed as f64)
        } else {
            let requests = figures.get(Figure::Rps).unwrap_or(0.0) * seconds;
            (requests, figures.get(Figure::Errors).unwrap_or(0.0) * requests)
        };
        block.requests += requests;
        block.errors += errors;
        if let Some(saturation) = figures.get(Figure::Saturation) {
            block.saturation += saturation;
            block.saturations += 1;
        }
        if let Some(counts) = window.latency.get() {
            block.counts.merge(counts);
        }
        if self.figures.len() >= FIGURES {
            self.figures.pop_front();
        }
        self.figures.push_back(*figures);
    }

    fn sum(&self) -> Recent {
        let (now, before) = (&self.current, &self.before);
        let saturations = now.saturations + before.saturations;
        let mut counts = now.counts.clone();
        counts.merge(&before.counts);
        let requests = now.requests + before.requests;
        let latency = |kind: &Latency| {
            let counted = counts.total() as f64;
            if counted > 0.0 && kind.quantile.is_finite() {
                if counted < kind.least {
                    return None;
                }
                let p = kind.quantile;
                let low = p - ERRORS * (p * (1.0 - p) / counted).sqrt();
                return Some((counts.quantile(p)? as f64, counts.quantile(low.max(0.0))? as f64));
            }
            if requests < kind.least {
                return None;
            }
            let mut told: Vec<f64> = self.figures.iter().filter_map(|figures| figures.get(kind.figure)).collect();
            if told.len() < 5 {
                return None;
            }
            told.sort_by(f64::total_cmp);
            Some((told[told.len() / 2], told[told.len() / 4]))
        };
        Recent {
            looks: now.looks + before.looks,
            requests,
            errors: now.errors + before.errors,
            saturation: (saturations >= 5).then(|| (now.saturation + before.saturation) / saturations as f64),
            latencies: [latency(&LATENCIES[0]), latency(&LATENCIES[1]), latency(&LATENCIES[2])],
        }
    }
}
