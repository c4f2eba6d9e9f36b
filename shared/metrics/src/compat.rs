//! The names of timonwong/uwsgi_exporter 1.3, with its types and labels, for dashboards and rules that were made for it.
//!
//! As it does, workers with number 0 and a second socket of the same name and protocol are passed over. What it says of
//! itself as a program (`go_*`, `process_*`, `uwsgi_exporter_build_info`) is not here.

use rwsgi_stats::{App, Cache, Core, Snapshot, Socket, Worker};

use crate::model::{Family, Kind, Label, Value};
use crate::workers::numbered;

/// The names of uwsgi_exporter beside ours.
#[derive(Clone, Copy, Debug)]
pub struct Compat<'a> {
    /// The label `stats_uri` of every sample: where the stats are.
    pub stats_uri: &'a str,
    /// Samples of single threads, as its `--collect.cores` adds them.
    pub cores: bool,
    /// What the exporter says of its own work.
    pub scrapes: Scrapes,
}

/// How often metrics were asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scrapes {
    /// How often, this time included.
    pub count: u64,
    /// How often there was no document.
    pub errors: u64,
    /// How long documents took, all together, seconds.
    pub seconds: f64,
}

type Figure<T> = (&'static str, &'static str, Kind, fn(&T) -> Value);

const COUNTER: Kind = Kind::Counter;
const GAUGE: Kind = Kind::Gauge;

#[rustfmt::skip]
const SERVER: &[Figure<Snapshot>] = &[
    ("uwsgi_listen_queue_length", "Length of listen queue.", GAUGE, |s| Value::Integer(s.listen_queue)),
    ("uwsgi_listen_queue_errors", "Number of listen queue errors.", GAUGE, |s| Value::Integer(s.listen_queue_errors)),
    ("uwsgi_signal_queue_length", "Length of signal queue.", GAUGE, |s| Value::Integer(s.signal_queue)),
    ("uwsgi_workers", "Number of workers.", GAUGE, |s| Value::Integer(numbered(s).count() as u64)),
];

#[rustfmt::skip]
const SOCKETS: &[Figure<Socket>] = &[
    ("uwsgi_socket_queue_length", "Length of socket queue.", GAUGE, |s| Value::Integer(s.queue)),
    ("uwsgi_socket_max_queue_length", "Max length of socket queue.", GAUGE, |s| Value::Integer(s.max_queue)),
    ("uwsgi_socket_shared", "Is shared socket?", GAUGE, |s| Value::Signed(s.shared)),
    ("uwsgi_socket_can_offload", "Can socket offload?", GAUGE, |s| Value::Signed(s.can_offload)),
];

#[rustfmt::skip]
const WORKERS: &[Figure<Worker>] = &[
    ("uwsgi_worker_accepting", "Is this worker accepting requests?", GAUGE, |w| Value::Integer(w.accepting.into())),
    ("uwsgi_worker_delta_requests", "Number of delta requests", GAUGE, |w| Value::Integer(w.delta_requests)),
    ("uwsgi_worker_signal_queue_length", "Length of signal queue.", GAUGE, |w| Value::Integer(w.signal_queue)),
    ("uwsgi_worker_rss_bytes", "Worker RSS bytes.", GAUGE, |w| Value::Integer(w.rss)),
    ("uwsgi_worker_vsz_bytes", "Worker VSZ bytes.", GAUGE, |w| Value::Integer(w.vsz)),
    ("uwsgi_worker_running_time_seconds", "Worker running time in seconds.", GAUGE, |w| Value::seconds(w.running_time)),
    ("uwsgi_worker_last_spawn_time_seconds", "Last spawn time in seconds since epoch.", GAUGE, |w| Value::Integer(w.last_spawn)),
    ("uwsgi_worker_average_response_time_seconds", "Average response time in seconds.", GAUGE, |w| Value::seconds(w.avg_rt)),
    ("uwsgi_worker_apps", "Number of apps.", GAUGE, |w| Value::Integer(w.apps.len() as u64)),
    ("uwsgi_worker_cores", "Number of cores.", GAUGE, |w| Value::Integer(w.cores.len() as u64)),
    ("uwsgi_worker_requests_total", "Total number of requests.", COUNTER, |w| Value::Integer(w.requests)),
    ("uwsgi_worker_exceptions_total", "Total number of exceptions.", COUNTER, |w| Value::Integer(w.exceptions)),
    ("uwsgi_worker_harakiri_count_total", "Total number of harakiri count.", COUNTER, |w| Value::Integer(w.harakiri_count)),
    ("uwsgi_worker_signals_total", "Total number of signals.", COUNTER, |w| Value::Integer(w.signals)),
    ("uwsgi_worker_respawn_count_total", "Total number of respawn count.", COUNTER, |w| Value::Integer(w.respawn_count)),
    ("uwsgi_worker_transmitted_bytes_total", "Worker transmitted bytes.", COUNTER, |w| Value::Integer(w.tx)),
    ("uwsgi_worker_busy", "Is core in busy?", GAUGE, |w| Value::flag(w.status == "busy")),
    ("uwsgi_worker_idle", "Is core in idle?", GAUGE, |w| Value::flag(w.status == "idle")),
    ("uwsgi_worker_cheap", "Is core in cheap mode?", GAUGE, |w| Value::flag(w.status == "cheap")),
];

#[rustfmt::skip]
const APPS: &[Figure<App>] = &[
    ("uwsgi_worker_app_startup_time_seconds", "How long this app took to start.", GAUGE, |a| Value::Integer(a.startup_time)),
    ("uwsgi_worker_app_requests_total", "Total number of requests.", COUNTER, |a| Value::Integer(a.requests)),
    ("uwsgi_worker_app_exceptions_total", "Total number of exceptions.", COUNTER, |a| Value::Integer(a.exceptions)),
];

#[rustfmt::skip]
const CORES: &[Figure<Core>] = &[
    ("uwsgi_worker_core_busy", "Is core busy", GAUGE, |c| Value::Integer(c.in_request.into())),
    ("uwsgi_worker_core_requests_total", "Total number of requests.", COUNTER, |c| Value::Integer(c.requests)),
    ("uwsgi_worker_core_static_requests_total", "Total number of static requests.", COUNTER, |c| Value::Integer(c.static_requests)),
    ("uwsgi_worker_core_routed_requests_total", "Total number of routed requests.", COUNTER, |c| Value::Integer(c.routed_requests)),
    ("uwsgi_worker_core_offloaded_requests_total", "Total number of offloaded requests.", COUNTER, |c| Value::Integer(c.offloaded_requests)),
    ("uwsgi_worker_core_write_errors_total", "Total number of write errors.", COUNTER, |c| Value::Integer(c.write_errors)),
    ("uwsgi_worker_core_read_errors_total", "Total number of read errors.", COUNTER, |c| Value::Integer(c.read_errors)),
];

// Without `_total`, though it counts: so it is there.
#[rustfmt::skip]
const CACHES: &[Figure<Cache>] = &[
    ("uwsgi_cache_hits", "Total number of hits.", COUNTER, |c| Value::Integer(c.hits)),
    ("uwsgi_cache_misses", "Total number of misses.", COUNTER, |c| Value::Integer(c.miss)),
    ("uwsgi_cache_full", "Total Number of times cache full was hit.", COUNTER, |c| Value::Integer(c.full)),
    ("uwsgi_cache_items", "Items in cache.", GAUGE, |c| Value::Integer(c.items)),
    ("uwsgi_cache_max_items", "Max items for this cache.", GAUGE, |c| Value::Integer(c.max_items)),
];

#[rustfmt::skip]
const EXPORTER: &[Figure<Scrapes>] = &[
    ("uwsgi_up", "Whether the uWSGI server is up.", GAUGE, |_| Value::Integer(1)),
    ("uwsgi_exporter_scrapes_total", "Total number of times uWSGI was scraped for metrics.", COUNTER, |s| Value::Integer(s.count)),
    ("uwsgi_exporter_scrape_errors_total", "Total number of times an error occurred scraping a uWSGI.", COUNTER, |s| Value::Integer(s.errors)),
    ("uwsgi_exporter_last_scrape_error", "Whether the last scrape of metrics from uWSGI resulted in an error (1 for error, 0 for success).", GAUGE, |_| Value::Integer(0)),
    ("uwsgi_exporter_scrape_duration_seconds", "Duration of uWSGI scrape job.", Kind::Summary, |s| Value::Summary { count: s.count.saturating_sub(s.errors), sum: s.seconds }),
];

/// Adds the exporter's families.
pub(crate) fn add<'a>(families: &mut Vec<Family<'a>>, snapshot: &'a Snapshot, compat: Compat<'a>) {
    let uri = Label::Text(compat.stats_uri);
    add_group(families, SERVER, &["stats_uri"], &[([uri], snapshot)]);
    let sockets = snapshot.sockets.iter().enumerate();
    let sockets: Vec<_> = sockets
        .filter(|(at, socket)| {
            let is_same = |other: &Socket| (&other.name, &other.proto) == (&socket.name, &socket.proto);
            !snapshot.sockets[..*at].iter().any(is_same)
        })
        .map(|(_, socket)| ([uri, Label::Text(&socket.name), Label::Text(&socket.proto)], socket))
        .collect();
    add_group(families, SOCKETS, &["stats_uri", "name", "proto"], &sockets);
    let workers: Vec<_> = numbered(snapshot).map(|worker| ([uri, Label::Number(worker.id)], worker)).collect();
    add_group(families, WORKERS, &["stats_uri", "worker_id"], &workers);
    let apps = numbered(snapshot).flat_map(|worker| worker.apps.iter().map(move |app| (worker.id, app)));
    let apps: Vec<_> = apps
        .map(|(id, app)| {
            let (mountpoint, chdir) = (Label::Text(&app.mountpoint), Label::Text(&app.chdir));
            ([uri, Label::Number(id), Label::Number(app.id), mountpoint, chdir], app)
        })
        .collect();
    add_group(families, APPS, &["stats_uri", "worker_id", "app_id", "mountpoint", "chdir"], &apps);
    if compat.cores {
        let cores = numbered(snapshot).flat_map(|worker| worker.cores.iter().map(move |core| (worker.id, core)));
        let cores: Vec<_> = cores.map(|(id, core)| ([uri, Label::Number(id), Label::Number(core.id)], core)).collect();
        add_group(families, CORES, &["stats_uri", "worker_id", "core_id"], &cores);
    }
    let caches: Vec<_> = snapshot.caches.iter().map(|cache| ([uri, Label::Text(&cache.name)], cache)).collect();
    add_group(families, CACHES, &["stats_uri", "name"], &caches);
    add_group(families, EXPORTER, &[], &[([], &compat.scrapes)]);
}

/// What it says when it could not read the stats.
pub(crate) fn failed(scrapes: &Scrapes) -> Vec<Family<'static>> {
    let mut families = Vec::with_capacity(EXPORTER.len());
    add_group(&mut families, EXPORTER, &[], &[([], scrapes)]);
    for family in &mut families {
        match family.name {
            "uwsgi_up" => family.values = vec![Value::Integer(0)],
            "uwsgi_exporter_last_scrape_error" => family.values = vec![Value::Integer(1)],
            _ => {}
        }
    }
    families
}

/// Adds a family for each figure, with a sample for each thing that there is.
fn add_group<'a, T, const N: usize>(
    families: &mut Vec<Family<'a>>,
    figures: &[Figure<T>],
    labels: &'static [&'static str],
    things: &[([Label<'a>; N], &T)],
) {
    for &(name, help, kind, value) in figures {
        let mut family = Family::new(name, help, kind, labels, things.len());
        for (labels, thing) in things {
            family.push(*labels, value(thing));
        }
        families.push(family);
    }
}
