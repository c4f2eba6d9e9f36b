//! What a row of the option table is made of, and how its kind turns a value as written into a field of [`Config`].
//!
//! The kind of a row is both its parser and its destination, so that an option cannot be documented, accepted on the
//! command line or in a file, and yet end nowhere.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use rwsgi_stats::Address;

use super::logic::Logic;
use super::{Config, value};

/// The order that a running server gets through its pidfile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Finish and exit.
    Stop,
    /// Replace the running generation by a new one.
    Reload,
}

/// The heading under which `--help` and the reference list an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    Sockets,
    Application,
    Workers,
    Adaptive,
    Recycling,
    Requests,
    Routing,
    Files,
    Process,
    Reload,
    Hooks,
    Logging,
    Alarms,
    Stats,
    Spooler,
    Daemons,
    Crons,
    Between,
    Emperor,
    Configuration,
    Logic,
    Other,
}

impl Group {
    pub(crate) const fn heading(self) -> &'static str {
        match self {
            Self::Sockets => "Sockets",
            Self::Application => "Application",
            Self::Workers => "Workers",
            Self::Adaptive => "Adaptive number of workers",
            Self::Recycling => "Recycling of workers",
            Self::Requests => "Requests",
            Self::Routing => "Rules for requests and responses",
            Self::Files => "Files served without the application",
            Self::Process => "Process",
            Self::Reload => "Reload",
            Self::Hooks => "Hooks",
            Self::Logging => "Logging",
            Self::Alarms => "Alarms",
            Self::Stats => "Stats",
            Self::Spooler => "Spooler",
            Self::Daemons => "Programs that run with the server",
            Self::Crons => "Crons and timers",
            Self::Between => "Shared between processes",
            Self::Emperor => "Emperor and vassals",
            Self::Configuration => "Configuration",
            Self::Logic => "Logic in configuration files",
            Self::Other => "Other",
        }
    }
}

/// What an option does instead of setting a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Reads a file in this notation; `None` goes by the name's end.
    Load(Option<super::files::Notation>),
    /// Reads a file once everything else has been read.
    Inherit,
    /// Sets the option or key that is in its value.
    Set,
    /// The same for what must not be an option.
    SetPlaceholder,
    /// Opens or closes a block.
    Logic(Logic),
    /// Reads an ini file that PasteDeploy loads the application from; sets up logging from it too, if so.
    LoadPaste {
        logged: bool,
    },
    /// Sets a key to the address of a name.
    Resolve,
    /// Takes the lines of this file before those of each configuration file that is read from now on, or after them.
    InjectBefore,
    InjectAfter,
    /// Allows only these options from here on, or all but these.
    Whitelist,
    Blacklist,
    /// Allows all again.
    EndWhitelist,
    EndBlacklist,
    /// Ends the program with this status.
    Exit,
    /// Prints the value of an option.
    Get,
    DumpOptions,
    /// Prints what comes from an address.
    ConnectAndRead,
    /// Reports on a file instead of serving.
    Check,
    /// Makes an option that stands for others.
    Declare,
    /// Makes a key that uWSGI does not know an error.
    Strict,
    /// Sends an order to the server of a pidfile.
    Signal(Order),
    /// Prints what the threads of the server of a pidfile, or of a control socket, execute.
    Stacks,
    Help,
    Version,
    PythonVersion,
}

impl Action {
    pub(crate) fn is_instead_of_serving(self) -> bool {
        matches!(
            self,
            Self::Check
                | Self::Signal(_)
                | Self::Stacks
                | Self::Help
                | Self::Version
                | Self::PythonVersion
                | Self::Get
                | Self::DumpOptions
                | Self::ConnectAndRead
        )
    }
}

/// How a value is read and where it goes.
pub(crate) enum Kind {
    /// Present or absent; in a file anything but `false`, `no`, `off` and `0` is yes.
    Flag(fn(&mut Config) -> &mut bool),
    /// A whole number; one outside the range becomes the nearest inside.
    Number(fn(&mut Config) -> &mut u32, RangeInclusive<u32>),
    /// The same, often of bytes.
    Large(fn(&mut Config) -> &mut u64, RangeInclusive<u64>),
    /// A whole number, where 0 takes the limit away.
    Limit(fn(&mut Config) -> &mut Option<u32>),
    /// Megabytes, with a fraction if need be, where 0 takes the limit away; kept as bytes.
    Megabytes(fn(&mut Config) -> &mut Option<u64>),
    /// Octal permissions of three digits.
    Mode(fn(&mut Config) -> &mut Option<u32>),
    /// Any text.
    Text(fn(&mut Config) -> &mut Option<String>),
    /// Any text: each use adds one.
    Texts(fn(&mut Config) -> &mut Vec<String>),
    /// Socket addresses: each use adds one.
    Addresses(fn(&mut Config) -> &mut Vec<Address>),
    /// A file or directory.
    Path(fn(&mut Config) -> &mut Option<PathBuf>),
    /// Files or directories: each use adds one.
    Paths(fn(&mut Config) -> &mut Vec<PathBuf>),
    /// A value with rules of its own. The error says what was expected.
    Custom(fn(&mut Config, &str) -> Result<(), String>),
    /// Accepted for the sake of existing files: what it asks for is always so, or never needed here.
    Always,
    /// Handled while the configuration is gathered, or instead of serving.
    Act(Action),
}

/// One option: everything that is known of it.
pub(crate) struct Row {
    /// Long names, the one to use first.
    pub(crate) names: &'static [&'static str],
    pub(crate) short: Option<char>,
    pub(crate) kind: Kind,
    /// What the value stands for in `--help`; empty for what takes none.
    pub(crate) takes: &'static str,
    /// What is in force without it, as text for the reader; empty where "nothing" goes without saying.
    pub(crate) default: &'static str,
    /// Does each use add to the ones before? Where the kind does not say.
    pub(crate) repeats: bool,
    /// Is the value a command of the shell, or may it have one in it? `$NAME` and `$(command)` are the shell's then.
    pub(crate) is_for_shell: bool,
    /// One sentence or two.
    pub(crate) help: &'static str,
    /// The version of rwsgi that brought it.
    #[cfg_attr(not(test), expect(dead_code, reason = "for the pages of docs/, which a test makes"))]
    pub(crate) since: &'static str,
    pub(crate) group: Group,
}

impl Row {
    pub(crate) fn takes_value(&self) -> bool {
        !self.takes.is_empty()
    }

    /// May the value be left out (`-C`, `--chmod-socket=660`)?
    pub(crate) fn value_is_optional(&self) -> bool {
        self.takes.starts_with('[')
    }

    /// Does each use add to the ones before, rather than replace them?
    pub(crate) fn accumulates(&self) -> bool {
        self.repeats
            || matches!(self.kind, Kind::Addresses(_) | Kind::Paths(_) | Kind::Texts(_) | Kind::Act(Action::Load(_)))
    }

    /// Puts `value` where it belongs, and warns where it is not read as it may have been meant.
    ///
    /// # Errors
    /// What is wrong with the value: what was expected, and what it is.
    pub(crate) fn set(&self, config: &mut Config, value: &str) -> Result<(), String> {
        if let Kind::Addresses(field) = &self.kind {
            let address = value::address(config, value)?;
            field(config).push(address);
            return Ok(());
        }
        self.set_plain(config, value).map_err(|expected| format!("expected {expected}, got '{value}'"))
    }

    /// As [`Self::set`]; the error is only what was expected.
    fn set_plain(&self, config: &mut Config, value: &str) -> Result<(), String> {
        match &self.kind {
            Kind::Flag(field) => *field(config) = value::flag(config, value),
            Kind::Number(field, range) => *field(config) = value::leading_number(config, value, range)?,
            Kind::Large(field, range) => *field(config) = value::leading_number(config, value, range)?,
            Kind::Limit(field) => {
                let limit = value::leading_number(config, value, &(0..=u32::MAX))?;
                *field(config) = Some(limit).filter(|limit| *limit > 0);
            }
            Kind::Megabytes(field) => *field(config) = value::megabytes(config, value)?,
            Kind::Mode(field) => *field(config) = Some(value::umask(config, value)?),
            Kind::Text(field) => *field(config) = Some(value.to_owned()),
            Kind::Texts(field) => field(config).push(value.to_owned()),
            Kind::Path(field) => *field(config) = Some(value::path(value)?),
            Kind::Paths(field) => field(config).push(value::path(value)?),
            Kind::Custom(set) => set(config, value)?,
            Kind::Always | Kind::Act(_) | Kind::Addresses(_) => {}
        }
        Ok(())
    }
}

/// What most rows have in common; each group's rows start from theirs.
pub(crate) const OTHER: Row = Row {
    names: &[],
    short: None,
    kind: Kind::Always,
    takes: "",
    default: "",
    repeats: false,
    is_for_shell: false,
    help: "",
    since: "0.1",
    group: Group::Other,
};
pub(crate) const SOCKETS: Row = Row { group: Group::Sockets, takes: "ADDRESS", ..OTHER };
pub(crate) const APPLICATION: Row = Row { group: Group::Application, ..OTHER };
pub(crate) const WORKERS: Row = Row { group: Group::Workers, ..OTHER };
pub(crate) const ADAPTIVE: Row = Row { group: Group::Adaptive, ..OTHER };
pub(crate) const RECYCLING: Row = Row { group: Group::Recycling, ..OTHER };
pub(crate) const REQUESTS: Row = Row { group: Group::Requests, ..OTHER };
pub(crate) const ROUTING: Row = Row { group: Group::Routing, repeats: true, ..OTHER };
pub(crate) const FILES: Row = Row { group: Group::Files, ..OTHER };
pub(crate) const PROCESS: Row = Row { group: Group::Process, ..OTHER };
pub(crate) const RELOAD: Row = Row { group: Group::Reload, ..OTHER };
pub(crate) const LOGGING: Row = Row { group: Group::Logging, ..OTHER };
pub(crate) const STATS: Row = Row { group: Group::Stats, ..OTHER };
pub(crate) const SPOOLER: Row = Row { group: Group::Spooler, ..OTHER };
pub(crate) const BETWEEN: Row = Row { group: Group::Between, ..OTHER };
pub(crate) const LOGIC: Row = Row { group: Group::Logic, ..OTHER };
pub(crate) const CONFIGURATION: Row = Row { group: Group::Configuration, ..OTHER };
