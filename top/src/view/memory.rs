//! The pane of a worker's memory: types that grew, lines that allocate, what could be saved, how fast it grows. What costs
//! the worker something is asked for after a confirmation that says what it costs.

use crossterm::event::KeyCode;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Line;
use rwsgi_stats::control::{Answer, MemoryReport, MemoryRequest};

use super::asking::Pending;
use super::keys::Action;
use super::overlay::boxed;
use super::theme::Theme;
use crate::format;
use crate::report::{QUESTIONS, report_lines};
use crate::source::{ControlError, ControlEvent, ControlReply};

/// The key of each question.
const KEYS: [(char, MemoryRequest); 5] = [
    ('t', MemoryRequest::Types),
    ('o', MemoryRequest::TraceStart),
    ('l', MemoryRequest::Trace),
    ('x', MemoryRequest::TraceStop),
    ('s', MemoryRequest::Savings),
];

/// What is asked for after a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// Nothing.
    Nothing,
    /// The pane is closed.
    Close,
    /// A report.
    Ask(MemoryRequest),
}

/// Reports of a worker's memory, and how far they are scrolled.
#[derive(Debug)]
pub(super) struct MemoryPane {
    /// The server.
    pub(super) target: usize,
    /// The worker.
    pub(super) worker: u32,
    pending: Option<Pending>,
    /// What is to be asked when that is confirmed.
    unconfirmed: Option<MemoryRequest>,
    /// What the server said last on the way to its answer.
    said: String,
    report: Option<MemoryReport>,
    problem: Option<String>,
    first: usize,
    page: usize,
}

impl MemoryPane {
    pub(super) fn new(target: usize, worker: u32) -> Self {
        Self {
            target,
            worker,
            pending: None,
            unconfirmed: None,
            said: String::new(),
            report: None,
            problem: None,
            first: 0,
            page: 1,
        }
    }

    /// A report was asked for, or could not be.
    pub(super) fn asked(&mut self, pending: Result<Pending, String>) {
        self.said = String::new();
        match pending {
            Ok(pending) => (self.pending, self.problem) = (Some(pending), None),
            Err(why) => self.problem = Some(why),
        }
    }

    /// Whether this is the answer that is waited for.
    pub(super) fn is(&self, told: &ControlReply) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.is(told))
    }

    /// Takes in what the server says.
    pub(super) fn told(&mut self, said: ControlEvent) {
        let answer = match said {
            ControlEvent::Progress(text) => {
                self.said = text;
                return;
            }
            ControlEvent::Answer(answer) => answer,
        };
        self.pending = None;
        match answer {
            Ok(Answer::Memory(report)) => (self.report, self.problem, self.first) = (Some(report), None, 0),
            Ok(_) => self.problem = Some(ControlError::Another.to_string()),
            Err(error) => self.problem = Some(error.to_string()),
        }
    }

    /// A key.
    pub(super) fn press(&mut self, code: KeyCode, action: Option<Action>) -> Wish {
        if let Some(question) = self.unconfirmed.take() {
            return if code == KeyCode::Enter { Wish::Ask(question) } else { Wish::Nothing };
        }
        let page = self.page.saturating_sub(1).max(1) as isize;
        let question = KEYS.iter().find(|(key, _)| code == KeyCode::Char(*key)).map(|(_, question)| *question);
        match (question, action) {
            (Some(_), _) if self.pending.is_some() => {}
            (Some(question), _) if cost_of(question).is_empty() => return Wish::Ask(question),
            (Some(question), _) => self.unconfirmed = Some(question),
            (None, Some(Action::Quit | Action::Back)) => return Wish::Close,
            (None, Some(Action::Up)) => self.scroll(-1),
            (None, Some(Action::Down)) => self.scroll(1),
            (None, Some(Action::PageUp)) => self.scroll(-page),
            (None, Some(Action::PageDown)) => self.scroll(page),
            (None, Some(Action::First)) => self.first = 0,
            (None, Some(Action::Last)) => self.first = usize::MAX,
            _ => {}
        }
        Wish::Nothing
    }

    pub(super) fn scroll(&mut self, lines: isize) {
        self.first = self.first.saturating_add_signed(lines);
    }

    /// The foot of the screen.
    pub(super) fn hints(&self) -> String {
        match self.unconfirmed {
            Some(_) => "enter does it  any other key does not".to_owned(),
            None => "t types  o trace on  l lines  x trace off  s savings  ↑ ↓ scroll  esc closes".to_owned(),
        }
    }

    /// Draws it; `growth` says how fast the worker's memory grows.
    pub(super) fn draw(&mut self, label: &str, growth: &[String], theme: &Theme, area: Rect, buf: &mut Buffer) {
        let mut lines = self.lines(growth, usize::from(area.width.saturating_sub(2)), theme);
        self.page = usize::from(area.height.saturating_sub(2));
        lines.resize(lines.len().max(self.page), Line::default());
        self.first = self.first.min(lines.len() - self.page);
        let title = format!("memory of worker {}, {label}", self.worker);
        boxed(&title, &lines, self.first, area.width, theme, area, buf);
    }

    fn lines(&self, growth: &[String], width: usize, theme: &Theme) -> Vec<Line<'static>> {
        let width = width.saturating_sub(1).max(1);
        if let Some(question) = self.unconfirmed {
            let (_, word, what, cost) = QUESTIONS[place_of(question)];
            let text = [format!("{word}: {what}?"), cost.to_owned()];
            return text
                .iter()
                .flat_map(|text| wrapped(text, width))
                .map(|line| Line::styled(line, theme.warning()))
                .collect();
        }
        let mut lines: Vec<_> = growth.iter().map(|line| Line::styled(format!(" {line}"), theme.strong())).collect();
        if self.pending.is_some() {
            let waits = if self.said.is_empty() { "waiting for a free thread of the worker" } else { &self.said };
            lines.extend(wrapped(waits, width).map(|line| Line::styled(line, theme.dim())));
        }
        if let Some(problem) = &self.problem {
            lines.extend(wrapped(problem, width).map(|line| Line::styled(line, theme.alarm())));
        }
        let Some(report) = &self.report else { return lines };
        // What stands before the names; a name that is too long goes on below its beginning.
        let (report, mut before) = (report_lines(report), 0);
        for (place, line) in report.into_iter().enumerate() {
            if place == 0 {
                lines.extend(wrapped(&line, width).map(Line::raw));
            } else if line.ends_with("NAME") {
                before = line.len() - "NAME".len();
                lines.push(Line::styled(format!(" {}", format::start_of(&line, width)), theme.title()));
            } else {
                let (numbers, name) = line.split_at_checked(before).unwrap_or((&line, ""));
                let room = width.saturating_sub(before).max(1);
                let mut parts = format::wrapped(name, room).into_iter();
                let first = parts.next().unwrap_or_default();
                lines.push(Line::raw(format!(" {}", format::start_of(&format!("{numbers}{first}"), width))));
                let rest = parts.map(|part| format!(" {:before$}{}", "", format::start_of(&part, room)));
                lines.extend(rest.map(Line::raw));
            }
        }
        lines
    }
}

fn place_of(question: MemoryRequest) -> usize {
    QUESTIONS.iter().position(|(known, ..)| *known == question).unwrap_or(0)
}

fn cost_of(question: MemoryRequest) -> &'static str {
    QUESTIONS[place_of(question)].3
}

/// A text in lines of at most this width, each after a blank.
fn wrapped(text: &str, width: usize) -> impl Iterator<Item = String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.last().map_or(0, |line| format::width(line));
        match lines.last_mut() {
            Some(line) if last + 1 + format::width(word) <= width || last == 0 => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(format!(" {word}")),
        }
    }
    lines.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rwsgi_stats::control::MemoryRow;

    fn shown(pane: &mut MemoryPane) -> String {
        let area = Rect::new(0, 0, 70, 12);
        let mut buf = Buffer::empty(area);
        pane.draw(":9191", &["grows per hour +3.0M ±200.0K".to_owned()], &Theme::default(), area, &mut buf);
        let rows = (0..area.height).map(|y| (0..area.width).map(|x| buf[(x, y)].symbol()).collect::<String>());
        rows.map(|row| row.trim_end().to_owned() + "\n").collect()
    }

    #[test]
    fn what_costs_something_is_asked_for_after_a_confirmation_that_says_so() {
        let mut pane = MemoryPane::new(0, 2);
        assert_eq!(pane.press(KeyCode::Char('s'), None), Wish::Ask(MemoryRequest::Savings), "it costs nothing");
        assert_eq!(pane.press(KeyCode::Char('o'), None), Wish::Nothing);
        let asked = shown(&mut pane);
        assert!(asked.contains("10 to 20 times slower"), "{asked}");
        assert_eq!(pane.press(KeyCode::Esc, Some(Action::Back)), Wish::Nothing, "it is not done, and the pane stays");
        assert_eq!(pane.press(KeyCode::Char('t'), None), Wish::Nothing);
        assert_eq!(pane.press(KeyCode::Enter, None), Wish::Ask(MemoryRequest::Types));
        assert_eq!(pane.press(KeyCode::Esc, Some(Action::Back)), Wish::Close);
    }

    #[test]
    fn a_report_stands_below_how_fast_memory_grows() {
        let mut pane = MemoryPane::new(0, 2);
        let row = MemoryRow {
            name: "shop.Order".into(),
            count: 2_000,
            count_growth: 1_500,
            bytes: 96_000,
            bytes_growth: 72_000,
        };
        let note = "objects made since the worker was forked, by type, with their own size".into();
        let report = MemoryReport { worker: 2, pid: 77, took: 12_000, note, rows: vec![row.clone()] };
        pane.told(ControlEvent::Answer(Ok(Answer::Memory(report))));
        insta::assert_snapshot!(shown(&mut pane));
        let row = MemoryRow { name: "loading before the fork, without lazy-apps, at the most".into(), ..row };
        let note = "what could be saved".into();
        let report = MemoryReport { worker: 2, pid: 77, took: 12_000, note, rows: vec![row] };
        pane.told(ControlEvent::Answer(Ok(Answer::Memory(report))));
        let told = shown(&mut pane);
        assert!(told.contains("lazy-apps") && told.contains("at the most"), "{told}");
        pane.told(ControlEvent::Answer(Err(ControlError::Failed("worker 2: no thread of it was free".into()))));
        assert!(shown(&mut pane).contains("no thread of it was free"));
    }
}
