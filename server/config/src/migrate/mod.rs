//! `rwsgi migrate FILE|COMMAND`: what becomes of a configuration that was written for uWSGI. It reads, expands and
//! validates as `--check` does, and sorts what it finds by what the reader has to do about it.

mod deployment;
mod differences;
mod given;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fmt::Write as _;

use super::command_line;
use super::gather::Gatherer;
use super::options::{self, nearest};
use super::row::{Action, Kind};
use super::setting::Setting;
use super::settle::{self, Settled};
use super::surroundings::Surroundings;
use super::uwsgi::{self, Verdict};
use super::value::is_off;
use deployment::Start;
use given::Given;

/// The first argument that asks for this.
pub(super) const MIGRATE: &str = "migrate";

const USAGE: &str = "\
Says what becomes of a configuration that was written for uWSGI, without starting anything.

Usage: rwsgi migrate FILE
       rwsgi migrate COMMAND [ARGUMENT]...

  rwsgi migrate mysite.ini
  rwsgi migrate uwsgi --http :8000 --module mysite.wsgi --processes 4

Exit status: 0 when rwsgi does all of it, 1 when it starts and something is lost, 2 when it does not start.
";

/// How much of a configuration rwsgi does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All of it.
    Complete,
    /// It starts, and something that the configuration asks for is lost.
    Incomplete,
    /// It does not start.
    Refused,
}

/// What `rwsgi migrate` found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migration {
    /// For people.
    pub text: String,
    /// For scripts.
    pub outcome: Outcome,
}

/// Reports on `words`: what follows `rwsgi migrate`. `program` is how rwsgi was called.
pub(super) fn migrate(program: &OsString, words: &[OsString], mut around: Surroundings) -> Migration {
    let Some(start) = Start::of(program, words) else {
        let outcome = if words.is_empty() { Outcome::Refused } else { Outcome::Complete };
        return Migration { text: USAGE.into(), outcome };
    };
    around.env.extend(start.environment.iter().cloned());
    let mut gatherer = Gatherer::new(around);
    let read = command_line::parse(start.arguments()).and_then(|arguments| gatherer.gather(arguments));
    if let Err(error) = read {
        let text = format!("rwsgi does not start with this configuration.\n\nWRONG\n  {error}\n");
        return Migration { text, outcome: Outcome::Refused };
    }
    let mut settled = settle::settle(&gatherer);
    settled.allow_sockets_of_systemd(gatherer.is_strict());
    report(&start, &gatherer, &settled)
}

fn report(start: &Start, gatherer: &Gatherer, settled: &Settled) -> Migration {
    let mut sorted = Sorted::of(gatherer);
    let is_loss = |(place, _): &(usize, &String)| settled.config.losses.contains(place);
    let (losses, notes): (Vec<_>, Vec<_>) = settled.config.warnings.iter().enumerate().partition(is_loss);
    sorted.lost.extend(losses.into_iter().map(|(_, loss)| loss.clone()));
    let outcome = match (settled.errors.is_empty(), sorted.lost.is_empty()) {
        (false, _) => Outcome::Refused,
        (true, false) => Outcome::Incomplete,
        (true, true) => Outcome::Complete,
    };
    let mut text = match outcome {
        Outcome::Complete => "rwsgi starts with this configuration and does all of it.\n".to_owned(),
        Outcome::Incomplete => "rwsgi starts with this configuration; what it does not do is under LOST.\n".to_owned(),
        Outcome::Refused => "rwsgi does not start with this configuration; the reasons are under WRONG.\n".to_owned(),
    };
    let errors: Vec<String> = settled.errors.iter().map(ToString::to_string).collect();
    section(&mut text, "WRONG", "to be changed before rwsgi starts", &errors);
    section(&mut text, "LOST", "rwsgi starts without it", &sorted.lost);
    let given = Given::new(&gatherer.settings, &settled.config);
    let differences: Vec<String> = differences::that_apply(&given).map(ToString::to_string).collect();
    section(&mut text, "DIFFERS", "works differently from uWSGI", &differences);
    let notes: Vec<String> =
        notes.into_iter().map(|(_, note)| note).filter(|note| !sorted.said.contains(note)).cloned().collect();
    section(&mut text, "NOTE", "how rwsgi reads it", &notes);
    section(&mut text, "IGNORED", "no option of uWSGI either", &sorted.ignored);
    section(&mut text, "STAYS", "works as it did", &wrapped(&sorted.stays));
    section(&mut text, "NOTHING TO DO", "always so here, or nothing depends on it", &wrapped(&sorted.needless));
    for (heading, lines) in deployment::sections(start, &given) {
        let _ = writeln!(text, "\n{heading}");
        for line in lines {
            let _ = writeln!(text, "  {line}");
        }
    }
    Migration { text, outcome }
}

/// Settings by what becomes of them.
#[derive(Debug, Default)]
struct Sorted {
    stays: Vec<String>,
    needless: Vec<String>,
    /// Options that are not here; [`Config::losses`] of those that are follow.
    lost: Vec<String>,
    ignored: Vec<String>,
    /// The warnings that [`Self::lost`] and [`Self::ignored`] say already.
    said: Vec<String>,
}

impl Sorted {
    fn of(gatherer: &Gatherer) -> Self {
        let mut sorted = Self::default();
        for setting in &gatherer.settings {
            sorted.put(setting, gatherer.findings.referenced.contains(&setting.name));
        }
        for names in [&mut sorted.stays, &mut sorted.needless] {
            names.sort_unstable();
            names.dedup();
        }
        sorted
    }

    fn put(&mut self, setting: &Setting, is_referred_to: bool) {
        let warning = settle::foreign_warning(setting, is_referred_to);
        match (options::find(&setting.name), uwsgi::find(&setting.name)) {
            (Some(row), _) => match row.kind {
                Kind::Always => self.needless.push(setting.name.clone()),
                // Options that only bring other settings do nothing themselves.
                Kind::Act(
                    Action::Load(_) | Action::Inherit | Action::Set | Action::SetPlaceholder | Action::Logic(_),
                ) => {}
                _ => self.stays.push(setting.name.clone()),
            },
            (None, Some(family)) if family.verdict == Verdict::Needless || is_off(&setting.value) => {
                self.needless.push(setting.name.clone());
            }
            (None, Some(family)) if family.verdict == Verdict::Never => {
                self.lost.push(format!("{}: {}\n    {}", setting.origin, line(setting), family.advice));
            }
            // Refused: it is among the errors.
            (None, Some(_)) => {}
            (None, None) if is_referred_to => {}
            (None, None) => {
                let hint = nearest(&setting.name).map(|name| format!(" (did you mean {name}?)")).unwrap_or_default();
                self.ignored.push(format!("{}: {}{hint}", setting.origin, line(setting)));
            }
        }
        self.said.extend(warning);
    }
}

/// A setting as a line of an ini file.
fn line(setting: &Setting) -> String {
    match setting.value.as_str() {
        "" => setting.name.clone(),
        value => format!("{} = {value}", setting.name),
    }
}

fn section(text: &mut String, heading: &str, meaning: &str, items: &[String]) {
    if items.is_empty() {
        return;
    }
    let _ = writeln!(text, "\n{heading}  {meaning}");
    for item in items {
        let _ = writeln!(text, "  {item}");
    }
}

/// Names in lines that fit a terminal.
fn wrapped(names: &[String]) -> Vec<String> {
    const WIDTH: usize = 76;
    let mut lines: Vec<String> = Vec::new();
    for name in names {
        match lines.last_mut() {
            Some(line) if line.len() + 1 + name.len() <= WIDTH => {
                line.push(' ');
                line.push_str(name);
            }
            _ => lines.push(name.clone()),
        }
    }
    lines
}
