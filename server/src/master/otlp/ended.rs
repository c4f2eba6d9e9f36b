//! The trace of a request whose process died with it: its thread can write no record any more.

use super::super::children::Child;
use super::super::post::Post;
use super::super::state::Master;
use crate::clock::MonotonicNanos;
use crate::ids::ThreadIndex;
use crate::stats::cell::PhaseNanos;
use crate::stats::traces::{TraceEnd, TraceReport};

impl Master {
    /// A worker's process has ended: the traced requests that it held are lost, and their traces say so. Before its slot
    /// is cleared.
    pub(in crate::master) fn trace_ended(&self, child: &Child) {
        let Some(otlp) = &self.otlp else { return };
        let (Some(memory), Post::Worker(worker), Some(slot)) = (&otlp.traces, child.post, child.slot) else { return };
        let now = MonotonicNanos::now();
        let overdue = self.overdue.get(&child.id);
        let mut reports = Vec::new();
        for thread in ThreadIndex::first(self.scoreboard.layout().threads) {
            let cell = self.scoreboard.thread(slot, thread);
            let Some(request) = cell.held().filter(|held| held.started <= now) else { continue };
            let Some(ids) = memory.open(slot, thread, request.started) else { continue };
            let is_harakiri =
                overdue.is_some_and(|all| all.iter().any(|one| (one.thread, one.started) == (thread, request.started)));
            reports.push(TraceReport {
                ids,
                phases: PhaseNanos { application: now.nanos_since(request.started), ..cell.phases.waited() },
                request,
                status: 0,
                body: 0,
                end: if is_harakiri { TraceEnd::Harakiri } else { TraceEnd::Died },
                exception: Default::default(),
                server: [worker.get(), child.pid.map_or(0, nix::unistd::Pid::as_raw).cast_unsigned(), thread.get()],
            });
        }
        otlp.shared.add_traces(reports, 0);
    }
}
