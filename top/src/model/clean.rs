//! The one place where a server's texts are made safe: whatever is kept of a document may be shown, written and quoted.
//!
//! What has texts and numbers is taken apart whole, so that a new key is a decision.

use rwsgi_stats::{
    App, Blacklisted, Core, Cron, Daemon, ErrorCount, Generation, GenerationRoute, LastException, RequestInfo, Route,
    SlowRequest, SlowestRequest, Snapshot, Socket, Spooler, SpoolerJob, TempFiles, Vassal, Worker,
};

use crate::format;

/// rwsgi keeps eight.
const MOST_GENERATIONS: usize = 32;

/// No traceback, and no list of an emperor's directories, is longer; the rest is dropped.
const LONGEST_LIST: usize = 100;
/// Routes of a document, the others' row included.
const MOST_ROUTES: usize = 201;
/// Slow requests of a document.
const MOST_SLOW: usize = 200;

/// Makes every text of a digested document a line that a terminal and a file can take. Histograms are decoded and never
/// shown.
pub(super) fn clean(snapshot: &mut Snapshot) {
    let Snapshot {
        version,
        cwd,
        sockets,
        workers,
        daemons,
        crons,
        spoolers,
        vassals,
        blacklist,
        emperor,
        server,
        hostname,
        python,
        temp_files,
        routes,
        slow,
        control,
        // Numbers.
        listen_queue: _,
        listen_queue_errors: _,
        signal_queue: _,
        load: _,
        pid: _,
        uid: _,
        gid: _,
        emperor_tyrant: _,
        throttle_level: _,
        schema: _,
        started_at: _,
        now: _,
        generation: _,
        limits: _,
        slow_clients: _,
        // Histograms.
        latency: _,
        queue: _,
        phases: _,
        // Digesting leaves nothing in them.
        locks: _,
        caches: _,
        metrics: _,
        timers: _,
        generations,
        // Numbers.
        canary: _,
        ready: _,
        draining: _,
        reloads: _,
        cgroup: _,
        otlp: _,
    } = snapshot;
    [version, cwd].into_iter().chain([server, hostname, python, control].into_iter().flatten()).for_each(line);
    for Socket { name, proto, queue: _, max_queue: _, shared: _, can_offload: _ } in sockets {
        [name, proto].into_iter().for_each(line);
    }
    workers.iter_mut().for_each(worker);
    if let Some(TempFiles { dir, bytes: _, limit: _, refused: _ }) = temp_files {
        line(dir);
    }
    if let Some(routes) = routes {
        routes.truncate(MOST_ROUTES);
        routes.iter_mut().for_each(route);
    }
    if let Some(slow) = slow {
        slow.truncate(MOST_SLOW);
        slow.iter_mut().for_each(slow_request);
    }
    for spooler in spoolers {
        let Spooler {
            dir,
            job,
            pid: _,
            tasks: _,
            respawns: _,
            running: _,
            queue: _,
            oldest_age: _,
            done: _,
            retried: _,
            failed: _,
            run_time,
        } = spooler;
        line(dir);
        // The history keeps it as a text.
        let _ =
            run_time.take_if(|text| !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte)));
        if let Some(SpoolerJob { name, started: _, elapsed: _ }) = job {
            line(name);
        }
    }
    for Daemon { cmd, status, pid: _, respawns: _, started_at: _ } in daemons {
        std::iter::once(cmd).chain(status).for_each(line);
    }
    for Cron { command, legion, .. } in crons {
        std::iter::once(command).chain(legion).for_each(line);
    }
    for Vassal { id, on_demand, monitor, .. } in vassals.iter_mut().flatten() {
        [id, on_demand, monitor].into_iter().for_each(line);
    }
    for Blacklisted { id, throttle_level: _, attempt: _, first_attempt: _, last_attempt: _ } in
        blacklist.iter_mut().flatten()
    {
        line(id);
    }
    emperor.iter_mut().for_each(lines);
    if let Some(generations) = generations {
        generations.truncate(MOST_GENERATIONS);
        generations.iter_mut().for_each(generation);
    }
}

fn generation(generation: &mut Generation) {
    let Generation {
        state,
        errors,
        routes,
        generation: _,
        started_at: _,
        workers: _,
        requests: _,
        exceptions: _,
        responses: _,
        running_time: _,
        latency: _,
        pss: _,
        pss_workers: _,
    } = generation;
    line(state);
    errors.truncate(LONGEST_LIST);
    for ErrorCount { kind, count: _ } in errors {
        line(kind);
    }
    routes.truncate(LONGEST_LIST);
    for GenerationRoute { route, requests: _, busy_time: _, latency: _ } in routes {
        line(route);
    }
}

fn worker(worker: &mut Worker) {
    line(&mut worker.status);
    for App { mountpoint, chdir, .. } in &mut worker.apps {
        [mountpoint, chdir].into_iter().for_each(line);
    }
    for Core { req_info, .. } in &mut worker.cores {
        let RequestInfo { method, uri, remote_addr, protocol, request_start: _, started: _, elapsed: _, route } =
            req_info;
        [method, uri, remote_addr, protocol, route].into_iter().flatten().for_each(line);
    }
    worker.last_exception.iter_mut().for_each(last_exception);
}

fn last_exception(exception: &mut LastException) {
    let LastException { kind, message, location, traceback, when: _, request } = exception;
    [kind, message, location, request].into_iter().for_each(line);
    lines(traceback);
}

fn route(row: &mut Route) {
    let Route {
        route,
        named: _,
        requests: _,
        busy_time: _,
        latency: _,
        responses: _,
        exceptions: _,
        tx: _,
        gil_wait: _,
        memory_samples: _,
        memory_growth: _,
        last_exception: exception,
        slowest,
    } = row;
    line(route);
    exception.iter_mut().for_each(last_exception);
    if let Some(SlowestRequest { when: _, elapsed: _, request }) = slowest {
        line(request);
    }
}

fn slow_request(record: &mut SlowRequest) {
    let SlowRequest {
        id: _,
        worker: _,
        core: _,
        pid: _,
        generation: _,
        started: _,
        elapsed: _,
        method,
        uri,
        route,
        remote_addr,
        status: _,
        outcome,
        phases: _,
        stack,
        stack_at: _,
        rss_before: _,
        rss_after: _,
        exception,
    } = record;
    [method, uri, route, remote_addr, outcome, exception].into_iter().for_each(line);
    lines(stack);
}

fn lines(texts: &mut Vec<String>) {
    texts.truncate(LONGEST_LIST);
    texts.iter_mut().for_each(line);
}

fn line(text: &mut String) {
    // Nearly all are plain, and a pool has thousands of them in each document.
    if !format::is_plain_line(text) {
        *text = format::one_line(text);
    }
}
