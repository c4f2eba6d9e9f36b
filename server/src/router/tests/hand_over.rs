//! A client's connection goes to the thread that serves its request, and to no other.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use super::rig::*;
use crate::ids::{SlotId, ThreadIndex};
use crate::io::pass_fd::receive_fd;
use crate::router::link::Link;
use rwsgi_protocol::link::{AHEAD_MAX, DONE_CLOSE, DONE_KEEP};

/// What the router gives the thread that asks for its client.
fn ask(steps: &mut Steps<'_>, worker: &TestWorker) -> Option<TcpStream> {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let asker = steps.router.links.insert(Link::new(theirs.into(), 0, 0));
    steps.router.hand_over(asker, SlotId::new(worker.slot), ThreadIndex::new(0));
    receive_fd(&ours).unwrap().map(TcpStream::from)
}

/// Two clients whose requests `/first` and `/second` a fast worker has got at once.
fn two_at_once(steps: &mut Steps<'_>) -> (TestWorker, TestClient, TestClient) {
    let mut worker = steps.worker(1);
    let mut first = steps.client();
    for _ in 0..AHEAD_MAX {
        first.get("/fast");
        steps.turns();
        assert_eq!(worker.path(), "/fast");
        worker.answer_fast("fast");
        steps.turns();
        assert_eq!(first.status(), 200);
    }
    let mut second = steps.client();
    first.get("/first");
    steps.turns();
    second.get("/second");
    steps.turns();
    assert_eq!(worker.path(), "/first");
    (worker, first, second)
}

#[test]
fn the_client_is_that_of_the_request_that_is_served_whatever_was_read_of_the_one_before() {
    let board = Steps::board();
    for is_unread in [true, false] {
        let mut steps = Steps::new(&board, LIMITS);
        let (mut worker, mut first, mut second) = two_at_once(&mut steps);
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
        if !is_unread {
            // The router has the head of the first response and not its end.
            worker.frame(answer).unwrap();
            steps.turns();
        }
        worker.frame(if is_unread { b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst" } else { b"first" }).unwrap();
        worker.word(DONE_KEEP);
        assert_eq!(worker.path(), "/second");
        let mut handed_over = ask(&mut steps, &worker).expect("the second client");
        handed_over.write_all(b"hello").unwrap();
        let mut bytes = [0; 5];
        second.stream.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"hello");
        steps.turns();
        assert!(first.response().ends_with("first"));
        assert!(ask(&mut steps, &worker).is_none(), "it is gone already");
        // The thread is busy until it says that the request is over, and serves on then.
        first.get("/third");
        steps.turns();
        worker.word(DONE_CLOSE);
        steps.turns();
        assert_eq!(worker.path(), "/third");
        worker.answer("third");
        steps.turns();
        assert!(first.response().ends_with("third"));
    }
}

#[test]
fn a_client_that_has_sent_more_stays_and_gets_an_answer() {
    let board = Steps::board();
    let mut steps = Steps::new(&board, LIMITS);
    let mut worker = steps.worker(1);
    let mut client = steps.client();
    client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\nmore");
    steps.turns();
    assert_eq!(worker.path(), "/");
    assert!(ask(&mut steps, &worker).is_none());
    worker.answer("no");
    steps.turns();
    assert!(client.response().ends_with("no"));
}
