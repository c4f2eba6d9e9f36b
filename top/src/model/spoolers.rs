//! The spoolers' table: what uWSGI tells of them, and what `rwsgi` tells beyond it. Fixed columns, a line each.

use rwsgi_stats::{Snapshot, Spooler};

use super::lists::{List, Mark};
use super::{Counts, Status};
use crate::format;

/// A column: its title, and what it shows of a spooler; `None` for what its server does not tell.
struct Column {
    title: &'static str,
    /// Only `rwsgi` tells it.
    is_ours: bool,
    cell: fn(&Spooler) -> Option<String>,
}

const fn column(title: &'static str, cell: fn(&Spooler) -> Option<String>) -> Column {
    Column { title, is_ours: false, cell }
}

const fn ours(title: &'static str, cell: fn(&Spooler) -> Option<String>) -> Column {
    Column { title, is_ours: true, cell }
}

/// The most telling first: a narrow terminal shows those.
#[rustfmt::skip]
const COLUMNS: &[Column] = &[
    column("SPOOLER", |s| Some(format::one_line(&s.dir))),
    column("PID", |s| Some(s.pid.to_string())),
    column("STATUS", |s| Some(status(s))),
    ours("QUEUE", |s| s.queue.map(format::count)),
    ours("OLDEST", |s| s.oldest_age.map(|age| if age > 0 { format::seconds(age / 1_000_000) } else { "-".to_owned() })),
    column("TASKS", |s| Some(s.tasks.to_string())),
    ours("DONE", |s| s.done.map(format::count)),
    ours("RETRIED", |s| s.retried.map(format::count)),
    ours("FAILED", |s| s.failed.map(format::count)),
    ours("P50", |s| quantile(s, 0.5)),
    ours("P99", |s| quantile(s, 0.99)),
    column("RESPAWNS", |s| Some(s.respawns.to_string())),
];

fn status(spooler: &Spooler) -> String {
    match (&spooler.job, spooler.running) {
        (Some(job), _) => format!("running {}", format::seconds(job.elapsed / 1_000_000)),
        (None, 1..) => "running".to_owned(),
        // uWSGI does not say that a process is gone.
        (None, 0) if spooler.pid == 0 => "gone".to_owned(),
        (None, 0) => "idle".to_owned(),
    }
}

fn quantile(spooler: &Spooler, quantile: f64) -> Option<String> {
    let counts = Counts::decode(spooler.run_time.as_deref()?)?;
    counts.quantile(quantile).map(format::micros)
}

/// The spoolers; `None` when there are none.
pub(crate) fn spoolers(snapshot: &Snapshot) -> Option<List> {
    let spoolers = &snapshot.spoolers;
    if spoolers.is_empty() {
        return None;
    }
    let tells_more = spoolers.iter().any(|spooler| spooler.queue.is_some());
    let columns = || COLUMNS.iter().filter(|column| tells_more || !column.is_ours);
    let mark = |spooler: &Spooler| match (spooler.running, spooler.pid) {
        (1.., _) => Mark::Status(Status::Busy),
        (0, 0) => Mark::Alarm,
        (0, _) => Mark::Plain,
    };
    let row = |spooler: &Spooler| {
        let cells = columns().map(|column| (column.cell)(spooler).unwrap_or_else(|| "-".to_owned()));
        (cells.collect(), mark(spooler))
    };
    Some(List { titles: columns().map(|column| column.title).collect(), rows: spoolers.iter().map(row).collect() })
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use rwsgi_stats::{SpoolerJob, latency};

    use super::*;

    fn spooler(pid: i32) -> Spooler {
        let mut counts = vec![0; latency::BUCKETS];
        counts[latency::index_of(1_500)] = 98;
        counts[latency::index_of(2_000_000)] = 2;
        Spooler {
            dir: "/srv/app/jobs".into(),
            pid,
            tasks: 12,
            respawns: 3,
            queue: Some(100_000),
            oldest_age: Some(7_300_000_000),
            done: Some(98),
            retried: Some(2),
            failed: Some(1),
            run_time: Some(latency::encode_counts(&counts)),
            ..Spooler::default()
        }
    }

    #[test]
    fn ours_tell_of_their_queue_and_of_what_came_of_their_jobs() {
        let job = SpoolerJob { name: "job".into(), started: 1, elapsed: 65_000_000 };
        let idle = Spooler { oldest_age: Some(0), queue: Some(0), ..spooler(72) };
        let spoolers = vec![Spooler { running: 1, job: Some(job), ..spooler(71) }, idle, spooler(0)];
        let snapshot = Snapshot { spoolers, ..Snapshot::default() };
        assert_snapshot!(super::spoolers(&snapshot).unwrap().text());
    }
}
