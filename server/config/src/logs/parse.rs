//! Loggers and encoders as uWSGI's options write them.

use super::super::Config;
use super::{EncoderKind, EncoderPart, LogEncoder, LogFile, LogTarget, Logger};

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

impl Logger {
    /// `[NAME ]KIND[:WHERE]`
    pub(super) fn parse(value: &str, config: &mut Config) -> Result<Self, String> {
        let named = value.split_once(' ').filter(|(name, _)| name.bytes().all(|byte| byte.is_ascii_alphanumeric()));
        let (name, rest) = named.map_or((None, value), |(name, rest)| (Some(name.to_owned()), rest));
        let (kind, place) = rest.split_once(':').unwrap_or((rest, ""));
        let target = match (kind, place) {
            ("stdio", _) => LogTarget::Stdio,
            ("file" | "fd" | "socket" | "rsyslog", "") => {
                config.warnings.push(format!("'{value}' has no destination: its lines go where those of stdio go"));
                LogTarget::Stdio
            }
            ("file", place) => match log_file(place, &mut config.warnings) {
                Some(file) => LogTarget::File(file),
                None => {
                    config.warnings.push(format!("'{value}' names no logfile: its lines go where stdio's go"));
                    LogTarget::Stdio
                }
            },
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
                config.lose(format!(
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

/// `PATH`, or `logfile=PATH,maxsize=BYTES,backupname=PATH`; `None` when that has no logfile.
fn log_file(place: &str, warnings: &mut Vec<String>) -> Option<LogFile> {
    if !place.contains('=') {
        return Some(LogFile { path: place.into(), ..LogFile::default() });
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
            // uWSGI does not say so.
            _ => warnings
                .push(format!("'{pair}' has no effect: file: knows logfile=PATH, maxsize=BYTES and backupname=PATH")),
        }
    }
    (!file.path.as_os_str().is_empty()).then_some(file)
}

impl LogEncoder {
    /// `KIND[:NAME] [TEXT]`; `None` for one that is not here, with a warning.
    pub(super) fn parse(value: &str, config: &mut Config) -> Result<Option<Self>, String> {
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
                config.lose(format!(
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
    pub(super) fn parse(text: &str) -> Vec<Self> {
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
