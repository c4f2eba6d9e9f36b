//! What must not pass: what a server that lies, restarts, stands still or tells half makes of a verdict.

use std::time::Duration;

use rwsgi_stats::latency;

use super::{pools, take};
use crate::report::judge::{Judge, Phases};
use crate::report::verdict::Verdict;
use crate::report::watch;
use crate::source::{EndedBy, Ending, Entry, LocalMicros, Monotonic, Poll, Run, parse};
use rwsgi_assertions::Assertion;

/// A document of these workers, with more of its own.
fn document(more: &str, workers: &str) -> String {
    format!("{{\"version\":\"2\",\"pid\":7{more},\"workers\":[{workers}]}}")
}

/// Answers, one a second of each server.
fn polls<const SERVERS: usize>(rounds: &[[String; SERVERS]]) -> Vec<Poll> {
    let poll = |(second, target, document): (u64, usize, &String)| Poll {
        target,
        at: Monotonic::from_micros(second * 1_000_000),
        taken: LocalMicros(1_795_227_000_000_000 + second * 1_000_000),
        outcome: parse(document.clone().into_bytes()),
    };
    let placed = (0u64..)
        .zip(rounds)
        .flat_map(|(second, round)| round.iter().enumerate().map(move |(target, document)| (second, target, document)));
    placed.map(poll).collect()
}

fn ending(polls: &[Poll]) -> Ending {
    Ending { at: polls.last().unwrap().at, by: EndedBy::Time, why: None }
}

/// The verdict on the answers of one server.
fn judged(assertion: &str, documents: impl IntoIterator<Item = String>) -> Verdict {
    judged_all(&[assertion], documents)
}

fn judged_all(assertions: &[&str], documents: impl IntoIterator<Item = String>) -> Verdict {
    let rounds: Vec<[String; 1]> = documents.into_iter().map(|document| [document]).collect();
    let polls = polls(&rounds);
    let ending = ending(&polls);
    let assertions: Vec<Assertion> = assertions.iter().map(|assertion| assertion.parse().unwrap()).collect();
    let mut pools = pools(1);
    let labels = pools.iter().map(|pool| pool.label.clone());
    let mut judge = Judge::new(&assertions, &[], labels, Phases::default(), Duration::from_secs(1));
    polls.into_iter().for_each(|poll| take(&mut judge, &mut pools, poll));
    judge.finish(&ending)
}

/// An rwsgi whose clock is at `now` seconds, with this many slow requests of its worker, busy for as many seconds.
fn with_clock(now: u64, slow: u64) -> String {
    let counts = latency::from_counts([(latency::index_of(5_000_000), slow)]);
    let latency = latency::encode(&counts);
    document(
        &format!(",\"now\":{},\"latency\":\"{latency}\"", now * 1_000_000),
        &format!(
            "{{\"id\":1,\"pid\":8,\"requests\":{slow},\"busy_time\":{},\"cpu_time\":{},\"latency\":\"{latency}\",
            \"cores\":[{{\"id\":0}}]}}",
            slow * 1_000_000,
            slow * 1_000_000
        ),
    )
}

#[test]
fn slow_requests_are_judged_whatever_happens_to_the_server_s_clock() {
    // Set back, and on, between the second answer and the third.
    for third in [50, 9_000] {
        let answers = [(100, 0), (101, 0), (third, 1), (third + 1, 1)];
        let verdict = judged("p99 < 1s", answers.map(|(now, slow)| with_clock(now, slow)));
        assert_eq!(verdict.exit_code(), 1, "{verdict:?}");
        // It was busy for one second of three.
        for assertion in ["utilization < 20%", "cpu < 20%", "rps < 0.2"] {
            let verdict = judged(assertion, answers.map(|(now, slow)| with_clock(now, slow)));
            assert_eq!(verdict.exit_code(), 1, "{assertion}: {verdict:?}");
        }
    }
}

#[test]
fn a_server_whose_answer_stays_the_same_to_the_microsecond_is_not_measured() {
    // As a cache gives it when the server is gone.
    let answers = [100, 101, 102, 102, 102, 102, 102, 102].map(|now| with_clock(now, now));
    let verdict = judged("utilization <= 100%", answers);
    assert_eq!(verdict.exit_code(), 2, "{verdict:?}");
    assert!(verdict.void.as_ref().is_some_and(|why| why.contains("no sample for the last 5.00s")), "{verdict:?}");
}

#[test]
fn a_server_that_was_restarted_and_has_caught_up_is_not_measured() {
    let worker = |pid: u32, requests: u64, raised: u64, tx: u64| {
        document(
            "",
            &format!(
                "{{\"id\":1,\"pid\":{pid},\"requests\":{requests},\"exceptions\":{raised},\"tx\":{tx},\"respawn_count\":1}}"
            ),
        )
    };
    // The same master, as after uWSGI's reload: fewer exceptions; fewer bytes; another process that nobody started.
    for after in [worker(8, 60, 20, 900), worker(8, 60, 40, 90), worker(9, 60, 40, 900)] {
        let verdict = judged("exceptions == 0", [worker(8, 50, 40, 500), after.clone(), after]);
        assert_eq!(verdict.exit_code(), 2, "{verdict:?}");
        assert!(verdict.void.as_ref().is_some_and(|why| why.contains("restarted")), "{verdict:?}");
    }
    // A worker that was started again is no restart.
    let again = worker(9, 60, 40, 900).replace("\"respawn_count\":1", "\"respawn_count\":2");
    assert_eq!(judged("exceptions == 0", [worker(8, 50, 40, 500), again]).exit_code(), 0);
}

/// An rwsgi that was started `started` tenths of seconds after the others' beginning, and answers so many after it.
fn run_of(pid: u32, started: u64, now: u64, requests: u64) -> String {
    let tenths = |tenths: u64| 1_795_227_000_000_000 + tenths * 100_000;
    let document =
        with_clock(0, requests).replace("\"pid\":7,", &format!("\"pid\":{pid},\"started_at\":{},", tenths(started)));
    let raised = format!("\"exceptions\":{requests},\"respawn_count\":1,\"requests\"");
    document.replace("\"now\":0,", &format!("\"now\":{},", tenths(now))).replace("\"requests\"", &raised)
}

#[test]
fn what_a_restarted_server_did_since_its_start_is_counted() {
    let answers = [run_of(7, 0, 100, 40), run_of(7, 0, 110, 40), run_of(9, 115, 120, 2), run_of(9, 115, 130, 2)];
    let all =
        ["restarts == 1", "exceptions == 2", "requests == 2", "p99 > 1s", "respawns == 0", "rps > 0.7", "rps < 0.9"];
    // Busy for two seconds in half a one, of which no more than that counts.
    let shares = ["utilization > 19%", "utilization < 21%", "cpu > 79%", "cpu < 81%"];
    let verdict = judged_all(&[&all[..], &shares].concat(), answers.clone());
    assert_eq!(verdict.exit_code(), 0, "{:#?}", verdict.judgements);
    let worst = &judged_all(&["exceptions == 0", "restarts == 1"], answers).judgements[0];
    assert!(format!("{worst:?}").contains("worker: Some(1)"), "{worst:?}");
    // Another server at the same address was started long before: what it did then is not of this run.
    let other = [run_of(7, 0, 100, 40), run_of(7, 0, 110, 40), run_of(9, 90, 120, 2), run_of(9, 90, 130, 3)];
    let verdict = judged_all(&["restarts == 1", "exceptions == 1", "requests == 1"], other);
    assert_eq!(verdict.exit_code(), 0, "{:#?}", verdict.judgements);
}

#[test]
fn what_a_reloaded_uwsgi_did_since_its_start_is_counted() {
    // The same master; its clock agrees with ours.
    let answer = |pid: u32, spawned: u64, requests: u64| {
        let counts = format!("\"requests\":{requests},\"exceptions\":{requests},\"respawn_count\":1");
        document("", &format!("{{\"id\":1,\"pid\":{pid},\"last_spawn\":{},{counts}}}", 1_795_227_000 + spawned))
    };
    // The worker's first process is not there yet when its server answers for the first time.
    let late = [answer(8, 0, 40), answer(8, 0, 40), answer(0, 0, 0).replace(":1}", ":0}"), answer(9, 2, 3)];
    assert_eq!(judged_all(&["restarts == 1", "respawns == 0"], late).exit_code(), 0);
    for (spawned, counted) in [(2, 3), (1, 3), (0, 1)] {
        let answers = [answer(8, 0, 40), answer(8, 0, 40), answer(9, spawned, 2), answer(9, spawned, 3)];
        let exceptions = format!("exceptions == {counted}");
        let verdict = judged_all(&["restarts == 1", &exceptions, "respawns == 0"], answers);
        assert_eq!(verdict.exit_code(), 0, "{spawned}: {:#?}", verdict.judgements);
    }
}

#[test]
fn the_memory_of_some_workers_is_not_taken_for_that_of_all() {
    let both = |second: u64| {
        document("", &format!("{{\"id\":1,\"pid\":8,\"rss\":300}},{{\"id\":2,\"pid\":9,\"rss\":{second}}}"))
    };
    assert_eq!(judged("rss.sum < 400", [both(0), both(0)]).exit_code(), 2);
    assert_eq!(judged("rss.sum < 400", [both(0), both(300)]).exit_code(), 1);
}

#[test]
fn responses_that_some_workers_tell_are_not_taken_for_those_of_all() {
    let both = |requests: u64| {
        let responses = ",\"responses\":{\"5xx\":0}";
        let worker = |id: u32, more: &str| {
            format!("{{\"id\":{id},\"pid\":{id},\"requests\":{requests},\"exceptions\":{requests}{more}}}")
        };
        document("", &format!("{},{}", worker(1, responses), worker(2, "")))
    };
    assert_eq!(judged("errors == 0", [both(0), both(9)]).exit_code(), 1, "half of them are not told of");
    assert_eq!(judged("client_error_rate == 0", [both(0), both(9)]).exit_code(), 2);
}

/// What a recording of these rounds is as a baseline, for an assertion that watches `servers` in these phases.
fn compared<const SERVERS: usize>(
    assertion: &str,
    rounds: &[[String; SERVERS]],
    phases: Phases,
    live: &[[String; 1]],
) -> Verdict {
    let assertions = [assertion.parse::<Assertion>().unwrap()];
    let run = Run { interval: Some(Duration::from_secs(1)), targets: vec!["web0".to_owned(); SERVERS] };
    let recorded = polls(rounds);
    let end = Entry::End(ending(&recorded));
    let entries = std::iter::once(Entry::Run(run)).chain(recorded.into_iter().map(Entry::Poll)).chain([end]);
    let baseline = watch::baseline(&assertions, phases.warmup, entries, &mut pools(SERVERS));
    let mut pools = pools(1);
    let labels = pools.iter().map(|pool| pool.label.clone());
    let mut judge = Judge::new(&assertions, &baseline, labels, phases, Duration::from_secs(1));
    let polls = polls(live);
    let ending = ending(&polls);
    polls.into_iter().for_each(|poll| take(&mut judge, &mut pools, poll));
    judge.finish(&ending)
}

#[test]
fn only_what_can_be_compared_is_compared_with_a_baseline() {
    let uwsgi = |raised: u64| {
        document("", &format!("{{\"id\":1,\"pid\":8,\"rss\":500,\"requests\":{},\"exceptions\":{raised}}}", raised * 2))
    };
    let rwsgi = |failed: u64| uwsgi(failed).replace("\"exceptions\"", "\"responses\":{\"5xx\":0},\"exceptions\"");
    let rounds = |document: &dyn Fn(u64) -> String| (0..9).map(|second| [document(second)]).collect::<Vec<_>>();
    let whole = Phases::default();
    let same = compared("rss.sum <= baseline", &rounds(&uwsgi), whole, &rounds(&uwsgi));
    assert_eq!(same.exit_code(), 0, "{same:?}");
    let told = |verdict: &Verdict, why: &str| {
        assert_eq!(verdict.exit_code(), 2, "{verdict:?}");
        assert!(format!("{verdict:?}").contains(why), "{verdict:?}");
    };
    // Two servers' memory is more than one's.
    let two: Vec<[String; 2]> = (0..9).map(|second| [uwsgi(second), uwsgi(second)]).collect();
    told(&compared("rss.sum <= baseline", &two, whole, &rounds(&uwsgi)), "it is of 2 servers");
    // Exceptions are not responses of status 5xx.
    told(&compared("error_rate <= baseline", &rounds(&uwsgi), whole, &rounds(&rwsgi)), "counts exceptions");
    told(&compared("error_rate <= baseline", &rounds(&rwsgi), whole, &rounds(&uwsgi)), "counts exceptions");
    // A total of a whole run is more than that of any piece.
    let pieces = Phases { window: Some(Duration::from_secs(4)), ..whole };
    told(&compared("exceptions <= baseline", &rounds(&uwsgi), pieces, &rounds(&uwsgi)), "a total of the whole run");
    assert_eq!(compared("exception_rate <= baseline", &rounds(&uwsgi), pieces, &rounds(&uwsgi)).exit_code(), 0);
}

/// A document of generations, the newest first: each its number, state, requests and their latency in µs.
fn generations(told: &[(u32, &str, u64, u64)]) -> String {
    let told = told.iter().map(|(number, state, requests, micros)| {
        let counts = latency::from_counts([(latency::index_of(*micros), *requests)]);
        format!(
            "{{\"generation\":{number},\"state\":\"{state}\",\"requests\":{requests},\"latency\":\"{}\"}}",
            latency::encode(&counts)
        )
    });
    let told: Vec<String> = told.collect();
    document(&format!(",\"generations\":[{}]", told.join(",")), "{\"id\":1,\"pid\":8}")
}

#[test]
fn the_generation_that_serves_is_held_against_the_one_before() {
    let assertion = "p99 < 1.1 * previous_generation";
    let judge = |told: &[(u32, &str, u64, u64)]| judged(assertion, [generations(told), generations(told)]);
    let (before, slow, fast) = ((1, "past", 900, 5_000), (2, "serving", 900, 50_000), (2, "serving", 900, 5_000));
    let verdict = judge(&[slow, before]);
    assert_eq!(verdict.exit_code(), 1);
    let table = verdict.table(&jiff::tz::TimeZone::UTC);
    assert!(table.contains("previous_generation (5.5") && table.contains("FAIL"), "{table}");
    assert_eq!(judge(&[fast, before]).exit_code(), 0);
    assert_eq!(judge(&[(3, "undone", 900, 90_000), fast, before]).exit_code(), 0);
    for (told, why) in [
        (&[fast][..], "there is no generation before it"),
        (&[(2, "serving", 9, 50_000), before], "not enough requests to tell: 9 and 900 requests"),
        (&[(2, "serving", 0, 1), before], "not enough requests to tell"),
        (&[], "does not tell of generations"),
    ] {
        let verdict = judge(told);
        assert_eq!(verdict.exit_code(), 2, "{told:?}");
        let actual = verdict.judgements[0].actual.as_ref().unwrap_err();
        assert!(actual.contains(why), "{actual}");
    }
}

#[test]
fn generations_of_several_servers_are_put_together() {
    let assertion: Assertion = "p99 < 1.1 * previous_generation".parse().unwrap();
    let slow = generations(&[(2, "serving", 900, 50_000), (1, "past", 900, 5_000)]);
    let fast = generations(&[(7, "serving", 90_000, 5_000), (6, "past", 90_000, 5_000)]);
    let judge = |rounds: &[[String; 2]]| {
        let polls = polls(rounds);
        let ending = ending(&polls);
        let mut pools = pools(2);
        let labels = pools.iter().map(|pool| pool.label.clone());
        let assertions = [assertion.clone()];
        let mut judge = Judge::new(&assertions, &[], labels, Phases::default(), Duration::from_secs(1));
        polls.into_iter().for_each(|poll| take(&mut judge, &mut pools, poll));
        judge.finish(&ending)
    };
    let both = [slow, fast.clone()];
    assert_eq!(judge(&[both.clone(), both]).exit_code(), 0, "one request of a hundred");
    let silent = [document("", "{\"id\":1,\"pid\":8}"), fast];
    let verdict = judge(&[silent.clone(), silent]);
    let actual = verdict.judgements[0].actual.as_ref().unwrap_err();
    assert!(actual.contains(": the server does not tell of generations"), "{actual}");
}
