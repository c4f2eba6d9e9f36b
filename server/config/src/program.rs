//! Options about configuration files and about the program itself (`--get`, `--show-config`, `exit` …).

use serde::{Deserialize, Serialize};

use super::row::{Action, Kind, Row};
use super::row::{CONFIGURATION, OTHER};

/// What the configuration has the server print at its start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcements {
    /// `--print`: lines for standard output.
    pub lines: Vec<String>,
    /// `--show-config`.
    pub(crate) show_config: bool,
    /// What `--show-config` shows, for standard error; empty without it.
    pub configuration: String,
}

const PROGRAM: Row = Row { ..OTHER };

#[rustfmt::skip]
pub(crate) static ROWS: &[Row] = &[
    Row { names: &["resolve"], kind: Kind::Act(Action::Resolve), takes: "NAME=HOST", repeats: true,
          help: "Set a key that others refer to as %(NAME) to the IPv4 address of this host", ..CONFIGURATION },
    Row { names: &["inject-before"], kind: Kind::Act(Action::InjectBefore), takes: "FILE", repeats: true,
          help: "Read the text of this file before that of each configuration file that follows", ..CONFIGURATION },
    Row { names: &["inject-after"], kind: Kind::Act(Action::InjectAfter), takes: "FILE", repeats: true,
          help: "Read the text of this file behind that of each configuration file that follows", ..CONFIGURATION },
    Row { names: &["whitelist"], kind: Kind::Act(Action::Whitelist), takes: "NAMES",
          help: "Refuse all options but these, which blanks divide, up to end-whitelist", ..CONFIGURATION },
    Row { names: &["end-whitelist"], kind: Kind::Act(Action::EndWhitelist), help: "End a whitelist", ..CONFIGURATION },
    Row { names: &["blacklist"], kind: Kind::Act(Action::Blacklist), takes: "NAMES",
          help: "Refuse these options, which blanks divide, up to end-blacklist", ..CONFIGURATION },
    Row { names: &["end-blacklist"], kind: Kind::Act(Action::EndBlacklist), help: "End a blacklist", ..CONFIGURATION },
    Row { names: &["mode"], kind: Kind::Text(|c| &mut c.mode), takes: "WORD",
          help: "A word for the application to find in uwsgi.mode", ..CONFIGURATION },
    Row { names: &["get"], kind: Kind::Act(Action::Get), takes: "NAME", repeats: true,
          help: "Print the value of this option or key, and exit", ..PROGRAM },
    Row { names: &["show-config"], kind: Kind::Flag(|c| &mut c.announcements.show_config),
          help: "Print every option as it was understood, as an ini section, and serve", ..PROGRAM },
    Row { names: &["print", "iprint"], kind: Kind::Custom(print), takes: "TEXT", repeats: true,
          help: "Print this line, and serve", ..PROGRAM },
    Row { names: &["exit"], kind: Kind::Act(Action::Exit), takes: "[STATUS]",
          help: "Exit with this status, 1 when none is given, instead of serving", ..PROGRAM },
    Row { names: &["dump-options"], kind: Kind::Act(Action::DumpOptions),
          help: "Print the names of all options, and exit", ..PROGRAM },
    Row { names: &["connect-and-read"], kind: Kind::Act(Action::ConnectAndRead), takes: "ADDRESS",
          help: "Print what comes from this address, as a stats address, and exit", ..PROGRAM },
];

fn print(config: &mut super::Config, value: &str) -> Result<(), String> {
    config.announcements.lines.push(value.to_owned());
    Ok(())
}
