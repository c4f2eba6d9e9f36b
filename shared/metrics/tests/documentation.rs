//! The table of names in `docs/prometheus.md` is what the code writes of a document that has everything.
//!
//! `RWSGI_WRITE_DOCS=1 cargo test -p rwsgi-metrics --test documentation` writes it instead of comparing it.

#![allow(clippy::unwrap_used, reason = "what is missing here fails the test")]

use std::fmt::Write;
use std::path::Path;

use rwsgi_metrics::{Compat, Family, Kind, Options, Scrapes, families};
use rwsgi_stats::{
    App, Cache, Cgroup, Core, GarbageCollections, Generation, Limits, Metric, Phases, Pressure, Queue, Recycled,
    Reloads, Responses, Route, Snapshot, Socket, Spooler, TempFiles, Worker, latency,
};

/// A document that has a sample of every family.
fn full() -> Snapshot {
    let durations = latency::encode_counts(&[0, 1]);
    let worker = Worker {
        id: 1,
        pid: 1,
        rss: 1,
        vsz: 1,
        pss: Some(1),
        uss: Some(1),
        last_spawn: 1,
        apps: vec![App::default()],
        cores: vec![Core::default()],
        cpu_time: Some(1),
        gil_wait: Some(1),
        responses: Some(Responses::default()),
        recycled: Some(Recycled::default()),
        gc: Some(GarbageCollections::default()),
        ..Worker::default()
    };
    let route = Route {
        latency: durations.clone(),
        responses: Responses { success: 1, ..Responses::default() },
        ..Route::default()
    };
    let spooler = Spooler {
        queue: Some(1),
        oldest_age: Some(1),
        done: Some(1),
        retried: Some(1),
        failed: Some(1),
        run_time: Some(durations.clone()),
        ..Spooler::default()
    };
    let cgroup =
        Cgroup { memory_limit: Some(1), cpus: Some(1.0), cpu_pressure: Some(Pressure::default()), ..Cgroup::default() };
    let phases = Phases {
        queue: durations.clone(),
        body: durations.clone(),
        gil: durations.clone(),
        application: durations.clone(),
        write: durations.clone(),
    };
    Snapshot {
        started_at: Some(1),
        generation: Some(1),
        generations: Some(vec![Generation { generation: 1, ..Generation::default() }]),
        limits: Some(Limits { reload_on_rss: 1, ..Limits::default() }),
        ready: Some(true),
        draining: Some(false),
        reloads: Some(Reloads::default()),
        latency: Some(durations.clone()),
        phases: Some(phases),
        queue: Some(Queue { waiting: durations, ..Queue::default() }),
        temp_files: Some(TempFiles::default()),
        slow_clients: Some(0),
        cgroup: Some(cgroup),
        workers: vec![worker],
        sockets: vec![Socket::default()],
        caches: vec![Cache::default()],
        metrics: [("name".to_owned(), Metric::default())].into(),
        spoolers: vec![spooler],
        routes: Some(vec![route]),
        ..Snapshot::default()
    }
}

#[test]
fn names_and_help_keep_the_formats_rules() {
    let snapshot = full();
    let compat = rwsgi_metrics::Compat { stats_uri: "u", cores: true, scrapes: rwsgi_metrics::Scrapes::default() };
    let families = families(&snapshot, &Options { no_routes: false, compat: Some(compat) });
    for family in &families {
        let name = family.name;
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
        assert!(!family.help.is_empty() && !family.help.contains(['\n', '\\', '"']), "{name}: {}", family.help);
        if name.starts_with("rwsgi_") {
            assert_eq!(family.kind == rwsgi_metrics::Kind::Counter, name.ends_with("_total"), "{name}");
            assert!(!["_count", "_sum", "_bucket"].iter().any(|suffix| name.ends_with(suffix)), "{name}");
        }
    }
    let mut names: Vec<_> = families.iter().map(Family::base_name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), families.len(), "two families have one name");
}

/// The table of families that `belongs`.
fn table(families: &[Family<'_>], belongs: impl Fn(&Family<'_>) -> bool) -> String {
    let mut table = "| name | type | labels | what it is |\n| --- | --- | --- | --- |\n".to_owned();
    for family in families.iter().filter(|family| belongs(family)) {
        let kind = match family.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Info => "info",
            Kind::Histogram => "histogram",
            Kind::Summary => "summary",
        };
        let labels: Vec<_> = family.labels.iter().map(|label| format!("`{label}`")).collect();
        let _ = writeln!(table, "| `{}` | {kind} | {} | {} |", family.name, labels.join(" "), family.help);
    }
    table
}

#[test]
fn the_tables_in_docs_are_current() {
    let snapshot = full();
    let compat = Compat { stats_uri: "u", cores: true, scrapes: Scrapes::default() };
    let families = families(&snapshot, &Options { no_routes: false, compat: Some(compat) });
    let is_ours = |family: &Family<'_>| family.name.starts_with("rwsgi_");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/prometheus.md");
    let mut page = std::fs::read_to_string(&path).unwrap();
    for (mark, table) in
        [("names", table(&families, is_ours)), ("names of uwsgi_exporter", table(&families, |family| !is_ours(family)))]
    {
        let (begin, end) = (format!("<!-- {mark} -->\n"), format!("<!-- /{mark} -->"));
        let (before, rest) = page.split_once(&begin).unwrap_or_else(|| panic!("no {begin} in docs/prometheus.md"));
        let (written, after) = rest.split_once(&end).unwrap();
        if std::env::var_os("RWSGI_WRITE_DOCS").is_some() {
            page = format!("{before}{begin}{table}{end}{after}");
            std::fs::write(&path, &page).unwrap();
        } else {
            assert!(
                written == table,
                "docs/prometheus.md is not what the code writes: run \
                 RWSGI_WRITE_DOCS=1 cargo test -p rwsgi-metrics --test documentation\n{table}"
            );
        }
    }
}
