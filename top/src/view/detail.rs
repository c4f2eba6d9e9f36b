//! One worker, closely: its cores and their requests, its latencies, its memory, how it ended, what it raised.

use jiff::tz::TimeZone;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::spark::sparkline;
use super::theme::Theme;
use crate::format;
use crate::model::{Counts, Pool, Reading, status_of};

/// Widths at which the two halves stand side by side.
const SIDE_BY_SIDE: u16 = 110;

/// Draws the pane for the worker at `place`.
pub(crate) fn draw(
    pool: &Pool,
    reading: &Reading,
    place: usize,
    zone: &TimeZone,
    theme: &Theme,
    area: Rect,
    buf: &mut Buffer,
) {
    let Some(pane) = Pane::of(pool, reading, place, zone, theme) else { return };
    let wide = area.width >= SIDE_BY_SIDE;
    let mut y = area.y;
    for line in pane.title() {
        if y < area.bottom() {
            buf.set_line(area.x, y, &line, area.width);
            y += 1;
        }
    }
    let rest = Rect { y, height: area.bottom() - y, ..area };
    if !wide {
        // One below the other, the most wanted first; on a small screen without the lines of air.
        let mut lines = pane.cores(area.width);
        lines.extend(pane.exception());
        lines.extend(pane.memory(area.width));
        lines.extend(pane.latency(area.width));
        lines.extend(pane.ends());
        if lines.len() > usize::from(rest.height) {
            lines.retain(|line| line.width() > 0);
        }
        stack(&lines, rest, buf);
        return;
    }
    let half = area.width / 2;
    let (left, right) =
        (Rect { width: half, ..rest }, Rect { x: area.x + half + 1, width: area.width - half - 1, ..rest });
    let mut lines = pane.cores(left.width);
    lines.extend(pane.ends());
    lines.extend(pane.exception());
    stack(&lines, left, buf);
    let mut lines = pane.memory(right.width);
    lines.extend(pane.latency(right.width));
    stack(&lines, right, buf);
}

fn stack(lines: &[Line<'_>], area: Rect, buf: &mut Buffer) {
    for (line, y) in lines.iter().zip(area.y..area.bottom()) {
        buf.set_line(area.x, y, line, area.width);
    }
}

struct Pane<'a> {
    pool: &'a Pool,
    reading: &'a Reading,
    place: usize,
    worker: &'a rwsgi_stats::Worker,
    rates: &'a crate::model::Rates,
    zone: &'a TimeZone,
    theme: &'a Theme,
}

impl<'a> Pane<'a> {
    fn of(pool: &'a Pool, reading: &'a Reading, place: usize, zone: &'a TimeZone, theme: &'a Theme) -> Option<Self> {
        let worker = reading.snapshot.workers.get(place)?;
        let rates = reading.workers.get(place)?;
        Some(Self { pool, reading, place, worker, rates, zone, theme })
    }

    fn heading(&self, text: &str) -> Line<'static> {
        Line::styled(text.to_owned(), self.theme.strong())
    }

    /// Pairs of label and value in a line.
    fn facts(&self, facts: &[(&str, String)]) -> Line<'static> {
        let mut spans = Vec::new();
        for (label, value) in facts {
            spans.push(Span::styled(format!("{label} "), self.theme.dim()));
            spans.push(Span::raw(format!("{value}  ")));
        }
        Line::from(spans)
    }

    fn title(&self) -> Vec<Line<'static>> {
        let worker = self.worker;
        let style = self.theme.status(status_of(&worker.status));
        let now = self.reading.taken / 1_000_000;
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
        facts.push(("started", format!("{} times", worker.respawn_count)));
        first.extend(self.facts(&facts).spans);
        let unknown = || "-".to_owned();
        let mut second = vec![
            ("requests", worker.requests.to_string()),
            ("in this life", worker.delta_requests.to_string()),
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
        vec![Line::from(first), self.facts(&second)]
    }

    fn cores(&self, width: u16) -> Vec<Line<'static>> {
        let mut lines = vec![
            Line::default(),
            Line::styled(
                format!("{:<width$}", "CORE     REQ   RPS STATUS    AGE REQUEST", width = usize::from(width)),
                self.theme.title(),
            ),
        ];
        for (index, core) in self.worker.cores.iter().enumerate() {
            let rps = self.rates.cores.get(index).map_or_else(|| "-".to_owned(), |rate| format::rate(*rate));
            let busy = core.in_request != 0;
            let status = if busy { "busy" } else { "idle" };
            let request = &core.req_info;
            let age = request.elapsed.filter(|_| busy).map_or_else(|| "-".to_owned(), format::micros);
            let mut text = format!("{:>4} {:>7} {rps:>5} {status:<6} {age:>6} ", core.id, format::count(core.requests));
            if busy {
                let part = |part: &Option<String>| part.as_deref().map(format::one_line).unwrap_or_default();
                text += &format!("{} {}  {}", part(&request.method), part(&request.uri), part(&request.remote_addr));
            }
            lines.push(Line::styled(text, self.theme.status(status_of(status))));
        }
        lines
    }

    fn memory(&self, width: u16) -> Vec<Line<'static>> {
        let worker = self.worker;
        let mut facts = vec![("rss", format::size(worker.rss)), ("vsz", format::size(worker.vsz))];
        for (label, bytes) in [("pss", worker.pss), ("uss", worker.uss), ("peak", worker.rss_peak)] {
            if let Some(bytes) = bytes {
                facts.push((label, format::size(bytes)));
            }
        }
        let limits = self.reading.snapshot.limits.unwrap_or_default();
        for (label, limit) in [("limit rss", limits.reload_on_rss), ("limit vsz", limits.reload_on_as)] {
            if limit > 0 {
                facts.push((label, format::size(limit)));
            }
        }
        let mut lines = vec![Line::default(), self.heading("memory"), self.facts(&facts)];
        let Some(track) = self.pool.memory(self.place) else { return lines };
        let points: Vec<Option<f64>> = track.points().map(|point| Some(point.rss as f64)).collect();
        if points.len() > 1 {
            // From the lowest, so that a slow leak is a slope and not a flat line.
            let lowest = points.iter().flatten().copied().fold(f64::INFINITY, f64::min) * 0.98;
            let shown = points.len().min(usize::from(width.saturating_sub(2)));
            let raised: Vec<Option<f64>> =
                points[points.len() - shown..].iter().map(|point| point.map(|bytes| bytes - lowest)).collect();
            lines.push(Line::styled(sparkline(&raised), self.theme.series(0)));
        }
        if let Some(growth) = track.growth() {
            let signed = |bytes: f64| {
                let sign = if bytes < 0.0 { "-" } else { "+" };
                format!("{sign}{}", format::size(bytes.abs() as u64))
            };
            let mut facts = vec![("grows per hour", signed(growth.per_hour))];
            if let Some(per_thousand) = growth.per_thousand_requests {
                facts.push(("per 1,000 requests", signed(per_thousand)));
            }
            let left = limits.reload_on_rss.saturating_sub(worker.rss) as f64;
            if limits.reload_on_rss > 0 && growth.per_hour > 1024.0 {
                facts.push(("limit in", format::seconds((left / growth.per_hour * 3_600.0) as u64)));
            }
            lines.push(self.facts(&facts));
        }
        lines
    }

    fn latency(&self, width: u16) -> Vec<Line<'static>> {
        let Some(counts) = self.pool.latency_since_start(self.place) else { return Vec::new() };
        let mut lines = vec![Line::default(), self.heading("latency since the start")];
        if let Some(p) = counts.percentiles() {
            let [p50, p95, p99, max] = [p.p50, p.p95, p.p99, p.max].map(format::micros);
            lines.push(self.facts(&[("p50", p50), ("p95", p95), ("p99", p99), ("max", max)]));
        }
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

    fn ends(&self) -> Vec<Line<'static>> {
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
            lines.push(self.facts(&facts.map(|(label, count)| (label, count.to_string()))));
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
            lines.push(self.facts(&facts.map(|(label, count)| (label, count.to_string()))));
        }
        lines
    }

    fn exception(&self) -> Vec<Line<'static>> {
        let Some(exception) = &self.worker.last_exception else { return Vec::new() };
        let ago = self.reading.taken.saturating_sub(exception.when) / 1_000_000;
        let message = format!("{}: {}", format::one_line(&exception.kind), format::one_line(&exception.message));
        vec![
            Line::default(),
            self.heading(&format!("last exception, {} ago", format::seconds(ago))),
            Line::styled(message, self.theme.alarm()),
            self.facts(&[("in", format::one_line(&exception.location))]),
            self.facts(&[("on", format::one_line(&exception.request))]),
        ]
    }
}
