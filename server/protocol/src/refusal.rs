//! A request that is not taken: why, and what its client is answered.

use thiserror::Error;

use super::date::HttpDate;

/// Why a request is not taken. The connection is closed after the answer, for its framing is not to be trusted.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("{status} {reason}")]
pub struct Refusal {
    /// The answer's status code.
    pub status: u16,
    /// What was wrong, for the client and for the log.
    pub reason: &'static str,
}

impl Refusal {
    pub(super) const fn bad(reason: &'static str) -> Self {
        Self { status: 400, reason }
    }
}

/// What a client gets when it was too slow with its request.
pub const TIMED_OUT: Refusal = Refusal { status: 408, reason: "the request did not arrive in time" };
/// What a client gets when its body comes more slowly than `body-min-rate`.
pub const TOO_SLOW: Refusal = Refusal { status: 408, reason: "the request body comes too slowly" };
/// What a client gets when its body is larger than `limit-post`.
pub const BODY_TOO_LARGE: Refusal =
    Refusal { status: 413, reason: "the request body is larger than this server takes" };
/// What a client gets at a host that demands a certificate, when its TLS was made for another host.
pub const OTHER_HOST: Refusal =
    Refusal { status: 421, reason: "this host needs a connection of its own: it asks for a client certificate" };
/// What a client gets when there is nobody to serve it.
pub const OVERLOADED: Refusal = Refusal { status: 503, reason: "too many requests are waiting" };
/// What a client gets that still waits for a worker when the master and all workers are gone.
pub const SERVER_GONE: Refusal = Refusal { status: 503, reason: "the server has stopped" };
/// What a client gets when the worker went away before it answered.
pub const WORKER_LOST: Refusal = Refusal { status: 502, reason: "the worker stopped before it answered" };

/// When a client that got 503 may try again, seconds.
const RETRY_AFTER: u32 = 10;

/// Appends the complete answer to a refused request: a short text, `Connection: close`. `head_only`: to a HEAD, which gets
/// no body (RFC 9110 section 9.3.2).
pub fn refusal_response(refusal: &Refusal, head_only: bool, out: &mut Vec<u8>) {
    use std::io::Write as _;
    let phrase = reason_phrase(refusal.status);
    // What is short now may not be so for long.
    let retry = if refusal.status == 503 { format!("Retry-After: {RETRY_AFTER}\r\n") } else { String::new() };
    // Writing to a Vec cannot fail.
    let _ = write!(
        out,
        "HTTP/1.1 {} {phrase}\r\nDate: {}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         {retry}Connection: close\r\n\r\n",
        refusal.status,
        HttpDate::now(),
        refusal.reason.len() + 1,
    );
    if !head_only {
        out.extend_from_slice(refusal.reason.as_bytes());
        out.push(b'\n');
    }
}

/// The reason phrase of a status that the server itself sends.
fn reason_phrase(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        408 => "Request Timeout",
        421 => "Misdirected Request",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_a_complete_response() {
        let mut out = Vec::new();
        let refusal = Refusal { status: 400, reason: "repeated Host" };
        refusal_response(&refusal, false, &mut out);
        let text = String::from_utf8(out).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head}");
        assert!(head.contains("\r\nConnection: close"), "{head}");
        assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");
        assert_eq!(body, "repeated Host\n");
        let mut to_head = Vec::new();
        refusal_response(&refusal, true, &mut to_head);
        let to_head = String::from_utf8(to_head).unwrap();
        assert_eq!(to_head.strip_suffix("\r\n\r\n").map(|head| head.lines().count()), Some(head.lines().count()));
        assert!(!head.contains("Retry-After"), "{head}");
        let mut out = Vec::new();
        refusal_response(&OVERLOADED, false, &mut out);
        assert!(String::from_utf8(out).unwrap().contains("\r\nRetry-After: 10\r\n"));
        for refusal in [TIMED_OUT, TOO_SLOW, BODY_TOO_LARGE, OTHER_HOST, OVERLOADED, SERVER_GONE, WORKER_LOST] {
            assert!(!reason_phrase(refusal.status).is_empty(), "{refusal}");
        }
    }
}
