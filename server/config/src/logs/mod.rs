//! The logs: the format of the access log, which requests it has, and where lines go.

mod parse;
mod rows;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use regex::bytes::RegexBuilder;
use serde::{Deserialize, Serialize};

use super::Config;
pub use parse::LOGGERS;
pub(crate) use rows::ROWS;

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

    /// Whether lines go through loggers, routes, encoders or filters, and not straight to the log file or standard error.
    #[must_use]
    pub fn is_routed(&self) -> bool {
        !(self.general.is_plain() && self.drain.is_empty() && self.filter.is_empty()) || self.has_request_stream()
    }

    /// Whether the access log has loggers or routes of its own.
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
    /// The name that routes and encoders use.
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
        /// The identifier of the server's lines.
        ident: String,
        /// The facility's number.
        facility: u8,
    },
    /// Another machine's syslog, or a unix socket (a path).
    Rsyslog {
        /// Where to: a port belongs to it.
        address: String,
        /// The identifier of the server's lines; `None` for the machine's name and `uwsgi`.
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

/// Whether the option's value has references of its own, which are none of the configuration's.
pub(super) fn has_own_references(option: &str) -> bool {
    matches!(option, "log-format" | "logformat")
}

/// A regular expression over bytes, as uWSGI matches lines.
///
/// # Errors
/// What is wrong with it.
pub fn line_pattern(pattern: &str) -> Result<regex::bytes::Regex, regex::Error> {
    RegexBuilder::new(pattern).unicode(false).build()
}
