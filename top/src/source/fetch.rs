//! One connection, one document: connect, ask if it is HTTP, read to the end, all within one deadline.

use std::io::{self, Read, Write};
use std::net::ToSocketAddrs;
use std::time::{Duration, Instant};

use rwsgi_stats::Address;
use socket2::{Domain, SockAddr, Socket, Type};

use super::{Document, Reader, SourceError, Target};

/// Sixty-four thousand busy workers are below this; a stream that never ends is above it.
const LARGEST: usize = 256 << 20;

/// Reads one document, within `timeout` in all; `reader` knows the server's last one.
///
/// # Errors
/// Whatever kept a whole document from arriving in time.
pub(crate) fn fetch(target: &Target, timeout: Duration, reader: &mut Reader) -> Result<Document, SourceError> {
    let deadline = Deadline { end: Instant::now() + timeout, timeout };
    let (Target::Socket(address) | Target::Http { address, .. }) = target;
    let mut socket = connect(address, &deadline)?;
    if let Target::Http { path, .. } = target {
        let host = address.to_string();
        // HTTP/1.0: the answer is not chunked, and ends with the connection.
        let request =
            format!("GET {path} HTTP/1.0\r\nHost: {host}\r\nAccept: application/json\r\nConnection: close\r\n\r\n");
        socket.set_write_timeout(Some(deadline.left()?)).map_err(SourceError::Read)?;
        socket.write_all(request.as_bytes()).map_err(|error| deadline.classify(error))?;
    }
    let bytes = read_to_end(&socket, reader.room(), &deadline)?;
    // A stats server that speaks HTTP is recognized even when the address did not say so.
    reader.parse(if bytes.starts_with(b"HTTP/") { body_of(bytes)? } else { bytes })
}

struct Deadline {
    end: Instant,
    timeout: Duration,
}

impl Deadline {
    fn left(&self) -> Result<Duration, SourceError> {
        let left = self.end.saturating_duration_since(Instant::now());
        // The system takes a time-out of zero for none at all.
        if left < Duration::from_millis(1) { Err(SourceError::TimedOut(self.timeout)) } else { Ok(left) }
    }

    fn classify(&self, error: io::Error) -> SourceError {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => SourceError::TimedOut(self.timeout),
            _ => SourceError::Read(error),
        }
    }
}

fn connect(address: &Address, deadline: &Deadline) -> Result<Socket, SourceError> {
    let candidates: Vec<SockAddr> = match address {
        Address::Tcp { host, port } => {
            let host = if host.is_empty() { "localhost" } else { host };
            (host, *port).to_socket_addrs().map_err(SourceError::Resolve)?.map(SockAddr::from).collect()
        }
        Address::Unix(path) => vec![SockAddr::unix(path).map_err(SourceError::Connect)?],
        // uWSGI binds abstract names with a NUL at their end, which is a part of the name (and may be one too many).
        Address::Abstract(name) => {
            let names = [format!("\0{name}\0"), format!("\0{name}")];
            names.into_iter().filter_map(|name| SockAddr::unix(name).ok()).collect()
        }
    };
    let mut last = SourceError::Connect(io::Error::from(io::ErrorKind::AddrNotAvailable));
    for candidate in &candidates {
        match connect_one(candidate, deadline) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn connect_one(candidate: &SockAddr, deadline: &Deadline) -> Result<Socket, SourceError> {
    let domain = if candidate.is_unix() { Domain::UNIX } else { candidate.domain() };
    let socket = Socket::new(domain, Type::STREAM, None).map_err(SourceError::Connect)?;
    socket.connect_timeout(candidate, deadline.left()?).map_err(|error| match error.kind() {
        io::ErrorKind::TimedOut => SourceError::TimedOut(deadline.timeout),
        _ => SourceError::Connect(error),
    })?;
    Ok(socket)
}

/// Reads into `bytes`, whose contents are of no interest: a document is about as long as the one before.
fn read_to_end(socket: &Socket, mut bytes: Vec<u8>, deadline: &Deadline) -> Result<Vec<u8>, SourceError> {
    let mut length = 0;
    bytes.resize(bytes.len() + 4 * 1024, 0);
    let mut allowed = Duration::MAX;
    loop {
        let left = deadline.left()?;
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
            Err(error) => return Err(deadline.classify(error)),
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

/// The body of a whole HTTP answer, if its status is 200.
fn body_of(mut answer: Vec<u8>) -> Result<Vec<u8>, SourceError> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").ok_or(SourceError::Half(answer.len()))?;
    let status = std::str::from_utf8(&answer[..end])
        .ok()
        .and_then(|head| head.split_ascii_whitespace().nth(1))
        .and_then(|status| status.parse().ok())
        .ok_or_else(|| SourceError::NotStats("its HTTP status line cannot be read".to_owned()))?;
    if status != 200 {
        return Err(SourceError::Status(status));
    }
    answer.drain(..end + 4);
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
        fetch(&address.parse().unwrap(), timeout, &mut Reader::default())
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
}
