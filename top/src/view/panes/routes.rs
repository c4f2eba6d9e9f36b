//! Requests by route: what each costs; and one of them closely.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::Place;
use super::drawn::{facts, frame, heading, histogram, percentiles};
use super::sheet::Sheet;
use crate::format;
use crate::model::fields::{Clock, ROUTE_FIELDS, largest_phase, signed_size};
use crate::model::{Counts, RouteRow, Sample, routes, running};
use crate::view::keys::Action;
use crate::view::screen::Screen;
use crate::view::targets::Targets;
use crate::view::theme::Theme;

/// Slow requests that are listed of a route.
const SLOW_LISTED: usize = 10;

fn ids(rows: &[RouteRow]) -> Vec<String> {
    rows.iter().map(|row| row.route.clone()).collect()
}

fn ordered(screen: &Screen, clock: &Clock) -> Vec<RouteRow> {
    screen.panes.routes.ordered(ROUTE_FIELDS, routes(&screen.samples_shown()), clock)
}

pub(super) fn act(screen: &mut Screen, action: Action) -> bool {
    let ids = ids(&ordered(screen, &screen.clock()));
    screen.panes.routes.act(action, ROUTE_FIELDS, &ids)
}

pub(super) fn click(screen: &mut Screen, place: Place) {
    let ids = ids(&ordered(screen, &screen.clock()));
    screen.panes.routes.click(place, &ids);
}

fn look(row: &RouteRow, theme: &Theme) -> Style {
    if row.rps.is_some_and(|rps| rps > 0.0) { Style::new() } else { theme.dim() }
}

pub(super) fn draw(screen: &mut Screen, area: Rect, buf: &mut Buffer, targets: &mut Targets) {
    let clock = screen.clock();
    let rows = ordered(screen, &clock);
    if screen.panes.routes.open {
        let selected = screen.panes.routes.selected.clone().unwrap_or_default();
        let lines = closely(screen, &rows, &selected, &clock, area.width);
        screen.panes.routes.draw_lines(&lines, &screen.theme, area, buf);
        return;
    }
    if rows.is_empty() && screen.panes.routes.filter.is_empty() {
        let text = " no requests by route: rwsgi counts them unless that is switched off, uWSGI cannot";
        buf.set_stringn(area.x, area.y, text, usize::from(area.width), screen.theme.dim());
        return;
    }
    let ids = ids(&rows);
    let mut sheet = std::mem::replace(&mut screen.panes.routes, Sheet::sorted_by(""));
    sheet.draw(ROUTE_FIELDS, &rows, &ids, &clock, look, &screen.theme, area, buf, targets);
    screen.panes.routes = sheet;
}

/// All that is known of a route.
fn closely(screen: &Screen, rows: &[RouteRow], route: &str, clock: &Clock, width: u16) -> Vec<Line<'static>> {
    let theme = &screen.theme;
    let Some(row) = rows.iter().find(|row| row.route == route) else {
        return vec![Line::styled(format!(" {route} is not there at this moment"), theme.dim())];
    };
    let unknown = || "-".to_owned();
    let mut lines = vec![Line::from(vec![
        Span::styled(row.route.clone(), theme.strong()),
        Span::styled(if row.named { "  named by the application" } else { "" }, theme.dim()),
    ])];
    let mut told = vec![
        ("requests", format::count(row.requests)),
        ("RPS", row.rps.map_or_else(unknown, format::rate)),
        ("time", row.share.map_or_else(unknown, |share| format!("{}%", format::percent(share)))),
        ("5xx", format::count(row.errors)),
        ("exceptions", format::count(row.exceptions)),
        ("tx", format::size(row.tx)),
    ];
    if let Some(gil) = row.gil {
        told.push(("waits for the GIL", format!("{}%", format::percent(gil))));
    }
    if let Some(growth) = row.growth() {
        told.push(("grows", format!("{} a request, of {}", signed_size(growth), format::count(row.memory_samples))));
    }
    lines.extend(facts(&told, theme, width));
    lines.extend(now(screen, route, width));
    if let Some(exception) = &row.last_exception {
        let when = format::time_of_day(exception.when / 1_000_000, clock.now, &clock.zone);
        lines.extend([Line::default(), heading(&format!("last exception, {when}"), theme)]);
        lines.push(Line::styled(format!("{}: {}", exception.kind, exception.message), theme.warning()));
        lines.extend(exception.traceback.iter().map(|line| frame(line, width)));
        lines.extend(facts(&[("on", exception.request.clone())], theme, width));
    }
    if let Some(slowest) = &row.slowest {
        let when = format::time_of_day(slowest.when / 1_000_000, clock.now, &clock.zone);
        lines.extend([Line::default(), heading("slowest request of the last minutes", theme)]);
        let told = [("took", format::micros(slowest.elapsed)), ("at", when), ("", slowest.request.clone())];
        lines.extend(facts(&told, theme, width));
    }
    lines.extend(slow(screen, route, clock));
    if let Some(latency) = row.latency {
        lines.extend([Line::default(), heading("latency since the last sample", theme)]);
        lines.extend(percentiles(latency, theme, width));
    }
    let counts = since_start(screen, route);
    if let Some(all) = counts.percentiles() {
        let until = if screen.playback.paused.is_some() { ", up to the present" } else { "" };
        lines.extend([Line::default(), heading(&format!("latency since its row began{until}"), theme)]);
        lines.extend(percentiles(all, theme, width));
        lines.extend(histogram(&counts, theme, width));
    }
    lines
}

fn since_start(screen: &Screen, route: &str) -> Counts {
    let mut all = Counts::default();
    for counts in screen.servers_shown().filter_map(|server| screen.pools[server].route_latency(route)) {
        all.merge(counts);
    }
    all
}

/// The requests of it that run now.
fn now(screen: &Screen, route: &str, width: u16) -> Vec<Line<'static>> {
    let samples: Vec<&Sample> = screen.samples_shown();
    let found: Vec<_> = samples.iter().flat_map(|sample| running(sample, route)).collect();
    let title = format!("running now: {}", found.len());
    let mut lines = vec![Line::default(), heading(&title, &screen.theme)];
    for (worker, core) in found.into_iter().take(SLOW_LISTED) {
        let request = &core.req_info;
        let age = request.elapsed.map_or_else(|| "-".to_owned(), format::micros);
        let part = |part: &Option<String>| part.clone().unwrap_or_default();
        let text =
            format!("{age:>7}  worker {worker} core {}  {} {}", core.id, part(&request.method), part(&request.uri));
        lines.push(Line::raw(format::start_of(&text, usize::from(width)).into_owned()));
    }
    lines
}

/// Its slow requests, the newest first.
fn slow(screen: &Screen, route: &str, clock: &Clock) -> Vec<Line<'static>> {
    let rows = super::slow::rows(screen);
    let mut of_route: Vec<_> = rows.iter().map(|row| &row.record).filter(|record| record.route == route).collect();
    if of_route.is_empty() {
        return Vec::new();
    }
    of_route.sort_by_key(|record| std::cmp::Reverse(record.started.saturating_add(record.elapsed)));
    let mut lines = vec![Line::default(), heading(&format!("slow requests: {}", of_route.len()), &screen.theme)];
    for record in of_route.into_iter().take(SLOW_LISTED) {
        let when =
            format::time_of_day(record.started.saturating_add(record.elapsed) / 1_000_000, clock.now, &clock.zone);
        let phase =
            largest_phase(record).map_or_else(String::new, |(name, time)| format!("{name} {}", format::micros(time)));
        let took = format::micros(record.elapsed);
        lines.push(Line::raw(format!(
            "{when}  {took:>6}  {:>3}  {phase:<18} {} {}",
            record.status, record.method, record.uri
        )));
    }
    lines
}
