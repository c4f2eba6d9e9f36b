//! Prometheus as a source: what it is asked, and what it answers.
//!
//! One question gives all numbers of all servers: parts with a label of their own that says which [`Figure`] they are, joined by
//! `or`. So a poll costs a fleet one request, however many servers there are.

mod answer;
mod url;

use std::io::Write;
use std::time::Duration;

use super::SourceError;
use super::connect::{Connector, Deadline};
use super::fetch::{Head, body_of, read_to_end};
use super::fleet::Figure;

pub(crate) use self::answer::{Instance, Row};
pub(crate) use self::url::{Prometheus, PrometheusError};

/// The label that says what a number is.
pub(super) const PART: &str = "rtop";

/// What a number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// One of the figures.
    Figure(Figure),
    /// The generation that serves.
    Generation,
    /// Whether Prometheus could scrape the server.
    Up,
    /// Percentiles of all servers together, in the order of [`Percentiles`](rwsgi_assertions::Percentiles).
    Together(usize),
}

/// Quantiles, and what they are called here.
const QUANTILES: [(f64, &str); 3] = [(0.5, "p50"), (0.95, "p95"), (0.99, "p99")];

/// What is asked of each server, as the text of a query: `{s}` stands for the matchers, `{w}` for the window, and `{by}` for the
/// labels that tell servers apart. The first of several names that a server has counts: ours, and those of the exporter for uWSGI.
#[rustfmt::skip]
const PARTS: &[(&str, Part, &[&str])] = &[
    ("up", Part::Up, &["min {by} (rwsgi_up{s})", "min {by} (uwsgi_up{s})", "max {by} (up{s})"]),
    ("rps", Part::Figure(Figure::Rps), &[
        "sum {by} (rate(rwsgi_worker_requests_total{s}[{w}]))", "sum {by} (rate(uwsgi_worker_requests_total{s}[{w}]))"]),
    ("errors", Part::Figure(Figure::Errors), &[
        r#"sum {by} (rate(rwsgi_worker_responses_total{s,class="5xx"}[{w}])) / sum {by} (rate(rwsgi_worker_responses_total{s}[{w}]))"#,
        "sum {by} (rate(rwsgi_worker_exceptions_total{s}[{w}])) / sum {by} (rate(rwsgi_worker_requests_total{s}[{w}]))",
        "sum {by} (rate(uwsgi_worker_exceptions_total{s}[{w}])) / sum {by} (rate(uwsgi_worker_requests_total{s}[{w}]))"]),
    ("mean", Part::Figure(Figure::Mean), &[
        "1e6 * sum {by} (rate(rwsgi_worker_busy_seconds_total{s}[{w}])) / sum {by} (rate(rwsgi_worker_requests_total{s}[{w}]))",
        "1e6 * sum {by} (rate(uwsgi_worker_running_time_seconds{s}[{w}])) / sum {by} (rate(uwsgi_worker_requests_total{s}[{w}]))"]),
    ("utilization", Part::Figure(Figure::Utilization), &[
        "sum {by} (rate(rwsgi_worker_busy_seconds_total{s}[{w}])) / sum {by} (rwsgi_worker_cores{s})",
        "sum {by} (rate(uwsgi_worker_running_time_seconds{s}[{w}])) / sum {by} (uwsgi_worker_cores{s})"]),
    ("saturation", Part::Figure(Figure::Saturation), &["max {by} (rwsgi_saturation{s})"]),
    ("waiting", Part::Figure(Figure::Waiting), &[
        "sum {by} (rwsgi_queue_depth{s})", "sum {by} (uwsgi_listen_queue_length{s})"]),
    ("rss", Part::Figure(Figure::Rss), &[
        "sum {by} (rwsgi_worker_resident_memory_bytes{s})", "sum {by} (uwsgi_worker_rss_bytes{s})"]),
    ("generation", Part::Generation, &["max {by} (rwsgi_generation{s})"]),
];

/// What of it is asked of the past: as much as a chart of hundreds of servers needs.
const PAST: [&str; 5] = ["rps", "errors", "mean", "rss", "p99"];

fn part_of(name: &str) -> Option<Part> {
    let known = PARTS.iter().find(|(known, ..)| *known == name).map(|(_, part, _)| *part);
    known.or(match name {
        "p50" => Some(Part::Figure(Figure::P50)),
        "p95" => Some(Part::Figure(Figure::P95)),
        "p99" => Some(Part::Figure(Figure::P99)),
        _ => QUANTILES.iter().position(|(_, quantile)| name.strip_prefix("all_") == Some(quantile)).map(Part::Together),
    })
}

impl Prometheus {
    /// All that is asked at a poll.
    fn question(&self) -> String {
        let mut parts: Vec<String> = PARTS.iter().flat_map(|(name, _, queries)| self.part(name, queries)).collect();
        for (quantile, name) in QUANTILES {
            parts.extend(self.quantile(quantile, name, "by (job, instance)", "by (job, instance, le)"));
            parts.extend(self.quantile(quantile, &format!("all_{name}"), "", "by (le)"));
        }
        parts.join(" or ")
    }

    /// All that is asked of the past.
    fn question_of_the_past(&self) -> String {
        let wanted = PARTS.iter().filter(|(name, ..)| PAST.contains(name));
        let mut parts: Vec<String> = wanted.flat_map(|(name, _, queries)| self.part(name, queries)).collect();
        parts.extend(self.quantile(0.99, "p99", "by (job, instance)", "by (job, instance, le)"));
        parts.join(" or ")
    }

    fn part(&self, name: &str, queries: &[&str]) -> Vec<String> {
        let label = |query: &&str| {
            format!(r#"label_replace({}, "{PART}", "{name}", "", "")"#, self.fill(query, "by (job, instance)"))
        };
        queries.iter().map(label).collect()
    }

    /// A quantile of a native histogram, or of classic buckets.
    fn quantile(&self, quantile: f64, name: &str, by: &str, by_bucket: &str) -> [String; 2] {
        [("rwsgi_request_duration_seconds", by), ("rwsgi_request_duration_seconds_bucket", by_bucket)].map(
            |(metric, by)| {
                let rate = self.fill(&format!("sum {{by}} (rate({metric}{{s}}[{{w}}]))"), by);
                format!(r#"label_replace(1e6 * histogram_quantile({quantile}, {rate}), "{PART}", "{name}", "", "")"#)
            },
        )
    }

    fn fill(&self, query: &str, by: &str) -> String {
        let selector = self.selector();
        // A matcher more goes into the same braces.
        let open = selector.strip_suffix('}').unwrap_or(&selector);
        let joined = if open == "{" { open.to_owned() } else { format!("{open},") };
        query.replace("{by}", by).replace("{w}", &self.window).replace("{s,", &joined).replace("{s}", &selector)
    }
}

/// Asks a Prometheus again and again.
#[derive(Debug)]
pub(crate) struct Client {
    prometheus: Prometheus,
    timeout: Duration,
    connector: Connector,
    question: String,
}

impl Client {
    /// Of one that has so long to answer.
    pub(crate) fn new(prometheus: Prometheus, timeout: Duration) -> Self {
        let question = prometheus.question();
        Self { prometheus, timeout, connector: Connector::default(), question }
    }

    /// What it knows of all servers now.
    ///
    /// # Errors
    /// When it does not answer, or not what was asked.
    pub(crate) fn now(&mut self) -> Result<Vec<Row>, SourceError> {
        let form = format!("query={}", url::encode(&self.question));
        answer::instant(&self.post("query", &form)?)
    }

    /// What it knows of all servers in the time until `until` (unix seconds), a number for each `step`.
    ///
    /// # Errors
    /// As [`now`](Self::now).
    pub(crate) fn past(&mut self, until: u64, time: Duration, step: Duration) -> Result<Vec<Row>, SourceError> {
        let (start, step) = (until.saturating_sub(time.as_secs()), step.as_secs().max(1));
        let query = url::encode(&self.prometheus.question_of_the_past());
        answer::range(&self.post("query_range", &format!("query={query}&start={start}&end={until}&step={step}"))?)
    }

    fn post(&mut self, path: &str, form: &str) -> Result<Vec<u8>, SourceError> {
        let deadline = Deadline::within(self.timeout);
        let mut socket = self.connector.connect(&self.prometheus.address, &deadline)?;
        let Prometheus { address, prefix, .. } = &self.prometheus;
        // HTTP/1.0: the answer is not chunked, and ends with the connection. Not in the URL: a fleet's question is long.
        let request = format!(
            "POST {prefix}/api/v1/{path} HTTP/1.0\r\nHost: {address}\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Content-Length: {}\r\nAccept: application/json\r\nConnection: close\r\n\r\n{form}",
            form.len()
        );
        socket.set_write_timeout(Some(deadline.left()?)).map_err(SourceError::Read)?;
        socket.write_all(request.as_bytes()).map_err(|error| deadline.classify(error))?;
        let answer = read_to_end(&socket, Vec::new(), &deadline).map_err(SourceError::of_who_was_asked)?;
        if answer.is_empty() {
            return Err(SourceError::Empty);
        }
        // It says in JSON what is wrong with a question.
        let refused = match Head::of(&answer) {
            Some(Ok(head)) if head.status != 200 => answer::error(&answer[head.length..]),
            _ => None,
        };
        refused.map_or_else(|| body_of(answer), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_names_the_servers_and_itself() {
        let prometheus: Prometheus = "prometheus://mon:9090/?job=app&env!=dev&window=5m".parse().unwrap();
        let question = prometheus.question();
        assert!(
            question
                .contains(r#"sum by (job, instance) (rate(rwsgi_worker_requests_total{job="app",env!="dev"}[5m]))"#)
        );
        assert!(
            question.contains(r#"rwsgi_worker_responses_total{job="app",env!="dev",class="5xx"}[5m]"#),
            "{question}"
        );
        assert!(question.contains(r#""rtop", "all_p99", "", "")"#));
        assert!(!question.contains("{s") && !question.contains("{by") && !question.contains("{w"));
        let bare: Prometheus = "prometheus://mon:9090".parse().unwrap();
        assert!(bare.question().contains(r#"rwsgi_worker_responses_total{class="5xx"}[1m]"#));
        assert!(bare.question().contains("max by (job, instance) (up{})"));
        for name in PARTS.iter().map(|(name, ..)| *name).chain(PAST).chain(["p50", "all_p95"]) {
            assert!(part_of(name).is_some(), "{name}");
        }
        assert_eq!(part_of("all_p95"), Some(Part::Together(1)));
    }
}
