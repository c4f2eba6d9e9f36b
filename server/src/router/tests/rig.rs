//! The parts of the router's tests: a router in a thread, its clients, its workers.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::epoll::{EpollEvent, EpollTimeout};
use nix::unistd::pipe;
use rwsgi_stats::Address;

use crate::ids::{SlotId, ThreadIndex};
use crate::io::body::BodyLimits;
use crate::io::temp::TempPlace;
use crate::ipc::channel;
use crate::router::client::ClientPhase;
use crate::router::event_loop::{EVENTS, Flow, SCRATCH};
use crate::router::state::Router;
use crate::router::{Limits, RouterConfig, run};
use crate::stats::scoreboard::{Layout, Scoreboard};
use rwsgi_config::{MinRate, MinRates};
use rwsgi_protocol::link::{DONE_KEEP, FAST, Hello, Purpose, RequestLengths, SKIPPED};
use rwsgi_protocol::path::PathNormalize;

/// How long anything may take before the test says that it does not come.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
/// The most that a test has.
const WORKERS: u32 = 24;
pub(super) const TOKEN: [u8; 16] = *b"the secret token";
pub(super) const LIMITS: Limits = Limits {
    timeout: 30,
    keepalive: 30,
    buffer_size: 4096,
    body: BodyLimits { in_memory: 4096, most: None },
    rates: MinRates { body: MinRate::Nowhere, response: MinRate::Nowhere, grace: 1 },
    path_normalize: PathNormalize::Keep,
    queue: 10,
    show_request: rwsgi_stats::Shown { headers: false, queries: false },
    drains: false,
    overdue: u64::MAX,
    not_begun: u64::MAX,
};

/// What a router is made of, and how it is reached.
struct RouterParts {
    config: RouterConfig,
    address: SocketAddr,
    link: UnixAddr,
    /// The master's ends.
    liveness: OwnedFd,
    orders: OwnedFd,
}

fn parts(limits: Limits) -> RouterParts {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let link = UnixAddr::from_abstract_name(format!("rwsgi-router-{}-{number}", std::process::id())).unwrap();
    let link_listener = UnixListener::bind_addr(&link).unwrap();
    link_listener.set_nonblocking(true).unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let (liveness, master) = pipe().unwrap();
    let (ours, orders) = channel().unwrap();
    let bound = Address::Tcp { host: "127.0.0.1".into(), port: address.port() };
    let config = RouterConfig {
        listeners: vec![(listener.into(), bound)],
        listen_options: Vec::new(),
        certificates: None,
        link_listener: link_listener.into(),
        token: TOKEN,
        orders,
        liveness,
        limits,
        temp: TempPlace::of_test(None),
    };
    RouterParts { config, address, link, liveness: master, orders: ours }
}

/// A router that moves only when the test says so, which decides by that what crosses on its way.
pub(super) struct Steps<'a> {
    pub(super) router: Router<'a>,
    board: &'a Arc<Scoreboard>,
    address: SocketAddr,
    link: UnixAddr,
    scratch: Vec<u8>,
    _liveness: OwnedFd,
    _orders: OwnedFd,
}

impl<'a> Steps<'a> {
    pub(super) fn board() -> Arc<Scoreboard> {
        Arc::new(Scoreboard::create(Layout::new(WORKERS, 1)).unwrap())
    }

    pub(super) fn new(board: &'a Arc<Scoreboard>, limits: Limits) -> Self {
        let RouterParts { config, address, link, liveness, orders } = parts(limits);
        let router = Router::new(config, board).unwrap();
        Self { router, board, address, link, scratch: vec![0; SCRATCH], _liveness: liveness, _orders: orders }
    }

    /// A turn of the loop with what there is to do now.
    pub(super) fn turn(&mut self) {
        let mut events = [EpollEvent::empty(); EVENTS];
        assert_eq!(self.router.turn(&mut self.scratch, &mut events, EpollTimeout::ZERO).unwrap(), Flow::On);
        self.holds_together();
    }

    /// Turns until it has done all that it can.
    pub(super) fn turns(&mut self) {
        for _ in 0..5 {
            self.turn();
        }
        while !(self.router.links_again.is_empty() && self.router.clients_again.is_empty()) {
            self.turn();
        }
    }

    pub(super) fn client(&mut self) -> TestClient {
        let client = self.connect();
        self.turns();
        client
    }

    /// A client that the router has not seen yet.
    pub(super) fn connect(&self) -> TestClient {
        TestClient::connect(self.address)
    }

    /// Requests that wait for a thread.
    pub(super) fn depth(&self) -> u64 {
        self.board.router().read().unwrap().depth
    }

    /// A worker's only thread, in the slot of that number.
    pub(super) fn worker(&mut self, slot: u32) -> TestWorker {
        let worker = self.connect_worker(slot);
        self.turns();
        worker
    }

    /// A worker that the router has not seen yet.
    pub(super) fn connect_worker(&self, slot: u32) -> TestWorker {
        TestWorker::connect(&self.link, self.board, slot + 1, slot)
    }

    /// What must be true after each turn.
    fn holds_together(&mut self) {
        let Router { links, clients, threads, queue, ahead, .. } = &mut self.router;
        assert_eq!(*ahead, links.iter().map(|(_, link)| link.waiting()).sum::<usize>(), "ahead");
        let mut free = 0;
        for (key, link) in links.iter().filter(|(_, link)| link.slot.is_some()) {
            let is_free = link.dispatched.is_empty();
            assert_eq!(threads.count(key), usize::from(is_free), "among the free ones: {link:?}");
            assert!(!(is_free && link.leaving), "it could go: {link:?}");
            free += usize::from(is_free);
        }
        assert!(free == 0 || queue.is_empty(), "{free} free, {} in the queue", queue.len());
        let serving: Vec<_> = clients
            .iter()
            .filter_map(|(key, client)| match client.phase {
                ClientPhase::Serving(link) => Some((key, link)),
                _ => None,
            })
            .collect();
        for (client, link) in serving {
            let dispatched = links.get_mut(link).map(|link| link.position(client));
            assert!(matches!(dispatched, Some(Some(_))), "nobody will answer this client");
        }
        for (key, client) in clients.iter() {
            assert!(client.unsent.is_empty() || client.deadline != 0, "it may take as long as it likes: {client:?}");
            let places = queue.iter().filter(|queued| **queued == key).count();
            assert_eq!(places, usize::from(matches!(client.phase, ClientPhase::Queued(_))), "places in the queue");
        }
    }
}

/// A router in a thread of its own.
pub(super) struct HttpRouter {
    pub(super) address: SocketAddr,
    pub(super) link: UnixAddr,
    pub(super) board: Arc<Scoreboard>,
    /// Processes that each worker has had.
    processes: [AtomicU32; WORKERS as usize],
    pub(super) liveness: Option<OwnedFd>,
    pub(super) orders: OwnedFd,
    pub(super) thread: Option<JoinHandle<anyhow::Result<()>>>,
}

impl HttpRouter {
    pub(super) fn start(limits: Limits) -> Self {
        let board = Arc::new(Scoreboard::create(Layout::new(WORKERS, 1)).unwrap());
        let RouterParts { config, address, link, liveness, orders } = parts(limits);
        let thread = std::thread::spawn({
            let board = Arc::clone(&board);
            move || run(config, &board)
        });
        Self {
            address,
            link,
            board,
            processes: Default::default(),
            liveness: Some(liveness),
            orders,
            thread: Some(thread),
        }
    }

    pub(super) fn client(&self) -> TestClient {
        TestClient::connect(self.address)
    }

    pub(super) fn worker(&self, worker: u32) -> TestWorker {
        // As the master gives them: three for the processes of each worker.
        let slot = (worker - 1) * 3 + self.processes[worker as usize - 1].fetch_add(1, Ordering::Relaxed) % 3;
        TestWorker::connect(&self.link, &self.board, worker, slot)
    }

    pub(super) fn waits_for_depth(&self, depth: u64) {
        eventually(|| self.board.router().read().unwrap().depth == depth);
    }

    /// Closes the master's end.
    pub(super) fn stop(&mut self) {
        self.liveness = None;
    }

    pub(super) fn join(&mut self) {
        self.thread.take().unwrap().join().unwrap().unwrap();
    }
}

impl Drop for HttpRouter {
    fn drop(&mut self) {
        self.stop();
        // A test that failed has clients open that nobody will serve: they are closed first, being younger locals.
        if let (Some(thread), false) = (self.thread.take(), std::thread::panicking()) {
            thread.join().unwrap().unwrap();
        }
    }
}

pub(super) fn eventually(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "it does not come");
        std::thread::yield_now();
    }
}

pub(super) struct TestClient {
    pub(super) stream: TcpStream,
    /// Read beyond the last response.
    pub(super) read: Vec<u8>,
}

impl TestClient {
    pub(super) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream, read: Vec::new() }
    }

    /// Goes, and has the router see an error at its next write.
    pub(super) fn break_off(self) {
        let at_once = nix::libc::linger { l_onoff: 1, l_linger: 0 };
        nix::sys::socket::setsockopt(&self.stream, nix::sys::socket::sockopt::Linger, &at_once).unwrap();
    }

    pub(super) fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.stream.write_all(bytes.as_ref()).unwrap();
        self
    }

    pub(super) fn get(&mut self, path: &str) -> &mut Self {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"))
    }

    /// One response with a Content-Length.
    pub(super) fn response(&mut self) -> String {
        loop {
            let text = String::from_utf8_lossy(&self.read);
            if let Some((head, rest)) = text.split_once("\r\n\r\n") {
                let length =
                    head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).map_or("0", |length| length);
                let length: usize = length.parse().unwrap();
                if rest.len() >= length {
                    let end = head.len() + 4 + length;
                    return String::from_utf8(self.read.drain(..end).collect()).unwrap();
                }
            }
            let mut buf = [0; 65_536];
            let count = self.stream.read(&mut buf).unwrap();
            assert_ne!(count, 0, "closed after {:?}", String::from_utf8_lossy(&self.read));
            self.read.extend_from_slice(&buf[..count]);
        }
    }

    pub(super) fn status(&mut self) -> u16 {
        self.response()[9..12].parse().unwrap()
    }

    /// Everything up to the end of the connection.
    pub(super) fn rest(&mut self) -> std::io::Result<Vec<u8>> {
        self.stream.read_to_end(&mut self.read)?;
        Ok(std::mem::take(&mut self.read))
    }

    pub(super) fn is_closed(&mut self) -> bool {
        matches!(self.stream.read(&mut [0]), Ok(0))
    }
}

pub(super) struct TestWorker {
    pub(super) stream: UnixStream,
    board: Arc<Scoreboard>,
    pub(super) slot: u32,
    /// Requests that came.
    brought: u8,
    /// What is left of a frame that the link did not take.
    pub(super) unwritten: Vec<u8>,
}

#[derive(Debug, PartialEq)]
pub(super) struct Taken {
    pub(super) peer: String,
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl TestWorker {
    pub(super) fn connect(link: &UnixAddr, board: &Arc<Scoreboard>, worker: u32, slot: u32) -> Self {
        let mut stream = UnixStream::connect_addr(link).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(&Hello { purpose: Purpose::Serve, worker, thread: 0, slot, token: TOKEN }.encode()).unwrap();
        Self { stream, board: Arc::clone(board), slot, brought: 0, unwritten: Vec::new() }
    }

    pub(super) fn exactly(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).unwrap();
        bytes
    }

    pub(super) fn take(&mut self) -> Taken {
        self.try_take().unwrap()
    }

    /// The next request that the router did not take back; an error when none comes.
    pub(super) fn try_take(&mut self) -> std::io::Result<Taken> {
        loop {
            let (taken, is_ours) = self.next()?;
            if is_ours {
                return Ok(taken);
            }
            self.word(SKIPPED);
        }
    }

    /// The next request, and whether it is ours to serve.
    pub(super) fn next(&mut self) -> std::io::Result<(Taken, bool)> {
        let (peer, head, body_len) = self.next_head()?;
        let taken = Taken { peer, head, body: self.exactly(body_len) };
        Ok((taken, self.begin()))
    }

    /// The next request up to its body: peer, head, and the body's length.
    pub(super) fn next_head(&mut self) -> std::io::Result<(String, String, usize)> {
        let mut lengths = [0; RequestLengths::LEN];
        self.stream.read_exact(&mut lengths)?;
        self.stream.set_read_timeout(Some(PATIENCE))?;
        let lengths = RequestLengths::decode(&lengths);
        let peer = String::from_utf8(self.exactly(lengths.peer as usize)).unwrap();
        let head = String::from_utf8(self.exactly(lengths.head as usize)).unwrap();
        Ok((peer, head, lengths.body as usize))
    }

    /// Whether something has come that was not read.
    pub(super) fn has_unread(&self) -> bool {
        crate::io::receive::has_unread(&self.stream)
    }

    /// Begins with the request that came last; `false` when the router has taken it back.
    pub(super) fn begin(&mut self) -> bool {
        let number = self.brought;
        self.brought = number.wrapping_add(1);
        self.board.dispatched(SlotId::new(self.slot), ThreadIndex::new(0)).take(number)
    }

    /// The path of the next request.
    pub(super) fn path(&mut self) -> String {
        self.take().head.split(' ').nth(1).unwrap().into()
    }

    pub(super) fn frame(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(&(bytes.len() as u32).to_le_bytes())?;
        self.stream.write_all(bytes)
    }

    pub(super) fn word(&mut self, word: u32) {
        self.stream.write_all(&word.to_le_bytes()).unwrap();
    }

    pub(super) fn answer(&mut self, text: &str) {
        let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
        self.frame(response.as_bytes()).unwrap();
        self.word(DONE_KEEP);
    }

    pub(super) fn answer_fast(&mut self, text: &str) {
        let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
        self.frame(response.as_bytes()).unwrap();
        self.word(DONE_KEEP | FAST);
    }

    /// Answers the next request with its own path.
    pub(super) fn echo(&mut self) {
        let path = self.path();
        self.answer(&path);
    }

    pub(super) fn is_closed(&mut self) -> bool {
        matches!(self.stream.read(&mut [0]), Ok(0))
    }
}
