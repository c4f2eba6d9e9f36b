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
use crate::model::{Finding, RULES};
use crate::source::Monotonic;
use rwsgi_assertions::Teller;

/// Widest that the box is.
const WIDEST: u16 = 94;

/// A finding and its server, of several.
pub(super) struct ServerFinding<'a> {
    pub(super) server: Option<&'a str>,
    pub(super) finding: &'a Finding,
    /// The moment that is shown.
    pub(super) at: Monotonic,
}

impl Screen {
    /// What is wrong with the servers that are shown, the most important first.
    pub(super) fn findings(&self) -> Vec<ServerFinding<'_>> {
        let of = |server: usize| {
            let label = self.all().then(|| self.pools[server].label.as_str());
            let sample = self.sample_of(server);
            let told = move |finding| ServerFinding {
                server: label,
                finding,
                at: sample.map_or(Monotonic::default(), |s| s.at),
            };
            sample.into_iter().flat_map(|sample| &sample.findings).map(told)
        };
        let mut all: Vec<ServerFinding<'_>> = self.servers_shown().flat_map(of).collect();
        all.sort_by_key(|told| told.finding.rule);
        all
    }

    /// How many rules need what one of the servers that are shown does not tell.
    pub(super) fn silent_rules(&self) -> usize {
        let uwsgi = self.samples_shown().iter().any(|sample| sample.snapshot.server.is_none());
        RULES.iter().filter(|rule| uwsgi && rule.teller == Teller::Rwsgi).count()
    }
}

/// The first finding, in as many of the area's lines as it needs, and how many more there are. Returns how many those are.
pub(super) fn line(found: &[ServerFinding<'_>], keys: &Keys, theme: &Theme, area: Rect, buf: &mut Buffer) -> u16 {
    let Some(ServerFinding { server, finding, .. }) = found.first().filter(|_| area.height > 0) else { return 0 };
    let server = server.map_or_else(String::new, |server| format!("{server}: "));
    let key = keys.iter().find(|(binding, _)| binding.action == Action::Why).and_then(|(_, keys)| keys.first());
    let key = key.map_or_else(String::new, |key| format!(" {} why", shown(*key)));
    let more = if found.len() > 1 { format!(" +{}", found.len() - 1) } else { String::new() };
    let right = Line::from(vec![Span::styled(more, theme.alarm()), Span::styled(key, theme.dim())]);
    let width = right.width() as u16;
    let room = if area.width > width + 30 { area.width - width } else { area.width };
    let text = format!("{server}{}", finding.line());
    let lines = format::wrapped(&text, usize::from(room));
    let last = lines.len().min(usize::from(area.height)) - 1;
    for (place, y) in (0..=last).zip(area.y..) {
        // What has no line of its own is on the last, as far as it fits.
        let text = if place == last { lines[place..].join(" ") } else { lines[place].clone() };
        let text = format::start_of(&text, usize::from(room)).into_owned();
        print_line(buf, area.x, y, &Line::styled(text, theme.alarm()), room);
    }
    if room < area.width {
        print_line(buf, area.right() - width, area.y, &right, width);
    }
    last as u16 + 1
}

/// All findings with their rules and numbers.
/// `silent` rules need what a server that is shown does not tell.
pub(super) fn overlay(
    found: &[ServerFinding<'_>],
    silent: usize,
    first: usize,
    theme: &Theme,
    area: Rect,
    buf: &mut Buffer,
) -> usize {
    let width = area.width.min(WIDEST).saturating_sub(2);
    let mut lines = Vec::new();
    for ServerFinding { server, finding, at } in found {
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
    if silent > 0 {
        let text = format!(" {silent} of {} rules need what uWSGI does not tell ", RULES.len());
        lines.extend([Line::default(), Line::styled(text, theme.dim())]);
    }
    boxed("what is wrong, and how it is known", &lines, first, WIDEST, theme, area, buf)
}
