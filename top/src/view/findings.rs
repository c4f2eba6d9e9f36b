//! What is wrong, in plain words: one line below the first, and its numbers over the table.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

use super::keys::{Action, Keys};
use super::overlay::{boxed, shown};
use super::screen::Screen;
use super::table::print_line;
use super::theme::Theme;
use crate::format;
use crate::model::Finding;
use crate::source::Monotonic;

/// Widest that the box is.
const WIDEST: u16 = 94;

/// A finding and its server, of several.
pub(super) struct Told<'a> {
    pub(super) server: Option<&'a str>,
    pub(super) finding: &'a Finding,
    /// The moment that is shown.
    pub(super) at: Monotonic,
}

impl Screen {
    /// What is wrong with the servers that are shown, the most important first.
    pub(super) fn findings(&self) -> Vec<Told<'_>> {
        let of = |server: usize| {
            let label = self.all().then(|| self.pools[server].label.as_str());
            let sample = self.sample_of(server);
            let told =
                move |finding| Told { server: label, finding, at: sample.map_or(Monotonic::default(), |s| s.at) };
            sample.into_iter().flat_map(|sample| &sample.findings).map(told)
        };
        let mut all: Vec<Told<'_>> = self.servers_shown().flat_map(of).collect();
        all.sort_by_key(|told| told.finding.rule);
        all
    }
}

/// The line: the first finding, and how many more there are.
pub(super) fn line(found: &[Told<'_>], keys: &Keys, theme: &Theme, area: Rect, buf: &mut Buffer) {
    let Some(Told { server, finding, .. }) = found.first() else { return };
    let server = server.map_or_else(String::new, |server| format!("{server}: "));
    let key = keys.iter().find(|(binding, _)| binding.action == Action::Why).and_then(|(_, keys)| keys.first());
    let key = key.map_or_else(String::new, |key| format!(" {} why", shown(*key)));
    let more = if found.len() > 1 { format!(" +{}", found.len() - 1) } else { String::new() };
    let right = Line::from(vec![Span::styled(more, theme.alarm()), Span::styled(key, theme.dim())]);
    let width = right.width() as u16;
    let room = if area.width > width + 30 { area.width - width } else { area.width };
    let text = format!("{server}{}", finding.line());
    let text = format::start_of(&text, usize::from(room));
    print_line(buf, area.x, area.y, &Line::styled(text.into_owned(), theme.alarm()), room);
    if room < area.width {
        print_line(buf, area.right() - width, area.y, &right, width);
    }
}

/// All findings with their rules and numbers.
pub(super) fn overlay(found: &[Told<'_>], first: usize, theme: &Theme, area: Rect, buf: &mut Buffer) {
    let width = area.width.min(WIDEST).saturating_sub(2);
    let mut lines = Vec::new();
    for Told { server, finding, at } in found {
        if !lines.is_empty() {
            lines.push(Line::default());
        }
        let rule = finding.rule();
        let server = server.map_or_else(String::new, |server| format!("{server}: "));
        let mut add = |text: &str, indent: &str, style| {
            let wrapped = format::wrapped(text, usize::from(width).saturating_sub(indent.len() + 1).max(10));
            lines.extend(wrapped.into_iter().map(|line| Line::styled(format!("{indent}{line}"), style)));
        };
        add(&format!("{server}{}", finding.sentence), " ", theme.alarm());
        add(&format!("→ {}", finding.advice), " ", theme.strong());
        for fact in &finding.evidence {
            add(fact, "   ", ratatui::style::Style::new());
        }
        let since = format::seconds(at.since(finding.since).as_secs());
        add(&format!("rule {}, for {since}: {}", rule.name, rule.when), "   ", theme.dim());
    }
    if lines.is_empty() {
        lines.push(Line::raw(" nothing is wrong that the rules know of "));
    }
    boxed("what is wrong, and how it is known", &lines, first, WIDEST, theme, area, buf);
}
