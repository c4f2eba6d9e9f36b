//! The rows of the options about logs, and how each sets its field.

use super::{AccessFormat, LogDate, LogEncoder, LogRoute, Logger, line_pattern};
use crate::Config;
use crate::row::Kind::{Always, Custom, Flag, Large, Limit, Mode, Number};
use crate::row::LOGGING;
use crate::row::Row;
use crate::value::{is_off, is_on};

type Outcome = Result<(), String>;

#[rustfmt::skip]
pub(crate) static ROWS: &[Row] = &[
    Row { names: &["log-format", "logformat"], kind: Custom(format), takes: "FORMAT",
          help: "What each line of the access log says, with variables as in %(uri)", ..LOGGING },
    Row { names: &["access-log-format"], kind: Custom(named_format), takes: "NAME", default: "rwsgi",
          help: "The format of the access log: rwsgi, uwsgi, combined, json or logfmt", ..LOGGING },
    Row { names: &["log-format-strftime", "logformat-strftime"], kind: Flag(|c| &mut c.logs.strftime),
          help: "Write %(ftime) in log-format as log-date says", ..LOGGING },
    Row { names: &["log-date", "logdate", "log-prefix"], kind: Custom(date), takes: "[FORMAT]",
          help: "Begin the server's own lines with the local time, in a format of strftime", ..LOGGING },
    Row { names: &["log-micros"], kind: Flag(|c| &mut c.logs.micros),
          help: "Give durations in microseconds, in the formats rwsgi and uwsgi", ..LOGGING },
    Row { names: &["log-x-forwarded-for"], kind: Flag(|c| &mut c.logs.x_forwarded_for),
          help: "Log what X-Forwarded-For says as the client's address", ..LOGGING },
    Row { names: &["log-zero"], kind: Flag(|c| &mut c.logs.only.zero),
          help: "With disable-logging: log requests whose response has no body", ..LOGGING },
    Row { names: &["log-slow"], kind: Limit(|c| &mut c.logs.only.slow), takes: "MS",
          help: "With disable-logging: log requests that took so many milliseconds or more", ..LOGGING },
    Row { names: &["log-4xx"], kind: Flag(|c| &mut c.logs.only.client_errors),
          help: "With disable-logging: log requests with a status from 400 to 499", ..LOGGING },
    Row { names: &["log-5xx"], kind: Flag(|c| &mut c.logs.only.server_errors),
          help: "With disable-logging: log requests with a status from 500 to 599", ..LOGGING },
    Row { names: &["log-big"], kind: Large(|c| &mut c.logs.only.big, 0..=u64::MAX), takes: "BYTES",
          help: "With disable-logging: log requests whose response's body has so many bytes or more", ..LOGGING },
    Row { names: &["log-sendfile"], kind: Flag(|c| &mut c.logs.only.sendfile), takes: "BOOL",
          help: "With disable-logging: log requests that a file answers (wsgi.file_wrapper, static files)", ..LOGGING },
    Row { names: &["log-ioerror"], kind: Flag(|c| &mut c.logs.only.io_errors), takes: "BOOL",
          help: "With disable-logging: log requests whose client went away", ..LOGGING },
    Row { names: &["logger"], kind: Custom(logger), takes: "KIND[:WHERE]", repeats: true,
          help: "Send every line of the log there: file:PATH, stdio, fd:N, socket:ADDRESS, syslog[:IDENT[,FACILITY]] or rsyslog:ADDRESS[,IDENT[,PRIORITY]]; with a name and a blank before it for log-route",
          ..LOGGING },
    Row { names: &["req-logger", "logger-req"], kind: Custom(request_logger), takes: "KIND[:WHERE]", repeats: true,
          help: "Send the lines of the access log there, and not where all others go", ..LOGGING },
    Row { names: &["log-syslog"], kind: Custom(|c, value| add(c, &prefixed("syslog", value))), takes: "[IDENT]", repeats: true,
          help: "As logger = syslog:IDENT", ..LOGGING },
    Row { names: &["log-socket"], kind: Custom(|c, value| add(c, &prefixed("socket", value))), takes: "ADDRESS", repeats: true,
          help: "As logger = socket:ADDRESS", ..LOGGING },
    Row { names: &["log-route"], kind: Custom(route), takes: "NAME REGEX", repeats: true,
          help: "Send lines that match to the logger of this name, and to no other", ..LOGGING },
    Row { names: &["log-req-route"], kind: Custom(request_route), takes: "NAME REGEX", repeats: true,
          help: "The same for lines of the access log", ..LOGGING },
    Row { names: &["log-encoder"], kind: Custom(encoder), takes: "KIND[:NAME] [TEXT]", repeats: true,
          help: "Change each line on its way to a logger: prefix, suffix, nl, format or json", ..LOGGING },
    Row { names: &["log-req-encoder"], kind: Custom(request_encoder), takes: "KIND[:NAME] [TEXT]", repeats: true,
          help: "The same for lines of the access log that req-logger takes", ..LOGGING },
    Row { names: &["log-drain"], kind: Custom(drain), takes: "REGEX", repeats: true,
          help: "Do not log lines that match", ..LOGGING },
    Row { names: &["log-filter"], kind: Custom(filter), takes: "REGEX", repeats: true,
          help: "Log only lines that match", ..LOGGING },
    Row { names: &["logfile-chmod"], kind: Mode(|c| &mut c.logs.file_mode), takes: "MODE",
          help: "The mode of log files", ..LOGGING },
    Row { names: &["logfile-chown"], kind: Flag(|c| &mut c.logs.file_chown),
          help: "Give log files to the user that uid and gid name", ..LOGGING },
    Row { names: &["log-truncate"], kind: Flag(|c| &mut c.logs.truncate),
          help: "Empty log files at the start", ..LOGGING },
    Row { names: &["log-reopen"], kind: Flag(|c| &mut c.logs.reopen),
          help: "Open log files again at a reload", ..LOGGING },
    Row { names: &["logger-list", "loggers-list"], kind: Flag(|c| &mut c.logs.list),
          help: "Say at the start which kinds of loggers there are", ..LOGGING },
    Row { names: &["rsyslog-packet-size"], kind: Number(|c| &mut c.logs.rsyslog_packet, 0..=65_000), takes: "BYTES",
          help: "The longest packet to a remote syslog; 0 for 1024; the rest of a longer line is cut off", ..LOGGING },
    Row { names: &["rsyslog-split-messages"], kind: Flag(|c| &mut c.logs.rsyslog_split),
          help: "Send longer lines to a remote syslog in several packets", ..LOGGING },
    Row { names: &["threaded-logger"], kind: Always,
          help: "Nothing to do: a thread of the master writes the log", ..LOGGING },
    Row { names: &["log-master-stream", "log-master-req-stream"], kind: Always,
          help: "Nothing to do: lines reach the master through a pipe", ..LOGGING },
    Row { names: &["log-master-bufsize"], kind: Always, takes: "BYTES",
          help: "Nothing to do: lines up to 64 kB are logged whole, and longer ones in parts", ..LOGGING },
];

fn format(config: &mut Config, value: &str) -> Outcome {
    config.logs.format = AccessFormat::Pattern(value.to_owned());
    Ok(())
}

fn named_format(config: &mut Config, value: &str) -> Outcome {
    let found = AccessFormat::WORDS.iter().find(|(name, _)| *name == value);
    let (_, format) = found.ok_or_else(|| "rwsgi, uwsgi, combined, json or logfmt".to_owned())?;
    config.logs.format = format.clone();
    Ok(())
}

pub(super) fn date(config: &mut Config, value: &str) -> Outcome {
    config.logs.date = match value {
        _ if is_on(value) => match &config.logs.date {
            // As in uWSGI, it does not take a format away.
            LogDate::Own => LogDate::Ctime,
            date => date.clone(),
        },
        _ if is_off(value) => LogDate::Own,
        format => LogDate::Strftime(format.to_owned()),
    };
    Ok(())
}

fn prefixed(kind: &str, value: &str) -> String {
    if matches!(value, "" | "true") { kind.to_owned() } else { format!("{kind}:{value}") }
}

fn add(config: &mut Config, value: &str) -> Outcome {
    let logger = Logger::parse(value, config)?;
    config.logs.general.loggers.push(logger);
    Ok(())
}

pub(super) fn logger(config: &mut Config, value: &str) -> Outcome {
    add(config, value)
}

fn request_logger(config: &mut Config, value: &str) -> Outcome {
    let logger = Logger::parse(value, config)?;
    config.logs.requests.loggers.push(logger);
    Ok(())
}

/// Whether the pattern can be used; a warning says when it cannot.
fn is_usable(config: &mut Config, pattern: &str) -> bool {
    let usable = line_pattern(pattern);
    if let Err(problem) = &usable {
        let why = problem.to_string();
        let why = why.lines().last().unwrap_or_default().trim().trim_start_matches("error: ").to_owned();
        config.lose(format!(
            "'{pattern}' is no regular expression that this server knows: {why}: it is left out; look-around and \
             back-references are not known here"
        ));
    }
    usable.is_ok()
}

fn parse_route(value: &str) -> Result<LogRoute, String> {
    let (logger, pattern) =
        value.split_once(' ').ok_or_else(|| "a logger's name, a space and a regular expression".to_owned())?;
    Ok(LogRoute { logger: logger.to_owned(), pattern: pattern.to_owned() })
}

pub(super) fn route(config: &mut Config, value: &str) -> Outcome {
    let route = parse_route(value)?;
    if is_usable(config, &route.pattern) {
        config.logs.general.routes.push(route);
    }
    Ok(())
}

pub(super) fn request_route(config: &mut Config, value: &str) -> Outcome {
    let route = parse_route(value)?;
    if is_usable(config, &route.pattern) {
        config.logs.requests.routes.push(route);
    }
    Ok(())
}

pub(super) fn drain(config: &mut Config, value: &str) -> Outcome {
    if is_usable(config, value) {
        config.logs.drain.push(value.to_owned());
    }
    Ok(())
}

pub(super) fn filter(config: &mut Config, value: &str) -> Outcome {
    if is_usable(config, value) {
        config.logs.filter.push(value.to_owned());
    }
    Ok(())
}

pub(super) fn encoder(config: &mut Config, value: &str) -> Outcome {
    let encoder = LogEncoder::parse(value, config)?;
    config.logs.general.encoders.extend(encoder);
    Ok(())
}

fn request_encoder(config: &mut Config, value: &str) -> Outcome {
    let encoder = LogEncoder::parse(value, config)?;
    config.logs.requests.encoders.extend(encoder);
    Ok(())
}
