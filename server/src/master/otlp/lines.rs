//! Lines of the log as records of OTLP: severity and trace are what the line says of itself.

use opentelemetry_proto::tonic::logs::v1::{LogRecord, SeverityNumber};

use super::values::text;

/// A line of the log, with those that belong to it.
#[derive(Clone, Debug)]
pub(super) struct Line {
    /// Without its end.
    pub(super) bytes: Vec<u8>,
    /// When it was read, unix ns.
    pub(super) at: u64,
}

/// The longest record, bytes: what follows is a record of its own.
const LONGEST: usize = 64 * 1024;
/// How far into a line its level may stand, in words.
const LEVEL_WITHIN: usize = 6;

/// Whether a line belongs to the one before it: as the frames of a traceback do, it is indented.
pub(super) fn continues(before: &Line, line: &[u8]) -> bool {
    matches!(line, [b' ' | b'\t', ..]) && before.bytes.len() + line.len() < LONGEST
}

/// The record of a line.
pub(super) fn record_of(line: &Line) -> LogRecord {
    let body = String::from_utf8_lossy(&line.bytes).into_owned();
    let (severity_number, severity_text) = severity_of(&body);
    LogRecord {
        time_unix_nano: line.at,
        observed_time_unix_nano: line.at,
        severity_number: severity_number as i32,
        severity_text: severity_text.to_owned(),
        trace_id: id_after(&body, "trace_id", 32),
        span_id: id_after(&body, "span_id", 16),
        body: Some(text(body)),
        ..LogRecord::default()
    }
}

/// The level that one of the line's first words is.
fn severity_of(line: &str) -> (SeverityNumber, &'static str) {
    let first = line.lines().next().unwrap_or("");
    let words = first.split([' ', ':', '[', ']', '|', '\t']).filter(|word| !word.is_empty());
    let known = |word: &str| {
        Some(match word {
            "CRITICAL" | "FATAL" => (SeverityNumber::Fatal, "FATAL"),
            "ERROR" => (SeverityNumber::Error, "ERROR"),
            "WARN" | "WARNING" => (SeverityNumber::Warn, "WARN"),
            "INFO" => (SeverityNumber::Info, "INFO"),
            "DEBUG" => (SeverityNumber::Debug, "DEBUG"),
            _ => return None,
        })
    };
    words.take(LEVEL_WITHIN).find_map(known).unwrap_or((SeverityNumber::Unspecified, ""))
}

/// The number of so many digits that stands behind a name: `trace_id=…`, `"trace_id": "…"`. Nothing when there is none.
fn id_after(line: &str, name: &str, digits: usize) -> Vec<u8> {
    let found = line.match_indices(name).find_map(|(at, _)| {
        // `parent_span_id` is another's.
        if line[..at].ends_with(|before: char| before.is_ascii_alphanumeric() || before == '_') {
            return None;
        }
        let rest = line[at + name.len()..].trim_start_matches(['"', '\'', ' ']);
        let rest = rest.strip_prefix(['=', ':'])?.trim_start_matches(['"', '\'', ' ']);
        let id = rest.get(..digits)?;
        let is_hex = id.bytes().all(|byte| byte.is_ascii_hexdigit());
        let goes_on = rest[digits..].starts_with(|next: char| next.is_ascii_alphanumeric());
        let bytes: Option<Vec<u8>> =
            (0..digits).step_by(2).map(|at| u8::from_str_radix(id.get(at..at + 2)?, 16).ok()).collect();
        bytes.filter(|bytes| is_hex && !goes_on && bytes.iter().any(|byte| *byte != 0))
    });
    found.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

    fn record(text: &str) -> LogRecord {
        record_of(&Line { bytes: text.as_bytes().to_vec(), at: 7 })
    }

    #[test]
    fn a_line_s_trace_is_the_one_that_it_names() {
        for line in [
            format!("x 10 ms trace_id={TRACE} span_id=b7ad6b7169203331"),
            format!("{{\"a\":1,\"trace_id\":\"{TRACE}\",\"span_id\":\"b7ad6b7169203331\"}}"),
            format!("{{'trace_id' : '{TRACE}', 'span_id' : 'b7ad6b7169203331'}}"),
            format!("trace_id=0 trace_id={TRACE} span_id=b7ad6b7169203331 resource.service.name=x"),
            format!("parent_span_id=00000000000000ff trace_id={TRACE} span_id=b7ad6b7169203331"),
        ] {
            let record = record(&line);
            assert_eq!((record.trace_id.len(), record.span_id.len()), (16, 8), "{line}");
            assert_eq!((record.trace_id[0], record.span_id[7]), (0x0a, 0x31));
        }
        for line in [
            "no trace",
            "trace_id",
            "trace_id=",
            "trace_id=0af7",
            "trace_id=00000000000000000000000000000000",
            &format!("trace_id={TRACE}0"),
            &format!("trace_id {TRACE}"),
            "trace_id=ääääääääääääääää",
        ] {
            assert!(record(line).trace_id.is_empty(), "{line}");
        }
    }

    #[test]
    fn a_line_s_severity_is_the_level_that_it_begins_with() {
        for (line, text) in [
            ("2026-11-26T09:00:00.000000Z  WARN slow: GET /", "WARN"),
            ("Thu Nov 26 09:00:00 2026 - ERROR x", ""),
            ("ERROR:root:no", "ERROR"),
            ("2026-01-01 12:00:00,123 [CRITICAL] name: x", "FATAL"),
            ("2026-11-26T09:00:00.000Z worker 1 thread 0 127.0.0.1 \"GET /ERROR HTTP/1.1\" 200", ""),
            ("GET / ERRORS", ""),
            ("", ""),
        ] {
            let record = record(line);
            // `ctime` has five words, and the dash is one.
            let expected = if line.starts_with("Thu") { record.severity_text.as_str() } else { text };
            assert_eq!(record.severity_text, expected, "{line}");
        }
        assert_eq!(record("x ERROR y").severity_number, SeverityNumber::Error as i32);
    }

    #[test]
    fn what_is_indented_belongs_to_the_line_before() {
        let line = Line { bytes: b"ERROR x".to_vec(), at: 0 };
        assert!(continues(&line, b"  File") && !continues(&line, b"File") && !continues(&line, b""));
        assert!(!continues(&Line { bytes: vec![b'x'; LONGEST], at: 0 }, b"  y"));
    }
}
