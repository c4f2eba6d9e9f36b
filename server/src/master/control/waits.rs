//! Requests whose answer comes later, such as a reload: the loop checks them after each event while a client waits.

use rwsgi_stats::control::ReloadKind;

use super::Answering;
use crate::ids::{ChildId, GenerationNumber, WorkerId};
use crate::master::children::Child;
use crate::master::events::Reload;
use crate::master::post::Post;
use crate::master::state::{Master, Phase};

/// Somebody waits.
#[derive(Debug)]
pub(super) struct Wait {
    /// For what.
    pub(super) what: What,
    pub(super) answering: Answering,
}

/// What is waited for.
#[derive(Clone, Copy, Debug)]
pub(super) enum What {
    /// Every worker is of this generation.
    Generation(GenerationNumber),
    /// This process of this worker is gone, and another serves.
    Successor(WorkerId, ChildId),
}

impl Master {
    /// Loads the application again, and answers when its workers serve.
    pub(super) fn control_reload(&mut self, how: ReloadKind, answering: Answering) {
        if self.is_stopping() {
            return answering.failed("the server was told to stop: nothing is reloaded");
        }
        let before = self.generations.newest();
        self.reload(match how {
            ReloadKind::Rolling => Reload::Rolling,
            ReloadKind::Chain => Reload::Chain,
            ReloadKind::Brutal => Reload::Brutal,
        });
        match self.generations.newest() {
            Some(newest) if Some(newest) != before => {
                answering.progress(format!("generation {newest} is being loaded"));
                self.control.waits.push(Wait { what: What::Generation(newest), answering });
            }
            _ if self.is_stopping() => {
                answering.failed("the server stops instead of reloading (exit-on-reload)");
            }
            _ => answering.failed("the application cannot be loaded again: the log says why; nothing has changed"),
        }
    }

    /// Answers when all workers are of this generation.
    pub(in crate::master) fn answer_when_all_serve(&mut self, number: GenerationNumber, answering: Answering) {
        self.control.waits.push(Wait { what: What::Generation(number), answering });
    }

    /// Answers who waits for what has come to pass, or cannot any more.
    pub(in crate::master) fn answer_awaited(&mut self) {
        if self.control.waits.is_empty() {
            return;
        }
        for wait in std::mem::take(&mut self.control.waits) {
            if wait.answering.is_gone() {
                continue;
            }
            let outcome = match wait.what {
                _ if self.phase != Phase::Serving => Some(Err("the server is stopping".to_owned())),
                What::Generation(number) => self.outcome_of_reload(number),
                What::Successor(worker, child) => self.outcome_of_recycling(worker, child).map(Ok),
            };
            match outcome {
                Some(Ok(text)) => wait.answering.text(text),
                Some(Err(why)) => wait.answering.failed(why),
                None => self.control.waits.push(wait),
            }
        }
    }

    fn outcome_of_reload(&self, number: GenerationNumber) -> Option<Result<String, String>> {
        let current = self.generations.current()?;
        if current < number {
            let is_loading = self.generations.get(number).is_some();
            return (!is_loading).then(|| {
                Err(format!("generation {number} could not be loaded: the log says why; generation {current} goes on"))
            });
        }
        if current > number {
            return Some(Ok(format!(
                "generation {number} does not serve: generation {current} of a later reload does"
            )));
        }
        let wanted: Vec<_> = self.running().collect();
        let serves = |child: &Child| child.is_ready() && child.generation == Some(number);
        let is_replaced = |worker: &WorkerId| self.children.of(Post::Worker(*worker)).any(serves);
        wanted
            .iter()
            .all(is_replaced)
            .then(|| Ok(format!("generation {number} serves in {}", workers(wanted.len() as u32))))
    }

    fn outcome_of_recycling(&self, worker: WorkerId, child: ChildId) -> Option<String> {
        if self.children.get(child).is_some() {
            return None;
        }
        let successor = self.children.of(Post::Worker(worker)).rev().find(|child| child.is_ready());
        match successor.and_then(|child| child.pid) {
            Some(pid) => Some(format!("worker {worker} is process {pid} now")),
            // One that is on its way is waited for.
            None if self.children.post(Post::Worker(worker)).is_wanted => None,
            None => Some(format!("worker {worker} has left; it has no process now, for it is not needed")),
        }
    }
}

/// So many workers.
pub(super) fn workers(count: u32) -> String {
    if count == 1 { "1 worker".to_owned() } else { format!("{count} workers") }
}
