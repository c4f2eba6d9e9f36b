//! Each rule on a small recording that it was made for, and all of them on a pool that is busy and well.

mod processes;

use rwsgi_stats::control::{Frame, Profile, ProfileStack, ThreadState};
use rwsgi_stats::{
    Core, LastException, Limits, Phases, Queue, Recycled, RequestInfo, Responses, Route, Snapshot, TempFiles, Worker,
    latency,
};

use super::{Finding, RULES};
use crate::model::Pool;
use crate::source::{LocalMicros, Monotonic, Poll, Room, parse};

const START: u64 = 1_795_227_000_000_000;

/// `count` latencies of `micros` each.
fn counts(of: &[(u64, u64)]) -> String {
    latency::encode(&latency::from_counts(of.iter().map(|(micros, count)| (latency::index_of(*micros), *count))))
}

fn route(name: &str, requests: u64, micros: u64) -> Route {
    let responses = Responses { success: requests, ..Responses::default() };
    let latency = counts(&[(micros, requests)]);
    Route { route: name.into(), requests, busy_time: requests * micros, latency, responses, ..Route::default() }
}

/// Four workers of two threads, busy for 85 % of the time and well: 400 requests a second, one in 250 of which fails.
fn healthy(second: u64) -> Snapshot {
    let worker = |id: u32| {
        let requests = second * 100;
        let core = |core: u32| Core {
            id: core,
            requests: requests / 2,
            // At each moment one of the eight threads is free.
            in_request: u8::from(!(second + u64::from(id) * 2 + u64::from(core)).is_multiple_of(8)),
            req_info: RequestInfo {
                elapsed: Some(17_000),
                method: Some("GET".into()),
                uri: Some("/users/7".into()),
                route: Some("/users/{}".into()),
                ..RequestInfo::default()
            },
            ..Core::default()
        };
        Worker {
            id,
            pid: 4_100 + id as i32,
            accepting: 1,
            requests,
            exceptions: second / 4,
            status: "busy".into(),
            rss: 120 << 20,
            respawn_count: 1,
            last_spawn: START / 1_000_000,
            cores: vec![core(0), core(1)],
            generation: Some(2),
            busy_time: Some(second * 1_700_000),
            gil_wait: Some(second * 60_000),
            unresponsive_for: Some(0),
            pss: Some(60 << 20),
            uss: Some(50 << 20),
            responses: Some(Responses {
                success: requests - second * 2 / 5,
                server_error: second * 2 / 5,
                ..Responses::default()
            }),
            recycled: Some(Recycled::default()),
            latency: Some(counts(&[(17_000, requests)])),
            last_exception: Some(LastException { kind: "KeyError".into(), ..LastException::default() }),
            ..Worker::default()
        }
    };
    Snapshot {
        version: "1".into(),
        pid: 4_099,
        server: Some("rwsgi".into()),
        started_at: Some(START),
        now: Some(START + second * 1_000_000),
        generation: Some(2),
        workers: (1..=4).map(worker).collect(),
        queue: Some(Queue { depth: 0, capacity: 100, waiting: counts(&[(3_000, second * 400)]), rejected: 0 }),
        limits: Some(Limits { harakiri: 30, reload_on_rss: 256 << 20, ..Limits::default() }),
        temp_files: Some(TempFiles { dir: "/tmp".into(), bytes: 1 << 20, limit: 1 << 30, refused: 0 }),
        slow_clients: Some(0),
        routes: Some(vec![
            route("/users/{}", second * 240, 17_000),
            route("/orders/{}", second * 120, 20_000),
            route("/static/{}", second * 40, 2_000),
        ]),
        phases: Some(Phases::default()),
        ..Snapshot::default()
    }
}

/// What a recording of these documents, one each `step` seconds, makes rtop say at each of its samples.
fn recorded(
    seconds: std::ops::RangeInclusive<u64>,
    step: u64,
    document: impl Fn(u64) -> Snapshot,
) -> Vec<Vec<Finding>> {
    watched(Pool::new("web1:9191".into(), None), seconds, step, document)
}

fn watched(
    mut pool: Pool,
    seconds: std::ops::RangeInclusive<u64>,
    step: u64,
    document: impl Fn(u64) -> Snapshot,
) -> Vec<Vec<Finding>> {
    seconds
        .step_by(step as usize)
        .map(|second| {
            let outcome = parse(serde_json::to_vec(&document(second)).unwrap());
            let (at, taken) = (Monotonic::from_micros(second * 1_000_000), LocalMicros(START + second * 1_000_000));
            pool.ingest(Poll { target: 0, at, taken, outcome });
            pool.current.as_ref().unwrap().findings.clone()
        })
        .collect()
}

fn last(said: &[Vec<Finding>]) -> &[Finding] {
    said.last().unwrap()
}

/// That the rule has found something at the end, and nothing else has; its finding.
fn only<'a>(said: &'a [Vec<Finding>], rule: &str) -> &'a Finding {
    let found = last(said);
    let rules: Vec<&str> = found.iter().map(|finding| finding.rule().name).collect();
    assert_eq!(rules, [rule], "{found:#?}");
    assert!(!found[0].evidence.is_empty());
    &found[0]
}

fn silent(said: &[Vec<Finding>]) {
    let told: Vec<&Finding> = said.iter().flatten().collect();
    assert!(told.is_empty(), "{told:#?}");
}

#[test]
fn a_pool_that_is_busy_and_well_has_nothing_to_say() {
    silent(&recorded(1..=200, 1, healthy));
    // Nor one whose every thread is busy, where nobody waits.
    silent(&recorded(1..=60, 1, |second| {
        let mut document = full(second);
        document.queue = healthy(second).queue;
        document
    }));
    // Nor one that has nothing to do.
    silent(&recorded(1..=60, 1, |second| Snapshot { now: Some(START + second * 1_000_000), ..healthy(1) }));
}

/// Every thread is in a request all the time, and requests wait.
fn full(second: u64) -> Snapshot {
    let mut document = healthy(second);
    for worker in &mut document.workers {
        worker.busy_time = Some(second * 2_000_000);
        worker.cores.iter_mut().for_each(|core| core.in_request = 1);
    }
    document.queue = Some(Queue { depth: 12, capacity: 100, waiting: counts(&[(900_000, second * 400)]), rejected: 0 });
    document.routes =
        Some(vec![route("/users/{}", second * 360, 8_000), route("orders.views.export", second * 40, 180_000)]);
    document
}

#[test]
fn saturated_threads_are_told_with_the_route_that_takes_their_time_and_the_workers_that_fit() {
    let room = |_: &Snapshot| Some(Room { bytes: 200 << 20, told_by: "MemAvailable" });
    let mut pool = Pool::new("web1:9191".into(), None);
    pool.room = Some(room);
    let said = watched(pool, 1..=41, 1, full);
    let found = only(&said, "saturated");
    assert_eq!(
        found.line(),
        "8 of 8 threads busy for 35s, queue p95 901ms, 71 % of the time in `orders.views.export` → 3 more workers fit into memory"
    );
    assert!(found.evidence.iter().any(|line| line.contains("200.0M") && line.contains("MemAvailable")), "{found:#?}");
    assert!(said[..10].iter().all(Vec::is_empty), "not before it has lasted");
    // Of a recording, or of a server elsewhere, nobody knows what fits.
    assert_eq!(only(&recorded(1..=41, 1, full), "saturated").advice, "more workers, or less work in each request");
}

#[test]
fn a_pool_that_is_full_now_and_then_does_not_flicker() {
    // Full for 30 s, then a sample every five seconds at which a thread is free.
    let said = recorded(1..=90, 1, |second| {
        let mut document = full(second);
        if second > 30 && second % 5 == 0 {
            document.workers[0].cores[0].in_request = 0;
        }
        document
    });
    let told: Vec<bool> = said.iter().map(|found| !found.is_empty()).collect();
    assert_eq!(told.windows(2).filter(|pair| pair[0] != pair[1]).count(), 1, "it is told once and stays");
    // Its words can be read: they change every five seconds at most.
    let mut words: Vec<&str> = said.iter().flatten().map(|finding| finding.sentence.as_str()).collect();
    words.dedup();
    assert!(words.len() <= 17, "{words:#?}");
    // And when it is over, it is gone after a while.
    let over = recorded(1..=80, 1, |second| if second <= 40 { full(second) } else { after_full(second) });
    assert!(!over[42].is_empty());
    silent(&over[70..]);
}

/// What counts on from a pool that was full for 40 s, and is well since.
fn after_full(second: u64) -> Snapshot {
    let mut document = healthy(second);
    for worker in &mut document.workers {
        worker.busy_time = Some(80_000_000 + (second - 40) * 1_700_000);
    }
    let waited = counts(&[(900_000, 16_000), (3_000, (second - 40) * 400)]);
    document.queue = Some(Queue { depth: 0, capacity: 100, waiting: waited, rejected: 0 });
    document.routes = None;
    document
}

#[test]
fn requests_that_wait_though_threads_are_free_are_told() {
    let said = recorded(1..=40, 1, |second| {
        let mut document = healthy(second);
        let waiting = counts(&[(3_000, second * 360), (400_000, second * 40)]);
        document.queue = Some(Queue { depth: 3, capacity: 100, waiting, rejected: 0 });
        document
    });
    let found = only(&said, "queue");
    assert!(found.sentence.contains("queue p95 401ms") && found.sentence.contains("85 %"), "{}", found.sentence);
}

#[test]
fn a_full_listen_queue_is_told() {
    let said = recorded(1..=40, 1, |second| {
        let listen_queue_errors = if second > 30 { 23 } else { 0 };
        Snapshot { listen_queue_errors, ..healthy(second) }
    });
    assert!(only(&said, "refused").sentence.starts_with("23 connections or requests were refused"));
    silent(&said[..29]);
    // What was refused before rtop looked is no news.
    silent(&recorded(1..=40, 1, |second| Snapshot { listen_queue_errors: 23, ..healthy(second) }));
}

#[test]
fn one_slow_route_is_told() {
    let said = recorded(1..=60, 1, |second| {
        let routes = vec![route("/users/{}", second * 396, 8_000), route("/report", second * 4, 1_200_000)];
        Snapshot { routes: Some(routes), ..healthy(second) }
    });
    let found = only(&said, "slow-route");
    assert_eq!(
        found.sentence,
        "`/report` takes 60 % of the time with 1 % of the requests: p95 1.20s, of the others 8.03ms"
    );
    // A route that is as slow, of a pool with time to spare, is nobody's problem.
    silent(&recorded(1..=60, 1, |second| {
        let mut document = healthy(second);
        document.workers.iter_mut().for_each(|worker| worker.busy_time = Some(second * 600_000));
        document.routes = Some(vec![route("/users/{}", second * 396, 2_000), route("/report", second * 4, 600_000)]);
        document
    }));
}

#[test]
fn waiting_for_the_global_lock_is_told_of_threads_and_not_of_processes() {
    let waiting = |second: u64, threads: usize| {
        let mut document = healthy(second);
        for worker in &mut document.workers {
            worker.cores.truncate(threads);
            worker.busy_time = Some(second * 850_000 * threads as u64);
            worker.gil_wait = Some(second * 400_000 * threads as u64);
        }
        document
    };
    let said = recorded(1..=40, 1, |second| waiting(second, 2));
    let found = only(&said, "gil");
    assert!(found.sentence.starts_with("47 % of the busy time waits"), "{}", found.sentence);
    assert_eq!(found.advice, "more processes rather than threads");
    silent(&recorded(1..=40, 1, |second| waiting(second, 1)));
}

/// From the 100th second on, these fail of 100 requests of each worker.
fn failing(second: u64, failed: impl Fn(&Worker) -> u64) -> Snapshot {
    let mut document = healthy(second);
    for worker in &mut document.workers {
        let more = second.saturating_sub(100) * failed(worker);
        let responses = worker.responses.as_mut().unwrap();
        responses.server_error += more;
        responses.success = worker.requests - responses.server_error;
    }
    document
}

#[test]
fn a_burst_of_errors_is_told_by_route_and_generation() {
    let said = recorded(1..=140, 1, |second| {
        let mut document = failing(second, |worker| if worker.id == 4 { 40 } else { 0 });
        document.workers[3].generation = Some(3);
        document.routes.as_mut().unwrap()[1].responses.server_error = second.saturating_sub(100) * 40;
        document
    });
    let found = only(&said, "errors");
    assert!(found.sentence.contains("% of the last minute's responses are 5xx"), "{}", found.sentence);
    assert!(found.sentence.contains("of them of `/orders/{}`, nearly all of generation 3"), "{}", found.sentence);
    silent(&said[..99]);
    // Errors that were always there are how this service is.
    silent(&recorded(1..=140, 1, |second| {
        let mut document = healthy(second);
        for worker in &mut document.workers {
            worker.responses =
                Some(Responses { server_error: second * 3, success: second * 97, ..Responses::default() });
        }
        document
    }));
}

/// Reloaded at the 100th second; of each worker's 100 requests these raise since.
fn reloaded(second: u64, raise: u64) -> Snapshot {
    let mut document = healthy(second);
    if second >= 100 {
        document.generation = Some(3);
        for worker in &mut document.workers {
            worker.generation = Some(3);
            worker.exceptions += (second - 100) * raise;
        }
    }
    document
}

#[test]
fn exceptions_after_a_deploy_are_told_with_what_was_before() {
    let said = recorded(1..=140, 1, |second| reloaded(second, 5));
    let found = only(&said, "worse-deploy");
    assert!(found.sentence.contains("since generation 3 began to serve"), "{}", found.sentence);
    assert!(found.sentence.starts_with("5.1 % ") && found.sentence.ends_with("0.2 % before"), "{}", found.sentence);
    silent(&recorded(1..=140, 1, |second| reloaded(second, 0)));
}

#[test]
fn harakiri_is_told() {
    let said = recorded(1..=40, 1, |second| {
        let mut document = healthy(second);
        document.workers[1].harakiri_count = u64::from(second > 20) * 2;
        document
    });
    assert_eq!(
        only(&said, "harakiri").sentence,
        "2 requests were ended in the last minute for running longer than 30s"
    );
    silent(&said[..19]);
}

#[test]
fn full_temporary_files_and_slow_clients_are_told() {
    let said = recorded(1..=40, 1, |second| {
        let mut document = healthy(second);
        document.temp_files = Some(TempFiles {
            dir: "/tmp".into(),
            bytes: 1_000 << 20,
            limit: 1 << 30,
            refused: u64::from(second > 30) * 3,
        });
        document
    });
    assert_eq!(
        only(&said, "temp-files").sentence,
        "temporary files take 1000.0M of 1.0G, and 3 bodies were refused in the last minute"
    );
    let said = recorded(1..=40, 1, |second| Snapshot { slow_clients: Some(second * 10), ..healthy(second) });
    assert!(only(&said, "slow-clients").sentence.contains("connections were closed in the last minute"));
    silent(&recorded(1..=40, 1, |second| Snapshot { slow_clients: Some(second / 10), ..healthy(second) }));
}

#[test]
fn a_profile_names_the_database_and_the_function_that_takes_the_time() {
    let frame = |function: &str| Frame { function: function.into(), file: "/srv/app/views.py".into(), line: 41 };
    let stack = |state, place, count| ProfileStack { state, frames: vec![0, place], count, ..ProfileStack::default() };
    let profile = Profile {
        frames: vec![frame("application"), frame("execute"), frame("render")],
        stacks: vec![stack(ThreadState::Database, 1, 700), stack(ThreadState::Running, 2, 300)],
        ..Profile::default()
    };
    let mut pool = Pool::new("web1:9191".into(), None);
    pool.profiled(&profile);
    let found = watched(pool, 1..=20, 1, healthy);
    assert_eq!(
        only(&found, "database").sentence,
        "70 % of the threads in requests waited for a database, most in execute (views.py:41)"
    );
    let mut pool = Pool::new("web1:9191".into(), None);
    pool.profiled(&profile);
    let said = watched(pool, 1..=20, 1, |second| Snapshot { routes: None, ..full(second) });
    assert!(last(&said)[0].sentence.ends_with("70 % of the time in execute (views.py:41)"), "{:?}", last(&said));
    // An old one says nothing of now.
    let mut pool = Pool::new("web1:9191".into(), None);
    pool.profiled(&profile);
    silent(&watched(pool, 301..=320, 1, healthy));
}

/// The same pool as uWSGI tells of it.
fn as_uwsgi(document: Snapshot) -> Snapshot {
    let plain = |worker: Worker| Worker {
        id: worker.id,
        pid: worker.pid,
        requests: worker.requests,
        exceptions: worker.exceptions,
        status: worker.status,
        respawn_count: worker.respawn_count,
        last_spawn: worker.last_spawn,
        harakiri_count: worker.harakiri_count,
        cores: worker.cores.into_iter().map(|core| Core { req_info: RequestInfo::default(), ..core }).collect(),
        ..Worker::default()
    };
    Snapshot {
        version: "2.0.28".into(),
        pid: document.pid,
        listen_queue: document.listen_queue,
        listen_queue_errors: document.listen_queue_errors,
        workers: document.workers.into_iter().map(plain).collect(),
        ..Snapshot::default()
    }
}

#[test]
fn of_uwsgi_only_what_it_tells_is_judged() {
    silent(&recorded(1..=60, 1, |second| as_uwsgi(healthy(second))));
    // Requests that wait for seconds are in rwsgi's histograms, which it does not send.
    silent(&recorded(1..=60, 1, |second| as_uwsgi(full(second))));
    let said = recorded(1..=60, 1, |second| as_uwsgi(Snapshot { listen_queue: 9, ..full(second) }));
    assert!(only(&said, "saturated").sentence.ends_with("9 wait"));
    let said = recorded(1..=60, 1, |second| {
        let mut document = as_uwsgi(healthy(second));
        document.workers[0].harakiri_count = u64::from(second > 30);
        document
    });
    assert_eq!(only(&said, "harakiri").sentence, "1 request was ended in the last minute for running too long");
}

#[test]
fn rules_look_at_samples_that_stand_far_apart_and_at_a_fast_screen() {
    assert!(!last(&recorded(1..=200, 10, full)).is_empty());
    silent(&recorded(1..=400, 10, healthy));
}

#[test]
fn a_restarted_server_is_judged_anew() {
    let said = recorded(1..=60, 1, |second| {
        let mut document = full(second.min(40));
        if second > 40 {
            document = Snapshot { pid: 5_000, started_at: Some(START + 40_000_000), ..healthy(second - 40) };
            document.now = Some(START + second * 1_000_000);
        }
        document
    });
    assert!(!said[39].is_empty());
    silent(&said[40..]);
}

#[test]
fn every_rule_has_a_name_of_its_own_and_says_when_it_holds_and_what_to_do() {
    let names: std::collections::HashSet<&str> = RULES.iter().map(|rule| rule.name).collect();
    assert_eq!(names.len(), RULES.len());
    assert!(RULES.iter().all(|rule| !rule.when.is_empty() && !rule.advice.is_empty()));
    // Each has a recording above.
    let tests = [include_str!("tests.rs"), include_str!("tests/processes.rs")].concat();
    for name in names {
        assert!(tests.contains(&format!("\"{name}\"")), "{name} has no recording");
    }
}
