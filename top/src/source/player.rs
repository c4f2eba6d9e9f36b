//! A thread that plays a recording at a chosen speed.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use super::{Entry, LocalMicros, Monotonic, Poll, Recording, SourceError};

/// A recording that was interrupted is not waited for longer than this between two samples.
const LONGEST_GAP: Duration = Duration::from_secs(5);

/// Owner of the thread; it ends soon after this is dropped.
#[derive(Debug)]
pub(crate) struct Player {
    speed: Sender<f64>,
}

impl Player {
    /// Plays from the beginning at the speed of the recording, giving each sample to `deliver`, and `None` at the end.
    pub(crate) fn start(
        recording: Recording,
        deliver: impl Fn(Option<Poll>) -> bool + Send + 'static,
    ) -> std::io::Result<Self> {
        let (sender, changes) = mpsc::channel();
        thread::Builder::new().name("play".into()).spawn(move || {
            let mut speed = 1.0;
            let mut before: Option<(Monotonic, LocalMicros)> = None;
            let targets = recording.targets.len();
            for entry in recording {
                let poll = match entry {
                    Entry::Poll(poll) => poll,
                    Entry::Run(_) | Entry::End(_) => continue,
                    Entry::Damage(damage) => {
                        // Nothing tells whose sample it was: it is said of every server, until its next sample.
                        let (at, taken) = before.unwrap_or_default();
                        let lost = |target| {
                            let outcome = Err(SourceError::recorded(&damage.to_string()));
                            deliver(Some(Poll { target, at, taken, outcome }))
                        };
                        if !(0..targets).all(lost) {
                            return;
                        }
                        continue;
                    }
                };
                let gap = before.map_or(Duration::ZERO, |(before, _)| poll.at.since(before)).min(LONGEST_GAP);
                before = Some((poll.at, poll.taken));
                if !wait(gap, &mut speed, &changes) || !deliver(Some(poll)) {
                    return;
                }
            }
            deliver(None);
        })?;
        Ok(Self { speed: sender })
    }

    /// Plays so many times as fast as it was recorded from now on; 0 holds.
    pub(crate) fn set_speed(&self, speed: f64) {
        // The thread is gone only when the recording is over.
        let _ = self.speed.send(speed);
    }
}

/// Waits for `gap` of the recording's time; `false` when the player is gone.
fn wait(mut gap: Duration, speed: &mut f64, changes: &Receiver<f64>) -> bool {
    loop {
        let began = Instant::now();
        let change = if *speed <= 0.0 {
            changes.recv().map_err(|_| RecvTimeoutError::Disconnected)
        } else {
            changes.recv_timeout(gap.div_f64(*speed))
        };
        gap = gap.saturating_sub(began.elapsed().mul_f64(*speed));
        match change {
            Ok(changed) => *speed = changed,
            Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
}
