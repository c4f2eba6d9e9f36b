//! Where everything of a fleet's screen stands.

use std::sync::Arc;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

use super::act::FLEET_KEYS;
use super::heat::{Scale, show};
use super::{FleetScreen, Over, ids};
use crate::format;
use crate::model::{SERVER_FIELDS, ServerRow};
use crate::source::fleet::Figure;
use crate::view::overlay::{boxed, shown};
use crate::view::panes::sheet::Sheet;
use crate::view::table::{print_line, put};
use crate::view::targets::Targets;
use crate::view::theme::Theme;

/// Fields that stand beside the heat map: the name and the state.
const BESIDE_HEAT: usize = 2;
/// Widest that a box is.
const WIDEST: u16 = 100;

impl FleetScreen {
    /// Draws everything.
    pub(crate) fn draw(&mut self, buf: &mut Buffer) {
        if let Some(drilled) = &mut self.drilled {
            drilled.screen.draw(buf);
            return;
        }
        let area = buf.area;
        let mut targets = std::mem::take(&mut self.targets);
        targets.clear();
        if area.width > 0 && area.height > 0 {
            self.draw_into(area, buf, &mut targets);
        }
        self.targets = targets;
        self.setup.theme.finish(buf);
    }

    fn draw_into(&mut self, area: Rect, buf: &mut Buffer, targets: &mut Targets) {
        let line = |y| Rect { y, height: 1, ..area };
        let foot = area.bottom() - 1;
        self.identity(line(area.y), buf);
        let mut top = area.y + 1;
        if top < foot {
            self.totals(line(top), buf);
            top += 1;
        }
        if top + 2 < foot {
            // On a small screen the servers need the room.
            let most = if area.height >= 20 { 4 } else { 1 };
            top += self.news(Rect { y: top, height: most.min(foot - top - 2), ..area }, buf);
        }
        let body = Rect { y: top, height: foot.saturating_sub(top), ..area };
        if body.height > 0 {
            self.body(body, buf, targets);
        }
        if foot > area.y {
            self.foot(line(foot), buf);
        }
        let over = Rect { y: area.y + 1, height: area.height.saturating_sub(2), ..area };
        if self.over.is_some() {
            targets.clear();
        }
        self.over = self.over.map(|open| match open {
            Over::Help(first) => Over::Help(self.help(first, over, buf)),
            Over::Outliers(first) => Over::Outliers(self.why(first, over, buf)),
        });
    }

    fn body(&mut self, area: Rect, buf: &mut Buffer, targets: &mut Targets) {
        let rows = self.ordered();
        let ids = ids(&rows);
        let clock = self.clock();
        let theme = self.setup.theme;
        let mut sheet = std::mem::replace(&mut self.sheet, Sheet::sorted_by(""));
        if let Some(figure) = self.heat.filter(|_| area.height > 2 && area.width >= 40) {
            let table = Rect { height: area.height - 1, ..area };
            let left = Rect { width: (area.width / 3).clamp(24, 40), ..table };
            let right = Rect { x: left.right(), width: area.width - left.width, ..table };
            sheet.draw(&SERVER_FIELDS[..BESIDE_HEAT], &rows, &ids, &clock, look, &theme, left, buf, targets);
            let in_sight = rows.iter().skip(sheet.offset()).take(usize::from(table.height - 1));
            let in_sight: Vec<&Arc<ServerRow>> = in_sight.collect();
            self.heat_map(figure, &in_sight, right, Rect { y: area.bottom() - 1, height: 1, ..area }, buf);
        } else {
            sheet.draw(SERVER_FIELDS, &rows, &ids, &clock, look, &theme, area, buf, targets);
        }
        self.sheet = sheet;
    }

    /// The lines of the servers that are in sight, each after its present value.
    fn heat_map(&self, figure: Figure, rows: &[&Arc<ServerRow>], area: Rect, legend: Rect, buf: &mut Buffer) {
        const VALUE: u16 = 8;
        let theme = &self.setup.theme;
        let cells = Rect { x: area.x + VALUE, width: area.width.saturating_sub(VALUE), ..area };
        let points = rows.iter().filter_map(|row| self.fleet.get(row.id)).map(|server| &server.history);
        let scale = Scale::of(figure, self.at, &points.collect::<Vec<_>>(), cells.width);
        buf.set_style(Rect { height: 1, ..area }, theme.title());
        put(buf, area.x, area.y, "NOW", VALUE - 1, true);
        for (y, row) in (area.y + 1..area.bottom()).zip(rows) {
            let now = row.get(figure).map_or_else(|| "-".to_owned(), |value| show(figure, value));
            put(buf, area.x, y, &now, VALUE - 1, true);
            if let Some(server) = self.fleet.get(row.id) {
                scale.line(&server.history, theme, Rect { y, height: 1, ..cells }, buf);
            }
        }
        scale.legend(theme, legend, buf);
    }

    /// The last line: what is being typed, what was said, or else what the keys do.
    fn foot(&self, area: Rect, buf: &mut Buffer) {
        let theme = &self.setup.theme;
        let filter = &self.sheet.filter;
        let line = if filter.editing {
            Line::from(vec![
                Span::styled("filter: ", theme.strong()),
                Span::raw(filter.text().to_owned()),
                Span::styled("█", theme.dim()),
                Span::styled("  enter keeps it, esc drops it", theme.dim()),
            ])
        } else if let Some(said) = &self.said {
            Line::styled(said.clone(), theme.alarm())
        } else if self.rows.is_empty() {
            Line::styled("waiting for the servers", theme.dim())
        } else {
            let mut spans = Vec::new();
            if !filter.is_empty() {
                spans.push(Span::styled(format!("filter: {}  ", filter.text()), theme.warning()));
            }
            for (action, hint, _) in FLEET_KEYS.iter().filter(|(_, hint, _)| !hint.is_empty()) {
                let Some(key) = self.key_of(*action) else { continue };
                spans.push(Span::styled(key, theme.strong()));
                spans.push(Span::styled(format!(" {hint}  "), theme.dim()));
            }
            Line::from(spans)
        };
        print_line(buf, area.x, area.y, &line, area.width);
    }

    /// The keys that mean something here, and the columns.
    fn help(&self, first: usize, area: Rect, buf: &mut Buffer) -> usize {
        let theme = &self.setup.theme;
        let entry = |left: &str, right: &'static str| {
            Line::from(vec![Span::styled(format!(" {left:<17} "), theme.strong()), Span::raw(right)])
        };
        let mut lines = Vec::new();
        for (action, _, help) in FLEET_KEYS {
            let bound = self.setup.keys.iter().find(|(binding, _)| binding.action == action);
            let names: Vec<String> = bound.into_iter().flat_map(|(_, keys)| keys).copied().map(shown).collect();
            if !names.is_empty() {
                lines.push(entry(&names.join(" "), help));
            }
        }
        lines.push(Line::default());
        lines.extend(SERVER_FIELDS.iter().map(|field| entry(field.title, field.help)));
        boxed("keys and columns of a fleet", &lines, first, WIDEST, theme, area, buf)
    }

    /// What stands out, with its rules and numbers.
    fn why(&self, first: usize, area: Rect, buf: &mut Buffer) -> usize {
        let theme = &self.setup.theme;
        let width = usize::from(area.width.min(WIDEST).saturating_sub(2));
        let mut lines = Vec::new();
        let mut add = |text: &str, indent: &str, style: Style| {
            let wrapped = format::wrapped(text, width.saturating_sub(indent.len() + 1).max(10));
            lines.extend(wrapped.into_iter().map(|line| Line::styled(format!("{indent}{line}"), style)));
        };
        for (source, why) in self.fleet.troubles() {
            add(&format!("{source}: {why}"), " ", theme.alarm());
        }
        for outlier in self.outliers.found() {
            add(&outlier.sentence, " ", theme.alarm());
            add(&format!("→ {}", outlier.advice), " ", theme.strong());
            for fact in &outlier.evidence {
                add(fact, "   ", Style::new());
            }
            add(&format!("rule {}: {}", outlier.rule().name, outlier.rule().when), "   ", theme.dim());
        }
        if lines.is_empty() {
            lines.push(Line::raw(" no server stands out, by the rules that there are "));
        }
        boxed("what stands out, and how it is known", &lines, first, WIDEST, theme, area, buf)
    }
}

/// How a row looks.
fn look(row: &Arc<ServerRow>, theme: &Theme) -> Style {
    match row.state {
        "dead" => theme.alarm(),
        "slow" | "draining" => theme.warning(),
        "new" => theme.dim(),
        _ if row.stands_out => theme.warning(),
        _ => Style::new(),
    }
}
