//! Documents that a real uWSGI 2.0.31 sent are read without losing anything.

use rwsgi_stats::Snapshot;
use serde_json::Value;

const CAPTURES: [(&str, &str); 7] = [
    ("busy and cheap", include_str!("fixtures/uwsgi-busy-cheap.json")),
    ("caches, crons and metrics", include_str!("fixtures/uwsgi-caches-crons-metrics.json")),
    ("programs beside the server", include_str!("fixtures/uwsgi-daemons.json")),
    ("emperor with a vassal that does not stay up", include_str!("fixtures/uwsgi-emperor.json")),
    ("emperor, idle", include_str!("fixtures/uwsgi-emperor-idle.json")),
    ("four workers of two threads", include_str!("fixtures/uwsgi-four-workers-two-threads.json")),
    ("spoolers", include_str!("fixtures/uwsgi-spoolers.json")),
];

/// Fails unless everything in `theirs` is in `ours`.
fn contains(ours: &Value, theirs: &Value, path: &str) {
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) => {
            for (name, value) in theirs {
                let mine = ours.get(name).unwrap_or_else(|| panic!("{path}.{name} is lost"));
                contains(mine, value, &format!("{path}.{name}"));
            }
        }
        (Value::Array(ours), Value::Array(theirs)) => {
            assert_eq!(ours.len(), theirs.len(), "{path}");
            for (index, (ours, theirs)) in ours.iter().zip(theirs).enumerate() {
                contains(ours, theirs, &format!("{path}[{index}]"));
            }
        }
        (ours, theirs) => assert_eq!(ours, theirs, "{path}"),
    }
}

#[test]
fn every_key_and_value_of_uwsgi_survives_being_read() {
    for (name, capture) in CAPTURES {
        let snapshot: Snapshot = serde_json::from_str(capture).unwrap_or_else(|error| panic!("{name}: {error}"));
        contains(&serde_json::to_value(&snapshot).unwrap(), &serde_json::from_str(capture).unwrap(), name);
    }
}

#[test]
fn what_only_we_send_is_absent_from_uwsgi_s() {
    let snapshot: Snapshot = serde_json::from_str(CAPTURES[0].1).unwrap();
    assert_eq!((snapshot.server, snapshot.now, snapshot.queue), (None, None, None));
    assert_eq!((snapshot.workers[1].busy_time, &snapshot.workers[1].latency), (None, &None));
    assert_eq!(snapshot.workers[1].status, "busy");
    assert_eq!(snapshot.workers[1].cores[1].req_info.request_start, Some(1_795_227_101));
}
