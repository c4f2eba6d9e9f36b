//! Slow requests over the time that was watched, above them how long the phases of all requests take; and one of them closely.

use std::sync::Arc;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::Place;
use super::drawn::{facts, frame, heading, phases, wrapped};
use super::sheet::Sheet;
use crate::format;
use crate::model::fields::{Clock, SLOW_FIELDS, SlowRow, signed_size};
use crate::model::{PHASES, PhaseCounts, phase_times};
use crate::view::keys::Action;
use crate::view::screen::Screen;
use crate::view::spark::bar;
use crate::view::targets::Targets;
use crate::view::theme::Theme;

/// The least height of the pane at which phases stand above the list.
const ROOM_FOR_PHASES: u16 = 12;

fn id(row: &SlowRow) -> String {
    let server = row.server.as_ref().map_or(0, |(place, _)| *place);
    format!("{server} {} {}", row.run, row.record.id)
}

fn ids(rows: &[SlowRow]) -> Vec<String> {
    rows.iter().map(id).collect()
}

/// The slow requests of the servers that are shown, up to the moment that is.
pub(super) fn rows(screen: &Screen) -> Vec<SlowRow> {
    let mut found = Vec::new();
    for server in screen.servers_shown() {
        let pool = &screen.pools[server];
        let mut add = |(run, record): (u64, &Arc<_>)| {
            let label = screen.all().then(|| (server, pool.label.clone()));
            found.push(SlowRow { record: Arc::clone(record), run, server: label });
        };
        match (screen.playback.paused.is_some(), screen.sample_of(server)) {
            (true, Some(sample)) => pool.slow.until(sample.clock).for_each(&mut add),
            (true, None) => {}
            (false, _) => pool.slow.all().for_each(&mut add),
        }
    }
    found
}

fn ordered(screen: &Screen, clock: &Clock) -> Vec<SlowRow> {
    screen.panes.slow.ordered(SLOW_FIELDS, rows(screen), clock)
}

pub(super) fn act(screen: &mut Screen, action: Action) -> bool {
    let ids = ids(&ordered(screen, &screen.clock()));
    screen.panes.slow.act(action, SLOW_FIELDS, &ids)
}

pub(super) fn click(screen: &mut Screen, place: Place) {
    let ids = ids(&ordered(screen, &screen.clock()));
    screen.panes.slow.click(place, &ids);
}

fn look(row: &SlowRow, theme: &Theme) -> Style {
    let record = &row.record;
    match record.outcome.as_str() {
        "harakiri" | "died" => theme.alarm(),
        _ if record.status >= 500 || !record.exception.is_empty() => theme.warning(),
        _ => Style::new(),
    }
}

pub(super) fn draw(screen: &mut Screen, area: Rect, buf: &mut Buffer, targets: &mut Targets) {
    let clock = screen.clock();
    let rows = ordered(screen, &clock);
    let theme = screen.theme;
    if screen.panes.slow.open {
        let selected = screen.panes.slow.selected.clone().unwrap_or_default();
        let lines = match rows.iter().find(|row| id(row) == selected) {
            Some(row) => closely(row, &clock, &theme, area.width),
            None => vec![Line::styled(" this record is not there at this moment", theme.dim())],
        };
        screen.panes.slow.draw_lines(&lines, &theme, area, buf);
        return;
    }
    let mut area = area;
    if area.height >= ROOM_FOR_PHASES
        && let Some(phases) = screen.phases_shown()
    {
        let lines = of_all(&phases, &theme, area.width);
        for (line, y) in lines.iter().zip(area.y..area.bottom()) {
            buf.set_line(area.x, y, line, area.width);
        }
        let taken = lines.len() as u16 + 1;
        area = Rect { y: area.y + taken, height: area.height.saturating_sub(taken), ..area };
    }
    if rows.is_empty() && screen.panes.slow.filter.is_empty() && area.height > 0 {
        let limit = screen.slow_limit();
        let is_told = screen.samples_shown().iter().any(|sample| sample.snapshot.server.is_some());
        let text = match limit {
            _ if !is_told => " no slow requests: uWSGI does not keep them".to_owned(),
            0 => " no slow requests: the server was not told from when on a request is slow (slow-request = 1s)"
                .to_owned(),
            limit => format!(" no request took longer than {}", format::micros(limit)),
        };
        buf.set_stringn(area.x, area.y, text, usize::from(area.width), theme.dim());
        return;
    }
    let ids = ids(&rows);
    let mut sheet = std::mem::replace(&mut screen.panes.slow, Sheet::sorted_by(""));
    sheet.draw(SLOW_FIELDS, &rows, &ids, &clock, look, &theme, area, buf, targets);
    screen.panes.slow = sheet;
}

/// The phases of the window's requests: percentiles, and a histogram as a row of bars, from 1 µs to a minute.
fn of_all(PhaseCounts(phases): &PhaseCounts, theme: &Theme, width: u16) -> Vec<Line<'static>> {
    let title = "PHASE           P50    P95    P99    MAX  1µs      1ms      1s";
    let mut lines = vec![Line::styled(format!("{title:<width$}", width = usize::from(width)), theme.title())];
    for (place, (name, counts)) in PHASES.into_iter().zip(phases).enumerate() {
        let told = counts.percentiles();
        let cell = |value: Option<u64>| value.map_or_else(|| "-".to_owned(), format::micros);
        let values = [told.map(|p| p.p50), told.map(|p| p.p95), told.map(|p| p.p99), told.map(|p| p.max)].map(cell);
        let mut powers = [0u64; 27];
        for (value, count) in counts.iter() {
            let power = value.max(1).ilog2().min(26) as usize;
            powers[power] = powers[power].saturating_add(count);
        }
        let most = powers.iter().copied().max().unwrap_or(0).max(1) as f64;
        let shape: String =
            powers.iter().map(|count| if *count == 0 { ' ' } else { bar(*count as f64 / most) }).collect();
        let numbers: String = values.iter().map(|value| format!(" {}", format::padded(value, 6, true))).collect();
        lines.push(Line::from(vec![
            Span::styled(format!("{name:<12}"), theme.dim()),
            Span::raw(numbers),
            Span::raw("  "),
            Span::styled(shape, theme.series(place % 3)),
        ]));
    }
    lines
}

/// The whole record.
fn closely(row: &SlowRow, clock: &Clock, theme: &Theme, width: u16) -> Vec<Line<'static>> {
    let record = &*row.record;
    let time = |micros: u64| format::time_of_day(micros / 1_000_000, clock.now, &clock.zone);
    let mut lines = wrapped(&format!("{} {}", record.method, record.uri), "", width);
    lines.iter_mut().for_each(|line| line.style = theme.strong());
    let mut told = vec![("took", format::micros(record.elapsed))];
    if record.status > 0 {
        told.push(("status", record.status.to_string()));
    }
    told.push(("ended", if record.outcome.is_empty() { "done".to_owned() } else { record.outcome.clone() }));
    told.push(("started", time(record.started)));
    if !record.route.is_empty() {
        told.push(("route", record.route.clone()));
    }
    told.push(("client", record.remote_addr.clone()));
    told.push(("worker", record.worker.to_string()));
    told.push(("core", record.core.to_string()));
    told.push(("pid", record.pid.to_string()));
    told.push(("gen", record.generation.to_string()));
    if let Some((_, label)) = &row.server {
        told.push(("server", label.clone()));
    }
    lines.extend(facts(&told, theme, width));
    lines.extend([Line::default(), heading("where its time went", theme)]);
    lines.extend(phases(phase_times(&record.phases), record.elapsed, theme, width));
    if !record.exception.is_empty() {
        lines.extend([Line::default(), heading("exception", theme)]);
        lines.extend(wrapped(&record.exception, "  ", width));
    }
    let at = if record.stack_at > 0 {
        format!(", {} after its start", format::micros(record.stack_at))
    } else {
        String::new()
    };
    lines.extend([Line::default(), heading(&format!("stack{at}, the innermost first"), theme)]);
    match record.stack.as_slice() {
        [] => lines.push(Line::styled("  it could not be taken", theme.dim())),
        stack => lines.extend(stack.iter().map(|line| frame(line, width))),
    }
    if record.rss_before > 0 || record.rss_after > 0 {
        lines.extend([Line::default(), heading("resident memory of its process", theme)]);
        let size = |bytes: u64| if bytes > 0 { format::size(bytes) } else { "-".to_owned() };
        let mut told = vec![("at the stack", size(record.rss_before)), ("at the end", size(record.rss_after))];
        if record.rss_before > 0 && record.rss_after > 0 {
            told.push(("grew", signed_size(record.rss_after as f64 - record.rss_before as f64)));
        }
        lines.extend(facts(&told, theme, width));
    }
    lines
}
