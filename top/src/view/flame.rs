//! The flame graph on the terminal: a row for each depth, callers above what they call, widths by samples. What has the widest
//! share stands left.

use std::collections::HashSet;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Clear, Widget};
use rwsgi_stats::control::Profile;

use super::filter::Filter;
use super::inside::blank;
use super::keys::Action;
use super::table::{print, print_line};
use super::theme::Theme;
use crate::format;
use crate::model::flame::{By, Tree};
use crate::model::hot::{Hottest, hottest, states};
use crate::model::threads::{STATES, States, place_of};
use crate::report::{is_patchy, samples_in_short};

/// A smaller part of what is shown is not drawn.
const NARROWEST: u64 = 2_000;

/// Rows above the graph.
const HEAD: u16 = 3;

/// What is to happen after a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// Nothing but another frame.
    Nothing,
    /// The graph is closed.
    Close,
    /// Another profile.
    Again,
}

/// A profile that is looked at.
#[derive(Debug)]
pub(super) struct Flame {
    profile: Profile,
    label: String,
    by: By,
    tree: Tree,
    hottest: Option<Hottest>,
    states: States,
    /// The functions that were zoomed into, the last one shown as the whole.
    zoomed: Vec<usize>,
    cursor: usize,
    folded: HashSet<usize>,
    search: Filter,
    /// By node whether it is found, and the share of all samples that are.
    found: Option<(Vec<bool>, f64)>,
    /// Rows that are above the graph's first.
    first: usize,
    /// What the last frame shows, for clicks.
    boxes: Vec<(Rect, usize)>,
}

impl Flame {
    pub(super) fn new(profile: Profile, label: &str, by: By) -> Self {
        let tree = Tree::of(&profile, by);
        let hottest = hottest(&profile);
        let mut flame = Self {
            states: states(&profile),
            profile,
            label: label.to_owned(),
            by,
            tree,
            hottest,
            zoomed: Vec::new(),
            cursor: 0,
            folded: HashSet::new(),
            search: Filter::default(),
            found: None,
            first: 0,
            boxes: Vec::new(),
        };
        flame.cursor = flame.home();
        flame
    }

    /// What the profile says in a sentence.
    pub(super) fn sentence(&self) -> Option<&str> {
        self.hottest.as_ref().map(|hottest| hottest.sentence.as_str())
    }

    /// Where the eye begins: the function of the application with most.
    fn home(&self) -> usize {
        let Some(hottest) = &self.hottest else { return 0 };
        let is = |place: &usize| {
            let node = self.tree.node(*place);
            node.name == hottest.function && node.file == hottest.file
        };
        (1..self.tree.len())
            .filter(is)
            .max_by_key(|place| (self.tree.samples(*place), std::cmp::Reverse(*place)))
            .unwrap_or(0)
    }

    fn root(&self) -> usize {
        self.zoomed.last().copied().unwrap_or(0)
    }

    fn group(&mut self, by: By) {
        self.by = by;
        self.tree = Tree::of(&self.profile, by);
        (self.zoomed, self.folded, self.first) = Default::default();
        self.cursor = self.home();
        self.look();
    }

    /// Looks for what is typed.
    fn look(&mut self) {
        self.found = (!self.search.is_empty()).then(|| {
            let search = &self.search;
            self.tree.matches(|node| search.passes(&format!("{} {}:{}", node.name, node.file, node.line)))
        });
    }

    pub(super) fn press(&mut self, key: KeyEvent, action: Option<Action>) -> Wish {
        if self.search.editing {
            self.type_search(key);
            return Wish::Nothing;
        }
        match (key.code, action) {
            (KeyCode::Backspace, _) => drop(self.back()),
            (_, Some(Action::Back)) => {
                if !self.search.is_empty() {
                    self.search.clear();
                    self.look();
                } else if !self.back() {
                    return Wish::Close;
                }
            }
            (KeyCode::Char('g'), _) => self.group(self.by.next()),
            (KeyCode::Char('r'), _) => return Wish::Again,
            (_, Some(Action::Quit | Action::Profile)) => return Wish::Close,
            (_, Some(Action::Filter)) => self.search.editing = true,
            (_, Some(Action::Now)) => self.next_found(),
            (_, Some(Action::Detail)) => self.zoom(self.cursor),
            (_, Some(Action::Pause)) => self.fold(),
            (_, Some(Action::Up)) if self.cursor != self.root() => self.cursor = self.tree.node(self.cursor).parent,
            (_, Some(Action::Down)) if !self.folded.contains(&self.cursor) => {
                self.cursor = self.tree.node(self.cursor).children.first().copied().unwrap_or(self.cursor);
            }
            (_, Some(Action::Back1)) => self.beside(-1),
            (_, Some(Action::Forward1)) => self.beside(1),
            (_, Some(Action::First)) => self.cursor = self.root(),
            (_, Some(Action::Last)) => self.cursor = self.home(),
            _ => {}
        }
        Wish::Nothing
    }

    fn type_search(&mut self, key: KeyEvent) {
        match key.code {
            KeyCode::Char('u') if key.modifiers.contains(KeyModifiers::CONTROL) => self.search.clear(),
            KeyCode::Char(character) if !key.modifiers.contains(KeyModifiers::CONTROL) => self.search.push(character),
            KeyCode::Backspace => self.search.pop(),
            KeyCode::Enter => {
                self.search.editing = false;
                self.next_found();
            }
            KeyCode::Esc => {
                self.search.clear();
                self.search.editing = false;
            }
            _ => {}
        }
        self.look();
    }

    /// Folds what the function at the cursor called, or no longer.
    fn fold(&mut self) {
        if !self.folded.remove(&self.cursor) && !self.tree.node(self.cursor).children.is_empty() {
            self.folded.insert(self.cursor);
        }
    }

    /// Back from where it was zoomed into; `false` when all is shown.
    fn back(&mut self) -> bool {
        self.first = 0;
        self.zoomed.pop().is_some()
    }

    fn zoom(&mut self, place: usize) {
        if place == self.root() {
            return;
        }
        self.zoomed.push(place);
        (self.cursor, self.first) = (place, 0);
    }

    /// To the next function of the same depth that can be seen, in the order in which they stand.
    fn beside(&mut self, step: isize) {
        let row: Vec<usize> =
            self.places().filter(|(place, _)| self.depth(*place) == self.depth(self.cursor)).map(|(p, _)| p).collect();
        if let Some(at) = row.iter().position(|place| *place == self.cursor) {
            self.cursor = row[at.saturating_add_signed(step).min(row.len() - 1)];
        }
    }

    fn next_found(&mut self) {
        let Some((found, _)) = &self.found else { return };
        let order = (self.cursor + 1..self.tree.len()).chain(0..=self.cursor);
        let root = self.root();
        let next = order.into_iter().find(|place| found[*place] && self.tree.is_within(*place, root));
        self.cursor = next.unwrap_or(self.cursor);
        // What is found is not folded away.
        let mut at = self.cursor;
        while at != 0 {
            at = self.tree.node(at).parent;
            self.folded.remove(&at);
        }
    }

    pub(super) fn click(&mut self, at: Option<(u16, u16)>, wheel: isize) {
        let hit = at.and_then(|at| self.boxes.iter().rev().find(|(area, _)| area.contains(at.into())));
        match hit.map(|(_, place)| *place) {
            Some(place) if place == self.cursor => self.zoom(place),
            Some(place) => self.cursor = place,
            None if wheel < 0 && self.cursor != self.root() => self.cursor = self.tree.node(self.cursor).parent,
            None if wheel > 0 => {
                self.cursor = self.tree.node(self.cursor).children.first().copied().unwrap_or(self.cursor);
            }
            None => {}
        }
    }

    /// Rows below the shown root.
    fn depth(&self, place: usize) -> usize {
        self.tree.node(place).depth.saturating_sub(self.tree.node(self.root()).depth)
    }

    /// What is not folded away within the shown root, and how many samples stand left of each: callers before what they call,
    /// from the left. What no screen is wide enough for is left out, but not the cursor and its callers.
    fn places(&self) -> impl Iterator<Item = (usize, u64)> {
        let least = self.tree.samples(self.root()) / NARROWEST;
        let mut kept = HashSet::from([self.cursor]);
        let mut at = self.cursor;
        while at != 0 {
            at = self.tree.node(at).parent;
            kept.insert(at);
        }
        let mut open = vec![(self.root(), 0u64)];
        std::iter::from_fn(move || {
            let (place, from) = open.pop()?;
            if !self.folded.contains(&place) {
                let mut at = from;
                let below = open.len();
                for child in &self.tree.node(place).children {
                    if self.tree.samples(*child) > least || kept.contains(child) {
                        open.push((*child, at));
                    }
                    at = at.saturating_add(self.tree.samples(*child));
                }
                // The leftmost comes first.
                open[below..].reverse();
            }
            Some((place, from))
        })
    }

    pub(super) fn draw(&mut self, theme: &Theme, area: Rect, foot: Rect, buf: &mut Buffer) {
        Clear.render(area, buf);
        self.boxes.clear();
        let line = |y: u16| Rect { y: area.y + y, height: 1, ..area };
        let rows = usize::from(area.height.saturating_sub(HEAD + 1));
        if rows == 0 {
            return;
        }
        self.head(theme, line(0), buf);
        let sentence = self.sentence().unwrap_or("no frame could be taken").to_owned();
        let sentence = format::start_of(&sentence, usize::from(area.width)).into_owned();
        print_line(buf, area.x, area.y + 1, &Line::styled(sentence, theme.strong()), area.width);
        print_line(buf, area.x, area.y + 2, &self.legend(theme), area.width);
        // Two rows below the cursor, and some above it, are in sight.
        let at = self.depth(self.cursor);
        let shown: Vec<(usize, u64)> = self.places().collect();
        let deepest = shown.iter().map(|(place, _)| self.depth(*place)).max().unwrap_or(0);
        let first = self.first.min(at.saturating_sub(1)).max((at + 3).saturating_sub(rows));
        self.first = first.min((deepest + 1).saturating_sub(rows));
        let graph = Rect { y: area.y + HEAD, height: rows as u16, ..area };
        for (place, from) in shown {
            self.draw_box(place, from, theme, graph, buf);
        }
        print_line(buf, area.x, area.bottom() - 1, &self.about(theme, area.width), area.width);
        blank(foot, buf);
        print_line(buf, foot.x, foot.y, &self.foot(theme), foot.width);
    }

    fn head(&self, theme: &Theme, area: Rect, buf: &mut Buffer) {
        let by = match self.by {
            By::Nothing => "",
            By::Route => "by route; ",
            By::State => "by state; ",
        };
        let zoomed = match self.zoomed.last() {
            Some(place) => format!("zoomed into {} % of all; ", format::percent(self.tree.share(*place))),
            None => String::new(),
        };
        let line = Line::from(vec![
            Span::styled(format!("{} ", self.label), theme.strong()),
            Span::styled(format!("{zoomed}{by}"), theme.warning()),
            Span::styled(
                samples_in_short(&self.profile),
                if is_patchy(&self.profile) { theme.warning() } else { theme.dim() },
            ),
        ]);
        print_line(buf, area.x, area.y, &line, area.width);
    }

    /// The states: each with its letter, its colour and its share.
    fn legend(&self, theme: &Theme) -> Line<'static> {
        let mut spans = Vec::new();
        for (name, share) in self.states.shares() {
            spans.push(Span::styled(
                format!(" {} ", letter(name.word)),
                theme.thread(name.state).add_modifier(Modifier::REVERSED),
            ));
            spans.push(Span::raw(format!(" {} {} %  ", name.word, format::percent(share))));
        }
        Line::from(spans)
    }

    fn draw_box(&mut self, place: usize, from: u64, theme: &Theme, area: Rect, buf: &mut Buffer) {
        let Some(row) = self.depth(place).checked_sub(self.first).filter(|row| *row < usize::from(area.height)) else {
            return;
        };
        let whole = self.tree.samples(self.root()).max(1) as f64;
        let column = |samples: u64| (samples as f64 / whole * f64::from(area.width)).round() as u16;
        let (start, end) = (column(from), column(from.saturating_add(self.tree.samples(place))).min(area.width));
        // What is looked at is seen, however narrow it is.
        let end = if place == self.cursor { end.max((start + 1).min(area.width)) } else { end };
        if end <= start {
            return;
        }
        let node = self.tree.node(place);
        let most = node.total.most();
        let found = self.found.as_ref().map(|(found, _)| found[place]);
        let style = match (place == self.cursor, found) {
            (true, _) => theme.selected(),
            (false, Some(true)) => theme.thread(most.state).add_modifier(Modifier::BOLD | Modifier::UNDERLINED),
            (false, Some(false)) => theme.dim(),
            (false, None) if node.depth == 0 => Style::new(),
            (false, None) if theme.color => theme.thread(most.state).add_modifier(Modifier::REVERSED),
            (false, None) => Style::new(),
        };
        let width = end - start;
        let cell = Rect { x: area.x + start, y: area.y + row as u16, width, height: 1 };
        let fold = if self.folded.contains(&place) { "+ " } else { "" };
        // A word tells the state at the cursor; in the boxes a letter does, beside the colour.
        let state =
            if node.depth == 0 || most.word == "running" { String::new() } else { format!("{} ", letter(most.word)) };
        let label = format!("{fold}{state}{}", node.label());
        let room = usize::from(width.saturating_sub(1));
        let text = format!("▏{}", format::padded(&format::start_of(&label, room), room, false));
        print(buf, cell.x, cell.y, &text, width, style);
        self.boxes.push((cell, place));
    }

    /// What the cursor is at, in words.
    fn about(&self, theme: &Theme, width: u16) -> Line<'static> {
        let node = self.tree.node(self.cursor);
        let share = |count: u64| format::percent(count as f64 / self.tree.samples(0).max(1) as f64);
        let states: Vec<String> =
            node.total.shares().map(|(name, share)| format!("{} {} %", name.word, format::percent(share))).collect();
        let place = match (node.file.is_empty(), node.line) {
            (true, _) => String::new(),
            (false, 0) => format!(" {}", node.file),
            (false, line) => format!(" {}:{line}", node.file),
        };
        let told = format!(" {} %, itself {} %; {}", share(node.total.sum()), share(node.own), states.join(", "));
        let room = usize::from(width).saturating_sub(format::width(&node.name) + format::width(&told));
        Line::from(vec![
            Span::styled(node.name.clone(), theme.strong()),
            Span::raw(told),
            // The end of a path tells more than its beginning.
            Span::styled(format::end_of(&place, room.max(1)).into_owned(), theme.dim()),
        ])
    }

    fn foot(&self, theme: &Theme) -> Line<'static> {
        if self.search.editing {
            return Line::from(vec![
                Span::styled("search: ", theme.strong()),
                Span::raw(self.search.text().to_owned()),
                Span::styled("█", theme.dim()),
                Span::styled(self.matches(), theme.warning()),
            ]);
        }
        let mut spans = Vec::new();
        if !self.search.is_empty() {
            spans.push(Span::styled(format!("{}:{}  n next  ", self.search.text(), self.matches()), theme.warning()));
        }
        spans.push(Span::styled(
            "enter zoom  backspace back  space fold  / search  g group  r again  esc close",
            theme.dim(),
        ));
        Line::from(spans)
    }

    fn matches(&self) -> String {
        self.found.as_ref().map_or_else(String::new, |(found, share)| {
            let count = found.iter().filter(|found| **found).count();
            format!(" {} % in {count} functions", format::percent(*share))
        })
    }
}

/// A state's letter; all are different.
fn letter(word: &str) -> &str {
    debug_assert!(STATES.iter().all(|state| place_of(state.state) < STATES.len()));
    &word[..1]
}
