//! From the scoreboard and `/proc` to the stats document.

use std::os::fd::BorrowedFd;

use nix::unistd::Pid;
use rwsgi_stats::{
    Address, App, Core, LastException, Limits, Queue, RequestInfo, Responses, SCHEMA_VERSION, Snapshot, Socket, Worker,
    latency,
};

use super::cell::{Counters, ExceptionReport};
use super::clock::{self, MonotonicNanos};
use super::memory::Memory;
use super::request::Vars;
pub use super::request::describe;
use super::scoreboard::Scoreboard;
use super::spoolers::{self, SpoolerView};
use super::totals::{self, Totals};
use crate::config::Config;

/// What the master knows of the server beyond the scoreboard; everything that a snapshot is made of.
pub struct Subject<'a> {
    /// The scoreboard.
    pub scoreboard: &'a Scoreboard,
    /// The configuration in force.
    pub config: &'a Config,
    /// When the master started, unix µs.
    pub started_at: u64,
    /// The generation that serves.
    pub generation: u32,
    /// Version of the interpreter; empty until the first generation is loaded.
    pub python: &'a str,
    /// The sockets that requests arrive on.
    pub sockets: Vec<SocketView<'a>>,
    /// The workers, in the order of their ids.
    pub workers: Vec<WorkerView<'a>>,
    /// The spoolers, in the order of their numbers.
    pub spoolers: Vec<SpoolerView<'a>>,
}

/// A listening socket.
pub struct SocketView<'a> {
    /// Where it is bound.
    pub address: &'a Address,
    /// `http` or `uwsgi`.
    pub protocol: &'static str,
    /// The socket.
    pub fd: BorrowedFd<'a>,
}

/// A worker: its past and its lives.
pub struct WorkerView<'a> {
    /// From 1.
    pub id: u32,
    /// What its past lives add up to.
    pub totals: &'a Totals,
    /// Its living processes: first the newest that serves, which is the one shown; those that finish their last requests
    /// beside a successor, or load the application yet, behind it. Empty for a worker that has no process.
    pub lives: Vec<LifeView>,
}

/// A living worker process.
#[derive(Clone, Copy, Debug)]
pub struct LifeView {
    /// Its slot on the scoreboard.
    pub slot: u32,
    /// Its process id.
    pub pid: Pid,
    /// The generation that it serves.
    pub generation: u32,
    /// When it started, unix seconds.
    pub spawned_at: u64,
}

/// One reading of the whole server. `memory` is the same one at every call.
pub fn take(subject: &Subject<'_>, memory: &mut Memory) -> Snapshot {
    let host = hostname();
    let pids = subject.workers.iter().flat_map(|worker| &worker.lives).map(|life| life.pid);
    memory.look_at(pids, clock::monotonic());

    let mut dropped = 0;
    let sockets: Vec<_> = subject
        .sockets
        .iter()
        .map(|socket| {
            let backlog = memory.backlog(socket.address, socket.fd);
            dropped += u64::from(backlog.dropped);
            Socket {
                name: socket.address.to_string(),
                proto: socket.protocol.to_owned(),
                queue: backlog.depth.into(),
                max_queue: backlog.capacity.into(),
                shared: 0,
                can_offload: 0,
            }
        })
        .collect();

    memory.all_latency.clear();
    let mut in_progress = 0;
    // Close to the counters that it is told with: all the slow readings are behind us.
    let now = clock::monotonic();
    let workers: Vec<_> = (0..)
        .zip(&subject.workers)
        .map(|(index, view)| {
            let worker = worker(subject, view, index, memory, now, &host);
            in_progress += worker.cores.iter().map(|thread| u64::from(thread.in_request)).sum::<u64>();
            worker
        })
        .collect();

    let router = subject.scoreboard.router();
    let (router_depth, rejected, _) = router.read();
    let waiting = sockets.iter().map(|socket| socket.queue).sum::<u64>() + router_depth;
    let capacity = sockets.iter().map(|socket| socket.max_queue).sum();
    memory.worker_latency.clear();
    router.waiting.add_to(&mut memory.worker_latency);
    Snapshot {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        listen_queue: waiting,
        listen_queue_errors: dropped + rejected,
        signal_queue: 0,
        load: waiting + in_progress,
        pid: Pid::this().as_raw(),
        uid: nix::unistd::getuid().as_raw(),
        gid: nix::unistd::getgid().as_raw(),
        // A directory that was removed has no name any more.
        cwd: std::env::current_dir().map(|cwd| cwd.to_string_lossy().into_owned()).unwrap_or_default(),
        locks: Vec::new(),
        sockets,
        workers,
        caches: Vec::new(),
        metrics: std::collections::BTreeMap::new(),
        crons: Vec::new(),
        timers: Vec::new(),
        spoolers: spoolers::take(subject.scoreboard, &subject.spoolers, memory.clock, now),
        emperor: None,
        emperor_tyrant: None,
        vassals: Vec::new(),
        blacklist: Vec::new(),
        server: Some("rwsgi".to_owned()),
        schema: Some(SCHEMA_VERSION),
        hostname: Some(host),
        started_at: Some(subject.started_at),
        now: Some(memory.clock.unix_at(MonotonicNanos::from_nanos(now)).as_micros()),
        generation: Some(subject.generation),
        python: Some(subject.python.to_owned()),
        queue: Some(Queue {
            depth: waiting,
            capacity,
            waiting: latency::encode_counts(&memory.worker_latency),
            rejected: dropped + rejected,
        }),
        latency: Some(latency::encode_counts(&memory.all_latency)),
        limits: Some(limits(subject.config)),
    }
}

fn worker(
    subject: &Subject<'_>,
    view: &WorkerView<'_>,
    index: usize,
    memory: &mut Memory,
    now: u64,
    host: &str,
) -> Worker {
    let board = subject.scoreboard;
    let shown = view.lives.first();
    let mut sum = Counters::default();
    let (mut in_progress, mut delta_requests) = (0, 0);
    let mut last_exception = view.totals.last_exception.clone();
    memory.worker_latency.clear();
    memory.worker_latency.extend_from_slice(&view.totals.latency);

    let threads: Vec<_> = (0..board.layout().threads)
        .map(|id| {
            let mut counters = view.totals.threads.get(id as usize).copied().unwrap_or_default();
            let mut thread = Core { id, ..Core::default() };
            for (nth, life) in view.lives.iter().enumerate() {
                let cell = board.thread(life.slot, id);
                let (live, started) = cell.read();
                counters += live;
                if nth == 0 {
                    delta_requests += live.requests;
                }
                if let Some(started) = started {
                    in_progress += now.saturating_sub(started);
                    thread.in_request = 1;
                    // The request of the life that is shown goes first.
                    if thread.vars.is_empty()
                        && let Some(held) = cell.held()
                    {
                        let vars = Vars::of(&held, host);
                        let unix_at = |moment| memory.clock.unix_at(MonotonicNanos::from_nanos(moment)).as_micros();
                        let started = unix_at(held.started);
                        thread.vars = vars.lines().collect();
                        thread.req_info = RequestInfo {
                            request_start: Some(started / 1_000_000),
                            started: Some(started),
                            elapsed: Some(unix_at(now).saturating_sub(started)),
                            ..vars.info()
                        };
                    }
                }
                cell.latency.add_to(&mut memory.worker_latency);
                newest(&mut last_exception, cell.exception.load());
            }
            thread.requests = counters.requests;
            thread.write_errors = counters.write_errors;
            thread.read_errors = counters.read_errors;
            sum += counters;
            thread
        })
        .collect();
    add(&mut memory.all_latency, &memory.worker_latency);

    let processor =
        view.lives.iter().filter_map(|life| clock::processor_time(life.pid)).sum::<std::time::Duration>().as_nanos()
            as u64;
    let (busy_time, processor_time) =
        memory.never_lower(index, sum.running + in_progress, view.totals.processor_time + processor);
    let footprint = shown.map(|life| memory.footprint(life.pid)).unwrap_or_default();
    let busy = threads.iter().any(|thread| thread.in_request == 1);
    let [informational, success, redirect, client_error, server_error] = sum.responses;
    Worker {
        id: view.id,
        pid: shown.map_or(0, |life| life.pid.as_raw()),
        accepting: shown.is_some_and(|life| board.worker(life.slot).accepting()).into(),
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
        rss: footprint.rss,
        vsz: footprint.vsz,
        running_time: sum.running / 1_000,
        last_spawn: shown.map_or(0, |life| life.spawned_at),
        respawn_count: view.totals.respawns,
        tx: sum.tx,
        avg_rt: shown.and_then(|life| totals::average(board, life.slot)).unwrap_or(view.totals.average),
        apps: vec![App {
            requests: sum.requests,
            exceptions: sum.exceptions,
            chdir: subject.config.chdir.as_ref().map(|dir| dir.to_string_lossy().into_owned()).unwrap_or_default(),
            ..App::default()
        }],
        cores: threads,
        generation: Some(shown.map_or(0, |life| life.generation)),
        busy_time: Some(busy_time / 1_000),
        cpu_time: Some(processor_time / 1_000),
        gil_wait: Some(sum.gil_wait / 1_000),
        pss: Some(footprint.pss),
        uss: Some(footprint.uss),
        rss_peak: Some(footprint.rss_peak),
        responses: Some(Responses { informational, success, redirect, client_error, server_error }),
        recycled: Some(view.totals.recycled),
        latency: Some(latency::encode_counts(&memory.worker_latency)),
        last_exception: last_exception.map(|report| LastException {
            kind: report.kind,
            message: report.message,
            location: report.traceback.first().cloned().unwrap_or_default(),
            traceback: report.traceback,
            when: report.when,
            request: report.request,
        }),
    }
}

fn newest(kept: &mut Option<ExceptionReport>, other: Option<ExceptionReport>) {
    if other.as_ref().map(|report| report.when) > kept.as_ref().map(|report| report.when) {
        *kept = other;
    }
}

/// Adds counts of one latency layout; `sums` grows to the highest in use.
fn add(sums: &mut Vec<u64>, counts: &[u64]) {
    if sums.len() < counts.len() {
        sums.resize(counts.len(), 0);
    }
    for (sum, count) in sums.iter_mut().zip(counts) {
        *sum += count;
    }
}

fn limits(config: &Config) -> Limits {
    // Of a gentle and a merciless limit, the lower one comes first.
    let lower = |gentle: Option<u64>, evil: Option<u64>| gentle.into_iter().chain(evil).min().unwrap_or(0);
    Limits {
        harakiri: config.harakiri.unwrap_or(0).into(),
        reload_on_rss: lower(config.reload_on_rss, config.evil_reload_on_rss),
        reload_on_as: lower(config.reload_on_as, config.evil_reload_on_as),
        max_requests: config.max_requests,
    }
}

fn hostname() -> String {
    nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
