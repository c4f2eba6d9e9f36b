//! The pane of live stacks: what each thread of a worker executes.

use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use rwsgi_stats::control::{Answer, Stacks};

use super::asking::Pending;
use super::keys::Action;
use super::overlay::boxed;
use super::theme::Theme;
use crate::format;
use crate::model::threads::package_of;
use crate::report::{doing, name_of, request_of};
use crate::source::{ControlError, ControlEvent, ControlReply, Monotonic};

/// Stacks of a server, and how far they are scrolled.
#[derive(Debug)]
pub(super) struct StacksPane {
    /// The server.
    pub(super) target: usize,
    /// Of this worker alone.
    pub(super) worker: Option<u32>,
    pending: Option<Pending>,
    /// When they were asked for.
    asked: Option<Monotonic>,
    /// When the shown ones came.
    came: Option<Monotonic>,
    stacks: Option<Stacks>,
    problem: Option<String>,
    /// They are looked at, and not asked for again.
    held: bool,
    first: usize,
    page: usize,
}

impl StacksPane {
    pub(super) fn new(target: usize, worker: Option<u32>) -> Self {
        Self {
            target,
            worker,
            pending: None,
            asked: None,
            came: None,
            stacks: None,
            problem: None,
            held: false,
            first: 0,
            page: 1,
        }
    }

    /// They were asked for, or could not be.
    pub(super) fn asked(&mut self, pending: Result<Pending, String>, now: Monotonic) {
        self.asked = Some(now);
        match pending {
            Ok(pending) => self.pending = Some(pending),
            Err(why) => self.problem = Some(why),
        }
    }

    /// Whether it is time to ask for them again.
    pub(super) fn is_due(&self, now: Monotonic, every: Duration) -> bool {
        !self.held && self.pending.is_none() && self.asked.is_none_or(|asked| now.since(asked) >= every)
    }

    /// Whether this is the answer that is waited for.
    pub(super) fn is(&self, told: &ControlReply) -> bool {
        self.pending.as_ref().is_some_and(|pending| pending.is(told))
    }

    /// Takes an answer in.
    pub(super) fn told(&mut self, said: ControlEvent, now: Monotonic) -> bool {
        let ControlEvent::Answer(answer) = said else { return false };
        self.pending = None;
        match answer {
            Ok(Answer::Stacks(stacks)) => {
                (self.stacks, self.problem, self.came) = (Some(stacks), None, Some(now));
            }
            Ok(_) => self.problem = Some(ControlError::Another.to_string()),
            Err(error) => self.problem = Some(error.to_string()),
        }
        true
    }

    pub(super) fn press(&mut self, action: Option<Action>) {
        let page = self.page.saturating_sub(1).max(1) as isize;
        match action {
            Some(Action::Pause) => self.held = !self.held,
            Some(Action::Up) => self.scroll(-1),
            Some(Action::Down) => self.scroll(1),
            Some(Action::PageUp) => self.scroll(-page),
            Some(Action::PageDown) => self.scroll(page),
            Some(Action::First) => self.first = 0,
            Some(Action::Last) => self.first = usize::MAX,
            _ => {}
        }
    }

    pub(super) fn scroll(&mut self, lines: isize) {
        self.first = self.first.saturating_add_signed(lines);
    }

    pub(super) fn draw(&mut self, label: &str, now: Monotonic, theme: &Theme, area: Rect, buf: &mut Buffer) {
        let mut lines = self.lines(usize::from(area.width.saturating_sub(2)), theme);
        self.page = usize::from(area.height.saturating_sub(2));
        lines.resize(lines.len().max(self.page), Line::default());
        self.first = self.first.min(lines.len() - self.page);
        let of = self.worker.map_or_else(|| "all workers".to_owned(), |worker| format!("worker {worker}"));
        let age = self.came.map_or(0, |came| now.since(came).as_secs());
        let age = if age < 2 { String::new() } else { format!(", {} old", format::seconds(age)) };
        let held = if self.held { ", held" } else { "" };
        boxed(&format!("stacks of {of}, {label}{age}{held}"), &lines, self.first, area.width, theme, area, buf);
    }

    fn lines(&self, width: usize, theme: &Theme) -> Vec<Line<'static>> {
        let mut lines = Vec::new();
        if let Some(problem) = &self.problem {
            lines.push(Line::styled(format!(" {problem}"), theme.alarm()));
        }
        let Some(stacks) = &self.stacks else {
            if self.problem.is_none() {
                lines.push(Line::styled(" waiting for the stacks", theme.dim()));
            }
            return lines;
        };
        if stacks.threads.is_empty() {
            lines.push(Line::styled(" no thread could be looked at", theme.dim()));
        }
        for thread in &stacks.threads {
            let name = match self.worker {
                Some(_) => format!(" {}", name_of(thread)),
                None => format!(" worker {} {}", thread.worker, name_of(thread)),
            };
            let state = thread.state.map_or_else(|| theme.dim(), |state| theme.thread(state));
            let age = if thread.request.is_empty() { String::new() } else { format::micros(thread.elapsed) + "  " };
            if !lines.is_empty() {
                lines.push(Line::default());
            }
            lines.push(Line::from(vec![
                Span::styled(format!("{name}  "), theme.strong()),
                Span::styled(age, theme.strong()),
                Span::styled(doing(thread), state),
                Span::styled(format!("  pid {} tid {}", thread.pid, thread.tid), theme.dim()),
            ]));
            let request = request_of(thread);
            if !request.is_empty() {
                lines.push(Line::raw(format!("   {}", format::start_of(&request, width.saturating_sub(3)))));
            }
            if !thread.problem.is_empty() {
                lines.push(Line::styled(format!("   - {}", thread.problem), theme.warning()));
            }
            let widest = thread.frames.iter().map(|frame| format::width(&frame.function)).max().unwrap_or(0);
            let names = widest.min((width / 2).saturating_sub(5)).min(40);
            for frame in &thread.frames {
                let place = if frame.line == 0 { frame.file.clone() } else { format!("{}:{}", frame.file, frame.line) };
                let name = format::padded(&format::start_of(&frame.function, names), names, false);
                // The end of a path tells more than its beginning.
                let place = format::end_of(&place, width.saturating_sub(names + 7));
                let style = if package_of(frame).is_none() { theme.strong() } else { theme.dim() };
                lines.push(Line::styled(format!("     {name}  {place}"), style));
            }
        }
        lines
    }
}
