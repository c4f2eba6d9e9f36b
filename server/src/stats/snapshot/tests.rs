//! Snapshots of a scoreboard that is filled by hand.

use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use rwsgi_stats::{Recycled, RequestInfo, latency};

use super::*;
use crate::ids::{SlotId, ThreadIndex, WorkerId};
use crate::stats::cell::{Corrupt, Counters, ExceptionReport, Outcome, ThreadCell, Verdict};
use crate::stats::generation_sums::GenerationSums;
use crate::stats::generations::{GenerationHistory, GenerationState};
use crate::stats::scoreboard::{CorruptSlot, Layout};
use crate::stats::totals::Totals;
use rwsgi_protocol::SocketProtocol;

/// Two workers of two threads, with this process in the place of both.
struct Server {
    purpose: Purpose,
    board: Scoreboard,
    config: Config,
    totals: Vec<Totals>,
    processes: Vec<Vec<ProcessView>>,
    state: SnapshotState,
    /// Where memory is read.
    _runtime: tokio::runtime::Runtime,
}

/// A request that ended well.
fn ok() -> Outcome {
    Outcome { status: 200, ..Outcome::default() }
}

fn slot(index: u32) -> SlotId {
    SlotId::new(index)
}

fn process(index: u32, generation: u32) -> ProcessView {
    ProcessView {
        slot: slot(index),
        pid: Pid::this(),
        generation: GenerationNumber::new(generation).unwrap(),
        spawned_at: UnixMicros::from_micros((1_700_000_000 + u64::from(index)) * 1_000_000),
        is_ready: true,
    }
}

/// So long ago.
fn ago(duration: Duration) -> MonotonicNanos {
    MonotonicNanos::from_nanos(MonotonicNanos::now().as_nanos() - duration.as_nanos() as u64)
}

impl Server {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        Self {
            purpose: Purpose::Document,
            board: Scoreboard::create(Layout::new(2, 2)).unwrap(),
            config: Config::default(),
            totals: vec![Totals::new(2), Totals::new(2)],
            processes: vec![vec![process(0, 1)], vec![process(1, 1)]],
            state: SnapshotState::new(runtime.handle().clone()),
            _runtime: runtime,
        }
    }

    fn take(&mut self) -> Snapshot {
        self.take_with(Vec::new())
    }

    fn take_with(&mut self, sockets: Vec<SocketView<'_>>) -> Snapshot {
        self.take_all_with(sockets).snapshot
    }

    fn take_all(&mut self) -> Taken {
        self.take_all_with(Vec::new())
    }

    fn take_all_with(&mut self, sockets: Vec<SocketView<'_>>) -> Taken {
        let workers = WorkerId::first(2).zip(&self.totals).zip(&self.processes);
        let subject = Subject {
            purpose: self.purpose,
            scoreboard: &self.board,
            config: &self.config,
            started_at: UnixMicros::from_micros(1_700_000_000_000_000),
            generation: Some(GenerationNumber::FIRST),
            python: "3.11.2",
            sockets,
            workers: workers
                .map(|((id, totals), processes)| WorkerView { id, totals, processes: processes.clone() })
                .collect(),
            temp_dir: Path::new("/var/tmp"),
            temp_limit: Some(1 << 30),
            spoolers: Vec::new(),
        };
        take(&subject, &mut self.state)
    }

    fn thread(&self, slot: u32, thread: u32) -> &ThreadCell {
        self.board.thread(SlotId::new(slot), ThreadIndex::new(thread))
    }

    /// A request of `took` ns that ended just now.
    fn serve(&self, slot: u32, thread: u32, took: u64, outcome: Outcome) {
        let now = MonotonicNanos::now();
        let began = MonotonicNanos::from_nanos(now.as_nanos() - took);
        let cell = self.thread(slot, thread);
        cell.begin(began, SocketProtocol::Http, b"", b"GET / HTTP/1.1\r\n\r\n");
        cell.finish(now, began, outcome);
    }
}

#[test]
fn a_worker_is_its_past_processes_and_all_that_live() {
    let mut server = Server::new();
    server.totals[0].threads[1] = Counters { requests: 10, running: 7_000_000, tx: 100, ..Counters::default() };
    server.totals[0].respawns = 3;
    server.totals[0].recycled = Recycled { crash: 2, ..Recycled::default() };
    server.processes[0] = vec![process(3, 2), process(0, 1)];
    server.serve(3, 0, 2_000_000, ok());
    server.serve(0, 1, 4_000_000, Outcome { status: 500, exception: true, ..Outcome::default() });
    server.serve(0, 1, 4_000_000, Outcome { status: 404, write_error: true, ..Outcome::default() });
    server.thread(0, 1).sent(11);
    server.board.worker(slot(3)).set_accepting(true);

    let snapshot = server.take();
    let worker = &snapshot.workers[0];
    assert_eq!((worker.id, worker.requests, worker.delta_requests), (1, 13, 1));
    assert_eq!((worker.exceptions, worker.tx, worker.running_time), (1, 111, 17_000));
    assert_eq!((worker.generation, worker.accepting, worker.last_spawn), (Some(2), 1, 1_700_000_003));
    assert_eq!((worker.respawn_count, worker.recycled.unwrap().crash), (3, 2));
    let responses = worker.responses.unwrap();
    assert_eq!((responses.success, responses.client_error, responses.server_error), (1, 1, 1));
    let per_thread: Vec<_> = worker.cores.iter().map(|thread| (thread.requests, thread.write_errors)).collect();
    assert_eq!(per_thread, [(1, 0), (12, 1)]);
    assert_eq!((worker.status.as_str(), worker.pid), ("idle", Pid::this().as_raw()));
    assert_eq!(worker.apps[0].requests, 13);
    assert!(worker.rss > 0 && worker.vsz > worker.rss, "{worker:?}");
    assert!(worker.cpu_time.unwrap() > 0);
    let latency = latency::decode(worker.latency.as_deref().unwrap()).unwrap();
    assert_eq!(latency.len(), 3);
    server.serve(1, 0, 9_000_000, ok());
    let all = latency::decode(server.take().latency.as_deref().unwrap()).unwrap();
    assert_eq!((all.len(), all.max() / 1_000), (4, 9));
}

#[test]
fn a_request_in_progress_is_told_with_its_variables() {
    let mut server = Server::new();
    let head = b"GET /slow?4 HTTP/1.1\r\nHost: a:1\r\nCookie: sid=secret\r\n\r\n";
    server.thread(1, 1).begin(ago(Duration::from_secs(3)), SocketProtocol::Http, b"10.0.0.7 4711 10.0.0.1 80", head);
    let snapshot = server.take();
    let worker = &snapshot.workers[1];
    assert_eq!((worker.status.as_str(), snapshot.load), ("busy", 1));
    assert!(worker.busy_time.unwrap() >= 3_000_000);
    assert_eq!((worker.running_time, worker.requests), (0, 0));
    let thread = &worker.cores[1];
    assert_eq!((thread.in_request, thread.req_info.uri.as_deref()), (1, Some("/slow?…")));
    assert!(thread.vars.contains(&"REMOTE_ADDR=10.0.0.7".to_owned()));
    assert!(!format!("{snapshot:?}").contains("sid="));
    let info = &thread.req_info;
    assert!(info.elapsed.unwrap() >= 3_000_000);
    assert_eq!(info.started.unwrap() + info.elapsed.unwrap(), snapshot.now.unwrap());
    assert_eq!(info.request_start.unwrap(), info.started.unwrap() / 1_000_000);
    assert_eq!(worker.cores[0].req_info, RequestInfo::default());
}

#[test]
fn a_snapshot_for_metrics_has_the_series_of_the_document_and_no_requests() {
    let mut server = Server::new();
    server.serve(0, 1, 4_000_000, ok());
    server.thread(1, 1).begin(ago(Duration::from_secs(3)), SocketProtocol::Http, b"", b"GET / HTTP/1.1\r\n\r\n");
    let series = |snapshot: &Snapshot| {
        let text = rwsgi_metrics::render(snapshot, rwsgi_metrics::Format::Text, &rwsgi_metrics::Options::default());
        let text = String::from_utf8(text).unwrap();
        text.lines().filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect::<Vec<_>>()
    };
    let document = server.take();
    server.purpose = Purpose::Metrics;
    let metrics = server.take();
    assert_eq!(series(&metrics), series(&document));
    assert_eq!((&metrics.latency, metrics.load), (&document.latency, 1));
    let worker = &metrics.workers[1];
    assert_eq!((&worker.latency, &worker.cores[1].vars), (&None, &Vec::new()));
}

#[test]
fn busy_time_never_goes_back_when_a_request_ends() {
    let mut server = Server::new();
    let now = MonotonicNanos::now();
    let began = MonotonicNanos::from_nanos(now.as_nanos() - 1_000_000_000);
    server.thread(0, 0).begin(began, SocketProtocol::Http, b"", b"");
    let before = server.take().workers[0].busy_time;
    // The worker's clock was read before the snapshot's, and the count came after it.
    server.thread(0, 0).finish(now, now, ok());
    let after = server.take();
    assert_eq!(after.workers[0].running_time, 1_000_000);
    assert!(after.workers[0].busy_time >= before, "{before:?} {after:?}");
    // Nor when the process is gone before its processor time is known.
    let spent = after.workers[0].cpu_time;
    server.processes[0].clear();
    assert!(server.take().workers[0].cpu_time >= spent);
}

#[test]
fn a_worker_without_a_process_keeps_its_counts() {
    let mut server = Server::new();
    server.serve(0, 0, 1_000, ok());
    server.totals[0].absorb(&server.board, slot(0), MonotonicNanos::now(), &mut GenerationSums::default());
    server.board.clear(slot(0)).unwrap();
    server.processes[0].clear();
    let snapshot = server.take();
    let worker = &snapshot.workers[0];
    assert_eq!((worker.status.as_str(), worker.pid, worker.requests, worker.delta_requests), ("cheap", 0, 1, 0));
    assert_eq!((worker.rss, worker.accepting), (0, 0));
    assert_eq!(worker.cores.len(), 2);
}

#[test]
fn the_newest_exception_is_shown() {
    let mut server = Server::new();
    let raise = |kind: &str, when| ExceptionReport {
        when: UnixMicros::from_micros(when),
        kind: kind.into(),
        ..ExceptionReport::default()
    };
    assert_eq!(server.take().workers[0].last_exception, None);
    server.totals[0].last_exception = Some(raise("KeyError", 5));
    for (thread, kind, when) in [(1, "ValueError", 9), (0, "TypeError", 7)] {
        server.thread(0, thread).exception.store(&raise(kind, when));
        server.serve(0, thread, 1_000, Outcome { exception: true, ..ok() });
    }
    assert_eq!(server.take().workers[0].last_exception.as_ref().unwrap().kind, "ValueError");
}

#[test]
fn the_clock_never_goes_back_and_is_about_the_system_s() {
    let mut server = Server::new();
    let (first, second) = (server.take().now.unwrap(), server.take().now.unwrap());
    assert!(first <= second);
    assert!(second.abs_diff(UnixMicros::now().as_micros()) < 60_000_000);
}

#[test]
fn connections_and_requests_that_wait_are_the_queue() {
    let mut server = Server::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address: Address = listener.local_addr().unwrap().to_string().parse().unwrap();
    let _waiting = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    server.board.router().set_depth(4);
    server.board.router().reject();
    server.board.router().waiting.record(250);
    let deadline = Instant::now() + Duration::from_secs(10);
    let snapshot = loop {
        let sockets = vec![SocketView { address: &address, protocol: "http", fd: listener.as_fd() }];
        let snapshot = server.take_with(sockets);
        if snapshot.sockets[0].queue == 1 {
            break snapshot;
        }
        assert!(Instant::now() < deadline, "{snapshot:?}");
    };
    assert_eq!((snapshot.listen_queue, snapshot.listen_queue_errors, snapshot.load), (5, 1, 5));
    assert_eq!((snapshot.sockets[0].name.clone(), snapshot.sockets[0].max_queue > 0), (address.to_string(), true));
    let queue = snapshot.queue.unwrap();
    assert_eq!((queue.depth, queue.rejected), (5, 1));
    assert_eq!(latency::decode(&queue.waiting).unwrap().len(), 1);
}

#[test]
fn limits_are_the_configured_ones() {
    let mut server = Server::new();
    assert_eq!(server.take().limits, Some(Limits::default()));
    server.config.harakiri = Some(30);
    server.config.reload_on_rss = Some(900);
    server.config.evil_reload_on_rss = Some(500);
    server.config.max_requests = 7;
    let expected = Limits { harakiri: 30, reload_on_rss: 500, reload_on_as: 0, max_requests: 7, slow_request: 0 };
    assert_eq!(server.take().limits, Some(expected));
}

/// The names of all keys at all depths, without the contents of lists' items telling them apart.
fn keys(value: &serde_json::Value, path: &str, into: &mut std::collections::BTreeSet<String>) {
    match value {
        serde_json::Value::Object(map) => {
            for (name, value) in map {
                let path = format!("{path}.{name}");
                keys(value, &path, into);
                into.insert(path);
            }
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| keys(item, &format!("{path}[]"), into)),
        _ => {}
    }
}

#[test]
fn every_key_of_uwsgi_is_in_the_document() {
    let mut server = Server::new();
    let head = b"GET / HTTP/1.1\r\n\r\n";
    server.thread(0, 0).begin(MonotonicNanos::now(), SocketProtocol::Http, b"", head);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address: Address = listener.local_addr().unwrap().to_string().parse().unwrap();
    let sockets = vec![SocketView { address: &address, protocol: "http", fd: listener.as_fd() }];
    let document = serde_json::to_value(server.take_with(sockets)).unwrap();
    let mut ours = std::collections::BTreeSet::new();
    keys(&document, "", &mut ours);
    for capture in [
        include_str!("../../../../shared/tests/fixtures/uwsgi-busy-cheap.json"),
        include_str!("../../../../shared/tests/fixtures/uwsgi-four-workers-two-threads.json"),
        include_str!("../../../../shared/tests/fixtures/uwsgi-emperor-idle.json"),
    ] {
        let mut theirs = std::collections::BTreeSet::new();
        keys(&serde_json::from_str(capture).unwrap(), "", &mut theirs);
        // Names of locks are no keys of the schema, and there are none here.
        theirs.retain(|key| !key.starts_with(".locks["));
        assert_eq!(theirs.difference(&ours).collect::<Vec<_>>(), Vec::<&String>::new());
    }
    // And every key that has a meaning here only.
    for key in ["latency", "queue", "limits", "now", "schema", "python", "generation", "hostname", "started_at"] {
        assert!(document.get(key).is_some(), "{key}");
    }
    for key in ["latency", "pss", "uss", "rss_peak", "busy_time", "cpu_time", "gil_wait", "responses", "recycled"] {
        assert!(document["workers"][0].get(key).is_some(), "{key}");
    }
    assert!(document["workers"][0].get("last_exception").is_some());
}

/// Numbers that break sums, indices and lengths, among others.
fn word() -> impl Strategy<Value = u64> {
    prop_oneof![
        Just(0),
        Just(1),
        Just(u64::MAX),
        Just(u64::MAX - 1),
        Just(1 << 63),
        Just(1 << 32),
        any::<u64>(),
        any::<u16>().prop_map(u64::from),
    ]
}

/// Writes words into the scoreboard, as a process does whose application has a wild pointer.
fn spoil(board: &Scoreboard, words: &[(usize, u64)], everything: bool) {
    let file = std::fs::File::from(board.memory().try_clone_to_owned().unwrap());
    let size = file.metadata().unwrap().len() as usize / 8;
    if everything {
        // A cheap generator that depends on all of the words.
        let mut state = words.iter().fold(1, |state, (at, word)| state ^ word.rotate_left(*at as u32 % 64)) | 1;
        let noise = (0..size).flat_map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_ne_bytes()
        });
        file.write_all_at(&noise.collect::<Vec<_>>(), 0).unwrap();
    }
    for (at, word) in words {
        file.write_all_at(&word.to_ne_bytes(), (at % size * 8) as u64).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn whatever_lies_in_shared_memory_is_clamped_or_refused(
        words in prop::collection::vec((any::<usize>(), word()), 0..400),
        near in prop::collection::vec((0..2_000usize, word()), 0..200),
        everything in any::<bool>(),
    ) {
        let mut server = Server::new();
        server.board = Scoreboard::create(Layout::new(2, 2).with_spoolers(2)).unwrap();
        server.serve(0, 0, 1_000_000, ok());
        server.thread(1, 1).begin(ago(Duration::from_secs(1)), SocketProtocol::Http, b"", b"GET / HTTP/1.1\r\n\r\n");
        server.board.spooler(0).begin(ago(Duration::from_secs(1)), b"job");
        // Most words of a scoreboard are counters of latencies: the beginning of each part holds the rest.
        let slot_size = |slot: u32| std::ptr::from_ref(server.thread(slot, 0)).addr();
        let (first, slot_bytes) = (slot_size(0), slot_size(1) - slot_size(0));
        let start = first - std::ptr::from_ref(server.board.router()).addr();
        let near = near.iter().map(|(at, word)| ((start + (at % 2) * slot_bytes) / 8 + at / 2, *word));
        spoil(&server.board, &words.into_iter().chain(near).collect::<Vec<_>>(), everything);

        for _ in 0..2 {
            let snapshot = server.take();
            serde_json::to_string(&snapshot).unwrap();
            for format in [rwsgi_metrics::Format::OpenMetrics, rwsgi_metrics::Format::Protobuf] {
                assert!(!rwsgi_metrics::render(&snapshot, format, &rwsgi_metrics::Options::default()).is_empty());
            }
        }
        for process in 0..2 {
            let threads: Vec<_> = server.board.threads(slot(process)).collect();
            for held in threads.iter().filter_map(|cell| cell.held()) {
                let _ = crate::stats::request::describe(&held, MonotonicNanos::now(), rwsgi_stats::Shown::ALL);
            }
            let _ = server.board.read_slot(slot(process));
            server.totals[0].absorb(&server.board, slot(process), MonotonicNanos::now(), &mut GenerationSums::default());
        }
        for thread in ThreadIndex::first(2) {
            let since = server.board.dispatched(slot(0), thread).not_begun_since();
            prop_assert!(since.is_none_or(|since| since <= MonotonicNanos::now()));
        }
        for spooler in server.board.spoolers() {
            if let Ok(Some(job)) = spooler.held() {
                prop_assert!(job.path.is_relative());
            }
            let _ = (spooler.pid(), spooler.frequency());
            spooler.finish(MonotonicNanos::now(), Verdict::Failed);
        }
        // The processes themselves go on as well, and what they left is shown of their workers.
        for cell in server.board.threads(slot(0)) {
            cell.begin(MonotonicNanos::now(), SocketProtocol::Http, b"", b"");
            cell.exception.store(&ExceptionReport::default());
            cell.finish(MonotonicNanos::now(), MonotonicNanos::now(), ok());
        }
        server.processes[0].clear();
        let snapshot = server.take();
        prop_assert!(snapshot.workers[0].requests < 1 << 62);
    }
}

#[test]
fn a_corrupt_process_is_told_and_its_counts_are_left_out() {
    let mut server = Server::new();
    server.totals[0].threads[0].requests = 5;
    server.serve(0, 0, 1_000, ok());
    server.serve(0, 1, 1_000, ok());
    assert_eq!(server.take_all().corrupt, []);
    server.thread(0, 1).sent(usize::MAX);
    let Taken { snapshot, corrupt } = server.take_all();
    assert_eq!((snapshot.workers[0].requests, snapshot.workers[0].tx), (6, 0));
    let found = CorruptSlot { slot: slot(0), thread: ThreadIndex::new(1), corrupt: Corrupt::Counters };
    assert_eq!(corrupt, [CorruptWorker { worker: WorkerId::FIRST, pid: Pid::this(), found }]);
    let line = corrupt[0].to_string();
    assert!(
        line.starts_with(&format!("worker 1 (pid {}): its part of the shared memory is corrupt", Pid::this())),
        "{line}"
    );
    server.thread(0, 0).sent(usize::MAX);
    assert_eq!(server.take_all().corrupt.len(), 1, "one word for each process");
}

#[test]
fn garbage_of_the_http_router_and_of_spoolers_is_forgotten() {
    let mut server = Server::new();
    server.board = Scoreboard::create(Layout::new(2, 2).with_spoolers(1)).unwrap();
    spoil(&server.board, &[(0, u64::MAX), (1, u64::MAX)], false);
    assert_eq!(server.board.router().read(), Err(Corrupt::Counters));
    let snapshot = server.take();
    assert_eq!((snapshot.listen_queue, snapshot.listen_queue_errors), (0, 0));
    server.board.router().reject();
    assert_eq!(server.take().listen_queue_errors, 1);
}

#[test]
fn pages_that_are_shared_are_told_when_they_are_known() {
    let mut server = Server::new();
    let deadline = Instant::now() + Duration::from_secs(10);
    while server.take().workers[0].pss == Some(0) {
        assert!(Instant::now() < deadline, "not within ten seconds");
        std::thread::yield_now();
    }
    assert!(server.take().workers[0].uss.unwrap() > 0);
}

#[test]
fn a_generation_has_what_its_processes_did_wherever_they_are() {
    let mut server = Server::new();
    let now = UnixMicros::from_micros(7);
    let mut history = GenerationHistory::default();
    history.begin(GenerationNumber::FIRST, GenerationState::Serving, now);
    let next = GenerationNumber::FIRST.next();
    history.begin(next, GenerationState::Canary, now);
    // Worker 1 has a process of each; one of the first has ended.
    server.processes = vec![vec![process(2, 2), process(0, 1)], vec![process(1, 1)]];
    let raised = Outcome { status: 500, exception: true, ..Outcome::default() };
    for (slot, outcome) in [(0, ok()), (1, ok()), (2, raised), (2, ok())] {
        server.serve(slot, 0, 1_000_000, outcome);
    }
    server.thread(2, 0).errors.count("KeyError");
    history.past(GenerationNumber::FIRST).unwrap().counters.requests = 10;
    server.take();
    let told = history.describe(&server.state.living);
    let [new, old] = &told[..] else { panic!("{told:?}") };
    assert_eq!((new.generation, new.state.as_str(), new.workers, new.requests), (2, "canary", 1, 2));
    assert_eq!((new.exceptions, new.responses.server_error, new.errors[0].kind.as_str()), (1, 1, "KeyError"));
    assert_eq!(latency::decode(&new.latency).unwrap().len(), 2);
    assert_eq!((old.generation, old.state.as_str(), old.workers, old.requests), (1, "serving", 2, 12));
    assert!(old.errors.is_empty());
    server.take();
    assert_eq!(history.describe(&server.state.living)[0].requests, 2, "nothing is counted twice");
}

#[test]
fn a_worker_accepts_only_when_the_master_knows_that_it_serves() {
    let mut server = Server::new();
    server.board.worker(slot(0)).set_accepting(true);
    server.processes[0] = vec![ProcessView { is_ready: false, ..process(0, 1) }];
    assert_eq!(server.take().workers[0].accepting, 0);
    server.processes[0] = vec![process(0, 1)];
    assert_eq!(server.take().workers[0].accepting, 1);
}
