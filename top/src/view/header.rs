//! The lines above the table: who the server is, and how it is doing as a whole.
//!
//! The items are one list in the order of their worth. They flow into as many lines as the screen can spare, and what
//! finds no room is left out.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use rwsgi_stats::Snapshot;

use super::spark::{Cells, sparkline};
use super::table::{print, print_line, width_of};
use super::theme::Theme;
use crate::format;
use crate::model::{Counts, History, Point, Sample, Status, Totals};
use crate::source::Monotonic;

/// What the header draws with.
pub(crate) struct View<'a> {
    /// For the sparklines.
    pub(crate) history: &'a History,
    /// The moment that is shown.
    pub(crate) until: Monotonic,
    /// What the terminal can show.
    pub(crate) theme: &'a Theme,
}

/// A label and what it says.
struct Item {
    label: &'static str,
    value: String,
    /// Room that the value always takes, so that its neighbours stay where they are.
    width: usize,
    style: Style,
    /// The last minute, where there is room for it.
    series: Option<fn(&Point) -> Option<f64>>,
}

impl Item {
    fn new(label: &'static str, value: String, width: usize, style: Style) -> Self {
        Self { label, value, width, style, series: None }
    }

    fn over_time(self, series: fn(&Point) -> Option<f64>) -> Self {
        Self { series: Some(series), ..self }
    }
}

/// How many lines a screen of this height can spare for the flowing items.
pub(crate) fn lines_for(height: u16) -> u16 {
    match height {
        0..=12 => 2,
        13..=19 => 3,
        _ => 4,
    }
}

/// The first line: which program, where, for how long; and at its end, what the caller has to say of the time.
pub(crate) fn identity(
    sample: Option<&Sample>,
    label: &str,
    right: Line<'_>,
    theme: &Theme,
    area: Rect,
    buf: &mut Buffer,
) {
    let mut spans = Vec::new();
    match sample {
        Some(sample) => {
            let snapshot = &sample.snapshot;
            let name = snapshot.server.as_deref().unwrap_or("uwsgi");
            let program = format!("{}-{}", format::one_line(name), format::one_line(&snapshot.version));
            spans.push(Span::styled(program, theme.strong()));
            spans.push(Span::raw(format!("  {label}")));
            let mut fact = |label: &'static str, value: String| {
                spans.push(Span::styled(label, theme.dim()));
                spans.push(Span::raw(value));
            };
            if let Some(started) = snapshot.started_at {
                fact("  up ", format::seconds(sample.clock.since(started).as_secs()));
            }
            if let Some(generation) = snapshot.generation {
                fact("  gen ", generation.to_string());
            }
            if let Some(python) = &snapshot.python {
                fact("  python ", format::one_line(python.split(' ').next().unwrap_or_default()));
            }
        }
        None => {
            spans.push(Span::styled("rtop", theme.strong()));
            spans.push(Span::raw(format!("  {label}")));
        }
    }
    let width = u16::try_from(right.width()).unwrap_or(u16::MAX);
    // What is at the end goes before what is too long on the left, as long as there is room for both.
    let left = if width.saturating_add(20) < area.width { area.width - width - 1 } else { area.width };
    let line = Line::from(spans);
    print_line(buf, area.x, area.y, &line, left);
    if line.width() > usize::from(left) && left > 0 {
        buf.set_string(area.x + left - 1, area.y, "…", theme.dim());
    }
    if left < area.width {
        print_line(buf, area.right() - width, area.y, &right, width);
    }
}

/// The items that flow, and how many lines they took; `home` is the server's document and node.
pub(crate) fn totals(
    totals: &Totals,
    home: Option<(&Snapshot, Option<&str>)>,
    view: &View<'_>,
    area: Rect,
    buf: &mut Buffer,
) -> u16 {
    let mut items = match home {
        Some((snapshot, _)) if snapshot.emperor.is_some() => empire(snapshot),
        _ => load(totals, view.theme),
    };
    if let Some((snapshot, node)) = home {
        items.extend(self::home(snapshot, node));
    }
    flow(&items, view, area, buf)
}

/// What an emperor rules.
fn empire(snapshot: &Snapshot) -> Vec<Item> {
    let plain = Style::new();
    let monitors = snapshot.emperor.as_deref().unwrap_or_default().join(" ");
    let tyrant = snapshot.emperor_tyrant.unwrap_or(0).to_string();
    vec![
        Item::new("emperor", format::one_line(&monitors), 1, plain),
        Item::new("tyrant", tyrant, 1, plain),
        Item::new("vassals", snapshot.vassals.as_ref().map_or(0, Vec::len).to_string(), 1, plain),
        Item::new("blacklisted", snapshot.blacklist.as_ref().map_or(0, Vec::len).to_string(), 1, plain),
    ]
}

/// How it is doing.
fn load(totals: &Totals, theme: &Theme) -> Vec<Item> {
    let unknown = || "-".to_owned();
    let plain = Style::new();
    let rps = totals.rps.map_or_else(unknown, format::rate);
    let mut items = vec![
        Item::new("req", totals.requests.to_string(), 6, plain),
        Item::new("RPS", rps, 5, theme.strong()).over_time(|point| point.rps.map(f64::from)),
    ];
    if totals.utilization.is_some() || totals.latency.is_some() {
        let value = totals.utilization.map_or_else(unknown, |share| format!("{}%", format::percent(share)));
        items.push(Item::new("util", value, 5, theme.strong()).over_time(|point| point.utilization.map(f64::from)));
    }
    if let Some(latency) = &totals.latency {
        let percentiles = latency.percentiles();
        let show = |value: Option<u64>| value.map_or_else(unknown, format::micros);
        let series: [fn(&Point) -> Option<f64>; 3] = [
            |point| point.latency.map(|latency| f64::from(latency[0])),
            |point| point.latency.map(|latency| f64::from(latency[1])),
            |point| point.latency.map(|latency| f64::from(latency[2])),
        ];
        let values = [percentiles.map(|p| p.p50), percentiles.map(|p| p.p95), percentiles.map(|p| p.p99)];
        for ((label, value), series) in ["p50", "p95", "p99"].into_iter().zip(values).zip(series) {
            items.push(Item::new(label, show(value), 6, theme.strong()).over_time(series));
        }
    }
    let queue = match totals.queue_capacity {
        0 => totals.queue.to_string(),
        capacity => format!("{}/{capacity}", totals.queue),
    };
    items.push(Item::new("lq", queue, 5, if totals.queue > 0 { theme.warning() } else { plain }));
    if let Some(waiting) = totals.waiting.as_ref().and_then(Counts::percentiles) {
        items.push(Item::new("wait p95", format::micros(waiting.p95), 6, plain));
    }
    items.push(Item::new("tx", format::size(totals.tx), 6, plain));
    let (memory, bytes) = totals.pss.map_or(("rss", totals.rss), |pss| ("pss", pss));
    items.push(Item::new(memory, format::size(bytes), 6, plain));
    let style = |count: u64| if count > 0 { theme.warning() } else { plain };
    for (label, count) in [("exc", totals.exceptions), ("harakiri", totals.harakiri), ("respawns", totals.respawns)] {
        items.push(Item::new(label, format::count(count), 1, style(count)));
    }
    if totals.queue_errors > 0 {
        items.push(Item::new("refused", format::count(totals.queue_errors), 1, theme.alarm()));
    }
    if let Some(cpu) = totals.cpu {
        items.push(Item::new("cpu", format!("{}%", format::percent(cpu)), 5, plain));
    }
    let statuses = Status::ALL.iter().zip(totals.statuses).filter(|(_, count)| *count > 0);
    let words: Vec<String> = statuses.map(|((_, word), count)| format!("{count} {word}")).collect();
    items.push(Item::new("workers", if words.is_empty() { "0".to_owned() } else { words.join(" ") }, 1, plain));
    items
}

/// Where it lives.
fn home(snapshot: &Snapshot, node: Option<&str>) -> Vec<Item> {
    let item = |label, value: String| Item::new(label, value, 1, Style::new());
    let mut items = Vec::new();
    if let Some(node) = snapshot.hostname.as_deref().or(node) {
        items.push(item("node", format::one_line(node)));
    }
    items.push(item("cwd", format::one_line(&snapshot.cwd)));
    items.push(item("uid", snapshot.uid.to_string()));
    items.push(item("gid", snapshot.gid.to_string()));
    items.push(item("masterpid", snapshot.pid.to_string()));
    items
}

/// Cells of a sparkline, and seconds in each, on a screen of this width.
fn spark_size(width: u16) -> Option<(usize, u64)> {
    match width {
        0..100 => None,
        100..160 => Some((8, 5)),
        _ => Some((15, 4)),
    }
}

fn flow(items: &[Item], view: &View<'_>, area: Rect, buf: &mut Buffer) -> u16 {
    const GAP: u16 = 2;
    let (mut x, mut y, mut used) = (area.x, area.y, 0);
    let sparks = spark_size(area.width);
    let latest = view.history.latest().unwrap_or_default().min(view.until);
    for item in items {
        let spark = match (sparks, item.series) {
            (Some((count, step)), Some(series)) => {
                sparkline(&Cells::of(view.history.points(), latest, step, count).highest(series))
            }
            _ => String::new(),
        };
        let value = format::padded(&item.value, item.width, false);
        let label = width_of(item.label) + 1;
        let spark_width = if spark.is_empty() { 0 } else { width_of(&spark) + 1 };
        // The last item of a line needs no room after its value.
        let least = match spark_width {
            0 => label + width_of(&item.value),
            width => label + width_of(&value) + width,
        };
        if x > area.x && x + least > area.right() {
            (x, y) = (area.x, y + 1);
        }
        if y >= area.bottom() {
            break;
        }
        used = y - area.y + 1;
        let room = |x: u16| area.right().saturating_sub(x);
        print(buf, x, y, item.label, room(x), view.theme.dim());
        x += label;
        if room(x) > 0 {
            print(buf, x, y, &value, room(x), item.style);
        }
        x += width_of(&value);
        if spark_width > 0 && room(x) > 1 {
            print(buf, x + 1, y, &spark, room(x + 1), view.theme.series(0));
        }
        x += spark_width + GAP;
    }
    used
}
