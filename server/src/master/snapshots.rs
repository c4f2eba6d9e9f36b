//! Snapshots of the server's state, for the stats servers.

use std::time::Instant;

use rwsgi_stats::Snapshot;

use super::canary::Canary;
use super::children::{Child, Children};
use super::events::Event;
use super::otlp::Otlp;
use super::post::Post;
use super::queues::{Queues, count};
use super::state::Master;
use crate::clock::UnixMicros;
use crate::ids::WorkerId;
use crate::ipc::{Auxiliary, AuxiliaryKind};
use crate::spooler::Queue;
use crate::stats::snapshot::{self, ProcessView, Purpose, SnapshotRequest, SocketView, Subject, Taken, WorkerView};
use crate::stats::spoolers::SpoolerView;

impl Master {
    /// A snapshot of the whole server.
    pub(super) fn snapshot(&mut self, purpose: Purpose) -> Snapshot {
        self.collect_all_slow();
        let mut sockets: Vec<_> = self
            .sockets
            .workers
            .iter()
            .map(|(listener, protocol)| SocketView {
                address: &listener.address,
                protocol: protocol.as_str(),
                fd: listener.fd(),
            })
            .collect();
        let router = self.sockets.router.iter();
        sockets.extend(router.map(|listener| SocketView {
            address: &listener.address,
            protocol: "http",
            fd: listener.fd(),
        }));
        let workers = WorkerId::first(self.config.processes).zip(&self.totals);
        let workers =
            workers.map(|(id, totals)| WorkerView { id, totals, processes: instances(&self.children, id) }).collect();
        let current = self.generations.current();
        let python = current.and_then(|current| self.generations.get(current)?.python.as_deref());
        let subject = Subject {
            purpose,
            scoreboard: &self.scoreboard,
            config: &self.config,
            started_at: self.started_at,
            generation: current,
            python: python.unwrap_or_default(),
            sockets,
            workers,
            temp_dir: &self.temp.directory,
            temp_limit: self.temp.limit,
            spoolers: spoolers(&self.config.spooler, &self.children, &self.queues),
        };
        let Taken { mut snapshot, corrupt } = snapshot::take(&subject, &mut self.snapshot_state);
        for corrupt in corrupt {
            self.distrust(corrupt.found.slot, &corrupt);
        }
        self.describe_routes(&mut snapshot);
        snapshot.generations = Some(self.generation_history.describe(&self.snapshot_state.living));
        snapshot.canary = self.canary.as_ref().map(Canary::describe);
        snapshot.control = self.control.file.as_ref().map(|file| file.path().to_string_lossy().into_owned());
        self.describe_readiness(&mut snapshot);
        self.describe_silence(&mut snapshot);
        if purpose == Purpose::Document {
            self.describe_slow_requests(&mut snapshot);
        }
        snapshot.otlp = self.otlp.as_ref().map(Otlp::describe);
        self.daemons.describe(&mut snapshot);
        self.crons.describe(&mut snapshot);
        self.app_signals.describe(current, &mut snapshot);
        self.share.describe(&self.config.between, &mut snapshot);
        snapshot
    }

    /// A snapshot without what is not to be shown.
    fn snapshot_for_clients(&mut self, purpose: Purpose) -> Snapshot {
        let mut snapshot = self.snapshot(purpose);
        if self.config.stats_push.no_cores && purpose == Purpose::Document {
            for worker in &mut snapshot.workers {
                worker.cores.clear();
            }
        }
        if self.config.stats_push.no_metrics {
            snapshot.metrics.clear();
        }
        snapshot
    }

    /// Answers with a snapshot, for which the queues are counted first. That may take a while, and is done elsewhere.
    pub(super) fn answer_stats(&mut self, asked: SnapshotRequest) {
        let directories = self.config.spooler.directories.clone();
        if directories.is_empty() || self.queues.are_fresh(Instant::now()) {
            // Who asked may have gone.
            let _ = asked.answer.send(self.snapshot_for_clients(asked.purpose));
            return;
        }
        let events = self.events.clone();
        tokio::task::spawn_local(async move {
            let counted = tokio::task::spawn_blocking(move || count(&directories)).await;
            if let Ok((queues, good_until)) = counted {
                // The loop is gone only when the process is about to be.
                let _ = events.send(Event::Queues { queues, good_until, asked }).await;
            }
        });
    }

    /// The queues were counted for a client of the stats server.
    pub(super) fn answer_counted(&mut self, queues: Vec<Queue>, good_until: Instant, asked: SnapshotRequest) {
        self.queues.set(queues, good_until);
        let _ = asked.answer.send(self.snapshot_for_clients(asked.purpose));
    }
}

/// A worker's running processes: the newest that serves first, then the newest.
fn instances(children: &Children, worker: WorkerId) -> Vec<ProcessView> {
    let mut instances: Vec<_> = children.of(Post::Worker(worker)).rev().collect();
    // One that loads yet, for minutes maybe, is not the worker as long as another serves.
    instances.sort_by_key(|child| !child.is_ready());
    let view = |child: &Child| {
        let Child { slot, generation, pid, spawned_at, .. } = *child;
        Some(ProcessView { slot: slot?, pid: pid?, generation: generation?, spawned_at, is_ready: child.is_ready() })
    };
    instances.into_iter().filter_map(view).collect()
}

/// All spoolers.
fn spoolers<'a>(config: &'a rwsgi_config::Spooler, children: &Children, queues: &Queues) -> Vec<SpoolerView<'a>> {
    let view = |number: u32| {
        let post = Post::Auxiliary(Auxiliary { kind: AuxiliaryKind::Spooler, number });
        let queue = queues.get((number as usize - 1) / config.processes as usize);
        Some(SpoolerView {
            number,
            directory: config.directory_of(number)?,
            pid: children.of(post).find_map(|child| child.pid),
            starts: children.post(post).starts,
            queue: queue.map(|queue| (queue.jobs, queue.oldest.map(UnixMicros::from_micros))),
        })
    };
    (1..=config.count()).filter_map(view).collect()
}
