//! `spooler-harakiri`: ends spoolers that run one job for too long.

use std::time::{Duration, Instant};

use tracing::error;

use super::children::Stage;
use super::post::Post;
use super::reason::{Reason, Why};
use super::state::Master;
use super::timers::Timer;
use crate::clock::MonotonicNanos;
use crate::ipc::{Auxiliary, AuxiliaryKind};

/// A job is not looked at more often than this.
const SHORTEST: Duration = Duration::from_millis(100);

impl Master {
    /// The posts of spoolers and mules.
    pub(super) fn auxiliary_posts(&self) -> Vec<Post> {
        let mules = self.config.between.mules.len() as u32;
        let kinds = [(AuxiliaryKind::Spooler, self.config.spooler.count()), (AuxiliaryKind::Mule, mules)];
        let posts = kinds.into_iter().flat_map(|(kind, count)| (1..=count).map(move |number| (kind, number)));
        posts.map(|(kind, number)| Post::Auxiliary(Auxiliary { kind, number })).collect()
    }

    /// Kills spoolers that have run one job for longer than `spooler-harakiri`, and looks again when one could have.
    pub(super) fn watch_jobs(&mut self, now: Instant) {
        let Some(limit) = self.config.spooler.harakiri.map(|limit| Duration::from_secs(limit.into())) else { return };
        let clock = MonotonicNanos::now();
        let mut next = limit;
        let mut late = Vec::new();
        for child in self.children.iter().filter(|child| !matches!(child.stage, Stage::Killed(_))) {
            let Post::Auxiliary(who @ Auxiliary { kind: AuxiliaryKind::Spooler, number }) = child.post else {
                continue;
            };
            let (Some(pid), Ok(Some(job))) = (child.pid, self.scoreboard.spooler(number - 1).held()) else { continue };
            let age = clock.since(job.started);
            if age < limit {
                next = next.min(limit - age);
                continue;
            }
            error!(
                "spooler-harakiri: {who} (pid {pid}) runs {} for longer than the {} s allowed: killing it",
                job.path.display(),
                limit.as_secs()
            );
            late.push(child.id);
        }
        for id in late {
            self.kill(id, Why::For(Reason::Harakiri));
        }
        self.timers.set(Timer::Jobs, now + next.max(SHORTEST));
    }
}
