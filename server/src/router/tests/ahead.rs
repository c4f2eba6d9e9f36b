//! Requests that were sent ahead: exactly one thread serves each, and the answer finds its client.

use std::io::Write;

use super::rig::*;
use crate::io::body::BodyLimits;
use crate::router::Limits;
use crate::stats::cell::LatencyCounts;
use rwsgi_protocol::link::{AHEAD_MAX, DONE_KEEP, FAST, LEAVING, SKIPPED};

/// A worker that has answered fast several times, and has a request that it does not answer.
fn a_fast_worker_with_a_slow_request(router: &HttpRouter) -> (TestWorker, TestClient) {
    let mut worker = router.worker(1);
    let mut client = router.client();
    for _ in 0..AHEAD_MAX {
        client.get("/fast");
        assert_eq!(worker.path(), "/fast");
        worker.answer_fast("fast");
        assert_eq!(client.status(), 200);
    }
    client.get("/slow");
    assert_eq!(worker.path(), "/slow");
    (worker, client)
}

/// Clients with requests `/0`, `/1` and so on, which came in this order and wait for a thread.
fn waiting_clients(router: &HttpRouter, count: u64) -> Vec<TestClient> {
    let waiting = (0..count).map(|number| {
        let mut client = router.client();
        client.get(&format!("/{number}"));
        router.waits_for_depth(number + 1);
        client
    });
    waiting.collect()
}

#[test]
fn what_was_sent_ahead_to_a_thread_that_turns_out_slow_is_served_by_another() {
    let router = HttpRouter::start(LIMITS);
    let (mut slow_worker, mut slow) = a_fast_worker_with_a_slow_request(&router);
    let mut clients = waiting_clients(&router, 3);
    let mut other = router.worker(2);
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(other.path(), format!("/{number}"));
        other.answer_fast("other");
        assert!(client.response().ends_with("other"));
    }
    router.waits_for_depth(0);
    slow_worker.answer("slow");
    assert!(slow.response().ends_with("slow"));
    // Whatever had been sent to it is passed over, and it serves on.
    clients[0].get("/again");
    assert_eq!(other.path(), "/again");
    clients[1].get("/more");
    assert_eq!(slow_worker.path(), "/more");
    slow_worker.answer("more");
    assert!(clients[1].response().ends_with("more"));
    other.answer("again");
    assert!(clients[0].response().ends_with("again"));
    let mut counts = LatencyCounts::default();
    router.board.router().waiting.add_to(&mut counts);
    assert_eq!(counts.total(), AHEAD_MAX as u64 + 6, "one waiting time for each request");
}

#[test]
fn nothing_is_sent_ahead_to_a_thread_that_has_been_slow_for_long() {
    let router = HttpRouter::start(Limits { overdue: 0, ..LIMITS });
    let (mut worker, mut slow) = a_fast_worker_with_a_slow_request(&router);
    let mut clients = waiting_clients(&router, 3);
    worker.answer("slow");
    assert_eq!(slow.status(), 200);
    for (number, client) in clients.iter_mut().enumerate() {
        let (taken, is_ours) = worker.next().unwrap();
        assert!(is_ours && taken.head.starts_with(&format!("GET /{number} ")), "{taken:?}");
        worker.answer("x");
        assert_eq!(client.status(), 200);
    }
}

#[test]
fn requests_sent_ahead_survive_their_worker() {
    let router = HttpRouter::start(LIMITS);
    let (worker, mut lost) = a_fast_worker_with_a_slow_request(&router);
    let mut clients = waiting_clients(&router, 3);
    drop(worker);
    assert_eq!(lost.status(), 502);
    let mut next = router.worker(1);
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(next.path(), format!("/{number}"));
        next.answer("x");
        assert_eq!(client.status(), 200);
    }
}

#[test]
fn a_worker_that_leaves_gives_back_what_was_sent_ahead() {
    let router = HttpRouter::start(LIMITS);
    let (mut leaver, mut slow) = a_fast_worker_with_a_slow_request(&router);
    let mut clients = waiting_clients(&router, 3);
    leaver.word(LEAVING);
    let mut stayer = router.worker(2);
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(stayer.path(), format!("/{number}"));
        stayer.answer("x");
        assert_eq!(client.status(), 200);
    }
    leaver.answer_fast("slow");
    assert!(slow.response().ends_with("slow"));
    for _ in 0..3 {
        let (_, is_ours) = leaver.next().unwrap();
        assert!(!is_ours);
        leaver.word(SKIPPED);
    }
    assert!(leaver.is_closed());
}

#[test]
fn a_client_that_gives_up_before_its_turn_on_a_link_is_not_served() {
    let router = HttpRouter::start(LIMITS);
    let (mut worker, mut slow) = a_fast_worker_with_a_slow_request(&router);
    let mut clients = waiting_clients(&router, 3);
    drop(clients.remove(1));
    router.waits_for_depth(2);
    worker.answer_fast("slow");
    assert_eq!(slow.status(), 200);
    for (path, client) in ["/0", "/2"].into_iter().zip(&mut clients) {
        assert_eq!(worker.path(), path);
        worker.answer_fast("x");
        assert_eq!(client.status(), 200);
    }
}

/// The same with a router that moves step by step.
fn a_fast_worker(router: &mut Steps<'_>) -> (TestWorker, TestClient) {
    let mut worker = router.worker(0);
    let mut client = router.client();
    for _ in 0..AHEAD_MAX {
        client.get("/fast");
        router.turns();
        assert_eq!(worker.path(), "/fast");
        worker.answer_fast("fast");
        router.turns();
        assert_eq!(client.status(), 200);
    }
    (worker, client)
}

#[test]
fn what_a_broken_client_did_not_take_is_not_sent_to_the_next() {
    let board = Steps::board();
    let router = &mut Steps::new(&board, LIMITS);
    let (mut worker, mut gone) = a_fast_worker(router);
    let mut other = router.client();
    gone.get("/many-pieces");
    router.turns();
    other.get("/other");
    router.turns();
    assert_eq!(worker.path(), "/many-pieces");
    for _ in 0..40 {
        worker.frame(b"of somebody else").unwrap();
    }
    worker.word(DONE_KEEP | FAST);
    assert_eq!(worker.path(), "/other");
    worker.answer("other");
    // The link is reported before this.
    gone.break_off();
    router.turns();
    assert_eq!(other.response(), "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother");
}

#[test]
fn what_nobody_wants_does_not_take_the_next_request_with_it() {
    let board = Steps::board();
    let router = &mut Steps::new(&board, LIMITS);
    let (mut worker, mut gone) = a_fast_worker(router);
    let mut other = router.client();
    gone.get("/large");
    router.turns();
    other.get("/other");
    router.turns();
    assert_eq!(worker.path(), "/large");
    gone.break_off();
    router.turns();
    // As much as makes a link be closed, of which the end is not read yet when the worker begins with the next request.
    worker.stream.set_nonblocking(true).unwrap();
    let response = [&1_100_000_u32.to_le_bytes()[..], &[b'x'; 1_100_000], &DONE_KEEP.to_le_bytes()].concat();
    let mut at = 0;
    while at < 1_000_000 {
        match worker.stream.write(&response[at..1_000_000]) {
            Ok(count) => at += count,
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                router.turn();
            }
        }
    }
    router.turns();
    worker.stream.set_nonblocking(false).unwrap();
    worker.stream.write_all(&response[at..]).unwrap();
    assert_eq!(worker.path(), "/other");
    router.turns();
    worker.answer("other");
    router.turns();
    assert!(other.response().ends_with("other"));
}

#[test]
fn a_new_process_does_not_hide_how_the_old_one_ended() {
    let board = Steps::board();
    let router = &mut Steps::new(&board, LIMITS);
    let (mut worker, mut first) = a_fast_worker(router);
    let mut second = router.client();
    first.get("/first");
    router.turns();
    second.get("/second");
    router.turns();
    assert_eq!((worker.path(), worker.slot), ("/first".into(), 0));
    worker.answer("first");
    assert_eq!(worker.path(), "/second");
    // The new one says hello before the router has read what the old one said.
    let (_, link) = router.router.links.iter().next().unwrap();
    router.router.epoll.delete(&link.fd).unwrap();
    drop(worker);
    let _next = router.worker(0);
    assert!(first.response().ends_with("first"));
    assert_eq!(second.status(), 502);
}

#[test]
fn a_worker_that_dies_after_an_early_answer_leaves_nothing_behind() {
    let board = Steps::board();
    let router = &mut Steps::new(&board, Limits { body: BodyLimits::new(4_000_000, 0), ..LIMITS });
    let mut worker = router.worker(0);
    let mut client = router.client();
    client.send("PUT /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 2000000\r\n\r\n");
    client.stream.set_nonblocking(true).unwrap();
    let (body, mut at) = (vec![b'b'; 2_000_000], 0);
    while at < body.len() {
        match client.stream.write(&body[at..]) {
            Ok(count) => at += count,
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock),
        }
        router.turn();
    }
    client.stream.set_nonblocking(false).unwrap();
    eventually(|| {
        router.turn();
        router.router.links.iter().any(|(_, link)| !link.dispatched.is_empty())
    });
    worker.next_head().unwrap();
    assert!(worker.begin());
    worker.answer("early");
    router.turns();
    assert!(client.response().ends_with("early"));
    drop(worker);
    router.turns();
    assert_eq!(router.router.links.len(), 0);
    // Its client does not notice.
    client.get("/2");
    router.turns();
    let mut next = router.worker(1);
    next.echo();
    router.turns();
    assert!(client.response().ends_with("/2"));
}
