//! The names of options on the command line, as getopt_long reads them: any beginning of a name will do that only one
//! option has, and an option that needs a value takes the next word, whatever that begins with.
//!
//! What a beginning stands for is decided over all names of uWSGI's, those that we lack too, so that it means the same here.

use std::ffi::OsString;

use super::options;
use super::row::Row;
use super::setting::{Argument, Origin};
use super::uwsgi::{self, Family, OWN};
use super::{ConfigError, options::nearest};

/// An option that a word of the command line names.
#[derive(Clone, Copy)]
enum Named {
    Ours(&'static str, &'static Row),
    /// One of uWSGI's that we do not have.
    Foreign(&'static str, &'static Family),
}

impl Named {
    fn name(self) -> &'static str {
        match self {
            Self::Ours(name, _) | Self::Foreign(name, _) => name,
        }
    }

    /// Do both stand for one option?
    fn is(self, other: Self) -> bool {
        match (self, other) {
            (Self::Ours(_, row), Self::Ours(_, other)) => std::ptr::eq(row, other),
            (one, other) => one.name() == other.name(),
        }
    }
}

/// Writes long options out in full, each with its value in the same word, for clap. Takes out uWSGI's options that
/// rwsgi does not have: they are reported with what to use instead, and clap need not know a thousand names that have no
/// effect. Where they stood does not matter, for the same reason.
///
/// # Errors
/// A name that is none, or the beginning of several.
pub(super) fn spell_out(argv: impl Iterator<Item = OsString>) -> Result<(Vec<OsString>, Vec<Argument>), ConfigError> {
    let (mut own, mut foreign) = (Vec::new(), Vec::new());
    let mut words = argv.peekable();
    own.extend(words.next());
    while let Some(word) = words.next() {
        let Some(text) = word.to_str() else {
            own.push(word);
            continue;
        };
        if text == "--" {
            own.push(word);
            own.extend(words);
            break;
        }
        match text.strip_prefix("--") {
            Some(long) => {
                let (given, attached) = match long.split_once('=') {
                    Some((name, value)) => (name, Some(value)),
                    None => (long, None),
                };
                match long_option(given)? {
                    Named::Ours(name, row) => {
                        let mut full = OsString::from(format!("--{name}"));
                        let needs_value = row.takes_value() && !row.value_is_optional();
                        let value = match attached {
                            Some(value) => Some(value.into()),
                            None if needs_value => words.next(),
                            None => None,
                        };
                        if let Some(value) = value {
                            full.push("=");
                            full.push(value);
                        }
                        own.push(full);
                    }
                    Named::Foreign(name, family) => {
                        let value = match attached {
                            Some(value) => value.to_owned(),
                            None if family.values.contains(&name) => next_as_text(&mut words),
                            None => String::new(),
                        };
                        foreign.push(Argument::Option(name.to_owned(), value));
                    }
                }
            }
            None if text.len() > 1 && text.starts_with('-') => {
                short_options(&text[1..], &mut words, &mut own, &mut foreign);
            }
            None => own.push(word),
        }
    }
    Ok((own, foreign))
}

fn next_as_text(words: &mut impl Iterator<Item = OsString>) -> String {
    words.next().map(|value| value.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The option that a long name, or the beginning of one, stands for.
fn long_option(given: &str) -> Result<Named, ConfigError> {
    let named = || {
        let ours = options::all().flat_map(|row| row.names.iter().map(move |name| Named::Ours(name, row)));
        ours.chain(uwsgi::families().flat_map(|family| family.names().map(move |name| Named::Foreign(name, family))))
    };
    if let Some(exact) = named().find(|option| option.name() == given) {
        return Ok(exact);
    }
    let begun = |own: bool| -> Vec<Named> {
        let begins = |option: &Named| option.name().starts_with(given) && OWN.contains(&option.name()) == own;
        named().filter(begins).collect()
    };
    let (uwsgis, own) = (begun(false), begun(true));
    let candidates = if uwsgis.is_empty() { own } else { uwsgis };
    match candidates.as_slice() {
        [first, others @ ..] if others.iter().all(|other| other.is(*first)) => Ok(*first),
        [] => Err(ConfigError::UnknownOption {
            origin: Origin::CommandLine,
            nearest: nearest(given).map(|near| format!("--{near}")),
            name: format!("--{given}"),
        }),
        several => {
            let mut names: Vec<String> = several.iter().map(|option| format!("--{}", option.name())).collect();
            names.sort_unstable();
            let more = names.len().saturating_sub(10);
            names.truncate(10);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            let problem = format!("--{given} is the beginning of several options: {}{more}", names.join(", "));
            Err(ConfigError::CommandLine(problem))
        }
    }
}

/// Writes out a word of short options: letters without a value, up to one that takes the rest of the word, or else the next
/// word, as its value.
fn short_options(
    letters: &str,
    words: &mut impl Iterator<Item = OsString>,
    own: &mut Vec<OsString>,
    foreign: &mut Vec<Argument>,
) {
    for (index, letter) in letters.char_indices() {
        let rest = &letters[index + letter.len_utf8()..];
        match short_option(letter) {
            Some(Named::Ours(name, row)) => {
                let mut full = OsString::from(format!("--{name}"));
                let value = match (rest, row.takes_value()) {
                    (_, false) => None,
                    ("", true) if row.value_is_optional() => None,
                    ("", true) => words.next(),
                    (rest, true) => Some(rest.into()),
                };
                if let Some(value) = value {
                    full.push("=");
                    full.push(value);
                }
                own.push(full);
                if row.takes_value() {
                    return;
                }
            }
            Some(Named::Foreign(name, family)) => {
                let takes_value = family.values.contains(&name);
                let value = match rest {
                    _ if !takes_value => String::new(),
                    "" => next_as_text(words),
                    rest => rest.to_owned(),
                };
                foreign.push(Argument::Option(name.to_owned(), value));
                if takes_value {
                    return;
                }
            }
            // clap says that there is none.
            None => own.push(format!("-{letter}").into()),
        }
    }
}

fn short_option(letter: char) -> Option<Named> {
    if let Some(row) = options::all().find(|row| row.short == Some(letter)) {
        return Some(Named::Ours(row.names[0], row));
    }
    let name = uwsgi::SHORTS.iter().find(|(known, _)| *known == letter)?.1;
    uwsgi::find(name).map(|family| Named::Foreign(name, family))
}
