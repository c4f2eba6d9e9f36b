//! The stats over HTTP: `/` is the document, `/metrics` is what Prometheus reads of it.
//!
//! Any page in a browser on this machine can send requests to a loopback address. It can read the answers if
//! [`HttpAccess::cors`] allows its origin, or if its own name resolves to that address ("DNS rebinding"): then the browser
//! takes this server for the page's own, but sends that name in `Host`.

use std::io;
use std::net::IpAddr;

use rwsgi_metrics::Format;
use rwsgi_stats::Address;
use tokio::io::AsyncReadExt;

use super::metrics::MetricsAccess;
use super::probe::Probes;
use super::{Purpose, SnapshotRequest, Stream, document, snapshot};

/// The largest request head, bytes.
const HEAD_MAX: usize = 8 * 1024;
/// More headers than any monitor sends.
const HEADERS_MAX: usize = 64;
const OTHER_HOST: &str = "The stats of this address are for this machine: ask for localhost, 127.0.0.1, [::1] or the \
    address itself.\nThe request's Host names another. A proxy before it must set Host; other machines need an address \
    that is no loopback address.\n";

/// Who may read the stats over HTTP.
#[derive(Clone, Debug, Default)]
pub struct HttpAccess {
    /// The origin whose pages may; `*` for all.
    pub cors: Option<String>,
    /// What `/metrics` tells.
    pub metrics: MetricsAccess,
    /// The names that requests must be sent to.
    pub names: OwnNames,
    /// `/-/live` and `/-/ready`.
    pub probes: Probes,
}

/// The names of a loopback address that `Host` may have; any name for another address.
#[derive(Clone, Debug, Default)]
pub struct OwnNames(Option<String>);

impl OwnNames {
    /// Those of a socket that is bound to `bound`, `None` for one that is no TCP socket, and was asked for as `named`.
    #[must_use]
    pub fn of(bound: Option<IpAddr>, named: &Address) -> Self {
        let host = match named {
            Address::Tcp { host, .. } => host.clone(),
            _ => String::new(),
        };
        Self(bound.filter(is_loopback).map(|_| host))
    }

    /// Whether a `Host` is one of them. Its port may be another: a tunnel's.
    fn include(&self, host: &str) -> bool {
        let Some(named) = &self.0 else { return true };
        let bare = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((inner, port)) if port.is_empty() || port.starts_with(':') => inner,
            Some(_) => return false,
            None => host.split_once(':').map_or(host, |(name, _)| name),
        };
        let is_named = bare.eq_ignore_ascii_case("localhost") || bare.eq_ignore_ascii_case(named);
        !bare.is_empty() && (is_named || bare.parse().is_ok_and(|ip| is_loopback(&ip)))
    }
}

fn is_loopback(ip: &IpAddr) -> bool {
    ip.to_canonical().is_loopback()
}

/// What a client asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request {
    Get {
        head_only: bool,
        path: String,
        /// Of metrics.
        format: Format,
    },
    /// To a name that is not this machine's.
    OtherHost {
        head_only: bool,
    },
    OtherMethod,
    /// Not HTTP, or too much of it.
    Bad,
}

pub(super) async fn read_request(stream: &mut dyn Stream, names: &OwnNames) -> io::Result<Request> {
    let mut head = Vec::with_capacity(1024);
    loop {
        let space = (HEAD_MAX - head.len()) as u64;
        if (&mut *stream).take(space).read_buf(&mut head).await? == 0 {
            return if head.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(Request::Bad) };
        }
        if let Some(request) = parse_request(&head, names) {
            return Ok(request);
        }
    }
}

/// `None` while the head is incomplete.
fn parse_request(head: &[u8], names: &OwnNames) -> Option<Request> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) if head.len() < HEAD_MAX => return None,
        Ok(httparse::Status::Partial) | Err(_) => return Some(Request::Bad),
    }
    let target = request.path.unwrap_or("/");
    let path = rwsgi_protocol::target::split(target).path.to_owned();
    let head_only = request.method == Some("HEAD");
    let mut hosts = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("Host"));
    if !hosts.all(|host| str::from_utf8(host.value).is_ok_and(|host| names.include(host))) {
        return Some(Request::OtherHost { head_only });
    }
    Some(match request.method {
        Some("GET" | "HEAD") => {
            let accept = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("Accept"));
            let accept: Vec<_> = accept.filter_map(|header| str::from_utf8(header.value).ok()).collect();
            Request::Get { head_only, path, format: rwsgi_metrics::negotiate(Some(&accept.join(","))) }
        }
        _ => Request::OtherMethod,
    })
}

pub(super) async fn respond(
    request: &Request,
    access: &HttpAccess,
    ask: &impl Fn(SnapshotRequest),
) -> io::Result<Vec<u8>> {
    let Request::Get { head_only, path, format } = request else { return Ok(refuse(request)) };
    let (head_only, path, format) = (*head_only, path.as_str(), *format);
    if let Some(answer) = access.probes.respond(path, head_only).await? {
        return Ok(answer);
    }
    let cors =
        access.cors.as_ref().map_or(String::new(), |origin| format!("Access-Control-Allow-Origin: {origin}\r\n"));
    Ok(match path {
        "/" => response(
            "200 OK",
            "application/json",
            &document(&snapshot(ask, Purpose::Document).await?)?,
            &cors,
            head_only,
        ),
        "/metrics" => {
            let body = access.metrics.body(format, ask).await?;
            let more = format!("{cors}Vary: Accept\r\n");
            response("200 OK", format.content_type(), &body, &more, head_only)
        }
        _ => response("404 Not Found", "text/plain", b"there is / (JSON) and /metrics\n", "", head_only),
    })
}

/// The answer to what is not GET or HEAD.
pub(super) fn refuse(request: &Request) -> Vec<u8> {
    let refused = |status, why: &str, more, head_only| response(status, "text/plain", why.as_bytes(), more, head_only);
    match request {
        Request::OtherHost { head_only } => refused("421 Misdirected Request", OTHER_HOST, "", *head_only),
        Request::Get { .. } | Request::OtherMethod => {
            refused("405 Method Not Allowed", "only GET and HEAD\n", "Allow: GET, HEAD\r\n", false)
        }
        Request::Bad => refused("400 Bad Request", "not an HTTP request\n", "", false),
    }
}

pub(super) fn response(status: &str, content_type: &str, body: &[u8], more: &str, head_only: bool) -> Vec<u8> {
    let mut bytes = format!(
        "HTTP/1.0 {status}\r\nConnection: close\r\n{more}Content-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    if !head_only {
        bytes.extend_from_slice(body);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_may_come_byte_by_byte() {
        let head = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        for len in 0..head.len() {
            assert_eq!(parse_request(&head[..len], &OwnNames::default()), None);
        }
        let whole = Some(Request::Get { head_only: false, path: "/".into(), format: Format::Text });
        assert_eq!(parse_request(head, &OwnNames::default()), whole);
    }

    #[test]
    fn a_loopback_address_has_few_names_and_any_other_is_known_to_others() {
        let names = |bound: &str, named: &str| OwnNames::of(bound.parse().ok(), &named.parse().unwrap());
        let own = names("127.0.1.1", "MyHost:9191");
        for host in ["localhost", "LocalHost:1", "127.0.0.1:9191", "127.9.9.9", "[::1]", "[::1]:80", "myhost:9191"] {
            assert!(own.include(host), "{host}");
        }
        for host in [
            "",
            ":9191",
            "evil",
            "localhost.evil",
            "192.0.2.1",
            "[::2]",
            "[::1]evil",
            "[::1",
            "127.0.0.1.evil",
            " localhost",
        ] {
            assert!(!own.include(host), "{host}");
        }
        assert!(!names("::1", "[::1]:9191").include("evil"));
        for everywhere in [("0.0.0.0", ":9191"), ("192.0.2.1", "192.0.2.1:9191"), ("no address", "/run/s")] {
            assert!(names(everywhere.0, everywhere.1).include("evil"));
        }
    }

    #[test]
    fn every_host_of_a_request_must_be_one() {
        let own = {
            let address = "127.0.0.1:9191".parse().unwrap();
            OwnNames::of("127.0.0.1".parse().ok(), &address)
        };
        let asked = |hosts: &str| parse_request(format!("GET / HTTP/1.1\r\n{hosts}\r\n").as_bytes(), &own).unwrap();
        let other = Request::OtherHost { head_only: false };
        assert_eq!(asked("Host: evil\r\n"), other);
        assert_eq!(asked("Host: localhost\r\nhOST: evil\r\n"), other);
        assert_ne!(asked("Host: localhost\r\n"), other);
        // Every browser sends one.
        assert_ne!(asked(""), other);
        let head = parse_request(b"HEAD / HTTP/1.1\r\nHost: evil\r\n\r\n", &own);
        assert_eq!(head, Some(Request::OtherHost { head_only: true }));
    }
}
