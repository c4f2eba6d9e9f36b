//! What becomes of a line before a logger has it (`log-encoder`).

use std::ffi::CString;

use crate::clock::UnixMicros;
use crate::local_time;
use crate::log_text::write_json;
use rwsgi_config::{EncoderKind, EncoderPart, LogEncoder};

/// The line after the encoders that are for the logger of this name.
pub(super) fn encode<'a>(
    encoders: &[LogEncoder],
    logger: Option<&str>,
    line: &'a [u8],
    scratch: &'a mut [Vec<u8>; 2],
) -> &'a [u8] {
    let is_for = |encoder: &&LogEncoder| encoder.logger.is_none() || encoder.logger.as_deref() == logger;
    let mut chain = encoders.iter().filter(is_for);
    let Some(first) = chain.next() else { return line };
    let [last, next] = scratch;
    last.clear();
    apply(&first.kind, line, last);
    for encoder in chain {
        next.clear();
        apply(&encoder.kind, last, next);
        std::mem::swap(last, next);
    }
    last
}

fn apply(kind: &EncoderKind, line: &[u8], to: &mut Vec<u8>) {
    match kind {
        EncoderKind::Prefix(text) => {
            to.extend_from_slice(text.as_bytes());
            to.extend_from_slice(line);
        }
        EncoderKind::Suffix(text) => {
            to.extend_from_slice(line);
            to.extend_from_slice(text.as_bytes());
        }
        EncoderKind::Newline => {
            to.extend_from_slice(line);
            to.push(b'\n');
        }
        EncoderKind::Format(parts) => fill(parts, line, to, Vec::extend_from_slice),
        EncoderKind::Json(parts) => fill(parts, line, to, write_json),
    }
}

fn fill(parts: &[EncoderPart], line: &[u8], to: &mut Vec<u8>, put: impl Fn(&mut Vec<u8>, &[u8])) {
    let now = UnixMicros::now();
    let number = |to: &mut Vec<u8>, number: u64| to.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    for part in parts {
        match part {
            EncoderPart::Text(text) => to.extend_from_slice(text.as_bytes()),
            EncoderPart::Message => put(to, line.strip_suffix(b"\n").unwrap_or(line)),
            EncoderPart::MessageWithEnd => put(to, line),
            EncoderPart::Seconds => number(to, now.as_secs()),
            EncoderPart::Millis => number(to, now.as_micros() / 1_000),
            EncoderPart::Micros => number(to, now.as_micros()),
            EncoderPart::Strftime(format) => {
                let mut text = Vec::new();
                // A configuration has no NUL.
                let format = CString::new(format.as_bytes()).unwrap_or_default();
                local_time::write(&mut text, &format, now.as_secs());
                put(to, &text);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(kinds: Vec<EncoderKind>, line: &[u8]) -> String {
        let encoders: Vec<_> = kinds.into_iter().map(|kind| LogEncoder { kind, logger: None }).collect();
        String::from_utf8(encode(&encoders, None, line, &mut Default::default()).to_vec()).unwrap()
    }

    #[test]
    fn encoders_work_one_after_another() {
        let text = |text: &str| EncoderPart::Text(text.into());
        let json = EncoderKind::Json(vec![text("{\"m\":\""), EncoderPart::Message, text("\"}")]);
        let line = b"a \"b\"\\\t\xff\x1b\n";
        let json = encoded(vec![json, EncoderKind::Newline], line);
        assert_eq!(json, "{\"m\":\"a \\\"b\\\"\\\\\\t\\\\xff\\u001b\"}\n");
        let format = EncoderKind::Format(vec![text("["), EncoderPart::MessageWithEnd, text("]")]);
        let chain = vec![EncoderKind::Prefix("<".into()), format, EncoderKind::Suffix(">".into())];
        assert_eq!(encoded(chain, b"x\n"), "[<x\n]>");
        let times = vec![EncoderPart::Seconds, text(" "), EncoderPart::Millis, text(" "), EncoderPart::Micros];
        let times = encoded(vec![EncoderKind::Format(times)], b"");
        let times: Vec<u64> = times.split(' ').map(|time| time.parse().unwrap()).collect();
        assert_eq!((times[1] / 1_000, times[2] / 1_000_000), (times[0], times[0]));
        let year = encoded(vec![EncoderKind::Format(vec![EncoderPart::Strftime("%Y".into())])], b"");
        assert!(year.parse::<u32>().unwrap() > 2000);
    }
}
