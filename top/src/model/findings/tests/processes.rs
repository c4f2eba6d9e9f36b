//! Recordings of processes that hang, die, are missing or grow.

use super::*;

#[test]
fn processes_that_die_again_and_again_are_told_and_a_reload_is_not() {
    let said = recorded(1..=40, 1, |second| {
        let mut document = healthy(second);
        let died = second.saturating_sub(20) / 5;
        document.workers[1].recycled = Some(Recycled { crash: died, ..Recycled::default() });
        document.workers[1].respawn_count = 1 + died;
        document
    });
    let found = only(&said, "respawn-storm");
    assert_eq!(found.evidence, ["most often worker 2: 3 times"]);
    silent(&recorded(1..=40, 1, |second| {
        let mut document = healthy(second);
        for worker in &mut document.workers {
            let reloads = (second / 10).min(3);
            worker.respawn_count = 1 + reloads;
            worker.recycled = Some(Recycled { reload: reloads, ..Recycled::default() });
        }
        document
    }));
}

#[test]
fn a_worker_that_hangs_is_told() {
    let said = recorded(1..=40, 1, |second| {
        let mut document = healthy(second);
        document.workers[2].unresponsive_for = Some(second.saturating_sub(28) * 1_000_000);
        document
    });
    assert_eq!(only(&said, "unresponsive").sentence, "worker 3 has shown no sign of life for 10.0s");
}

/// A request of this route runs from the first second on.
fn stuck_of(route: &str, second: u64) -> Snapshot {
    let mut document = healthy(second);
    let core = &mut document.workers[1].cores[0];
    core.in_request = 1;
    core.req_info.elapsed = Some(second * 1_000_000);
    core.req_info.uri = Some("/orders/7".into());
    core.req_info.route = Some(route.into());
    document
}

#[test]
fn a_stuck_thread_is_told_and_a_route_of_long_requests_is_not() {
    let stuck = |second| stuck_of("/orders/{}", second);
    let said = recorded(1..=45, 1, stuck);
    let found = only(&said, "stuck-thread");
    assert!(found.sentence.contains("99 % of `/orders/{}` take at most 20.1ms"), "{}", found.sentence);
    assert!(found.evidence[0].starts_with("worker 2 (pid 4102), core 0: GET /orders/7"), "{found:?}");
    silent(&recorded(1..=45, 1, |second| {
        let mut document = stuck(second);
        document.routes = Some(vec![route("/users/{}", second * 390, 10_000), route("/orders/{}", second, 20_000_000)]);
        document.workers.iter_mut().for_each(|worker| worker.busy_time = Some(second * 600_000));
        document
    }));
}

#[test]
fn a_stream_that_is_meant_to_last_hides_no_stuck_thread() {
    let said = recorded(1..=45, 1, |second| {
        let mut document = stuck_of("/orders/{}", second);
        let core = &mut document.workers[2].cores[0];
        (core.in_request, core.req_info.elapsed) = (1, Some(3_600_000_000 + second * 1_000_000));
        core.req_info.route = Some("/events".into());
        document
    });
    assert!(only(&said, "stuck-thread").sentence.contains("99 % of `/orders/{}`"));
}

#[test]
fn a_stuck_thread_is_told_of_a_route_that_takes_little_of_the_time() {
    let said = recorded(1..=75, 1, |second| {
        let mut document = stuck_of("/rare/{}", second);
        let routes = document.routes.as_mut().unwrap();
        routes.extend((0..20).map(|place| route(&format!("/more/{place}"), second * 10, 9_000)));
        routes.push(route("/rare/{}", second, 1_000));
        document
    });
    assert!(only(&said, "stuck-thread").sentence.contains("99 % of `/rare/{}`"));
}

#[test]
fn threads_that_all_wait_for_ever_are_told_though_their_route_never_had_requests() {
    let said = recorded(1..=60, 1, |second| {
        // From the twentieth second on nothing ends.
        let mut document = healthy(second.min(20));
        document.now = Some(START + second * 1_000_000);
        if second > 20 {
            for (place, core) in document.workers.iter_mut().flat_map(|worker| &mut worker.cores).enumerate() {
                core.in_request = 1;
                core.req_info.elapsed = Some((second - 20) * 1_000_000 - place as u64);
                core.req_info.route = Some(if place < 6 { "/invoices/{}" } else { "/users/{}" }.into());
            }
            document.workers.iter_mut().for_each(|worker| {
                worker.busy_time = worker.busy_time.map(|time| time + (second - 20) * 2_000_000);
            });
        }
        document.queue.as_mut().unwrap().depth = 9;
        document
    });
    let found = &last(&said)[0];
    assert_eq!(found.rule().name, "stuck-thread", "before what follows from it: {:#?}", last(&said));
    assert!(
        found.sentence.contains("all 8 threads are in requests, 6 of them of `/invoices/{}`, the oldest for "),
        "{}",
        found.sentence
    );
    let saturated = last(&said).iter().find(|found| found.rule().name == "saturated").unwrap();
    assert!(!saturated.sentence.contains("of the time in"), "not in what ended long ago: {}", saturated.sentence);
    assert!(said[33].first().is_some_and(|found| found.rule().name == "stuck-thread"), "in a quarter of a minute");
}

#[test]
fn workers_without_a_process_are_told_and_cheap_ones_are_not() {
    let without = |status: &'static str| {
        move |second: u64| {
            let mut document = healthy(second);
            if second > 10 {
                let worker = &mut document.workers[3];
                (worker.pid, worker.status) = (0, status.into());
                worker.cores.iter_mut().for_each(|core| core.in_request = 0);
            }
            document
        }
    };
    let said = recorded(1..=41, 1, without("idle"));
    assert_eq!(only(&said, "missing-workers").sentence, "1 of 4 workers has had no process for 30s");
    silent(&recorded(1..=41, 1, without("cheap")));
}

/// Memory of the first worker as it is after so many seconds.
fn with_memory(second: u64, rss: f64) -> Snapshot {
    let mut document = healthy(second);
    document.workers[0].rss = rss as u64;
    document
}

#[test]
fn memory_that_grows_is_told_with_its_error_and_when_it_reaches_the_limit() {
    const MIB: f64 = 1_048_576.0;
    // 4 MiB a minute, with noise of a mebibyte.
    let noise = |second: u64| ((second * 7_919 % 100) as f64 / 50.0 - 1.0) * MIB;
    let said = recorded(1..=1_200, 5, |second| {
        with_memory(second, 120.0 * MIB + second as f64 / 60.0 * 4.0 * MIB + noise(second))
    });
    let found = only(&said, "memory-growth");
    assert!(found.sentence.starts_with("worker 1 grows by 2") && found.sentence.contains(" ± "), "{}", found.sentence);
    assert!(found.sentence.contains("reaches reload-on-rss of 256.0M in 1"), "{}", found.sentence);
    // A start that levels off, and noise, are no leak.
    silent(&recorded(1..=1_200, 5, |second| {
        with_memory(second, 120.0 * MIB + 60.0 * MIB * (1.0 - (-(second as f64) / 120.0).exp()) + noise(second))
    }));
}

#[test]
fn memory_that_grows_fast_and_evenly_is_told_after_two_minutes_and_a_start_is_not() {
    const MIB: f64 = 1_048_576.0;
    let without_limit = |second, rss| Snapshot { limits: None, ..with_memory(second, rss) };
    let said = recorded(1..=150, 1, |second| without_limit(second, (40.0 + second as f64) * MIB));
    assert!(only(&said, "memory-growth").sentence.starts_with("worker 1 grows by 3.5G ± "));
    silent(&said[..120]);
    // Modules and models that are loaded, and a cache that fills.
    silent(&recorded(1..=300, 1, |second| without_limit(second, if second < 60 { 40.0 } else { 400.0 } * MIB)));
    silent(&recorded(1..=300, 1, |second| {
        without_limit(second, (40.0 + 300.0 * (1.0 - (-(second as f64) / 60.0).exp())) * MIB)
    }));
}

#[test]
fn memory_at_its_limit_is_told() {
    let said = recorded(1..=40, 1, |second| with_memory(second, 240.0 * 1_048_576.0));
    assert_eq!(
        only(&said, "memory-limit").sentence,
        "worker 1 has 240.0M of the 256.0M at which it is replaced (reload-on-rss)"
    );
}
