//! What rows must contain to be shown: a text, or a regular expression, in any case.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use regex_lite::{Regex, RegexBuilder};

/// A filter as it is typed.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    text: String,
    /// `None` while what is typed is no expression; it is then looked for as it stands.
    pattern: Option<Regex>,
    /// Keys go into it.
    pub(crate) editing: bool,
}

impl Filter {
    /// What was typed.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Whether it lets everything through.
    pub(crate) fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Adds a character.
    pub(crate) fn push(&mut self, character: char) {
        self.text.push(character);
        self.compile();
    }

    /// Takes the last character away.
    pub(crate) fn pop(&mut self) {
        self.text.pop();
        self.compile();
    }

    /// Empties it.
    pub(crate) fn clear(&mut self) {
        self.text.clear();
        self.compile();
    }

    /// A key while it is typed. Returns whether the key does something here.
    pub(crate) fn press(&mut self, key: KeyEvent) -> bool {
        match key.code {
            KeyCode::Char('u') if key.modifiers.contains(KeyModifiers::CONTROL) => self.clear(),
            KeyCode::Char(character) if !key.modifiers.contains(KeyModifiers::CONTROL) => self.push(character),
            KeyCode::Backspace => self.pop(),
            KeyCode::Enter => self.editing = false,
            KeyCode::Esc => {
                self.clear();
                self.editing = false;
            }
            _ => return false,
        }
        true
    }

    fn compile(&mut self) {
        self.pattern = RegexBuilder::new(&self.text).case_insensitive(true).build().ok();
    }

    /// Whether a row's text passes.
    pub(crate) fn passes(&self, row: &str) -> bool {
        match &self.pattern {
            _ if self.text.is_empty() => true,
            Some(pattern) => pattern.is_match(row),
            None => row.to_lowercase().contains(&self.text.to_lowercase()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(text: &str) -> Filter {
        let mut filter = Filter::default();
        text.chars().for_each(|character| filter.push(character));
        filter
    }

    #[test]
    fn texts_and_expressions_are_looked_for_in_any_case() {
        assert!(filter("").passes("anything"));
        assert!(filter("BUSY").passes("1 4101 busy"));
        assert!(filter("^2 |busy$").passes("2 4102 idle"));
        assert!(!filter("cheap").passes("2 4102 idle"));
        // No whole expression yet: what was typed is looked for as it stands.
        assert!(filter("/pages(").passes("GET /pages(1)"));
        assert!(!filter("/pages(").passes("GET /pages"));
    }
}
