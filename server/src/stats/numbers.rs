//! The numbers of a snapshot by uWSGI's names (`worker.1.requests`), as its metrics have them.

use rwsgi_stats::Snapshot;

/// A number with a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Number {
    pub(crate) name: String,
    pub(crate) kind: NumberKind,
    pub(crate) value: i64,
}

/// What a number is, in the order of uWSGI's numbers for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NumberKind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// It is what it was set to.
    Absolute,
    /// Another name of a number that goes up and down.
    Alias,
}

use NumberKind::{Absolute, Alias, Counter, Gauge};

impl Number {
    /// Whether it is of a single worker, or of a thread of one.
    pub(crate) fn is_of_a_worker(&self) -> bool {
        self.name.starts_with("worker.")
    }
}

/// All of a snapshot; those of single threads only `with_cores`.
pub(crate) fn of(snapshot: &Snapshot, with_cores: bool) -> Vec<Number> {
    let mut numbers = Vec::new();
    let mut add = |name: String, kind, value: u64| {
        numbers.push(Number { name, kind, value: i64::try_from(value).unwrap_or(i64::MAX) });
    };
    let workers = &snapshot.workers;
    let running = workers.iter().filter(|worker| worker.pid != 0);
    let idle = running.clone().filter(|worker| worker.status == "idle").count() as u64;
    let busy = running.clone().filter(|worker| worker.status == "busy").count() as u64;
    add("core.busy_workers".into(), Gauge, busy);
    add("core.idle_workers".into(), Gauge, idle);
    add("core.overloaded".into(), Counter, snapshot.listen_queue_errors);
    add("core.total_tx".into(), Counter, workers.iter().map(|worker| worker.tx).sum());
    for (name, kind) in [("core.total_rss", Gauge), ("rss_size", Alias)] {
        add(name.into(), kind, workers.iter().map(|worker| worker.rss).sum());
    }
    for (name, kind) in [("core.total_vsz", Gauge), ("vsz_size", Alias)] {
        add(name.into(), kind, workers.iter().map(|worker| worker.vsz).sum());
    }
    let count = running.count().max(1) as u64;
    add("core.avg_response_time".into(), Gauge, workers.iter().map(|worker| worker.avg_rt).sum::<u64>() / count);
    add("core.total_running_time".into(), Counter, workers.iter().map(|worker| worker.running_time).sum());
    add("worker.0.requests".into(), Counter, workers.iter().map(|worker| worker.requests).sum());
    for worker in workers {
        let id = worker.id;
        for (name, kind, value) in [
            ("requests", Counter, worker.requests),
            ("delta_requests", Absolute, worker.delta_requests),
            ("failed_requests", Counter, worker.exceptions),
            ("respawns", Counter, worker.respawn_count),
            ("avg_response_time", Gauge, worker.avg_rt),
            ("total_tx", Counter, worker.tx),
            ("rss_size", Gauge, worker.rss),
            ("vsz_size", Gauge, worker.vsz),
            ("running_time", Counter, worker.running_time),
        ] {
            add(format!("worker.{id}.{name}"), kind, value);
        }
        for core in worker.cores.iter().filter(|_| with_cores) {
            for (name, value) in [
                ("requests", core.requests),
                ("write_errors", core.write_errors),
                ("routed_requests", core.routed_requests),
                ("static_requests", core.static_requests),
                ("offloaded_requests", core.offloaded_requests),
                ("read_errors", core.read_errors),
            ] {
                add(format!("worker.{id}.core.{}.{name}", core.id), Counter, value);
            }
        }
    }
    for (number, socket) in snapshot.sockets.iter().enumerate() {
        add(format!("socket.{number}.listen_queue"), Gauge, socket.queue);
    }
    numbers.extend(snapshot.metrics.iter().map(|(name, metric)| {
        let kind = match metric.kind {
            0 => Counter,
            1 => Gauge,
            _ => Absolute,
        };
        Number { name: name.clone(), kind, value: metric.value }
    }));
    numbers
}

#[cfg(test)]
mod tests {
    use super::*;
    use rwsgi_stats::{Core, Worker};

    #[test]
    fn numbers_have_the_names_of_uwsgi_s_metrics() {
        let core = Core { id: 3, requests: 5, ..Core::default() };
        let worker = Worker {
            id: 2,
            pid: 1,
            status: "idle".into(),
            requests: 5,
            rss: 7,
            cores: vec![core],
            ..Worker::default()
        };
        let snapshot = Snapshot { workers: vec![worker], ..Snapshot::default() };
        let value = |name: &str, with_cores| {
            of(&snapshot, with_cores).iter().find(|number| number.name == name).map(|number| number.value)
        };
        assert_eq!(value("worker.2.requests", false), Some(5));
        assert_eq!(value("core.idle_workers", false), Some(1));
        assert_eq!(value("rss_size", false), Some(7));
        assert_eq!(value("worker.2.core.3.requests", true), Some(5));
        assert_eq!(value("worker.2.core.3.requests", false), None);
    }
}
