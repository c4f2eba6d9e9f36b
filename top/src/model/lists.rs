//! The smaller tables, as text: several servers, an emperor's vassals. Fixed columns, a line each.

use rwsgi_stats::Snapshot;

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

/// An emperor's vassals; `None` when the server is no emperor.
pub(crate) fn vassals(snapshot: &Snapshot, now: u64) -> Option<List> {
    if snapshot.emperor.is_none() && snapshot.vassals.is_empty() {
        return None;
    }
    let yes = |flag: u8| if flag > 0 { "yes" } else { "no" }.to_owned();
    let row = |vassal: &rwsgi_stats::Vassal| {
        let state = match (vassal.cursed, vassal.accepting, vassal.ready) {
            (1.., _, _) => "cursed",
            (_, 1.., _) => "accepting",
            (_, _, 1..) => "ready",
            _ => "starting",
        };
        let age = if vassal.born > 0 { format::seconds(now.saturating_sub(vassal.born)) } else { "-".to_owned() };
        let cells = vec![
            format::one_line(&vassal.id),
            vassal.pid.to_string(),
            state.to_owned(),
            yes(vassal.loyal),
            vassal.respawns.to_string(),
            age,
        ];
        (cells, if vassal.cursed > 0 { Mark::Alarm } else { Mark::Plain })
    };
    let rows = snapshot.vassals.iter().map(row).collect();
    Some(List { titles: vec!["VASSAL", "PID", "STATE", "LOYAL", "RESPAWNS", "AGE"], rows })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_wide_characters_stand_below_each_other() {
        let rows =
            [["日本語", "1"], ["⚡", "22"], ["abc", "3"]].map(|row| (row.map(str::to_owned).to_vec(), Mark::Plain));
        let list = List { titles: vec!["NAME", "N"], rows: rows.to_vec() };
        assert_eq!(list.text(), "NAME     N\n日本語   1\n⚡      22\nabc      3\n");
    }
}
