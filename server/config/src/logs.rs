//! The logs: the format of the access log, which requests it has, and where lines go.

use std::path::PathBuf;

use regex::bytes::RegexBuilder;
use serde::{Deserialize, Serialize};

use super::Config;
use super::options::LOGGING;
use super::row::Kind::{Always, Custom, Flag, Large, Limit, Mode, Number};
use super::row::Row;
use super::value::{is_off, is_on};

type Outcome = Result<(), String>;

/// The options about logs, but for those that name the log file itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogsConfig {
    /// `--log-format`, `--access-log-format`: what a line of the access log says.
    pub format: AccessFormat,
    /// `--log-format-strftime`: `%(ftime)` is as `--log-date` says.
    pub strftime: bool,
    /// `--log-date`, `--log-prefix`: what the server's own lines begin with.
    pub date: LogDate,
    /// `--log-micros`: durations in microseconds, in the two formats that do not say so themselves.
    pub micros: bool,
    /// `--log-x-forwarded-for`: the client is what `X-Forwarded-For` says.
    pub x_forwarded_for: bool,
    /// Requests that are logged although `disable-logging` is set.
    pub only: LogOnly,
    /// Where lines go.
    pub general: LogStream,
    /// Where the lines of the access log go; when it says nothing, where all others go.
    pub requests: LogStream,
    /// `--log-drain`: regular expressions of lines that are not logged.
    pub drain: Vec<String>,
    /// `--log-filter`: when there are any, only lines that match one are logged.
    pub filter: Vec<String>,
    /// `--logfile-chmod`: the mode of log files.
    pub file_mode: Option<u32>,
    /// `--logfile-chown`: log files belong to the user that the server becomes.
    pub file_chown: bool,
    /// `--log-truncate`: log files are emptied at the start.
    pub truncate: bool,
    /// `--log-reopen`: log files are opened again at a reload.
    pub reopen: bool,
    /// `--logger-list`: say which kinds of loggers there are.
    pub list: bool,
    /// `--rsyslog-packet-size`: the longest packet to a remote syslog, bytes; 0 for 1024.
    pub rsyslog_packet: u32,
    /// `--rsyslog-split-messages`: what is longer is sent in several.
    pub rsyslog_split: bool,
}

impl LogsConfig {
    /// The paths of the files of loggers.
    pub fn files(&mut self) -> impl Iterator<Item = &mut PathBuf> {
        let loggers = self.general.loggers.iter_mut().chain(&mut self.requests.loggers);
        let files = loggers.filter_map(|logger| match &mut logger.target {
            LogTarget::File(file) => Some(file),
            _ => None,
        });
        files.flat_map(|file| std::iter::once(&mut file.path).chain(&mut file.backup))
    }

    /// Whether lines go another way than to the log file or standard error as they are.
    #[must_use]
    pub fn has_ways(&self) -> bool {
        !(self.general.is_plain() && self.drain.is_empty() && self.filter.is_empty()) || self.has_request_stream()
    }

    /// Whether the lines of the access log go another way than all others.
    #[must_use]
    pub fn has_request_stream(&self) -> bool {
        !(self.requests.loggers.is_empty() && self.requests.routes.is_empty())
    }
}

/// What a line of the access log says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AccessFormat {
    /// The server's own line.
    #[default]
    Own,
    /// uWSGI's line.
    Uwsgi,
    /// Apache's and nginx's combined format.
    Combined,
    /// One JSON object.
    Json,
    /// `key=value` pairs.
    Logfmt,
    /// A format of the operator's, with variables as uWSGI has them.
    Pattern(String),
}

impl AccessFormat {
    /// The values of `access-log-format`.
    pub const WORDS: [(&str, Self); 5] = [
        ("rwsgi", Self::Own),
        ("uwsgi", Self::Uwsgi),
        ("combined", Self::Combined),
        ("json", Self::Json),
        ("logfmt", Self::Logfmt),
    ];
}

/// What the server's own lines begin with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogDate {
    /// The time in UTC, as RFC 3339 writes it.
    #[default]
    Own,
    /// The local time, as C's `ctime` writes it.
    Ctime,
    /// The local time, in a format of C's `strftime`.
    Strftime(String),
}

/// Which requests are logged although `disable-logging` is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogOnly {
    /// `--log-zero`: those whose response has no body.
    pub zero: bool,
    /// `--log-slow`: those that took so long, milliseconds.
    pub slow: Option<u32>,
    /// `--log-4xx`
    pub client_errors: bool,
    /// `--log-5xx`
    pub server_errors: bool,
    /// `--log-big`: those whose response's body has so many bytes; 0 for none.
    pub big: u64,
    /// `--log-sendfile`: those that a file answered.
    pub sendfile: bool,
    /// `--log-ioerror`: those whose client went away.
    pub io_errors: bool,
}

impl LogOnly {
    /// Whether there are any.
    #[must_use]
    pub fn any(&self) -> bool {
        *self != Self::default()
    }
}

/// Where the lines of one kind go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogStream {
    /// `--logger`: those without a name get every line that no route takes.
    pub loggers: Vec<Logger>,
    /// `--log-route`: to loggers with names.
    pub routes: Vec<LogRoute>,
    /// `--log-encoder`: what becomes of a line on its way, in order.
    pub encoders: Vec<LogEncoder>,
}

impl LogStream {
    fn is_plain(&self) -> bool {
        *self == Self::default()
    }
}

/// Somewhere that lines go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logger {
    /// By which routes and encoders know it.
    pub name: Option<String>,
    /// Where it writes.
    pub target: LogTarget,
}

/// Where a logger writes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogTarget {
    /// The log file of `logto` or `daemonize`, else the standard error that the server was given.
    Stdio,
    /// A file of its own.
    File(LogFile),
    /// A descriptor that the server was started with.
    Fd(i32),
    /// Datagrams: to `HOST:PORT`, else to a unix socket. Each begins with `prefix`.
    Socket {
        /// Where to.
        address: String,
        /// What each datagram begins with.
        prefix: String,
    },
    /// The system's syslog.
    Syslog {
        /// By which it knows the server.
        ident: String,
        /// The facility's number.
        facility: u8,
    },
    /// Another machine's syslog, or a unix socket (a path).
    Rsyslog {
        /// Where to: a port belongs to it.
        address: String,
        /// By which it knows the server; `None` for the machine's name and `uwsgi`.
        ident: Option<String>,
        /// Facility and severity in one number, as in RFC 3164.
        priority: u32,
    },
}

/// The file of a logger.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFile {
    /// Its name.
    pub path: PathBuf,
    /// Bytes after which it is put aside; 0 for never.
    pub max_size: u64,
    /// The old one's name; `None` for its own with the time.
    pub backup: Option<PathBuf>,
}

/// `--log-route`: lines that match go to the logger of this name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogRoute {
    /// The logger's name.
    pub logger: String,
    /// A regular expression over bytes.
    pub pattern: String,
}

/// `--log-encoder`: what becomes of a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEncoder {
    /// What it does.
    pub kind: EncoderKind,
    /// The one logger that it is for; `None` for all.
    pub logger: Option<String>,
}

/// What an encoder does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EncoderKind {
    /// Puts a text before the line.
    Prefix(String),
    /// Puts a text after the line.
    Suffix(String),
    /// Puts an end of line after it.
    Newline,
    /// Puts it into a text.
    Format(Vec<EncoderPart>),
    /// The same, with what is put in escaped as in a JSON string.
    Json(Vec<EncoderPart>),
}

/// A part of the text of an encoder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EncoderPart {
    /// As it is.
    Text(String),
    /// `${msg}`: the line without its end.
    Message,
    /// `${msgnl}`: the line.
    MessageWithEnd,
    /// `${unix}`: the time, seconds.
    Seconds,
    /// `${millis}`: the time, milliseconds.
    Millis,
    /// `${micros}`: the time, microseconds.
    Micros,
    /// `${strftime:…}`: the local time.
    Strftime(String),
}

/// Facilities of syslog, by their names.
const FACILITIES: [(&str, u8); 21] = [
    ("kern", 0),
    ("user", 1),
    ("mail", 2),
    ("daemon", 3),
    ("auth", 4),
    ("security", 4),
    ("syslog", 5),
    ("lpr", 6),
    ("news", 7),
    ("uucp", 8),
    ("cron", 9),
    ("authpriv", 10),
    ("ftp", 11),
    ("local0", 16),
    ("local1", 17),
    ("local2", 18),
    ("local3", 19),
    ("local4", 20),
    ("local5", 21),
    ("local6", 22),
    ("local7", 23),
];
const DAEMON: u8 = 3;
/// Daemon and notice, as uWSGI sends to a remote syslog.
const RSYSLOG_PRIORITY: u32 = 29;
/// Loggers of uWSGI's plugins that are not here, and what is lost.
const OTHER_LOGGERS: [&str; 10] =
    ["python", "redislog", "mongodblog", "zeromq", "zmq", "crypto", "graylog2", "systemd", "pipe", "gelf"];
/// The loggers that are here.
pub const LOGGERS: [&str; 6] = ["file", "fd", "stdio", "socket", "syslog", "rsyslog"];

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

/// Whether the option's value has references of its own, which are none of the configuration's.
pub(super) fn has_own_references(option: &str) -> bool {
    matches!(option, "log-format" | "logformat")
}

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

fn date(config: &mut Config, value: &str) -> Outcome {
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
    let logger = Logger::parse(value, &mut config.warnings)?;
    config.logs.general.loggers.push(logger);
    Ok(())
}

fn logger(config: &mut Config, value: &str) -> Outcome {
    add(config, value)
}

fn request_logger(config: &mut Config, value: &str) -> Outcome {
    let logger = Logger::parse(value, &mut config.warnings)?;
    config.logs.requests.loggers.push(logger);
    Ok(())
}

impl Logger {
    /// `[NAME ]KIND[:WHERE]`
    fn parse(value: &str, warnings: &mut Vec<String>) -> Result<Self, String> {
        let named = value.split_once(' ').filter(|(name, _)| name.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        let (name, rest) = named.map_or((None, value), |(name, rest)| (Some(name.to_owned()), rest));
        let (kind, place) = rest.split_once(':').unwrap_or((rest, ""));
        let target = match (kind, place) {
            ("stdio", _) => LogTarget::Stdio,
            ("file" | "fd" | "socket" | "rsyslog", "") => {
                warnings.push(format!("'{value}' names nowhere: its lines go where stdio's go"));
                LogTarget::Stdio
            }
            ("file", place) => LogTarget::File(log_file(place)?),
            ("fd", place) => {
                let digits = &place[..place.bytes().take_while(u8::is_ascii_digit).count()];
                LogTarget::Fd(digits.parse().map_err(|_| "fd:N, as in fd:3".to_owned())?)
            }
            ("socket", place) => {
                let (address, prefix) = place.split_once(',').unwrap_or((place, ""));
                LogTarget::Socket { address: address.to_owned(), prefix: prefix.to_owned() }
            }
            ("syslog", place) => {
                let (ident, facility) = place.split_once(',').unwrap_or((place, "daemon"));
                // As uWSGI has it, a name that is none stands for the usual one.
                let facility =
                    FACILITIES.iter().find(|(name, _)| *name == facility).map_or(DAEMON, |(_, number)| *number);
                let ident = if ident.is_empty() { "uwsgi" } else { ident };
                LogTarget::Syslog { ident: ident.to_owned(), facility }
            }
            ("rsyslog", place) => {
                let mut parts = place.splitn(3, ',');
                let address = parts.next().unwrap_or_default().to_owned();
                let ident = parts.next().map(str::to_owned);
                let priority = parts.next().and_then(|number| number.parse().ok()).unwrap_or(RSYSLOG_PRIORITY);
                LogTarget::Rsyslog { address, ident, priority }
            }
            (other, _) if OTHER_LOGGERS.contains(&other) => {
                warnings.push(format!(
                    "'{value}': there is no logger '{other}' here: its lines go where stdio's go; have a log shipper read \
                     them there, or use {}",
                    LOGGERS.join(", ")
                ));
                LogTarget::Stdio
            }
            _ => return Err(format!("one of {}, with a colon and where to", LOGGERS.join(", "))),
        };
        Ok(Self { name, target })
    }
}

/// `PATH`, or `logfile=PATH,maxsize=BYTES,backupname=PATH`.
fn log_file(place: &str) -> Result<LogFile, String> {
    if !place.contains('=') {
        return Ok(LogFile { path: place.into(), ..LogFile::default() });
    }
    let mut file = LogFile::default();
    for pair in place.split(',') {
        match pair.split_once('=') {
            Some(("logfile", path)) => file.path = path.into(),
            Some(("backupname", path)) => file.backup = Some(path.into()),
            Some(("maxsize", bytes)) => {
                let digits = &bytes[..bytes.bytes().take_while(u8::is_ascii_digit).count()];
                file.max_size = digits.parse().unwrap_or(0);
            }
            _ => return Err("file:PATH or file:logfile=PATH,maxsize=BYTES,backupname=PATH".into()),
        }
    }
    if file.path.as_os_str().is_empty() {
        return Err("file:logfile=PATH, and there is no logfile".into());
    }
    Ok(file)
}

/// A regular expression over bytes, as uWSGI matches lines.
///
/// # Errors
/// What is wrong with it.
pub fn line_pattern(pattern: &str) -> Result<regex::bytes::Regex, regex::Error> {
    RegexBuilder::new(pattern).unicode(false).build()
}

/// Whether the pattern can be used; a warning says when it cannot.
fn is_usable(config: &mut Config, pattern: &str) -> bool {
    let usable = line_pattern(pattern);
    if let Err(problem) = &usable {
        let why = problem.to_string();
        let why = why.lines().last().unwrap_or_default().trim().trim_start_matches("error: ").to_owned();
        config.warnings.push(format!(
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

fn route(config: &mut Config, value: &str) -> Outcome {
    let route = parse_route(value)?;
    if is_usable(config, &route.pattern) {
        config.logs.general.routes.push(route);
    }
    Ok(())
}

fn request_route(config: &mut Config, value: &str) -> Outcome {
    let route = parse_route(value)?;
    if is_usable(config, &route.pattern) {
        config.logs.requests.routes.push(route);
    }
    Ok(())
}

fn drain(config: &mut Config, value: &str) -> Outcome {
    if is_usable(config, value) {
        config.logs.drain.push(value.to_owned());
    }
    Ok(())
}

fn filter(config: &mut Config, value: &str) -> Outcome {
    if is_usable(config, value) {
        config.logs.filter.push(value.to_owned());
    }
    Ok(())
}

fn encoder(config: &mut Config, value: &str) -> Outcome {
    let encoder = LogEncoder::parse(value, &mut config.warnings)?;
    config.logs.general.encoders.extend(encoder);
    Ok(())
}

fn request_encoder(config: &mut Config, value: &str) -> Outcome {
    let encoder = LogEncoder::parse(value, &mut config.warnings)?;
    config.logs.requests.encoders.extend(encoder);
    Ok(())
}

impl LogEncoder {
    /// `KIND[:NAME] [TEXT]`; `None` for one that is not here, with a warning.
    fn parse(value: &str, warnings: &mut Vec<String>) -> Result<Option<Self>, String> {
        let (name, text) = value.split_once(' ').unwrap_or((value, ""));
        let (kind, logger) = match name.split_once(':') {
            Some((kind, logger)) => (kind, Some(logger.to_owned())),
            None => (name, None),
        };
        let kind = match kind {
            "prefix" => EncoderKind::Prefix(text.to_owned()),
            "suffix" => EncoderKind::Suffix(text.to_owned()),
            "nl" => EncoderKind::Newline,
            "format" => EncoderKind::Format(EncoderPart::parse(text)),
            "json" => EncoderKind::Json(EncoderPart::parse(text)),
            "gzip" | "compress" | "msgpack" | "crypto" => {
                warnings.push(format!(
                    "there is no encoder '{kind}' here: lines are sent as they are; compress or encrypt them where they are \
                     received or shipped"
                ));
                return Ok(None);
            }
            _ => return Err("prefix, suffix, nl, format or json, and then a space and the text".into()),
        };
        Ok(Some(Self { kind, logger }))
    }
}

impl EncoderPart {
    fn parse(text: &str) -> Vec<Self> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(start) = rest.find("${") {
            let Some(end) = rest[start..].find('}').map(|end| start + end) else { break };
            if start > 0 {
                parts.push(Self::Text(rest[..start].to_owned()));
            }
            parts.extend(match &rest[start + 2..end] {
                "msg" => Some(Self::Message),
                "msgnl" => Some(Self::MessageWithEnd),
                "unix" => Some(Self::Seconds),
                "millis" => Some(Self::Millis),
                "micros" => Some(Self::Micros),
                // As in uWSGI, a name that it does not know stands for nothing.
                name => name.strip_prefix("strftime:").map(|format| Self::Strftime(format.to_owned())),
            });
            rest = &rest[end + 1..];
        }
        if !rest.is_empty() {
            parts.push(Self::Text(rest.to_owned()));
        }
        parts
    }
}

/// Whether `logto` names a host and a port, as uWSGI takes it.
fn is_udp(path: &std::path::Path) -> bool {
    let text = path.to_string_lossy();
    let port = text.rsplit_once(':').map_or("", |(_, port)| port);
    !text.contains('/') && !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
}

/// What depends on several of these options.
pub(super) fn finish(config: &mut Config) {
    for option in [&mut config.logto, &mut config.logto2] {
        if let Some(path) = option.take_if(|path| is_udp(path)) {
            let target = LogTarget::Socket { address: path.to_string_lossy().into_owned(), prefix: String::new() };
            config.logs.general.loggers.push(Logger { name: None, target });
        }
    }
    let logs = &mut config.logs;
    let is_named =
        |stream: &LogStream, name: &str| stream.loggers.iter().any(|logger| logger.name.as_deref() == Some(name));
    let general = logs.general.clone();
    for (option, stream) in [("log-route", &mut logs.general), ("log-req-route", &mut logs.requests)] {
        let loggers = LogStream { loggers: stream.loggers.clone(), ..LogStream::default() };
        stream.routes.retain(|route| {
            let found = is_named(&loggers, &route.logger) || is_named(&general, &route.logger);
            if !found {
                let warning = format!("{option}: there is no logger named '{}': the route is left out", route.logger);
                config.warnings.push(warning);
            }
            found
        });
    }
    if !logs.requests.encoders.is_empty() && !logs.has_request_stream() {
        let warning = "log-req-encoder has no effect, as in uWSGI, without req-logger or log-req-route";
        config.warnings.push(warning.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(value: &str) -> Logger {
        let mut warnings = Vec::new();
        let logger = Logger::parse(value, &mut warnings).unwrap();
        assert_eq!(warnings, [""; 0]);
        logger
    }

    #[test]
    fn loggers_are_written_as_for_uwsgi() {
        let file = |path: &str| LogFile { path: path.into(), ..LogFile::default() };
        let unnamed = |target| Logger { name: None, target };
        assert_eq!(parsed("stdio"), unnamed(LogTarget::Stdio));
        assert_eq!(parsed("file:/tmp/a b"), unnamed(LogTarget::File(file("/tmp/a b"))));
        assert_eq!(parsed("x file:y"), Logger { name: Some("x".into()), target: LogTarget::File(file("y")) });
        assert_eq!(
            parsed("file:logfile=/a,maxsize=20,backupname=/b"),
            unnamed(LogTarget::File(LogFile { path: "/a".into(), max_size: 20, backup: Some("/b".into()) }))
        );
        assert_eq!(parsed("fd:3"), unnamed(LogTarget::Fd(3)));
        let socket = |address: &str, prefix: &str| LogTarget::Socket { address: address.into(), prefix: prefix.into() };
        assert_eq!(parsed("socket:localhost:11514").target, socket("localhost:11514", ""));
        assert_eq!(parsed("logstash socket:/run/x,web ").target, socket("/run/x", "web "));
        let syslog = |ident: &str, facility| LogTarget::Syslog { ident: ident.into(), facility };
        assert_eq!(parsed("syslog").target, syslog("uwsgi", 3));
        assert_eq!(parsed("syslog:a-b,local6").target, syslog("a-b", 22));
        assert_eq!(parsed("syslog:a,nonsense").target, syslog("a", 3));
        let rsyslog = |address: &str, ident: Option<&str>, priority| LogTarget::Rsyslog {
            address: address.into(),
            ident: ident.map(Into::into),
            priority,
        };
        assert_eq!(parsed("rsyslog:10.0.0.1:99,me,31").target, rsyslog("10.0.0.1:99", Some("me"), 31));
        assert_eq!(parsed("rsyslog:10.0.0.1").target, rsyslog("10.0.0.1", None, 29));
    }

    #[test]
    fn a_logger_that_is_not_here_says_where_its_lines_go() {
        let mut config = Config::default();
        logger(&mut config, "redislog:127.0.0.1:6379,publish uwsgi").unwrap();
        assert_eq!(config.logs.general.loggers[0].target, LogTarget::Stdio);
        assert!(config.warnings[0].contains("go where stdio's go"), "{:?}", config.warnings);
        assert!(logger(&mut config, "nonsense:x").is_err());
    }

    #[test]
    fn encoders_are_parsed_once() {
        let mut config = Config::default();
        encoder(&mut config, "json:a {\"t\":\"${strftime:%Y}\",\"m\":\"${msg}\"}").unwrap();
        encoder(&mut config, "prefix  two blanks").unwrap();
        encoder(&mut config, "nl").unwrap();
        encoder(&mut config, "format $a ${msgnl}${unknown}${unix").unwrap();
        encoder(&mut config, "gzip").unwrap();
        assert!(encoder(&mut config, "nonsense").is_err());
        let text = |text: &str| EncoderPart::Text(text.into());
        let [json, prefix, newline, format] = &config.logs.general.encoders[..] else { panic!("four encoders") };
        assert_eq!(json.logger.as_deref(), Some("a"));
        let strftime = EncoderPart::Strftime("%Y".into());
        let parts = vec![text("{\"t\":\""), strftime, text("\",\"m\":\""), EncoderPart::Message, text("\"}")];
        assert_eq!(json.kind, EncoderKind::Json(parts));
        assert_eq!(prefix.kind, EncoderKind::Prefix(" two blanks".into()));
        assert_eq!(newline.kind, EncoderKind::Newline);
        let parts = vec![text("$a "), EncoderPart::MessageWithEnd, text("${unix")];
        assert_eq!(format.kind, EncoderKind::Format(parts));
        assert_eq!(config.warnings.len(), 1);
    }

    #[test]
    fn a_pattern_that_cannot_be_used_and_a_route_to_nowhere_are_left_out_with_a_warning() {
        let mut config = Config::default();
        drain(&mut config, "(?=x)").unwrap();
        filter(&mut config, r"\d+ \xff").unwrap();
        logger(&mut config, "here stdio").unwrap();
        route(&mut config, "here .*").unwrap();
        route(&mut config, "nowhere .*").unwrap();
        request_route(&mut config, "here 500").unwrap();
        finish(&mut config);
        assert_eq!((config.logs.drain.len(), config.logs.filter.len()), (0, 1));
        assert_eq!(config.logs.general.routes.len(), 1);
        assert_eq!(config.logs.requests.routes.len(), 1);
        assert_eq!(config.warnings.len(), 2, "{:?}", config.warnings);
        assert!(route(&mut config, "alone").is_err());
    }

    #[test]
    fn a_log_file_with_a_port_is_another_machine() {
        let mut config = Config { logto: Some("10.0.0.1:1717".into()), logto2: Some("/a:1".into()), ..Config::default() };
        finish(&mut config);
        let target = LogTarget::Socket { address: "10.0.0.1:1717".into(), prefix: String::new() };
        assert_eq!(config.logs.general.loggers, [Logger { name: None, target }]);
        assert_eq!((config.logto, config.logto2), (None, Some("/a:1".into())));
    }

    #[test]
    fn the_date_has_uwsgis_words() {
        for (values, expected) in [
            (&["true"][..], LogDate::Ctime),
            (&["%Y", "true"], LogDate::Strftime("%Y".into())),
            (&["true", "no"], LogDate::Own),
        ] {
            let mut config = Config::default();
            values.iter().for_each(|value| date(&mut config, value).unwrap());
            assert_eq!(config.logs.date, expected);
        }
    }
}
