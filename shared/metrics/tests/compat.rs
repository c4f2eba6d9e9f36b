//! `metrics-compat = uwsgi_exporter`, compared with what the exporter's own test expects of its sample document: types,
//! labels and values of `TestUwsgiExporter_Collect`, in the text that client_golang makes of them.

#![allow(clippy::unwrap_used, reason = "what is missing here fails the test")]

use rwsgi_metrics::{Compat, Format, Options, Scrapes, render};
use rwsgi_stats::Snapshot;
use serde_json::json;

/// As its `testdata/sample.json`: one socket twice, two caches; and a worker that never ran.
fn sample() -> Snapshot {
    let worker = |id: u32| {
        json!({
            "id": id, "pid": 9, "accepting": 1, "status": "idle", "last_spawn": 1_457_410_597, "respawn_count": 1,
            "apps": [{"id": 0, "mountpoint": "", "chdir": ""}],
            "cores": [{"id": 0, "requests": 0, "in_request": 0, "vars": []}],
        })
    };
    let socket =
        |max_queue: u32| json!({"name": "127.0.0.1:36577", "proto": "uwsgi", "queue": 0, "max_queue": max_queue});
    let cache = |name: &str, hits: u64, miss: u64, items: u64, max_items: u64| json!({"name": name, "items": items, "max_items": max_items, "hits": hits, "miss": miss, "full": 0});
    serde_json::from_value(json!({
        "version": "2.0.12", "listen_queue": 0, "listen_queue_errors": 0, "signal_queue": 0,
        "caches": [cache("cache_1", 56_614, 4_931_570, 39, 2_000), cache("cache_2", 5, 9_251, 0, 1_000)],
        "sockets": [socket(100), socket(0)],
        "workers": [worker(1), worker(2), worker(0)],
    }))
    .unwrap()
}

fn text(cores: bool, format: Format) -> String {
    let compat = Compat { stats_uri: "u", cores, scrapes: Scrapes { count: 1, errors: 0, seconds: 0.25 } };
    String::from_utf8(render(&sample(), format, &Options { no_routes: false, compat: Some(compat) })).unwrap()
}

/// Name with labels, type, and value.
const EXPECTED: &[(&str, &str, &str)] = &[
    (r#"uwsgi_listen_queue_length{stats_uri="u"}"#, "gauge", "0"),
    (r#"uwsgi_listen_queue_errors{stats_uri="u"}"#, "gauge", "0"),
    (r#"uwsgi_signal_queue_length{stats_uri="u"}"#, "gauge", "0"),
    (r#"uwsgi_workers{stats_uri="u"}"#, "gauge", "2"),
    (r#"uwsgi_socket_queue_length{stats_uri="u",name="127.0.0.1:36577",proto="uwsgi"}"#, "gauge", "0"),
    // The first of two sockets of one name.
    (r#"uwsgi_socket_max_queue_length{stats_uri="u",name="127.0.0.1:36577",proto="uwsgi"}"#, "gauge", "100"),
    (r#"uwsgi_socket_shared{stats_uri="u",name="127.0.0.1:36577",proto="uwsgi"}"#, "gauge", "0"),
    (r#"uwsgi_socket_can_offload{stats_uri="u",name="127.0.0.1:36577",proto="uwsgi"}"#, "gauge", "0"),
    (r#"uwsgi_worker_accepting{stats_uri="u",worker_id="1"}"#, "gauge", "1"),
    (r#"uwsgi_worker_delta_requests{stats_uri="u",worker_id="1"}"#, "gauge", "0"),
    (r#"uwsgi_worker_signal_queue_length{stats_uri="u",worker_id="1"}"#, "gauge", "0"),
    (r#"uwsgi_worker_rss_bytes{stats_uri="u",worker_id="1"}"#, "gauge", "0"),
    (r#"uwsgi_worker_vsz_bytes{stats_uri="u",worker_id="1"}"#, "gauge", "0"),
    (r#"uwsgi_worker_running_time_seconds{stats_uri="u",worker_id="1"}"#, "gauge", "0"),
    (r#"uwsgi_worker_last_spawn_time_seconds{stats_uri="u",worker_id="2"}"#, "gauge", "1457410597"),
    (r#"uwsgi_worker_average_response_time_seconds{stats_uri="u",worker_id="1"}"#, "gauge", "0"),
    (r#"uwsgi_worker_busy{stats_uri="u",worker_id="1"}"#, "gauge", "0"),
    (r#"uwsgi_worker_idle{stats_uri="u",worker_id="1"}"#, "gauge", "1"),
    (r#"uwsgi_worker_cheap{stats_uri="u",worker_id="1"}"#, "gauge", "0"),
    (r#"uwsgi_worker_requests_total{stats_uri="u",worker_id="2"}"#, "counter", "0"),
    (r#"uwsgi_worker_exceptions_total{stats_uri="u",worker_id="1"}"#, "counter", "0"),
    (r#"uwsgi_worker_harakiri_count_total{stats_uri="u",worker_id="1"}"#, "counter", "0"),
    (r#"uwsgi_worker_signals_total{stats_uri="u",worker_id="1"}"#, "counter", "0"),
    (r#"uwsgi_worker_respawn_count_total{stats_uri="u",worker_id="1"}"#, "counter", "1"),
    (r#"uwsgi_worker_transmitted_bytes_total{stats_uri="u",worker_id="1"}"#, "counter", "0"),
    (r#"uwsgi_worker_apps{stats_uri="u",worker_id="1"}"#, "gauge", "1"),
    (r#"uwsgi_worker_cores{stats_uri="u",worker_id="1"}"#, "gauge", "1"),
    (
        r#"uwsgi_worker_app_startup_time_seconds{stats_uri="u",worker_id="1",app_id="0",mountpoint="",chdir=""}"#,
        "gauge",
        "0",
    ),
    (
        r#"uwsgi_worker_app_requests_total{stats_uri="u",worker_id="1",app_id="0",mountpoint="",chdir=""}"#,
        "counter",
        "0",
    ),
    (
        r#"uwsgi_worker_app_exceptions_total{stats_uri="u",worker_id="1",app_id="0",mountpoint="",chdir=""}"#,
        "counter",
        "0",
    ),
    (r#"uwsgi_worker_core_busy{stats_uri="u",worker_id="1",core_id="0"}"#, "gauge", "0"),
    (r#"uwsgi_worker_core_requests_total{stats_uri="u",worker_id="1",core_id="0"}"#, "counter", "0"),
    (r#"uwsgi_worker_core_static_requests_total{stats_uri="u",worker_id="1",core_id="0"}"#, "counter", "0"),
    (r#"uwsgi_worker_core_routed_requests_total{stats_uri="u",worker_id="1",core_id="0"}"#, "counter", "0"),
    (r#"uwsgi_worker_core_offloaded_requests_total{stats_uri="u",worker_id="1",core_id="0"}"#, "counter", "0"),
    (r#"uwsgi_worker_core_write_errors_total{stats_uri="u",worker_id="1",core_id="0"}"#, "counter", "0"),
    (r#"uwsgi_worker_core_read_errors_total{stats_uri="u",worker_id="2",core_id="0"}"#, "counter", "0"),
    (r#"uwsgi_cache_hits{stats_uri="u",name="cache_1"}"#, "counter", "56614"),
    (r#"uwsgi_cache_misses{stats_uri="u",name="cache_1"}"#, "counter", "4931570"),
    (r#"uwsgi_cache_full{stats_uri="u",name="cache_1"}"#, "counter", "0"),
    (r#"uwsgi_cache_items{stats_uri="u",name="cache_1"}"#, "gauge", "39"),
    (r#"uwsgi_cache_max_items{stats_uri="u",name="cache_2"}"#, "gauge", "1000"),
    ("uwsgi_exporter_scrapes_total", "counter", "1"),
    ("uwsgi_exporter_scrape_errors_total", "counter", "0"),
    ("uwsgi_exporter_last_scrape_error", "gauge", "0"),
    ("uwsgi_exporter_scrape_duration_seconds_count", "summary", "1"),
    ("uwsgi_exporter_scrape_duration_seconds_sum", "summary", "0.25"),
    ("uwsgi_up", "gauge", "1"),
];

#[test]
fn every_name_has_the_exporter_s_type_labels_and_value() {
    let text = text(true, Format::Text);
    for (series, kind, value) in EXPECTED {
        let line = format!("{series} {value}");
        assert!(text.lines().any(|known| known == line), "no {line} in\n{text}");
        let name = series.split('{').next().unwrap();
        let family = ["_count", "_sum"].iter().find_map(|end| name.strip_suffix(end)).filter(|_| *kind == "summary");
        let line = format!("# TYPE {} {kind}", family.unwrap_or(name));
        assert!(text.lines().any(|known| known == line), "no {line} in\n{text}");
    }
    let names = |text: &str| -> std::collections::BTreeSet<String> {
        let series = text.lines().filter(|line| line.starts_with("uwsgi_"));
        series.map(|line| line.split(['{', ' ']).next().unwrap().to_owned()).collect()
    };
    let known = EXPECTED.iter().map(|(series, ..)| *series).collect::<Vec<_>>().join("\n");
    assert_eq!(names(&text), names(&known), "there is a name that the exporter does not have");
    assert!(!text.contains(r#"worker_id="0""#));
}

#[test]
fn threads_are_told_of_only_when_asked_for_and_names_are_the_same_in_openmetrics() {
    let usual = text(false, Format::Text);
    assert!(!usual.contains("uwsgi_worker_core_") && usual.contains("uwsgi_worker_cores{"), "{usual}");
    let open = text(false, Format::OpenMetrics);
    for line in [
        "# TYPE uwsgi_worker_requests counter",
        "# TYPE uwsgi_cache_hits unknown",
        r#"uwsgi_cache_hits{stats_uri="u",name="cache_1"} 56614"#,
    ] {
        assert!(open.lines().any(|known| known == line), "no {line} in\n{open}");
    }
}
