//! Stats documents that no server means: good ones in which any values are replaced, repeated or missing. For the tests
//! of what is made of documents.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{LocalMicros, Monotonic, Poll, parse};

/// A document with every key that rwsgi sends and rtop reads.
fn whole() -> Value {
    let histogram = rwsgi_stats::latency::encode(&rwsgi_stats::latency::from_counts([
        (rwsgi_stats::latency::index_of(900), 60),
        (rwsgi_stats::latency::index_of(120_000), 1),
    ]));
    let request = json!({"request_start": 1_795_227_000, "method": "GET", "uri": "/a?b", "remote_addr": "192.0.2.7",
        "protocol": "HTTP/1.1", "started": 1_795_227_000_000_000_u64, "elapsed": 2_345_678});
    let core = json!({"id": 0, "requests": 99, "static_requests": 0, "routed_requests": 0, "offloaded_requests": 0,
        "write_errors": 1, "read_errors": 2, "in_request": 1, "vars": ["REQUEST_METHOD=GET", "PATH_INFO=/a"],
        "req_info": request});
    let app = json!({"id": 0, "modifier1": 0, "mountpoint": "", "startup_time": 1, "requests": 99, "exceptions": 3,
        "chdir": ""});
    let exception = json!({"type": "ValueError", "message": "no", "where": "a.py:1 in b",
        "traceback": ["a.py:1 in b", "c.py:2 in d"], "when": 1_795_227_000_000_000_u64, "request": "GET /"});
    let worker = json!({"id": 1, "pid": 4_101, "accepting": 1, "requests": 99, "delta_requests": 99, "exceptions": 3,
        "harakiri_count": 1, "signals": 0, "signal_queue": 0, "status": "busy", "rss": 50_331_648, "vsz": 99_999_999,
        "running_time": 310_000, "last_spawn": 1_795_227_000, "respawn_count": 2, "tx": 5_120, "avg_rt": 1_834,
        "apps": [app], "cores": [core.clone(), core], "generation": 2, "busy_time": 230_000, "cpu_time": 180_000,
        "gil_wait": 12_000, "pss": 22_020_096, "uss": 12_582_912, "rss_peak": 54_525_952,
        "responses": {"1xx": 0, "2xx": 90, "3xx": 1, "4xx": 4, "5xx": 3},
        "recycled": {"max_requests": 1, "reload_on_rss": 0, "reload_on_as": 0, "max_worker_lifetime": 0},
        "latency": histogram, "last_exception": exception});
    let spooler = json!({"dir": "/spool", "pid": 9, "tasks": 5, "respawns": 1, "running": 1, "queue": 7, "oldest_age": 60,
            "done": 3, "retried": 1, "failed": 1, "run_time": histogram,
            "job": {"name": "job", "started": 1_795_227_000_000_000_u64, "elapsed": 5}});
    let vassal = json!({"id": "a.ini", "pid": 7, "born": 1_795_227_000, "last_mod": 0, "last_run": 0, "accepting": 1,
            "respawns": 2, "uid": 0, "gid": 0, "monitor": "/vassals"});
    let daemon = json!({"cmd": "redis", "pid": 8, "respawns": 1, "status": "running", "started_at": 1_795_227_000});
    let cron = json!({"minute": -1, "hour": 4, "day": -1, "month": -1, "week": -1, "command": "backup", "unique": 1,
        "pid": -1, "started_at": 0, "raised": 5});
    json!({"version": "0.1.0", "listen_queue": 2, "listen_queue_errors": 1, "signal_queue": 0, "load": 3, "pid": 4_099,
        "uid": 33, "gid": 33, "cwd": "/srv", "locks": [{"user 0": 0}],
        "sockets": [{"name": "127.0.0.1:9090", "proto": "http", "queue": 1, "max_queue": 4_096, "shared": 0,
            "can_offload": 0}],
        "workers": [worker.clone(), worker], "server": "rwsgi", "schema": 1, "hostname": "web1",
        "started_at": 1_795_133_000_000_000_u64, "now": 1_795_227_000_000_000_u64, "generation": 2, "python": "3.11.2",
        "queue": {"depth": 2, "capacity": 4_096, "waiting": histogram, "rejected": 1}, "latency": histogram,
        "limits": {"harakiri": 30, "reload_on_rss": 268_435_456, "evil_reload_on_rss": 0, "max_requests": 1_000},
        "spoolers": [spooler],
        "caches": [{"name": "c", "items": 1, "hits": 2}], "metrics": {"m": {"type": 0, "oid": "1", "value": 5}},
        "daemons": [daemon], "crons": [cron], "timers": [], "emperor": ["/vassals"], "emperor_tyrant": 0,
        "vassals": [vassal],
        "blacklist": [{"id": "b.ini", "throttle_level": 4_400, "attempt": 22, "first_attempt": 5, "last_attempt": 6}]})
}

/// Every value of a document, in the order in which it is written.
fn values<'v>(value: &'v mut Value, wanted: &mut usize) -> Option<&'v mut Value> {
    if *wanted == 0 {
        return Some(value);
    }
    *wanted -= 1;
    match value {
        Value::Array(values_) => values_.iter_mut().find_map(|inner| values(inner, wanted)),
        Value::Object(members) => members.values_mut().find_map(|inner| values(inner, wanted)),
        _ => None,
    }
}

#[derive(Clone, Debug)]
enum Change {
    /// A number takes the place of one; of anything else, only its text changes.
    Number(u64),
    Any(Value),
    /// What a list holds is there so many times more.
    Repeat(usize),
    /// What an object holds is not there.
    Empty,
}

fn number() -> impl Strategy<Value = u64> {
    let edges = [0, 1, 2, 127, 255, 1 << 31, 1 << 32, 1 << 53, 1 << 63, u64::MAX - 1, u64::MAX, i64::MAX as u64];
    prop_oneof![4 => prop::sample::select(edges.to_vec()), 1 => any::<u64>()]
}

fn changes() -> impl Strategy<Value = Vec<(prop::sample::Index, Change)>> {
    let odd = [
        json!(null),
        json!(-1),
        json!(i64::MIN),
        json!(0.5),
        json!(1e300),
        json!(true),
        json!(""),
        json!("x"),
        json!([]),
        json!({}),
        json!([[]]),
        json!("AAAA"),
        json!("\u{1b}[2J\u{202e}"),
        json!("é".repeat(300)),
    ];
    let change = prop_oneof![
        6 => number().prop_map(Change::Number),
        1 => prop::sample::select(odd.to_vec()).prop_map(Change::Any),
        1 => (0usize..40).prop_map(Change::Repeat),
        1 => Just(Change::Empty),
    ];
    prop::collection::vec((any::<prop::sample::Index>(), change), 0..12)
}

fn change(document: &mut Value, place: prop::sample::Index, change: &Change) {
    let count = {
        let mut left = usize::MAX;
        values(document, &mut left);
        usize::MAX - left
    };
    let Some(value) = values(document, &mut place.index(count)) else { return };
    match (change, &mut *value) {
        (Change::Number(number), Value::Number(old)) => *old = (*number).into(),
        (Change::Number(number), Value::String(old)) => *old = number.to_string(),
        (Change::Any(new), _) => *value = new.clone(),
        (Change::Repeat(times), Value::Array(list)) => {
            let all = list.clone();
            (0..*times).for_each(|_| list.extend(all.iter().cloned()));
            list.truncate(100);
        }
        (Change::Empty, Value::Object(members)) => members.clear(),
        (Change::Empty, Value::Array(list)) => list.clear(),
        _ => {}
    }
}

/// What a server answers in a row, one second or none after the other. Some of it is no stats document any more.
pub(crate) fn polls() -> impl Strategy<Value = Vec<Poll>> {
    prop::collection::vec((changes(), 0..3u64), 1..5).prop_map(|all| {
        let mut at = 0;
        let poll = |(changes, after): (Vec<(prop::sample::Index, Change)>, u64)| {
            let mut document = whole();
            changes.iter().for_each(|(place, one)| change(&mut document, *place, one));
            at += after * 1_000_000;
            let outcome = parse(serde_json::to_vec(&document).unwrap());
            Poll { target: 0, at: Monotonic::from_micros(at), taken: LocalMicros(1_795_227_000_000_000 + at), outcome }
        };
        all.into_iter().map(poll).collect()
    })
}

proptest! {
    #[test]
    fn any_text_of_json_is_a_document_or_a_line_that_says_why_not(
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..60).boxed(),
            "[{}\\[\\]\",:0-9a-z\\\\.eE+-]{0,80}".prop_map(String::into_bytes).boxed(),
            "\\{\"(version|workers|pid|now|cores)\":[0-9{}\\[\\]\"a-z,:.-]{0,60}\\}".prop_map(String::into_bytes).boxed(),
        ],
    ) {
        if let Err(error) = parse(bytes) {
            let told = error.to_string();
            prop_assert!(!told.is_empty() && told.len() < 1_200 && !told.contains(char::is_control), "{:?}", told);
        }
    }
}

#[test]
fn the_document_that_is_changed_is_a_good_one() {
    let document = parse(serde_json::to_vec(&whole()).unwrap()).unwrap();
    assert_eq!((document.snapshot.workers.len(), document.snapshot.spoolers.len()), (2, 1));
}
