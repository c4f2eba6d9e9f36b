//! How often a thread's application raised what: a small table of class names. Only what raises pays for it.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::counters::add;
use super::text::SharedText;

/// Names that are told apart; what is raised beyond them is counted together.
const NAMES: usize = 20;
/// The longest name that is kept whole, in words of eight bytes. Of two that are the same up to there, nobody sees two.
const NAME_WORDS: usize = 8;

/// What stands in the place of names that have no place of their own.
pub const OTHER_ERRORS: &str = "(other)";

/// Counts of exceptions by class name; one thread writes it.
#[repr(C)]
pub struct ErrorCells {
    /// In the order in which they were raised first; one whose count is 0 is free.
    names: [ErrorCell; NAMES],
    other: AtomicU64,
}

#[repr(C)]
struct ErrorCell {
    count: AtomicU64,
    name: SharedText<NAME_WORDS>,
}

impl ErrorCells {
    /// Counts one.
    pub fn count(&self, kind: &str) {
        // To the last character that fits whole; a character has four bytes at most.
        let longest = NAME_WORDS * 8;
        let end = if kind.len() <= longest { kind.len() } else { longest - 3 };
        let end = (end..=kind.len().min(longest)).rev().find(|end| kind.is_char_boundary(*end)).unwrap_or(0);
        let kind = &kind.as_bytes()[..end];
        for cell in &self.names {
            if cell.count.load(Relaxed) == 0 {
                cell.name.store(kind);
                // Who sees the count sees the name.
                cell.count.store(1, Release);
                return;
            }
            if cell.name.load() == kind {
                return add(&cell.count, 1);
            }
        }
        add(&self.other, 1);
    }

    /// Adds what was counted to `errors`. No more than `most` is believed in all: each was counted as an exception as well.
    pub fn add_to(&self, errors: &mut Errors, most: u64) {
        let named = self.names.iter().map_while(|cell| {
            let count = cell.count.load(Acquire);
            (count > 0).then(|| (cell.name.load_text(), count))
        });
        let other = self.other.load(Relaxed);
        let other = (other > 0).then(|| (OTHER_ERRORS.to_owned(), other));
        let mut left = most;
        for (name, count) in named.chain(other) {
            let count = count.min(left);
            left -= count;
            errors.add(&name, count);
        }
    }
}

/// Names that [`Errors`] tells apart.
const MOST_NAMES: usize = 100;

/// Exceptions of several threads by class name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Errors(std::collections::BTreeMap<String, u64>);

impl Errors {
    /// Adds so many of a class.
    pub fn add(&mut self, name: &str, count: u64) {
        if count == 0 {
            return;
        }
        let is_known = self.0.len() < MOST_NAMES || self.0.contains_key(name);
        let sum = self.0.entry(if is_known { name } else { OTHER_ERRORS }.to_owned()).or_default();
        *sum = sum.saturating_add(count);
    }

    /// Adds all that another has.
    pub fn merge(&mut self, other: &Self) {
        other.0.iter().for_each(|(name, count)| self.add(name, *count));
    }

    /// The `most` most frequent, the first first; the last of them is for all others, when there are more.
    #[must_use]
    pub fn most_frequent(&self, most: usize) -> Vec<(String, u64)> {
        let mut all: Vec<(String, u64)> = self.0.iter().map(|(name, count)| (name.clone(), *count)).collect();
        all.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        if all.len() > most {
            let (others, named): (Vec<_>, Vec<_>) =
                all.into_iter().enumerate().partition(|(place, (name, _))| *place + 1 >= most || name == OTHER_ERRORS);
            let sum = others.iter().fold(0, |sum: u64, (_, (_, count))| sum.saturating_add(*count));
            all = named.into_iter().map(|(_, named)| named).chain([(OTHER_ERRORS.to_owned(), sum)]).collect();
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn zeroed() -> Box<ErrorCells> {
        let cell = || ErrorCell { count: AtomicU64::new(0), name: SharedText::empty() };
        Box::new(ErrorCells { names: std::array::from_fn(|_| cell()), other: AtomicU64::new(0) })
    }

    fn read(cells: &ErrorCells, most: u64) -> Errors {
        let mut errors = Errors::default();
        cells.add_to(&mut errors, most);
        errors
    }

    #[test]
    fn names_beyond_the_table_are_counted_together() {
        let cells = zeroed();
        for kind in 0..NAMES + 5 {
            cells.count(&format!("Error{kind:02}"));
            cells.count("Error00");
        }
        let errors = read(&cells, u64::MAX).most_frequent(100);
        assert_eq!(errors[0], ("Error00".to_owned(), NAMES as u64 + 6));
        assert!(errors.contains(&(OTHER_ERRORS.to_owned(), 5)), "{errors:?}");
        assert_eq!(errors.len(), NAMES + 1);
    }

    #[test]
    fn a_name_that_is_too_long_is_cut_between_two_characters_and_is_one_name() {
        let cells = zeroed();
        let long = "é".repeat(100);
        cells.count(&long);
        cells.count(&long);
        assert_eq!(read(&cells, 9).most_frequent(20), [("é".repeat(32), 2)]);
    }

    #[test]
    fn more_than_were_raised_are_not_believed() {
        let cells = zeroed();
        cells.count("ValueError");
        cells.names[0].count.store(u64::MAX, Relaxed);
        assert_eq!(read(&cells, 3).most_frequent(20), [("ValueError".to_owned(), 3)]);
    }

    proptest! {
        #[test]
        fn none_is_lost_whatever_is_shown(kinds in prop::collection::vec(0..200u32, 0..400), most in 1..30usize) {
            let mut errors = Errors::default();
            for kind in &kinds {
                errors.add(&format!("E{kind}"), 1);
            }
            let shown = errors.most_frequent(most);
            prop_assert!(shown.len() <= most);
            prop_assert_eq!(shown.iter().map(|(_, count)| count).sum::<u64>(), kinds.len() as u64);
        }
    }
}
