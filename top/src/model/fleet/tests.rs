//! Events in, what is known of servers out.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::source::SourceError;
use crate::source::fleet::{Figure, Figures, Run, ServerSample};
use proptest::prelude::*;

const SECOND: u64 = 1_000_000;

fn server(name: &str) -> Server {
    Server { name: name.to_owned(), labels: Vec::new(), address: None }
}

fn at(seconds: u64) -> Monotonic {
    Monotonic::from_micros(seconds * SECOND)
}

/// A server that answers 10 requests of 2 ms each second, one of them with 5xx.
fn sample(seconds: u64) -> ServerSample {
    let latency = rwsgi_stats::latency::from_counts([(rwsgi_stats::latency::index_of(2_000), seconds * 10)]);
    ServerSample {
        at: at(seconds),
        now: Some(seconds * SECOND),
        generation: Some(1),
        requests: seconds * 10,
        exceptions: seconds * 2,
        failed: Some([0, seconds]),
        running_time: seconds * 20_000,
        busy_time: Some(seconds * 20_000),
        latency: Counts::decode(&rwsgi_stats::latency::encode(&latency)).map(Arc::new),
        workers: 1,
        threads: 2,
        busy_threads: 1,
        waiting: 3,
        rss: 1 << 20,
        rss_max: 1 << 20,
        ..ServerSample::default()
    }
}

fn one() -> (Fleet, ServerId) {
    let (mut fleet, id) = (Fleet::default(), ServerId(0));
    fleet.take(FleetEvent::Joined(id, server("web1")));
    (fleet, id)
}

fn take(fleet: &mut Fleet, sample: ServerSample) {
    fleet.take(FleetEvent::Sample(ServerId(0), Box::new(sample)));
}

fn figure(fleet: &Fleet, figure: Figure) -> Option<f64> {
    fleet.get(ServerId(0)).unwrap().figures.get(figure)
}

#[test]
fn two_samples_give_rates_and_percentiles_of_the_time_between_them() {
    let (mut fleet, id) = one();
    take(&mut fleet, sample(5));
    assert_eq!((figure(&fleet, Figure::Rps), figure(&fleet, Figure::Saturation)), (None, Some(2.0)));
    take(&mut fleet, sample(7));
    assert_eq!((figure(&fleet, Figure::Rps), figure(&fleet, Figure::Errors)), (Some(10.0), Some(0.1)));
    assert_eq!((figure(&fleet, Figure::Mean), figure(&fleet, Figure::Utilization)), (Some(2_000.0), Some(0.01)));
    assert_eq!(figure(&fleet, Figure::P99), figure(&fleet, Figure::P50));
    assert!((2_000.0..2_020.0).contains(&figure(&fleet, Figure::P99).unwrap()));
    let window = &fleet.get(id).unwrap().window;
    assert_eq!((window.samples, window.seconds, window.requests, window.failed.get()), (1, 2.0, 20, Some(&[0, 2])));
    assert_eq!(fleet.percentiles().unwrap().p50, figure(&fleet, Figure::P50).unwrap() as u64);
    assert_eq!(fleet.get(id).unwrap().history.iter().len(), 2);
}

#[test]
fn of_a_uwsgi_exceptions_are_errors_and_there_is_a_mean() {
    let (mut fleet, _) = one();
    for seconds in [5, 6] {
        let told = ServerSample { now: None, failed: None, busy_time: None, latency: None, ..sample(seconds) };
        take(&mut fleet, told);
    }
    assert_eq!((figure(&fleet, Figure::Errors), figure(&fleet, Figure::Mean)), (Some(0.2), Some(2_000.0)));
    assert_eq!((figure(&fleet, Figure::P99), figure(&fleet, Figure::Utilization)), (None, None));
    assert_eq!(fleet.percentiles(), None);
}

#[test]
fn nothing_is_subtracted_across_a_restart_or_within_one_document() {
    let (mut fleet, id) = one();
    take(&mut fleet, sample(50));
    let run = Arc::new(Run { pid: 9, ..Run::default() });
    take(&mut fleet, ServerSample { run: Arc::clone(&run), generation: Some(7), ..sample(60) });
    let tracked = fleet.get(id).unwrap();
    assert_eq!((tracked.restarts, tracked.restarted, tracked.generation_before), (1, Some(at(60)), None));
    assert_eq!((tracked.window.samples, tracked.window.restarts, tracked.figures.get(Figure::Rps)), (0, 1, None));
    take(&mut fleet, ServerSample { run: Arc::clone(&run), generation: Some(7), at: at(61), ..sample(60) });
    assert_eq!(fleet.get(id).unwrap().window.samples, 0);
    take(&mut fleet, ServerSample { run, generation: Some(8), ..sample(62) });
    assert_eq!(fleet.get(id).unwrap().generation_before, Some((7, at(62))));
    assert_eq!(fleet.get(id).unwrap().restarts, 1);
}

#[test]
fn a_server_is_new_up_slow_or_dead_and_keeps_its_last_numbers() {
    let (mut fleet, id) = one();
    assert_eq!(fleet.tally(), Tally { new: 1, ..Tally::default() });
    fleet.take(FleetEvent::Late(id, at(1)));
    assert_eq!(fleet.get(id).unwrap().state, State::Slow { since: at(1) });
    fleet.take(FleetEvent::Failed(id, at(4), SourceError::TimedOut(Duration::from_secs(3))));
    fleet.take(FleetEvent::Failed(id, at(9), SourceError::Empty));
    fleet.take(FleetEvent::Late(id, at(10)));
    let why = "the server closed the connection without an answer".to_owned();
    assert_eq!(fleet.get(id).unwrap().state, State::Dead { since: at(1), why });
    take(&mut fleet, sample(12));
    take(&mut fleet, sample(13));
    assert_eq!(fleet.tally(), Tally { up: 1, ..Tally::default() });
    fleet.take(FleetEvent::Failed(id, at(14), SourceError::Empty));
    assert_eq!((figure(&fleet, Figure::Rps), fleet.get(id).unwrap().silent_since()), (Some(10.0), Some(at(14))));
    // Whoever does not answer has no part in what all did.
    assert_eq!(fleet.percentiles(), None);
    fleet.take(FleetEvent::Left(id));
    take(&mut fleet, sample(15));
    assert_eq!(fleet.servers().len(), 0);
}

#[test]
fn what_was_before_rtop_began_stands_before_all_else() {
    let (mut fleet, id) = one();
    take(&mut fleet, sample(3));
    let mut figures = Figures::default();
    figures.set(Figure::Rps, Some(4.0));
    let past = [60, 30].map(|ago| (Duration::from_secs(ago), figures)).to_vec();
    fleet.take(FleetEvent::Past(id, past));
    let history = &fleet.get(id).unwrap().history;
    let told: Vec<_> =
        history.iter().map(|point| (point.seconds(), point.get(Figure::Rps), point.generation())).collect();
    assert_eq!(told, [(-60.0, Some(4.0), None), (-30.0, Some(4.0), None), (3.0, None, Some(1))]);
    assert_eq!(history.at(at(2)).unwrap().seconds(), -30.0);
}

#[test]
fn what_a_source_says_is_a_plain_line() {
    let mut fleet = Fleet::default();
    let labels = vec![("a\u{1b}".to_owned(), "\u{202e}b".to_owned())];
    fleet.take(FleetEvent::Joined(ServerId(3), Server { name: "web\n1".to_owned(), labels, address: None }));
    fleet.take(FleetEvent::Source("dns:web".into(), Some("no\u{7} such name".to_owned())));
    let server = &fleet.get(ServerId(3)).unwrap().server;
    assert_eq!((server.name.as_str(), server.labels[0].0.as_str()), ("web 1", "a "));
    assert_eq!(server.labels[0].1, "\u{fffd}b");
    assert_eq!(fleet.troubles().collect::<Vec<_>>(), [("dns:web", "no  such name")]);
    fleet.take(FleetEvent::Source("dns:web".into(), None));
    assert_eq!(fleet.troubles().next(), None);
}

#[test]
fn history_has_its_bound_however_many_servers_there_are() {
    for count in [1, 500, 20_000] {
        let mut fleet = Fleet::default();
        (0..count).for_each(|id| fleet.take(FleetEvent::Joined(ServerId(id), server("web"))));
        let part = fleet.points.clamp(LEAST_POINTS, MOST_POINTS);
        assert_eq!(part, fleet.points);
        let bytes = part * size_of::<Point>() * count as usize;
        assert!(part == LEAST_POINTS || bytes <= HISTORY_BYTES + HISTORY_BYTES / 8, "{count}: {bytes}");
        // Whoever is full takes no more room.
        for second in 0..=part as u64 + 20 {
            let figures = Figures { at: at(second), ..Figures::default() };
            fleet.take(FleetEvent::Figures(ServerId(0), Box::new(figures)));
        }
        let history = &fleet.get(ServerId(0)).unwrap().history;
        assert_eq!(history.iter().len(), part);
        assert!(history.capacity() <= part + 16, "{}", history.capacity());
    }
}

proptest! {
    #[test]
    fn no_answer_makes_a_number_that_is_none(
        answers in prop::collection::vec((any::<[u64; 6]>(), any::<Option<[u64; 2]>>(), any::<Option<u64>>(), any::<u8>()), 1..6),
    ) {
        let (mut fleet, id) = one();
        for ([requests, exceptions, tx, running_time, waiting, rss], failed, busy_time, passed) in answers {
            let last = fleet.get(id).unwrap().figures.at;
            let sample = ServerSample {
                at: last.after(Duration::from_millis(passed.into())),
                requests, exceptions, tx, running_time, waiting, rss, failed, busy_time,
                threads: 2,
                ..ServerSample::default()
            };
            take(&mut fleet, sample);
            let figures = fleet.get(id).unwrap().figures;
            for figure in Figure::ALL {
                prop_assert!(figures.get(figure).is_none_or(|value| value.is_finite() && value >= 0.0), "{:?}", figures);
            }
            for share in [Figure::Errors, Figure::Utilization] {
                prop_assert!(figures.get(share).is_none_or(|value| value <= 1.0));
            }
        }
    }
}
