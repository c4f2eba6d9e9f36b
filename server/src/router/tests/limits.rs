//! Times and numbers that the router keeps to.

use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use super::rig::*;
use crate::io::body::BodyLimits;
use crate::io::temp::{TempFiles, TempPlace};
use crate::ipc::{RouterLimits, RouterOrder, send_message};
use crate::router::Limits;
use crate::router::bulk::BULK_BYTES;
use crate::router::client::ClientPhase;
use crate::router::event_loop::SCRATCH;
use crate::stats::cell::LatencyCounts;
use crate::stats::scoreboard::TempHolder;
use rwsgi_protocol::link::{Hello, Purpose};
use rwsgi_protocol::path::PathNormalize;

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
fn without_keep_alive_a_connection_is_closed_after_its_response() {
    let router = HttpRouter::start(Limits { keepalive: 0, ..LIMITS });
    let mut worker = router.worker(1);
    let mut client = router.client();
    client.get("/");
    worker.echo();
    assert!(client.rest().unwrap().ends_with(b"/"));
}

#[test]
fn what_a_reload_changes_holds_from_the_next_request_on() {
    let router = HttpRouter::start(LIMITS);
    let mut worker = router.worker(1);
    let (mut before, mut after) = (router.client(), router.client());
    before.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nhello");
    after.get("/");
    worker.echo();
    assert_eq!(after.status(), 200);
    let limits = RouterLimits {
        http_timeout: 30,
        http_keepalive: 0,
        buffer_size: 4096,
        limit_post: 10,
        post_buffering: 4096,
        min_rates: LIMITS.rates,
        show_request: rwsgi_stats::Shown::ALL,
        path_normalize: PathNormalize::Keep,
        drains: false,
    };
    send_message(router.orders.as_fd(), &RouterOrder::Limits(limits)).unwrap();
    eventually(|| {
        let mut asking = router.client();
        asking.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n");
        asking.stream.set_read_timeout(Some(std::time::Duration::from_millis(50))).unwrap();
        asking.rest().is_ok_and(|answer| answer.starts_with(b"HTTP/1.1 413"))
    });
    // This one had begun, and is served; then its connection is closed.
    before.send(" world");
    assert_eq!(worker.take().body, b"hello world");
    worker.answer("");
    assert_eq!(before.status(), 200);
    assert!(before.is_closed());
}

#[test]
fn a_turn_of_the_loop_writes_no_more_than_its_share_to_files() {
    const BODY: u64 = 50_000_000;
    let board = Steps::board();
    let router = &mut Steps::new(&board, LIMITS);
    let mut clients: Vec<_> = (0..8).map(|_| router.client()).collect();
    for client in &mut clients {
        client.send(format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {BODY}\r\n\r\n"));
    }
    router.turns();
    for client in &mut clients {
        // As much as the system takes for each.
        client.stream.set_nonblocking(true).unwrap();
        while client.stream.write(&[b'x'; 100_000]).is_ok() {}
    }
    let taken = |router: &Steps<'_>| -> u64 {
        let bodies = router.router.clients.iter().filter_map(|(_, client)| match &client.phase {
            ClientPhase::Body(gathering) => gathering.intake.left(),
            _ => None,
        });
        bodies.map(|left| BODY - left).sum()
    };
    let mut before = taken(router);
    loop {
        router.turn();
        let now = taken(router);
        assert!(now - before < BULK_BYTES + SCRATCH as u64, "{} bytes in one turn", now - before);
        if now == before {
            break;
        }
        before = now;
    }
    assert!(before > 2 * BULK_BYTES, "there was enough for several turns: {before}");
}

#[test]
fn nobody_becomes_a_worker_without_the_token() {
    let router = HttpRouter::start(LIMITS);
    let mut client = router.client();
    client.get("/secret");
    router.waits_for_depth(1);
    for hello in [
        Hello { purpose: Purpose::Serve, worker: 1, thread: 0, slot: 0, token: [0; 16] }.encode().to_vec(),
        Hello { purpose: Purpose::Serve, worker: 1, thread: 0, slot: u32::MAX, token: TOKEN }.encode().to_vec(),
        Hello { purpose: Purpose::Serve, worker: 1, thread: 1, slot: 0, token: TOKEN }.encode().to_vec(),
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
    ] {
        let mut stranger = UnixStream::connect_addr(&router.link).unwrap();
        stranger.set_read_timeout(Some(PATIENCE)).unwrap();
        stranger.write_all(&hello).unwrap();
        assert!(!matches!(stranger.read(&mut [0]), Ok(1..)));
    }
    router.worker(1).echo();
    assert_eq!(client.status(), 200);
}

#[test]
fn a_turn_of_the_loop_takes_no_more_than_its_share_of_bodies_however_they_are_divided_and_serves_the_others() {
    for chunk in [1, 65_536] {
        let encoded = [format!("{chunk:x}\r\n").as_bytes(), &vec![b'x'; chunk], b"\r\n"].concat();
        let board = Steps::board();
        let router = &mut Steps::new(&board, Limits { body: BodyLimits::new(1 << 30, 0), ..LIMITS });
        let mut worker = router.worker(0);
        let mut hostile: Vec<_> = (0..8).map(|_| router.client()).collect();
        let mut other = router.client();
        for client in &mut hostile {
            client.send("PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        }
        router.turns();
        let many = encoded.repeat(1_000_000 / encoded.len());
        for client in &mut hostile {
            // As much as the system takes for each.
            client.stream.set_nonblocking(true).unwrap();
            while client.stream.write(&many).is_ok_and(|count| count == many.len()) {}
        }
        let taken = |router: &Steps<'_>| -> u64 {
            let bodies = router.router.clients.iter().filter_map(|(_, client)| match &client.phase {
                ClientPhase::Body(gathering) => Some(gathering.intake.len()),
                _ => None,
            });
            bodies.sum::<u64>() / chunk as u64 * encoded.len() as u64
        };
        let (mut before, mut turns) = (taken(router), 0);
        loop {
            other.get("/other");
            router.turn();
            // What has come before a turn is dispatched in it.
            worker.echo();
            let now = taken(router);
            assert!(now - before < BULK_BYTES + (SCRATCH + 2 * encoded.len()) as u64, "{} in one turn", now - before);
            if now == before {
                break;
            }
            before = now;
            turns += 1;
        }
        assert!(before > 2 * BULK_BYTES && turns > 2, "there was enough for several turns: {before}");
        router.turns();
        for _ in 0..=turns {
            assert_eq!(other.status(), 200);
        }
    }
}

/// Has a worker write as much of a response as its link takes now.
fn write_on(worker: &mut TestWorker) {
    let piece = vec![b'y'; 65_536 - 4];
    let frame = [&(piece.len() as u32).to_le_bytes()[..], &piece].concat();
    let mut rest = std::mem::take(&mut worker.unwritten);
    loop {
        if rest.is_empty() {
            rest.clone_from(&frame);
        }
        match worker.stream.write(&rest) {
            Ok(count) => drop(rest.drain(..count)),
            Err(_) => break,
        }
    }
    worker.unwritten = rest;
}

#[test]
fn a_client_that_has_not_taken_all_has_a_deadline_also_while_its_worker_goes_on() {
    let board = Steps::board();
    let router = &mut Steps::new(&board, LIMITS);
    // Many clients and no space for files: the worker waits soon.
    let nowhere = TempPlace { directory: "/nowhere".into(), limit: None };
    router.router.temp = TempFiles::new(nowhere, Arc::clone(&board), TempHolder::Router);
    (0..10_000).for_each(|_| router.router.temp.count_slow_client(true));
    let mut worker = router.worker(0);
    let mut client = router.client();
    client.get("/");
    router.turns();
    worker.take();
    client.stream.set_nonblocking(true).unwrap();
    // Space for what waits, and not for all that comes then.
    for (_, client) in router.router.clients.iter() {
        nix::sys::socket::setsockopt(&client.fd, nix::sys::socket::sockopt::SndBuf, &130_000).unwrap();
    }
    let link = worker.stream.try_clone().unwrap();
    // As fast as the router takes it.
    let writes = std::thread::spawn(move || while worker.frame(&[b'y'; 60_000]).is_ok() {});
    let mut buf = vec![0; 1 << 20];
    for _ in 0..300 {
        for _ in 0..20 {
            router.turn();
        }
        while let Ok(1..) = client.stream.read(&mut buf) {}
    }
    link.shutdown(std::net::Shutdown::Both).unwrap();
    writes.join().unwrap();
}

#[test]
fn bodies_go_on_beside_any_number_of_responses_that_go_to_files() {
    const BODY: u64 = 50_000_000;
    let board = Steps::board();
    let router = &mut Steps::new(&board, LIMITS);
    (0..10_000).for_each(|_| router.router.temp.count_slow_client(true));
    let mut slow: Vec<_> = (0..24)
        .map(|slot| {
            let mut worker = router.worker(slot);
            let mut client = router.client();
            client.get("/");
            router.turns();
            worker.take();
            worker.stream.set_nonblocking(true).unwrap();
            (worker, client)
        })
        .collect();
    let spilling =
        |router: &Steps<'_>| router.router.clients.iter().filter(|(_, client)| client.unsent.spills()).count();
    while spilling(router) < slow.len() {
        slow.iter_mut().for_each(|(worker, _)| write_on(worker));
        router.turn();
    }
    let mut upload = router.connect();
    upload.send(format!("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {BODY}\r\n\r\n"));
    upload.stream.set_nonblocking(true).unwrap();
    let taken = |router: &Steps<'_>| {
        let body = router.router.clients.iter().find_map(|(_, client)| match &client.phase {
            ClientPhase::Body(gathering) => Some(gathering.intake.len()),
            _ => None,
        });
        body.unwrap_or(0)
    };
    let mut before = 0;
    for _ in 0..5 {
        while upload.stream.write(&[b'x'; 100_000]).is_ok() {}
        for _ in 0..20 {
            slow.iter_mut().for_each(|(worker, _)| write_on(worker));
            router.turn();
        }
        let now = taken(router);
        assert!(now > before, "it waits for all the others: {now} bytes");
        before = now;
    }
}
