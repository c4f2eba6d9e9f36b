//! Recordings of a pool whose server tells of routes, phases and slow requests, made by hand.

#![allow(clippy::unwrap_used)]
#![allow(dead_code, reason = "not every test needs all of it")]

use std::io::Write as _;
use std::path::Path;

use rwsgi_stats::latency;
use serde_json::{Value, json};

const START: u64 = 1_795_227_000_000_000;

/// How the pool is doing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pool {
    Well,
    /// Every thread is in a request, and others wait.
    Full,
}

fn counts(micros: u64, count: u64) -> String {
    latency::encode(&latency::from_counts([(latency::index_of(micros), count)]))
}

fn route(name: &str, requests: u64, micros: u64) -> Value {
    json!({
        "route": name, "requests": requests, "busy_time": requests * micros, "latency": counts(micros, requests),
        "responses": {"2xx": requests},
    })
}

/// The document of two workers of two threads, so many seconds after their start.
pub(crate) fn document(pool: Pool, second: u64) -> Value {
    let full = pool == Pool::Full;
    let worker = |id: u64| {
        let core = |core: u64| {
            let request =
                json!({"method": "GET", "uri": "/orders/7/export", "elapsed": 180_000, "route": "orders.views.export"});
            json!({"id": core, "requests": second * 50, "in_request": u8::from(full), "req_info": if full { request } else { json!({}) }})
        };
        json!({
            "id": id, "pid": 4_100 + id, "accepting": 1, "requests": second * 100, "status": "busy", "rss": 50 << 20,
            "respawn_count": 1, "busy_time": second * if full { 2_000_000 } else { 700_000 }, "cores": [core(0), core(1)],
            "latency": counts(9_000, second * 100), "generation": 2, "unresponsive_for": 0,
            "responses": {"2xx": second * 100}, "recycled": {},
        })
    };
    let mut export = route("orders.views.export", second * 20, if full { 180_000 } else { 80_000 });
    export["last_exception"] = json!({
        "type": "KeyError", "message": "'total'", "where": "/srv/app/views.py:41 in export", "when": START,
        "traceback": ["/srv/app/views.py:41 in export"], "request": "GET /orders/7/export",
    });
    let slow = |id: u64| {
        json!({
            "id": id, "worker": 1, "core": 0, "pid": 4_101, "started": START + id * 1_000_000, "elapsed": 700_000,
            "method": "GET", "uri": format!("/orders/{id}/export"), "route": "orders.views.export", "status": 200,
            "outcome": "done", "phases": {"queue": 100_000, "application": 600_000},
            "stack": ["/srv/app/views.py:41 in export"], "stack_at": 500_000,
        })
    };
    json!({
        "version": "0.2.0", "server": "rwsgi", "pid": 4_099, "started_at": START, "now": START + second * 1_000_000,
        "workers": [worker(1), worker(2)], "latency": counts(9_000, second * 200),
        "queue": {"depth": if full { 7 } else { 0 }, "capacity": 100,
                  "waiting": counts(if full { 900_000 } else { 2_000 }, second * 200), "rejected": 0},
        "limits": {"slow_request": 500_000},
        "routes": [route("/users/{}", second * 180, 1_000), export],
        "phases": {"queue": counts(2_000, second), "application": counts(9_000, second)},
        "slow": (second.saturating_sub(3) + 1..=second).rev().map(slow).collect::<Vec<_>>(),
    })
}

/// Writes a recording of so many seconds, one sample each.
pub(crate) fn record(path: &Path, pool: Pool, seconds: u64) {
    let file = std::fs::File::create(path).unwrap();
    let mut packed = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    let mut line = |line: Value| writeln!(packed, "{line}").unwrap();
    line(json!({"format": 2, "started": START, "interval": 1_000_000, "targets": ["web1:9191"]}));
    for second in 1..=seconds {
        let at = second * 1_000_000;
        line(json!({"target": "web1:9191", "at": at, "taken": START + at, "document": document(pool, second)}));
    }
    line(json!({"end": seconds * 1_000_000, "by": "time"}));
    packed.finish().unwrap();
}
