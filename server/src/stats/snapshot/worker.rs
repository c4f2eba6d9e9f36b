//! A worker in the stats document.

use std::fmt;
use std::time::Duration;

use nix::unistd::Pid;
use rwsgi_stats::{App, Core, GarbageCollections, RequestInfo, Responses, Worker};

use super::Purpose;
use crate::clock::{Clock, MonotonicNanos, UnixMicros};
use crate::ids::{GenerationNumber, SlotId, ThreadIndex, WorkerId};
use crate::stats::cell::{Counters, ExceptionReport, GcCounts, ThreadSample};
use crate::stats::request::{Vars, route_of};
use crate::stats::routes::describe_exception;
use crate::stats::scoreboard::{CorruptSlot, Scoreboard};
use crate::stats::state::SnapshotState;
use crate::stats::totals::{Averages, Totals, newest};
use rwsgi_config::Config;

/// A worker: its past and its processes.
pub struct WorkerView<'a> {
    /// Its number.
    pub id: WorkerId,
    /// What its past processes add up to.
    pub totals: &'a Totals,
    /// Its living processes: first the newest that serves, which is the one shown; those that finish their last
    /// requests beside a successor, or load the application yet, behind it. Empty for a worker that has no process.
    pub processes: Vec<ProcessView>,
}

/// A living worker process.
#[derive(Clone, Copy, Debug)]
pub struct ProcessView {
    /// Its slot on the scoreboard.
    pub slot: SlotId,
    /// Its process id.
    pub pid: Pid,
    /// The generation that it serves.
    pub generation: GenerationNumber,
    /// When it was started.
    pub spawned_at: UnixMicros,
    /// Whether the master knows that it serves, and so gives it orders.
    pub is_ready: bool,
}

/// A worker process that has written where it must not, and is no longer to be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CorruptWorker {
    /// The worker.
    pub worker: WorkerId,
    /// The process.
    pub pid: Pid,
    /// What was found of it.
    pub found: CorruptSlot,
}

impl fmt::Display for CorruptWorker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { worker, pid, found } = self;
        write!(f, "worker {worker} (pid {pid}): {found}: the application, or an extension, writes where it must not")
    }
}

/// What a worker's threads add up to, and what is shown of each.
#[derive(Default)]
struct ThreadSums {
    sum: Counters,
    /// Time in the requests in progress, ns.
    in_progress: u64,
    /// Requests of the process that is shown.
    delta_requests: u64,
    /// Of the process that is shown.
    average: Averages,
    last_exception: Option<ExceptionReport>,
    cores: Vec<Core>,
}

/// What is the same for all workers of a snapshot.
#[derive(Clone, Copy)]
pub(super) struct SnapshotContext<'a> {
    pub(super) purpose: Purpose,
    pub(super) scoreboard: &'a Scoreboard,
    pub(super) config: &'a Config,
    pub(super) now: MonotonicNanos,
    /// Name of the machine.
    pub(super) host: &'a str,
}

/// What is shown of a worker; processes that are found corrupt are added to `corrupt`.
pub(super) fn take(
    context: SnapshotContext<'_>,
    view: &WorkerView<'_>,
    state: &mut SnapshotState,
    corrupt: &mut Vec<CorruptWorker>,
) -> Worker {
    let SnapshotContext { scoreboard: board, now, host, .. } = context;
    let mut threads = ThreadSums { last_exception: view.totals.last_exception.clone(), ..ThreadSums::default() };
    state.worker_latency.clear();
    state.worker_latency.add(&view.totals.latency);
    for id in ThreadIndex::first(board.layout().threads) {
        let mut counters = view.totals.threads.get(id.index()).copied().unwrap_or_default();
        let mut core = Core { id: id.get(), ..Core::default() };
        for (nth, process) in view.processes.iter().enumerate() {
            let cell = board.thread(process.slot, id);
            let read = cell.read().and_then(|read| {
                state.cell_latency.clear();
                // The pages that have them are not touched for a thread that has served nothing.
                if read.counters.requests == 0 {
                    return Ok(read);
                }
                cell.read_latencies(&mut state.cell_latency)?;
                cell.add_phases(read.counters.requests, &mut state.phases).map(|()| read)
            });
            let ThreadSample { counters: live, started, average } = match read {
                Ok(sample) => sample,
                Err(found) => {
                    // One word for each process is enough.
                    if corrupt.iter().all(|other| other.found.slot != process.slot) {
                        let found = CorruptSlot { slot: process.slot, thread: id, corrupt: found };
                        corrupt.push(CorruptWorker { worker: view.id, pid: process.pid, found });
                    }
                    continue;
                }
            };
            counters += live;
            if nth == 0 {
                threads.delta_requests += live.requests;
                threads.average.add(average);
            }
            if let Some(started) = started {
                threads.in_progress = threads.in_progress.saturating_add(now.nanos_since(started));
                core.in_request = 1;
                // The request of the process that is shown goes first.
                if context.purpose == Purpose::Document
                    && core.vars.is_empty()
                    && let Some(held) = cell.held()
                {
                    let vars = Vars::of(&held, host, context.config.show_request);
                    core.vars = vars.lines().collect();
                    core.req_info = info(&vars, held.started, now, state.clock);
                    if context.config.routes.most > 0 {
                        core.req_info.route = Some(route_of(&held).as_str().to_owned());
                    }
                }
            }
            state.worker_latency.add(&state.cell_latency);
            state.living.add(process.generation, live, &state.cell_latency, cell);
            // As with the histograms. It is stored before it is counted.
            if live.exceptions > 0 {
                newest(&mut threads.last_exception, cell.exception.load());
            }
        }
        core.requests = counters.requests;
        core.write_errors = counters.write_errors;
        core.read_errors = counters.read_errors;
        threads.sum += counters;
        threads.cores.push(core);
    }
    for process in &view.processes {
        if !board.worker(process.slot).drained() {
            state.living.add_process(process.generation, state.memory.of(process.pid).pss);
        }
    }
    state.all_latency.add(&state.worker_latency);
    state.phases.add(&view.totals.phases);
    worker_entry(context, view, state, threads)
}

/// What is shown of a worker, whose threads add up to this and whose latency the state holds.
fn worker_entry(
    context: SnapshotContext<'_>,
    view: &WorkerView<'_>,
    state: &mut SnapshotState,
    threads: ThreadSums,
) -> Worker {
    let ThreadSums { sum, in_progress, delta_requests, average, last_exception, cores } = threads;
    let shown = view.processes.first();
    let times = view.processes.iter().filter_map(|process| state.memory.processor_time(process.pid));
    let processor = times.sum::<Duration>();
    let (busy_time, processor_time) = state.never_lower(
        view.id,
        sum.running.saturating_add(in_progress),
        view.totals.processor_time.saturating_add(processor.as_nanos() as u64),
    );
    let memory = shown.map(|process| state.memory.of(process.pid)).unwrap_or_default();
    let busy = cores.iter().any(|core| core.in_request == 1);
    let [informational, success, redirect, client_error, server_error] = sum.responses;
    Worker {
        id: view.id.get(),
        pid: shown.map_or(0, |process| process.pid.as_raw()),
        accepting: shown
            .is_some_and(|process| process.is_ready && context.scoreboard.worker(process.slot).accepting())
            .into(),
        requests: sum.requests,
        delta_requests,
        exceptions: sum.exceptions,
        harakiri_count: view.totals.harakiri,
        signals: 0,
        signal_queue: 0,
        status: match (shown, busy) {
            (None, _) => "cheap",
            (_, true) => "busy",
            (_, false) => "idle",
        }
        .to_owned(),
        rss: memory.rss,
        vsz: memory.vsz,
        running_time: sum.running / 1_000,
        last_spawn: shown.map_or(0, |process| process.spawned_at.as_secs()),
        respawn_count: view.totals.respawns,
        tx: sum.tx,
        avg_rt: average.mean().unwrap_or(view.totals.average),
        apps: vec![App {
            requests: sum.requests,
            exceptions: sum.exceptions,
            chdir: context.config.chdir.as_ref().map(|dir| dir.to_string_lossy().into_owned()).unwrap_or_default(),
            ..App::default()
        }],
        cores,
        generation: Some(shown.map_or(0, |process| process.generation.get())),
        busy_time: Some(busy_time / 1_000),
        cpu_time: Some(processor_time / 1_000),
        gil_wait: Some(sum.gil_wait / 1_000),
        // What the scoreboard does not tell: the master says it.
        unresponsive_for: Some(0),
        pss: Some(memory.pss),
        uss: Some(memory.uss),
        rss_peak: Some(memory.rss_peak),
        responses: Some(Responses { informational, success, redirect, client_error, server_error }),
        recycled: Some(view.totals.recycled),
        latency: (context.purpose == Purpose::Document).then(|| state.worker_latency.encode()),
        last_exception: last_exception.map(|report| describe_exception(&report, context.config.show_request)),
        gc: context.config.slow_requests.gc_stats.then(|| garbage(context.scoreboard, view)),
    }
}

/// Garbage collections of a worker's past and present processes.
fn garbage(scoreboard: &Scoreboard, view: &WorkerView<'_>) -> GarbageCollections {
    let mut sum = view.totals.garbage;
    for process in &view.processes {
        sum += scoreboard.worker(process.slot).garbage().unwrap_or_default();
    }
    let GcCounts { collections, time, longest, collected, by_generation } = sum;
    GarbageCollections { collections, time: time / 1_000, longest: longest / 1_000, collected, by_generation }
}

/// What is shown of a request in progress.
fn info(vars: &Vars, started: MonotonicNanos, now: MonotonicNanos, clock: Clock) -> RequestInfo {
    let (began, now) = (clock.unix_at(started), clock.unix_at(now));
    RequestInfo {
        request_start: Some(began.as_secs()),
        started: Some(began.as_micros()),
        elapsed: Some(now.as_micros().saturating_sub(began.as_micros())),
        ..vars.info()
    }
}
