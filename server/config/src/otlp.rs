//! OpenTelemetry: what is exported by OTLP over HTTP, and where to.
//!
//! Nothing is exported unless `otlp` or `otlp-endpoint` is set. Where an option is not given, OpenTelemetry's variable
//! counts (`OTEL_EXPORTER_OTLP_ENDPOINT` and the like), which the exporter reads when it starts.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Config;
use super::row::{Kind, LOGGING, Row, STATS};
use Kind::{Custom, Flag, Number, Path, Text};

/// `--otlp`, `--otlp-*`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtlpConfig {
    /// `--otlp`: export to where the environment says.
    pub enabled: bool,
    /// `--otlp-endpoint`: the collector's base URL; `None` for what the environment says.
    pub endpoint: Option<String>,
    /// `--otlp-headers`: what each request to the collector has.
    pub headers: Vec<(String, String)>,
    /// `--otlp-ca`: the file with the certificates of who signs the collector's.
    pub ca: Option<PathBuf>,
    /// `--otlp-service-name`; `None` for what the environment says.
    pub service_name: Option<String>,
    /// `--otlp-attributes`: of the resource, beside those of the environment.
    pub attributes: Vec<(String, String)>,
    /// `--otlp-metrics`
    pub metrics: bool,
    /// `--otlp-traces`
    pub traces: bool,
    /// `--otlp-logs`
    pub logs: bool,
    /// `--otlp-interval`: seconds between two exports of metrics.
    pub interval: u32,
    /// `--otlp-sample`: the share of requests that are traced where nothing else decides.
    pub sample: Ratio,
    /// `--otlp-parent`: what the caller's decision counts for.
    pub parent: ParentRule,
}

impl Default for OtlpConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            endpoint: None,
            headers: Vec::new(),
            ca: None,
            service_name: None,
            attributes: Vec::new(),
            metrics: true,
            traces: true,
            logs: false,
            interval: 60,
            sample: Ratio::ONE_PERCENT,
            parent: ParentRule::Follow,
        }
    }
}

impl OtlpConfig {
    /// Whether anything is exported.
    #[must_use]
    pub fn is_on(&self) -> bool {
        (self.enabled || self.endpoint.is_some()) && (self.metrics || self.traces || self.logs)
    }

    /// Whether requests are traced.
    #[must_use]
    pub fn has_traces(&self) -> bool {
        self.is_on() && self.traces
    }

    /// Whether lines of the log are exported.
    #[must_use]
    pub fn has_logs(&self) -> bool {
        self.is_on() && self.logs
    }
}

/// A share, from none to all, as the sampler of OpenTelemetry keeps it: of 2^63.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ratio(u64);

impl Ratio {
    const ALL: u64 = 1 << 63;
    /// One of a hundred.
    const ONE_PERCENT: Self = Self((0.01 * Self::ALL as f64) as u64);

    /// Whether a trace is among them. All services that ask of the same trace get the same answer, and one that has a
    /// higher ratio has all of those with a lower one (`TraceIdRatioBased`).
    #[must_use]
    #[inline]
    pub fn has(self, trace: u128) -> bool {
        (trace as u64) >> 1 < self.0
    }
}

/// What the sampled flag of a `traceparent` counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ParentRule {
    /// It decides.
    Follow,
    /// The trace goes on, and `otlp-sample` decides.
    Sample,
    /// Each request begins a trace of its own.
    Ignore,
}

#[rustfmt::skip]
pub(crate) static ROWS: &[Row] = &[
    Row { names: &["otlp"], kind: Flag(|c| &mut c.otlp.enabled),
          help: "Export metrics and traces to the OpenTelemetry collector that OTEL_EXPORTER_OTLP_ENDPOINT names, else to http://localhost:4318", ..STATS },
    Row { names: &["otlp-endpoint"], kind: Custom(endpoint), takes: "URL",
          help: "Export metrics and traces by OTLP over HTTP to the OpenTelemetry collector at this base URL, as in http://collector:4318", ..STATS },
    Row { names: &["otlp-headers"], kind: Custom(headers), takes: "NAME=VALUE,…", repeats: true,
          help: "Send these headers with each export; values may be percent-encoded", ..STATS },
    Row { names: &["otlp-ca"], kind: Path(|c| &mut c.otlp.ca), takes: "FILE",
          help: "Trust the certificates in this file (PEM) for an https collector, and no others", ..STATS },
    Row { names: &["otlp-service-name"], kind: Text(|c| &mut c.otlp.service_name), takes: "NAME",
          help: "Export under this name of the service (service.name); without it OTEL_SERVICE_NAME, else unknown_service:rwsgi", ..STATS },
    Row { names: &["otlp-attributes"], kind: Custom(attributes), takes: "NAME=VALUE,…", repeats: true,
          help: "Export these attributes of the resource, beside those of OTEL_RESOURCE_ATTRIBUTES", ..STATS },
    Row { names: &["otlp-metrics"], kind: Flag(|c| &mut c.otlp.metrics), takes: "[BOOL]", default: "true",
          help: "Export metrics, with otlp or otlp-endpoint", ..STATS },
    Row { names: &["otlp-traces"], kind: Flag(|c| &mut c.otlp.traces), takes: "[BOOL]", default: "true",
          help: "Export traces of requests, with otlp or otlp-endpoint", ..STATS },
    Row { names: &["otlp-logs"], kind: Flag(|c| &mut c.otlp.logs), takes: "[BOOL]", default: "false",
          help: "Export the lines of the log too, with those of the access log and of the application, with otlp or otlp-endpoint", ..LOGGING },
    Row { names: &["otlp-interval"], kind: Number(|c| &mut c.otlp.interval, 1..=3_600), takes: "SECONDS", default: "60",
          help: "Export metrics this often", ..STATS },
    Row { names: &["otlp-sample"], kind: Custom(sample), takes: "RATIO", default: "0.01",
          help: "Trace this share of requests, from 0 to 1 or in percent, where no traceparent decides", ..STATS },
    Row { names: &["otlp-parent"], kind: Custom(parent), takes: "RULE", default: "follow",
          help: "Whether a request's traceparent decides: follow (its sampled flag decides), sample (its trace goes on, and otlp-sample decides), ignore (each request begins a new trace)", ..STATS },
];

fn endpoint(config: &mut Config, value: &str) -> Result<(), String> {
    let rest = value.strip_prefix("http://").or_else(|| value.strip_prefix("https://"));
    let host = rest.map(|rest| rest.split('/').next().unwrap_or(""));
    if host.is_none_or(|host| host.is_empty() || host.contains([' ', '?', '#'])) {
        return Err("a URL, as in http://collector:4318".into());
    }
    config.otlp.endpoint = Some(value.to_owned());
    Ok(())
}

fn headers(config: &mut Config, value: &str) -> Result<(), String> {
    let read = pairs(value).ok_or("NAME=VALUE, several with commas between")?;
    let is_token =
        |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte));
    let is_value = |value: &str| value.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    if !read.iter().all(|(name, value)| is_token(name) && is_value(value)) {
        return Err("names and values that a header can have".into());
    }
    config.otlp.headers.extend(read);
    Ok(())
}

fn attributes(config: &mut Config, value: &str) -> Result<(), String> {
    config.otlp.attributes.extend(pairs(value).ok_or("NAME=VALUE, several with commas between")?);
    Ok(())
}

/// Reads `name=value,name=value` as OpenTelemetry's variables have it: blanks around both are none of theirs, and values
/// are percent-encoded. `None` when a pair is none.
#[must_use]
pub fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let pair = |part: &str| {
        let (name, value) = part.split_once('=')?;
        let name = name.trim();
        (!name.is_empty()).then(|| (name.to_owned(), percent_decoded(value.trim())))
    };
    parts.map(pair).collect()
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, others @ ..] = rest {
        let digit = |at: usize| others.get(at).and_then(|digit| char::from(*digit).to_digit(16));
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                bytes.push((high * 16 + low) as u8);
                rest = &others[2..];
            }
            _ => {
                bytes.push(*first);
                rest = others;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn sample(config: &mut Config, value: &str) -> Result<(), String> {
    let (number, whole) = value.trim().strip_suffix('%').map_or((value.trim(), 1.0), |number| (number.trim(), 100.0));
    let ratio = number.parse::<f64>().ok().map(|number| number / whole);
    let ratio = ratio.filter(|ratio| (0.0..=1.0).contains(ratio)).ok_or("a number from 0 to 1, or a percentage")?;
    config.otlp.sample = Ratio((ratio * Ratio::ALL as f64) as u64);
    Ok(())
}

fn parent(config: &mut Config, value: &str) -> Result<(), String> {
    config.otlp.parent = match value {
        "follow" => ParentRule::Follow,
        "sample" => ParentRule::Sample,
        "ignore" => ParentRule::Ignore,
        _ => return Err("follow, sample or ignore".into()),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests::serve;

    fn otlp(line: &str) -> OtlpConfig {
        serve(&format!("rwsgi --http :1 -w m {line}")).otlp
    }

    #[test]
    fn nothing_is_exported_unless_an_option_asks() {
        assert!(!otlp("").is_on() && !otlp("--otlp-logs=true --otlp-sample=1").is_on());
        let on = otlp("--otlp-endpoint http://c:4318");
        assert!(on.is_on() && on.has_traces() && on.metrics && !on.has_logs());
        assert!(otlp("--otlp --otlp-logs").has_logs());
        assert!(!otlp("--otlp --otlp-traces=false").has_traces());
        assert!(!otlp("--otlp --otlp-traces=false --otlp-metrics=no").is_on());
        assert_eq!(otlp("--otlp --otlp-interval 5").interval, 5);
    }

    #[test]
    fn a_ratio_is_a_share_or_a_percentage() {
        for (value, share) in [("0", 0.0), ("1", 1.0), ("0.25", 0.25), ("5%", 0.05), ("100 %", 1.0), ("1e-3", 0.001)] {
            let mut config = Config::default();
            sample(&mut config, value).unwrap();
            let has = (0..10_000_u128).filter(|n| config.otlp.sample.has(n * (u128::from(u64::MAX) / 10_000))).count();
            assert!((has as f64 / 10_000.0 - share).abs() < 0.001, "{value}: {has}");
        }
        for value in ["", "2", "-1", "101%", "some", "NaN"] {
            assert!(sample(&mut Config::default(), value).is_err(), "{value}");
        }
        assert!(otlp("--otlp-sample 1").sample.has(u128::MAX) && !otlp("--otlp-sample 0").sample.has(0));
    }

    #[test]
    fn pairs_are_read_as_the_specification_writes_them() {
        let mut config = Config::default();
        headers(&mut config, "Authorization=Basic%20QQ==, x-tenant = a").unwrap();
        let expected = [("Authorization", "Basic QQ=="), ("x-tenant", "a")];
        assert_eq!(config.otlp.headers, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        for value in ["a", "=b", "a b=c", "a=b%0d%0ac", "ä=b"] {
            assert!(headers(&mut config, value).is_err(), "{value}");
        }
        attributes(&mut config, "deployment.environment=prod%,").unwrap();
        assert_eq!(config.otlp.attributes, [("deployment.environment".to_owned(), "prod%".to_owned())]);
    }

    #[test]
    fn an_endpoint_is_a_url() {
        for value in ["http://c", "https://c:4318/prefix", "http://[::1]:4318"] {
            endpoint(&mut Config::default(), value).unwrap();
        }
        for value in ["", "c:4318", "grpc://c", "http://", "http:///v1", "http://a b"] {
            assert!(endpoint(&mut Config::default(), value).is_err(), "{value}");
        }
        assert!(parent(&mut Config::default(), "always").is_err());
    }
}
