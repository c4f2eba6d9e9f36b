//! Where everything stands on the screen, by its size.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::charts::{self, Charts, Material};
use super::keys::Action;
use super::overlay::{self, Overlay};
use super::screen::Screen;
use super::table::{Content, print_line, width_of};
use super::targets::{Target, Targets};
use super::theme::PALETTES;
use super::{detail, findings, generations, header, lists};
use crate::format;
use crate::model::{Sample, beside, servers, spoolers, vassals};
use crate::source::Monotonic;

impl Screen {
    /// Draws everything.
    pub(crate) fn draw(&mut self, buf: &mut Buffer) {
        let area = buf.area;
        let mut targets = std::mem::take(&mut self.targets);
        targets.clear();
        if area.width > 0 && area.height > 0 {
            self.draw_into(area, buf, &mut targets);
        }
        self.targets = targets;
        self.theme.finish(buf);
    }

    fn draw_into(&mut self, area: Rect, buf: &mut Buffer, targets: &mut Targets) {
        let line = |y| Rect { y, height: 1, ..area };
        let foot = area.bottom() - 1;
        let alerts = self.alerts();
        self.identity(alerts.len(), line(area.y), buf);
        let mut top = area.y + 1;
        if self.pools.len() > 1 && top < foot {
            self.tabs(line(top), buf, targets);
            top += 1;
        }
        let found = self.findings();
        if !found.is_empty() && top + 2 < foot {
            // A screen that is not small has room for all of a long sentence.
            let height = if area.height >= 20 { 2 } else { 1 };
            top += findings::line(&found, &self.keys, &self.theme, Rect { y: top, height, ..area }, buf);
        }
        let room = Rect { y: top, height: header::lines_for(area.height).min(foot.saturating_sub(top + 1)), ..area };
        top += self.header(room, buf);
        let key =
            self.keys.iter().find(|(binding, _)| binding.action == Action::Profile).and_then(|(_, keys)| keys.first());
        let told = self.inside.line(self.server_shown(), self.merged.now, &self.theme, key.copied());
        if let Some(told) = told.filter(|_| top + 1 < foot) {
            print_line(buf, area.x, top, &told, area.width);
            top += 1;
        }
        let body = Rect { y: top, height: foot.saturating_sub(top), ..area };
        let marked: Vec<usize> = alerts.iter().filter_map(|alert| alert.worker).collect();
        self.body(&marked, body, buf, targets);
        if foot > area.y {
            self.foot(line(foot), buf);
            self.acting.draw_long(&self.theme, area, buf);
        }
        let over = Rect { y: area.y + 1, height: area.height.saturating_sub(2), ..area };
        if self.selection.overlay.is_some() {
            targets.clear();
        }
        // It scrolls no further than to its last line: a step back is seen at once.
        let theme = &self.theme;
        self.selection.overlay = self.selection.overlay.map(|overlay| match overlay {
            Overlay::Help(first) => Overlay::Help(overlay::help(&self.keys, first, theme, over, buf)),
            Overlay::Columns(cursor) => {
                overlay::columns(&self.table, cursor, theme, over, buf);
                overlay
            }
            Overlay::Alerts(first) => Overlay::Alerts(overlay::alerts(&alerts, first, theme, over, buf)),
            Overlay::Findings(first) => {
                Overlay::Findings(findings::overlay(&self.findings(), self.silent_rules(), first, theme, over, buf))
            }
            Overlay::Generations(first) => {
                let current = self.pool().and_then(|pool| pool.current.as_ref()).map(|sample| &sample.snapshot);
                Overlay::Generations(generations::draw(current, first, theme, &self.zone, over, buf))
            }
        });
        if self.acting.is_open() {
            targets.clear();
            let server = self.server_shown().unwrap_or(self.selection.server);
            let label = self.pools.get(server).map_or("", |pool| pool.label.as_str());
            self.acting.draw(label, &self.theme, over, buf);
        }
        if self.inside.is_open() {
            targets.clear();
            self.draw_inside(Rect { y: area.y + 1, height: area.height - 1, ..area }, buf);
        }
    }

    /// The first line, with the time that is shown at its end.
    fn identity(&self, alerts: usize, area: Rect, buf: &mut Buffer) {
        let sample = self.sample();
        let mut right = Vec::new();
        if alerts > 0 {
            right.push(Span::styled(format!("! {alerts} "), self.theme.alarm()));
        }
        if let Some(speed) = self.playback.speed {
            right.push(Span::styled(format!("recording {speed}x "), self.theme.warning()));
        }
        if let Some(past) = self.playback.past() {
            let back = self.history().latest().map_or(0, |latest| latest.since(past).as_secs());
            let mut text =
                if back == 0 { "paused ".to_owned() } else { format!("paused, {} ago ", format::seconds(back)) };
            // Of what is long ago not every sample is there.
            let step = self.history().spacing(past);
            if sample.is_some_and(|sample| step as f64 >= 2.0 * sample.window.unwrap_or(1.0).max(0.9)) {
                text += &format!("samples {} apart ", format::seconds(step));
            }
            right.push(Span::styled(text, self.theme.warning()));
        }
        if let Some(clock) = self.clock_shown() {
            let clock = format::local(clock.seconds(), "%a %d %b %H:%M:%S", &self.zone);
            right.push(Span::styled(clock, self.theme.dim()));
        }
        let label = self.pool().map_or_else(|| format!("{} servers", self.pools.len()), |pool| pool.label.clone());
        header::identity(sample, &label, Line::from(right), &self.theme, area, buf);
    }

    fn tabs(&self, area: Rect, buf: &mut Buffer, targets: &mut Targets) {
        let labels = std::iter::once("all").chain(self.pools.iter().map(|pool| pool.label.as_str()));
        let (mut spans, mut x) = (Vec::new(), area.x);
        for (index, label) in labels.enumerate() {
            let silent = index.checked_sub(1).is_some_and(|server| self.pools[server].trouble.is_some());
            let style = match (index == self.selection.tab, silent) {
                (true, _) => self.theme.selected(),
                (false, true) => self.theme.alarm(),
                (false, false) => self.theme.dim(),
            };
            let text = format!(" {label} ");
            let width = width_of(&text);
            targets.add(Rect { x, width, ..area }, Target::Tab(index));
            x = x.saturating_add(width);
            spans.push(Span::styled(text, style));
        }
        print_line(buf, area.x, area.y, &Line::from(spans), area.width);
    }

    /// The flowing items; returns how many lines they took.
    fn header(&self, area: Rect, buf: &mut Buffer) -> u16 {
        let until = self.playback.past().unwrap_or(Monotonic::MAX);
        let view = header::View { history: self.history(), until, theme: &self.theme };
        if self.all() {
            let totals = self.together().unwrap_or_default();
            return header::totals(&totals, None, &view, area, buf);
        }
        let Some(sample) = self.sample() else { return 0 };
        let node = self.pool().and_then(|pool| pool.node.as_deref());
        header::totals(&sample.totals, Some((&sample.snapshot, node)), &view, area, buf)
    }

    fn body(&mut self, marked: &[usize], area: Rect, buf: &mut Buffer, targets: &mut Targets) {
        if area.height == 0 || self.draw_pane(area, buf, targets) {
            return;
        }
        if self.all() {
            let shown: Vec<Option<&Sample>> = (0..self.pools.len()).map(|server| self.sample_of(server)).collect();
            let list = servers(&self.pools, &shown);
            let (upper, lower) = self.split(lists::height(&list), area);
            let rows = lists::draw(&list, Some(self.selection.server), &self.theme, upper, buf);
            for (y, server) in (upper.y + 1..).zip(rows) {
                targets.add(Rect { y, height: 1, ..upper }, Target::Server(server));
            }
            self.draw_charts(lower, buf);
            return;
        }
        let Some(sample) = self.sample() else { return };
        if let Some(list) = vassals(&sample.snapshot, sample.clock.seconds()) {
            lists::draw(&list, None, &self.theme, area, buf);
            return;
        }
        if let (true, Some((place, _)), Some(pool)) = (self.selection.detail, self.table.selected, self.pool()) {
            let subject = detail::Subject { pool, sample, place, past: self.playback.paused.is_some() };
            self.selection.scroll = detail::draw(&subject, self.selection.scroll, &self.zone, &self.theme, area, buf);
            return;
        }
        let mut area = area;
        let others = beside(&sample.snapshot, sample.clock.seconds());
        for list in spoolers(&sample.snapshot).into_iter().chain(others) {
            // They come after the workers, but a few of them are always in sight.
            let height = lists::height(&list).min(area.height * 2 / 5).min(8);
            if height > 1 {
                area.height -= height;
                lists::draw(&list, None, &self.theme, Rect { y: area.bottom(), height, ..area }, buf);
            }
        }
        let context = self.context(sample);
        // Taken out for as long as it is drawn, because the sample is borrowed from beside it.
        let mut table = std::mem::take(&mut self.table);
        if let Some(sample) = self.sample() {
            let rows = table.rows(sample, &context);
            let (upper, lower) = self.split(u16::try_from(rows.len() + 1).unwrap_or(u16::MAX), area);
            let of = (self.selection.tab, sample.snapshot.pid);
            let content = Content { of, rows: &rows, marked, context: &context };
            table.draw(&content, &self.theme, upper, buf, targets);
            self.draw_charts(lower, buf);
        }
        self.table = table;
    }

    /// Room for a table of so many lines, and for the charts below it.
    fn split(&self, wanted: u16, area: Rect) -> (Rect, Rect) {
        let least = charts::LEAST.1 + 2;
        let spare = area.height.saturating_sub(wanted.saturating_add(1));
        let for_charts = match self.charts {
            Charts::Never => 0,
            Charts::One(_) => spare.max(area.height / 2).max(least.min(area.height)),
            Charts::WhereRoom if spare >= least => spare,
            // So many workers that nothing is to spare, on a screen that has enough for both.
            Charts::WhereRoom if area.height >= 36 => area.height / 3,
            Charts::WhereRoom => 0,
        };
        let upper = Rect { height: area.height - for_charts, ..area };
        (upper, Rect { y: upper.bottom(), height: for_charts, ..area })
    }

    fn draw_charts(&self, area: Rect, buf: &mut Buffer) {
        let history = self.history();
        let until = self.playback.past().or(history.latest());
        let Some(until) = until.filter(|_| area.height > 1 && area.width > 1) else { return };
        let material = Material { history, pool: self.pool(), until };
        // A line of air between the table and the charts.
        let area = Rect { y: area.y + 1, height: area.height - 1, ..area };
        match self.charts {
            Charts::One(number) => charts::one(number, &material, &self.theme, area, buf),
            _ => charts::all(&material, &self.theme, area, buf),
        }
    }

    /// The last line: what is being typed, what is wrong, or else what the keys do.
    fn foot(&self, area: Rect, buf: &mut Buffer) {
        let filter = self.filter();
        let trouble = match self.pool() {
            Some(pool) => pool.trouble.as_ref().map(|trouble| (pool, trouble)),
            None => self.pools.iter().find_map(|pool| Some((pool, pool.trouble.as_ref()?))),
        };
        let line = if filter.editing {
            Line::from(vec![
                Span::styled("filter: ", self.theme.strong()),
                Span::raw(filter.text().to_owned()),
                Span::styled("█", self.theme.dim()),
                Span::styled("  enter keeps it, esc drops it", self.theme.dim()),
            ])
        } else if let Some((pool, trouble)) = trouble {
            let since = pool.current.as_ref().map_or(trouble.since, |sample| sample.at);
            let age = format::seconds(self.merged.now.since(since).as_secs());
            let shown = if pool.current.is_some() { format!("; the numbers are {age} old") } else { String::new() };
            let retries = self
                .playback
                .interval()
                .map_or_else(String::new, |interval| format!("; retries every {} s", interval.as_secs_f64()));
            let text = format!("{}: {}{shown}{retries}", pool.label, format::one_line(&trouble.message));
            Line::styled(text, self.theme.alarm())
        } else if !self.all() && self.pool().is_some_and(|pool| pool.current.is_none()) {
            Line::styled("waiting for the first response", self.theme.dim())
        } else {
            self.hints()
        };
        print_line(buf, area.x, area.y, &line, area.width);
    }

    fn hints(&self) -> Line<'static> {
        let mut spans = Vec::new();
        let filter = self.filter();
        if !filter.is_empty() {
            spans.push(Span::styled(format!("filter: {}  ", filter.text()), self.theme.warning()));
        }
        spans.extend(self.acting.line(&self.theme));
        if let Some(notice) = &self.notice {
            spans.push(Span::styled(format!("{}  ", format::one_line(notice)), self.theme.alarm()));
        }
        if self.theme_told {
            let name = PALETTES.get(self.theme.palette).map_or("", |palette| palette.name);
            spans.push(Span::styled(format!("theme: {name}  "), self.theme.warning()));
        }
        if self.playback.fast {
            spans.push(Span::styled("fast  ", self.theme.warning()));
        }
        if self.playback.ended {
            spans.push(Span::styled("end of the recording  ", self.theme.warning()));
        }
        if let Some((pool, restarted)) = self.pool().and_then(|pool| Some((pool, pool.restarted?))) {
            let now = pool.current.as_ref().map_or(restarted, |sample| sample.at);
            let ago = now.since(restarted).as_secs();
            if ago < 600 {
                let text = format!("server restarted {} ago  ", format::seconds(ago));
                spans.push(Span::styled(text, self.theme.warning()));
            }
        }
        for (binding, keys) in self.keys.iter().filter(|(binding, _)| !binding.hint.is_empty()) {
            let Some(key) = keys.first() else { continue };
            spans.push(Span::styled(overlay::shown(*key), self.theme.strong()));
            spans.push(Span::styled(format!(" {}  ", binding.hint), self.theme.dim()));
        }
        Line::from(spans)
    }
}
