//! Verdicts on samples of every kind: they are the same live and from a recording.

use std::path::PathBuf;
use std::time::Duration;

use jiff::tz::TimeZone;
use proptest::prelude::*;

use super::assertion::Assertion;
use super::judge::{Judge, Phases};
use super::verdict::Verdict;
use crate::model::Pool;
use crate::source::{
    EndedBy, Ending, Entry, LocalMicros, Monotonic, Recorder, Recording, Run, Sample, SourceError, parse,
};

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
fn samples(asked: &[Asked]) -> Vec<Sample> {
    let (mut at, mut totals) = (0, [[0u64; 2]; 2]);
    let sample = |one: &Asked| {
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
        Sample {
            target: one.server,
            at: Monotonic::from_micros(at),
            taken: LocalMicros(1_795_227_000_000_000 + at),
            outcome,
        }
    };
    asked.iter().map(sample).collect()
}

fn pools(servers: usize) -> Vec<Pool> {
    (0..servers).map(|server| Pool::new(format!("web{server}"), None)).collect()
}

fn take(judge: &mut Judge, pools: &mut [Pool], sample: Sample) {
    let (target, taken) = (sample.target, sample.taken);
    pools[target].ingest(sample);
    match &pools[target].trouble {
        Some(trouble) => judge.failed(target, &trouble.message),
        None => judge.push(target, &pools[target], taken),
    }
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
        for sample in samples(&asked) {
            end = sample.at;
            recorder.sample(&watched[sample.target].label, &sample).unwrap();
            take(&mut live, &mut watched, sample);
        }
        let ending = Ending { at: end, by: [EndedBy::Time, EndedBy::Count, EndedBy::Exit][by], why: None };
        recorder.end(&ending).unwrap();

        let (mut replayed, mut watched) = new();
        let mut ended = None;
        for entry in Recording::open(&scratch.0).unwrap() {
            match entry {
                Entry::Sample(sample) => take(&mut replayed, &mut watched, sample),
                Entry::End(ending) => ended = Some(ending),
                Entry::Run(recorded) => prop_assert_eq!(&recorded, &run),
                Entry::Damage(damage) => prop_assert!(false, "{}", damage),
            }
        }
        prop_assert_eq!(ended.as_ref(), Some(&ending));
        prop_assert_eq!(told(&live.finish(&ending)), told(&replayed.finish(&ending)));
    }
}
