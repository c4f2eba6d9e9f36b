//! Orders that a worker obeys between two requests. The master gives them through the worker's cell in shared memory;
//! the worker answers through the call socket. Nothing wakes a worker for an order: it looks after each batch of
//! events, and once a second.

use std::time::{Duration, Instant};

use nix::unistd::Pid;
use rwsgi_stats::control::{Answer, MemoryReport, MemoryRequest};
use tracing::warn;

use super::control::Answering;
use super::post::Post;
use super::state::Master;
use super::timers::Timer;
use crate::ids::{ChildId, SlotId, WorkerId};
use crate::ipc::Role;
use crate::ipc::calls::OrderOutcome;
use crate::ipc::worker_order::{OrderNumber, WorkerOrder, WorkerOrderKind};

/// By when a worker with a free thread has looked: three times as long as one sleeps.
const TO_BEGIN: Duration = Duration::from_secs(3);
/// By when one that has begun has answered.
const TO_END: Duration = Duration::from_secs(60);

/// The orders that were not answered yet.
#[derive(Debug)]
pub(super) struct WorkerOrders {
    last: OrderNumber,
    pending: Vec<Pending>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Pending {
    order: WorkerOrder,
    pub(super) worker: WorkerId,
    child: ChildId,
    slot: SlotId,
    has_begun: bool,
    deadline: Instant,
    pub(super) answering: Answering,
}

impl WorkerOrders {
    /// None yet.
    pub(super) fn new() -> Self {
        Self { last: OrderNumber::NONE, pending: Vec::new() }
    }

    /// Takes out the first that is meant.
    pub(super) fn take(&mut self, is_meant: impl Fn(&Pending) -> bool) -> Option<Pending> {
        let index = self.pending.iter().position(is_meant)?;
        Some(self.pending.remove(index))
    }
}

impl Pending {
    /// Whether it is to fork a fork server.
    pub(super) fn is_refork(&self) -> bool {
        self.order.kind == WorkerOrderKind::Refork
    }
}

impl Master {
    /// Asks a worker for a report of its memory.
    pub(super) fn report_memory(&mut self, worker: u32, what: MemoryRequest, answering: Answering) {
        let kind = match what {
            MemoryRequest::Types => WorkerOrderKind::Types,
            MemoryRequest::TraceStart => WorkerOrderKind::TraceStart,
            MemoryRequest::Trace => WorkerOrderKind::Trace,
            MemoryRequest::TraceStop => WorkerOrderKind::TraceStop,
            MemoryRequest::Savings => WorkerOrderKind::Savings,
        };
        match self.serving_worker(worker) {
            Ok(child) => self.order_worker(child, kind, answering),
            Err(why) => answering.failed(why),
        }
    }

    /// The process of that worker that serves.
    ///
    /// # Errors
    /// When there is none, in words.
    pub(super) fn serving_worker(&self, worker: u32) -> Result<ChildId, String> {
        let all = self.config.processes;
        let known = WorkerId::new(worker).filter(|_| worker <= all);
        let known = known.ok_or_else(|| format!("there is no worker {worker}: they are numbered from 1 to {all}"))?;
        let child = self.children.of(Post::Worker(known)).rev().find(|child| child.is_ready());
        child.map(|child| child.id).ok_or_else(|| format!("worker {worker} does not serve now"))
    }

    /// Gives a worker's process an order. `answering` gets an answer in any case.
    pub(super) fn order_worker(&mut self, child: ChildId, kind: WorkerOrderKind, answering: Answering) {
        let found = self.children.get(child).and_then(|child| match child.post {
            Post::Worker(worker) => Some((worker, child.slot?)),
            _ => None,
        });
        let order = WorkerOrder { number: self.worker_orders.last.next(), kind };
        let given = match found {
            None => Err("the worker has ended".to_owned()),
            Some((worker, slot)) if self.scoreboard.worker(slot).give_order(order.encode()) => Ok((worker, slot)),
            Some((worker, _)) => Err(format!(
                "worker {worker} has not begun what was asked before: ask again in {} s",
                TO_BEGIN.as_secs()
            )),
        };
        let (worker, slot) = match given {
            Ok(given) => given,
            Err(why) => {
                if kind == WorkerOrderKind::Refork {
                    self.cancel_refork(&why);
                }
                return answering.failed(why);
            }
        };
        self.worker_orders.last = order.number;
        let deadline = Instant::now() + TO_BEGIN;
        let pending = Pending { order, worker, child, slot, has_begun: false, deadline, answering };
        self.worker_orders.pending.push(pending);
        self.timers.set_earlier(Timer::WorkerOrders, deadline);
    }

    /// A worker begins, and says what that costs.
    pub(super) fn order_begun(&mut self, role: Role, order: OrderNumber, cost: &str) {
        let Some(child) = self.child_in(role).map(|child| child.id) else { return };
        let mut pending = self.worker_orders.pending.iter_mut();
        let Some(pending) = pending.find(|pending| pending.order.number == order && pending.child == child) else {
            return;
        };
        pending.has_begun = true;
        pending.deadline = Instant::now() + TO_END;
        pending.answering.progress(format!("worker {} {cost}", pending.worker));
    }

    /// The order of that number that a process was given and has not answered.
    pub(super) fn take_order(&mut self, role: Role, order: OrderNumber) -> Option<Pending> {
        let child = self.child_in(role)?.id;
        let taken = self.worker_orders.take(|pending| pending.order.number == order && pending.child == child);
        if taken.is_none() {
            warn!("{role:?} answers an order that it does not have, or that was withdrawn: the answer is ignored");
        }
        taken
    }

    /// A worker has done what it was ordered, or says why not.
    pub(super) fn order_obeyed(&mut self, role: Role, order: OrderNumber, outcome: OrderOutcome) {
        let Some(pending) = self.take_order(role, order) else { return };
        let Pending { worker, child, .. } = pending;
        match outcome {
            Err(why) => self.order_failed(pending, &format!("worker {worker}: {why}")),
            Ok(report) => {
                // Not the process id that the process reports: the application could have changed it.
                let pid = self.children.get(child).and_then(|child| child.pid).map_or(0, Pid::as_raw);
                let report = MemoryReport { worker: worker.get(), pid, ..report };
                pending.answering.done(Answer::Memory(report));
            }
        }
    }

    /// A process has ended: its orders fail.
    pub(super) fn orders_end(&mut self, child: ChildId) {
        while let Some(pending) = self.worker_orders.take(|pending| pending.child == child) {
            let why = format!("worker {} has ended before it was done", pending.worker);
            self.order_failed(pending, &why);
        }
    }

    /// Looks for orders that were not begun, or not done, in time.
    pub(super) fn watch_worker_orders(&mut self, now: Instant) {
        while let Some(mut late) = self.worker_orders.take(|pending| pending.deadline <= now) {
            let worker = late.worker;
            if self.take_back(&late) {
                let why = format!(
                    "worker {worker}: no thread of it was free for {} s: all are busy with requests, or it hangs",
                    TO_BEGIN.as_secs()
                );
                self.order_failed(late, &why);
            } else if !std::mem::replace(&mut late.has_begun, true) {
                late.deadline = now + TO_END;
                self.worker_orders.pending.push(late);
            } else {
                let why = format!(
                    "worker {worker} has begun, and has not answered within {} s: rwsgi ctl stacks {worker} says why",
                    TO_END.as_secs()
                );
                self.order_failed(late, &why);
            }
        }
        if let Some(next) = self.worker_orders.pending.iter().map(|pending| pending.deadline).min() {
            self.timers.set(Timer::WorkerOrders, next);
        }
    }

    /// Takes an order back. Whether no thread had begun.
    pub(super) fn take_back(&self, pending: &Pending) -> bool {
        self.scoreboard.worker(pending.slot).take_order_back(pending.order.encode())
    }

    fn order_failed(&mut self, pending: Pending, why: &str) {
        if pending.is_refork() {
            self.cancel_refork(why);
        }
        pending.answering.failed(why);
    }
}
