//! When what is shown was, the present or a moment of the past; and how fast samples come.

use std::time::Duration;

use crate::model::Sample;
use crate::source::Monotonic;

/// The poll interval of a fast screen.
pub(crate) const FAST: Duration = Duration::from_millis(100);

/// How fast samples are to come.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Pace {
    /// As the command line says.
    Usual,
    /// Ten times a second.
    Fast,
    /// A recording, so many times as fast as it was recorded; 0 pauses it.
    Replay(f64),
}

/// A moment of the past that is looked at.
#[derive(Debug)]
pub(super) struct Paused {
    /// Which.
    pub(super) at: Monotonic,
    /// By server: what was known of it then.
    pub(super) samples: Vec<Option<Sample>>,
}

/// What the keys of time have made.
#[derive(Debug, Default)]
pub(super) struct Playback {
    /// As the command line says.
    interval: Option<Duration>,
    /// Samples come ten times a second.
    pub(super) fast: bool,
    /// Of a recording: how many times as fast as it was.
    pub(super) speed: Option<f64>,
    /// The moment that is shown; `None` is the present.
    pub(super) paused: Option<Paused>,
    /// The source has no more to give.
    pub(super) ended: bool,
}

impl Playback {
    /// Servers that are polled so often, or a recording.
    pub(super) fn new(interval: Option<Duration>) -> Self {
        let speed = if interval.is_none() { Some(1.0) } else { None };
        Self { interval, speed, ..Self::default() }
    }

    /// How often servers are polled now; `None` for a recording.
    pub(super) fn interval(&self) -> Option<Duration> {
        self.interval.map(|interval| if self.fast { FAST.min(interval) } else { interval })
    }

    pub(super) fn pace(&self) -> Pace {
        match self.speed {
            Some(_) if self.paused.is_some() => Pace::Replay(0.0),
            Some(speed) => Pace::Replay(speed),
            None if self.fast => Pace::Fast,
            None => Pace::Usual,
        }
    }

    /// Goes through a recording so many times as fast; `false` when there is none.
    pub(super) fn hurry(&mut self, factor: f64) -> bool {
        let Some(speed) = &mut self.speed else { return false };
        *speed = (*speed * factor).clamp(0.125, 1024.0);
        true
    }

    /// The moment of the past that is shown.
    pub(super) fn past(&self) -> Option<Monotonic> {
        self.paused.as_ref().map(|paused| paused.at)
    }
}
