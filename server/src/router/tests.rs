//! The router with real sockets. The tests are its clients and its workers at once, so that they decide the order of
//! everything and wait for nothing but what must come.

mod ahead;
mod rig;
mod schedules;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use proptest::prelude::*;

use self::rig::*;
use super::*;
use crate::protocol::link::{AHEAD_MAX, DONE_CLOSE, DONE_KEEP, Hello, LEAVING, SKIPPED};
use crate::stats::cell::{LatencyCounts, RouterSample};

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
    let router = HttpRouter::start(Limits { limit_post: 10, ..LIMITS });
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
    let router = HttpRouter::start(Limits { limit_post: 1000, ..LIMITS });
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
fn requests_wait_in_order_and_those_beyond_the_queue_are_turned_away() {
    let router = HttpRouter::start(Limits { queue: 3, ..LIMITS });
    let mut clients: Vec<_> = (0..3)
        .map(|number| {
            let mut client = router.client();
            client.get(&format!("/{number}"));
            router.waits_for_depth(number + 1);
            client
        })
        .collect();
    let mut late = router.client();
    late.get("/late");
    assert_eq!(late.status(), 503);
    assert!(late.is_closed());
    assert_eq!(router.board.router().read().unwrap().rejected, 1);

    let mut worker = router.worker(1);
    for (number, client) in clients.iter_mut().enumerate() {
        assert_eq!(worker.path(), format!("/{number}"));
        router.waits_for_depth(2 - number as u64);
        worker.answer("x");
        assert_eq!(client.status(), 200);
    }
    let mut counts = LatencyCounts::default();
    router.board.router().waiting.add_to(&mut counts);
    assert_eq!(counts.total(), 3, "one waiting time for each dispatched request");
}

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
                // Each life says that it wants to leave after a few requests, and leaves when the router lets it.
                while served.load(Ordering::Relaxed) < CLIENTS * REQUESTS {
                    let mut life = router.worker(worker);
                    let mut told = false;
                    for request in 0.. {
                        if !told && (request >= 5 || served.load(Ordering::Relaxed) >= CLIENTS * REQUESTS) {
                            life.word(LEAVING);
                            told = true;
                        }
                        life.stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
                        let taken = match life.try_take() {
                            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
                            Err(_) => break,
                            Ok(taken) => taken,
                        };
                        served.fetch_add(1, Ordering::Relaxed);
                        life.answer_quickly(taken.head.split(' ').nth(1).unwrap());
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
fn nobody_becomes_a_worker_without_the_token() {
    let router = HttpRouter::start(LIMITS);
    let mut client = router.client();
    client.get("/secret");
    router.waits_for_depth(1);
    for greeting in [
        Hello { worker: 1, thread: 0, slot: 0, token: [0; 16] }.encode().to_vec(),
        Hello { worker: 1, thread: 0, slot: u32::MAX, token: TOKEN }.encode().to_vec(),
        Hello { worker: 1, thread: 1, slot: 0, token: TOKEN }.encode().to_vec(),
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
    ] {
        let mut stranger = UnixStream::connect_addr(&router.link).unwrap();
        stranger.set_read_timeout(Some(PATIENCE)).unwrap();
        stranger.write_all(&greeting).unwrap();
        assert!(!matches!(stranger.read(&mut [0]), Ok(1..)));
    }
    router.worker(1).echo();
    assert_eq!(client.status(), 200);
}

#[test]
fn clients_that_take_too_long_are_let_go() {
    let router = HttpRouter::start(Limits { timeout: 1, keepalive: 1, ..LIMITS });
    let mut worker = router.worker(1);
    let mut head = router.client();
    head.send("GET / HTTP/1.1\r\nHo");
    let mut body = router.client();
    body.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe");
    let mut idle = router.client();
    idle.get("/");
    worker.echo();
    assert_eq!(idle.status(), 200);
    assert_eq!(head.status(), 408);
    assert_eq!(body.status(), 408);
    assert!(head.is_closed() && body.is_closed() && idle.is_closed());
    // A client that waits for its answer is not one of them.
    let mut patient = router.client();
    patient.get("/");
    worker.path();
    let mut silent = router.client();
    assert!(silent.is_closed());
    worker.answer("x");
    assert_eq!(patient.status(), 200);
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
fn without_keep_alive_a_connection_is_closed_after_its_response() {
    let router = HttpRouter::start(Limits { keepalive: 0, ..LIMITS });
    let mut worker = router.worker(1);
    let mut client = router.client();
    client.get("/");
    worker.echo();
    assert!(client.rest().unwrap().ends_with(b"/"));
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
