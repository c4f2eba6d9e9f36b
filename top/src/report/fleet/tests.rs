//! What is written of a fleet, and how it is judged.

use std::sync::mpsc;
use std::time::Duration;

use jiff::tz::TimeZone;
use serde_json::Value;

use super::super::Batch;
use super::super::judge::{Judge, Phases};
use super::super::verdict::Verdict;
use super::lines::{csv_header, csv_rows, json_line, json_schema, table};
use super::steps::Steps;
use super::{Plan, refusal, watch_fleet};
use crate::model::fields::Clock as DayClock;
use crate::model::fleet::Fleet;
use crate::model::outliers::Outliers;
use crate::model::outliers::made::{Made, Second, at, slower, well};
use crate::model::{FleetTotals, server_rows};
use crate::report::{End, Format};
use crate::source::fleet::{Figure, Figures, FleetEvent, ServerId};
use crate::source::{Clock, EndedBy, Ending, LocalMicros};
use rwsgi_assertions::Assertion;

const START: u64 = 1_795_227_000_000_000;

fn assertions(texts: &[&str]) -> Vec<Assertion> {
    texts.iter().map(|text| text.parse().unwrap_or_else(|error| panic!("{error}"))).collect()
}

struct Watched {
    fleet: Fleet,
    outliers: Outliers,
    judge: Judge,
    steps: Steps,
    made: Made,
}

impl Watched {
    fn new(servers: usize, asserted: &[&str]) -> Self {
        let assertions = assertions(asserted);
        let judge = Judge::of_fleet(&assertions, Phases::default(), Duration::from_secs(1));
        let (mut fleet, made) = (Fleet::default(), Made::new(servers));
        made.joined(|_| Vec::new()).into_iter().for_each(|event| fleet.take(event));
        Self { fleet, outliers: Outliers::default(), judge, steps: Steps::new(&assertions), made }
    }

    fn take(&mut self, events: Vec<FleetEvent>) {
        for event in events {
            let answered = if let FleetEvent::Sample(id, _) = &event { Some(*id) } else { None };
            self.fleet.take(event);
            answered.into_iter().for_each(|id| self.steps.answered(&self.fleet, id));
        }
        let now = self.fleet.swept().unwrap().0;
        self.outliers.advance(&self.fleet, now);
        let taken = LocalMicros(START + now.as_micros());
        self.steps.sweep(&self.fleet, &self.outliers, &mut self.judge, now, taken);
    }

    fn seconds(&mut self, seconds: u64, does: impl Fn(usize) -> Option<Second>) {
        for _ in 0..seconds {
            let events = self.made.second(&does);
            self.take(events);
        }
    }

    fn verdict(self) -> Verdict {
        let now = self.fleet.swept().unwrap().0;
        self.judge.finish(&Ending { at: now, by: EndedBy::Time, why: None })
    }
}

/// Six servers for twenty seconds; the third is four times as slow and fails.
fn judged(asserted: &[&str]) -> Verdict {
    let mut watched = Watched::new(6, asserted);
    watched.seconds(20, |place| Some(if place == 2 { slower(Second { errors: 4, ..well() }, 4) } else { well() }));
    watched.verdict()
}

#[test]
fn the_verdict_names_the_worst_server_and_its_value() {
    let verdict = judged(&[
        "server.p99.max < 60ms",
        "server.p99.median < 60ms",
        "server.p99.all < 60ms",
        "server.p99.any > 60ms",
        "server.error_rate.max < 1%",
        "server.rps.sum > 200",
        "server.rps.min > 30",
        "server.up.count == 6",
        "server.dead.count == 0",
        "server.outliers.sum == 0",
        "server.saturation.max < 50%",
    ]);
    assert_eq!(verdict.exit_code(), 1);
    let junit = verdict.junit(&TimeZone::UTC).unwrap();
    let junit: String = junit.lines().skip(2).collect::<Vec<_>>().join("\n");
    insta::assert_snapshot!(format!("{}{}{junit}", verdict.table(&TimeZone::UTC), verdict.json()));
}

#[test]
fn a_dead_server_is_no_pass_unless_the_states_are_asserted() {
    let dies = |asserted: &[&str]| {
        let mut watched = Watched::new(4, asserted);
        watched.seconds(3, |_| Some(well()));
        watched.seconds(3, |place| (place != 1).then(well));
        watched.verdict()
    };
    let verdict = dies(&["server.p99.max < 60ms"]);
    assert_eq!(verdict.exit_code(), 2);
    let void = verdict.void.unwrap();
    assert!(void.contains("web1 was dead: the server closed the connection") && void.contains("assert it"), "{void}");
    for (asserted, code) in [
        (["server.p99.max < 60ms", "server.dead.count < 2"], 0),
        (["server.p99.max < 60ms", "server.up.count == 4"], 1),
        (["server.p99.max < 60ms", "server.up.count >= 3"], 0),
    ] {
        let verdict = dies(&asserted);
        assert_eq!(verdict.exit_code(), code, "{asserted:?}: {verdict:?}");
    }
    let table = dies(&["server.up.count == 4"]).table(&TimeZone::UTC);
    assert!(table.contains("web1: not up"), "{table}");
}

#[test]
fn a_dead_server_is_excused_only_by_what_it_is_judged_by() {
    for (states, code) in
        [("server.draining.count == 0", 2), ("server.slow.count == 0", 2), ("server.dead.count < 2", 0)]
    {
        let mut watched = Watched::new(4, &["server.p99.max < 60ms", states]);
        watched.seconds(3, |_| Some(well()));
        watched.seconds(3, |place| (place != 1).then(well));
        let verdict = watched.verdict();
        assert_eq!(verdict.exit_code(), code, "{states}: {verdict:?}");
    }
}

#[test]
fn a_server_that_hangs_is_no_pass_before_its_time_to_answer_is_over() {
    let hangs = |asserted: &[&str], from: u64, leaves: bool| {
        let mut watched = Watched::new(4, asserted);
        for second in 1..=8 {
            let hangs = second > from;
            let mut events = watched.made.second(|_| Some(well()));
            if hangs {
                events.retain(|event| !matches!(event, FleetEvent::Sample(ServerId(1), _)));
                events.insert(0, FleetEvent::Late(ServerId(1), at(second)));
            }
            if leaves && second == 8 {
                events.insert(0, FleetEvent::Left(ServerId(1)));
            }
            watched.take(events);
        }
        watched.verdict()
    };
    for from in [0, 4] {
        let void = hangs(&["server.p99.max < 60ms", "server.dead.count == 0"], from, false).void.unwrap();
        assert!(void.contains("web1 did not answer"), "{void}");
        assert_eq!(hangs(&["server.p99.max < 60ms", "server.up.count == 4"], from, false).exit_code(), 1);
        assert_eq!(hangs(&["server.p99.max < 60ms", "server.slow.count < 2"], from, false).exit_code(), 0);
    }
    // One answer that is late at the very end is none that is missing.
    assert_eq!(hangs(&["server.p99.max < 60ms"], 7, false).exit_code(), 0);
    assert_eq!(hangs(&["server.p99.max < 60ms"], 4, true).exit_code(), 0);
}

#[test]
fn all_answers_between_two_sweeps_are_counted() {
    let mut watched = Watched::new(2, &["server.requests.sum == 400", "server.p99.max > 1s"]);
    watched.seconds(1, |_| Some(well()));
    for second in (2..=6).step_by(2) {
        // The answers are all slow in the first of them, and each sweep after it sees two.
        let mut events = watched.made.second(|_| Some(slower(well(), 100)));
        events.retain(|event| second == 6 || !matches!(event, FleetEvent::Sweep(_)));
        if second < 6 {
            events.extend(watched.made.second(|_| Some(well())));
        }
        watched.take(events);
    }
    let verdict = watched.verdict();
    assert_eq!(verdict.exit_code(), 0, "{}", verdict.table(&TimeZone::UTC));
}

#[test]
fn one_that_was_restarted_is_told_by_name() {
    let restarted = |asserted: &[&str]| {
        let mut watched = Watched::new(4, asserted);
        watched.seconds(3, |_| Some(well()));
        watched.made.restart(2);
        watched.seconds(3, |_| Some(well()));
        watched.verdict()
    };
    assert!(restarted(&["server.p99.max < 1s"]).void.unwrap().contains("web2 restarted while watched"));
    assert_eq!(restarted(&["server.p99.max < 1s", "server.restarts.sum <= 1"]).exit_code(), 0);
}

#[test]
fn a_note_names_few_of_many_servers() {
    let mut watched = Watched::new(40, &["server.error_rate.max < 1%"]);
    watched.made.samples.iter_mut().for_each(|sample| sample.failed = None);
    watched.seconds(4, |_| Some(well()));
    let table = watched.verdict().table(&TimeZone::UTC);
    assert!(table.contains("for web0, web1, web2, web3, web4 and 35 more do not tell status codes"), "{table}");
}

#[test]
fn servers_without_requests_are_left_out_and_that_is_said() {
    let mut watched = Watched::new(4, &["server.p99.max < 60ms"]);
    let idle = || Second { latencies: Vec::new(), ..well() };
    watched.seconds(5, |place| Some(if place == 0 { idle() } else { well() }));
    let verdict = watched.verdict();
    assert_eq!(verdict.exit_code(), 0);
    let table = verdict.table(&TimeZone::UTC);
    assert!(table.contains("of 3 of 4 servers: no requests at web0"), "{table}");
    let mut watched = Watched::new(4, &["server.p99.max < 60ms"]);
    watched.seconds(5, |_| Some(idle()));
    assert_eq!(watched.verdict().exit_code(), 2);
}

#[test]
fn of_prometheus_only_what_it_tells_is_judged() {
    let by_figures = |asserted: &[&str]| {
        let mut watched = Watched::new(3, asserted);
        for second in 1..=10 {
            let mut events: Vec<FleetEvent> = (0..3)
                .map(|place: u32| {
                    let mut figures = Figures { at: at(second), ..Figures::default() };
                    let values = [(Figure::Rps, 100.0), (Figure::Errors, 0.02), (Figure::P50, 10_000.0)];
                    let p99 = 50_000.0 * f64::from(place + 1);
                    for (figure, value) in values.into_iter().chain([(Figure::P95, 30_000.0), (Figure::P99, p99)]) {
                        figures.set(figure, Some(value));
                    }
                    FleetEvent::Figures(ServerId(place), Box::new(figures))
                })
                .collect();
            events.push(FleetEvent::Sweep(at(second)));
            watched.take(events);
        }
        watched.verdict()
    };
    let verdict = by_figures(&["server.p99.max < 100ms", "server.rps.sum > 290", "server.error_rate.max < 3%"]);
    let table = verdict.table(&TimeZone::UTC);
    assert_eq!(verdict.exit_code(), 1, "{table}");
    assert!(table.contains("web2: 15"), "{table}");
    for untold in ["server.harakiri.sum == 0", "server.restarts.sum == 0", "server.draining.count == 0"] {
        let verdict = by_figures(&[untold]);
        assert_eq!(verdict.exit_code(), 2, "{}", verdict.table(&TimeZone::UTC));
    }
}

#[test]
fn several_servers_by_name_are_judged_one_by_one_too() {
    use crate::model::Pool;
    use crate::source::{Monotonic, Poll, SourceError, parse};
    let judged = |asserted: &[&str], dead: bool| {
        let assertions = assertions(asserted);
        let mut pools: Vec<Pool> = ["web0", "web1"].map(|label| Pool::new(label.into(), None)).into();
        let labels = pools.iter().map(|pool| pool.label.clone());
        let mut judge = Judge::new(&assertions, &[], labels, Phases::default(), Duration::from_secs(1));
        for second in 0..5u64 {
            for (target, pool) in pools.iter_mut().enumerate() {
                let requests = second * if target == 0 { 100 } else { 10 };
                let document = format!(
                    r#"{{"version":"1","pid":{},"workers":[{{"id":1,"pid":8,"requests":{requests},"cores":[{{}}]}}]}}"#,
                    target + 5
                );
                let outcome = if dead && target == 1 { Err(SourceError::Empty) } else { parse(document.into_bytes()) };
                let at = Monotonic::from_micros(second * 1_000_000);
                pool.ingest(Poll { target, at, taken: LocalMicros(START), outcome });
                match &pool.trouble {
                    Some(trouble) => judge.failed(target, &trouble.message),
                    None => {
                        let _ = judge.push(target, pool, LocalMicros(START));
                    }
                }
            }
        }
        judge.finish(&Ending { at: Monotonic::from_micros(4_000_000), by: EndedBy::Time, why: None })
    };
    let verdict = judged(&["server.rps.min > 50", "rps > 100", "server.up.count == 2"], false);
    let table = verdict.table(&TimeZone::UTC);
    assert_eq!(verdict.exit_code(), 1, "{table}");
    assert!(table.contains("web1: 10/s") && table.contains("110/s"), "{table}");
    assert_eq!(judged(&["server.rps.max > 50"], true).exit_code(), 2);
    assert_eq!(judged(&["server.up.count == 2"], true).exit_code(), 1);
    assert_eq!(judged(&["server.up.count == 1", "server.rps.max > 50"], true).exit_code(), 0);
}

#[test]
fn what_is_not_of_the_servers_says_what_to_write() {
    let said = refusal(&assertions(&["server.p99.max < 1s", "p99 < 80ms"])).unwrap();
    assert!(said.contains("over a fleet write 'server.p99.max < 80ms'"), "{said}");
    assert!(refusal(&assertions(&["server.p99.max < 1.1 * baseline"])).unwrap().contains("baseline"));
    assert_eq!(refusal(&assertions(&["server.p99.max < 1s"])), None);
}

#[test]
fn a_frame_has_every_server_and_what_stands_out() {
    let mut watched = Watched::new(6, &[]);
    watched.made.version(4, "0.2.0,\"x\"");
    watched.seconds(20, |place| match place {
        1 => None,
        2 => Some(slower(well(), 4)),
        _ => Some(well()),
    });
    let now = at(20);
    let taken = LocalMicros(START + 20_000_000);
    let rows = server_rows(&watched.fleet, &watched.outliers, now);
    let totals = FleetTotals::of(&watched.fleet, &rows);
    let line = json_line(&watched.fleet, &watched.outliers, &rows, &totals, (now, taken));
    assert_eq!(line.matches('\n').count(), 1);
    let line: Value = serde_json::from_str(&line).unwrap();
    for key in json_schema()["required"].as_array().unwrap() {
        assert!(line.get(key.as_str().unwrap()).is_some(), "{key}");
    }
    let server = &line["servers"][2];
    let known = json_schema()["properties"]["servers"]["items"]["properties"].as_object().unwrap().clone();
    for key in server.as_object().unwrap().keys() {
        assert!(known.contains_key(key), "{key}");
    }
    assert_eq!((&line["fleet"]["dead"], &line["fleet"]["up"]), (&1.into(), &5.into()));
    let rules: Vec<&str> = line["outliers"].as_array().unwrap().iter().map(|o| o["rule"].as_str().unwrap()).collect();
    assert_eq!(rules, ["dead", "slow", "version"]);
    let csv = csv_rows(&rows, taken);
    assert_eq!(csv.lines().count(), 6);
    let first = csv.lines().next().unwrap();
    assert_eq!(first.split(',').count(), csv_header().trim_end().split(',').count(), "{first}");
    let clock = DayClock { now: taken.0 / 1_000_000, zone: TimeZone::UTC };
    insta::assert_snapshot!(table(&watched.fleet, &watched.outliers, rows, &totals, &clock, true));
}

#[test]
fn watching_ends_after_so_many_frames_and_needs_an_answer() {
    let plan = |count| Plan {
        format: Format::Nothing,
        batch: Batch { zone: TimeZone::UTC, unicode: true },
        end: End::Count(count),
        expect_exit: false,
        assertions: Vec::new(),
        phases: Phases::default(),
        baseline: Vec::new(),
        junit: None,
        markdown: None,
        html: None,
    };
    let watched = |answers: bool| {
        let (sender, events) = mpsc::channel();
        let mut made = Made::new(2);
        sender.send(made.joined(|_| Vec::new())).unwrap();
        for _ in 0..3 {
            sender.send(made.second(|_| answers.then(well))).unwrap();
        }
        watch_fleet(&plan(2), Duration::from_secs(1), Duration::from_secs(1), &events, Clock::start()).unwrap()
    };
    assert_eq!((watched(true), watched(false)), (0, 2));
}

#[test]
fn the_schema_in_the_docs_is_this_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/rtop-fleet-json.schema.json");
    let made = serde_json::to_string_pretty(&json_schema()).unwrap() + "\n";
    if std::env::var_os("RWSGI_WRITE_DOCS").is_some() {
        std::fs::write(path, &made).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(written == made, "docs/ is behind: run the tests with RWSGI_WRITE_DOCS=1");
}
