//! Requests by route: adds up what workers count, at a poll of the stats and when a worker has ended.

use anyhow::Context;
use nix::unistd::Pid;
use rwsgi_stats::Snapshot;
use tracing::error;

use super::post::Post;
use super::state::Master;
use crate::clock::MonotonicNanos;
use crate::ids::{GenerationNumber, SlotId, ThreadIndex, WorkerId};
use crate::stats::routes::RouteBook;
use crate::stats::scoreboard::{CorruptSlot, Layout};
use crate::stats::snapshot::CorruptWorker;
use rwsgi_config::Config;

/// Empty tables for all worker processes of the scoreboard; `None` when routes are not to be counted.
///
/// # Errors
/// When the system has no memory or descriptors left.
pub(super) fn create(config: &Config, layout: Layout) -> anyhow::Result<Option<RouteBook>> {
    if config.routes.most == 0 {
        return Ok(None);
    }
    let book = RouteBook::create(layout.slots, layout.threads, config.routes.most);
    book.context("cannot create the tables of routes (route-stats)").map(Some)
}

impl Master {
    /// Adds what the living workers have counted since this was done last. What each process has counted, and so each
    /// generation, is what [`RouteBook::collect`] and [`RouteBook::absorb`] return.
    pub(super) fn collect_routes(&mut self) {
        let now = MonotonicNanos::now();
        let Some(book) = &mut self.routes else { return };
        let mut corrupt = Vec::new();
        for child in self.children.workers() {
            let (Post::Worker(worker), Some(slot), Some(pid)) = (child.post, child.slot, child.pid) else { continue };
            let deltas = book.collect(slot, now);
            if let (Ok(deltas), Some(generation)) = (&deltas, child.generation) {
                self.generation_history.add_routes(generation, deltas);
            }
            if let Err(found) = deltas {
                let found = CorruptSlot { slot, thread: ThreadIndex::new(0), corrupt: found };
                corrupt.push(CorruptWorker { worker, pid, found });
            }
        }
        for corrupt in corrupt {
            self.distrust(corrupt.found.slot, &corrupt);
        }
    }

    /// Adds what a worker's process had counted when it ended, and makes its table empty for another.
    pub(super) fn absorb_routes(
        &mut self,
        worker: WorkerId,
        pid: Pid,
        slot: SlotId,
        generation: Option<GenerationNumber>,
        now: MonotonicNanos,
    ) {
        let Some(book) = &mut self.routes else { return };
        match (book.absorb(slot, now), generation) {
            (Ok(deltas), Some(generation)) => self.generation_history.add_routes(generation, &deltas),
            // A worker has a generation.
            (Ok(_), None) => {}
            (Err(found), _) => {
                error!("worker {worker} (pid {pid}): what it counted by route since the last poll is lost: {found}");
            }
        }
    }

    /// Puts the routes into a snapshot.
    pub(super) fn describe_routes(&mut self, snapshot: &mut Snapshot) {
        self.collect_routes();
        let Some(book) = &self.routes else { return };
        let routes = book.describe(self.snapshot_state.clock, MonotonicNanos::now(), self.config.show_request);
        snapshot.routes = Some(routes);
    }
}
