//! Since when a server stands out, and whether that began with a generation or a start of it.

use super::compared::started;
use super::rules::Said;
use super::track::Track;
use crate::format;
use crate::model::fleet::Tracked;
use crate::source::Monotonic;
use crate::source::fleet::Figure;

/// So long after a change something is taken to have begun with it, seconds.
const AFTER: f64 = 60.0;
/// And so long before it: looks are apart.
const BEFORE: f64 = 10.0;
/// So many points in a row below the level are before it began.
const BELOW: usize = 3;

/// How the beginning is found.
#[derive(Clone, Copy, Debug)]
pub(super) enum Onset {
    /// It is known.
    At(Monotonic),
    /// When this figure went above this, by the server's history.
    Above(Figure, f64),
    /// Nobody knows.
    Unknown,
}

impl Onset {
    pub(super) fn of(figure: Figure, level: f64) -> Self {
        Self::Above(figure, level)
    }
}

/// What it began with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Began {
    /// Nothing that is known.
    #[default]
    Alone,
    /// This generation began to serve.
    Generation(u32),
    /// The server was started.
    Start,
}

/// Since when, in seconds since rtop began (`None`: longer than is known), and what it began with.
pub(super) fn of(server: &Tracked, track: &Track, said: &Said) -> (Option<f64>, Began) {
    match said.onset {
        Onset::At(since) => (Some(seconds(since)), Began::Alone),
        Onset::Unknown => (None, Began::Alone),
        Onset::Above(figure, level) => {
            let since = went_above(server, figure, level);
            (since, began(server, track, since))
        }
    }
}

fn seconds(at: Monotonic) -> f64 {
    at.as_micros() as f64 / 1e6
}

/// When a figure went above a level for good; `None` when it was above it for as long as is known.
fn went_above(server: &Tracked, figure: Figure, level: f64) -> Option<f64> {
    let (mut since, mut below) = (None, 0);
    for point in server.history.iter().rev() {
        match point.get(figure) {
            Some(value) if value >= level => (since, below) = (Some(point.seconds()), 0),
            Some(_) => below += 1,
            None => {}
        }
        if below >= BELOW {
            return since;
        }
    }
    // A few points below at the beginning of all say nothing.
    None
}

fn began(server: &Tracked, track: &Track, since: Option<f64>) -> Began {
    // The generation before its last change, by the history: it reaches further back than rtop has looked.
    let mut points = server.history.iter().rev();
    let now = server.figures.generation;
    let mut changed = None;
    if let Some(now) = now {
        let mut first = None;
        for point in points.by_ref() {
            match point.generation() {
                Some(generation) if generation == now => first = Some(point.seconds()),
                Some(_) => {
                    changed = first;
                    break;
                }
                None => {}
            }
        }
    }
    let changed = changed.or(track.generation_since.map(seconds));
    let start = track.restarted.back().map(|at| seconds(*at)).or_else(|| started(server));
    let since_known = since.is_some();
    let first = server.history.iter().next().map(crate::model::fleet::Point::seconds);
    let with = |change: f64| match since.or(first) {
        // Of what was so when it was first seen, the beginning is known only when it began right then.
        Some(since) if since_known || (change - since).abs() <= BEFORE => {
            (change - BEFORE..=change + AFTER).contains(&since)
        }
        _ => false,
    };
    match (changed, start, now) {
        (Some(changed), Some(start), _) if start > changed && with(start) => Began::Start,
        (Some(changed), _, Some(now)) if with(changed) => Began::Generation(now),
        (_, Some(start), _) if with(start) => Began::Start,
        _ => Began::Alone,
    }
}

/// What follows a sentence.
pub(super) fn words((since, began): (Option<f64>, Began), said: &Said, at: Monotonic) -> String {
    let ago = since.map(|since| format::seconds((seconds(at) - since).max(0.0) as u64));
    match (began, ago) {
        (Began::Generation(generation), Some(ago)) => format!(" since generation {generation}, for {ago}"),
        (Began::Generation(generation), None) => format!(" since generation {generation}"),
        (Began::Start, Some(ago)) => format!(" since its start, for {ago}"),
        (Began::Start, None) => " since its start".to_owned(),
        (Began::Alone, Some(ago)) => format!(", for {ago}"),
        (Began::Alone, None) if matches!(said.onset, Onset::Above(..)) => ", since before rtop looked".to_owned(),
        (Began::Alone, None) => String::new(),
    }
}
