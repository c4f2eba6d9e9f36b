//! One question to one server, without waiting: connect, ask if that is needed, read to the end. Whoever drives it calls
//! [`Exchange::advance`] when the socket has something, and from time to time.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};

use crate::source::SourceError;
use crate::source::fetch::{ASK_FOR_STATS, Head, UNASKED, is_reply};

/// A document of a server that has thousands of busy threads is below this. Hundreds of servers answer at once.
const LARGEST: usize = 8 << 20;
/// What a read makes room for.
const STEP: usize = 32 << 10;

/// How a server is asked.
#[derive(Clone, Debug)]
pub(super) struct Question {
    /// Sent first; empty where the document comes unasked.
    pub(super) request: Vec<u8>,
    /// It may be a control socket, which is asked when nothing comes.
    pub(super) may_be_control: bool,
    /// It was one the last time.
    pub(super) is_control: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// To be connected, now or when the other end's queue has room.
    Unconnected,
    Connecting,
    Connected,
}

/// A question under way.
#[derive(Debug)]
pub(super) struct Exchange {
    question: Question,
    /// Where to connect; those before `place` did not answer.
    addresses: Vec<SockAddr>,
    place: usize,
    socket: Option<Socket>,
    stage: Stage,
    sent: usize,
    asked: bool,
    bytes: Vec<u8>,
    /// Where an HTTP body ends.
    whole: Option<usize>,
    begun: Instant,
    timeout: Duration,
}

/// How far an exchange is.
#[derive(Debug)]
pub(super) enum Progress {
    /// It waits. `true`: on another socket than before, which has to be watched.
    Waits(bool),
    /// All was read; empty if nothing came.
    Done(Vec<u8>),
    /// It came to nothing.
    Failed(SourceError),
}

impl Exchange {
    /// With whoever answers first of several addresses; `room` is a buffer, whose contents are of no interest.
    pub(super) fn new(
        question: Question,
        addresses: Vec<SockAddr>,
        mut room: Vec<u8>,
        now: Instant,
        timeout: Duration,
    ) -> Self {
        room.clear();
        Self {
            question,
            addresses,
            place: 0,
            socket: None,
            stage: Stage::Unconnected,
            sent: 0,
            asked: false,
            bytes: room,
            whole: None,
            begun: now,
            timeout,
        }
    }

    /// What is to be watched.
    pub(super) fn socket(&self) -> Option<&Socket> {
        self.socket.as_ref()
    }

    /// Which of the addresses it is with.
    pub(super) fn place(&self) -> usize {
        self.place
    }

    /// Bytes that it holds.
    pub(super) fn size(&self) -> usize {
        self.bytes.capacity()
    }

    /// When it has to be looked at even if nothing comes.
    pub(super) fn look(&self, now: Instant) -> Instant {
        match self.stage {
            Stage::Unconnected => now + UNASKED / 10,
            Stage::Connecting => self.patience(),
            Stage::Connected if self.waits_to_be_asked() => self.begun + UNASKED,
            Stage::Connected => self.begun + self.timeout,
        }
    }

    /// Goes on as far as it can.
    pub(super) fn advance(&mut self, now: Instant) -> Progress {
        if now >= self.begun + self.timeout {
            let unasked = self.question.request.is_empty() && !self.question.may_be_control;
            let is_silent = self.stage == Stage::Connected && self.bytes.is_empty();
            return Progress::Failed(match unasked && is_silent {
                true => SourceError::Silent(self.timeout),
                false => SourceError::TimedOut(self.timeout),
            });
        }
        let mut changed = false;
        loop {
            let stepped = match self.stage {
                Stage::Unconnected => {
                    changed = true;
                    self.connect()
                }
                Stage::Connecting => self.check(now),
                Stage::Connected => return self.talk(now).unwrap_or(Progress::Waits(changed)),
            };
            match stepped {
                Ok(true) => {}
                Ok(false) => return Progress::Waits(changed),
                // The next address at once; after the last one there is nobody.
                Err(error) => {
                    self.socket = None;
                    self.stage = Stage::Unconnected;
                    self.place += 1;
                    if self.place >= self.addresses.len() {
                        return Progress::Failed(if error.kind() == io::ErrorKind::TimedOut {
                            SourceError::TimedOut(self.timeout)
                        } else {
                            SourceError::Connect(error)
                        });
                    }
                }
            }
        }
    }

    /// The buffer, for the next.
    pub(super) fn into_room(self) -> Vec<u8> {
        self.bytes
    }

    /// Until when this address may be silent: each has its part of the time.
    fn patience(&self) -> Instant {
        let addresses = self.addresses.len().max(1) as u32;
        self.begun + self.timeout / addresses * (self.place as u32 + 1)
    }

    fn connect(&mut self) -> io::Result<bool> {
        let address = self.addresses.get(self.place).ok_or(io::ErrorKind::AddrNotAvailable)?;
        let domain = if address.is_unix() { Domain::UNIX } else { address.domain() };
        let socket = Socket::new(domain, Type::STREAM.nonblocking(), None)?;
        self.stage = match socket.connect(address) {
            Ok(()) => Stage::Connected,
            // A unix socket's queue is full: nothing tells when it has room.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {
                Stage::Connecting
            }
            Err(error) => return Err(error),
        };
        self.socket = Some(socket);
        Ok(self.stage == Stage::Connected)
    }

    /// Whether the connection is there.
    fn check(&mut self, now: Instant) -> io::Result<bool> {
        let Some(socket) = &self.socket else { return Err(io::ErrorKind::NotConnected.into()) };
        if let Some(error) = socket.take_error()? {
            return Err(error);
        }
        match socket.peer_addr() {
            Ok(_) => {
                self.stage = Stage::Connected;
                Ok(true)
            }
            Err(error) if error.kind() != io::ErrorKind::NotConnected => Err(error),
            Err(_) if now >= self.patience() => Err(io::ErrorKind::TimedOut.into()),
            Err(_) => Ok(false),
        }
    }

    fn waits_to_be_asked(&self) -> bool {
        self.question.may_be_control && !self.asked && self.bytes.is_empty()
    }

    /// Sends what is to be sent, and reads what there is; `None` when more is to come.
    fn talk(&mut self, now: Instant) -> Option<Progress> {
        let mut socket = self.socket.as_ref()?;
        while self.sent < self.question.request.len() {
            match socket.write(&self.question.request[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) => return Some(Progress::Failed(SourceError::Read(error))),
            }
        }
        if self.waits_to_be_asked() && (self.question.is_control || now >= self.begun + UNASKED) {
            self.asked = true;
            // Whoever does not read it closes the connection, or has gone on to send a document after all.
            let _ = socket.write(ASK_FOR_STATS);
        }
        loop {
            let length = self.bytes.len();
            if length > LARGEST {
                return Some(Progress::Failed(SourceError::TooLarge(LARGEST)));
            }
            let count = match read_more(&mut socket, &mut self.bytes) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                // Some servers close with unread input and the kernel resets; what came before it may be whole.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset && length > 0 => 0,
                Err(error) => return Some(Progress::Failed(SourceError::Read(error))),
            };
            if count == 0 || is_whole(&self.bytes, &mut self.whole) {
                return Some(Progress::Done(std::mem::take(&mut self.bytes)));
            }
        }
    }
}

/// Whether more need not be read, though the connection is open. `whole` is where an HTTP body ends, once that is known.
fn is_whole(bytes: &[u8], whole: &mut Option<usize>) -> bool {
    // A control socket stays open: its answer is a line.
    if bytes.ends_with(b"\n") && is_reply(bytes) {
        return true;
    }
    if whole.is_none()
        && let Some(Ok(Head { length: head, body: Some(body), .. })) = Head::of(bytes)
    {
        *whole = Some(head.saturating_add(body));
    }
    whole.is_some_and(|whole| bytes.len() >= whole)
}

/// Reads once, a step at most.
fn read_more(socket: &mut &Socket, bytes: &mut Vec<u8>) -> io::Result<usize> {
    let length = bytes.len();
    // Filling it up costs less than what a step less for each system call would.
    bytes.resize(length + STEP, 0);
    let count = socket.read(&mut bytes[length..]);
    bytes.truncate(length + count.as_ref().map_or(0, |count| *count));
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::thread;

    const TIMEOUT: Duration = Duration::from_secs(30);

    fn question(request: &[u8]) -> Question {
        Question { request: request.to_vec(), may_be_control: false, is_control: false }
    }

    fn begin(question: Question, addresses: &[SocketAddr]) -> Exchange {
        let addresses = addresses.iter().map(|address| (*address).into()).collect();
        Exchange::new(question, addresses, Vec::new(), Instant::now(), TIMEOUT)
    }

    /// Drives it as the engine does, but without waiting for sockets.
    fn drive(mut exchange: Exchange) -> (Result<Vec<u8>, SourceError>, usize) {
        loop {
            let progress = exchange.advance(Instant::now());
            let place = exchange.place();
            match progress {
                Progress::Waits(_) => thread::sleep(Duration::from_millis(1)),
                Progress::Done(bytes) => return (Ok(bytes), place),
                Progress::Failed(error) => return (Err(error), place),
            }
        }
    }

    /// Serves one connection.
    fn serving(serve: impl FnOnce(TcpStream) + Send + 'static) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || serve(listener.accept().unwrap().0));
        address
    }

    fn nobody() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    #[test]
    fn a_document_of_any_length_is_read_to_its_end() {
        for length in [0, 1, STEP - 1, STEP, STEP + 1, 40 * STEP + 7] {
            let address = serving(move |mut stream| stream.write_all(&vec![b'x'; length]).unwrap());
            assert_eq!(drive(begin(question(b""), &[address])).0.unwrap().len(), length);
        }
    }

    #[test]
    fn an_http_answer_ends_where_its_length_says() {
        let address = serving(|mut stream| {
            let mut asked = [0; 64];
            let count = stream.read(&mut asked).unwrap();
            assert_eq!(&asked[..count], b"GET / HTTP/1.0\r\n\r\n");
            stream.write_all(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}").unwrap();
            // It keeps the connection open until the client has gone.
            assert_eq!(stream.read(&mut asked).unwrap(), 0);
        });
        let answer = drive(begin(question(b"GET / HTTP/1.0\r\n\r\n"), &[address])).0.unwrap();
        assert!(answer.ends_with(b"\r\n\r\n{}"));
    }

    #[test]
    fn an_address_that_refuses_is_passed_over() {
        let good = serving(|mut stream| stream.write_all(b"{}").unwrap());
        let (answer, place) = drive(begin(question(b""), &[nobody(), good]));
        assert_eq!((answer.unwrap(), place), (b"{}".to_vec(), 1));
        let error = drive(begin(question(b""), &[nobody(), nobody()])).0.unwrap_err();
        assert!(error.to_string().contains("refused"), "{error}");
    }

    #[test]
    fn a_server_that_says_nothing_has_its_time_and_no_more() {
        let address = serving(|mut stream| {
            let _ = stream.read(&mut [0; 1]);
        });
        let mut exchange = begin(question(b""), &[address]);
        let now = Instant::now();
        assert!(matches!(exchange.advance(now), Progress::Waits(true)));
        assert!(exchange.look(now) <= now + TIMEOUT);
        // It is connected meanwhile.
        assert!(matches!(exchange.advance(now), Progress::Waits(false)));
        let later = now + TIMEOUT + Duration::from_millis(1);
        assert!(matches!(exchange.advance(later), Progress::Failed(SourceError::Silent(_))));
    }

    #[test]
    fn a_stream_without_an_end_is_given_up() {
        let address = serving(|mut stream| while stream.write_all(&[b' '; STEP]).is_ok() {});
        let error = drive(begin(question(b""), &[address])).0.unwrap_err();
        assert!(matches!(error, SourceError::TooLarge(LARGEST)), "{error}");
    }
}
