//! One HTTP/1 request and its answer on a connection. `httparse` reads the head; what is left of a server after that, for
//! three small GETs in a program that has no asynchronous runtime, is this file. `hyper` would bring tokio.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// The largest head of a request, bytes.
const HEAD_MAX: usize = 8 * 1024;
/// More headers than any scraper sends.
const HEADERS_MAX: usize = 64;

/// What was asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) head_only: bool,
    pub(super) path: String,
    /// What follows the question mark.
    pub(super) query: String,
    /// The values of `Accept`, by commas; empty when there is none.
    pub(super) accept: String,
    pub(super) host: String,
}

/// What is answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Response {
    status: &'static str,
    content_type: &'static str,
    more: &'static str,
    pub(super) body: Vec<u8>,
    head_only: bool,
}

impl Response {
    pub(super) fn ok(request: &Request, content_type: &'static str, body: Vec<u8>) -> Self {
        Self { status: "200 OK", content_type, more: "", body, head_only: request.head_only }
    }

    pub(super) fn not_found(request: &Request, why: String) -> Self {
        Self { status: "404 Not Found", head_only: request.head_only, ..Self::refusal("", why) }
    }

    pub(super) fn busy() -> Self {
        Self::refusal("503 Service Unavailable", "too many requests at the same time\n".into())
    }

    fn refusal(status: &'static str, why: String) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8", more: "", body: why.into(), head_only: false }
    }

    /// Sends it, each piece within `patience`.
    pub(super) fn send(&self, mut stream: &TcpStream, patience: Duration) -> io::Result<()> {
        let Self { status, content_type, more, body, head_only } = self;
        let length = body.len();
        let head = format!(
            "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n{more}\r\n"
        );
        let deadline = Instant::now() + patience;
        for mut rest in [head.as_bytes(), if *head_only { &[] } else { body.as_slice() }] {
            while !rest.is_empty() {
                stream.set_write_timeout(Some(left(deadline)?))?;
                match stream.write(rest) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(count) => rest = &rest[count..],
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }
}

/// What is left until the deadline.
fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    // The system takes a time-out of zero for none at all.
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// Reads a request; the inner error is the answer to one that is not understood.
///
/// # Errors
/// When the connection ends before, or the head is not whole at the deadline.
pub(super) fn read(mut stream: &TcpStream, deadline: Instant) -> io::Result<Result<Request, Response>> {
    let mut head = [0; HEAD_MAX];
    let mut length = 0;
    loop {
        stream.set_read_timeout(Some(left(deadline)?))?;
        match stream.read(&mut head[length..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        }
        if let Some(read) = parse(&head[..length]) {
            return Ok(read);
        }
    }
}

/// `None` while the head is not whole.
fn parse(head: &[u8]) -> Option<Result<Request, Response>> {
    let bad = || Some(Err(Response::refusal("400 Bad Request", "not an HTTP request\n".into())));
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) if head.len() < HEAD_MAX => return None,
        Ok(httparse::Status::Partial) | Err(_) => return bad(),
    }
    if !matches!(request.method, Some("GET" | "HEAD")) {
        let refusal = Response::refusal("405 Method Not Allowed", "only GET and HEAD\n".into());
        return Some(Err(Response { more: "Allow: GET, HEAD\r\n", ..refusal }));
    }
    let values = |name: &str| {
        let named = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
        named.map(|header| String::from_utf8_lossy(header.value)).collect::<Vec<_>>().join(",")
    };
    let (path, query) = request.path.map(|target| target.split_once('?').unwrap_or((target, "")))?;
    Some(Ok(Request {
        head_only: request.method == Some("HEAD"),
        path: path.to_owned(),
        query: query.to_owned(),
        accept: values("accept"),
        host: values("host"),
    }))
}

/// The value of a key in a query, decoded; the first, when there are several.
pub(super) fn value(query: &str, key: &str) -> Option<String> {
    query.split('&').find_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (name == key).then(|| decoded(value))
    })
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let digit = |place: usize| tail.get(place).and_then(|byte| char::from(*byte).to_digit(16));
        match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                // Two hexadecimal digits are a byte.
                bytes.push((high * 16 + low) as u8);
                rest = &tail[2..];
            }
            (b'+', ..) => {
                bytes.push(b' ');
                rest = tail;
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_may_come_byte_by_byte() {
        let head = b"GET /probe?target=%3A1717&x HTTP/1.1\r\nHost: h:1\r\nAccept: a\r\naccept: b\r\n\r\n";
        for length in 0..head.len() {
            assert_eq!(parse(&head[..length]), None);
        }
        let request = parse(head).unwrap().unwrap();
        assert_eq!((request.path.as_str(), request.accept.as_str(), request.host.as_str()), ("/probe", "a,b", "h:1"));
        assert_eq!(value(&request.query, "target").as_deref(), Some(":1717"));
        assert_eq!(value(&request.query, "y"), None);
    }

    #[test]
    fn what_is_no_get_is_refused() {
        let status = |head: &[u8]| parse(head).unwrap().unwrap_err().status;
        assert_eq!(status(b"POST / HTTP/1.1\r\n\r\n"), "405 Method Not Allowed");
        assert_eq!(status(b"\x16\x03\x01\x02\x00"), "400 Bad Request");
        assert_eq!(status(&[b'G'; HEAD_MAX]), "400 Bad Request");
    }

    #[test]
    fn queries_are_decoded_and_bad_ones_left_as_they_are() {
        for (text, is) in
            [("a%20b+c", "a b c"), ("%", "%"), ("%4", "%4"), ("%zz", "%zz"), ("%c3%a9", "é"), ("%ff", "\u{fffd}")]
        {
            assert_eq!(decoded(text), is, "{text}");
        }
    }
}
