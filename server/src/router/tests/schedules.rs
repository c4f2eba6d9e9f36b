//! Any order of what clients, workers and the router do: each request is served once at most, each answer goes to its
//! own client, and nobody waits forever.

use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{Read, Write};
use std::time::Instant;

use proptest::prelude::*;

use super::rig::*;
use crate::io::body::BodyLimits;
use crate::router::Limits;
use rwsgi_protocol::link::{DONE_KEEP, FAST, LEAVING, RequestLengths, SKIPPED};

const CLIENTS: usize = 5;
const SLOTS: usize = 3;
/// Around the longest body that is sent ahead.
const BODIES: [usize; 6] = [0, 0, 10, 16_384, 16_385, 40_000];

struct Worker {
    link: TestWorker,
    input: Vec<u8>,
    /// The request that it is at.
    at: Option<usize>,
    /// A piece of the answer was sent.
    answering: bool,
    leave_sent: bool,
}

#[derive(Default)]
struct Asking {
    client: Option<TestClient>,
    outgoing: VecDeque<u8>,
    expected: VecDeque<usize>,
}

struct World<'a> {
    router: Steps<'a>,
    workers: [Option<Worker>; SLOTS],
    clients: [Asking; CLIENTS],
    requests: usize,
    /// How often each request was begun with.
    begun: HashMap<usize, usize>,
    /// Requests that a worker had when it died, and those with bodies that the router does not keep once they are sent.
    lost: HashSet<usize>,
}

impl World<'_> {
    fn step(&mut self, what: u8, which: usize, size: usize) {
        let (client, worker) = (which % CLIENTS, which % SLOTS);
        match what {
            0..4 => self.ask(client, size, 1 + which / CLIENTS % 2),
            4..7 => self.take(worker),
            7..9 => self.answer(worker, size % 50, !which.is_multiple_of(4)),
            9 => self.begin_answer(worker),
            10 => self.kill(worker),
            11 => self.join(worker),
            12 => self.leave(worker),
            13 => self.clients[client] = Asking::default(),
            _ => self.router.turn(),
        }
        self.read_answers();
    }

    fn ask(&mut self, client: usize, size: usize, count: usize) {
        let asking = &mut self.clients[client];
        if asking.client.is_none() {
            let connected = self.router.connect();
            connected.stream.set_nonblocking(true).unwrap();
            asking.client = Some(connected);
        }
        for _ in 0..count {
            let (number, len) = (self.requests, BODIES[size % BODIES.len()]);
            self.requests += 1;
            if len > 16_384 {
                self.lost.insert(number);
            }
            asking
                .outgoing
                .extend(format!("POST /{number} HTTP/1.1\r\nHost: a\r\nContent-Length: {len}\r\n\r\n").bytes());
            asking.outgoing.extend(std::iter::repeat_n(number as u8, len));
            asking.expected.push_back(number);
        }
    }

    fn join(&mut self, slot: usize) {
        if self.workers[slot].is_none() {
            let link = self.router.connect_worker(slot as u32);
            link.stream.set_nonblocking(true).unwrap();
            self.workers[slot] =
                Some(Worker { link, input: Vec::new(), at: None, answering: false, leave_sent: false });
        }
    }

    fn kill(&mut self, slot: usize) {
        if let Some(worker) = self.workers[slot].take() {
            self.lost.extend(worker.at);
        }
    }

    fn leave(&mut self, slot: usize) {
        if let Some(worker) = &mut self.workers[slot]
            && !std::mem::replace(&mut worker.leave_sent, true)
            && worker.link.stream.write_all(&LEAVING.to_le_bytes()).is_err()
        {
            self.kill(slot);
        }
    }

    /// Begins with the next request, if it is there.
    fn take(&mut self, slot: usize) {
        let Some(worker) = &mut self.workers[slot] else { return };
        if worker.at.is_some() {
            return;
        }
        let Some(lengths) = worker.fill() else { return self.kill(slot) };
        let Some(lengths) = lengths else { return };
        let RequestLengths { head: head_len, peer: peer_len, body: body_len, .. } = lengths;
        let rest = worker.input.split_off(RequestLengths::LEN + (head_len + peer_len) as usize + body_len as usize);
        let request = std::mem::replace(&mut worker.input, rest);
        let (head, body) = request[RequestLengths::LEN + peer_len as usize..].split_at(head_len as usize);
        let number: usize = std::str::from_utf8(head).unwrap().split([' ', '/']).nth(2).unwrap().parse().unwrap();
        assert!(body.iter().all(|byte| *byte == number as u8), "the body of {number}");
        if worker.link.begin() {
            worker.at = Some(number);
            let begun = self.begun.entry(number).or_default();
            *begun += 1;
            assert_eq!(*begun, 1, "{number} is served twice");
        } else if worker.link.stream.write_all(&SKIPPED.to_le_bytes()).is_err() {
            self.kill(slot);
        }
    }

    fn begin_answer(&mut self, slot: usize) {
        if let Some(worker) = &mut self.workers[slot]
            && let Some(number) = worker.at
            && !std::mem::replace(&mut worker.answering, true)
            && worker.link.frame(format!("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{number:04}").as_bytes()).is_err()
        {
            self.kill(slot);
        }
    }

    fn answer(&mut self, slot: usize, empty: usize, fast: bool) {
        self.begin_answer(slot);
        let Some(worker) = &mut self.workers[slot] else { return };
        let Some(number) = worker.at else { return };
        let mut bytes = vec![0; 4 * empty];
        for digit in format!("{number:04}").bytes() {
            bytes.extend_from_slice(&1_u32.to_le_bytes());
            bytes.push(digit);
        }
        bytes.extend_from_slice(&(DONE_KEEP | if fast { FAST } else { 0 }).to_le_bytes());
        if worker.link.stream.write_all(&bytes).is_err() {
            return self.kill(slot);
        }
        worker.at = None;
        worker.answering = false;
    }

    /// Clients send what they have to, and look at what has come.
    fn read_answers(&mut self) {
        for asking in &mut self.clients {
            let Some(client) = &mut asking.client else { continue };
            let (waiting, _) = asking.outgoing.as_slices();
            if let Ok(count) = client.stream.write(waiting) {
                asking.outgoing.drain(..count);
            }
            let mut buffer = [0; 4096];
            let mut is_over = loop {
                match client.stream.read(&mut buffer) {
                    Ok(0) => break true,
                    Ok(count) => client.read.extend_from_slice(&buffer[..count]),
                    Err(error) => break error.kind() != std::io::ErrorKind::WouldBlock,
                }
            };
            while let Some(at) = client.read.windows(4).position(|window| window == b"\r\n\r\n") {
                if client.read.starts_with(b"HTTP/1.1 200") {
                    if client.read.len() < at + 12 {
                        break;
                    }
                    let response: Vec<u8> = client.read.drain(..at + 12).collect();
                    let number = asking.expected.pop_front().expect("an answer to nothing");
                    assert_eq!(String::from_utf8_lossy(&response[at + 4..]), format!("{number:04}{number:04}"));
                } else {
                    is_over = true;
                    break;
                }
            }
            if is_over {
                let first = asking.expected.front().expect("closed without a reason");
                let said = String::from_utf8_lossy(&client.read);
                assert!(self.lost.contains(first), "{first} was not answered: {said:?}");
                *asking = Asking::default();
            }
        }
    }

    /// All are served that are not.
    fn finish(&mut self) {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            // What clients had asked for before they went is served too, as long as it is not known that they have.
            if self.clients.iter().all(|asking| asking.expected.is_empty()) {
                self.router.turns();
                if self.router.depth() == 0 {
                    break;
                }
            }
            for slot in 0..SLOTS {
                self.join(slot);
                self.take(slot);
                self.answer(slot, 0, true);
            }
            self.router.turn();
            self.read_answers();
        }
        for (number, asking) in self.clients.iter().enumerate() {
            assert!(asking.expected.is_empty(), "client {number} waits for {:?}", asking.expected);
        }
        assert_eq!(self.router.depth(), 0);
    }
}

impl Worker {
    /// Reads what is there: `None` when the link is closed, and the lengths of a request that is there as a whole.
    fn fill(&mut self) -> Option<Option<RequestLengths>> {
        let mut buffer = [0; 65_536];
        let closed = loop {
            match self.link.stream.read(&mut buffer) {
                Ok(0) => break true,
                Ok(count) => self.input.extend_from_slice(&buffer[..count]),
                Err(error) => break error.kind() != std::io::ErrorKind::WouldBlock,
            }
        };
        let whole = self.input.first_chunk().map(RequestLengths::decode).filter(|lengths| {
            let len = RequestLengths::LEN + (lengths.head + lengths.peer) as usize + lengths.body as usize;
            self.input.len() >= len
        });
        if closed && whole.is_none() { None } else { Some(whole) }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn whatever_happens_each_client_gets_its_own_answers_and_nobody_waits_for_ever(
        steps in prop::collection::vec((0u8..18, 0usize..60, any::<usize>()), 1..150),
        overdue in prop::sample::select(vec![0, u64::MAX]),
        // Now and then, and in every turn.
        not_begun in prop::sample::select(vec![0, 200_000, u64::MAX]),
    ) {
        let board = Steps::board();
        let body = BodyLimits::new(1_000_000, 0);
        let router = Steps::new(&board, Limits { overdue, not_begun, body, queue: 1_000, ..LIMITS });
        let mut world = World {
            router,
            workers: Default::default(),
            clients: Default::default(),
            requests: 0,
            begun: HashMap::new(),
            lost: HashSet::new(),
        };
        world.join(0);
        for (what, which, size) in steps {
            world.step(what, which, size);
        }
        world.finish();
    }
}
