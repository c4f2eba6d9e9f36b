//! What comes before a client's requests on some sockets: a PROXY header, a TLS handshake; and the redirect to https.
//! On other sockets it costs a comparison.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::net::{RecvFlags, recv};
use tracing::warn;

use super::client::{Client, ClientPhase};
use super::keyed::Key;
use super::listen::read_contexts;
use super::state::Router;
use crate::clock::MonotonicNanos;
use crate::io::accept::client_of;
use crate::io::close::Then;
use crate::io::proxied;
use crate::log_limit::{self, LineKind};
use rwsgi_protocol::http::{Head, OTHER_HOST, Refusal};
use rwsgi_protocol::{proxy, target};

use super::tls::Tls;

impl Router<'_> {
    /// Prepares a client that came by this socket.
    pub(super) fn enter(&mut self, client: &mut Client, number: usize) {
        let Some(options) = self.listen_options.get(number) else { return };
        client.socket = number as u16;
        client.expects_proxy_header = options.proxy_protocol;
        client.is_served_by_host = options.redirect.is_some();
        if let (Some(socket), Some(contexts)) = (options.tls, &self.contexts) {
            client.is_served_by_host |= contexts.are_mixed;
            client.tls = Some(Tls::new(contexts.clone(), socket));
        }
    }

    /// The master has read the certificates again: the next connections get them.
    #[cold]
    pub(super) fn renew_contexts(&mut self) {
        let Some(file) = &self.certificates else { return };
        match read_contexts(file) {
            Ok(contexts) => self.contexts = Some(contexts.into()),
            // The master has begun to write the next, and says so when it is done.
            Err(failure) => warn!("https: the new certificates cannot be used yet: {failure:#}"),
        }
    }

    /// Whether a client of TLS may go on with its handshake in this turn, for which the time is measured.
    pub(super) fn handshake_turn(&mut self, key: Key) -> Option<MonotonicNanos> {
        if self.bulk.is_used_up() {
            self.turn_again_client(key);
            return None;
        }
        Some(MonotonicNanos::now())
    }

    /// Reads a PROXY header, if one comes; returns whether requests may be read now.
    #[cold]
    pub(super) fn pass_proxy(&mut self, key: Key) -> bool {
        let Some(client) = self.clients.get_mut(key) else { return false };
        if !client.readable {
            return false;
        }
        match announced(&client.fd) {
            Ok(Some(from)) => {
                client.expects_proxy_header = false;
                if let Some(from) = from {
                    client.peer = proxied::client(&client.peer, from, None).into();
                }
                true
            }
            Ok(None) if client.ended => {
                self.close_client(key);
                false
            }
            Ok(None) => {
                client.readable = false;
                false
            }
            Err(refusal) => {
                client.expects_proxy_header = false;
                if client.tls.is_some() {
                    // Nothing that was sent would be understood.
                    if log_limit::allows(LineKind::Refused(refusal.status)) {
                        warn!("{} refused: {refusal}", client_of(&client.peer));
                    }
                    self.close_client(key);
                } else {
                    self.refuse(key, refusal, &[]);
                    self.advance(&mut [0; 1024], key);
                }
                false
            }
        }
    }

    /// A client is at its end: it is closed; or it is told why its TLS has failed, and may go on sending for a while.
    pub(super) fn at_end(&mut self, key: Key) -> bool {
        let late = self.in_seconds(self.limits.timeout);
        let verbose = self.contexts.as_ref().is_some_and(|contexts| contexts.verbose);
        let Some(client) = self.clients.get_mut(key) else { return false };
        let Some(failure) = client.tls.as_mut().and_then(|tls| tls.take_failure()) else {
            self.close_client(key);
            return false;
        };
        if verbose && log_limit::allows(LineKind::Tls) {
            warn!("{}: TLS: {failure}", client_of(&client.peer));
        }
        client.input = Vec::new();
        client.phase = ClientPhase::Flushing(Then::Linger);
        client.deadline = late;
        self.arm_client(key);
        true
    }

    /// Whether a client of TLS was told that nothing more comes, which may wait for it to take that.
    pub(super) fn has_said_goodbye(&mut self, key: Key) -> bool {
        let Some(client) = self.clients.get_mut(key) else { return false };
        client.say_goodbye();
        if client.unsent.is_empty() {
            return true;
        }
        self.arm_client(key);
        false
    }

    /// Answers a request that is not served here, because of its host; returns whether there is more to do for the
    /// client then.
    #[cold]
    pub(super) fn meet_host(&mut self, key: Key, head: &Head<'_, '_>) -> Option<bool> {
        let client = self.clients.get_mut(key)?;
        let Some(tls) = &client.tls else { return Some(self.redirect(key, head)) };
        if tls.admits(host_of(head).map(without_port)) {
            return None;
        }
        let begin = [head.method.as_bytes(), b" "].concat();
        self.refuse(key, OTHER_HOST, &begin);
        Some(true)
    }

    /// Answers a request with the same address in https.
    fn redirect(&mut self, key: Key, head: &Head<'_, '_>) -> bool {
        let late = self.in_seconds(self.limits.timeout);
        let Some(client) = self.clients.get_mut(key) else { return false };
        let port = self.listen_options.get(usize::from(client.socket)).and_then(|options| options.redirect?.port);
        let server = client.peer.split(' ').nth(2).unwrap_or_default();
        let response = redirect_response(head, server, port);
        client.input = Vec::new();
        client.phase = ClientPhase::Flushing(Then::Linger);
        client.deadline = late;
        if client.send(&[response.as_bytes()], &self.temp).is_err() {
            self.close_client(key);
            return false;
        }
        self.arm_client(key);
        true
    }
}

/// Reads a PROXY header, and leaves what follows it in the socket. Outer `None`: not all of it has come yet. Inner `None`:
/// there is no header, or none with an address.
fn announced(fd: &OwnedFd) -> Result<Option<Option<SocketAddr>>, Refusal> {
    let mut bytes = [0; proxy::MAX_HEADER];
    let count = loop {
        match recv(fd, &mut bytes[..], RecvFlags::PEEK) {
            Ok((_, count)) => break count,
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::AGAIN) => return Ok(None),
            // The next read reports the error.
            Err(_) => return Ok(Some(None)),
        }
    };
    match proxy::parse(&bytes[..count])? {
        // End of file.
        _ if count == 0 => Ok(Some(None)),
        proxy::Start::Part => Ok(None),
        proxy::Start::Plain => Ok(Some(None)),
        proxy::Start::Header { len, addresses } => {
            // The peek has shown that these bytes are there.
            let _ = recv(fd, &mut bytes[..len], RecvFlags::empty());
            Ok(Some(addresses.map(|(from, _)| from)))
        }
    }
}

/// The host that a request is for, perhaps with a port.
fn host_of<'h>(head: &'h Head<'_, '_>) -> Option<&'h str> {
    let host = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case("host"));
    let host = host.and_then(|header| std::str::from_utf8(header.value).ok());
    target::split(head.target).authority.or(host).map(str::trim).filter(|host| !host.is_empty())
}

fn without_port(host: &str) -> &str {
    // Of an IPv6 address the colons are inside brackets.
    let end = host.rfind(':').filter(|colon| !host[*colon..].contains(']')).unwrap_or(host.len());
    &host[..end]
}

/// `server` is who the request goes to if it does not say that itself, as HTTP/1.0 need not.
fn redirect_response(head: &Head<'_, '_>, server: &str, port: Option<u16>) -> String {
    let parts = target::split(head.target);
    let host = without_port(host_of(head).unwrap_or(server));
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    let path = match head.target {
        whole if whole.starts_with('/') => whole.to_owned(),
        _ if parts.query.is_empty() => parts.path.to_owned(),
        _ => format!("{}?{}", parts.path, parts.query),
    };
    format!(
        "HTTP/1.1 301 Moved Permanently\r\nLocation: https://{host}{port}{path}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use rwsgi_protocol::http::{self, HeaderBuf};
    use std::mem::MaybeUninit;

    fn location(head: &str, port: Option<u16>) -> String {
        let bytes = format!("{head}\r\n\r\n").into_bytes();
        let mut headers: HeaderBuf<'_> = [const { MaybeUninit::uninit() }; http::MAX_HEADERS];
        let head = http::parse(&bytes, &mut headers, 65_536).unwrap().unwrap();
        let response = redirect_response(&head, "server", port);
        let line = response.lines().find_map(|line| line.strip_prefix("Location: "));
        line.unwrap().to_owned()
    }

    #[test]
    fn a_request_is_sent_to_the_same_address_in_https() {
        for (head, wanted) in [
            ("GET /a?b=c HTTP/1.1\r\nHost: example.org", "https://example.org/a?b=c"),
            ("GET / HTTP/1.1\r\nHost: example.org:8080", "https://example.org/"),
            ("GET / HTTP/1.1\r\nHost: [::1]:8080", "https://[::1]/"),
            ("GET / HTTP/1.1\r\nHost: [::1]", "https://[::1]/"),
            ("GET /x HTTP/1.0", "https://server/x"),
            ("GET http://other.org/x?y HTTP/1.1\r\nHost: example.org", "https://other.org/x?y"),
        ] {
            assert_eq!(location(head, None), wanted);
        }
        assert_eq!(location("GET / HTTP/1.1\r\nHost: [::1]:80", Some(8443)), "https://[::1]:8443/");
    }
}
