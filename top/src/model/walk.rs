//! The walk through a sample: what of it the history keeps, in which order. One walk serves both directions.

use rwsgi_stats::{
    Blacklisted, Core, Cron, Daemon, GarbageCollections, LastException, Limits, Queue, Recycled, RequestInfo,
    Responses, Route, SlowestRequest, Snapshot, Socket, Spooler, SpoolerJob, Vassal, Worker,
};

use super::{Counts, Finding, Percentiles, PhaseCounts, Rates, RouteWindow, Sample, Totals};
use crate::source::{Monotonic, ServerMicros};

/// Goes through a value's numbers in a fixed order: a writer reads them out, a reader puts them in.
pub(super) trait Walk {
    fn number(&mut self, value: &mut u64);
    fn text(&mut self, value: &mut String);

    fn list<T: Default>(&mut self, values: &mut Vec<T>, mut each: impl FnMut(&mut Self, &mut T)) {
        let mut length = values.len() as u64;
        self.number(&mut length);
        values.resize_with(length as usize, T::default);
        for value in values {
            each(self, value);
        }
    }

    fn option<T: Default>(&mut self, value: &mut Option<T>, each: impl FnOnce(&mut Self, &mut T)) {
        let mut known = u64::from(value.is_some());
        self.number(&mut known);
        if known == 0 {
            *value = None;
        } else {
            each(self, value.get_or_insert_default());
        }
    }

    fn signed(&mut self, value: &mut i32) {
        let mut wide = u64::from(*value as u32);
        self.number(&mut wide);
        *value = wide as u32 as i32;
    }

    fn long(&mut self, value: &mut i64) {
        let mut wide = *value as u64;
        self.number(&mut wide);
        *value = wide as i64;
    }

    fn small(&mut self, value: &mut u32) {
        let mut wide = u64::from(*value);
        self.number(&mut wide);
        *value = wide as u32;
    }

    fn flag(&mut self, value: &mut u8) {
        let mut wide = u64::from(*value);
        self.number(&mut wide);
        *value = wide as u8;
    }

    /// Rates and fractions, to a ten thousandth.
    fn rate(&mut self, value: &mut f64) {
        let mut scaled = (*value * 1e4).round() as u64;
        self.number(&mut scaled);
        *value = scaled as f64 / 1e4;
    }
}

/// Goes through all that is kept of a sample.
pub(super) fn sample(walk: &mut impl Walk, sample: &mut Sample) {
    let (mut at, mut clock) = (sample.at.as_micros(), sample.clock.0);
    walk.number(&mut at);
    walk.number(&mut clock);
    (sample.at, sample.clock) = (Monotonic::from_micros(at), ServerMicros(clock));
    walk.option(&mut sample.window, Walk::rate);
    snapshot(walk, &mut sample.snapshot);
    walk.list(&mut sample.workers, rates);
    walk.list(&mut sample.routes, route_window);
    walk.list(&mut sample.findings, finding);
    let totals = &mut sample.totals;
    for rate in
        [&mut totals.rps, &mut totals.exception_rate, &mut totals.tx_rate, &mut totals.utilization, &mut totals.cpu]
    {
        walk.option(rate, Walk::rate);
    }
    for latency in [&mut totals.latency, &mut totals.waiting] {
        walk.option(latency, counts);
    }
    walk.option(&mut totals.phases, |walk, PhaseCounts(phases)| {
        phases.iter_mut().for_each(|phase| counts(walk, phase));
    });
    // What the workers add up to is not kept twice; several servers together have no workers of their own.
    if sample.snapshot.workers.is_empty() {
        counters(walk, totals);
    }
}

fn counters(walk: &mut impl Walk, totals: &mut Totals) {
    let Totals { statuses, cores, requests, exceptions, harakiri, respawns, tx, rss, pss, .. } = totals;
    statuses.iter_mut().for_each(|count| walk.number(count));
    [cores, requests, exceptions, harakiri, respawns, tx, rss].into_iter().for_each(|count| walk.number(count));
    walk.option(pss, Walk::number);
    for count in [&mut totals.queue, &mut totals.queue_capacity, &mut totals.queue_errors] {
        walk.number(count);
    }
}

fn counts(walk: &mut impl Walk, counts: &mut Counts) {
    walk.list(counts.pairs_mut(), |walk, (index, count)| {
        let mut wide = u64::from(*index);
        walk.number(&mut wide);
        *index = wide as u16;
        walk.number(count);
    });
}

fn rates(walk: &mut impl Walk, rates: &mut Rates) {
    for rate in [&mut rates.rps, &mut rates.tx, &mut rates.utilization, &mut rates.cpu, &mut rates.gil] {
        walk.option(rate, Walk::rate);
    }
    walk.option(&mut rates.latency, |walk, Percentiles { p50, p95, p99, max }| {
        [p50, p95, p99, max].into_iter().for_each(|value| walk.number(value));
    });
    walk.number(&mut rates.respawned);
    walk.list(&mut rates.cores, Walk::rate);
}

fn finding(walk: &mut impl Walk, finding: &mut Finding) {
    let Finding { rule, since, sentence, advice, evidence } = finding;
    let (mut place, mut at) = (*rule as u64, since.as_micros());
    walk.number(&mut place);
    walk.number(&mut at);
    (*rule, *since) = (place as usize, Monotonic::from_micros(at));
    walk.text(sentence);
    walk.text(advice);
    walk.list(evidence, Walk::text);
}

fn route_window(walk: &mut impl Walk, window: &mut RouteWindow) {
    let RouteWindow { requests, busy, errors, exceptions, tx, gil_wait, latency, counts: _ } = window;
    [requests, busy, errors, exceptions, tx, gil_wait].into_iter().for_each(|count| walk.number(count));
    walk.option(latency, |walk, Percentiles { p50, p95, p99, max }| {
        [p50, p95, p99, max].into_iter().for_each(|value| walk.number(value));
    });
}

// Every type is taken apart whole below, so that what is not kept is named, and a new key is a decision.

fn snapshot(walk: &mut impl Walk, snapshot: &mut Snapshot) {
    let Snapshot {
        version,
        listen_queue,
        listen_queue_errors,
        signal_queue,
        load,
        pid,
        uid,
        gid,
        cwd,
        sockets,
        workers,
        daemons,
        crons,
        spoolers,
        vassals,
        emperor,
        emperor_tyrant,
        throttle_level,
        blacklist,
        server,
        hostname,
        started_at,
        generation,
        python,
        queue,
        limits,
        routes,
        // Digested before: they are in the totals, and beside the document.
        latency: _,
        now: _,
        phases: _,
        slow: _,
        // Nothing shows them.
        locks: _,
        caches: _,
        metrics: _,
        timers: _,
        temp_files: _,
        slow_clients: _,
        schema: _,
        control: _,
        // Of the present alone: their histograms in every sample would be most of the history.
        generations: _,
        canary: _,
        ready: _,
        draining: _,
        reloads: _,
        cgroup: _,
        otlp: _,
    } = snapshot;
    for text in [version, cwd] {
        walk.text(text);
    }
    for text in [server, hostname, python] {
        walk.option(text, Walk::text);
    }
    walk.signed(pid);
    walk.small(uid);
    walk.small(gid);
    for number in [listen_queue, listen_queue_errors, signal_queue, load] {
        walk.number(number);
    }
    walk.option(started_at, Walk::number);
    walk.option(generation, Walk::small);
    walk.option(queue, |walk, Queue { depth, capacity, waiting: _, rejected }| {
        [depth, capacity, rejected].into_iter().for_each(|value| walk.number(value));
    });
    walk.option(limits, |walk, Limits { harakiri, reload_on_rss, reload_on_as, max_requests, slow_request }| {
        [harakiri, reload_on_rss, reload_on_as, max_requests, slow_request]
            .into_iter()
            .for_each(|value| walk.number(value));
    });
    walk.list(sockets, |walk, Socket { name, proto, queue, max_queue, shared: _, can_offload: _ }| {
        walk.text(name);
        walk.text(proto);
        walk.number(queue);
        walk.number(max_queue);
    });
    walk.list(workers, worker);
    walk.option(routes, |walk, routes| walk.list(routes, route));
    walk.list(daemons, |walk, Daemon { cmd, pid, respawns, status, started_at }| {
        walk.text(cmd);
        walk.signed(pid);
        walk.number(respawns);
        walk.option(status, Walk::text);
        walk.option(started_at, Walk::number);
    });
    walk.list(crons, cron);
    walk.list(spoolers, spooler);
    walk.option(emperor, |walk, monitors| walk.list(monitors, Walk::text));
    walk.option(emperor_tyrant, Walk::long);
    walk.option(throttle_level, Walk::number);
    walk.option(vassals, |walk, vassals| walk.list(vassals, vassal));
    walk.option(blacklist, |walk, blacklist| walk.list(blacklist, blacklisted));
}

fn blacklisted(walk: &mut impl Walk, item: &mut Blacklisted) {
    let Blacklisted { id, throttle_level, attempt, first_attempt, last_attempt: _ } = item;
    walk.text(id);
    [throttle_level, attempt, first_attempt].into_iter().for_each(|value| walk.number(value));
}

fn cron(walk: &mut impl Walk, cron: &mut Cron) {
    let Cron { minute, hour, day, month, week, command, unique: _, pid, started_at, raised, legion: _ } = cron;
    [minute, hour, day, month, week, pid].into_iter().for_each(|number| walk.signed(number));
    walk.text(command);
    walk.number(started_at);
    walk.option(raised, Walk::number);
}

fn vassal(walk: &mut impl Walk, vassal: &mut Vassal) {
    let Vassal {
        id,
        on_demand,
        pid,
        born,
        last_run,
        last_mod: _,
        first_run: _,
        zerg: _,
        uid: _,
        gid: _,
        monitor: _,
        last_heartbeat: _,
        last_ready: _,
        last_accepting: _,
        last_loyal: _,
        respawns,
        ready,
        accepting,
        loyal,
        cursed,
    } = vassal;
    walk.text(id);
    walk.text(on_demand);
    walk.signed(pid);
    [born, last_run, respawns, cursed].into_iter().for_each(|value| walk.number(value));
    [ready, accepting, loyal].into_iter().for_each(|value| walk.flag(value));
}

fn spooler(walk: &mut impl Walk, spooler: &mut Spooler) {
    let Spooler { dir, pid, tasks, respawns, running, queue, oldest_age, done, retried, failed, run_time, job } =
        spooler;
    walk.text(dir);
    walk.signed(pid);
    walk.number(tasks);
    walk.number(respawns);
    walk.flag(running);
    for number in [queue, oldest_age, done, retried, failed] {
        walk.option(number, Walk::number);
    }
    walk.option(run_time, Walk::text);
    walk.option(job, |walk, SpoolerJob { name, started, elapsed }| {
        walk.text(name);
        walk.number(started);
        walk.number(elapsed);
    });
}

fn worker(walk: &mut impl Walk, worker: &mut Worker) {
    let Worker {
        id,
        pid,
        accepting,
        requests,
        delta_requests,
        exceptions,
        harakiri_count,
        signals,
        signal_queue,
        status,
        rss,
        vsz,
        running_time,
        last_spawn,
        respawn_count,
        tx,
        avg_rt,
        cores,
        generation,
        pss,
        uss,
        rss_peak,
        unresponsive_for,
        responses,
        recycled,
        last_exception,
        gc,
        // What they say of the window is in the rates.
        busy_time: _,
        cpu_time: _,
        gil_wait: _,
        latency: _,
        // Nothing shows them.
        apps: _,
    } = worker;
    walk.small(id);
    walk.signed(pid);
    walk.flag(accepting);
    walk.text(status);
    for number in [
        requests,
        delta_requests,
        exceptions,
        harakiri_count,
        signals,
        signal_queue,
        rss,
        vsz,
        running_time,
        last_spawn,
        respawn_count,
        tx,
        avg_rt,
    ] {
        walk.number(number);
    }
    walk.option(generation, Walk::small);
    for number in [unresponsive_for, pss, uss, rss_peak] {
        walk.option(number, Walk::number);
    }
    walk.option(responses, self::responses);
    walk.option(recycled, |walk, recycled| {
        let Recycled { max_requests, lifetime, rss, address_space, harakiri, crash, reload, idle } = recycled;
        [max_requests, lifetime, rss, address_space, harakiri, crash, reload, idle]
            .into_iter()
            .for_each(|v| walk.number(v));
    });
    walk.option(last_exception, self::last_exception);
    walk.option(gc, |walk, GarbageCollections { collections, time, longest, collected, by_generation }| {
        [collections, time, longest, collected].into_iter().chain(by_generation).for_each(|value| walk.number(value));
    });
    walk.list(cores, core);
}

fn responses(walk: &mut impl Walk, responses: &mut Responses) {
    let Responses { informational, success, redirect, client_error, server_error } = responses;
    [informational, success, redirect, client_error, server_error].into_iter().for_each(|value| walk.number(value));
}

fn last_exception(walk: &mut impl Walk, exception: &mut LastException) {
    let LastException { kind, message, location, traceback, when, request } = exception;
    [kind, message, location, request].into_iter().for_each(|text| walk.text(text));
    walk.list(traceback, Walk::text);
    walk.number(when);
}

fn route(walk: &mut impl Walk, route: &mut Route) {
    let Route {
        route,
        named,
        requests,
        exceptions,
        tx,
        responses,
        memory_samples,
        memory_growth,
        last_exception,
        slowest,
        // What they say of the window is beside the document.
        busy_time: _,
        latency: _,
        gil_wait: _,
    } = route;
    walk.text(route);
    let mut flag = u8::from(*named);
    walk.flag(&mut flag);
    *named = flag != 0;
    [requests, exceptions, tx, memory_samples].into_iter().for_each(|count| walk.number(count));
    walk.long(memory_growth);
    self::responses(walk, responses);
    walk.option(last_exception, self::last_exception);
    walk.option(slowest, |walk, SlowestRequest { when, elapsed, request }| {
        walk.number(when);
        walk.number(elapsed);
        walk.text(request);
    });
}

fn core(walk: &mut impl Walk, core: &mut Core) {
    let Core {
        id,
        requests,
        in_request,
        req_info,
        write_errors,
        read_errors,
        static_requests: _,
        routed_requests: _,
        offloaded_requests: _,
        // Digested before: what is shown of them is in the request.
        vars: _,
    } = core;
    walk.small(id);
    walk.number(requests);
    walk.number(write_errors);
    walk.number(read_errors);
    walk.flag(in_request);
    if *in_request != 0 {
        request(walk, req_info);
    }
}

fn request(walk: &mut impl Walk, request: &mut RequestInfo) {
    let RequestInfo { request_start, method, uri, remote_addr, protocol, started, elapsed, route } = request;
    [method, uri, remote_addr, protocol, route].into_iter().for_each(|text| walk.option(text, Walk::text));
    [request_start, started, elapsed].into_iter().for_each(|number| walk.option(number, Walk::number));
}
