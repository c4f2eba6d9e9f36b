//! Stopping: first the router finishes what it has, then the workers, then the fork servers. What takes longer than
//! the configured mercy is killed; a second request to stop kills everything at once.

use std::time::{Duration, Instant};

use tracing::{info, warn};

use super::post::Post;
use super::reason::Why;
use super::state::{Master, Phase};
use super::timers::Timer;
use crate::ids::ChildId;

/// Processes that do not leave in time are killed one by one, each with a line in the log; what is left then, so much
/// later, is killed together.
const AFTER_THE_LATE: Duration = Duration::from_millis(100);

impl Master {
    /// Somebody asked the server to stop.
    pub(super) fn stop(&mut self, by: &str) {
        if self.phase != Phase::Serving {
            warn!("{by} again: stopping at once");
            self.kill_all();
            self.kill_daemons();
            return;
        }
        if self.drain(by) {
            return;
        }
        info!("{by}: stopping after the requests in progress");
        self.begin_stop();
    }

    /// Somebody asked the server to stop without finishing anything.
    pub(super) fn stop_at_once(&mut self, by: &str) {
        info!("{by}: stopping at once");
        if self.phase == Phase::Serving {
            self.begin_stop();
        }
        self.kill_all();
        self.kill_daemons();
    }

    /// The server cannot go on: it stops with this exit status.
    pub(super) fn fail(&mut self, status: i32) {
        self.exit_status = status;
        if self.phase == Phase::Serving {
            self.begin_stop();
        }
    }

    pub(super) fn begin_stop(&mut self) {
        self.cancel_refork("the server stops");
        self.phase = Phase::RouterLeaves;
        self.undo_canary("the server stops");
        self.supervisor.notify("STOPPING=1");
        self.timers.set(Timer::StopLate, Instant::now() + self.grace() + AFTER_THE_LATE);
        self.timers.cancel(Timer::Load);
        self.timers.cancel(Timer::Drained);
        self.daemons.hold();
        for post in self.auxiliary_posts().into_iter().chain([Post::HttpRouter, Post::Emperor, Post::ForkServer]) {
            self.children.abandon(post, &mut self.timers);
        }
        self.dismiss_all(|post| post == Post::Emperor);
        if self.generations.current().is_some() && self.exit_status == 0 {
            self.dismiss_all(|post| post == Post::HttpRouter);
        } else {
            // Nothing was ever loaded: what waits at the router nobody will answer.
            let routers: Vec<ChildId> = self.children.of(Post::HttpRouter).map(|child| child.id).collect();
            routers.into_iter().for_each(|id| self.kill(id, Why::Stop));
        }
        self.proceed_with_stop();
    }

    /// Goes as far as what has ended allows.
    pub(super) fn proceed_with_stop(&mut self) {
        if self.phase != Phase::RouterLeaves || self.children.of(Post::HttpRouter).next().is_some() {
            return;
        }
        self.phase = Phase::WorkersLeave;
        if let Some(link) = &mut self.sockets.link {
            // A link in its backlog would wait for a router for ever, and its worker for the router's leave to go.
            link.listener = None;
        }
        for post in self.worker_ids().map(Post::Worker) {
            self.children.abandon(post, &mut self.timers);
        }
        // One that is still loading, overtaken or not, would not look at its channel for a while.
        let has_loaded = |number| self.generations.get(number).is_some_and(|generation| generation.python.is_some());
        let loading = self.children.of(Post::ForkServer).filter(|child| !child.generation.is_some_and(has_loaded));
        for id in loading.map(|child| child.id).collect::<Vec<_>>() {
            self.kill(id, Why::Stop);
        }
        self.dismiss_all(|_| true);
    }

    fn dismiss_all(&mut self, is_meant: impl Fn(Post) -> bool) {
        let meant: Vec<ChildId> =
            self.children.iter().filter(|child| is_meant(child.post)).map(|child| child.id).collect();
        for id in meant {
            self.dismiss(id, Why::Stop);
        }
    }

    /// What has not left by now, and was not killed one by one, is killed.
    pub(super) fn stop_late(&mut self) {
        if self.phase != Phase::Killed {
            warn!("not everything has stopped in time: killing the rest");
            self.kill_all();
        }
    }

    fn kill_all(&mut self) {
        self.phase = Phase::Killed;
        self.timers.cancel(Timer::StopLate);
        let all: Vec<ChildId> = self.children.iter().map(|child| child.id).collect();
        for id in all {
            self.kill(id, Why::Stop);
        }
        for post in self.worker_ids().map(Post::Worker) {
            self.children.abandon(post, &mut self.timers);
        }
    }

    /// Whether nothing is left to wait for.
    pub(super) fn is_over(&self) -> bool {
        self.phase >= Phase::WorkersLeave && self.children.is_empty() && self.daemons.have_left()
    }
}
