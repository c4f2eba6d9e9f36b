//! The `busyness` algorithm of `cheaper`: from utilization and waiting connections to workers more or fewer.
//!
//! As uWSGI's, but for what it is fed with: it asks often and guesses, here the figures are exact.

use std::time::{Duration, Instant};

use tracing::info;

use rwsgi_config::Busyness;

/// What it sees at one look.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    pub(super) at: Instant,
    /// Percent of the threads' time since the last look.
    pub(super) busyness: f64,
    /// Connections that wait now.
    pub(super) waiting: u64,
    /// Since when they have waited without a break.
    pub(super) waiting_since: Option<Instant>,
    /// Workers that are stopped when that is decided: there are more than the fewest.
    pub(super) has_spare: bool,
    /// `cheaper-step`.
    pub(super) step: u32,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    None,
    /// This many workers more.
    More(u32),
    /// This many workers more because connections wait; see [`Watch::added`].
    Emergency(u32),
    /// One worker less.
    Less,
}

/// What was seen and decided before.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Looks in a row below `cheaper-busyness-min`.
    quiet: u32,
    /// What was added to `cheaper-busyness-multiplier` because workers were stopped too early.
    penalty: u32,
    /// Polls since a worker was stopped.
    since_drop: Option<u32>,
    /// Workers that were added because connections waited, and not stopped since. While there are any, they go sooner:
    /// a short rush is not to be paid for until the long wait is over.
    emergency: u32,
}

impl Watch {
    /// Decides. What is decided is taken to be done.
    pub(super) fn decide(&mut self, bounds: &Busyness, look: &Look) -> Decision {
        self.since_drop = self.since_drop.map(|looks| looks + 1);
        let long = Duration::from_secs(bounds.backlog_nonzero.into());
        let waits_long = look.waiting_since.is_some_and(|since| look.at - since >= long);
        let change = if look.waiting > bounds.backlog_alert.into() || waits_long {
            self.quiet = 0;
            self.penalty = 0;
            Decision::Emergency(bounds.backlog_step)
        } else if look.busyness > f64::from(bounds.max) {
            self.quiet = 0;
            match self.since_drop.take() {
                Some(looks) if looks <= bounds.multiplier + self.penalty => self.penalty += bounds.penalty,
                _ => self.penalty = self.penalty.saturating_sub(1),
            }
            Decision::More(look.step)
        } else if look.busyness >= f64::from(bounds.min) {
            self.quiet = 0;
            // Busy enough to be kept.
            self.emergency = self.emergency.saturating_sub(1);
            Decision::None
        } else if look.has_spare {
            self.quiet += 1;
            if self.quiet >= self.patience(bounds) {
                self.quiet = 0;
                self.emergency = self.emergency.saturating_sub(1);
                // One after another: there is no haste in it, and less patience is needed.
                if self.since_drop.replace(0).is_some() {
                    self.penalty = self.penalty.saturating_sub(1);
                }
                Decision::Less
            } else {
                Decision::None
            }
        } else {
            self.quiet = 0;
            Decision::None
        };
        if bounds.verbose {
            info!(
                "cheaper: busyness {:.1} %, {} waiting, {} quiet looks of {}, {} emergency workers: {change:?}",
                look.busyness,
                look.waiting,
                self.quiet,
                self.patience(bounds),
                self.emergency
            );
        }
        change
    }

    /// So many workers were really there to be added in an emergency.
    pub(super) fn added(&mut self, workers: u32) {
        self.emergency += workers;
    }

    /// Quiet looks after which a worker goes.
    fn patience(&self, bounds: &Busyness) -> u32 {
        if self.emergency > 0 { bounds.backlog_multiplier } else { bounds.multiplier + self.penalty }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(busyness: f64, waiting: u64) -> Look {
        Look { at: Instant::now(), busyness, waiting, waiting_since: None, has_spare: true, step: 2 }
    }

    /// How many quiet looks it takes until a worker goes.
    fn quiet_looks(watch: &mut Watch, bounds: &Busyness) -> u32 {
        (1..1000).find(|_| watch.decide(bounds, &look(0.0, 0)) == Decision::Less).expect("a worker goes")
    }

    #[test]
    fn workers_come_above_the_most_and_go_after_quiet_looks() {
        let (mut watch, bounds) = (Watch::default(), Busyness::default());
        assert_eq!(watch.decide(&bounds, &look(51.0, 0)), Decision::More(2));
        assert_eq!(watch.decide(&bounds, &look(50.0, 0)), Decision::None);
        assert_eq!(quiet_looks(&mut watch, &bounds), 10);
        for _ in 0..9 {
            assert_eq!(watch.decide(&bounds, &look(24.0, 0)), Decision::None);
        }
        // One that is not quiet restarts the count.
        assert_eq!(watch.decide(&bounds, &look(25.0, 0)), Decision::None);
        assert_eq!(quiet_looks(&mut watch, &bounds), 10);
    }

    #[test]
    fn emergency_workers_go_sooner_and_all_others_as_late_as_ever() {
        let (mut watch, bounds) = (Watch::default(), Busyness { backlog_step: 2, ..Busyness::default() });
        assert_eq!(watch.decide(&bounds, &look(10.0, 33)), Decision::None);
        assert_eq!(watch.decide(&bounds, &look(10.0, 34)), Decision::Emergency(2));
        watch.added(2);
        assert_eq!(quiet_looks(&mut watch, &bounds), 3);
        assert_eq!(quiet_looks(&mut watch, &bounds), 3);
        assert_eq!(quiet_looks(&mut watch, &bounds), 10);
        // Where none could be added there is none to stop.
        assert_eq!(watch.decide(&bounds, &look(10.0, 34)), Decision::Emergency(2));
        assert_eq!(quiet_looks(&mut watch, &bounds), 10);
        // One that has become busy is no emergency worker any more.
        assert_eq!(watch.decide(&bounds, &look(10.0, 34)), Decision::Emergency(2));
        watch.added(1);
        assert_eq!(watch.decide(&bounds, &look(40.0, 0)), Decision::None);
        assert_eq!(quiet_looks(&mut watch, &bounds), 10);
    }

    #[test]
    fn connections_that_wait_long_are_an_emergency() {
        let (mut watch, bounds) = (Watch::default(), Busyness::default());
        let at = Instant::now();
        let waits = |seconds| Look { at: at + Duration::from_secs(seconds), waiting_since: Some(at), ..look(10.0, 1) };
        assert_eq!(watch.decide(&bounds, &waits(59)), Decision::None);
        assert_eq!(watch.decide(&bounds, &waits(60)), Decision::Emergency(1));
    }

    #[test]
    fn a_worker_that_was_let_go_too_early_makes_the_next_ones_stay_longer() {
        let (mut watch, bounds) = (Watch::default(), Busyness::default());
        assert_eq!(quiet_looks(&mut watch, &bounds), 10);
        assert_eq!(watch.decide(&bounds, &look(80.0, 0)), Decision::More(2));
        assert_eq!(quiet_looks(&mut watch, &bounds), 12);
        assert_eq!(quiet_looks(&mut watch, &bounds), 12);
        // Going one after another without regret shortens it again.
        assert_eq!(quiet_looks(&mut watch, &bounds), 11);
        assert_eq!(quiet_looks(&mut watch, &bounds), 10);
        assert_eq!(quiet_looks(&mut watch, &bounds), 10);
    }
}
