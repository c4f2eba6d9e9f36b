//! The lines above the table: how many servers there are, how the fleet is doing, and what stands out.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::FleetScreen;
use crate::format;
use crate::view::keys::Action;
use crate::view::overlay::shown;
use crate::view::table::print_line;

impl FleetScreen {
    /// The first line: how many servers are in which state, and the time.
    pub(super) fn identity(&self, area: Rect, buf: &mut Buffer) {
        let theme = &self.setup.theme;
        let tally = self.totals.tally;
        let all = self.rows.len();
        let mut spans = vec![
            Span::styled("rtop", theme.strong()),
            Span::raw(format!("  {all} {}  ", if all == 1 { "server" } else { "servers" })),
        ];
        let states = [
            (tally.up, "up", Style::new()),
            (self.totals.draining, "draining", theme.warning()),
            (tally.slow, "slow", theme.warning()),
            (tally.dead, "dead", theme.alarm()),
            (tally.new, "new", theme.dim()),
        ];
        for (count, word, style) in states.into_iter().filter(|(count, ..)| *count > 0) {
            spans.push(Span::styled(format!("{count} {word}  "), style));
        }
        if self.playback.fast {
            spans.push(Span::styled("fast  ", theme.warning()));
        }
        print_line(buf, area.x, area.y, &Line::from(spans), area.width);
        if self.local.0 > 0 && area.width >= 60 {
            let clock = format::local(self.local.0 / 1_000_000, "%a %d %b %H:%M:%S", &self.setup.zone);
            let width = clock.len() as u16;
            print_line(buf, area.right() - width, area.y, &Line::styled(clock, theme.dim()), width);
        }
    }

    /// The fleet's numbers, in one line.
    pub(super) fn totals(&self, area: Rect, buf: &mut Buffer) {
        let theme = &self.setup.theme;
        let totals = &self.totals;
        let percent = |share: f64| format!("{}%", format::percent(share));
        let mut items = vec![("RPS", format::rate(totals.rps), theme.strong())];
        if let Some(errors) = totals.errors {
            items.push(("5xx", percent(errors), if errors > 0.01 { theme.warning() } else { Style::new() }));
        }
        if let Some(all) = totals.percentiles {
            for (label, micros) in [("p50", all.p50), ("p95", all.p95), ("p99", all.p99)] {
                items.push((label, format::micros(micros), theme.strong()));
            }
        }
        if let Some(saturation) = totals.saturation {
            items.push(("sat", percent(saturation), Style::new()));
        }
        if let Some((name, micros)) = &totals.worst {
            items.push(("worst", format!("{name} {}", format::micros(*micros as u64)), Style::new()));
        }
        let waits = if totals.waiting > 0 { theme.warning() } else { Style::new() };
        items.push(("waiting", format::count(totals.waiting), waits));
        items.push(("mem", format::size(totals.rss), Style::new()));
        let spans = items.into_iter().flat_map(|(label, value, style)| {
            [Span::styled(format!("{label} "), theme.dim()), Span::styled(value, style), Span::raw("  ")]
        });
        print_line(buf, area.x, area.y, &Line::from(spans.collect::<Vec<_>>()), area.width);
    }

    /// What is wrong with the sources, and what stands out, the most severe first; returns how many lines that took.
    pub(super) fn news(&self, area: Rect, buf: &mut Buffer) -> u16 {
        let theme = &self.setup.theme;
        let troubles: Vec<String> = self.fleet.troubles().map(|(source, why)| format!("{source}: {why}")).collect();
        let found = self.outliers.found();
        let texts = troubles.iter().map(String::as_str).chain(found.iter().map(|outlier| outlier.sentence.as_str()));
        let all = troubles.len() + found.len();
        let lines = all.min(usize::from(area.height));
        for (place, text) in texts.take(lines).enumerate() {
            let y = area.y + place as u16;
            let mut width = area.width;
            if place + 1 == lines {
                let more = if all > lines { format!(" +{}", all - lines) } else { String::new() };
                let key = self.key_of(Action::Why).map_or_else(String::new, |key| format!(" {key} why"));
                let right = Line::from(vec![Span::styled(more, theme.alarm()), Span::styled(key, theme.dim())]);
                let taken = right.width() as u16;
                if width > taken + 30 {
                    width -= taken;
                    print_line(buf, area.right() - taken, y, &right, taken);
                }
            }
            let text = format::start_of(text, usize::from(width)).into_owned();
            print_line(buf, area.x, y, &Line::styled(text, theme.alarm()), width);
        }
        lines as u16
    }

    /// The first key of an action, as it is shown.
    pub(super) fn key_of(&self, action: Action) -> Option<String> {
        let (_, keys) = self.setup.keys.iter().find(|(binding, _)| binding.action == action)?;
        keys.first().map(|key| shown(*key))
    }
}
