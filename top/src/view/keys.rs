//! The key bindings: ONE table that the keyboard, the foot of the screen and the help overlay are made from.
//!
//! The names of keys are our own: `crokey` does not list those that it knows, and without them no nearest one is found.

use std::fmt;
use std::str::FromStr;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::acting::ServerAction;
use super::panes::Pane;

/// What a key does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// Leave rtop, or close what lies over the table.
    Quit,
    /// Close what lies over the table, clear the selection.
    Back,
    /// Cores: off, merged with workers, under workers.
    Cores,
    /// Ten samples a second, or the usual.
    Fast,
    /// Move the selection.
    Up,
    /// Move the selection.
    Down,
    /// Move the selection by a page.
    PageUp,
    /// Move the selection by a page.
    PageDown,
    /// To the first row.
    First,
    /// To the last row.
    Last,
    /// Look at the selected worker closely, or at the selected server.
    Detail,
    /// Sort by the next column.
    SortNext,
    /// Sort by the column before.
    SortBefore,
    /// Turn the order round.
    Reverse,
    /// Type what rows must contain.
    Filter,
    /// Choose columns.
    Columns,
    /// The next server's tab.
    TabNext,
    /// The tab before.
    TabBefore,
    /// A sample back in time.
    Back1,
    /// A sample forward in time.
    Forward1,
    /// A minute back in time.
    Back60,
    /// A minute forward in time.
    Forward60,
    /// To the present.
    Now,
    /// Pause, or go on.
    Pause,
    /// Other colours.
    Theme,
    /// Twice as fast through a recording.
    Faster,
    /// Half as fast through a recording.
    Slower,
    /// Show the chart of this place, or no longer.
    Chart(u8),
    /// Charts where there is room, or never.
    Charts,
    /// Do something to a server.
    OnServer(ServerAction),
    /// The list of alerts.
    Alerts,
    /// The findings with their rules and numbers.
    Why,
    /// Open a pane in place of the workers, or close it.
    Pane(Pane),
    /// What the threads execute.
    Stacks,
    /// Where the time of requests goes.
    Profile,
    /// The generation that serves beside the one before.
    Generations,
    /// What a worker's memory is used for.
    Memory,
    /// Explain the keys.
    Help,
    /// Stop the process until the shell continues it.
    Suspend,
    /// Draw everything again.
    Redraw,
}

/// A row of the table.
#[derive(Debug)]
pub(crate) struct Binding {
    /// What it does.
    pub(crate) action: Action,
    /// Its name in the configuration file.
    pub(crate) name: &'static str,
    /// Its keys, as they are written in the configuration file and in help.
    pub(crate) keys: &'static [&'static str],
    /// A word for the foot of the screen; empty for what is not shown there.
    pub(crate) hint: &'static str,
    /// A line for the help overlay.
    pub(crate) help: &'static str,
}

macro_rules! bindings {
    ($($action:ident $(($argument:expr))? $name:literal [$($key:literal),*] $hint:literal $help:literal;)*) => {
        &[$(Binding { action: Action::$action $(($argument))?, name: $name, keys: &[$($key),*], hint: $hint, help: $help }),*]
    };
}

/// Every binding, in the order of the help overlay.
pub(crate) const BINDINGS: &[Binding] = bindings! {
    Quit "quit" ["q", "ctrl-c"] "quit" "leave, or close what is open; ctrl-c always leaves";
    Back "back" ["esc"] "" "close what is open, clear the selection";
    Cores "cores" ["a"] "cores" "cores: off, merged with workers, under workers";
    Fast "fast" ["f"] "fast" "ten samples a second, or as --frequency says";
    Detail "detail" ["enter"] "" "look closely at the selected worker, or open the selected server";
    Help "help" ["?", "h"] "help" "this help";
    Filter "filter" ["/"] "filter" "show only rows that contain a text or match an expression";
    SortNext "sort-next" ["s", ">"] "sort" "sort by the next column; a click on a title does as well";
    SortBefore "sort-before" ["S", "<"] "" "sort by the column before";
    Reverse "reverse" ["r"] "" "turn the order round";
    Columns "columns" ["c"] "columns" "choose columns and their order";
    Alerts "alerts" ["w"] "" "list the alerts";
    Why "why" ["y"] "" "what is wrong, by which rule, with its numbers";
    Pane(Pane::Routes) "routes" ["u"] "" "requests by route (URL): what each costs";
    Pane(Pane::Slow) "slow" ["l"] "" "slow requests, and the phases of all";
    Stacks "stacks" ["b"] "" "what the threads of the selected worker execute now, or of all";
    Profile "profile" ["P"] "profile" "sample the threads in requests: a flame graph of where their time goes";
    Memory "memory" ["m"] "" "the selected worker's memory: types, lines, savings";
    Generations "generations" ["g"] "" "the running generation beside the one before it";
    OnServer(ServerAction::Reload) "reload" ["R"] "" "act: load the application again; asks first, as all that act do";
    OnServer(ServerAction::Recycle) "recycle" ["X"] "" "act: a new process for the selected worker";
    OnServer(ServerAction::Drain) "drain" ["D"] "" "act: the selected worker takes no new requests, or takes them again";
    OnServer(ServerAction::More) "worker-more" ["}"] "" "act: a worker more";
    OnServer(ServerAction::Fewer) "worker-fewer" ["{"] "" "act: a worker fewer";
    TabNext "tab-next" ["tab"] "" "the next server";
    TabBefore "tab-before" ["backtab"] "" "the server before";
    Back1 "back-1" ["left"] "" "back in time by a sample";
    Forward1 "forward-1" ["right"] "" "forward in time by a sample";
    Back60 "back-60" ["[", "shift-left"] "" "back in time by a minute";
    Forward60 "forward-60" ["]", "shift-right"] "" "forward in time by a minute";
    Now "now" ["n"] "" "return to the present";
    Pause "pause" ["p", "space"] "pause" "pause, or go on";
    Faster "faster" ["+", "="] "" "a recording: twice as fast";
    Slower "slower" ["-"] "" "a recording: half as fast";
    Chart(1) "chart-rps" ["1"] "" "chart of requests per second";
    Chart(2) "chart-latency" ["2"] "" "chart of latency percentiles";
    Chart(3) "chart-heat" ["3"] "" "latency heat map: time across, latency up";
    Chart(4) "chart-memory" ["4"] "" "chart of memory, a line for each worker";
    Chart(5) "chart-queue" ["5"] "" "chart of the listen queue";
    Chart(6) "chart-utilization" ["6"] "" "chart of utilization";
    Charts "charts" ["0"] "" "charts where there is room, or never";
    Theme "theme" ["t"] "" "other colours: the next theme";
    Up "up" ["up", "k"] "" "select the row above, or the worker before";
    Down "down" ["down", "j"] "" "select the row below, or the worker after";
    PageUp "page-up" ["pageup"] "" "a page up, of the rows or of the worker looked at";
    PageDown "page-down" ["pagedown"] "" "a page down, of the rows or of the worker looked at";
    First "first" ["home"] "" "the first row";
    Last "last" ["end"] "" "the last row";
    Suspend "suspend" ["ctrl-z"] "" "suspend; the shell's fg comes back";
    Redraw "redraw" ["ctrl-l"] "" "draw the screen again";
};

/// Keys that are not called by their character.
const NAMED: [(&str, KeyCode); 28] = [
    ("space", KeyCode::Char(' ')),
    ("up", KeyCode::Up),
    ("down", KeyCode::Down),
    ("left", KeyCode::Left),
    ("right", KeyCode::Right),
    ("pageup", KeyCode::PageUp),
    ("pagedown", KeyCode::PageDown),
    ("home", KeyCode::Home),
    ("end", KeyCode::End),
    ("enter", KeyCode::Enter),
    ("esc", KeyCode::Esc),
    ("tab", KeyCode::Tab),
    ("backtab", KeyCode::BackTab),
    ("backspace", KeyCode::Backspace),
    ("delete", KeyCode::Delete),
    ("insert", KeyCode::Insert),
    ("f1", KeyCode::F(1)),
    ("f2", KeyCode::F(2)),
    ("f3", KeyCode::F(3)),
    ("f4", KeyCode::F(4)),
    ("f5", KeyCode::F(5)),
    ("f6", KeyCode::F(6)),
    ("f7", KeyCode::F(7)),
    ("f8", KeyCode::F(8)),
    ("f9", KeyCode::F(9)),
    ("f10", KeyCode::F(10)),
    ("f11", KeyCode::F(11)),
    ("f12", KeyCode::F(12)),
];

/// What may stand before a key's name, in this order.
const MODIFIERS: [(&str, KeyModifiers); 3] =
    [("ctrl-", KeyModifiers::CONTROL), ("alt-", KeyModifiers::ALT), ("shift-", KeyModifiers::SHIFT)];

/// A key and what is held down with it, in the one form in which terminals report it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    code: KeyCode,
    modifiers: KeyModifiers,
}

/// A text that names no key.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UnknownKey;

impl Key {
    /// Leaves rtop whatever is open, and is bound to nothing else.
    pub(crate) const INTERRUPT: Self = Self { code: KeyCode::Char('c'), modifiers: KeyModifiers::CONTROL };

    fn new(code: KeyCode, modifiers: KeyModifiers) -> Self {
        let mut modifiers = modifiers & (KeyModifiers::CONTROL | KeyModifiers::ALT | KeyModifiers::SHIFT);
        let shifted = modifiers.contains(KeyModifiers::SHIFT);
        let code = match code {
            // A control character has no case; the case of every other character tells of the shift key.
            KeyCode::Char(character) => {
                modifiers.remove(KeyModifiers::SHIFT);
                KeyCode::Char(match modifiers.contains(KeyModifiers::CONTROL) {
                    true => character.to_ascii_lowercase(),
                    false if shifted => character.to_ascii_uppercase(),
                    false => character,
                })
            }
            KeyCode::BackTab | KeyCode::Tab if shifted || code == KeyCode::BackTab => {
                modifiers.remove(KeyModifiers::SHIFT);
                KeyCode::BackTab
            }
            code => code,
        };
        Self { code, modifiers }
    }

    /// Names that a misspelt one may have meant: every key, with and without modifiers.
    pub(crate) fn names_like(misspelt: &str) -> Vec<String> {
        let last = misspelt.chars().next_back().map(String::from).unwrap_or_default();
        let names = NAMED.iter().map(|(name, _)| *name).chain([last.as_str()]);
        let modified = |name: &str| {
            // Each modifier may be there or not.
            (0..1 << MODIFIERS.len())
                .map(move |set| {
                    let before = MODIFIERS.iter().enumerate().filter(|(place, _)| set >> place & 1 == 1);
                    before.map(|(_, (prefix, _))| *prefix).collect::<String>() + name
                })
                .collect::<Vec<_>>()
        };
        names.flat_map(modified).collect()
    }

    /// How keys are written, for messages.
    pub(crate) fn known() -> String {
        let names: Vec<&str> = NAMED.iter().map(|(name, _)| *name).collect();
        format!("any character, {}, each with ctrl-, alt- or shift- before it", names.join(", "))
    }
}

impl From<KeyEvent> for Key {
    fn from(event: KeyEvent) -> Self {
        Self::new(event.code, event.modifiers)
    }
}

impl FromStr for Key {
    type Err = UnknownKey;

    fn from_str(text: &str) -> Result<Self, UnknownKey> {
        let (mut name, mut modifiers) = (text, KeyModifiers::NONE);
        while let Some((rest, modifier)) = MODIFIERS.iter().find_map(|(prefix, modifier)| {
            // The key itself may be a minus.
            Some((name.strip_prefix(prefix).filter(|rest| !rest.is_empty())?, *modifier))
        }) {
            (name, modifiers) = (rest, modifiers | modifier);
        }
        let named = NAMED.iter().find(|(known, _)| *known == name).map(|(_, code)| *code);
        let mut characters = name.chars();
        let code = match (named, characters.next(), characters.next()) {
            (Some(code), _, _) => code,
            (None, Some(character), None) if !character.is_control() => KeyCode::Char(character),
            _ => return Err(UnknownKey),
        };
        Ok(Self::new(code, modifiers))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (prefix, modifier) in MODIFIERS {
            if self.modifiers.contains(modifier) {
                f.write_str(prefix)?;
            }
        }
        match (NAMED.iter().find(|(_, code)| *code == self.code), self.code) {
            (Some((name, _)), _) => f.write_str(name),
            (None, KeyCode::Char(character)) => write!(f, "{character}"),
            // A key that has no name here can be pressed, but not bound.
            (None, code) => write!(f, "{code}"),
        }
    }
}

/// The keys in force: the table's, with what the configuration file puts in their place.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    bound: Vec<(&'static Binding, Vec<Key>)>,
}

impl Default for Keys {
    fn default() -> Self {
        // A test reads every key of the table.
        let usual = |binding: &Binding| binding.keys.iter().filter_map(|key| key.parse().ok()).collect();
        Self { bound: BINDINGS.iter().map(|binding| (binding, usual(binding))).collect() }
    }
}

impl Keys {
    /// Gives a binding other keys; `false` when there is no binding of that name. Leaving keeps [`Key::INTERRUPT`].
    pub(crate) fn rebind(&mut self, name: &str, keys: &[Key]) -> bool {
        let Some(place) = self.bound.iter().position(|(binding, _)| binding.name == name) else { return false };
        for (binding, bound) in &mut self.bound {
            // What a key did before, it no longer does.
            bound.retain(|key| !keys.contains(key) || (binding.action == Action::Quit && *key == Key::INTERRUPT));
        }
        let (binding, bound) = &mut self.bound[place];
        *bound = keys.to_vec();
        if binding.action == Action::Quit && !bound.contains(&Key::INTERRUPT) {
            bound.push(Key::INTERRUPT);
        }
        true
    }

    /// The same without what acts on a server.
    pub(crate) fn without_server_actions(mut self) -> Self {
        self.bound.retain(|(binding, _)| !matches!(binding.action, Action::OnServer(_)));
        self
    }

    /// What a pressed key does.
    pub(crate) fn action_of(&self, key: KeyEvent) -> Option<Action> {
        let key = Key::from(key);
        self.bound.iter().find(|(_, keys)| keys.contains(&key)).map(|(binding, _)| binding.action)
    }

    /// Every binding with its keys, in the order of the table.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static Binding, &[Key])> {
        self.bound.iter().map(|(binding, keys)| (*binding, keys.as_slice()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn no_key_does_two_things_and_every_binding_is_explained() {
        let mut seen = HashSet::new();
        for binding in BINDINGS {
            assert!(!binding.help.is_empty() && !binding.keys.is_empty(), "{}", binding.name);
            for key in binding.keys {
                assert!(seen.insert(key), "{key} is bound twice");
            }
        }
    }

    #[test]
    fn a_key_that_is_given_away_no_longer_does_what_it_did() {
        let mut keys = Keys::default();
        let press = |keys: &Keys, c| keys.action_of(KeyEvent::new(KeyCode::Char(c), KeyModifiers::NONE));
        assert!(keys.rebind("pause", &["q".parse().unwrap()]));
        assert_eq!((press(&keys, 'q'), press(&keys, 'p')), (Some(Action::Pause), None));
        assert!(!keys.rebind("fly", &[]));
    }

    #[test]
    fn every_key_of_the_table_is_read_and_written_alike() {
        for key in BINDINGS.iter().flat_map(|binding| binding.keys) {
            assert_eq!(key.parse::<Key>().unwrap().to_string(), *key);
        }
        for (written, same) in [
            ("shift-tab", "backtab"),
            ("shift-backtab", "backtab"),
            ("shift-a", "A"),
            ("ctrl-Q", "ctrl-q"),
            ("alt-ctrl-x", "ctrl-alt-x"),
            ("shift--", "-"),
            ("shift-f12", "shift-f12"),
        ] {
            assert_eq!(written.parse::<Key>(), same.parse(), "{written}");
        }
        for unknown in ["", "cntrl-q", "qq", "ctrl-", "f13", "\n", "ctrl-qq"] {
            assert_eq!(unknown.parse::<Key>(), Err(UnknownKey), "{unknown}");
        }
    }

    #[test]
    fn keys_are_known_as_terminals_send_them() {
        let keys = Keys::default();
        let key = |code, modifiers| keys.action_of(KeyEvent::new(code, modifiers));
        assert_eq!(key(KeyCode::Char('q'), KeyModifiers::NONE), Some(Action::Quit));
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Action::Quit));
        assert_eq!(key(KeyCode::Char('S'), KeyModifiers::SHIFT), Some(Action::SortBefore));
        assert_eq!(key(KeyCode::BackTab, KeyModifiers::SHIFT), Some(Action::TabBefore));
        assert_eq!(key(KeyCode::BackTab, KeyModifiers::NONE), Some(Action::TabBefore));
        assert_eq!(key(KeyCode::Left, KeyModifiers::SHIFT), Some(Action::Back60));
        assert_eq!(key(KeyCode::PageUp, KeyModifiers::NONE), Some(Action::PageUp));
        assert_eq!(key(KeyCode::F(12), KeyModifiers::NONE), None);
    }
}
