//! `io.prometheus.client.MetricFamily` messages, each with its length before it.
//!
//! The messages are few and small, and a scrape has thousands: they are written straight from the families. Field numbers
//! are those of `io/prometheus/client/metrics.proto` of github.com/prometheus/client_model.

use crate::histogram::NativeBuckets;
use crate::{Family, Histogram, Kind, Label, Value};

/// The zero bucket's breadth, as Prometheus's own libraries have it. No duration is below; without it an empty native
/// histogram would look like a classic one.
const ZERO_THRESHOLD: f64 = 2.938_735_877_055_719e-39;

/// How a field's bytes are to be read.
const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const BYTES: u8 = 2;

/// The families as messages.
pub(crate) fn encode(families: &[Family<'_>]) -> Vec<u8> {
    let samples: usize = families.iter().map(|family| family.values.len()).sum();
    let mut out = Vec::with_capacity(samples * 48 + families.len() * 96);
    let (mut message, mut metric, mut part) = (Vec::new(), Vec::new(), Vec::new());
    for family in families {
        message.clear();
        bytes(&mut message, 1, family.name.as_bytes());
        bytes(&mut message, 2, family.help.as_bytes());
        integer(&mut message, 3, type_number(family.kind));
        for (labels, value) in family.samples() {
            metric.clear();
            for (name, label) in family.labels.iter().zip(labels) {
                part.clear();
                bytes(&mut part, 1, name.as_bytes());
                match label {
                    Label::Text(text) => bytes(&mut part, 2, text.as_bytes()),
                    Label::Number(number) => bytes(&mut part, 2, itoa::Buffer::new().format(*number).as_bytes()),
                }
                bytes(&mut metric, 1, &part);
            }
            part.clear();
            let field = write_value(&mut part, family.kind, value);
            bytes(&mut metric, field, &part);
            bytes(&mut message, 4, &metric);
        }
        if let Some(unit) = family.unit() {
            bytes(&mut message, 5, unit.as_bytes());
        }
        varint(&mut out, message.len() as u64);
        out.extend_from_slice(&message);
    }
    out
}

fn type_number(kind: Kind) -> u64 {
    match kind {
        Kind::Counter => 0,
        Kind::Gauge | Kind::Info => 1,
        Kind::Summary => 2,
        Kind::Histogram => 4,
    }
}

/// Writes the message of a value, and returns the field of `Metric` that it is for.
fn write_value(out: &mut Vec<u8>, kind: Kind, value: &Value) -> u32 {
    let number = match value {
        Value::Integer(number) => *number as f64,
        Value::Signed(number) => *number as f64,
        Value::Real(number) => *number,
        Value::Summary { count, sum } => {
            integer(out, 1, *count);
            double(out, 2, *sum);
            return 4;
        }
        Value::Histogram(histogram) => {
            write_histogram(out, histogram);
            return 7;
        }
    };
    double(out, 1, number);
    if kind == Kind::Counter { 3 } else { 2 }
}

fn write_histogram(out: &mut Vec<u8>, histogram: &Histogram) {
    integer(out, 1, histogram.count());
    double(out, 2, histogram.total_seconds());
    let mut part = Vec::with_capacity(24);
    for (bound, below) in histogram.classic() {
        part.clear();
        integer(&mut part, 1, below);
        double(&mut part, 2, bound);
        bytes(out, 3, &part);
    }
    let NativeBuckets { schema, spans, deltas } = histogram.native();
    integer(out, 5, zigzag(schema.into()));
    double(out, 6, ZERO_THRESHOLD);
    integer(out, 7, 0);
    for span in spans {
        part.clear();
        integer(&mut part, 1, zigzag(span.offset.into()));
        integer(&mut part, 2, span.length.into());
        bytes(out, 12, &part);
    }
    part.clear();
    for delta in deltas {
        varint(&mut part, zigzag(delta));
    }
    bytes(out, 13, &part);
}

/// Signed numbers, small ones near 0 short.
fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)) as u64
}

fn key(out: &mut Vec<u8>, field: u32, wire: u8) {
    varint(out, u64::from(field) << 3 | u64::from(wire));
}

fn integer(out: &mut Vec<u8>, field: u32, number: u64) {
    key(out, field, VARINT);
    varint(out, number);
}

fn double(out: &mut Vec<u8>, field: u32, number: f64) {
    key(out, field, FIXED64);
    out.extend_from_slice(&number.to_le_bytes());
}

fn bytes(out: &mut Vec<u8>, field: u32, bytes: &[u8]) {
    key(out, field, BYTES);
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}
