//! The two text formats, which differ in few places.

use std::io::Write;

use crate::{Family, Histogram, Kind, Label, Value};

/// Which of the formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// 0.0.4.
    Prometheus,
    /// 1.0.
    OpenMetrics,
}

/// Room for a sample.
const TYPICAL_LINE: usize = 64;

/// The families as text.
pub(crate) fn encode(families: &[Family<'_>], dialect: Dialect) -> Vec<u8> {
    let samples: usize = families.iter().map(|family| family.values.len()).sum();
    let mut out = Vec::with_capacity(samples * TYPICAL_LINE + families.len() * 3 * TYPICAL_LINE);
    let mut line = Vec::new();
    for family in families {
        describe(&mut out, family, dialect);
        for (labels, value) in family.samples() {
            line.clear();
            for (name, label) in family.labels.iter().zip(labels) {
                if !line.is_empty() {
                    line.push(b',');
                }
                write_label(&mut line, name, *label);
            }
            sample(&mut out, family.name, &line, value);
        }
    }
    if dialect == Dialect::OpenMetrics {
        out.extend_from_slice(b"# EOF\n");
    }
    out
}

/// What stands before the samples of a family.
fn describe(out: &mut Vec<u8>, family: &Family<'_>, dialect: Dialect) {
    let (name, kind) = match (dialect, family.kind) {
        (Dialect::Prometheus, Kind::Info) => (family.name, "gauge"),
        (Dialect::Prometheus, kind) => (family.name, word(kind)),
        // A counter of this format ends with `_total`. One that does not keeps its name, for who asks for it by that.
        (Dialect::OpenMetrics, Kind::Counter) if family.base_name() == family.name => (family.name, "unknown"),
        (Dialect::OpenMetrics, kind) => (family.base_name(), word(kind)),
    };
    let mut comment = |what: &str, text: &str| {
        for part in ["# ", what, " ", name, " ", text, "\n"] {
            out.extend_from_slice(part.as_bytes());
        }
    };
    comment("HELP", family.help);
    comment("TYPE", kind);
    if dialect == Dialect::OpenMetrics
        && let Some(unit) = family.unit()
    {
        comment("UNIT", unit);
    }
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Info => "info",
        Kind::Histogram => "histogram",
        Kind::Summary => "summary",
    }
}

/// The lines of a sample whose labels are written already.
fn sample(out: &mut Vec<u8>, name: &str, labels: &[u8], value: &Value) {
    match value {
        Value::Integer(number) => integer_line(out, [name, ""], labels, "", *number),
        Value::Signed(number) => {
            head(out, [name, ""], labels, "");
            out.extend_from_slice(itoa::Buffer::new().format(*number).as_bytes());
            out.push(b'\n');
        }
        Value::Real(number) => real_line(out, [name, ""], labels, *number),
        Value::Histogram(histogram) => buckets(out, name, labels, histogram),
        Value::Summary { count, sum } => {
            real_line(out, [name, "_sum"], labels, *sum);
            integer_line(out, [name, "_count"], labels, "", *count);
        }
    }
}

fn buckets(out: &mut Vec<u8>, name: &str, labels: &[u8], histogram: &Histogram) {
    let mut le = Vec::with_capacity(16);
    for (bound, below) in histogram.classic() {
        le.clear();
        // `1.0`, as Prometheus itself writes it: the series is the same in every format.
        let _ = if bound.is_finite() { write!(le, "le=\"{bound:?}\"") } else { write!(le, "le=\"+Inf\"") };
        integer_line(out, [name, "_bucket"], labels, str::from_utf8(&le).unwrap_or_default(), below);
    }
    real_line(out, [name, "_sum"], labels, histogram.total_seconds());
    integer_line(out, [name, "_count"], labels, "", histogram.count());
}

/// Name and labels of a sample.
fn head(out: &mut Vec<u8>, name: [&str; 2], labels: &[u8], le: &str) {
    out.extend_from_slice(name[0].as_bytes());
    out.extend_from_slice(name[1].as_bytes());
    if !labels.is_empty() || !le.is_empty() {
        out.push(b'{');
        out.extend_from_slice(labels);
        if !labels.is_empty() && !le.is_empty() {
            out.push(b',');
        }
        out.extend_from_slice(le.as_bytes());
        out.push(b'}');
    }
    out.push(b' ');
}

fn integer_line(out: &mut Vec<u8>, name: [&str; 2], labels: &[u8], le: &str, number: u64) {
    head(out, name, labels, le);
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    out.push(b'\n');
}

fn real_line(out: &mut Vec<u8>, name: [&str; 2], labels: &[u8], number: f64) {
    head(out, name, labels, "");
    // Writing to a Vec cannot fail.
    let _ = writeln!(out, "{number}");
}

fn write_label(out: &mut Vec<u8>, name: &str, label: Label<'_>) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"=\"");
    match label {
        Label::Number(number) => out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes()),
        Label::Text(text) => {
            for byte in text.bytes() {
                match byte {
                    b'\\' => out.extend_from_slice(b"\\\\"),
                    b'"' => out.extend_from_slice(b"\\\""),
                    b'\n' => out.extend_from_slice(b"\\n"),
                    byte => out.push(byte),
                }
            }
        }
    }
    out.push(b'"');
}
