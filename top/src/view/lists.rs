//! The smaller tables: several servers, an emperor's vassals. Fixed columns, a line each.

use std::ops::Range;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use rwsgi_stats::Snapshot;

use super::table::{put, width_of};
use super::theme::Theme;
use crate::format;
use crate::model::{Pool, Reading};

/// A table of texts: titles, and for each row its cells and its style. The first column is as wide as it needs and
/// stands to the left; the others stand to the right.
pub(crate) struct List {
    titles: Vec<&'static str>,
    rows: Vec<(Vec<String>, Style)>,
}

impl List {
    /// A table of these rows, each with as many cells as there are titles.
    pub(crate) fn new(titles: Vec<&'static str>, rows: Vec<(Vec<String>, Style)>) -> Self {
        Self { titles, rows }
    }

    /// How many lines it takes.
    pub(crate) fn height(&self) -> u16 {
        u16::try_from(self.rows.len() + 1).unwrap_or(u16::MAX)
    }

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

    /// Draws as many columns, from the left, and as many rows as fit; `selected` is in sight. Returns which rows those are.
    pub(crate) fn draw(&self, selected: Option<usize>, theme: &Theme, area: Rect, buf: &mut Buffer) -> Range<usize> {
        if area.height == 0 || area.width < 3 {
            return 0..0;
        }
        let room = usize::from(area.height - 1);
        let first = selected.map_or(0, |place| (place + 1).saturating_sub(room)).min(self.rows.len());
        let shown = &self.rows[first..self.rows.len().min(first + room)];
        buf.set_style(Rect { height: 1, ..area }, theme.title());
        for (index, (_, style)) in shown.iter().enumerate() {
            let line = Rect { y: area.y + 1 + index as u16, height: 1, ..area };
            buf.set_style(line, *style);
            if selected == Some(first + index) {
                buf.set_style(line, theme.selected());
            }
        }
        let mut x = area.x + 1;
        for (column, title) in self.titles.iter().enumerate() {
            let texts = || self.rows.iter().map(|(cells, _)| cells[column].as_str());
            let widest = texts().map(width_of).max().unwrap_or(0).max(width_of(title));
            let width = widest.min(if column == 0 { area.width / 2 } else { area.width });
            if x + width > area.right() {
                break;
            }
            put(buf, x, area.y, title, width, column > 0);
            for (index, (cells, _)) in shown.iter().enumerate() {
                put(buf, x, area.y + 1 + index as u16, &cells[column], width, column > 0);
            }
            x += width + 2;
        }
        first..first + shown.len()
    }
}

fn dash<T>(value: Option<T>, show: impl FnOnce(T) -> String) -> String {
    value.map_or_else(|| "-".to_owned(), show)
}

/// A row for each server, from the reading of it that is shown.
pub(crate) fn servers(pools: &[Pool], shown: &[Option<&Reading>], theme: &Theme) -> List {
    let titles = vec![
        "SERVER", "STATE", "WORKERS", "RPS", "P50", "P95", "P99", "UTIL%", "LQ", "EXC", "MEM", "REQ", "TX", "VERSION",
    ];
    let row = |(pool, reading): (&Pool, &Option<&Reading>)| {
        let Some(reading) = reading else {
            let state = if pool.trouble.is_some() { "down" } else { "waiting" };
            let mut cells = vec![pool.label.clone(), state.to_owned()];
            cells.resize(titles.len(), "-".to_owned());
            return (cells, theme.alarm());
        };
        let totals = &reading.totals;
        let latency = totals.latency.as_ref().and_then(crate::model::Counts::percentiles);
        let state = if pool.trouble.is_some() { "down" } else { "up" };
        let snapshot = &reading.snapshot;
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
        (cells, if pool.trouble.is_some() { theme.alarm() } else { Style::new() })
    };
    let rows = pools.iter().zip(shown).map(row).collect();
    List { titles, rows }
}

/// An emperor's vassals; `None` when the server is no emperor.
pub(crate) fn vassals(snapshot: &Snapshot, now: u64, theme: &Theme) -> Option<List> {
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
        (cells, if vassal.cursed > 0 { theme.alarm() } else { Style::new() })
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
            [["日本語", "1"], ["⚡", "22"], ["abc", "3"]].map(|row| (row.map(str::to_owned).to_vec(), Style::new()));
        let list = List::new(vec!["NAME", "N"], rows.to_vec());
        assert_eq!(list.text(), "NAME     N\n日本語   1\n⚡      22\nabc      3\n");
    }
}
