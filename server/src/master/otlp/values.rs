//! Attributes of OTLP.

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};

/// A text.
pub(super) fn text(text: impl Into<String>) -> AnyValue {
    AnyValue { value: Some(Value::StringValue(text.into())) }
}

/// A number.
pub(super) fn number(number: impl TryInto<i64>) -> AnyValue {
    AnyValue { value: Some(Value::IntValue(number.try_into().unwrap_or(i64::MAX))) }
}

/// Seconds, of ns.
pub(super) fn seconds(nanos: u64) -> AnyValue {
    AnyValue { value: Some(Value::DoubleValue(nanos as f64 / 1e9)) }
}

/// An attribute.
pub(super) fn attribute(key: &str, value: AnyValue) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}
