//! Asks threads what they execute. The loop sends the signals, for it alone knows that a process is not reaped and its
//! number no other's. A future that it gives away waits for the answers, and says of a thread that gives none why.

mod aggregate;
mod profile;
mod target;

use std::future::Future;
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use rwsgi_stats::control::{Answer, Stacks, ThreadStack};
use tracing::info;

pub(super) use self::profile::Profile;
use self::target::{Target, application_threads};
use super::children::Child;
use super::control::Answering;
use super::post::Post;
use super::state::Master;
use crate::clock::MonotonicNanos;
use crate::ids::{ChildId, SlotId, ThreadIndex, WorkerId};
use crate::stats::cell::HeldRequest;
use crate::stats::request::{Vars, route_of};

/// How long is waited for the answers of a process. A thread that runs or waits answers within a millisecond, unless the
/// machine is busy.
const PATIENCE: Duration = Duration::from_millis(200);
/// Between two looks: at first, and at last.
const LOOKS: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(16)];

impl Master {
    /// Asks one thread of a worker's process; `None` when there is no such process.
    pub(super) fn ask_stack(
        &mut self,
        child: ChildId,
        thread: ThreadIndex,
    ) -> Option<impl Future<Output = ThreadStack> + use<>> {
        let question = self.stacks.next_question();
        let child = self.children.get(child)?;
        let target = self.serving_target(child, thread, question)?;
        let answers = self.stacks.wait(vec![target], question);
        Some(async move { answers.await.pop().unwrap_or_default() })
    }

    /// Asks all threads of a worker, or of all workers.
    pub(super) fn ask_stacks(&mut self, worker: Option<WorkerId>) -> impl Future<Output = Stacks> + use<> {
        let question = self.stacks.next_question();
        let mut targets = Vec::new();
        let mut children: Vec<_> = self.children.workers().collect();
        children.sort_by_key(|child| (child.post, child.id));
        for child in children {
            let (Post::Worker(id), Some(pid), Some(slot)) = (child.post, child.pid, child.slot) else { continue };
            if worker.is_some_and(|worker| worker != id) {
                continue;
            }
            let all = ThreadIndex::first(self.scoreboard.layout().threads);
            targets.extend(all.filter_map(|thread| self.serving_target(child, thread, question)));
            targets.extend(application_threads(&self.stacks, id, pid, slot, question));
        }
        let answers = self.stacks.wait(targets, question);
        async move { Stacks { threads: answers.await } }
    }

    /// Answers what all threads execute, of one worker or of all.
    pub(super) fn control_stacks(&mut self, worker: Option<u32>, answering: Answering) {
        let known = worker.map(|number| WorkerId::new(number).filter(|id| id.get() <= self.config.processes));
        if let Some(None) = known {
            return answering
                .failed(format!("there is no such worker: they are numbered from 1 to {}", self.config.processes));
        }
        let stacks = self.ask_stacks(known.flatten());
        tokio::task::spawn_local(async move { answering.done(Answer::Stacks(stacks.await)) });
    }

    /// Logs what all threads execute.
    pub(super) fn log_stacks(&mut self) {
        let stacks = self.ask_stacks(None);
        tokio::task::spawn_local(async move {
            for line in stacks.await.to_string().lines() {
                info!("{line}");
            }
        });
    }

    /// A thread that serves, which was sent the question.
    fn serving_target(&self, child: &Child, thread: ThreadIndex, question: u64) -> Option<Target> {
        let (Post::Worker(worker), Some(pid), Some(slot)) = (child.post, child.pid, child.slot) else { return None };
        let mut stack =
            ThreadStack { worker: worker.get(), pid: pid.as_raw(), core: Some(thread.get()), ..ThreadStack::default() };
        self.describe_request(slot, thread, &mut stack);
        Some(Target::serving(&self.stacks, stack, slot, thread, question))
    }

    /// What is shown of the request that a thread holds.
    fn describe_request(&self, slot: SlotId, thread: ThreadIndex, stack: &mut ThreadStack) {
        let Some(held) = self.scoreboard.thread(slot, thread).held() else { return };
        let vars = Vars::of(&held, "", self.config.show_request);
        let get = |name| vars.get(name).unwrap_or("?");
        stack.request = format!("{} {}", get("REQUEST_METHOD"), get("REQUEST_URI"));
        stack.elapsed = MonotonicNanos::now().nanos_since(held.started) / 1_000;
        stack.route = self.route_in(&held);
    }

    /// The route of a request; empty when requests are not told apart by route.
    fn route_in(&self, held: &HeldRequest) -> String {
        if self.config.routes.most == 0 {
            return String::new();
        }
        route_of(held).as_str().to_owned()
    }
}

/// What is needed to ask, and for what comes back.
#[derive(Debug)]
pub(super) struct Questions {
    memory: crate::stacks::area::StackMemory,
    /// The last one. They grow: a later answer is as good as one to an earlier question.
    last: u64,
}

impl Questions {
    /// Nothing was asked yet.
    pub(super) fn new(memory: crate::stacks::area::StackMemory) -> Self {
        Self { memory, last: 0 }
    }

    /// The memory for answers.
    pub(super) fn memory(&self) -> &crate::stacks::area::StackMemory {
        &self.memory
    }

    fn next_question(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Waits until all have answered, or for as long as there is patience.
    fn wait(&self, mut targets: Vec<Target>, question: u64) -> impl Future<Output = Vec<ThreadStack>> + use<> {
        let memory = self.memory.clone();
        async move {
            let until = Instant::now() + PATIENCE;
            let mut pause = LOOKS[0];
            loop {
                let mut open = 0;
                for target in targets.iter_mut().filter(|target| target.is_open()) {
                    target.look(&memory, question);
                    open += usize::from(target.is_open());
                }
                if open == 0 || Instant::now() >= until {
                    break;
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LOOKS[1]);
            }
            targets.into_iter().filter_map(Target::finish).collect()
        }
    }
}

/// The threads of a process, by number.
fn threads_of(pid: Pid) -> Vec<i32> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}
