//! One worker, closely: its cores and their requests, its latencies, its memory, how it ended, what it raised.

use jiff::tz::TimeZone;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::panes::drawn;
use super::spark::bars;
use super::table::more_rows;
use super::theme::Theme;
use crate::format;
use crate::model::{Counts, Percentiles, Pool, Sample, Slope, status_of};

/// Widths at which the two halves stand side by side.
const SIDE_BY_SIDE: u16 = 110;

/// What the pane shows.
pub(crate) struct Subject<'a> {
    /// The worker's server.
    pub(crate) pool: &'a Pool,
    /// The sample that is shown.
    pub(crate) sample: &'a Sample,
    /// The worker's place in it.
    pub(crate) place: usize,
    /// Whether that is a moment of the past.
    pub(crate) past: bool,
}

/// How far the pane is scrolled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scroll {
    /// Lines above the pane.
    pub(crate) first: usize,
    /// Lines that the pane showed last; a page is as long.
    pub(crate) page: usize,
}

/// A slope and its standard error; what cannot be told from none is said to be noise.
pub(super) fn slope_text(slope: Slope) -> String {
    let sign = if slope.value < 0.0 { "-" } else { "+" };
    let value = format!("{sign}{}", format::size(slope.value.abs() as u64));
    match slope.error {
        None => value,
        Some(0.0) if slope.value == 0.0 => value,
        Some(error) if slope.is_noise() => format!("{value} ±{} (noise)", format::size(error as u64)),
        Some(error) => format!("{value} ±{}", format::size(error as u64)),
    }
}

/// Draws the pane from a line on, and gives back how far it is scrolled indeed.
pub(crate) fn draw(
    subject: &Subject<'_>,
    scroll: Scroll,
    zone: &TimeZone,
    theme: &Theme,
    area: Rect,
    buf: &mut Buffer,
) -> Scroll {
    let Some(pane) = Pane::of(subject, zone, theme) else { return scroll };
    let Some((name, counters)) = pane.title(area.width).split_first().map(|(name, rest)| (name.clone(), rest.to_vec()))
    else {
        return scroll;
    };
    if area.height == 0 {
        return scroll;
    }
    buf.set_line(area.x, area.y, &name, area.width);
    let rest = Rect { y: area.y + 1, height: area.height - 1, ..area };
    // On the smallest screens what it does now comes first.
    let parts = [counters, pane.cores(area.width)];
    let mut whole = if rest.height < 8 { parts.into_iter().rev().flatten().collect() } else { parts.concat() };
    if area.width < SIDE_BY_SIDE {
        // One below the other, the most wanted first; on a small screen without the lines of air.
        whole.extend(pane.exception(area.width));
        let rows = if rest.height >= 30 { 4 } else { 1 };
        whole.extend(pane.memory(area.width, rows));
        whole.extend(pane.latency(area.width));
        whole.extend(pane.ends(area.width));
        if whole.len() > usize::from(rest.height) {
            whole.retain(|line| line.width() > 0);
        }
        return stack(&whole, [&[], &[]], scroll, theme, rest, buf);
    }
    let half = area.width / 2 - 1;
    let mut left = pane.exception(half);
    left.extend(pane.ends(half));
    left.extend(pane.latency(half));
    let tall = usize::from(rest.height) >= whole.len() + left.len();
    let right = pane.memory(half, if tall { 8 } else { 2 });
    stack(&whole, [&left, &right], scroll, theme, rest, buf)
}

/// Puts lines of the whole width below each other, then two columns, all scrolled together and no further than there
/// are lines.
fn stack(
    whole: &[Line<'_>],
    columns: [&[Line<'_>]; 2],
    scroll: Scroll,
    theme: &Theme,
    area: Rect,
    buf: &mut Buffer,
) -> Scroll {
    let page = usize::from(area.height);
    let total = whole.len() + columns[0].len().max(columns[1].len());
    let first = scroll.first.min(total.saturating_sub(page));
    let half = area.width / 2;
    for (place, y) in (first..total).zip(area.y..area.bottom()) {
        match place.checked_sub(whole.len()) {
            None => drop(buf.set_line(area.x, y, &whole[place], area.width)),
            Some(place) => {
                for (column, x, width) in
                    [(columns[0], area.x, half - 1), (columns[1], area.x + half, area.width - half)]
                {
                    if let Some(line) = column.get(place) {
                        buf.set_line(x, y, line, width);
                    }
                }
            }
        }
    }
    more_rows(first, total.saturating_sub(first + page), theme, area, buf);
    Scroll { first, page }
}

struct Pane<'a> {
    pool: &'a Pool,
    sample: &'a Sample,
    place: usize,
    past: bool,
    worker: &'a rwsgi_stats::Worker,
    rates: &'a crate::model::Rates,
    zone: &'a TimeZone,
    theme: &'a Theme,
}

impl<'a> Pane<'a> {
    fn of(subject: &Subject<'a>, zone: &'a TimeZone, theme: &'a Theme) -> Option<Self> {
        let Subject { pool, sample, place, past } = *subject;
        let worker = sample.snapshot.workers.get(place)?;
        let rates = sample.workers.get(place)?;
        Some(Self { pool, sample, place, past, worker, rates, zone, theme })
    }

    fn heading(&self, text: &str) -> Line<'static> {
        drawn::heading(text, self.theme)
    }

    fn facts(&self, facts: &[(&str, String)], width: u16) -> Vec<Line<'static>> {
        drawn::facts(facts, self.theme, width)
    }

    fn title(&self, width: u16) -> Vec<Line<'static>> {
        let worker = self.worker;
        let style = self.theme.status(status_of(&worker.status));
        let now = self.sample.clock.seconds();
        let mut first = vec![
            Span::styled(format!("worker {}", worker.id), self.theme.strong()),
            Span::raw("  "),
            Span::styled(format::one_line(&worker.status), style),
            Span::raw("  "),
        ];
        let mut facts = vec![("pid", worker.pid.to_string())];
        if let Some(generation) = worker.generation {
            facts.push(("gen", generation.to_string()));
        }
        if worker.last_spawn > 0 {
            let since = format::time_of_day(worker.last_spawn, now, self.zone);
            facts.push(("up", format!("{} (since {since})", format::seconds(now.saturating_sub(worker.last_spawn)))));
        }
        facts.push(("starts", worker.respawn_count.to_string()));
        first.extend(self.facts(&facts, u16::MAX).into_iter().flat_map(|line| line.spans));
        let unknown = || "-".to_owned();
        let mut second = vec![
            ("requests", worker.requests.to_string()),
            ("since start", worker.delta_requests.to_string()),
            ("RPS", self.rates.rps.map_or_else(unknown, format::rate)),
            ("avg", format::micros(worker.avg_rt)),
            ("exceptions", worker.exceptions.to_string()),
            ("harakiri", worker.harakiri_count.to_string()),
            ("tx", format::size(worker.tx)),
        ];
        if let Some(utilization) = self.rates.utilization {
            second.push(("util", format!("{}%", format::percent(utilization))));
        }
        if let Some(cpu) = self.rates.cpu {
            second.push(("cpu", format!("{}%", format::percent(cpu))));
        }
        let mut lines = vec![Line::from(first)];
        lines.extend(self.facts(&second, width));
        lines
    }

    fn cores(&self, width: u16) -> Vec<Line<'static>> {
        // Where there is no room for both, what is asked for is worth more than who asks.
        let clients = width >= 70;
        let title = if clients {
            "CORE     REQ   RPS STATUS    AGE CLIENT          REQUEST"
        } else {
            "CORE     REQ   RPS STATUS    AGE REQUEST"
        };
        let title = format!("{title:<width$}", width = usize::from(width));
        let mut lines = vec![Line::default(), Line::styled(title, self.theme.title())];
        for (index, core) in self.worker.cores.iter().enumerate() {
            let rps = self.rates.cores.get(index).map_or_else(|| "-".to_owned(), |rate| format::rate(*rate));
            let busy = core.in_request != 0;
            let status = if busy { "busy" } else { "idle" };
            let request = &core.req_info;
            let age = request.elapsed.filter(|_| busy).map_or_else(|| "-".to_owned(), format::micros);
            let mut text = format!("{:>4} {:>7} {rps:>5} {status:<6} {age:>6} ", core.id, format::count(core.requests));
            if busy {
                let part = |part: &Option<String>| part.as_deref().map(format::one_line).unwrap_or_default();
                if clients {
                    text += &format::padded(&part(&request.remote_addr), 16, false);
                }
                text += &format!("{} {}", part(&request.method), part(&request.uri));
            }
            lines.push(Line::styled(text, self.theme.status(status_of(status))));
        }
        lines
    }

    fn memory(&self, width: u16, rows: u16) -> Vec<Line<'static>> {
        let worker = self.worker;
        let mut facts = vec![("rss", format::size(worker.rss)), ("vsz", format::size(worker.vsz))];
        for (label, bytes) in [("pss", worker.pss), ("uss", worker.uss), ("peak", worker.rss_peak)] {
            if let Some(bytes) = bytes.filter(|bytes| *bytes > 0) {
                facts.push((label, format::size(bytes)));
            }
        }
        let limits = self.sample.snapshot.limits.unwrap_or_default();
        for (label, limit) in [("limit rss", limits.reload_on_rss), ("limit vsz", limits.reload_on_as)] {
            if limit > 0 {
                facts.push((label, format::size(limit)));
            }
        }
        let mut lines = vec![Line::default(), self.heading("memory")];
        lines.extend(self.facts(&facts, width));
        let Some(track) = self.pool.memory(self.place) else { return lines };
        let until = self.sample.at;
        let known = track.points(until);
        let points: Vec<Option<f64>> = known.map(|point| Some(point.rss as f64)).collect();
        if points.len() > 1 {
            // Between the lowest and the highest, so that a slow leak is a slope and not a flat line.
            let shown = points.len().min(usize::from(width.saturating_sub(2)));
            let points = &points[points.len() - shown..];
            let known = || points.iter().flatten().copied();
            let (low, high) = (known().fold(f64::INFINITY, f64::min), known().fold(0.0, f64::max));
            let margin = (high - low).max(low * 0.02) / 8.0;
            let (floor, span) = (low - margin, high - low + 2.0 * margin);
            let raised: Vec<Option<f64>> =
                points.iter().map(|point| point.map(|bytes| (bytes - floor) / span)).collect();
            lines.extend(bars(&raised, rows).into_iter().map(|row| Line::styled(row, self.theme.series(0))));
        }
        if let Some(growth) = track.growth(until) {
            let mut facts = vec![("grows per hour", slope_text(growth.per_hour))];
            if let Some(per_thousand) = growth.per_thousand_requests {
                facts.push(("per 1,000 requests", slope_text(per_thousand)));
            }
            let left = limits.reload_on_rss.saturating_sub(worker.rss) as f64;
            let per_hour = growth.per_hour.value;
            if limits.reload_on_rss > 0 && per_hour > 1024.0 && !growth.per_hour.is_noise() {
                facts.push(("limit in", format::seconds((left / per_hour * 3_600.0) as u64)));
            }
            if let Some(all) = self.pool.growth(until) {
                facts.push(("all workers per hour", slope_text(all)));
            }
            lines.extend(self.facts(&facts, width));
        }
        lines
    }

    fn latency(&self, width: u16) -> Vec<Line<'static>> {
        let percentiles = |p: Percentiles| {
            let [p50, p95, p99, max] = [p.p50, p.p95, p.p99, p.max].map(format::micros);
            self.facts(&[("p50", p50), ("p95", p95), ("p99", p99), ("max", max)], width)
        };
        let mut lines = Vec::new();
        if let Some(window) = self.rates.latency {
            lines.extend([Line::default(), self.heading("latency since the last sample")]);
            lines.extend(percentiles(window));
        }
        let Some(counts) = self.pool.latency_since_start(self.place) else { return lines };
        // The history has no histogram of each worker: what is told of the past is its window.
        let until = if self.past { ", up to the present" } else { "" };
        lines.extend([Line::default(), self.heading(&format!("latency since the server's start{until}"))]);
        lines.extend(counts.percentiles().into_iter().flat_map(percentiles));
        lines.extend(self.histogram(counts, width));
        lines
    }

    /// A bar for each power of two.
    fn histogram(&self, counts: &Counts, width: u16) -> Vec<Line<'static>> {
        let mut rows: Vec<(u32, u64)> = Vec::new();
        for (value, count) in counts.iter() {
            let power = value.max(1).ilog2();
            match rows.last_mut() {
                Some((last, sum)) if *last == power => *sum += count,
                _ => rows.push((power, count)),
            }
        }
        let most = rows.iter().map(|(_, count)| *count).max().unwrap_or(1) as f64;
        let total = counts.total() as f64;
        let room = f64::from(width.saturating_sub(28).min(60));
        let line = |(power, count): (u32, u64)| {
            let length = count as f64 / most * room;
            // Parts of a cell cannot be drawn from the left in every font; the count beside it is exact.
            let bar = if length < 1.0 { "▄".to_owned() } else { "█".repeat(length.round() as usize) };
            let share = format::percent(count as f64 / total);
            Line::from(vec![
                Span::styled(format!("{:>7} ", format::micros(1 << power)), self.theme.dim()),
                Span::styled(bar, self.theme.series(0)),
                Span::raw(format!(" {} ", format::count(count))),
                Span::styled(format!("{share}%"), self.theme.dim()),
            ])
        };
        rows.into_iter().map(line).collect()
    }

    fn ends(&self, width: u16) -> Vec<Line<'static>> {
        let mut lines = Vec::new();
        if let Some(responses) = &self.worker.responses {
            let facts = [
                ("1xx", responses.informational),
                ("2xx", responses.success),
                ("3xx", responses.redirect),
                ("4xx", responses.client_error),
                ("5xx", responses.server_error),
            ];
            lines.extend([Line::default(), self.heading("responses")]);
            lines.extend(self.facts(&facts.map(|(label, count)| (label, count.to_string())), width));
        }
        if let Some(gc) = &self.worker.gc {
            let facts = [
                ("collections", format::count(gc.collections)),
                ("time", format::micros(gc.time)),
                ("longest", format::micros(gc.longest)),
                ("freed", format::count(gc.collected)),
            ];
            lines.extend([Line::default(), self.heading("garbage collections")]);
            lines.extend(self.facts(&facts, width));
        }
        if let Some(recycled) = &self.worker.recycled {
            let facts = [
                ("max requests", recycled.max_requests),
                ("lifetime", recycled.lifetime),
                ("rss", recycled.rss),
                ("as", recycled.address_space),
                ("harakiri", recycled.harakiri),
                ("crash", recycled.crash),
                ("reload", recycled.reload),
                ("idle", recycled.idle),
            ];
            lines.extend([Line::default(), self.heading("recycled by reason")]);
            lines.extend(self.facts(&facts.map(|(label, count)| (label, count.to_string())), width));
        }
        lines
    }

    fn exception(&self, width: u16) -> Vec<Line<'static>> {
        let Some(exception) = &self.worker.last_exception else { return Vec::new() };
        let ago = self.sample.clock.since(exception.when).as_secs();
        let message = format!("{}: {}", format::one_line(&exception.kind), format::one_line(&exception.message));
        let mut lines = vec![
            Line::default(),
            self.heading(&format!("last exception, {} ago", format::seconds(ago))),
            Line::styled(message, self.theme.alarm()),
        ];
        let frames = match exception.traceback.as_slice() {
            [] => std::slice::from_ref(&exception.location),
            frames => frames,
        };
        for (place, frame) in frames.iter().enumerate() {
            let label = if place == 0 { "in" } else { "by" };
            // Of a long path its end tells more than its beginning.
            let frame = format::one_line(frame);
            let end = format::end_of(&frame, usize::from(width.saturating_sub(3)));
            lines.extend(self.facts(&[(label, end.into_owned())], width));
        }
        lines.extend(self.facts(&[("on", format::one_line(&exception.request))], width));
        lines
    }
}
