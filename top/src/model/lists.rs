//! The smaller tables, as text: several servers, an emperor's vassals. Fixed columns, a line each.

use rwsgi_stats::{Blacklisted, Snapshot, Vassal};

use super::{Counts, Pool, Sample, Status};
use crate::format;

/// What a row of a [`List`] calls for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// Nothing.
    Plain,
    /// What a worker of this status does.
    Status(Status),
    /// Attention.
    Alarm,
}

/// A table of texts: titles, and for each row its cells and its mark. The first column is as wide as it needs and
/// stands to the left; the others stand to the right.
#[derive(Clone, Debug)]
pub(crate) struct List {
    /// The titles.
    pub(crate) titles: Vec<&'static str>,
    /// The rows, each with as many cells as there are titles.
    pub(crate) rows: Vec<(Vec<String>, Mark)>,
}

impl List {
    /// The whole table as lines of text.
    pub(crate) fn text(&self) -> String {
        let titles: Vec<String> = self.titles.iter().map(|title| (*title).to_owned()).collect();
        let rows: Vec<&Vec<String>> =
            std::iter::once(&titles).chain(self.rows.iter().map(|(cells, _)| cells)).collect();
        let width = |column: usize| rows.iter().map(|cells| format::width(&cells[column])).max().unwrap_or(0);
        let widths: Vec<usize> = (0..titles.len()).map(width).collect();
        let line = |cells: &&Vec<String>| {
            let cells = cells.iter().zip(&widths).enumerate();
            let padded = cells.map(|(column, (cell, width))| format::padded(cell, *width, column > 0));
            padded.collect::<Vec<_>>().join("  ") + "\n"
        };
        rows.iter().map(line).collect()
    }
}

fn dash<T>(value: Option<T>, show: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), show)
}

/// A row for each server, from the sample of it that is shown.
pub(crate) fn servers(pools: &[Pool], shown: &[Option<&Sample>]) -> List {
    let titles = vec![
        "SERVER", "STATE", "WORKERS", "RPS", "P50", "P95", "P99", "UTIL%", "LQ", "EXC", "MEM", "REQ", "TX", "VERSION",
    ];
    let row = |(pool, sample): (&Pool, &Option<&Sample>)| {
        let Some(sample) = sample else {
            let state = if pool.trouble.is_some() { "down" } else { "waiting" };
            let mut cells = vec![pool.label.clone(), state.to_owned()];
            cells.resize(titles.len(), "-".to_owned());
            return (cells, Mark::Alarm);
        };
        let totals = &sample.totals;
        let latency = totals.latency.as_ref().and_then(Counts::percentiles);
        let state = if pool.trouble.is_some() { "down" } else { "up" };
        let snapshot = &sample.snapshot;
        let cells = vec![
            pool.label.clone(),
            state.to_owned(),
            format!("{}/{}", totals.statuses[0], totals.workers()),
            dash(totals.rps, format::rate),
            dash(latency, |latency| format::micros(latency.p50)),
            dash(latency, |latency| format::micros(latency.p95)),
            dash(latency, |latency| format::micros(latency.p99)),
            dash(totals.utilization, format::percent),
            totals.queue.to_string(),
            format::count(totals.exceptions),
            format::size(totals.pss.unwrap_or(totals.rss)),
            format::count(totals.requests),
            format::size(totals.tx),
            format::one_line(&format!("{}-{}", snapshot.server.as_deref().unwrap_or("uwsgi"), snapshot.version)),
        ];
        (cells, if pool.trouble.is_some() { Mark::Alarm } else { Mark::Plain })
    };
    let rows = pools.iter().zip(shown).map(row).collect();
    List { titles, rows }
}

/// An emperor's vassals, and those that it waits to start again; `None` when the server is no emperor.
pub(crate) fn vassals(snapshot: &Snapshot, now: u64) -> Option<List> {
    let vassals = snapshot.vassals.as_deref().unwrap_or_default();
    if snapshot.emperor.is_none() && vassals.is_empty() {
        return None;
    }
    let blacklist = snapshot.blacklist.as_deref().unwrap_or_default();
    let yes = |flag: u8| if flag > 0 { "yes" } else { "no" }.to_owned();
    let since = |then: u64| if then > 0 { format::seconds(now.saturating_sub(then)) } else { "-".to_owned() };
    let throttle = |entry: &Blacklisted| format::micros(entry.throttle_level.saturating_mul(1_000));
    let running = |vassal: &Vassal| {
        let state = match (vassal.cursed, vassal.accepting, vassal.ready) {
            (1.., _, _) => "cursed",
            (_, 1.., _) => "accepting",
            (_, _, 1..) => "ready",
            _ if vassal.pid <= 0 && !vassal.on_demand.is_empty() => "on demand",
            _ => "starting",
        };
        // One that was tried again is at both places.
        let tried = blacklist.iter().find(|entry| entry.id == vassal.id);
        let delayed = tried.filter(|_| vassal.accepting == 0);
        let cells = vec![
            format::one_line(&vassal.id),
            dash((vassal.pid > 0).then_some(vassal.pid), |pid| pid.to_string()),
            state.to_owned(),
            yes(vassal.loyal),
            vassal.respawns.max(tried.map_or(0, |entry| entry.attempt)).to_string(),
            dash(delayed, throttle),
            since(if vassal.last_run > 0 { vassal.last_run } else { vassal.born }),
        ];
        (cells, if vassal.cursed > 0 { Mark::Alarm } else { Mark::Plain })
    };
    let waiting = |entry: &Blacklisted| {
        let cells = vec![
            format::one_line(&entry.id),
            "-".to_owned(),
            "blacklisted".to_owned(),
            yes(0),
            entry.attempt.to_string(),
            throttle(entry),
            since(entry.first_attempt),
        ];
        (cells, Mark::Alarm)
    };
    let gone = |entry: &&Blacklisted| !vassals.iter().any(|vassal| vassal.id == entry.id);
    let rows = vassals.iter().map(running);
    let rows = rows.chain(blacklist.iter().filter(gone).map(waiting)).collect();
    Some(List { titles: vec!["VASSAL", "PID", "STATE", "LOYAL", "RESPAWNS", "THROTTLE", "AGE"], rows })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vassal_that_does_not_stay_up_is_told_while_it_runs_and_while_it_waits() {
        let text = include_str!("../../../shared/tests/fixtures/uwsgi-emperor.json");
        let snapshot: Snapshot = serde_json::from_str(text).unwrap();
        let told = vassals(&snapshot, 1_795_647_128).unwrap();
        let alarms: Vec<bool> = told.rows.iter().map(|(_, mark)| *mark == Mark::Alarm).collect();
        assert_eq!(alarms, [false, true, true]);
        assert_eq!(
            told.text(),
            "VASSAL        PID        STATE  LOYAL  RESPAWNS  THROTTLE  AGE\n\
             one.ini     10839    accepting     no         1         -   5s\n\
             other.ini   11538       cursed     no         1     1.00s   4s\n\
             broken.ini      -  blacklisted     no         3     3.00s  10s\n"
        );
    }

    #[test]
    fn a_vassal_that_waits_for_its_first_connection_is_not_starting() {
        let text = r#"{"emperor":["/vassals"],"vassals":[{"id":"a.ini","pid":-1,"last_run":5,"on_demand":"/a.sock"}]}"#;
        let told = vassals(&serde_json::from_str(text).unwrap(), 8).unwrap();
        assert_eq!(told.rows[0].0[1..3], ["-", "on demand"].map(str::to_owned));
    }

    #[test]
    fn columns_of_wide_characters_stand_below_each_other() {
        let rows =
            [["日本語", "1"], ["⚡", "22"], ["abc", "3"]].map(|row| (row.map(str::to_owned).to_vec(), Mark::Plain));
        let list = List { titles: vec!["NAME", "N"], rows: rows.to_vec() };
        assert_eq!(list.text(), "NAME     N\n日本語   1\n⚡      22\nabc      3\n");
    }
}
