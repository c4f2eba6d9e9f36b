//! The key bindings: ONE table that the keyboard, the foot of the screen and the help overlay are made from.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// What a key does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// Leave rtop, or close what lies over the table.
    Quit,
    /// Close what lies over the table, clear the selection.
    Back,
    /// Cores: off, merged with workers, under workers.
    Cores,
    /// Ten readings a second, or the usual.
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
    /// A reading back in time.
    Back1,
    /// A reading forward in time.
    Forward1,
    /// A minute back in time.
    Back60,
    /// A minute forward in time.
    Forward60,
    /// To the present.
    Now,
    /// Hold the screen, or let it go on.
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
    /// What needs attention.
    Attention,
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
    ($($action:ident $(($number:literal))? $name:literal [$($key:literal),*] $hint:literal $help:literal;)*) => {
        &[$(Binding { action: Action::$action $(($number))?, name: $name, keys: &[$($key),*], hint: $hint, help: $help }),*]
    };
}

/// Every binding, in the order of the help overlay.
pub(crate) const BINDINGS: &[Binding] = bindings! {
    Quit "quit" ["q", "ctrl-c"] "quit" "leave";
    Back "back" ["esc"] "" "close what is open, clear the selection";
    Cores "cores" ["a"] "cores" "cores: off, merged with workers, under workers";
    Fast "fast" ["f"] "fast" "ten readings a second, or as --frequency says";
    Detail "detail" ["enter"] "" "look closely at the selected worker, or open the selected server";
    Help "help" ["?", "h"] "help" "this help";
    Filter "filter" ["/"] "filter" "show only rows that contain a text or match an expression";
    SortNext "sort-next" ["s", ">"] "sort" "sort by the next column; a click on a title does as well";
    SortBefore "sort-before" ["S", "<"] "" "sort by the column before";
    Reverse "reverse" ["r"] "" "turn the order round";
    Columns "columns" ["c"] "columns" "choose columns and their order";
    Attention "attention" ["w"] "" "list what needs attention";
    TabNext "tab-next" ["tab"] "" "the next server";
    TabBefore "tab-before" ["backtab", "shift-backtab"] "" "the server before";
    Back1 "back-1" ["left"] "" "back in time by a reading";
    Forward1 "forward-1" ["right"] "" "forward in time by a reading";
    Back60 "back-60" ["[", "shift-left"] "" "back in time by a minute";
    Forward60 "forward-60" ["]", "shift-right"] "" "forward in time by a minute";
    Now "now" ["n"] "" "return to the present";
    Pause "pause" ["p", "space"] "pause" "hold the screen, or let it go on";
    Faster "faster" ["+", "="] "" "a recording: twice as fast";
    Slower "slower" ["-"] "" "a recording: half as fast";
    Chart(1) "chart-rps" ["1"] "" "chart of requests per second";
    Chart(2) "chart-latency" ["2"] "" "chart of latency percentiles";
    Chart(3) "chart-heat" ["3"] "" "latency heat map: time across, latency up";
    Chart(4) "chart-memory" ["4"] "" "chart of memory, a line for each worker";
    Chart(5) "chart-queue" ["5"] "" "chart of what waits";
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

/// The name of a pressed key, as the table writes it; `None` for keys that have no name here.
pub(crate) fn name_of(key: KeyEvent) -> Option<String> {
    let name = match key.code {
        KeyCode::Char(' ') => "space".to_owned(),
        KeyCode::Char(character) => character.to_string(),
        KeyCode::Up => "up".to_owned(),
        KeyCode::Down => "down".to_owned(),
        KeyCode::Left => "left".to_owned(),
        KeyCode::Right => "right".to_owned(),
        KeyCode::PageUp => "pageup".to_owned(),
        KeyCode::PageDown => "pagedown".to_owned(),
        KeyCode::Home => "home".to_owned(),
        KeyCode::End => "end".to_owned(),
        KeyCode::Enter => "enter".to_owned(),
        KeyCode::Esc => "esc".to_owned(),
        KeyCode::Tab => "tab".to_owned(),
        KeyCode::BackTab => "backtab".to_owned(),
        KeyCode::Backspace => "backspace".to_owned(),
        KeyCode::Delete => "delete".to_owned(),
        _ => return None,
    };
    let modified = |name: String| match key.modifiers {
        modifiers if modifiers.contains(KeyModifiers::CONTROL) => format!("ctrl-{name}"),
        modifiers if modifiers.contains(KeyModifiers::ALT) => format!("alt-{name}"),
        modifiers if modifiers.contains(KeyModifiers::SHIFT) && name.len() > 1 => format!("shift-{name}"),
        _ => name,
    };
    Some(modified(name))
}

/// The keys in force: the table's, with what the configuration file puts in their place.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    bound: Vec<(&'static Binding, Vec<String>)>,
}

impl Default for Keys {
    fn default() -> Self {
        let owned = |binding: &Binding| binding.keys.iter().map(|key| (*key).to_owned()).collect();
        Self { bound: BINDINGS.iter().map(|binding| (binding, owned(binding))).collect() }
    }
}

impl Keys {
    /// Gives a binding other keys; `false` when there is no binding of that name.
    pub(crate) fn rebind(&mut self, name: &str, keys: &[String]) -> bool {
        let Some(place) = self.bound.iter().position(|(binding, _)| binding.name == name) else { return false };
        for (_, bound) in &mut self.bound {
            // What a key did before, it no longer does.
            bound.retain(|key| !keys.contains(key));
        }
        self.bound[place].1 = keys.to_vec();
        true
    }

    /// What a pressed key does.
    pub(crate) fn action_of(&self, key: KeyEvent) -> Option<Action> {
        let name = name_of(key)?;
        self.bound.iter().find(|(_, keys)| keys.contains(&name)).map(|(binding, _)| binding.action)
    }

    /// Every binding with its keys, in the order of the table.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'static Binding, &[String])> {
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
        assert!(keys.rebind("pause", &["q".to_owned()]));
        assert_eq!((press(&keys, 'q'), press(&keys, 'p')), (Some(Action::Pause), None));
        assert!(!keys.rebind("fly", &[]));
    }

    #[test]
    fn keys_are_named_as_the_table_writes_them() {
        let keys = Keys::default();
        let key = |code, modifiers| keys.action_of(KeyEvent::new(code, modifiers));
        assert_eq!(key(KeyCode::Char('q'), KeyModifiers::NONE), Some(Action::Quit));
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Action::Quit));
        assert_eq!(key(KeyCode::PageUp, KeyModifiers::NONE), Some(Action::PageUp));
        assert_eq!(key(KeyCode::F(12), KeyModifiers::NONE), None);
    }
}
