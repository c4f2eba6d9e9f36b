//! One connection, one document: connect, ask if it is HTTP, read to the end, all within one deadline.
//!
//! Not `ureq`: only the answer tells whether a server speaks HTTP, and that of one that does not is a document all the same.

use std::io::{self, Read, Write};
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use socket2::Socket;

use super::connect::{Connector, Deadline};
use super::{Document, Reader, SourceError, Target};

/// Sixty-four thousand busy workers are below this; a stream that never ends is above it.
const LARGEST: usize = 256 << 20;
/// No head of an HTTP answer is longer.
const LONGEST_HEAD: usize = 64 << 10;
/// How long a unix socket may take to send its document unasked, before it is asked as a control socket.
pub(super) const UNASKED: Duration = Duration::from_millis(250);
pub(super) const ASK_FOR_STATS: &[u8] = b"{\"do\":\"stats\"}\n";

/// Reads one server's documents.
#[derive(Debug)]
pub(crate) struct Fetcher {
    target: Target,
    timeout: Duration,
    connector: Connector,
    reader: Reader,
    /// The address is a control socket's: it waits to be asked.
    control: bool,
}

impl Fetcher {
    /// Of a server that has so long to answer.
    pub(crate) fn new(target: Target, timeout: Duration) -> Self {
        Self { target, timeout, connector: Connector::default(), reader: Reader::default(), control: false }
    }

    /// Whether a control socket gave the last document.
    pub(crate) fn speaks_control(&self) -> bool {
        self.control
    }

    /// Reads one document, within the time-out in all.
    ///
    /// # Errors
    /// Whatever kept a whole document from arriving in time.
    pub(crate) fn fetch(&mut self) -> Result<Document, SourceError> {
        let deadline = Deadline::within(self.timeout);
        let bytes = self.exchange(&deadline).map_err(|error| match &self.target {
            Target::Tunnel(tunnel) => tunnel.explain(error),
            _ => error,
        })?;
        self.control = self.target.may_be_control() && is_reply(&bytes);
        if self.control {
            return self.reader.parse(document_of(&bytes)?);
        }
        // A stats server that speaks HTTP is recognized even when the address did not say so.
        self.reader.parse(if bytes.starts_with(b"HTTP/") { body_of(bytes)? } else { bytes })
    }

    /// Connects, asks, and reads to the end.
    fn exchange(&mut self, deadline: &Deadline) -> Result<Vec<u8>, SourceError> {
        if let Target::Tunnel(tunnel) = &self.target {
            tunnel.wait(deadline)?;
        }
        let mut socket = self.connector.connect(self.target.address(), deadline)?;
        if let Some(request) = self.target.request() {
            socket.set_write_timeout(Some(deadline.left()?)).map_err(SourceError::Read)?;
            socket.write_all(request.as_bytes()).map_err(|error| deadline.classify(error))?;
        }
        if self.target.may_be_control() && (self.control || is_silent(&socket, deadline)?) {
            // Whoever does not read it closes the connection, or has gone on to send a document after all.
            let _ = socket.write_all(ASK_FOR_STATS);
        }
        let unasked = self.target.request().is_none() && !self.target.may_be_control();
        let read = read_to_end(&socket, self.reader.room(), deadline);
        let bytes = if unasked { read } else { read.map_err(SourceError::of_who_was_asked) }?;
        // A tunnel is connected to even where nobody listens at its far end.
        if bytes.is_empty() && matches!(self.target, Target::Tunnel(_)) { Err(SourceError::Empty) } else { Ok(bytes) }
    }
}

/// Whether nothing comes unasked: then it may be a control socket.
fn is_silent(socket: &Socket, deadline: &Deadline) -> Result<bool, SourceError> {
    socket.set_read_timeout(Some(UNASKED.min(deadline.left()?))).map_err(SourceError::Read)?;
    match socket.peek(&mut [std::mem::MaybeUninit::uninit()]) {
        Err(error) => Ok(matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)),
        Ok(_) => Ok(false),
    }
}

/// Whether this begins as a control socket's answer does.
pub(super) fn is_reply(bytes: &[u8]) -> bool {
    [&b"{\"done\""[..], b"{\"failed\""].iter().any(|start| bytes.starts_with(start))
}

/// What a control socket says when it is asked for the stats.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum StatsReply<'a> {
    #[serde(borrow)]
    Done(Stats<'a>),
    Failed(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Stats<'a> {
    #[serde(borrow)]
    Stats(&'a RawValue),
}

/// The document of a control socket's answer, as it was written.
pub(super) fn document_of(answer: &[u8]) -> Result<Vec<u8>, SourceError> {
    match serde_json::from_slice(answer) {
        Ok(StatsReply::Done(Stats::Stats(document))) => Ok(document.get().as_bytes().to_vec()),
        Ok(StatsReply::Failed(why)) => Err(SourceError::not_stats(&why)),
        Err(error) if error.is_eof() => Err(SourceError::Half(answer.len())),
        Err(error) => Err(SourceError::not_stats(&error)),
    }
}

/// The head of an HTTP answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Its length, with the empty line.
    pub(super) length: usize,
    pub(super) status: u16,
    /// Length of the body, where it is told.
    pub(super) body: Option<usize>,
}

impl Head {
    /// Reads a head; `None` when there is not all of it yet.
    pub(super) fn of(answer: &[u8]) -> Option<Result<Self, SourceError>> {
        if !answer.starts_with(b"HTTP/") {
            return None;
        }
        let searched = &answer[..answer.len().min(LONGEST_HEAD)];
        let end = searched.windows(4).position(|window| window == b"\r\n\r\n")?;
        Some(Self::parse(&answer[..end], end + 4).map_err(SourceError::NotStats))
    }

    fn parse(head: &[u8], length: usize) -> Result<Self, String> {
        let text = String::from_utf8_lossy(head);
        let mut lines = text.split("\r\n");
        let status = lines.next().and_then(|line| line.split_ascii_whitespace().nth(1)?.parse().ok());
        let status = status.ok_or("its HTTP status line cannot be read")?;
        let mut body = None;
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            if name.eq_ignore_ascii_case("content-length") {
                let told = value.trim().parse().map_err(|_| "its Content-Length is not a number")?;
                if body.is_some_and(|before| before != told) {
                    return Err("it has two different Content-Lengths".to_owned());
                }
                body = Some(told);
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                return Err("its body is chunked, which HTTP/1.0 does not know".to_owned());
            }
        }
        Ok(Self { length, status, body })
    }
}

/// Tells a server that has sent nothing from one that has not sent all.
fn silent(error: SourceError, length: usize) -> SourceError {
    match error {
        SourceError::TimedOut(timeout) if length == 0 => SourceError::Silent(timeout),
        error => error,
    }
}

/// Reads into `bytes`, whose contents are of no interest: a document is about as long as the one before. Ends where the
/// answer does: with the connection, or after an HTTP body of the length that was told.
pub(super) fn read_to_end(socket: &Socket, mut bytes: Vec<u8>, deadline: &Deadline) -> Result<Vec<u8>, SourceError> {
    let mut length = 0;
    bytes.resize(bytes.len() + 4 * 1024, 0);
    let mut allowed = Duration::MAX;
    let mut whole = None;
    while whole.is_none_or(|whole| length < whole) {
        let left = deadline.left().map_err(|error| silent(error, length))?;
        // A document comes in dozens of pieces within a millisecond; the system need not be told of each.
        if allowed - left > deadline.timeout / 16 {
            socket.set_read_timeout(Some(left)).map_err(SourceError::Read)?;
            allowed = left;
        }
        if length == bytes.len() {
            bytes.resize(length + 64 * 1024, 0);
        }
        let mut reader: &Socket = socket;
        match reader.read(&mut bytes[length..]) {
            Ok(0) => break,
            Ok(_) if length > LARGEST => return Err(SourceError::TooLarge(LARGEST)),
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Some servers close with unread input and the kernel resets; what came before it may be whole.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset && length > 0 => break,
            Err(error) => return Err(silent(deadline.classify(error), length)),
        }
        // A control socket stays open: its answer is a line.
        if bytes[..length].ends_with(b"\n") && is_reply(&bytes[..length]) {
            break;
        }
        if whole.is_none()
            && let Some(Ok(Head { length: head, body: Some(body), .. })) = Head::of(&bytes[..length])
        {
            whole = Some(head.saturating_add(body));
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

/// The body of a whole HTTP answer, if its status is 200.
pub(super) fn body_of(mut answer: Vec<u8>) -> Result<Vec<u8>, SourceError> {
    let head = Head::of(&answer).ok_or(SourceError::Half(answer.len()))??;
    if head.status != 200 {
        return Err(SourceError::Status(head.status));
    }
    answer.drain(..head.length);
    if let Some(body) = head.body {
        if answer.len() < body {
            return Err(SourceError::Short { sent: answer.len(), told: body });
        }
        answer.truncate(body);
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::thread;

    const DOCUMENT: &str = r#"{"version":"1","pid":7,"workers":[]}"#;

    /// Answers one connection with `answer`, and holds it open until the client leaves when told to hang.
    fn answering(answer: &'static str, hang: bool) -> (String, thread::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
            if hang {
                let _ = stream.read(&mut [0; 1]);
            }
        });
        (address, server)
    }

    fn ask(address: &str, timeout: Duration) -> Result<Document, SourceError> {
        Fetcher::new(address.parse().unwrap(), timeout).fetch()
    }

    #[test]
    fn a_document_is_read_from_a_socket() {
        let (address, server) = answering(DOCUMENT, false);
        assert_eq!(ask(&address, Duration::from_secs(5)).unwrap().snapshot.pid, 7);
        server.join().unwrap();
    }

    #[test]
    fn a_server_that_hangs_is_given_up_in_time() {
        let (address, server) = answering("{\"version\":", true);
        let error = ask(&address, Duration::from_millis(50)).unwrap_err();
        assert!(matches!(error, SourceError::TimedOut(_)), "{error}");
        server.join().unwrap();
    }

    #[test]
    fn of_a_server_that_may_wait_for_a_request_it_is_said() {
        let (address, server) = answering("", true);
        let error = ask(&address, Duration::from_millis(50)).unwrap_err();
        assert!(error.to_string().contains("write http://"), "{error}");
        server.join().unwrap();
    }

    #[test]
    fn a_server_that_is_not_there_is_said_to_be_so() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let error = ask(&address, Duration::from_secs(5)).unwrap_err();
        assert!(error.to_string().contains("refused"), "{error}");
        let error = ask("/nonexistent/stats.sock", Duration::from_secs(5)).unwrap_err();
        assert!(error.to_string().starts_with("cannot connect: No such file"), "{error}");
    }

    #[test]
    fn http_answers_are_unwrapped_and_their_errors_named() {
        let (address, server) = answering(
            "HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{\"version\":\"1\",\"pid\":7,\"workers\":[]}",
            false,
        );
        assert_eq!(ask(&address, Duration::from_secs(5)).unwrap().snapshot.pid, 7);
        server.join().unwrap();
        let (address, server) = answering("HTTP/1.1 503 Busy\r\n\r\n", false);
        let error = ask(&address, Duration::from_secs(5)).unwrap_err();
        assert!(matches!(error, SourceError::Status(503)), "{error}");
        server.join().unwrap();
    }

    #[test]
    fn a_body_ends_where_its_length_says_and_one_that_is_shorter_is_no_document() {
        let whole = "HTTP/1.1 200 OK\r\ncontent-length: 36\r\n\r\n{\"version\":\"1\",\"pid\":7,\"workers\":[]}";
        // The server keeps the connection open.
        let (address, server) = answering(whole, true);
        assert_eq!(ask(&address, Duration::from_secs(20)).unwrap().snapshot.pid, 7);
        server.join().unwrap();
        for (answer, told) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{\"version\":\"1\",\"workers\":[]}", "28 of 50 bytes"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}", "two different"),
            ("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n{}", "not a number"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", "chunked"),
            ("HTTP/1.1 200 OK\r\nContent-", "truncated"),
        ] {
            let (address, server) = answering(answer, false);
            let error = ask(&address, Duration::from_secs(20)).unwrap_err().to_string();
            assert!(error.contains(told), "{answer}: {error}");
            server.join().unwrap();
        }
    }
}
