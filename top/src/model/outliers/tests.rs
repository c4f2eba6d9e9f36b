//! What is found in fleets that are made for it, and that nothing is found in healthy ones.

mod simulation;

use super::made::{Made, Second, at, slower, well};
use super::{Began, Outlier, Outliers, RULES};
use crate::model::fleet::Fleet;
use crate::source::fleet::{Figure, Figures, FleetEvent, ServerId};

/// A fleet that is watched second by second.
pub(super) struct Watched {
    fleet: Fleet,
    outliers: Outliers,
    made: Made,
}

impl Watched {
    /// Servers with labels of their own.
    pub(super) fn new(servers: usize, labels: impl Fn(usize) -> Vec<(String, String)>) -> Self {
        let (mut fleet, made) = (Fleet::default(), Made::new(servers));
        made.joined(labels).into_iter().for_each(|event| fleet.take(event));
        Self { fleet, outliers: Outliers::default(), made }
    }

    /// A second goes by in which each server does this; `None` is one that cannot be read.
    pub(super) fn second(&mut self, does: impl FnMut(usize) -> Option<Second>) {
        self.made.second(does).into_iter().for_each(|event| self.fleet.take(event));
        self.outliers.advance(&self.fleet, at(self.made.second));
    }

    pub(super) fn seconds(&mut self, seconds: u64, does: impl Fn(usize) -> Option<Second>) {
        for _ in 0..seconds {
            self.second(&does);
        }
    }

    pub(super) fn found(&self) -> &[Outlier] {
        self.outliers.found()
    }

    fn told(&self) -> Vec<(&str, &str)> {
        self.found().iter().map(|outlier| (outlier.rule().name, outlier.server.as_str())).collect()
    }
}

fn fleet(servers: usize) -> Watched {
    Watched::new(servers, |_| Vec::new())
}

#[test]
fn a_server_that_is_slow_since_a_generation_is_told_with_that() {
    let mut watched = fleet(8);
    watched.seconds(30, |_| Some(Second { generation: 11, ..well() }));
    assert_eq!(watched.told(), []);
    watched.seconds(20, |place| {
        let second = Second { generation: 12, ..well() };
        Some(if place == 7 { slower(second, 3) } else { Second { generation: 11, ..second } })
    });
    assert_eq!(watched.told(), [("slow", "web7"), ("generation", "web7")]);
    let slow = &watched.found()[0];
    assert_eq!(slow.began, Began::Generation(12));
    let sentence = &slow.sentence;
    assert!(sentence.starts_with("web7 is 3 times slower than its peers ("), "{sentence}");
    assert!(sentence.contains(" since generation 12, for "), "{sentence}");
    assert_eq!(slow.evidence.len(), 2);
    // It is over when it is over.
    watched.seconds(60, |_| Some(Second { generation: 13, ..well() }));
    assert_eq!(watched.told(), []);
}

#[test]
fn a_server_that_is_slow_since_its_start_is_told_with_that() {
    let mut watched = fleet(8);
    watched.seconds(90, |_| Some(well()));
    watched.made.restart(2);
    watched.seconds(20, |place| Some(if place == 2 { slower(well(), 4) } else { well() }));
    assert_eq!(watched.told(), [("slow", "web2")]);
    assert_eq!(watched.found()[0].began, Began::Start, "{}", watched.found()[0].sentence);
}

#[test]
fn what_was_so_before_anybody_looked_is_told_so() {
    let mut watched = fleet(8);
    watched.seconds(20, |place| Some(if place == 2 { slower(well(), 4) } else { well() }));
    let sentence = &watched.found()[0].sentence;
    assert!(sentence.ends_with(", since before rtop looked"), "{sentence}");
}

#[test]
fn few_servers_are_not_compared() {
    for (servers, found) in [(3, 0), (4, 1)] {
        let mut watched = fleet(servers);
        watched.seconds(30, |place| Some(if place == 0 { slower(well(), 5) } else { well() }));
        assert_eq!(watched.found().len(), found, "{servers}");
    }
}

#[test]
fn few_requests_are_not_compared() {
    let mut watched = fleet(8);
    let few = |place: usize, second: u64| {
        let latencies =
            if second.is_multiple_of(10) { vec![if place == 0 { 90_000 } else { 9_000 }] } else { Vec::new() };
        Second { latencies, ..well() }
    };
    for second in 0..60 {
        watched.second(|place| Some(few(place, second)));
    }
    assert_eq!(watched.told(), []);
}

#[test]
fn servers_are_compared_with_those_of_their_job_and_role() {
    let labels = |place: usize| vec![("role".to_owned(), if place < 4 { "web" } else { "report" }.to_owned())];
    let mut watched = Watched::new(8, labels);
    watched.seconds(30, |place| Some(if place < 4 { well() } else { slower(well(), 10) }));
    assert_eq!(watched.told(), []);
}

#[test]
fn one_that_fails_and_one_that_is_full_and_one_that_is_large_are_told() {
    let mut watched = fleet(12);
    watched.seconds(30, |place| {
        Some(match place {
            3 => Second { errors: 4, ..well() },
            5 => Second { busy: 8, ..well() },
            9 => Second { rss: 900 << 20, ..well() },
            _ => well(),
        })
    });
    assert_eq!(watched.told(), [("errors", "web3"), ("saturated", "web5"), ("memory", "web9")]);
    let sentences: Vec<&str> = watched.found().iter().map(|outlier| outlier.sentence.as_str()).collect();
    assert!(sentences[0].contains("fails 10.0% of its requests, its peers 0.0%"), "{sentences:?}");
    assert!(sentences[1].contains("is saturated at 100%, its peers are at 12.5%"), "{sentences:?}");
    assert!(sentences[2].contains("uses 4.5 times the memory of its peers (900.0M, theirs 200.0M)"), "{sentences:?}");
}

#[test]
fn errors_of_all_are_no_outlier() {
    let mut watched = fleet(8);
    watched.seconds(40, |place| Some(Second { errors: 8 + (place % 2) as u64, ..well() }));
    assert_eq!(watched.told(), []);
}

#[test]
fn a_dead_server_is_told_first_and_at_once_and_no_longer_than_it_is() {
    let mut watched = fleet(2);
    watched.seconds(3, |_| Some(well()));
    watched.second(|place| (place == 0).then(well));
    assert_eq!(watched.told(), [("dead", "web1")]);
    let sentence = &watched.found()[0].sentence;
    assert!(sentence.starts_with("web1 is dead: the server closed the connection"), "{sentence}");
    watched.second(|_| Some(well()));
    assert_eq!(watched.told(), []);
}

#[test]
fn a_server_that_does_not_come_to_rest_is_a_restart_loop() {
    let mut watched = fleet(2);
    for restarts in 1..=4 {
        watched.seconds(20, |_| Some(well()));
        watched.made.restart(1);
        watched.second(|_| Some(well()));
        assert_eq!(watched.told().len(), usize::from(restarts >= 3), "{restarts}");
    }
    assert!(watched.found()[0].sentence.contains("was restarted 4 times within 10 minutes"));
}

#[test]
fn another_version_or_generation_is_told_of_the_few() {
    let mut watched = fleet(6);
    watched.made.version(0, "0.2.0");
    watched.made.version(1, "0.2.0");
    watched.seconds(3, |_| Some(well()));
    assert_eq!(watched.told(), [], "two of six are no few");
    watched.made.version(1, "0.1.0");
    watched.seconds(3, |place| Some(Second { generation: 1 + u32::from(place == 5), ..well() }));
    assert_eq!(watched.told(), [("version", "web0"), ("generation", "web5")]);
    // The one that a reload of the others has left out is told since then, not since its own.
    let mut watched = fleet(6);
    watched.seconds(3, |_| Some(well()));
    watched.seconds(300, |_| Some(Second { generation: 2, ..well() }));
    watched.seconds(10, |place| Some(Second { generation: if place == 5 { 2 } else { 3 }, ..well() }));
    let sentence = &watched.found()[0].sentence;
    assert_eq!(sentence, "web5 serves generation 2, its peers 3, for 9s");
    // One that was restarted counts from 1 again.
    let mut watched = fleet(6);
    watched.seconds(300, |_| Some(Second { generation: 4, ..well() }));
    watched.made.restart(5);
    watched.seconds(3, |place| Some(Second { generation: if place == 5 { 1 } else { 4 }, ..well() }));
    assert_eq!(watched.told(), []);
}

#[test]
fn a_source_that_gives_rates_alone_is_judged_too() {
    let mut watched = fleet(6);
    for second in 1..=40 {
        for place in 0..6 {
            let mut figures = Figures { at: at(second), generation: Some(1), ..Figures::default() };
            figures.set(Figure::Rps, Some(50.0));
            let scale = if place == 4 { 3.0 } else { 1.0 };
            for (figure, value) in [(Figure::P50, 10_000.0), (Figure::P99, 30_000.0)] {
                figures.set(figure, Some(value * scale + f64::from((second % 5) as u32) * 100.0));
            }
            watched.fleet.take(FleetEvent::Figures(ServerId(place), Box::new(figures)));
        }
        watched.outliers.advance(&watched.fleet, at(second));
    }
    assert_eq!(watched.told(), [("slow", "web4")]);
}

#[test]
fn generations_are_not_compared_where_nobody_tells_when_a_server_started() {
    // As of Prometheus: one that was restarted counts from 1 again.
    let mut watched = fleet(6);
    for second in 1..=5 {
        for place in 0..6 {
            let generation = Some(if place == 4 { 1 } else { 7 });
            let figures = Figures { at: at(second), generation, ..Figures::default() };
            watched.fleet.take(FleetEvent::Figures(ServerId(place), Box::new(figures)));
        }
        watched.outliers.advance(&watched.fleet, at(second));
    }
    assert_eq!(watched.told(), []);
}

#[test]
fn every_rule_has_a_name_of_its_own_and_words() {
    let names: std::collections::BTreeSet<&str> = RULES.iter().map(|rule| rule.name).collect();
    assert_eq!(names.len(), RULES.len());
    assert!(RULES.iter().all(|rule| !rule.when.is_empty() && !rule.advice.is_empty()));
}
