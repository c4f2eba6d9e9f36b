//! The lines above the table: who the server is, and how it is doing as a whole.
//!
//! The items are one list in the order of their worth. They flow into as many lines as the screen can spare, and what
//! finds no room is left out.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::theme::Theme;
use crate::format;
use crate::model::{Counts, Reading, Status, Totals};

/// A label and what it says.
struct Item {
    label: &'static str,
    value: String,
    /// Room that the value always takes, so that its neighbours stay where they are.
    width: usize,
    style: Style,
}

/// How many lines a screen of this height can spare for the flowing items.
pub(crate) fn lines_for(height: u16) -> u16 {
    match height {
        0..=12 => 2,
        13..=19 => 3,
        _ => 4,
    }
}

/// The first line: which program, where, for how long, and the time of the reading.
pub(crate) fn identity(
    reading: Option<&Reading>,
    label: &str,
    clock: &str,
    theme: Theme,
    area: Rect,
    buf: &mut Buffer,
) {
    let mut spans = Vec::new();
    match reading {
        Some(reading) => {
            let snapshot = &reading.snapshot;
            let name = snapshot.server.as_deref().unwrap_or("uwsgi");
            spans.push(Span::styled(
                format!("{}-{}", format::one_line(name), format::one_line(&snapshot.version)),
                theme.strong(),
            ));
            spans.push(Span::raw(format!("  {label}")));
            if let Some(started) = snapshot.started_at {
                let up = reading.taken.saturating_sub(started) / 1_000_000;
                spans.push(Span::styled("  up ", theme.dim()));
                spans.push(Span::raw(format::seconds(up)));
            }
            if let Some(generation) = snapshot.generation {
                spans.push(Span::styled("  gen ", theme.dim()));
                spans.push(Span::raw(generation.to_string()));
            }
            if let Some(python) = &snapshot.python {
                spans.push(Span::styled("  python ", theme.dim()));
                spans.push(Span::raw(format::one_line(python.split(' ').next().unwrap_or_default())));
            }
        }
        None => {
            spans.push(Span::styled("rtop", theme.strong()));
            spans.push(Span::raw(format!("  {label}")));
        }
    }
    let line = Line::from(spans);
    let clock_width = clock.len() as u16;
    // The clock gives way first: the address may be long.
    let spare = area.width.saturating_sub(line.width() as u16);
    buf.set_line(area.x, area.y, &line, area.width);
    if spare > clock_width {
        buf.set_string(area.right() - clock_width, area.y, clock, theme.dim());
    }
}

/// The items that flow, and how many lines they took.
pub(crate) fn totals(reading: &Reading, node: Option<&str>, theme: Theme, area: Rect, buf: &mut Buffer) -> u16 {
    let mut items = load(&reading.totals, theme);
    items.extend(home(reading, node));
    flow(&items, theme, area, buf)
}

/// How it is doing.
fn load(totals: &Totals, theme: Theme) -> Vec<Item> {
    let unknown = || "-".to_owned();
    let plain = Style::new();
    let mut items = vec![
        Item { label: "req", value: totals.requests.to_string(), width: 6, style: plain },
        Item { label: "RPS", value: totals.rps.map_or_else(unknown, format::rate), width: 4, style: theme.strong() },
    ];
    if let Some(utilization) = totals.utilization {
        items.push(Item {
            label: "util",
            value: format!("{}%", format::percent(utilization)),
            width: 5,
            style: theme.strong(),
        });
    }
    if let Some(latency) = &totals.latency {
        let percentiles = latency.percentiles();
        let show = |value: Option<u64>| value.map_or_else(unknown, format::micros);
        for (label, value) in [
            ("p50", percentiles.map(|p| p.p50)),
            ("p95", percentiles.map(|p| p.p95)),
            ("p99", percentiles.map(|p| p.p99)),
        ] {
            items.push(Item { label, value: show(value), width: 6, style: theme.strong() });
        }
    }
    let queue = match totals.queue_capacity {
        0 => totals.queue.to_string(),
        capacity => format!("{}/{capacity}", totals.queue),
    };
    let queue_style = if totals.queue > 0 { theme.warning() } else { plain };
    items.push(Item { label: "lq", value: queue, width: 5, style: queue_style });
    if let Some(waiting) = totals.waiting.as_ref().and_then(Counts::percentiles) {
        items.push(Item { label: "wait p95", value: format::micros(waiting.p95), width: 6, style: plain });
    }
    items.push(Item { label: "tx", value: format::size(totals.tx), width: 6, style: plain });
    let (memory, bytes) = totals.pss.map_or(("rss", totals.rss), |pss| ("pss", pss));
    items.push(Item { label: memory, value: format::size(bytes), width: 6, style: plain });
    let count_style = |count: u64| if count > 0 { theme.warning() } else { plain };
    for (label, count) in [("exc", totals.exceptions), ("harakiri", totals.harakiri), ("respawns", totals.respawns)] {
        items.push(Item { label, value: format::count(count), width: 1, style: count_style(count) });
    }
    if totals.queue_errors > 0 {
        items.push(Item {
            label: "refused",
            value: format::count(totals.queue_errors),
            width: 1,
            style: theme.alarm(),
        });
    }
    if let Some(cpu) = totals.cpu {
        items.push(Item { label: "cpu", value: format!("{}%", format::percent(cpu)), width: 5, style: plain });
    }
    let statuses = Status::ALL.iter().zip(totals.statuses).filter(|(_, count)| *count > 0);
    let words: Vec<String> = statuses.map(|((_, word), count)| format!("{count} {word}")).collect();
    items.push(Item { label: "workers", value: words.join(" "), width: 1, style: plain });
    items
}

/// Where it lives.
fn home(reading: &Reading, node: Option<&str>) -> Vec<Item> {
    let snapshot = &reading.snapshot;
    let node = snapshot.hostname.as_deref().or(node);
    let item = |label, value: String| Item { label, value, width: 1, style: Style::new() };
    let mut items = Vec::new();
    if let Some(node) = node {
        items.push(item("node", format::one_line(node)));
    }
    items.push(item("cwd", format::one_line(&snapshot.cwd)));
    items.push(item("uid", snapshot.uid.to_string()));
    items.push(item("gid", snapshot.gid.to_string()));
    items.push(item("masterpid", snapshot.pid.to_string()));
    items
}

fn flow(items: &[Item], theme: Theme, area: Rect, buf: &mut Buffer) -> u16 {
    const GAP: u16 = 2;
    let (mut x, mut y, mut used) = (area.x, area.y, 0);
    for item in items {
        let value = format!("{:<width$}", item.value, width = item.width);
        let label = item.label.len() as u16 + 1;
        // The last item of a line needs no room after its value.
        let least = label + Line::raw(&item.value).width() as u16;
        if x > area.x && x + least > area.right() {
            (x, y) = (area.x, y + 1);
        }
        if y >= area.bottom() {
            break;
        }
        used = y - area.y + 1;
        buf.set_stringn(x, y, item.label, usize::from(area.right().saturating_sub(x)), theme.dim());
        let at = x + label;
        if at < area.right() {
            buf.set_stringn(at, y, &value, usize::from(area.right() - at), item.style);
        }
        x = at + Line::raw(&value).width() as u16 + GAP;
    }
    used
}
