//! What a stats poll costs the master: `cargo bench -p rwsgi --bench snapshot`.
//!
//! 64 workers of 2 threads that have served requests of many lengths, with a real Python process in the place of each,
//! so that reading their memory costs what it costs. Prints medians of this thread's processor time, for each step with
//! polls close together, and with polls a tenth of a second apart, whose caches are cold.

#![allow(clippy::print_stdout, clippy::unwrap_used, reason = "a measurement prints, and may fail")]

use std::hint::black_box;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::unistd::Pid;
use rwsgi::clock::{self, MonotonicNanos, UnixMicros};
use rwsgi::ids::{GenerationNumber, SlotId, ThreadIndex, WorkerId};
use rwsgi::stats::cell::{LatencyCounts, Outcome};
use rwsgi::stats::memory_sampler::MemorySampler;
use rwsgi::stats::scoreboard::{Layout, Scoreboard};
use rwsgi::stats::snapshot::{ProcessView, Purpose, Subject, WorkerView, take};
use rwsgi::stats::state::SnapshotState;
use rwsgi::stats::totals::Totals;
use rwsgi_config::Config;
use rwsgi_metrics::{Format, Options};
use rwsgi_protocol::SocketProtocol;

const WORKERS: u32 = 64;
const THREADS: u32 = 2;
const ROUNDS: usize = 200;

/// An idle Python with some modules, ended when dropped.
struct Python(Child);

impl Python {
    fn start() -> Self {
        let program = "import sys, json, email, http.client; print('x', flush=True); sys.stdin.read()";
        let mut child =
            Command::new("python3").args(["-c", program]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        Self(child)
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn measure(what: &str, rounds: usize, pause: Duration, mut step: impl FnMut()) {
    step();
    let mut times: Vec<_> = (0..rounds)
        .map(|_| {
            std::thread::sleep(pause);
            let before = clock::thread_time();
            step();
            clock::thread_time() - before
        })
        .collect();
    times.sort_unstable();
    let of = |quantile: usize| times[(times.len() - 1) * quantile / 100].as_secs_f64() * 1e6;
    println!("{what:<44} median {:>7.1} µs   p95 {:>7.1} µs", of(50), of(95));
}

fn main() {
    let pythons: Vec<_> = (0..WORKERS).map(|_| Python::start()).collect();
    let pids: Vec<_> = pythons.iter().map(|python| Pid::from_raw(python.0.id() as i32)).collect();
    let zero = MonotonicNanos::from_nanos(0);
    let board = Scoreboard::create(Layout::new(WORKERS, THREADS)).unwrap();
    for slot in SlotId::first(WORKERS) {
        for thread in board.threads(slot) {
            // Log-uniform from 100 µs to 1 s.
            for step in 0..4_000u64 {
                let took = 100_000 * 10f64.powf((step * 7919 % 4_000) as f64 / 1_000.0) as u64;
                thread.begin(zero, SocketProtocol::Http, b"", b"GET / HTTP/1.1\r\n\r\n");
                thread.finish(MonotonicNanos::from_nanos(took), zero, Outcome { status: 200, ..Outcome::default() });
            }
        }
    }
    let totals: Vec<_> = (0..WORKERS).map(|_| Totals::new(THREADS)).collect();
    let config = Config::default();
    let subject = || Subject {
        purpose: Purpose::Document,
        temp_dir: std::path::Path::new("/var/tmp"),
        temp_limit: None,
        scoreboard: &board,
        config: &config,
        started_at: UnixMicros::default(),
        generation: Some(GenerationNumber::FIRST),
        python: "3",
        sockets: Vec::new(),
        workers: WorkerId::first(WORKERS)
            .zip(SlotId::first(WORKERS))
            .map(|(id, slot)| WorkerView {
                id,
                totals: &totals[id.index()],
                processes: vec![ProcessView {
                    slot,
                    pid: pids[id.index()],
                    generation: GenerationNumber::FIRST,
                    spawned_at: UnixMicros::default(),
                    is_ready: true,
                }],
            })
            .collect(),
        spoolers: Vec::new(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut state = SnapshotState::new(runtime.handle().clone());
    let mut sampler = MemorySampler::new(runtime.handle().clone());
    let snapshot = take(&subject(), &mut state).snapshot;
    let mut counts = LatencyCounts::default();
    board.thread(SlotId::new(0), ThreadIndex::new(0)).read_latencies(&mut counts).unwrap();
    println!("{WORKERS} workers of {THREADS} threads");

    let now = Duration::ZERO;
    measure("one smaps_rollup", ROUNDS, now, || {
        black_box(std::fs::read_to_string(format!("/proc/{}/smaps_rollup", pids[0])).unwrap());
    });
    measure("one new histogram, encoded", ROUNDS, now, || {
        black_box(counts.encode());
    });
    measure("memory of all", ROUNDS, now, || sampler.sample(pids.iter().copied(), zero));
    measure("processor time of all", ROUNDS, now, || {
        black_box(pids.iter().filter_map(|pid| clock::processor_time(*pid)).sum::<Duration>());
    });
    measure("take()", ROUNDS, now, || {
        black_box(take(&subject(), &mut state));
    });
    measure("to JSON", ROUNDS, now, || {
        black_box(serde_json::to_vec(&snapshot).unwrap());
    });
    println!("{:<44} {} bytes", "document", serde_json::to_vec(&snapshot).unwrap().len());
    let tenth = Duration::from_millis(100);
    measure("take() and to JSON, ten a second", 50, tenth, || {
        black_box(serde_json::to_vec(&take(&subject(), &mut state).snapshot).unwrap());
    });
    for (what, format) in [("text", Format::Text), ("OpenMetrics", Format::OpenMetrics), ("protobuf", Format::Protobuf)]
    {
        let options = Options::default();
        measure(&format!("to {what}"), ROUNDS, now, || {
            black_box(rwsgi_metrics::render(&snapshot, format, &options));
        });
        println!("{what:<44} {} bytes", rwsgi_metrics::render(&snapshot, format, &options).len());
        measure(&format!("take() and to {what}, ten a second"), 50, tenth, || {
            black_box(rwsgi_metrics::render(&take(&subject(), &mut state).snapshot, format, &options));
        });
    }
}
