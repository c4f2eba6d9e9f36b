//! Verdicts on samples of every kind are the same live and from a recording; and nothing that a server sends comes out raw.

use std::path::PathBuf;
use std::time::Duration;

use jiff::tz::TimeZone;
use proptest::prelude::*;
use serde_json::json;

use super::Batch;
use super::judge::{Judge, Phases};
use super::lines::{csv_rows, json_line};
use super::verdict::Verdict;
use crate::format;
use crate::model::Pool;
use crate::source::{
    EndedBy, Ending, Entry, LocalMicros, Monotonic, Poll, Recorder, Recording, Run, SourceError, parse,
};
use rwsgi_assertions::Assertion;
use rwsgi_assertions::METRICS;
use rwsgi_assertions::Window;

mod changed;
mod verdicts;

const ASSERTIONS: [&str; 8] = [
    "rps > 10",
    "error_rate < 5%",
    "p99 < 5ms",
    "exceptions == 0",
    "rss.sum < 1GiB",
    "workers.min >= 1",
    "queue.max < 4",
    "restarts <= 1",
];

/// A server's answer, or that there was none.
#[derive(Clone, Debug)]
struct Asked {
    server: usize,
    after: u64,
    pid: u8,
    requests: u64,
    raised: u64,
    queue: u64,
    answer: u8,
}

fn asked() -> impl Strategy<Value = Asked> {
    let answer = prop_oneof![8 => Just(0u8), 1 => Just(1u8), 1 => Just(2u8)];
    let pid = prop_oneof![20 => Just(7u8), 1 => Just(8u8)];
    (0..2usize, 1..900_000u64, pid, 0..200u64, 0..9u64, 0..5u64, answer).prop_map(
        |(server, after, pid, requests, raised, queue, answer)| Asked {
            server,
            after,
            pid,
            requests,
            raised,
            queue,
            answer,
        },
    )
}

/// Samples as they come: counters only grow.
fn polls(asked: &[Asked]) -> Vec<Poll> {
    let (mut at, mut totals) = (0, [[0u64; 2]; 2]);
    let poll = |one: &Asked| {
        at += one.after;
        let [requests, raised] = &mut totals[one.server];
        *requests += one.requests;
        *raised += one.raised;
        let document = format!(
            "{{\"version\":\"2\",\n\"pid\":{},\"listen_queue\":{},\"workers\":[{{\"id\":1,\"pid\":8,\"requests\":{requests},
            \"exceptions\":{raised},\"rss\":5000,\"cores\":[{{\"id\":0,\"vars\":[\"PATH_INFO=/#\"]}}]}}]}}",
            one.pid, one.queue
        );
        let bytes: Vec<u8> =
            document.bytes().map(|byte| if byte == b'#' && one.answer == 1 { 0xe9 } else { byte }).collect();
        let outcome = if one.answer == 2 { Err(SourceError::Half(at as usize)) } else { parse(bytes) };
        Poll {
            target: one.server,
            at: Monotonic::from_micros(at),
            taken: LocalMicros(1_795_227_000_000_000 + at),
            outcome,
        }
    };
    asked.iter().map(poll).collect()
}

fn pools(servers: usize) -> Vec<Pool> {
    (0..servers).map(|server| Pool::new(format!("web{server}"), None)).collect()
}

fn take(judge: &mut Judge, pools: &mut [Pool], poll: Poll) {
    let _ = is_early(judge, pools, poll);
}

/// Takes a poll in; returns whether it came before all servers had answered.
fn is_early(judge: &mut Judge, pools: &mut [Pool], poll: Poll) -> bool {
    let (target, taken) = (poll.target, poll.taken);
    pools[target].ingest(poll);
    match &pools[target].trouble {
        Some(trouble) => {
            judge.failed(target, &trouble.message);
            false
        }
        None => judge.push(target, &pools[target], taken),
    }
}

#[test]
fn a_poll_that_ended_before_all_had_answered_is_early_though_it_is_taken_in_after() {
    let assertions: Vec<Assertion> = vec!["requests == 0".parse().unwrap()];
    let mut pools = pools(2);
    let labels: Vec<_> = pools.iter().map(|pool| pool.label.clone()).collect();
    let phases = Phases { warmup: Duration::ZERO, window: None };
    let mut judge = Judge::new(&assertions, &[], labels.into_iter(), phases, Duration::from_millis(50));
    let asked = |server, after| Asked { server, after, pid: 7, requests: 1, raised: 0, queue: 0, answer: 0 };
    // At 0.1, 0.2, 0.3 and 0.4 s, by the servers in turn; the second is taken in after the third.
    let mut polls = polls(&[asked(0, 100_000), asked(0, 100_000), asked(1, 100_000), asked(0, 100_000)]);
    polls.swap(1, 2);
    let early: Vec<bool> = polls.into_iter().map(|poll| is_early(&mut judge, &mut pools, poll)).collect();
    assert_eq!(early, [false, false, true, false]);
}

fn told(verdict: &Verdict) -> String {
    format!("{}{}{}", verdict.table(&TimeZone::UTC), verdict.json(), verdict.junit(&TimeZone::UTC).unwrap())
}

struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn a_recording_gives_the_verdict_that_was_given_live(
        asked in prop::collection::vec(asked(), 1..60),
        servers in 1..3usize,
        warmup in 0..2u64,
        window in prop::option::of(1..4u64),
        by in 0..3usize,
    ) {
        let asked: Vec<Asked> = asked.into_iter().map(|one| Asked { server: one.server % servers, ..one }).collect();
        let assertions: Vec<Assertion> = ASSERTIONS.iter().map(|text| text.parse().unwrap()).collect();
        let phases = Phases { warmup: Duration::from_secs(warmup), window: window.map(Duration::from_secs) };
        let interval = Duration::from_millis(500);
        let new = || {
            let pools = pools(servers);
            let labels = pools.iter().map(|pool| pool.label.clone());
            (Judge::new(&assertions, &[], labels, phases, interval), pools)
        };
        let scratch = Scratch(std::env::temp_dir().join(format!("rtop-verdict-{}", std::process::id())));
        let _ = std::fs::remove_file(&scratch.0);
        let run = Run { interval: Some(interval), targets: pools(servers).into_iter().map(|pool| pool.label).collect() };
        let mut recorder = Recorder::begin(&scratch.0, &run).unwrap();

        let (mut live, mut watched) = new();
        let mut end = Monotonic::default();
        for poll in polls(&asked) {
            end = poll.at;
            recorder.poll(&watched[poll.target].label, &poll).unwrap();
            take(&mut live, &mut watched, poll);
        }
        let ending = Ending { at: end, by: [EndedBy::Time, EndedBy::Count, EndedBy::Exit][by], why: None };
        recorder.end(&ending).unwrap();

        let (mut replayed, mut watched) = new();
        let mut ended = None;
        for entry in Recording::open(&scratch.0).unwrap() {
            match entry {
                Entry::Poll(poll) => take(&mut replayed, &mut watched, poll),
                Entry::End(ending) => ended = Some(ending),
                Entry::Run(recorded) => prop_assert_eq!(&recorded, &run),
                Entry::Damage(damage) => prop_assert!(false, "{}", damage),
            }
        }
        prop_assert_eq!(ended.as_ref(), Some(&ending));
        prop_assert_eq!(told(&live.finish(&ending)), told(&replayed.finish(&ending)));
    }
}

/// Texts that terminals, spreadsheets and XML readers obey, and that hide or turn what stands beside them.
fn hostile() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("\u{1b}[2J\u{1b}]0;x\u{7}".to_owned()),
        Just("\u{9b}31m".to_owned()),
        Just("\r\n,\"".to_owned()),
        Just("</testsuite>&\0".to_owned()),
        Just("\u{202e}fdp\u{2066}\u{2028}\u{feff}".to_owned()),
        Just("\u{fffe}\u{ffff}".to_owned()),
        "\\PC{0,8}",
        Just("x".repeat(5_000)),
    ];
    prop::collection::vec(piece, 0..5).prop_map(|pieces| pieces.concat())
}

/// A document in which each text is hostile, and each number as large as it may be.
fn document(text: &str, number: u64) -> Vec<u8> {
    let request = json!({"method": text, "uri": text, "remote_addr": text, "protocol": text, "started": number,
        "elapsed": number});
    let core = json!({"id": 1, "in_request": 1, "requests": number, "req_info": request, "vars": [text]});
    let exception = json!({"type": text, "message": text, "where": text, "traceback": [text, text], "when": number,
        "request": text});
    let worker = json!({"id": 1, "pid": 8, "status": text, "requests": number, "exceptions": number, "rss": number,
        "tx": number, "running_time": number, "last_spawn": number, "respawn_count": number, "avg_rt": number,
        "harakiri_count": number, "busy_time": number, "cpu_time": number, "pss": number, "latency": text,
        "last_exception": exception, "cores": [core.clone(), core]});
    let document = json!({"version": text, "server": text, "hostname": text, "python": text, "cwd": text, "pid": 7,
        "started_at": number, "listen_queue": number, "listen_queue_errors": number,
        "sockets": [{"name": text, "proto": text, "queue": number, "max_queue": number}],
        "workers": [worker.clone(), worker], "latency": text,
        "spoolers": [{"dir": text, "pid": 9, "tasks": number, "queue": number, "oldest_age": number, "run_time": text,
            "job": {"name": text, "elapsed": number}}],
        "emperor": [text], "vassals": [{"id": text, "born": number, "respawns": number}]});
    serde_json::to_vec(&document).unwrap()
}

fn is_safe(text: &str) -> bool {
    // Several texts of a thousand characters may stand beside each other, but blanks or commas are between them.
    !text.contains(&"x".repeat(2_500)) && text.lines().all(|line| line.chars().all(|c| format::shown_as(c) == c))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn nothing_that_a_server_sends_comes_out_raw(
        text in hostile(),
        numbers in prop::collection::vec(prop_oneof![Just(0), Just(u64::MAX), any::<u64>()], 1..4),
    ) {
        let mut pools = vec![Pool::new(text.clone(), Some(text.clone()))];
        let assertions: Vec<Assertion> =
            METRICS.iter().map(|metric| format!("{} >= 0", metric.name).parse().unwrap()).collect();
        let labels = pools.iter().map(|pool| pool.label.clone());
        let mut judge = Judge::new(&assertions, &[], labels, Phases::default(), Duration::from_secs(1));
        let batch = Batch { zone: TimeZone::UTC, unicode: true };
        let mut end = Monotonic::default();
        for (second, number) in (0u64..).zip(numbers) {
            end = Monotonic::from_micros(second * 1_000_000);
            let outcome = parse(document(&text, number));
            take(&mut judge, &mut pools, Poll { target: 0, at: end, taken: LocalMicros(second), outcome });
            let pool = &pools[0];
            let sample = pool.current.as_ref().unwrap();
            let table = batch.table(pool, sample);
            prop_assert!(is_safe(&table), "{:?}", table);
            let csv = csv_rows(pool, sample);
            prop_assert!(is_safe(&csv) && csv.lines().count() == 2, "{:?}", csv);
            let line = json_line(pool, sample, &Window::default());
            prop_assert!(is_safe(&line) && line.lines().count() == 1, "{:?}", line);
            // What is kept is what may be shown anywhere.
            let mut kept = sample.snapshot.clone();
            // A histogram, as far as anybody knows: it is decoded and never shown.
            kept.spoolers[0].run_time = None;
            let kept = serde_json::to_string(&kept).unwrap();
            prop_assert!(is_safe(&kept) && !kept.contains("\\u"), "{:?}", kept);
        }
        judge.failed(0, &pools[0].label.clone());
        let verdict = judge.finish(&Ending { at: end, by: EndedBy::Time, why: None });
        let zone = TimeZone::UTC;
        for told in [verdict.table(&zone), verdict.json(), verdict.markdown(&zone), verdict.junit(&zone).unwrap()] {
            prop_assert!(is_safe(&told), "{:?}", told);
        }
        // A text where a number should be, and whatever a recording says that went wrong.
        let odd = serde_json::to_vec(&json!({"version": "1", "workers": [{"rss": text, "pid": 7}]})).unwrap();
        for error in [parse(odd).unwrap_err(), SourceError::recorded(&text)] {
            prop_assert!(is_safe(&error.to_string()) && !error.to_string().contains('\n'), "{:?}", error.to_string());
        }
    }
}

#[test]
fn documents_that_are_no_documents_are_refused_in_a_line() {
    for odd in ["[".repeat(100_000), "{\"workers\":".repeat(10_000), "{\"pid\":NaN}".into(), "{\"pid\":1e999}".into()] {
        let error = parse(odd.into_bytes()).unwrap_err().to_string();
        assert!(error.len() < 1_200 && is_safe(&error), "{error}");
    }
    let deep = format!("{{\"version\":\"1\",\"pid\":7,\"x\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(
        parse(deep.into_bytes()).map_or_else(|error| error.to_string().len() < 1_200, |read| read.snapshot.pid == 7)
    );
}
