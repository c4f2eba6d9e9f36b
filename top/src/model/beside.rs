//! What runs beside the server: programs (`attach-daemon`) and commands at times of the calendar. Fixed columns, a line
//! each.

use rwsgi_stats::{Cron, Daemon, Snapshot};

use super::Status;
use super::lists::{List, Mark};
use crate::format;

/// The programs and the crons, a table for each that there are any of. `now` is in unix seconds.
pub(crate) fn beside(snapshot: &Snapshot, now: u64) -> Vec<List> {
    let since = |then: u64| if then > 0 { format::seconds(now.saturating_sub(then)) } else { "-".to_owned() };
    let process = |pid: i32| if pid > 0 { pid.to_string() } else { "-".to_owned() };
    let daemon = |daemon: &Daemon| {
        let Daemon { cmd, pid, respawns, status, started_at } = daemon;
        // uWSGI says no more than the process.
        let status = status.clone().unwrap_or_else(|| if *pid > 0 { "running" } else { "gone" }.to_owned());
        let mark = if *pid > 0 { Mark::Plain } else { Mark::Alarm };
        let started = started_at.unwrap_or(0);
        (vec![format::one_line(cmd), process(*pid), status, since(started), respawns.to_string()], mark)
    };
    let cron = |cron: &Cron| {
        let runs = cron.pid > 0;
        let started = cron.raised.map_or_else(|| "-".to_owned(), format::count);
        let status = if runs { format!("running {}", since(cron.started_at)) } else { "-".to_owned() };
        let mark = if runs { Mark::Status(Status::Busy) } else { Mark::Plain };
        (vec![format::one_line(&cron.command), times(cron), process(cron.pid), status, started], mark)
    };
    let daemons = List {
        titles: vec!["DAEMON", "PID", "STATUS", "AGE", "RESPAWNS"],
        rows: snapshot.daemons.iter().map(daemon).collect(),
    };
    let crons = List {
        titles: vec!["CRON", "WHEN", "PID", "STATUS", "STARTED"],
        rows: snapshot.crons.iter().map(cron).collect(),
    };
    [daemons, crons].into_iter().filter(|list| !list.rows.is_empty()).collect()
}

/// In the notation of crontab(5).
fn times(cron: &Cron) -> String {
    let part = |number: i32| match number {
        -1 => "*".to_owned(),
        ..-1 => format!("*/{}", number.unsigned_abs()),
        0.. => number.to_string(),
    };
    [cron.minute, cron.hour, cron.day, cron.month, cron.week].map(part).join(" ")
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;

    #[test]
    fn programs_and_crons_are_told_with_what_runs_of_them() {
        let daemon = Daemon { cmd: "redis-server --port 6380".into(), pid: 71, ..Daemon::default() };
        let ours = Daemon { respawns: 3, status: Some("running".into()), started_at: Some(4_000), ..daemon.clone() };
        let waiting = Daemon { pid: 0, status: Some("waiting".into()), cmd: "celery\n-A x".into(), ..ours.clone() };
        let cron = Cron { minute: -5, hour: 4, day: -1, month: -1, week: 6, pid: -1, ..Cron::default() };
        let idle = Cron { command: "manage.py clearsessions".into(), raised: Some(7), ..cron.clone() };
        let running = Cron { pid: 72, started_at: 4_990, command: "backup".into(), ..cron };
        let daemons = vec![daemon, ours, waiting];
        let snapshot = Snapshot { daemons, crons: vec![idle, running], ..Snapshot::default() };
        assert_snapshot!(beside(&snapshot, 5_000).iter().map(List::text).collect::<String>());
        assert!(beside(&Snapshot::default(), 5_000).is_empty());
    }
}
