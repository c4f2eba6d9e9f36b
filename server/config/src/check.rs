//! `--check`: reads, expands and validates as if to serve, and prints what is in force and where each value came from.

use std::fmt::Write as _;

use super::gather::Gatherer;
use super::options::{self, find};
use super::row::Row;
use super::setting::{Argument, Setting};
use super::settle::settle;
use super::surroundings::Surroundings;
use super::uwsgi;

/// The option that asks for a report.
pub(super) const CHECK: &str = "check";

/// What `--check` found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// For people, and steady enough to compare: what is in force as an ini section, then warnings, then errors.
    pub text: String,
    /// Would the server start with this configuration?
    pub ok: bool,
}

pub(super) fn report(arguments: Vec<Argument>, around: Surroundings) -> Report {
    // The file to check is read like any other that is named.
    let named = |argument| match argument {
        Argument::Option(name, file) if name == CHECK => Argument::File(file),
        argument => argument,
    };
    let mut gatherer = Gatherer::new(around);
    if let Err(error) = gatherer.gather(arguments.into_iter().map(named).collect()) {
        return Report { text: format!("error: {error}\n"), ok: false };
    }
    let mut settled = settle(&gatherer);
    settled.allow_sockets_of_systemd(gatherer.is_strict());
    // With --show-config, first every setting in its order, as the server would show it.
    let mut text = std::mem::take(&mut settled.config.announcements.configuration) + "[rwsgi]\n";
    let mut lines: Vec<(String, String)> = options::all().flat_map(|row| given(row, &gatherer.settings)).collect();
    for setting in gatherer.settings.iter().filter(|setting| find(&setting.name).is_none()) {
        let referred = gatherer.findings.referenced.contains(&setting.name) && uwsgi::find(&setting.name).is_none();
        let use_made = if referred { "referred to" } else { "no effect" };
        lines.push((format!("{} = {}", setting.name, setting.value), format!("{}, {use_made}", setting.origin)));
    }
    let is_given = |row: &Row| gatherer.settings.iter().any(|setting| row.names.contains(&setting.name.as_str()));
    for row in options::all().filter(|row| !row.default.is_empty() && !is_given(row)) {
        // The one default that is the machine's.
        let listen = settled.config.listen.to_string();
        let default = if row.names[0] == "listen" { &listen } else { row.default };
        lines.push((format!("{} = {default}", row.names[0]), "default".into()));
    }
    let width = lines.iter().map(|(line, _)| line.chars().count()).filter(|width| *width <= 60).max().unwrap_or(0);
    for (line, origin) in &lines {
        let _ = writeln!(text, "{line:width$}  ; {origin}");
    }
    for warning in &settled.config.warnings {
        let _ = writeln!(text, "warning: {warning}");
    }
    for error in &settled.errors {
        let _ = writeln!(text, "error: {error}");
    }
    Report { text, ok: settled.errors.is_empty() }
}

/// The lines for an option that was given: one for each that counts.
fn given(row: &Row, settings: &[Setting]) -> Vec<(String, String)> {
    let given: Vec<&Setting> = settings.iter().filter(|setting| row.names.contains(&setting.name.as_str())).collect();
    let value = |setting: &Setting| if setting.value.is_empty() { "true".to_owned() } else { setting.value.clone() };
    let line = |setting: &Setting| format!("{} = {}", row.names[0], value(setting));
    match given.as_slice() {
        [] => Vec::new(),
        given if row.accumulates() => given.iter().map(|setting| (line(setting), setting.origin.to_string())).collect(),
        [before @ .., last] => {
            let before: Vec<String> =
                before.iter().map(|setting| format!(", instead of {} at {}", value(setting), setting.origin)).collect();
            vec![(line(last), format!("{}{}", last.origin, before.concat()))]
        }
    }
}
