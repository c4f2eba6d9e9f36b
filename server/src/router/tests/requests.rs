//! Requests and responses on their way through the router.

use std::io::Write;

use proptest::prelude::*;

use super::rig::*;
use crate::io::body::BodyLimits;
use crate::router::Limits;
use crate::stats::cell::RouterSample;
use rwsgi_protocol::link::{DONE_CLOSE, DONE_KEEP, LEAVING};

#[test]
fn a_request_and_its_response_pass_as_they_are() {
    let router = HttpRouter::start(LIMITS);
    let mut worker = router.worker(1);
    let mut client = router.client();
    let head = "POST /a%20b?c HTTP/1.1\r\nHost: a\r\nX-Odd:   kept  \r\nContent-Length: 5\r\n\r\n";
    client.send(head).send("hello");
    let port = client.stream.local_addr().unwrap().port();
    let peer = format!("127.0.0.1 {port} 127.0.0.1 {}", router.address.port());
    assert_eq!(worker.take(), Taken { peer, head: head.into(), body: b"hello".to_vec() });
    let response = "HTTP/1.1 200 OK\r\nX: \t1\r\nContent-Length: 3\r\n\r\nabc";
    let (start, end) = response.as_bytes().split_at(20);
    worker.frame(start).unwrap();
    worker.frame(b"").unwrap();
    worker.frame(end).unwrap();
    worker.word(DONE_KEEP);
    assert_eq!(client.response(), response);
    assert_eq!(router.board.router().read(), Ok(RouterSample { connections: 1, ..RouterSample::default() }));

    client.get("/next");
    assert_eq!(worker.path(), "/next");
    worker.frame(b"HTTP/1.0 200 OK\r\n\r\nold").unwrap();
    worker.word(DONE_CLOSE);
    assert_eq!(client.rest().unwrap(), b"HTTP/1.0 200 OK\r\n\r\nold");
    eventually(|| router.board.router().read().unwrap().connections == 0);
}

#[test]
fn pipelined_requests_are_served_one_by_one_in_order() {
    let router = HttpRouter::start(LIMITS);
    let mut workers = [router.worker(1), router.worker(2)];
    let mut client = router.client();
    client.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
    client.send(
        "POST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\nGET /4 HTTP/1.1\r\nHost",
    );
    let mut paths = Vec::new();
    std::thread::scope(|scope| {
        let (sender, requests) = std::sync::mpsc::channel();
        for worker in &mut workers {
            let sender = sender.clone();
            scope.spawn(move || {
                // Until the router is told that this worker leaves.
                while let Ok(Taken { head, body, .. }) = worker.try_take() {
                    sender.send((head.split(' ').nth(1).unwrap().to_owned(), body)).unwrap();
                    worker.answer("x");
                    if head.starts_with("GET /4") {
                        worker.word(LEAVING);
                    }
                }
            });
        }
        drop(sender);
        for _ in 0..3 {
            assert_eq!(client.status(), 200);
            paths.push(requests.recv().unwrap());
        }
        client.send(": a\r\n\r\n");
        assert_eq!(client.status(), 200);
        paths.push(requests.recv().unwrap());
        drop(client);
        drop(router);
    });
    let expected = [("/1", &b""[..]), ("/2", b"abc"), ("/3", b"ab"), ("/4", b"")];
    assert_eq!(paths, expected.map(|(path, body)| (path.to_owned(), body.to_vec())));
}

#[test]
fn a_request_that_drips_in_holds_no_thread() {
    let router = HttpRouter::start(LIMITS);
    let mut worker = router.worker(1);
    let mut slow = router.client();
    let mut other = router.client();
    let request = b"POST /slow HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1;x=y\r\nd\r\n0\r\nT: 1\r\n\r\n";
    for (at, byte) in request.iter().enumerate() {
        slow.send([*byte]);
        if at % 10 == 0 {
            other.get("/fast");
            assert_eq!(worker.path(), "/fast");
            worker.answer("fast");
            assert!(other.response().ends_with("fast"));
        }
    }
    let taken = worker.take();
    assert!(taken.head.starts_with("POST /slow "), "{}", taken.head);
    assert_eq!(taken.body, b"abcd");
    worker.answer("slow");
    assert!(slow.response().ends_with("slow"));
}

#[test]
fn a_body_larger_than_memory_arrives_whole() {
    let router = HttpRouter::start(LIMITS);
    let mut worker = router.worker(1);
    let body: Vec<u8> = (0..3_000_000u32).map(|at| (at % 251) as u8).collect();
    for chunked in [false, true] {
        let mut client = router.client();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                if chunked {
                    client.send("PUT /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
                    for piece in body.chunks(70_001) {
                        client.send(format!("{:x}\r\n", piece.len())).send(piece).send("\r\n");
                    }
                    client.send("0\r\n\r\n");
                } else {
                    client.send(format!("PUT /l HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len()));
                    client.send(&body);
                }
                assert_eq!(client.status(), 200);
            });
            assert!(worker.take().body == body, "chunked: {chunked}");
            worker.answer("");
        });
    }
}

#[test]
fn a_client_that_waits_for_100_continue_is_told_to_go_on() {
    let router = HttpRouter::start(Limits { body: BodyLimits::new(4096, 10), ..LIMITS });
    let mut worker = router.worker(1);
    let mut client = router.client();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    assert_eq!(client.response(), "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("ab");
    assert_eq!(worker.take().body, b"ab");
    worker.answer("");
    assert_eq!(client.status(), 200);
    // A body that will not be taken is not asked for.
    client.send("POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 11\r\n\r\n");
    assert_eq!(client.status(), 413);
    assert!(client.is_closed());
}

#[test]
fn what_is_no_request_is_answered_and_closed_without_a_worker() {
    let router = HttpRouter::start(Limits { body: BodyLimits::new(4096, 1000), ..LIMITS });
    let chunk = "fff\r\n".to_owned() + &"x".repeat(0xfff);
    for (bytes, status) in [
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello".into(), 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n".into(), 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n".into(), 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n".into(), 501),
        ("GET / HTTP/2.0\r\n\r\n".into(), 505),
        (format!("GET /{} HTTP/1.1\r\n", "x".repeat(5000)), 414),
        (format!("GET / HTTP/1.1\r\nX: {}\r\n", "x".repeat(5000)), 431),
        (format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n{}", "x".repeat(1001)), 413),
        (format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}"), 413),
    ] {
        let mut client = router.client();
        client.send(&bytes);
        let response = client.response();
        assert_eq!(response[9..12].parse(), Ok(status), "{bytes}");
        assert!(response.contains("\r\nConnection: close\r\n"), "{response}");
        assert!(client.is_closed(), "{bytes}");
    }
}

#[test]
fn an_answer_that_comes_before_the_body_is_taken_does_not_mix_with_the_next() {
    let router = HttpRouter::start(LIMITS);
    let mut worker = router.worker(1);
    let mut client = router.client();
    let body = vec![b'b'; 2_000_000];
    client.send(format!("PUT /1 HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len())).send(&body);
    let (_, _, body_len) = worker.next_head().unwrap();
    assert!(worker.begin());
    worker.answer("early");
    assert!(client.response().ends_with("early"));
    client.get("/2");
    router.waits_for_depth(1);
    assert!(worker.exactly(body_len) == body);
    worker.echo();
    assert!(client.response().ends_with("/2"));
}

#[test]
fn a_client_that_does_not_read_holds_no_worker_and_misses_nothing() {
    let router = HttpRouter::start(LIMITS);
    let mut worker = router.worker(1);
    let mut slow: Vec<_> = (0..2).map(|_| router.client()).collect();
    let mut other = router.client();
    // In socket buffers and memory, and in a file.
    let bodies = [vec![b'x'; 900_000], (0..20_000_000).map(|at: u32| (at % 251) as u8).collect()];
    for (client, body) in slow.iter_mut().zip(&bodies) {
        client.get("/large");
        worker.path();
        worker.frame(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes()).unwrap();
        for piece in body.chunks(333_333) {
            worker.frame(piece).unwrap();
        }
        worker.word(DONE_CLOSE);
        other.get("/other");
        worker.echo();
        assert!(other.response().ends_with("/other"));
    }
    for (client, body) in slow.iter_mut().zip(&bodies) {
        assert!(client.rest().unwrap().ends_with(body));
    }
}

/// A request as bytes, and what a worker should see of it.
fn encoded(number: usize, body: Option<(&[u8], Option<usize>)>) -> (Vec<u8>, Vec<u8>) {
    let Some((body, chunk)) = body else {
        return (format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes(), Vec::new());
    };
    let mut bytes = format!("POST /{number} HTTP/1.1\r\nHost: a\r\n").into_bytes();
    match chunk {
        None => {
            bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
            bytes.extend_from_slice(body);
        }
        Some(size) => {
            bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
            for chunk in body.chunks(size) {
                bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                bytes.extend_from_slice(chunk);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n\r\n");
        }
    }
    (bytes, body.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn a_stream_of_requests_is_the_same_however_it_is_cut(
        requests in prop::collection::vec(
            prop::option::of((prop::collection::vec(any::<u8>(), 0..6000), prop::option::of(1usize..3000))), 1..8),
        cuts in prop::collection::vec(1usize..2000, 1..6),
    ) {
        let router = HttpRouter::start(LIMITS);
        let mut worker = router.worker(1);
        let mut client = router.client();
        client.stream.set_nodelay(true).unwrap();
        let (streams, bodies): (Vec<_>, Vec<_>) = requests
            .iter()
            .enumerate()
            .map(|(number, body)| encoded(number, body.as_ref().map(|(body, chunk)| (body.as_slice(), *chunk))))
            .unzip();
        let stream = streams.concat();
        let mut sender = client.stream.try_clone().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let (mut rest, mut cuts) = (stream.as_slice(), cuts.iter().cycle());
                while let (false, Some(cut)) = (rest.is_empty(), cuts.next()) {
                    let (piece, after) = rest.split_at(rest.len().min(*cut));
                    sender.write_all(piece).unwrap();
                    rest = after;
                }
            });
            for (number, body) in bodies.iter().enumerate() {
                let taken = worker.take();
                assert_eq!(taken.head.split(' ').nth(1), Some(format!("/{number}").as_str()));
                assert!(taken.body == *body, "the body of request {number}");
                worker.answer("x");
                assert_eq!(client.status(), 200);
            }
        });
    }
}
