//! Which servers a fleet has, and whether they answer.

use std::fmt::Write as _;

use serde_json::json;

use crate::model::fleet::{Fleet, State, Tracked};
use crate::source::fleet::Figure;

/// What figures are called in JSON.
const NAMES: [(Figure, &str); Figure::ALL.len()] = [
    (Figure::Rps, "rps"),
    (Figure::Errors, "error_rate"),
    (Figure::Mean, "mean"),
    (Figure::P50, "p50"),
    (Figure::P95, "p95"),
    (Figure::P99, "p99"),
    (Figure::Utilization, "utilization"),
    (Figure::Saturation, "saturation"),
    (Figure::Waiting, "waiting"),
    (Figure::Rss, "rss"),
];

fn state_of(server: &Tracked) -> (&'static str, Option<&str>) {
    match &server.state {
        State::New => ("new", None),
        State::Up => ("up", None),
        State::Slow { .. } => ("slow", None),
        State::Dead { why, .. } => ("dead", Some(why)),
    }
}

/// A line for each: its name, whether it answers, and what it is or why it does not.
pub(crate) fn servers_text(fleet: &Fleet) -> String {
    let width = fleet.servers().map(|server| server.server.name.chars().count()).max().unwrap_or(0).max(6);
    let mut text = format!("{:<width$}  STATE\n", "SERVER");
    for server in fleet.servers() {
        let (state, why) = state_of(server);
        let program = server
            .sample
            .as_ref()
            .map(|sample| format!("{} {}", if sample.run.is_rwsgi { "rwsgi" } else { "uWSGI" }, sample.run.version));
        let line = format!(
            "{:<width$}  {state:<5}  {}",
            server.server.name,
            why.map_or(program, |why| Some(why.to_owned())).unwrap_or_default()
        );
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

/// A line of JSON for each.
pub(crate) fn servers_json(fleet: &Fleet) -> String {
    let mut text = String::new();
    for server in fleet.servers() {
        let (state, why) = state_of(server);
        let labels: serde_json::Map<_, _> =
            server.server.labels.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
        let figures: serde_json::Map<_, _> = NAMES
            .iter()
            .filter_map(|(figure, name)| Some(((*name).to_owned(), json!(server.figures.get(*figure)?))))
            .collect();
        let line = json!({
            "server": server.server.name,
            "state": state,
            "why": why,
            "address": server.server.address.as_ref().map(ToString::to_string),
            "labels": labels,
            "generation": server.figures.generation,
            "figures": figures,
            "points": server.history.iter().len(),
        });
        let _ = writeln!(text, "{line}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::fleet::{FleetEvent, Server, ServerId, ServerSample};
    use crate::source::{Monotonic, SourceError};

    #[test]
    fn each_server_says_what_it_is_or_why_it_does_not_answer() {
        let mut fleet = Fleet::default();
        for (id, name) in [(0, "web1:9191"), (1, "web2"), (2, "web3")] {
            let server = Server { name: name.to_owned(), labels: vec![("rack".into(), "a".into())], address: None };
            fleet.take(FleetEvent::Joined(ServerId(id), server));
        }
        let sample = ServerSample { waiting: 3, ..ServerSample::default() };
        fleet.take(FleetEvent::Sample(ServerId(0), Box::new(sample)));
        fleet.take(FleetEvent::Failed(ServerId(1), Monotonic::default(), SourceError::Empty));
        let text = servers_text(&fleet);
        let expected = "SERVER     STATE\nweb1:9191  up     uWSGI\nweb2       dead   the server closed the connection without an \
                        answer\nweb3       new\n";
        assert_eq!(text, expected);
        let lines: Vec<serde_json::Value> =
            servers_json(&fleet).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines[0]["figures"], json!({"waiting": 3.0}));
        assert_eq!((&lines[1]["state"], &lines[2]["labels"]["rack"]), (&json!("dead"), &json!("a")));
    }
}
