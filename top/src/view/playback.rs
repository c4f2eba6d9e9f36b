//! When what is shown was, the present or a moment of the past; and how fast samples come.

use crate::model::Reading;
use crate::source::Monotonic;

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
    pub(super) readings: Vec<Option<Reading>>,
}

/// What the keys of time have made.
#[derive(Debug, Default)]
pub(super) struct Playback {
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
    /// A recording, when `replay`, or servers.
    pub(super) fn new(replay: bool) -> Self {
        Self { speed: replay.then_some(1.0), ..Self::default() }
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
