//! The text for Prometheus, line by line.

use rwsgi_stats::{Cache, Generation, Limits, Metric, Responses, Route, Snapshot, Spooler, Worker, latency};

use super::{Format, Options, render};

fn text(snapshot: &Snapshot) -> String {
    in_format(snapshot, Format::Text)
}

fn in_format(snapshot: &Snapshot, format: Format) -> String {
    String::from_utf8(render(snapshot, format, &Options::default())).unwrap()
}

#[test]
fn every_figure_has_its_line() {
    let mut counts = vec![0; latency::BUCKETS];
    counts[latency::index_of(2_000)] = 3;
    counts[latency::index_of(90_000_000)] = 1;
    let worker = Worker {
        id: 2,
        pid: 9,
        requests: 4,
        busy_time: Some(1_500_000),
        responses: Some(Responses { success: 3, server_error: 1, ..Responses::default() }),
        recycled: Some(rwsgi_stats::Recycled::default()),
        ..Worker::default()
    };
    let snapshot = Snapshot {
        version: "1.2".into(),
        workers: vec![worker],
        latency: Some(latency::encode_counts(&counts)),
        ..Snapshot::default()
    };
    let text = text(&snapshot);
    for line in [
        "rwsgi_server_info{version=\"1.2\",python=\"\",hostname=\"\"} 1",
        "rwsgi_worker_requests_total{worker=\"2\"} 4",
        "rwsgi_worker_busy_seconds_total{worker=\"2\"} 1.5",
        "rwsgi_worker_responses_total{worker=\"2\",class=\"5xx\"} 1",
        "rwsgi_worker_recycled_total{worker=\"2\",reason=\"crash\"} 0",
        "rwsgi_request_duration_seconds_bucket{le=\"0.001\"} 0",
        "rwsgi_request_duration_seconds_bucket{le=\"0.0025\"} 3",
        "rwsgi_request_duration_seconds_bucket{le=\"60.0\"} 3",
        "rwsgi_request_duration_seconds_bucket{le=\"+Inf\"} 4",
        "rwsgi_request_duration_seconds_count 4",
        "rwsgi_queue_depth 0",
        "# TYPE rwsgi_worker_requests_total counter",
        "# TYPE rwsgi_server_info gauge",
    ] {
        assert!(text.lines().any(|known| known == line), "no {line} in\n{text}");
    }
}

#[test]
fn caches_and_metrics_have_their_lines() {
    let cache = Cache { name: "c".into(), items: 3, hits: 7, ..Cache::default() };
    let metric = Metric { value: -5, ..Metric::default() };
    let snapshot =
        Snapshot { caches: vec![cache], metrics: [("sold".to_owned(), metric)].into(), ..Snapshot::default() };
    let text = text(&snapshot);
    for line in [
        "rwsgi_cache_items{cache=\"c\"} 3\n",
        "rwsgi_cache_hits_total{cache=\"c\"} 7\n",
        "rwsgi_application_metric{name=\"sold\"} -5\n",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
}

#[test]
fn spoolers_of_one_directory_tell_of_it_once() {
    let mut counts = vec![0; latency::BUCKETS];
    counts[latency::index_of(2_000)] = 3;
    let spooler = |done| Spooler {
        dir: "/srv/jobs".into(),
        done: Some(done),
        queue: Some(9),
        oldest_age: Some(1_500_000),
        run_time: Some(latency::encode_counts(&counts)),
        ..Spooler::default()
    };
    let snapshot = Snapshot { spoolers: vec![spooler(5), spooler(6)], ..Snapshot::default() };
    let text = text(&snapshot);
    for line in [
        "rwsgi_spooler_jobs_done_total{spooler=\"1\",dir=\"/srv/jobs\"} 5",
        "rwsgi_spooler_jobs_done_total{spooler=\"2\",dir=\"/srv/jobs\"} 6",
        "rwsgi_spooler_up{spooler=\"1\",dir=\"/srv/jobs\"} 0",
        "rwsgi_spooler_queue{dir=\"/srv/jobs\"} 9",
        "rwsgi_spooler_oldest_age_seconds{dir=\"/srv/jobs\"} 1.5",
        "rwsgi_spooler_run_duration_seconds_count 6",
    ] {
        assert_eq!(text.lines().filter(|known| *known == line).count(), 1, "{line} in\n{text}");
    }
}

#[test]
fn histograms_that_cannot_be_added_up_break_nothing() {
    let full = Some(latency::encode_counts(&[0, u64::MAX, u64::MAX]));
    let spooler = Spooler { run_time: full.clone(), ..Spooler::default() };
    let snapshot = Snapshot {
        spoolers: vec![spooler.clone(), spooler],
        latency: Some(latency::encode_counts(&[u64::MAX; 9])),
        ..Snapshot::default()
    };
    let text = text(&snapshot);
    assert!(!text.contains("_duration_seconds"), "{text}");
    assert!(text.contains("rwsgi_spooler_up"), "{text}");
}

#[test]
fn routes_have_their_lines_and_their_names_are_escaped() {
    let mut counts = vec![0; latency::BUCKETS];
    counts[latency::index_of(7_000)] = 2;
    let route = Route {
        route: "/a\"b\\c\nd".into(),
        requests: 2,
        busy_time: 14_000,
        responses: Responses { success: 2, ..Responses::default() },
        latency: latency::encode_counts(&counts),
        ..Route::default()
    };
    let text = text(&Snapshot { routes: Some(vec![route]), ..Snapshot::default() });
    for line in [
        r#"rwsgi_route_requests_total{route="/a\"b\\c\nd"} 2"#,
        r#"rwsgi_route_busy_seconds_total{route="/a\"b\\c\nd"} 0.014"#,
        r#"rwsgi_route_responses_total{route="/a\"b\\c\nd",class="2xx"} 2"#,
        r#"rwsgi_route_duration_seconds_count{route="/a\"b\\c\nd"} 2"#,
        r#"rwsgi_route_duration_seconds_bucket{route="/a\"b\\c\nd",le="0.025"} 2"#,
        r#"rwsgi_route_duration_seconds_bucket{route="/a\"b\\c\nd",le="0.005"} 0"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    assert!(!text.contains(r#"class="5xx""#), "{text}");
}

#[test]
fn the_text_formats_differ_as_their_specifications_do() {
    let worker = Worker { id: 1, tx: 5, running_time: 2_000_000, ..Worker::default() };
    let snapshot = Snapshot { version: "1".into(), workers: vec![worker], ..Snapshot::default() };
    let open = in_format(&snapshot, Format::OpenMetrics);
    for line in [
        "# TYPE rwsgi_server info",
        "rwsgi_server_info{version=\"1\",python=\"\",hostname=\"\"} 1",
        "# TYPE rwsgi_worker_sent_bytes counter",
        "# UNIT rwsgi_worker_sent_bytes bytes",
        "rwsgi_worker_sent_bytes_total{worker=\"1\"} 5",
        "rwsgi_worker_busy_seconds_total{worker=\"1\"} 2",
    ] {
        assert!(open.lines().any(|known| known == line), "no {line} in\n{open}");
    }
    assert!(open.ends_with("\n# EOF\n"));
    let plain = text(&snapshot);
    assert!(!plain.contains("# EOF") && !plain.contains("# UNIT"), "{plain}");
    let samples =
        |text: &str| text.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(samples(&open), samples(&plain), "the series are the same in both");
}

#[test]
fn what_uwsgi_does_not_send_has_no_sample() {
    for name in ["four-workers-two-threads", "busy-cheap", "caches-crons-metrics", "emperor", "spoolers"] {
        let path = format!("{}/../tests/fixtures/uwsgi-{name}.json", env!("CARGO_MANIFEST_DIR"));
        let snapshot: Snapshot = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let text = text(&snapshot);
        for absent in [
            "rwsgi_start_time",
            "rwsgi_generation",
            "_duration_seconds",
            "cpu_seconds",
            "gil_wait",
            "responses_total",
            "recycled_total",
            "proportional",
            "unique",
            "queue_capacity",
            "queue_waiting",
            "temp_files",
            "slow_clients",
            "cgroup",
            "ready",
            "reloads",
            "gc_",
            "jobs_done",
            "worker=\"0\"",
        ] {
            assert!(!text.contains(absent), "{name}: {absent}\n{text}");
        }
        assert_eq!(text.contains("rwsgi_queue_depth"), name != "emperor", "{name}\n{text}");
        let mut series: Vec<_> =
            text.lines().filter_map(|line| line.rsplit_once(' ')).map(|(series, _)| series).collect();
        let all = series.len();
        series.sort_unstable();
        series.dedup();
        assert_eq!(series.len(), all, "{name}: a series is there twice\n{text}");
    }
}

#[test]
fn it_says_when_the_generation_that_serves_was_loaded_and_what_replaces_workers() {
    let generation = |generation, started_at| Generation { generation, started_at, ..Generation::default() };
    let of = |reload_on_rss| Snapshot {
        generation: Some(2),
        generations: Some(vec![generation(3, 3_000_000), generation(2, 2_500_000), generation(1, 1_000_000)]),
        limits: Some(Limits { reload_on_rss, ..Limits::default() }),
        ..Snapshot::default()
    };
    let limited = text(&of(9));
    assert!(limited.contains("\nrwsgi_generation_start_time_seconds 2.5\n"), "{limited}");
    assert!(limited.contains("\nrwsgi_reload_on_rss_bytes 9\n"), "{limited}");
    assert!(!text(&of(0)).contains("rwsgi_reload_on_rss_bytes"));
    assert!(!text(&Snapshot::default()).contains("rwsgi_generation_start_time_seconds"));
}
