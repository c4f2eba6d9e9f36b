//! Escapes control characters in the lines of the log, so that text from elsewhere can neither make a line nor command a
//! terminal.
//!
//! Every line of the server goes through the one formatter that [`start`] installs, which escapes the whole message. The
//! access log and tracebacks do not go through it and escape by the same rule: a control character becomes `\n`, `\r`,
//! `\t`, `\x1b` or `\u{2028}`, a byte that is not UTF-8 `\xff`. Backslashes stay as they are: lines are for reading, not
//! for decoding.

use std::ffi::CString;
use std::fmt::{self, Write};
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use rwsgi_config::LogDate;
use rwsgi_stats::is_control;
use tracing::Level;
use tracing_subscriber::filter::{LevelFilter, dynamic_filter_fn};
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::clock::UnixMicros;
use crate::local_time;

/// Starts the log of this process. Lines have no colours, wherever they go: most go to files and log shippers.
pub(crate) fn start() {
    let log = tracing_subscriber::fmt::layer()
        .with_writer(|| Observed)
        // It would report on standard error that standard error cannot be written, and panic when that fails too: a full
        // disk, or a reader of the log that is gone, would end every process that logs.
        .log_internal_errors(false)
        .with_target(false)
        .with_timer(Date)
        .with_ansi(false)
        .fmt_fields(debug_fn(|to, _message, value| write!(Escaping(to), "{value:?}")));
    let told = dynamic_filter_fn(|line, _| is_told(line.level(), line.target()));
    let log = tracing_subscriber::registry().with(told.with_max_level_hint(LevelFilter::DEBUG)).with(log);
    // Fails when the Python package is used twice in a process: the first log stays.
    let _ = log.try_init();
}

/// The target of lines that no log level leaves out: who has done what.
pub(crate) const AUDIT: &str = "audit";

/// How much the log of this process tells, unless it reads that elsewhere.
static OWN_LEVEL: AtomicU32 = AtomicU32::new(0);

/// From now on the log of this process tells this much, as in [`follow_level`].
pub(crate) fn set_level(level: u32) {
    OWN_LEVEL.store(level, Relaxed);
}

/// Where this process reads how much the log tells.
static LEVEL: OnceLock<ReadLevel> = OnceLock::new();

type ReadLevel = Box<dyn Fn() -> u32 + Send + Sync>;

/// From now on the log tells what `read` says at each line: 1 for errors alone, to 4 for everything, else what it tells
/// without that. Only the first is taken.
pub(crate) fn follow_level(read: impl Fn() -> u32 + Send + Sync + 'static) {
    let _ = LEVEL.set(Box::new(read));
}

fn is_told(level: &Level, target: &str) -> bool {
    let most = match LEVEL.get().map_or_else(|| OWN_LEVEL.load(Relaxed), |read| read()) {
        1 => Level::ERROR,
        2 => Level::WARN,
        4 => Level::DEBUG,
        _ => Level::INFO,
    };
    *level <= most || target == AUDIT
}

/// Who sees the lines of this process.
static OBSERVER: OnceLock<Observer> = OnceLock::new();

type Observer = Box<dyn Fn(&[u8]) + Send + Sync>;

/// From now on, lines of this process are also given to `observer`, as they are written. Only the first is taken.
pub(crate) fn observe(observer: impl Fn(&[u8]) + Send + Sync + 'static) {
    let _ = OBSERVER.set(Box::new(observer));
}

/// Standard error, and who observes it.
struct Observed;

impl std::io::Write for Observed {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        if let Some(observer) = OBSERVER.get() {
            observer(bytes);
        }
        std::io::stderr().write_all(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
    }
}

/// How lines begin, once the configuration is known (`log-date`); the time in UTC until then.
static DATE: OnceLock<CString> = OnceLock::new();

/// From now on, the lines of this process begin as `log-date` says.
pub(crate) fn begin_with(date: &LogDate) {
    let format = match date {
        LogDate::Own => return,
        LogDate::Ctime => local_time::CTIME.to_owned(),
        // A configuration has no NUL.
        LogDate::Strftime(format) => CString::new(format.as_bytes()).unwrap_or_default(),
    };
    // It is the same in every generation.
    let _ = DATE.set(format);
}

struct Date;

impl FormatTime for Date {
    fn format_time(&self, to: &mut Writer<'_>) -> fmt::Result {
        let Some(format) = DATE.get() else { return SystemTime.format_time(to) };
        let mut text = Vec::new();
        local_time::write(&mut text, format, UnixMicros::now().as_secs());
        write!(to, "{} -", Foreign(&text))
    }
}

/// A line of the server that is not written by the formatter, because its writer cannot write to standard error.
pub(crate) fn line(level: tracing::Level, text: &str) -> Vec<u8> {
    let mut line = String::new();
    // Writing to a String cannot fail.
    let _ = Date.format_time(&mut Writer::new(&mut line));
    let _ = write!(line, " {level:>5} ");
    let _ = write!(Escaping(&mut line), "{text}");
    line.push('\n');
    line.into_bytes()
}

/// Passes text on with its control characters escaped.
pub(crate) struct Escaping<'a, W: Write>(pub(crate) &'a mut W);

impl<W: Write> Write for Escaping<'_, W> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            return self.0.write_str(text);
        }
        text.chars().try_for_each(|character| self.write_char(character))
    }

    fn write_char(&mut self, character: char) -> fmt::Result {
        match character {
            '\n' => self.0.write_str("\\n"),
            '\r' => self.0.write_str("\\r"),
            '\t' => self.0.write_str("\\t"),
            ascii if ascii.is_ascii_control() => write!(self.0, "\\x{:02x}", u32::from(ascii)),
            other if is_control(other) => write!(self.0, "\\u{{{:x}}}", u32::from(other)),
            plain => self.0.write_char(plain),
        }
    }
}

/// Bytes from a client or the application, shown with control characters and invalid UTF-8 escaped.
#[derive(Clone, Copy)]
pub(crate) struct Foreign<'a>(pub(crate) &'a [u8]);

impl fmt::Display for Foreign<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            Escaping(f).write_str(chunk.valid())?;
            chunk.invalid().iter().try_for_each(|byte| write!(f, "\\x{byte:02x}"))?;
        }
        Ok(())
    }
}

/// What stands between the quotes of a JSON string. A byte that is no UTF-8 is `\xff` there, as everywhere in the log.
pub(crate) fn write_json(to: &mut Vec<u8>, text: &[u8]) {
    if text.iter().all(|byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\')) {
        return to.extend_from_slice(text);
    }
    for chunk in text.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '"' => to.extend_from_slice(b"\\\""),
                '\\' => to.extend_from_slice(b"\\\\"),
                '\n' => to.extend_from_slice(b"\\n"),
                '\r' => to.extend_from_slice(b"\\r"),
                '\t' => to.extend_from_slice(b"\\t"),
                control if is_control(control) => {
                    let mut units = [0; 2];
                    for unit in control.encode_utf16(&mut units) {
                        let _ = io::Write::write_fmt(to, format_args!("\\u{unit:04x}"));
                    }
                }
                plain => to.extend_from_slice(plain.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        for byte in chunk.invalid() {
            let _ = io::Write::write_fmt(to, format_args!("\\\\x{byte:02x}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn control_characters_are_spelled_out() {
        for (sent, shown) in [
            (&b"/caf\xc3\xa9 a\\b"[..], "/café a\\b"),
            (b"a\r\n\tb", "a\\r\\n\\tb"),
            (b"\x1b[2J\x7f\0", "\\x1b[2J\\x7f\\x00"),
            (b"\xff\xc3", "\\xff\\xc3"),
            ("\u{9b}\u{2028}\u{202e}".as_bytes(), "\\u{9b}\\u{2028}\\u{202e}"),
        ] {
            assert_eq!(Foreign(sent).to_string(), shown);
        }
    }

    proptest! {
        #[test]
        fn whatever_is_sent_is_one_line_that_no_terminal_obeys(sent in prop::collection::vec(any::<u8>(), 0..60)) {
            let shown = Foreign(&sent).to_string();
            prop_assert!(!shown.chars().any(is_control), "{:?}", shown);
            // What is shown once may be shown again.
            prop_assert_eq!(Foreign(shown.as_bytes()).to_string(), shown);
        }
    }
}
