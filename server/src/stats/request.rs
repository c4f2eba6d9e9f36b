//! A request in progress, from what its thread keeps of it: shown as CGI variables, as uWSGI does, and in one line.
//!
//! What is kept is the beginning of the head, possibly cut anywhere. It was accepted by the strict parser before, so
//! that it is read leniently here: what cannot be understood is left out.

use rwsgi_stats::{RequestInfo, Shown};

use super::cell::HeldRequest;
use super::route_text::RouteText;
use crate::clock::MonotonicNanos;
use rwsgi_protocol::{SocketProtocol, path, target};

/// The variables of a request, in order, as far as they are shown.
#[derive(Debug)]
pub struct Vars {
    shown: Shown,
    list: Vec<(String, String)>,
}

impl Vars {
    /// The variables that are shown of `held`, on the server of that name.
    #[must_use]
    pub fn of(held: &HeldRequest, server_name: &str, shown: Shown) -> Self {
        let mut vars = Self { shown, list: Vec::new() };
        match held.protocol {
            SocketProtocol::Http => http(held, server_name, &mut vars),
            SocketProtocol::Uwsgi => uwsgi(&held.head, &mut vars),
        }
        vars
    }

    /// A variable's value; where it comes twice, the later one.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.list.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// `NAME=value`.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        self.list.iter().map(|(name, value)| format!("{name}={value}"))
    }

    /// What every monitor shows of a request; its times are the caller's.
    #[must_use]
    pub fn info(&self) -> RequestInfo {
        let get = |name| self.get(name).map(str::to_owned);
        RequestInfo {
            method: get("REQUEST_METHOD"),
            uri: get("REQUEST_URI"),
            remote_addr: get("REMOTE_ADDR"),
            protocol: get("SERVER_PROTOCOL"),
            ..RequestInfo::default()
        }
    }

    fn push(&mut self, name: &str, value: &str) {
        if let Some(value) = self.shown.variable(name, value) {
            self.list.push((name.to_owned(), value.into_owned()));
        }
    }
}

/// The route of a request, as far as it is known before its end: what the application has called it, or its pattern.
#[must_use]
pub fn route_of(held: &HeldRequest) -> RouteText {
    RouteText::named(&held.route_name).unwrap_or_else(|| RouteText::pattern_of(target_of(held)))
}

/// The request target, as far as it was kept.
fn target_of(held: &HeldRequest) -> &[u8] {
    match held.protocol {
        SocketProtocol::Http => held.head.split(|byte| matches!(byte, b' ' | b'\r' | b'\n')).nth(1).unwrap_or_default(),
        SocketProtocol::Uwsgi => {
            let var = |wanted: &[u8]| Packet(&held.head).find(|(name, _)| *name == wanted).map(|(_, value)| value);
            var(b"REQUEST_URI").filter(|uri| !uri.is_empty()).or_else(|| var(b"PATH_INFO")).unwrap_or_default()
        }
    }
}

/// One line for a log: the request, its client, and for how long it had run at `now`.
#[must_use]
pub fn describe(held: &HeldRequest, now: MonotonicNanos, shown: Shown) -> String {
    let vars = Vars::of(held, "", shown);
    let get = |name| vars.get(name).unwrap_or("?");
    let seconds = now.since(held.started).as_secs_f64();
    let [method, uri, client] = ["REQUEST_METHOD", "REQUEST_URI", "REMOTE_ADDR"].map(get);
    let of = if matches!(client, "" | "?") { String::new() } else { format!(" of {client}") };
    format!("{method} {uri}{of} for {seconds:.1} s")
}

fn http(held: &HeldRequest, server_name: &str, vars: &mut Vars) {
    let mut lines = held.head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let request_line = lines.next().map(String::from_utf8_lossy).unwrap_or_default();
    let mut words = request_line.splitn(3, ' ');
    let (method, uri, protocol) = (words.next(), words.next().unwrap_or(""), words.next().unwrap_or(""));
    let target = target::split(uri);
    // As it came, whatever `path-normalize` has the application see.
    let mut decoded = Vec::new();
    let path = path::decode(target.path.as_bytes(), &mut decoded);
    let mut peer = held.peer.split(' ');
    let (remote_addr, remote_port) = (peer.next().unwrap_or(""), peer.next().unwrap_or(""));
    let server_port = peer.nth(1).unwrap_or("");

    vars.push("REQUEST_METHOD", method.unwrap_or(""));
    vars.push("PATH_INFO", &String::from_utf8_lossy(path));
    vars.push("REQUEST_URI", uri);
    vars.push("QUERY_STRING", target.query);
    vars.push("SERVER_PROTOCOL", protocol);
    vars.push("SCRIPT_NAME", "");
    vars.push("SERVER_NAME", server_name);
    vars.push("SERVER_PORT", server_port);
    vars.push("REMOTE_ADDR", remote_addr);
    vars.push("REMOTE_PORT", remote_port);
    if peer.next().is_some() {
        vars.push("HTTPS", "on");
    }
    // Of the last one only the beginning may be there, in which a password cannot be told from a host.
    let whole = held.head.iter().filter(|byte| **byte == b'\n').count().saturating_sub(1);
    for line in lines.take(whole).take_while(|line| !line.is_empty()) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = (&line[..colon], String::from_utf8_lossy(line[colon + 1..].trim_ascii()));
        // As for the application, a name with an underscore is nobody's.
        if name.contains(&b'_') {
            continue;
        }
        let name = String::from_utf8_lossy(name).to_ascii_uppercase().replace('-', "_");
        match name.as_str() {
            "CONTENT_TYPE" | "CONTENT_LENGTH" => vars.push(&name, &value),
            _ => vars.push(&format!("HTTP_{name}"), &value),
        }
    }
}

fn uwsgi(bytes: &[u8], vars: &mut Vars) {
    for (name, value) in Packet(bytes) {
        vars.push(&String::from_utf8_lossy(name), &String::from_utf8_lossy(value));
    }
}

/// Names and values, up to where they are cut: two bytes of length (little-endian) before each.
struct Packet<'b>(&'b [u8]);

impl<'b> Packet<'b> {
    fn string(&mut self) -> Option<&'b [u8]> {
        let (len, rest) = self.0.split_first_chunk::<2>()?;
        let (string, rest) = rest.split_at_checked(u16::from_le_bytes(*len).into())?;
        self.0 = rest;
        Some(string)
    }
}

impl<'b> Iterator for Packet<'b> {
    type Item = (&'b [u8], &'b [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        Some((self.string()?, self.string()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn held(protocol: SocketProtocol, head: &[u8]) -> HeldRequest {
        HeldRequest {
            started: MonotonicNanos::from_nanos(1_000),
            protocol,
            peer: "10.0.0.7 4711 10.0.0.1 9090".into(),
            head: head.to_vec(),
            route_name: Vec::new(),
        }
    }

    const HEAD: &[u8] = b"POST /caf%C3%A9/x?a=secret&b=secret HTTP/1.1\r\nHost: web1:9090\r\nCookie: sid=secret\r\n\
        Referer: http://secret@x/?y=secret\r\nX-Api-Key: secret\r\nauthorization: Basic secret\r\nProxy-Authorization: secret\r\nX_Forged: 1\r\nContent-Type: text/plain\r\n\
        Content-Length: 3\r\nUser-Agent:  ab \r\n\r\n";

    fn packet(vars: &[(&str, &str)]) -> Vec<u8> {
        let string = |text: &str| [&(text.len() as u16).to_le_bytes()[..], text.as_bytes()].concat();
        vars.iter().flat_map(|(name, value)| [string(name), string(value)].concat()).collect()
    }

    #[test]
    fn an_http_head_is_told_as_cgi_variables_without_secrets() {
        let vars = Vars::of(&held(SocketProtocol::Http, HEAD), "web1", Shown::default());
        let lines: Vec<_> = vars.lines().collect();
        assert_eq!(
            lines,
            [
                "REQUEST_METHOD=POST",
                "PATH_INFO=/café/x",
                "REQUEST_URI=/caf%C3%A9/x?a=…&b=…",
                "QUERY_STRING=a=…&b=…",
                "SERVER_PROTOCOL=HTTP/1.1",
                "SCRIPT_NAME=",
                "SERVER_NAME=web1",
                "SERVER_PORT=9090",
                "REMOTE_ADDR=10.0.0.7",
                "REMOTE_PORT=4711",
                "HTTP_HOST=web1:9090",
                "HTTP_REFERER=http://…@x/?y=…",
                "CONTENT_TYPE=text/plain",
                "CONTENT_LENGTH=3",
                "HTTP_USER_AGENT=ab",
            ]
        );
        let info = vars.info();
        assert_eq!((info.method.as_deref(), info.remote_addr.as_deref()), (Some("POST"), Some("10.0.0.7")));
        assert_eq!(info.protocol.as_deref(), Some("HTTP/1.1"));
    }

    #[test]
    fn a_uwsgi_packet_s_variables_are_told_without_secrets() {
        let head = packet(&[
            ("REQUEST_METHOD", "GET"),
            ("REQUEST_URI", "/a?b=secret"),
            ("HTTP_COOKIE", "sid=secret"),
            ("http_authorization", "secret"),
            ("REMOTE_ADDR", "192.0.2.1"),
        ]);
        let vars = Vars::of(&held(SocketProtocol::Uwsgi, &head), "web1", Shown::default());
        assert_eq!(
            vars.lines().collect::<Vec<_>>(),
            ["REQUEST_METHOD=GET", "REQUEST_URI=/a?b=…", "REMOTE_ADDR=192.0.2.1"]
        );
        assert_eq!(vars.info().uri.as_deref(), Some("/a?b=…"));
    }

    #[test]
    fn a_request_is_told_in_a_line() {
        let head = packet(&[("REQUEST_METHOD", "GET"), ("REQUEST_URI", "/a?b=secret"), ("REMOTE_ADDR", "::1")]);
        let describe = |head: &[u8], now| {
            describe(&held(SocketProtocol::Uwsgi, head), MonotonicNanos::from_nanos(now), Shown::default())
        };
        assert_eq!(describe(&head, 3_200_001_000), "GET /a?b=… of ::1 for 3.2 s");
        assert_eq!(describe(b"", 1_000), "? ? for 0.0 s");
    }

    #[test]
    fn a_request_s_route_is_its_name_or_the_pattern_of_its_path() {
        let route = |held: &HeldRequest| route_of(held).as_str().to_owned();
        let mut http = held(SocketProtocol::Http, b"GET /users/42?a=secret HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(route(&http), "/users/{}");
        http.route_name = b"users.detail".to_vec();
        assert_eq!(route(&http), "users.detail");
        for (vars, expected) in [
            (&[("REQUEST_METHOD", "GET"), ("PATH_INFO", "/b"), ("REQUEST_URI", "/a/7?x")][..], "/a/{}"),
            (&[("PATH_INFO", "/b/8")], "/b/{}"),
            (&[], "/"),
        ] {
            assert_eq!(route(&held(SocketProtocol::Uwsgi, &packet(vars))), expected);
        }
        assert_eq!(route(&held(SocketProtocol::Http, b"GET")), "/");
    }

    proptest! {
        #[test]
        fn a_head_cut_anywhere_gives_no_secret_away(len in 0..HEAD.len()) {
            let shown = Vars::of(&held(SocketProtocol::Http, &HEAD[..len]), "web1", Shown::default()).lines().collect::<Vec<_>>().join("\n");
            prop_assert!(!shown.contains("secret"), "{shown}");
        }

        #[test]
        fn any_bytes_are_read_as_something(head in prop::collection::vec(any::<u8>(), 0..300)) {
            for protocol in [SocketProtocol::Http, SocketProtocol::Uwsgi] {
                let _ = Vars::of(&held(protocol, &head), "web1", Shown::default()).info();
                let _ = route_of(&held(protocol, &head));
            }
        }
    }
}
