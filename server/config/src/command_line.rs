//! The command line, made from the option table: parsing into settings in the order they were given, and `--help`.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, Command};

use super::ConfigError;
use super::options::{self, find, nearest};
use super::row::{Group, Row};
use super::setting::{Argument, Origin};
use super::uwsgi::{self, Family};

/// The id of the configuration files that stand on the command line without an option.
const FILES: &str = "FILE";

/// Reads the arguments, program name first, in the order they were given.
pub(super) fn parse(argv: impl Iterator<Item = OsString>) -> Result<Vec<Argument>, ConfigError> {
    let (own, foreign) = foreign(argv);
    let matches = command().try_get_matches_from(own.into_iter().map(attach)).map_err(explain)?;
    let mut found: Vec<(usize, Argument)> = foreign.into_iter().map(|argument| (0, argument)).collect();
    for id in matches.ids().map(clap::Id::as_str) {
        let indices = matches.indices_of(id).into_iter().flatten();
        if id == FILES {
            let files = matches.get_many::<String>(id).into_iter().flatten().cloned().map(Argument::File);
            found.extend(indices.zip(files));
        } else if find(id).is_some_and(Row::takes_value) {
            let values = matches.get_many::<String>(id).into_iter().flatten();
            let options = values.map(|value| Argument::Option(id.to_owned(), value.clone()));
            found.extend(indices.zip(options));
        } else if matches.get_flag(id) {
            found.extend(indices.last().map(|index| (index, Argument::Option(id.to_owned(), "true".into()))));
        }
    }
    found.sort_by_key(|(index, _)| *index);
    Ok(found.into_iter().map(|(_, argument)| argument).collect())
}

/// getopt reads `-C660` as `-C` with a value, where clap wants an equals sign if the value may be left out.
fn attach(word: OsString) -> OsString {
    let optional = |short| options::all().any(|row| row.short == Some(short) && row.value_is_optional());
    let split = word.to_str().and_then(|word| {
        let (short, value) = word.strip_prefix('-')?.split_at_checked(1)?;
        (short.starts_with(optional) && !value.is_empty() && !value.starts_with('='))
            .then(|| format!("-{short}={value}"))
    });
    split.map_or(word, OsString::from)
}

/// Takes out uWSGI's options that rwsgi does not have; they are reported with what to use instead. clap need not know
/// a thousand names that have no effect. Where they stood does not matter, for the same reason.
fn foreign(argv: impl Iterator<Item = OsString>) -> (Vec<OsString>, Vec<Argument>) {
    let (mut own, mut foreign) = (Vec::new(), Vec::new());
    let mut words = argv.peekable();
    while let Some(word) = words.next() {
        let Some((name, attached, family)) = word.to_str().and_then(foreign_option) else {
            own.push(word);
            continue;
        };
        let value = match attached {
            Some(value) => value,
            None if family.values.contains(&name) => {
                words.next().map(|value| value.to_string_lossy().into_owned()).unwrap_or_default()
            }
            None => String::new(),
        };
        foreign.push(Argument::Option(name.to_owned(), value));
    }
    (own, foreign)
}

/// The option that a word is, and the value in the same word.
fn foreign_option(word: &str) -> Option<(&'static str, Option<String>, &'static Family)> {
    let (name, value) = match word.strip_prefix("--") {
        Some(long) => match long.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (long, None),
        },
        None => {
            let mut letters = word.strip_prefix('-')?.chars();
            let short = letters.next()?;
            let name = uwsgi::SHORTS.iter().find(|(known, _)| *known == short)?.1;
            (name, Some(letters.as_str().to_owned()).filter(|value| !value.is_empty()))
        }
    };
    let family = uwsgi::find(name)?;
    let name = family.names().find(|known| *known == name)?;
    Some((name, value, family))
}

/// `--help`.
pub(super) fn help() -> String {
    command().render_help().to_string()
}

fn command() -> Command {
    Command::new("rwsgi")
        .about("Serves a Python WSGI application from a pool of worker processes, and always knows how it is doing.")
        .override_usage("rwsgi [OPTIONS] [FILE.ini]\n       rwsgi migrate FILE.ini | COMMAND")
        .after_help(
            "EXAMPLES\n  \
             rwsgi --http :9090 --wsgi-file foobar.py\n  \
             rwsgi --http :8000 --module mysite.wsgi:application --chdir /opt/mysite --processes 4 --threads 2\n  \
             rwsgi --socket /run/mysite.sock --module mysite.wsgi --processes 4 --stats 127.0.0.1:9191\n  \
             rwsgi mysite.ini\n  \
             rwsgi migrate mysite.ini\n\n\
             ADDRESSES\n  \
             host:port, :port for every interface, [::1]:port, /path/to.sock, @abstract\n\n\
             FILES\n  \
             Every option can stand in a file, without its dashes: 'processes = 4' in a section [uwsgi].\n  \
             The last of several wins; a socket, a path or a file that is given again is added.\n\n\
             Watch the server with rtop on its --stats address.",
        )
        .disable_help_flag(true)
        .disable_version_flag(true)
        // getopt takes any beginning of a name that only one has, and so do people's scripts.
        .infer_long_args(true)
        .args_override_self(true)
        .args(options::all().flat_map(arguments))
        .arg(
            Arg::new(FILES)
                .num_args(0..)
                .action(ArgAction::Append)
                .help("Configuration files to read after the other options"),
        )
}

/// An argument for each name of the option, so that what was typed is what messages say; the first is the one shown.
fn arguments(row: &'static Row) -> impl Iterator<Item = Arg> {
    row.names.iter().enumerate().map(|(index, &name)| {
        let arg =
            Arg::new(name).long(name).hide(index > 0 || row.group == Group::Logic).help_heading(row.group.heading());
        let arg = match row.short {
            Some(short) if index == 0 => arg.short(short),
            _ => arg,
        };
        let optional = row.takes.strip_prefix('[').and_then(|takes| takes.strip_suffix(']'));
        let value_name = optional.unwrap_or(row.takes);
        let arg = if row.takes_value() {
            let arg = arg.action(ArgAction::Append).value_name(value_name).allow_negative_numbers(true);
            if row.value_is_optional() {
                arg.num_args(0..=1).require_equals(true).default_missing_value("")
            } else {
                arg
            }
        } else {
            arg.action(ArgAction::SetTrue)
        };
        arg.help(super::reference::sentence(row))
    })
}

/// clap's errors are paragraphs; ours are a line.
fn explain(error: clap::Error) -> ConfigError {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    // As in usage: '--processes <N>', '--master...'.
    let usage = text(ContextKind::InvalidArg).unwrap_or_default();
    let option = usage.split([' ', '.']).next().unwrap_or_default();
    match error.kind() {
        ErrorKind::UnknownArgument => {
            let name = option.trim_start_matches('-').to_owned();
            ConfigError::UnknownOption {
                origin: Origin::CommandLine,
                nearest: nearest(&name).map(|near| format!("--{near}")),
                name: option.to_owned(),
            }
        }
        ErrorKind::InvalidValue | ErrorKind::WrongNumberOfValues | ErrorKind::TooFewValues => {
            ConfigError::CommandLine(format!("{usage} needs a value"))
        }
        ErrorKind::TooManyValues => ConfigError::CommandLine(format!("{option} takes no value")),
        _ => {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            ConfigError::CommandLine(line.trim_start_matches("error: ").to_owned())
        }
    }
}
