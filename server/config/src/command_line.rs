//! The command line, made from the option table: parsing into settings in the order they were given, and `--help`.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, Command};

use super::ConfigError;
use super::getopt;
use super::options::{self, find, nearest};
use super::row::{Group, Row};
use super::setting::{Argument, Origin};

/// The id of the configuration files that stand on the command line without an option.
const FILES: &str = "FILE";

/// Reads the arguments, program name first, in the order they were given.
pub(super) fn parse(argv: impl Iterator<Item = OsString>) -> Result<Vec<Argument>, ConfigError> {
    let (own, foreign) = getopt::spell_out(argv)?;
    let matches = command().try_get_matches_from(own).map_err(explain)?;
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

/// `--help`.
pub(super) fn help() -> String {
    command().render_help().to_string()
}

fn command() -> Command {
    Command::new("rwsgi")
        .about("Serves a Python WSGI application from a pool of worker processes, and always knows how it is doing.")
        .override_usage(
            "rwsgi [OPTIONS] [FILE.ini]\n       rwsgi migrate FILE.ini | COMMAND\n       rwsgi ctl WORD ...",
        )
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
            let arg = arg.action(ArgAction::Append).value_name(value_name).allow_hyphen_values(true);
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
