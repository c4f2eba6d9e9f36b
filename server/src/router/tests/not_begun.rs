//! Threads that do not begin with what they were sent.

use std::io::Write;

use super::rig::*;
use crate::ids::{SlotId, ThreadIndex};
use crate::io::body::BodyLimits;
use crate::router::Limits;
use rwsgi_protocol::link::SKIPPED;

/// Soon, and long enough for what a test does next.
const SOON: Limits = Limits { not_begun: 30_000_000, ..LIMITS };

#[test]
fn a_request_that_a_stopped_worker_was_sent_is_served_by_another_that_is_free() {
    let board = Steps::board();
    let router = &mut Steps::new(&board, SOON);
    let mut stopped = router.worker(0);
    let mut client = router.client();
    client.get("/hello");
    // Nobody else is there yet.
    eventually(|| {
        router.turn();
        board.dispatched(SlotId::new(0), ThreadIndex::new(0)).not_begun_since().is_some()
    });
    assert_eq!(router.depth(), 0);
    let mut other = router.worker(1);
    eventually(|| {
        router.turn();
        other.has_unread()
    });
    other.echo();
    router.turns();
    assert!(client.response().ends_with("/hello"));
    // It goes on: what was cancelled is passed over, and it serves like any other.
    let (taken, is_ours) = stopped.next().unwrap();
    assert!(taken.head.starts_with("GET /hello ") && !is_ours);
    stopped.word(SKIPPED);
    router.turns();
    assert_eq!(board.dispatched(SlotId::new(0), ThreadIndex::new(0)).not_begun_since(), None);
    drop(other);
    router.turns();
    client.get("/again");
    router.turn();
    stopped.echo();
    router.turns();
    assert!(client.response().ends_with("/again"));
}

#[test]
fn a_request_that_nobody_begins_with_waits_for_whoever_is_free_first() {
    let board = Steps::board();
    let router = &mut Steps::new(&board, Limits { not_begun: 1_000_000, ..LIMITS });
    let _stopped = router.worker(0);
    let mut client = router.client();
    client.get("/hello");
    // After twenty times as long it is nobody's.
    eventually(|| {
        router.turn();
        router.depth() == 1
    });
    let mut other = router.worker(1);
    other.echo();
    router.turns();
    assert!(client.response().ends_with("/hello"));
}

#[test]
fn a_thread_that_has_begun_keeps_its_request_however_long_it_takes() {
    let board = Steps::board();
    let router = &mut Steps::new(&board, Limits { not_begun: 0, ..LIMITS });
    let mut slow = router.worker(0);
    let mut client = router.client();
    client.get("/slow");
    router.turn();
    assert_eq!(slow.path(), "/slow");
    let _other = router.worker(1);
    router.turns();
    assert_eq!(board.dispatched(SlotId::new(0), ThreadIndex::new(0)).not_begun_since(), None);
    slow.answer("slow");
    router.turns();
    assert!(client.response().ends_with("slow"));
}

#[test]
fn a_large_body_is_sent_again_whether_the_stopped_worker_has_all_of_it_or_a_part() {
    for size in [50_000, 3_000_000] {
        let board = Steps::board();
        let router = &mut Steps::new(&board, Limits { body: BodyLimits::new(4_000_000, 0), ..SOON });
        let stopped = router.worker(0);
        let mut client = router.client();
        let body: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        client.send(format!("PUT /1 HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n"));
        client.stream.set_nonblocking(true).unwrap();
        let mut at = 0;
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
            board.dispatched(SlotId::new(0), ThreadIndex::new(0)).not_begun_since().is_some()
        });
        let mut other = router.worker(1);
        let taken = std::thread::scope(|scope| {
            let taking = scope.spawn(|| {
                let taken = other.take();
                other.answer("whole");
                taken
            });
            while !taking.is_finished() {
                router.turn();
            }
            taking.join().unwrap()
        });
        assert!(taken.body == body, "{size}");
        router.turns();
        assert!(client.response().ends_with("whole"));
        drop(stopped);
    }
}

#[test]
fn new_requests_go_to_workers_that_begin_with_theirs() {
    let board = Steps::board();
    let router = &mut Steps::new(&board, SOON);
    let _stopped = router.worker(0);
    let mut client = router.client();
    client.get("/1");
    router.turn();
    let mut other = router.worker(1);
    for path in ["/1", "/2", "/3"] {
        eventually(|| {
            router.turn();
            other.has_unread()
        });
        assert_eq!(other.path(), path);
        other.answer(path);
        router.turns();
        assert!(client.response().ends_with(path));
        client.get(&format!("/{}", &path[1..].parse::<u32>().unwrap() + 1));
        router.turn();
    }
}

#[test]
fn a_request_behind_one_that_was_cancelled_is_looked_after_too() {
    let board = Steps::board();
    let router = &mut Steps::new(&board, SOON);
    let mut worker = router.worker(0);
    let [mut first, mut gone, mut last] = [router.client(), router.client(), router.client()];
    for _ in 0..2 {
        first.get("/quick");
        router.turns();
        assert_eq!(worker.path(), "/quick");
        worker.answer_fast("quick");
        router.turns();
        assert!(first.response().ends_with("quick"));
    }
    first.get("/first");
    router.turns();
    assert_eq!(worker.path(), "/first");
    // Both are dispatched ahead; the client of the one gives up.
    gone.get("/gone");
    router.turns();
    last.get("/last");
    router.turns();
    drop(gone);
    router.turns();
    worker.answer_fast("first");
    router.turns();
    assert!(first.response().ends_with("first"));
    // The worker is stopped before it has passed over the cancelled one.
    let mut other = router.worker(1);
    eventually(|| {
        router.turn();
        other.has_unread()
    });
    other.echo();
    router.turns();
    assert!(last.response().ends_with("/last"));
}
