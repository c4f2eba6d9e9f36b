//! Plain tables: what the screen's table says, every column of it, as text that goes anywhere.

use std::fmt::Write as _;

use jiff::tz::TimeZone;

use crate::format;
use crate::model::columns::{COLUMNS, Context, Row};
use crate::model::{Counts, Pool, Sample, Status, beside, spoolers, vassals};

/// How tables are printed.
#[derive(Debug)]
pub(crate) struct Batch {
    /// For times of day.
    pub(crate) zone: TimeZone,
    /// The reader of the output can show more than ASCII.
    pub(crate) unicode: bool,
}

impl Batch {
    /// One sample as text, with an empty line after it.
    pub(crate) fn table(&self, pool: &Pool, sample: &Sample) -> String {
        let mut text = self.header(pool, sample);
        let context =
            Context { requests: sample.totals.requests, now: sample.clock.seconds(), zone: self.zone.clone() };
        let mut rows: Vec<Row<'_>> = sample
            .snapshot
            .workers
            .iter()
            .zip(&sample.workers)
            .enumerate()
            .map(|(place, (worker, rates))| Row { place, worker, rates, core: None, merged: false })
            .collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.worker.requests));
        let mut lines = vec![String::new(); rows.len() + 1];
        for column in COLUMNS {
            let values: Vec<Option<String>> = rows.iter().map(|row| column.text(row, &context)).collect();
            if values.iter().all(Option::is_none) {
                continue;
            }
            let texts = std::iter::once(column.title.to_owned())
                .chain(values.into_iter().map(|value| value.unwrap_or_else(|| "-".to_owned())));
            let texts: Vec<String> = texts.collect();
            let width = texts.iter().map(|text| text.chars().count()).max().unwrap_or(0);
            for (line, cell) in lines.iter_mut().zip(texts) {
                if !line.is_empty() {
                    line.push_str("  ");
                }
                let _ = if column.right { write!(line, "{cell:>width$}") } else { write!(line, "{cell:<width$}") };
            }
        }
        for line in lines.iter().filter(|_| !rows.is_empty()) {
            text.push_str(line.trim_end());
            text.push('\n');
        }
        let vassals = vassals(&sample.snapshot, context.now);
        let others = spoolers(&sample.snapshot).into_iter().chain(beside(&sample.snapshot, context.now));
        for list in vassals.into_iter().chain(others) {
            text.push_str(&list.text());
        }
        text.push('\n');
        if self.unicode { text } else { text.chars().map(ascii_or_newline).collect() }
    }

    fn header(&self, pool: &Pool, sample: &Sample) -> String {
        let (snapshot, totals) = (&sample.snapshot, &sample.totals);
        let unknown = || "-".to_owned();
        let name = snapshot.server.as_deref().unwrap_or("uwsgi");
        let time = format::local(sample.clock.seconds(), "%Y-%m-%d %H:%M:%S", &self.zone);
        let queue = match totals.queue_capacity {
            0 => totals.queue.to_string(),
            capacity => format!("{}/{capacity}", totals.queue),
        };
        let mut text = format!(
            "{name}-{}  {}  {time}  req {}  RPS {}  exc {}  lq {queue}  tx {}",
            snapshot.version,
            pool.label,
            totals.requests,
            totals.rps.map_or_else(unknown, format::rate),
            totals.exceptions,
            format::size(totals.tx),
        );
        if let Some(utilization) = totals.utilization {
            let _ = write!(text, "  util {}%", format::percent(utilization));
        }
        if let Some(latency) = totals.latency.as_ref().and_then(Counts::percentiles) {
            let [p50, p95, p99] = [latency.p50, latency.p95, latency.p99].map(format::micros);
            let _ = write!(text, "  p50 {p50}  p95 {p95}  p99 {p99}");
        }
        let node = snapshot.hostname.as_deref().or(pool.node.as_deref()).unwrap_or("-");
        let statuses = Status::ALL.iter().zip(totals.statuses).filter(|(_, count)| *count > 0);
        let statuses: Vec<String> = statuses.map(|((_, word), count)| format!("{count} {word}")).collect();
        let _ = write!(
            text,
            "\nnode {node}  cwd {}  uid {}  gid {}  masterpid {}  workers {}",
            snapshot.cwd,
            snapshot.uid,
            snapshot.gid,
            snapshot.pid,
            if statuses.is_empty() { "0".to_owned() } else { statuses.join(" ") },
        );
        let mut lines: Vec<String> = text.lines().map(format::one_line).collect();
        lines.extend(sample.findings.iter().map(|finding| format!("! {}", finding.line())));
        lines.push(String::new());
        lines.join("\n")
    }
}

fn ascii_or_newline(character: char) -> char {
    if character == '\n' { character } else { format::ascii(character) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{LocalMicros, Monotonic, Poll, parse};

    fn tables(fixture: &str) -> String {
        let path = format!("{}/../shared/tests/fixtures/{fixture}.json", env!("CARGO_MANIFEST_DIR"));
        let mut pool = Pool::new("web1:9191".into(), Some("web1".into()));
        for second in [0, 1] {
            let at = Monotonic::from_micros(second * 1_000_000);
            let taken = LocalMicros(1_795_227_110_000_000 + second * 1_000_000);
            let outcome = Ok(parse(std::fs::read(&path).unwrap()).unwrap());
            pool.ingest(Poll { target: 0, at, taken, outcome });
        }
        Batch { zone: TimeZone::UTC, unicode: true }.table(&pool, pool.current.as_ref().unwrap())
    }

    #[test]
    fn tables_have_every_column_that_the_server_tells() {
        let names = ["uwsgi-busy-cheap", "uwsgi-spoolers", "uwsgi-emperor", "uwsgi-emperor-idle"];
        insta::assert_snapshot!(names.map(tables).concat());
    }
}
