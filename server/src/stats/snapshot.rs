//! From the scoreboard and `/proc` to the stats document.

mod worker;

use std::os::fd::BorrowedFd;
use std::path::Path;

use nix::unistd::Pid;
use rwsgi_stats::{Address, Limits, Queue, SCHEMA_VERSION, Snapshot, Socket, TempFiles};
use tokio::sync::oneshot;
use tracing::warn;

pub use self::worker::{CorruptWorker, ProcessView, WorkerView};
use super::cell::{PhaseCounts, RouterSample};
use super::scoreboard::Scoreboard;
use super::spoolers::{self, SpoolerView};
use super::state::SnapshotState;
use crate::clock::{MonotonicNanos, UnixMicros};
use crate::ids::GenerationNumber;
use rwsgi_config::Config;

/// What a snapshot is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The stats document: everything that the configuration does not leave out of it.
    Document,
    /// Metrics, which are sums over threads: these are there whatever the configuration leaves out of the document. What
    /// metrics never tell is left out: latency of single workers, requests in progress, slow requests.
    Metrics,
}

/// Somebody's wish for a snapshot.
#[derive(Debug)]
pub struct SnapshotRequest {
    /// What for.
    pub purpose: Purpose,
    /// Where it goes. A dropped sender means that the server is stopping.
    pub answer: oneshot::Sender<Snapshot>,
}

/// What the master knows of the server beyond the scoreboard; everything that a snapshot is made of.
pub struct Subject<'a> {
    /// What the snapshot is for.
    pub purpose: Purpose,
    /// The scoreboard.
    pub scoreboard: &'a Scoreboard,
    /// The configuration in force.
    pub config: &'a Config,
    /// When the master started.
    pub started_at: UnixMicros,
    /// The generation that serves; `None` until the first is loaded.
    pub generation: Option<GenerationNumber>,
    /// Version of the interpreter; empty until the first generation is loaded.
    pub python: &'a str,
    /// The sockets that requests arrive on.
    pub sockets: Vec<SocketView<'a>>,
    /// The workers, in the order of their ids.
    pub workers: Vec<WorkerView<'a>>,
    /// Where temporary files are.
    pub temp_dir: &'a Path,
    /// How much they may hold, bytes.
    pub temp_limit: Option<u64>,
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

/// What came of looking at the whole server.
#[derive(Debug)]
pub struct Taken {
    /// The stats document.
    pub snapshot: Snapshot,
    /// Worker processes of which counts are left out of it, because they cannot be true.
    pub corrupt: Vec<CorruptWorker>,
}

/// A snapshot of the whole server. `state` is the same one at every call.
pub fn take(subject: &Subject<'_>, state: &mut SnapshotState) -> Taken {
    let host = hostname();
    let pids = subject.workers.iter().flat_map(|worker| &worker.processes).map(|process| process.pid);
    state.memory.sample(pids, MonotonicNanos::now());

    let (mut dropped, mut deferred) = (0, None);
    let sockets: Vec<_> = subject
        .sockets
        .iter()
        .map(|socket| {
            let backlog = state.backlog(socket.address, socket.fd);
            let sum = if backlog.is_deferred { deferred.get_or_insert(0) } else { &mut dropped };
            *sum += u64::from(backlog.dropped);
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

    state.all_latency.clear();
    state.phases = PhaseCounts::default();
    state.living.clear();
    let mut corrupt = Vec::new();
    // Close to the counters that it belongs to: everything that is slow to read is behind us.
    let now = MonotonicNanos::now();
    let &Subject { purpose, scoreboard, config, .. } = subject;
    let context = worker::SnapshotContext { purpose, scoreboard, config, now, host: &host };
    let workers: Vec<_> = subject.workers.iter().map(|view| worker::take(context, view, state, &mut corrupt)).collect();
    let in_progress: u64 = workers.iter().flat_map(|worker| &worker.cores).map(|core| u64::from(core.in_request)).sum();

    let router = read_router(subject.scoreboard, state);
    let waiting = sockets.iter().map(|socket| socket.queue).sum::<u64>() + router.depth;
    let capacity = sockets.iter().map(|socket| socket.max_queue).sum();
    let rejected = dropped + state.drops.turned_away(deferred, now) + router.rejected;
    let waited = state.worker_latency.encode();
    let snapshot = Snapshot {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        listen_queue: waiting,
        listen_queue_errors: rejected,
        signal_queue: 0,
        load: waiting + in_progress,
        pid: Pid::this().as_raw(),
        uid: nix::unistd::getuid().as_raw(),
        gid: nix::unistd::getgid().as_raw(),
        // A directory that was removed has no name any more.
        cwd: std::env::current_dir().map(|cwd| cwd.to_string_lossy().into_owned()).unwrap_or_default(),
        daemons: Vec::new(),
        locks: Vec::new(),
        sockets,
        workers,
        caches: Vec::new(),
        metrics: std::collections::BTreeMap::new(),
        crons: Vec::new(),
        timers: Vec::new(),
        spoolers: spoolers::take(subject.scoreboard, &subject.spoolers, state, now),
        emperor: None,
        emperor_tyrant: None,
        throttle_level: None,
        vassals: None,
        blacklist: None,
        server: Some("rwsgi".to_owned()),
        schema: Some(SCHEMA_VERSION),
        hostname: Some(host),
        started_at: Some(subject.started_at.as_micros()),
        now: Some(state.clock.unix_at(now).as_micros()),
        generation: Some(subject.generation.map_or(0, GenerationNumber::get)),
        python: Some(subject.python.to_owned()),
        queue: Some(Queue { depth: waiting, capacity, waiting: waited, rejected }),
        latency: Some(state.all_latency.encode()),
        limits: Some(limits(subject.config)),
        temp_files: Some(TempFiles {
            dir: subject.temp_dir.to_string_lossy().into_owned(),
            bytes: subject.scoreboard.all_temporary(),
            limit: subject.temp_limit.unwrap_or(0),
            refused: subject.scoreboard.limits().bodies_refused(),
        }),
        slow_clients: Some(subject.scoreboard.limits().slow_clients()),
        control: None,
        routes: None,
        phases: Some(state.phases.encode()),
        slow: None,
        generations: None,
        canary: None,
        ready: None,
        draining: None,
        reloads: None,
        cgroup: None,
        otlp: None,
    };
    Taken { snapshot, corrupt }
}

/// What the http router reports, with its waiting times as the state's worker latency. What it cannot have written is
/// forgotten: nobody knows who wrote it, and what is counted from now on is right again.
fn read_router(scoreboard: &Scoreboard, state: &mut SnapshotState) -> RouterSample {
    let router = scoreboard.router();
    let read = router.read().and_then(|sample| router.read_waiting(&mut state.worker_latency).map(|()| sample));
    read.unwrap_or_else(|corrupt| {
        warn!(
            "the http router's part of the shared memory is corrupt ({corrupt}): its counts begin again at 0; some \
             process of the application writes where it must not"
        );
        router.reset();
        state.worker_latency.clear();
        RouterSample::default()
    })
}

fn limits(config: &Config) -> Limits {
    // Of a gentle and a merciless limit, the lower one comes first.
    let lower = |gentle: Option<u64>, evil: Option<u64>| gentle.into_iter().chain(evil).min().unwrap_or(0);
    Limits {
        harakiri: config.harakiri.unwrap_or(0).into(),
        reload_on_rss: lower(config.reload_on_rss, config.evil_reload_on_rss),
        reload_on_as: lower(config.reload_on_as, config.evil_reload_on_as),
        max_requests: config.max_requests,
        slow_request: 0,
    }
}

fn hostname() -> String {
    nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
