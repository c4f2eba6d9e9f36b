use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::gathered::{Added, Gathered, MOST};
use super::{HELD, Streams};
use crate::clock::MonotonicNanos;

fn at(nanos: u64) -> MonotonicNanos {
    MonotonicNanos::from_nanos(nanos)
}

fn pair() -> (Arc<OwnedFd>, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    theirs.set_nonblocking(true).unwrap();
    (Arc::new(ours.into()), theirs)
}

fn read(mut client: &UnixStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    let _ = client.read_to_end(&mut bytes);
    bytes
}

/// No space for a byte more.
fn fill(socket: &OwnedFd) {
    let filling = [b'f'; 4096];
    while rustix::net::send(socket, &filling, rustix::net::SendFlags::empty()).is_ok() {}
    while rustix::net::send(socket, b"f", rustix::net::SendFlags::empty()).is_ok() {}
}

fn add(gathered: &Gathered, socket: &Arc<OwnedFd>, piece: &[u8], now: u64) -> Added {
    gathered.add(socket, false, &[b"", piece], piece.len(), at(now)).unwrap()
}

#[test]
fn the_other_thread_sends_what_was_held_long_enough() {
    let (socket, client) = pair();
    let gathered = Gathered::default();
    assert_eq!(gathered.send_due(at(u64::MAX)), 0, "nothing is there");
    assert_eq!(add(&gathered, &socket, b"one ", 5), Added::Begun);
    assert_eq!(add(&gathered, &socket, b"two", 9), Added::More);
    assert_eq!(gathered.send_due(at(4 + HELD)), 5 + HELD, "too early");
    assert_eq!(read(&client), b"");
    assert_eq!(gathered.send_due(at(5 + HELD)), 0);
    assert_eq!(read(&client), b"one two");
    assert_eq!(add(&gathered, &socket, b"three", 10 + HELD), Added::Begun);
    let taken = gathered.take();
    assert_eq!((taken.rest(), taken.sent, gathered.due()), (&b"three"[..], 7, 0));
    gathered.give_back(taken);
    assert_eq!(add(&gathered, &socket, b"four", 20 + HELD), Added::Begun, "nothing is left of what was taken");
    assert_eq!(gathered.take().rest(), b"four");
}

#[test]
fn all_that_is_sent_at_once_is_one_frame_of_a_link() {
    let (socket, client) = pair();
    let gathered = Gathered::default();
    for piece in [&b"ab"[..], b"cde"] {
        gathered.add(&socket, true, &[piece], piece.len(), at(1)).unwrap();
    }
    gathered.send_due(at(1 + HELD));
    assert_eq!(read(&client), b"\x05\0\0\0abcde");
}

#[test]
fn a_full_buffer_takes_no_more() {
    let (socket, _client) = pair();
    let gathered = Gathered::default();
    assert_eq!(add(&gathered, &socket, &[b'x'; MOST - 1], 1), Added::Begun);
    assert_eq!(add(&gathered, &socket, b"12", 2), Added::Full);
    assert_eq!(add(&gathered, &socket, b"1", 2), Added::More);
    assert_eq!(gathered.take().rest().len(), MOST);
}

#[test]
fn a_client_that_does_not_read_is_tried_less_and_less_often_and_its_thread_waits_for_it() {
    let (socket, client) = pair();
    fill(&socket);
    let gathered = Gathered::default();
    assert_eq!(add(&gathered, &socket, b"late", 0), Added::Begun);
    let mut now = HELD;
    let mut pauses = Vec::new();
    for _ in 0..8 {
        let next = gathered.send_due(at(now));
        pauses.push((next - now) / HELD);
        now = next;
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 32, 32]);
    assert_eq!(add(&gathered, &socket, b"later", now), Added::Full);
    read(&client);
    assert_eq!(gathered.send_due(at(now)), 0);
    assert_eq!(read(&client), b"late");
    assert_eq!(add(&gathered, &socket, b"again", now), Added::Begun);
}

#[test]
fn a_client_that_is_gone_is_told_of_once() {
    let (socket, client) = pair();
    drop(client);
    let gathered = Gathered::default();
    assert_eq!(add(&gathered, &socket, b"nobody", 0), Added::Begun);
    assert_eq!(gathered.send_due(at(HELD)), 0);
    gathered.add(&socket, false, &[b"reads"], 5, at(HELD)).unwrap_err();
    assert!(gathered.take().failure.is_none());
}

/// Waits for bytes that the sender sends by itself.
fn arrives(client: &UnixStream, expected: &[u8]) {
    let until = Instant::now() + Duration::from_secs(30);
    let mut bytes = Vec::new();
    while bytes.len() < expected.len() && Instant::now() < until {
        bytes.extend(read(client));
        std::thread::yield_now();
    }
    assert_eq!(bytes, expected);
}

fn gather(streams: &Arc<Streams>, thread: usize, socket: &Arc<OwnedFd>, piece: &[u8]) {
    if add(&streams.gathered[thread], socket, piece, MonotonicNanos::now().as_nanos()) == Added::Begun {
        streams.begun();
    }
}

#[test]
fn the_sender_sends_what_its_thread_does_not_and_comes_back_when_it_was_ended() {
    let (socket, client) = pair();
    let streams = Streams::new(2);
    for round in 0..20 {
        gather(&streams, 1, &socket, b"some");
        gather(&streams, 1, &socket, b" more");
        if round % 4 == 3 {
            // As around a fork: nothing is left then that needs a thread.
            streams.end_sender();
            assert_eq!(streams.gathered[1].due(), 0);
            streams.begin_again();
            assert!(streams.sender.sleeps());
        }
        arrives(&client, b"some more");
    }
    streams.end_sender();
}

#[test]
fn a_client_that_does_not_read_holds_up_no_other() {
    let (slow, _does_not_read) = pair();
    let (socket, client) = pair();
    fill(&slow);
    let streams = Streams::new(2);
    gather(&streams, 0, &slow, b"late");
    let until = Instant::now() + Duration::from_secs(30);
    while !streams.sender.sleeps() && Instant::now() < until {
        std::thread::yield_now();
    }
    assert!(streams.sender.sleeps(), "it waits where nobody would wake it");
    gather(&streams, 1, &socket, b"in time");
    arrives(&client, b"in time");
    streams.end_sender();
}

#[test]
fn what_a_slow_client_has_not_taken_before_a_fork_is_sent_after_it() {
    let (socket, client) = pair();
    fill(&socket);
    let streams = Streams::new(1);
    gather(&streams, 0, &socket, b"late");
    streams.end_sender();
    streams.begin_again();
    read(&client);
    arrives(&client, b"late");
    streams.end_sender();
}

#[test]
fn a_child_sends_nothing_of_its_parent_s() {
    let (socket, client) = pair();
    let streams = Streams::new(1);
    streams.end_sender();
    add(&streams.gathered[0], &socket, b"the parent's", MonotonicNanos::now().as_nanos());
    streams.detach();
    streams.begin_again();
    streams.end_sender();
    assert_eq!(read(&client), b"");
}
