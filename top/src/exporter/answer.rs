//! What each path answers.

use std::fmt::Write as _;
use std::time::Duration;

use rwsgi_metrics::Format;
use serde_json::json;

use super::http::{self, Request, Response};
use super::render::{UwsgiExporter, render};
use super::watched::Watched;
use crate::source::Target;

/// The servers, and how their numbers are given.
#[derive(Debug)]
pub(super) struct Exporter {
    targets: Vec<Watched>,
    compat: Option<UwsgiExporter>,
}

impl Exporter {
    pub(super) fn new(targets: &[Target], timeout: Duration, compat: Option<UwsgiExporter>) -> Self {
        let targets = targets.iter().map(|target| Watched::new(target.clone(), timeout)).collect();
        Self { targets, compat }
    }

    /// What it serves, for the line of the log.
    pub(super) fn summary(&self) -> String {
        match self.targets.as_slice() {
            [only] => format!("/metrics of {}", only.name),
            several => format!("/probe?target=ADDRESS of {} servers", several.len()),
        }
    }

    pub(super) fn answer(&self, request: &Request) -> Response {
        match (request.path.as_str(), self.targets.as_slice()) {
            ("/metrics", [only]) => self.metrics(request, only),
            ("/metrics", several) => Response::ok(request, Format::Text.content_type(), own_metrics(several).into()),
            ("/probe", targets) => {
                let asked = http::value(&request.query, "target").unwrap_or_default();
                // As it was typed, or as it is shown: an address may be written in more than one way.
                let parsed = asked.parse().map_or(asked, |target: Target| target.to_string());
                match targets.iter().find(|target| target.name == parsed) {
                    Some(target) => self.metrics(request, target),
                    None => {
                        Response::not_found(request, format!("{parsed:?} is not one of the servers of this exporter\n"))
                    }
                }
            }
            ("/sd", targets) => Response::ok(request, "application/json", discovery(targets, &request.host)),
            ("/", targets) => Response::ok(request, "text/plain; charset=utf-8", index(targets).into()),
            _ => Response::not_found(request, "there is /, /metrics, /probe?target=ADDRESS and /sd\n".to_owned()),
        }
    }

    fn metrics(&self, request: &Request, target: &Watched) -> Response {
        let format = rwsgi_metrics::negotiate(Some(&request.accept));
        let (snapshot, scrapes) = target.read();
        let body = render(snapshot.as_deref(), format, self.compat, &target.stats_uri, scrapes);
        Response::ok(request, format.content_type(), body)
    }
}

/// The exporter's own numbers: how the scrapes of each server went.
fn own_metrics(targets: &[Watched]) -> String {
    let mut text = "# HELP rtop_exporter_scrapes_total Times that a stats server was read.\n\
                    # TYPE rtop_exporter_scrapes_total counter\n"
        .to_owned();
    for target in targets {
        let name = target.name.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let scrapes = target.scrapes();
        for (result, count) in [("ok", scrapes.count - scrapes.errors), ("failed", scrapes.errors)] {
            let _ = writeln!(text, "rtop_exporter_scrapes_total{{target=\"{name}\",result=\"{result}\"}} {count}");
        }
    }
    text
}

/// What Prometheus's `http_sd_configs` reads: a group for each server, that leads to its probe here.
fn discovery(targets: &[Watched], host: &str) -> Vec<u8> {
    let group = |target: &Watched| {
        json!({
            "targets": [host],
            "labels": {
                "__metrics_path__": "/probe",
                "__param_target": target.name,
                "instance": target.name,
            },
        })
    };
    let groups: Vec<_> = targets.iter().map(group).collect();
    json!(groups).to_string().into_bytes()
}

fn index(targets: &[Watched]) -> String {
    let mut text = "rtop: metrics of stats servers, for Prometheus\n\n".to_owned();
    if targets.len() == 1 {
        text.push_str("/metrics\n");
    }
    for target in targets {
        let _ = writeln!(text, "/probe?target={}", target.name);
    }
    text
}
