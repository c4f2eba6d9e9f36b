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
    ($($action:ident $name:literal [$($key:literal),*] $hint:literal $help:literal;)*) => {
        &[$(Binding { action: Action::$action, name: $name, keys: &[$($key),*], hint: $hint, help: $help }),*]
    };
}

/// Every binding, in the order of the help overlay.
pub(crate) const BINDINGS: &[Binding] = bindings! {
    Quit "quit" ["q", "ctrl-c"] "quit" "leave";
    Back "back" ["esc"] "" "close what is open, clear the selection";
    Cores "cores" ["a"] "cores" "cores: off, merged with workers, under workers";
    Fast "fast" ["f"] "fast" "ten readings a second, or as --frequency says";
    Up "up" ["up", "k"] "" "select the row above";
    Down "down" ["down", "j"] "" "select the row below";
    PageUp "page-up" ["pageup"] "" "a page up";
    PageDown "page-down" ["pagedown"] "" "a page down";
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

/// What the table says that a key does.
pub(crate) fn action_of(key: KeyEvent) -> Option<Action> {
    let name = name_of(key)?;
    BINDINGS.iter().find(|binding| binding.keys.contains(&name.as_str())).map(|binding| binding.action)
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
    fn keys_are_named_as_the_table_writes_them() {
        let key = |code, modifiers| action_of(KeyEvent::new(code, modifiers));
        assert_eq!(key(KeyCode::Char('q'), KeyModifiers::NONE), Some(Action::Quit));
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Action::Quit));
        assert_eq!(key(KeyCode::PageUp, KeyModifiers::NONE), Some(Action::PageUp));
        assert_eq!(key(KeyCode::F(12), KeyModifiers::NONE), None);
    }
}
