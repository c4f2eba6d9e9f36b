//! One export: an HTTP request, and what its answer means (OTLP/HTTP, "Request and Response").

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use rwsgi_stats::Shown;
use tracing::info;
use ureq::http::Uri;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Proxy, ProxyProtocol};

use super::Signal;
use super::target::Target;

/// The longest answer that is read, bytes.
const LONGEST_ANSWER: u64 = 64 * 1024;
/// The longest time that a collector may have us wait.
const LONGEST_AFTER: Duration = Duration::from_secs(300);

/// What came of an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was taken, but for so many; and what the collector says.
    Taken { rejected: u64, said: String },
    /// It may be taken later, and not before that time.
    Later { after: Option<Duration>, why: String },
    /// It will never be taken.
    Refused(String),
}

/// Sends to one collector.
pub(super) struct Client {
    agent: ureq::Agent,
    target: Target,
    /// Its URLs, without what nobody is to see.
    shown: [String; 3],
    /// Which of them are of this machine: no proxy is asked for these.
    is_local: [bool; 3],
}

impl Client {
    /// # Errors
    /// When the certificates to trust are none.
    pub(super) fn new(target: Target) -> anyhow::Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = TlsConfig::builder().unversioned_rustls_crypto_provider(provider);
        let tls = tls.root_certs(RootCerts::new_with_certs(&roots(&target)?));
        let is_local = Signal::ALL.map(|signal| is_loopback(target.url(signal)));
        // SOCKS is not spoken.
        let is_spoken = |proxy: &Proxy| matches!(proxy.protocol(), ProxyProtocol::Http | ProxyProtocol::Https);
        let proxy = Proxy::try_from_env().filter(is_spoken).filter(|_| is_local.contains(&false));
        if let Some(proxy) = &proxy {
            info!("otlp: the proxy {}:{} is used, as the environment says", proxy.host(), proxy.port());
        }
        let config = ureq::Agent::config_builder()
            .proxy(proxy)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("rwsgi/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls.build())
            .build();
        let shown = Signal::ALL.map(|signal| Shown::default().text(target.url(signal)).into_owned());
        Ok(Self { agent: config.new_agent(), target, shown, is_local })
    }

    /// Who gets a signal, for the log.
    pub(super) fn url(&self, signal: Signal) -> &str {
        &self.shown[signal as usize]
    }

    pub(super) fn target(&self) -> &Target {
        &self.target
    }

    /// Sends an encoded request, within a time.
    pub(super) fn post(&self, signal: Signal, body: &[u8], within: Duration) -> Outcome {
        let mut request = self.agent.post(self.target.url(signal)).content_type("application/x-protobuf");
        for (name, value) in &self.target.headers {
            request = request.header(name, value);
        }
        let config = request.config().timeout_global(Some(within));
        let config = if self.is_local[signal as usize] { config.proxy(None) } else { config };
        match config.build().send(body) {
            Ok(mut answer) => {
                let status = answer.status().as_u16();
                let after =
                    answer.headers().get("retry-after").and_then(|value| value.to_str().ok()).and_then(retry_after);
                // What cannot be read says nothing.
                let said = answer.body_mut().with_config().limit(LONGEST_ANSWER).read_to_vec().unwrap_or_default();
                outcome_of(signal, status, after, &said)
            }
            Err(error @ (ureq::Error::BadUri(_) | ureq::Error::Http(_) | ureq::Error::InvalidProxyUrl)) => {
                Outcome::Refused(error.to_string())
            }
            Err(error) => Outcome::Later { after: None, why: error.to_string() },
        }
    }
}

/// Whether a URL is of this machine by its name.
fn is_loopback(url: &str) -> bool {
    let uri = url.parse::<Uri>().unwrap_or_default();
    let host = uri.host().unwrap_or("").trim_matches(['[', ']']);
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The certificates that may have signed the collector's.
fn roots(target: &Target) -> anyhow::Result<Vec<Certificate<'static>>> {
    let Some((option, pem)) = &target.ca else {
        if !target.is_https() {
            return Ok(Vec::new());
        }
        let found = rustls_native_certs::load_native_certs().certs;
        anyhow::ensure!(!found.is_empty(), "otlp: the system has no certificates to trust a collector by: set otlp-ca");
        return Ok(found.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).collect());
    };
    let mut roots = Vec::new();
    for item in parse_pem(pem) {
        if let PemItem::Certificate(certificate) = item.with_context(|| format!("{option}: not PEM"))? {
            roots.push(certificate);
        }
    }
    anyhow::ensure!(!roots.is_empty(), "{option}: there is no certificate in the file");
    Ok(roots)
}

fn outcome_of(signal: Signal, status: u16, after: Option<Duration>, said: &[u8]) -> Outcome {
    match status {
        200..=299 => {
            let (rejected, said) = partial_success(signal, said);
            Outcome::Taken { rejected: rejected.try_into().unwrap_or(0), said }
        }
        429 | 502 | 503 | 504 => Outcome::Later { after, why: format!("it answers {status}") },
        _ => {
            // A `Status` of protobuf: its message is the second field. Only what can be read is shown.
            let text = String::from_utf8_lossy(said);
            let text: String =
                text.chars().filter(|character| !rwsgi_stats::is_control(*character)).take(200).collect();
            Outcome::Refused(format!("it answers {status} {}", text.trim()).trim_end().to_owned())
        }
    }
}

/// How many were rejected, and why.
fn partial_success(signal: Signal, answer: &[u8]) -> (i64, String) {
    let part = match signal {
        Signal::Traces => ExportTraceServiceResponse::decode(answer)
            .ok()
            .and_then(|answer| answer.partial_success)
            .map(|part| (part.rejected_spans, part.error_message)),
        Signal::Metrics => ExportMetricsServiceResponse::decode(answer)
            .ok()
            .and_then(|answer| answer.partial_success)
            .map(|part| (part.rejected_data_points, part.error_message)),
        Signal::Logs => ExportLogsServiceResponse::decode(answer)
            .ok()
            .and_then(|answer| answer.partial_success)
            .map(|part| (part.rejected_log_records, part.error_message)),
    };
    part.unwrap_or_default()
}

/// `Retry-After`: seconds, or a date (RFC 9110 section 10.2.3).
fn retry_after(value: &str) -> Option<Duration> {
    let value = value.trim();
    let after = match value.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(value).ok()?.duration_since(SystemTime::now()).unwrap_or_default(),
    };
    Some(after.min(LONGEST_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTracePartialSuccess;

    #[test]
    fn an_answer_is_read_as_the_specification_has_it() {
        let part = ExportTracePartialSuccess { rejected_spans: 2, error_message: "too old".into() };
        let answer = ExportTraceServiceResponse { partial_success: Some(part) }.encode_to_vec();
        let of = |status, said: &[u8]| outcome_of(Signal::Traces, status, None, said);
        assert_eq!(of(200, &answer), Outcome::Taken { rejected: 2, said: "too old".into() });
        for said in [&b""[..], b"\xff", b"{}"] {
            assert_eq!(of(200, said), Outcome::Taken { rejected: 0, said: String::new() });
        }
        for status in [429, 502, 503, 504] {
            assert!(matches!(of(status, b""), Outcome::Later { .. }), "{status}");
        }
        for status in [400, 401, 404, 413, 500, 501, 301] {
            assert!(matches!(of(status, b""), Outcome::Refused(_)), "{status}");
        }
        assert_eq!(of(400, b"no\x1b[1m way"), Outcome::Refused("it answers 400 no[1m way".into()));
    }

    #[test]
    fn a_collector_on_this_machine_is_known_by_its_url() {
        for url in
            ["http://localhost:4318/v1/logs", "https://127.0.0.1", "http://[::1]:4318/x", "http://u:p@LOCALHOST/"]
        {
            assert!(is_loopback(url), "{url}");
        }
        for url in ["http://collector:4318/localhost", "http://127.0.0.1.example.org", "http://10.0.0.1", ""] {
            assert!(!is_loopback(url), "{url}");
        }
    }

    #[test]
    fn a_time_to_wait_is_seconds_or_a_date_and_has_an_end() {
        assert_eq!(retry_after(" 7 "), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("100000"), Some(LONGEST_AFTER));
        assert_eq!(retry_after("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert_eq!(retry_after(&httpdate::fmt_http_date(SystemTime::now() + LONGEST_AFTER * 2)), Some(LONGEST_AFTER));
        assert_eq!(retry_after("soon"), None);
    }
}
