//! What is seen of the inside of workers: the panes of stacks and of the flame graph, and the profile that is under way. They
//! lie over the table and have keys of their own.

use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use rwsgi_stats::control::{Answer, MemoryRequest, Request};

use super::actions::Outcome;
use super::asking::Pending;
use super::detail::slope_text;
use super::flame::{Flame, Wish};
use super::keys::{Action, Key};
use super::memory::{self, MemoryPane};
use super::screen::Screen;
use super::stacks::StacksPane;
use super::table::print_line;
use super::theme::Theme;
use crate::format;
use crate::model::flame::By;
use crate::report::{LONGER, Sampling};
use crate::source::{ControlEvent, ControlReply, Monotonic};

/// How long a profile takes when nothing else is said.
const USUAL: Duration = Duration::from_secs(10);
/// Samples of each thread a second, the same.
const USUAL_RATE: u32 = 100;
/// The longest that can be typed.
const LONGEST: Duration = Duration::from_secs(600);
/// Live stacks are asked for no more often, however short the poll interval is.
const STACKS_EVERY: Duration = Duration::from_millis(900);

/// What lies over the table.
#[derive(Debug, Default)]
enum Pane {
    #[default]
    Closed,
    Stacks(Box<StacksPane>),
    Memory(Box<MemoryPane>),
    /// How long to profile, while it is typed; and what is wrong with it.
    Length(String, Option<String>),
    /// The profile that is under way, or the last one.
    Flame,
}

/// A profile under way.
#[derive(Debug)]
struct Profiling {
    pending: Pending,
    target: usize,
    sampling: Sampling,
    began: Monotonic,
    /// What the server said last.
    said: String,
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct Inside {
    pane: Pane,
    profiling: Option<Profiling>,
    /// The last profile, the server that it is of, and when it came.
    found: Option<(usize, Monotonic, Box<Flame>)>,
    /// Why the last one did not come.
    problem: Option<String>,
    /// As the command line says.
    by: By,
    rate: Option<u32>,
}

impl Inside {
    /// Whether something lies over the table.
    pub(super) fn is_open(&self) -> bool {
        !matches!(self.pane, Pane::Closed)
    }

    /// The line below the numbers: what the last profile said of the server that is shown, or that one is under way.
    pub(super) fn line(
        &self,
        server: Option<usize>,
        now: Monotonic,
        theme: &Theme,
        key: Option<Key>,
    ) -> Option<Line<'static>> {
        let of = |target: usize| server.is_none_or(|server| server == target);
        let how = key.map_or_else(String::new, |key| format!("  {} shows it", super::overlay::shown(key)));
        if let Some(profiling) = self.profiling.as_ref().filter(|profiling| of(profiling.target)) {
            let text = format!("profiling: {}", profiling.progress(now));
            return Some(Line::from(vec![Span::styled(text, theme.warning()), Span::styled(how, theme.dim())]));
        }
        if let Some(problem) = &self.problem {
            return Some(Line::styled(format!("profile: {problem}"), theme.warning()));
        }
        let (_, came, flame) = self.found.as_ref().filter(|(target, ..)| of(*target))?;
        let sentence = flame.sentence()?.to_owned();
        // What was true then need not be now.
        let age = now.since(*came).as_secs();
        let age = if age < 60 { String::new() } else { format!(", {} ago", format::seconds(age)) };
        let age = Span::styled(age, theme.warning());
        Some(Line::from(vec![Span::styled(sentence, theme.strong()), age, Span::styled(how, theme.dim())]))
    }
}

impl Profiling {
    fn progress(&self, now: Monotonic) -> String {
        let gone = now.since(self.began).min(self.sampling.duration).as_secs();
        match self.said.as_str() {
            "" => format!("{gone} s of {} s", self.sampling.duration.as_secs_f64()),
            said => said.to_owned(),
        }
    }
}

impl Screen {
    /// Shows the stacks of the selected worker; of all workers where none is selected.
    pub(super) fn open_stacks(&mut self) {
        let worker = self.table.selected.and_then(|(place, _)| Some(self.sample()?.snapshot.workers.get(place)?.id));
        let mut pane = Box::new(StacksPane::new(self.server_meant(), worker.filter(|_| !self.all())));
        self.refresh(&mut pane);
        self.inside.pane = Pane::Stacks(pane);
    }

    /// Shows the memory of the selected worker; of the first where none is selected.
    pub(super) fn open_memory(&mut self) {
        if self.all() {
            self.acting.say("memory is of one worker: open its server first (enter)".to_owned(), true);
            return;
        }
        let place = self.table.selected.map_or(0, |(place, _)| place);
        let Some(worker) = self.sample().and_then(|sample| Some(sample.snapshot.workers.get(place)?.id)) else {
            return;
        };
        let mut pane = Box::new(MemoryPane::new(self.server_meant(), worker));
        self.ask_memory(&mut pane, MemoryRequest::Savings);
        self.inside.pane = Pane::Memory(pane);
    }

    fn ask_memory(&mut self, pane: &mut MemoryPane, what: MemoryRequest) {
        let request = Request::Memory { worker: pane.worker, what };
        pane.asked(self.asking.ask(pane.target, request, LONGER));
    }

    fn press_memory(&mut self, mut pane: Box<MemoryPane>, key: KeyEvent, action: Option<Action>) {
        match pane.press(key.code, action) {
            memory::Wish::Close => return,
            memory::Wish::Nothing => {}
            memory::Wish::Ask(what) => self.ask_memory(&mut pane, what),
        }
        self.inside.pane = Pane::Memory(pane);
    }

    fn draw_memory(&mut self, target: usize, worker: u32, over: Rect, foot: Rect, buf: &mut Buffer) {
        let growth = self.growth_of(target, worker);
        let Self { pools, inside: Inside { pane: Pane::Memory(pane), .. }, theme, .. } = self else { return };
        let label = pools.get(target).map_or("", |pool| pool.label.as_str());
        pane.draw(label, &growth, theme, over, buf);
        blank(foot, buf);
        print_line(buf, foot.x, foot.y, &Line::styled(pane.hints(), theme.dim()), foot.width);
    }

    /// How fast a worker's memory grows, and that of all.
    fn growth_of(&self, target: usize, worker: u32) -> Vec<String> {
        let Some(pool) = self.pools.get(target) else { return Vec::new() };
        let workers = pool.current.as_ref().map_or(&[][..], |sample| &sample.snapshot.workers);
        let track = workers.iter().position(|known| known.id == worker).and_then(|place| pool.memory(place));
        let Some(growth) = track.and_then(|track| track.growth(self.merged.now)) else {
            return vec!["how fast it grows is told after a minute".to_owned()];
        };
        let mut text = format!("grows per hour {}", slope_text(growth.per_hour));
        if let Some(per_thousand) = growth.per_thousand_requests {
            text += &format!("  per 1,000 requests {}", slope_text(per_thousand));
        }
        let all = pool.growth(self.merged.now).map(|all| format!("all workers per hour {}", slope_text(all)));
        std::iter::once(text).chain(all).collect()
    }

    fn refresh(&mut self, pane: &mut StacksPane) {
        let request = Request::Stacks { worker: pane.worker };
        pane.asked(self.asking.ask(pane.target, request, Duration::ZERO), self.merged.now);
    }

    /// Shows the profile that is under way, or the last one; asks how long a first one is to take.
    pub(super) fn open_profile(&mut self) {
        let known = self.inside.profiling.is_some() || self.inside.found.is_some();
        self.inside.pane = if known { Pane::Flame } else { length() };
    }

    /// Begins a profile, and shows it.
    pub(crate) fn profile(&mut self, sampling: Sampling) {
        (self.inside.by, self.inside.rate) = (sampling.by, Some(sampling.rate));
        let target = self.server_meant();
        self.inside.problem = None;
        self.inside.pane = Pane::Flame;
        match self.asking.ask(target, sampling.request(), sampling.longer()) {
            Ok(pending) => {
                let began = self.merged.now;
                self.inside.profiling = Some(Profiling { pending, target, sampling, began, said: String::new() });
            }
            Err(why) => self.inside.problem = Some(why),
        }
    }

    /// The server whose tab is shown, or the one that is selected in the list of all.
    fn server_meant(&self) -> usize {
        self.server_shown().unwrap_or(self.selection.server)
    }

    /// A sample came: live stacks are asked for again. Returns whether there is something new to draw.
    pub(super) fn inside_ticks(&mut self, target: usize) -> bool {
        let now = self.merged.now;
        if let Pane::Stacks(pane) = &self.inside.pane
            && pane.target == target
            && pane.is_due(now, STACKS_EVERY)
        {
            let Pane::Stacks(mut pane) = std::mem::take(&mut self.inside.pane) else { return false };
            self.refresh(&mut pane);
            self.inside.pane = Pane::Stacks(pane);
        }
        self.inside.profiling.is_some()
    }

    /// What a server says of stacks and profiles; `None` when it is of something else.
    pub(super) fn inside_told(&mut self, told: ControlReply) -> Option<bool> {
        if let Pane::Stacks(pane) = &mut self.inside.pane
            && pane.is(&told)
        {
            return Some(pane.told(told.said, self.merged.now));
        }
        if let Pane::Memory(pane) = &mut self.inside.pane
            && pane.is(&told)
        {
            pane.told(told.said);
            return Some(true);
        }
        let profiling = self.inside.profiling.as_mut().filter(|profiling| profiling.pending.is(&told))?;
        match told.said {
            ControlEvent::Progress(said) => profiling.said = said,
            ControlEvent::Answer(answer) => {
                let target = told.target;
                self.inside.profiling = None;
                match answer {
                    Ok(Answer::Profile(profile)) if profile.samples > 0 => {
                        let Some(pool) = self.pools.get_mut(target) else { return Some(false) };
                        pool.profiled(&profile);
                        let flame = Box::new(Flame::new(profile, &pool.label, self.inside.by));
                        self.inside.found = Some((target, self.merged.now, flame));
                    }
                    Ok(Answer::Profile(_)) => {
                        self.inside.problem = Some("no request ran meanwhile: there is nothing to show".to_owned());
                    }
                    Ok(_) => self.inside.problem = Some(crate::source::ControlError::Another.to_string()),
                    Err(error) => self.inside.problem = Some(error.to_string()),
                }
            }
        }
        Some(true)
    }

    /// A key while something of this lies over the table.
    pub(super) fn press_inside(&mut self, key: KeyEvent) -> Outcome {
        let action = self.keys.action_of(key);
        match std::mem::take(&mut self.inside.pane) {
            Pane::Closed => {}
            Pane::Stacks(mut pane) => match action {
                Some(Action::Quit | Action::Back) => {}
                Some(Action::Profile) => self.open_profile(),
                Some(Action::Stacks) => {
                    self.refresh(&mut pane);
                    self.inside.pane = Pane::Stacks(pane);
                }
                _ => {
                    pane.press(action);
                    self.inside.pane = Pane::Stacks(pane);
                }
            },
            Pane::Memory(pane) => self.press_memory(pane, key, action),
            Pane::Length(text, _) => self.type_length(text, key),
            Pane::Flame => self.press_flame(key, action),
        }
        Outcome::Draw
    }

    fn type_length(&mut self, mut text: String, key: KeyEvent) {
        let mut problem = None;
        match key.code {
            KeyCode::Esc => return,
            KeyCode::Char(character @ ('0'..='9' | '.')) if text.len() < 8 => text.push(character),
            KeyCode::Char('q') => return,
            KeyCode::Backspace => drop(text.pop()),
            KeyCode::Enter => {
                let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
                match seconds.filter(|duration| (Duration::from_millis(100)..=LONGEST).contains(duration)) {
                    Some(duration) => {
                        let rate = self.inside.rate.unwrap_or(USUAL_RATE);
                        return self.profile(Sampling { duration, rate, by: self.inside.by });
                    }
                    None => problem = Some(format!("expected 0.1 to {} seconds", LONGEST.as_secs())),
                }
            }
            _ => {}
        }
        self.inside.pane = Pane::Length(text, problem);
    }

    fn press_flame(&mut self, key: KeyEvent, action: Option<Action>) {
        let inside = &mut self.inside;
        if inside.profiling.is_some() || inside.problem.is_some() || inside.found.is_none() {
            match (key.code, action) {
                (KeyCode::Backspace, _) => self.inside.profiling = None,
                // Why there is no other has been read: the one before is there again.
                (_, Some(Action::Quit | Action::Back)) => inside.problem = None,
                (KeyCode::Char('r'), _) if self.inside.profiling.is_none() => self.inside.pane = length(),
                _ => self.inside.pane = Pane::Flame,
            }
            return;
        }
        let wish = self.inside.found.as_mut().map_or(Wish::Close, |(.., flame)| flame.press(key, action));
        self.inside.pane = match wish {
            Wish::Nothing => Pane::Flame,
            Wish::Close => Pane::Closed,
            Wish::Again => length(),
        };
    }

    /// A click or a turn of the wheel while something of this lies over the table.
    pub(super) fn click_inside(&mut self, at: Option<(u16, u16)>, wheel: isize) -> Outcome {
        match (&mut self.inside.pane, &mut self.inside.found) {
            (Pane::Stacks(pane), _) => pane.scroll(wheel),
            (Pane::Memory(pane), _) => pane.scroll(wheel),
            (Pane::Flame, Some((.., flame))) if self.inside.profiling.is_none() => flame.click(at, wheel),
            _ => return Outcome::Nothing,
        }
        Outcome::Draw
    }

    /// Draws what lies over the table; the last line of `area` is the foot of the screen.
    pub(super) fn draw_inside(&mut self, area: Rect, buf: &mut Buffer) {
        let theme = self.theme;
        let foot = Rect { y: area.bottom().saturating_sub(1), height: 1, ..area };
        let over = Rect { height: area.height.saturating_sub(1), ..area };
        let label = |target: usize| self.pools.get(target).map_or("", |pool| pool.label.as_str());
        if let Pane::Memory(pane) = &self.inside.pane {
            let (target, worker) = (pane.target, pane.worker);
            return self.draw_memory(target, worker, over, foot, buf);
        }
        let hints = match &mut self.inside.pane {
            Pane::Closed | Pane::Memory(_) => return,
            Pane::Stacks(pane) => {
                let past = if self.playback.paused.is_some() { ", now" } else { "" };
                let label = format!("{}{past}", label(pane.target));
                pane.draw(&label, self.merged.now, &theme, over, buf);
                "↑ ↓ scroll  space holds  b asks again  esc closes"
            }
            Pane::Length(text, problem) => {
                let line = Line::from(vec![
                    Span::styled("profile for how many seconds? ", theme.strong()),
                    Span::raw(text.clone()),
                    Span::styled("█", theme.dim()),
                    match problem {
                        Some(problem) => Span::styled(format!("  {problem}"), theme.alarm()),
                        None => Span::styled("  enter begins it, esc leaves it", theme.dim()),
                    },
                ]);
                blank(foot, buf);
                print_line(buf, foot.x, foot.y, &line, foot.width);
                return;
            }
            Pane::Flame => match (&self.inside.profiling, &mut self.inside.found, &self.inside.problem) {
                (Some(profiling), _, _) => {
                    let text = format!(" {}: {} ", label(profiling.target), profiling.progress(self.merged.now));
                    let lines = [Line::raw(text), Line::styled(" it goes on when this is closed ", theme.dim())];
                    super::overlay::boxed("profile", &lines, 0, 60, &theme, over, buf);
                    "esc closes  backspace gives it up"
                }
                (None, _, Some(problem)) => {
                    let lines = [Line::styled(format!(" {problem} "), theme.warning())];
                    let width = u16::try_from(format::width(problem) + 4).unwrap_or(u16::MAX);
                    super::overlay::boxed("profile", &lines, 0, width.max(40), &theme, over, buf);
                    "r profiles again  esc closes"
                }
                (None, Some((.., flame)), None) => {
                    flame.draw(&theme, over, foot, buf);
                    return;
                }
                (None, None, None) => {
                    let lines = [Line::raw(" given up ")];
                    super::overlay::boxed("profile", &lines, 0, 40, &theme, over, buf);
                    "r profiles again  esc closes"
                }
            },
        };
        blank(foot, buf);
        print_line(buf, foot.x, foot.y, &Line::styled(hints, theme.dim()), foot.width);
    }
}

fn length() -> Pane {
    Pane::Length(USUAL.as_secs().to_string(), None)
}

/// Empties a line that something else was drawn on.
pub(super) fn blank(area: Rect, buf: &mut Buffer) {
    for x in area.left()..area.right() {
        if let Some(cell) = buf.cell_mut((x, area.y)) {
            cell.reset();
        }
    }
}
