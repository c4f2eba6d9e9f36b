//! Clients, workers and the router itself that go, in the middle of what they do.

use std::io::Read;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::rig::*;
use crate::stats::cell::LatencyCounts;
use rwsgi_protocol::link::{ABORTED, LEAVING};

#[test]
fn a_client_that_gives_up_in_the_queue_is_not_served() {
    let router = HttpRouter::start(LIMITS);
    let mut clients: Vec<_> = (0..3)
        .map(|number| {
            let mut client = router.client();
            client.get(&format!("/{number}"));
            router.waits_for_depth(number + 1);
            client
        })
        .collect();
    drop(clients.remove(1));
    router.waits_for_depth(2);
    let mut worker = router.worker(1);
    for (path, client) in ["/0", "/2"].into_iter().zip(&mut clients) {
        assert_eq!(worker.path(), path);
        worker.answer("x");
        assert_eq!(client.status(), 200);
    }
}

#[test]
fn a_client_that_ends_its_sending_side_is_served_all_the_same() {
    let router = HttpRouter::start(LIMITS);
    let mut worker = router.worker(1);
    let mut client = router.client();
    client.send("GET / HTTP/1.0\r\n\r\n");
    client.stream.shutdown(std::net::Shutdown::Write).unwrap();
    worker.echo();
    assert!(client.rest().unwrap().ends_with(b"\r\n\r\n/"));
    // And the worker serves on.
    let mut next = router.client();
    next.get("/next");
    worker.echo();
    assert_eq!(next.status(), 200);
}

#[test]
fn a_worker_learns_when_nobody_wants_its_answer_any_more() {
    let router = HttpRouter::start(LIMITS);
    let mut worker = router.worker(1);
    let mut client = router.client();
    client.get("/stream");
    worker.path();
    worker.frame(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
    drop(client);
    let deadline = Instant::now() + PATIENCE;
    while worker.frame(&[b'x'; 10_000]).is_ok() {
        assert!(Instant::now() < deadline, "the worker may write on and on");
    }
    eventually(|| router.board.router().read().unwrap().connections == 0);
}

#[test]
fn an_answer_that_comes_too_late_is_dropped_and_the_worker_serves_on() {
    let router = HttpRouter::start(LIMITS);
    let mut worker = router.worker(1);
    for answer_at_once in [false, true] {
        let mut client = router.client();
        client.get("/late");
        worker.path();
        if answer_at_once {
            worker.frame(b"HTTP/1.1 200 OK\r\n").unwrap();
            // Read, so that closing is no error but an end; and then an error.
            client.stream.read_exact(&mut [0; 17]).unwrap();
        }
        drop(client);
        if answer_at_once {
            worker.frame(&[b'x'; 20_000]).unwrap();
            worker.frame(&[b'x'; 20_000]).unwrap();
        }
        worker.answer("late");
        let mut next = router.client();
        next.get("/next");
        worker.echo();
        assert!(next.response().ends_with("/next"));
    }
}

#[test]
fn a_lost_worker_is_answered_for_before_and_reset_after_its_first_byte() {
    let router = HttpRouter::start(LIMITS);
    let mut worker = router.worker(1);
    let mut client = router.client();
    client.get("/before");
    worker.path();
    drop(worker);
    assert_eq!(client.status(), 502);
    assert!(client.is_closed());

    let mut worker = router.worker(1);
    let mut client = router.client();
    client.get("/after");
    worker.path();
    worker.frame(b"HTTP/1.0 200 OK\r\n\r\nhalf").unwrap();
    let mut half = [0; 23];
    client.stream.read_exact(&mut half).unwrap();
    drop(worker);
    assert_eq!(client.rest().unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn a_response_that_breaks_off_resets_its_client_and_leaves_the_thread_free() {
    let router = HttpRouter::start(LIMITS);
    let mut worker = router.worker(1);
    let mut client = router.client();
    client.send("GET /half HTTP/1.0\r\n\r\n");
    worker.path();
    worker.frame(b"HTTP/1.0 200 OK\r\n\r\nhalf").unwrap();
    let mut half = [0; 23];
    client.stream.read_exact(&mut half).unwrap();
    worker.word(ABORTED);
    assert_eq!(client.rest().unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    let mut next = router.client();
    next.get("/next");
    worker.echo();
    assert!(next.response().ends_with("/next"));
}

#[test]
fn a_request_that_a_dead_worker_never_read_goes_to_another() {
    let router = HttpRouter::start(LIMITS);
    let dead = router.worker(1);
    let mut client = router.client();
    client.get("/again");
    // The request is on its way to a worker that never reads it.
    eventually(|| {
        let mut counts = LatencyCounts::default();
        router.board.router().waiting.add_to(&mut counts);
        counts.total() == 1
    });
    drop(dead);
    // Nor does the next.
    drop(router.worker(2));
    let mut worker = router.worker(3);
    assert_eq!(worker.path(), "/again");
    // But this one has begun with it.
    drop(worker);
    assert_eq!(client.status(), 502);
}

#[test]
fn a_worker_that_wants_to_leave_goes_when_it_is_idle() {
    let mut router = HttpRouter::start(LIMITS);
    let mut leaver = router.worker(1);
    let mut client = router.client();
    client.get("/1");
    assert_eq!(leaver.path(), "/1");
    // While busy: it finishes first, and gets nothing more.
    leaver.word(LEAVING);
    leaver.answer("one");
    assert!(client.response().ends_with("one"));
    assert!(leaver.is_closed());
    client.get("/2");
    router.waits_for_depth(1);
    let mut stayer = router.worker(1);
    stayer.echo();
    assert_eq!(client.status(), 200);
    // While idle: at once.
    stayer.word(LEAVING);
    assert!(stayer.is_closed());
    drop(client);
    router.stop();
    router.join();
}

#[test]
fn no_request_is_lost_while_workers_come_and_go() {
    let router = HttpRouter::start(LIMITS);
    let served = AtomicU32::new(0);
    const CLIENTS: u32 = 4;
    const REQUESTS: u32 = 250;
    std::thread::scope(|scope| {
        for worker in 1..=2 {
            let (router, served) = (&router, &served);
            scope.spawn(move || {
                // Each process says that it wants to leave after a few requests, and leaves when the router lets it.
                while served.load(Ordering::Relaxed) < CLIENTS * REQUESTS {
                    let mut process = router.worker(worker);
                    let mut leave_sent = false;
                    for request in 0.. {
                        if !leave_sent && (request >= 5 || served.load(Ordering::Relaxed) >= CLIENTS * REQUESTS) {
                            process.word(LEAVING);
                            leave_sent = true;
                        }
                        process.stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
                        let taken = match process.try_take() {
                            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
                            Err(_) => break,
                            Ok(taken) => taken,
                        };
                        served.fetch_add(1, Ordering::Relaxed);
                        process.answer_fast(taken.head.split(' ').nth(1).unwrap());
                    }
                }
            });
        }
        for number in 0..CLIENTS {
            let mut client = router.client();
            scope.spawn(move || {
                for request in 0..REQUESTS {
                    let path = format!("/{number}/{request}");
                    client.get(&path);
                    assert!(client.response().ends_with(&path));
                }
            });
        }
    });
    assert_eq!(served.into_inner(), CLIENTS * REQUESTS);
}

#[test]
fn a_router_that_stops_finishes_what_it_has() {
    let mut router = HttpRouter::start(LIMITS);
    let mut worker = router.worker(1);
    let mut idle = router.client();
    idle.get("/");
    worker.echo();
    assert_eq!(idle.status(), 200);
    let mut served = router.client();
    served.get("/served");
    assert_eq!(worker.path(), "/served");
    let mut queued = router.client();
    queued.get("/queued");
    router.waits_for_depth(1);
    let mut partial = router.client();
    partial.send("GET /partial HTTP/1.1\r\n");
    eventually(|| router.board.router().read().unwrap().connections == 4);

    router.stop();
    assert!(idle.is_closed());
    worker.answer("served");
    assert!(served.response().ends_with("served"));
    assert!(served.is_closed());
    worker.echo();
    assert!(queued.response().ends_with("/queued"));
    partial.send("Host: a\r\n\r\n");
    worker.echo();
    assert!(partial.response().ends_with("/partial"));
    router.join();
    assert!(worker.is_closed());
}

#[test]
fn who_waits_when_the_master_and_every_worker_are_gone_is_told_so() {
    let mut router = HttpRouter::start(LIMITS);
    let mut worker = router.worker(1);
    let mut served = router.client();
    served.get("/served");
    assert_eq!(worker.path(), "/served");
    let mut queued = router.client();
    queued.get("/queued");
    router.waits_for_depth(1);
    let mut partial = router.client();
    partial.send("GET /partial HTTP/1.1\r\n");
    eventually(|| router.board.router().read().unwrap().connections == 3);
    // The worker has seen it, too: it finishes what it has, and leaves.
    router.stop();
    worker.word(LEAVING);
    worker.answer("served");
    assert!(served.response().ends_with("served"));
    assert!(worker.is_closed());
    assert_eq!(queued.status(), 503);
    partial.send("Host: a\r\n\r\n");
    assert_eq!(partial.status(), 503);
    drop((served, queued, partial));
    router.join();
}
