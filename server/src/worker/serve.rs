//! Serves one request: calls the application, answers, counts and logs.

use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;

use pyo3::prelude::*;

use super::access_log::{AccessLog, Entry};
use super::body::RequestBody;
use super::connection::{Connection, ConnectionPhase, ResponseEnd};
use super::harakiri;
use super::phases::Ended;
use super::routes::RouteRequest;
use super::worker_thread::WorkerThread;
use crate::clock::{MonotonicNanos, UnixMicros};
use crate::io::close::reset_on_close;
use crate::io::pace::Pace;
use crate::io::temp::log_response_not_kept;
use crate::stats::cell::{ExceptionReport, Outcome};
use crate::wsgi::gateway::{Incoming, Served};
use crate::wsgi::serving::{self, LineChoice, Notes};
use rwsgi_protocol::SocketProtocol;
use rwsgi_protocol::http::{self, BodyLength, Head, HeaderBuf, Version};
use rwsgi_protocol::link::{FAST_NS, Peer};
use rwsgi_protocol::path;
use rwsgi_protocol::response::Exchange;
use rwsgi_protocol::uwsgi;

/// The status of a request whose connection the application has taken.
const SWITCHING_PROTOCOLS: u16 = 101;
/// The status that `harakiri` answers with.
const GATEWAY_TIMEOUT: u16 = 504;

/// What the log and the scoreboard say of a request first.
struct RequestLine<'a> {
    client: &'a [u8],
    method: &'a [u8],
    uri: &'a [u8],
    /// What its route is told by: the URI, or the path when a proxy has sent no URI.
    target: &'a [u8],
    protocol: &'a [u8],
    /// What a proxy says of when it took the request.
    request_start: &'a [u8],
}

impl WorkerThread {
    /// Serves a request whose head was parsed before and whose body is complete.
    pub(super) fn serve_http(
        &mut self,
        py: Python<'_>,
        connection: Box<Connection>,
        bytes: &[u8],
    ) -> anyhow::Result<Box<Connection>> {
        let mut headers: HeaderBuf<'_> = [const { MaybeUninit::uninit() }; http::MAX_HEADERS];
        match http::parse(bytes, &mut headers, bytes.len()) {
            Ok(Some(head)) => {
                // A router that has not heard of a reload yet lets pass what this worker does not.
                if let Err(refusal) = path::check(self.worker.config.path_normalize, head.target) {
                    return Ok(self.refuse(connection, refusal, bytes));
                }
                let has_body = head.body != BodyLength::None;
                let body_len = has_body.then(|| connection.body.left());
                self.serve_head(py, connection, &head, bytes, body_len)
            }
            // The router's parser is this one, so that only a router of another version can bring this about.
            Ok(None) => anyhow::bail!("the router sent a part of a request head"),
            Err(refusal) => Ok(self.refuse(connection, refusal, bytes)),
        }
    }

    pub(super) fn serve_head(
        &mut self,
        py: Python<'_>,
        connection: Box<Connection>,
        head: &Head<'_, '_>,
        bytes: &[u8],
        body_len: Option<u64>,
    ) -> anyhow::Result<Box<Connection>> {
        // The text moves out while the connection is the application's, and back after.
        let mut connection = connection;
        let text = std::mem::take(&mut connection.peer);
        let peer = Peer::parse(&text)?;
        let exchange = Exchange {
            protocol: SocketProtocol::Http,
            version: head.version,
            head_only: head.method == "HEAD",
            // A link's client is the router's, which outlives this worker.
            keep_alive: head.keep_alive
                && self.worker.config.http_keepalive > 0
                && (connection.is_link() || !self.is_declining())
                && !self.worker.scoreboard.limits().closes_connections(),
        };
        let line = RequestLine {
            client: peer.remote_addr.as_bytes(),
            method: head.method.as_bytes(),
            uri: head.target.as_bytes(),
            target: head.target.as_bytes(),
            protocol: head.version.as_str().as_bytes(),
            request_start: head.request_start,
        };
        // Readers of the scoreboard look for the request line at the beginning.
        let head_bytes = &bytes[head.start..];
        let request = Incoming::Http { head, peer, body_len };
        let mut connection = self.serve_one(py, connection, &request, exchange, &text, head_bytes, &line)?;
        connection.peer = text;
        Ok(connection)
    }

    /// Serves a request of the uwsgi protocol, whose body is complete. `bytes` is what the packet was read from.
    pub(super) fn serve_uwsgi(
        &mut self,
        py: Python<'_>,
        connection: Box<Connection>,
        packet: &uwsgi::Packet<'_>,
        bytes: &[u8],
    ) -> anyhow::Result<Box<Connection>> {
        let [mut method, mut uri, mut path, mut protocol, mut client, mut request_start] = [&[][..]; 6];
        for (name, value) in packet.vars() {
            match name {
                b"REQUEST_METHOD" => method = value,
                b"REQUEST_URI" => uri = value,
                b"PATH_INFO" => path = value,
                b"SERVER_PROTOCOL" => protocol = value,
                b"REMOTE_ADDR" => client = value,
                b"HTTP_X_REQUEST_START" => request_start = value,
                _ => {}
            }
        }
        let exchange = Exchange {
            protocol: SocketProtocol::Uwsgi,
            version: if protocol == b"HTTP/1.0" { Version::Http10 } else { Version::Http11 },
            head_only: method == b"HEAD",
            keep_alive: false,
        };
        let target = if uri.is_empty() { path } else { uri };
        let line = RequestLine { client, method, uri, target, protocol, request_start };
        let request = Incoming::Uwsgi(packet);
        self.serve_one(py, connection, &request, exchange, "", &bytes[uwsgi::HEADER_LEN..], &line)
    }

    /// Has the application answer, counts and logs.
    #[expect(
        clippy::too_many_arguments,
        reason = "one call site for each protocol; a struct would only name them again"
    )]
    fn serve_one(
        &mut self,
        py: Python<'_>,
        mut connection: Box<Connection>,
        request: &Incoming<'_>,
        exchange: Exchange,
        peer: &str,
        kept: &[u8],
        line: &RequestLine<'_>,
    ) -> anyhow::Result<Box<Connection>> {
        connection.queued = 0;
        connection.closes = !exchange.keep_alive;
        connection.phase = ConnectionPhase::Serving;
        let started = self.now;
        let waited = self.waited(started, std::mem::take(&mut connection.waits), line.request_start);
        let cell = self.cell();
        cell.phases.begin(&waited);
        cell.begin(started, exchange.protocol, peer.as_bytes(), kept);
        if self.worker.scoreboard.slow().wakes() {
            self.wake_for_slow();
        }
        self.watch_over_others();
        self.meter.begin(started);
        if self.worker.config.harakiri.is_some() {
            connection.watched = true;
            harakiri::hold(connection.kind, connection.socket.as_raw_fd(), started);
        }
        serving::begin(connection.socket.as_raw_fd(), connection.is_link());
        let traced = if self.tracer.is_some() { self.begin_trace(request, started) } else { None };
        let served = self.gateway.serve(py, request, exchange, connection)?;
        let Served { client: mut connection, status, sent, keep_alive, raised, client_gone, broken_off, times } =
            served;
        if status == SWITCHING_PROTOCOLS {
            // A library may have made the socket wait.
            rustix::io::ioctl_fionbio(&*connection.socket, true)?;
        }
        let bytes = connection.queued;
        if let RequestBody::Memory(bytes, _) = &mut connection.body {
            self.keep_buffer(std::mem::take(bytes));
        }
        // The router may have much of it still to send.
        let drained = if let RequestBody::Link(_) = connection.body {
            py.detach(|| connection.discard_body())
        } else {
            connection.discard_body()
        };
        let is_harakiri = connection.claim().is_err();
        let client_gone = is_harakiri || client_gone;
        let fast = connection.is_link() && MonotonicNanos::now().nanos_since(started) < FAST_NS;
        let end = match (broken_off, keep_alive) {
            (true, _) => ResponseEnd::Aborted,
            (false, true) => ResponseEnd::Keep,
            (false, false) => ResponseEnd::Close,
        };
        let ended = if client_gone || drained.is_err() { None } else { Some(connection.end_response(end, fast)) };
        let client_gone = client_gone || (!connection.is_link() && ended.as_ref().is_some_and(Result::is_err));
        if ended.is_none_or(|ended| ended.is_err()) {
            if broken_off {
                // One that is only slow must not take what it has for the whole.
                reset_on_close(&*connection.socket);
            }
            connection.give_up();
        }
        let mut client_gone = client_gone;
        if !connection.unsent.is_empty() && !connection.is_link() && self.park(py, &mut connection).is_err() {
            client_gone = true;
            reset_on_close(&*connection.socket);
            connection.give_up();
        }
        if std::mem::take(&mut connection.too_slow) {
            self.end_slow_client(peer, true);
        }
        if connection.is_link()
            && self.is_declining()
            && !connection.link.leave_sent
            && connection.tell_leaving().is_err()
        {
            connection.give_up();
        }
        self.now = MonotonicNanos::now();
        let cell = self.cell();
        let report = raised.as_ref().map(|raised| ExceptionReport {
            when: UnixMicros::now(),
            kind: raised.kind.clone(),
            message: raised.message.clone(),
            traceback: raised.traceback.clone(),
            request: [line.method, line.uri].map(String::from_utf8_lossy).join(" "),
        });
        if let (Some(raised), Some(report)) = (&raised, &report) {
            cell.errors.count(&raised.kind);
            cell.exception.store(report);
            if self.worker.config.reactions.exceptions.matches(&raised.kind, &raised.message) {
                self.worker.notices.tell_raised(&raised.kind);
            }
        }
        self.count_sent(&mut connection);
        let notes = serving::end();
        self.count_route(&RouteRequest {
            method: line.method,
            target: line.target,
            status,
            started,
            sent: bytes,
            exception: report.as_ref(),
            notes: notes.as_ref(),
        });
        let outcome = Outcome { status, exception: raised.is_some(), write_error: client_gone };
        let phases = times.split(started, self.now, waited);
        let cell = self.cell();
        cell.finish(self.now, self.ready.min(started), outcome);
        cell.phases.record(&phases);
        if self.worker.scoreboard.slow().is_slow(phases.total()) {
            let (protocol, exception) = (exchange.protocol, report.as_ref());
            let status = if is_harakiri { GATEWAY_TIMEOUT } else { status };
            self.tell_slow(&phases, &Ended { started, protocol, peer, head: kept, status, is_harakiri, exception });
        }
        if let Some(ids) = &traced {
            let (protocol, exception) = (exchange.protocol, report.as_ref());
            let status = if is_harakiri { GATEWAY_TIMEOUT } else { status };
            let ended = Ended { started, protocol, peer, head: kept, status, is_harakiri, exception };
            let route = self.route_name(notes.as_ref().and_then(Notes::route));
            self.end_trace(ids, &phases, &ended, route.as_ref(), sent.body, client_gone);
        }
        self.worker.notices.count();
        if self.log.is_none() && notes.as_ref().is_none_or(|notes| notes.line != LineChoice::Logged) {
            return Ok(connection);
        }
        // Rules may have changed what came.
        let set = |name: &[u8], came| notes.as_ref().and_then(|notes| notes.set_to(name)).unwrap_or(came);
        let RequestLine { client, method, uri, protocol, .. } = *line;
        let (client, method, uri) =
            (set(b"REMOTE_ADDR", client), set(b"REQUEST_METHOD", method), set(b"REQUEST_URI", uri));
        let took = self.now.nanos_since(started);
        let body_broken = drained.is_err();
        let entry = Entry {
            request,
            client,
            method,
            uri,
            protocol,
            status,
            bytes,
            took,
            sent,
            client_gone,
            body_broken,
            traced,
        };
        match &mut self.log {
            Some(log) => log.add(&entry, notes.as_ref()),
            None => {
                let mut log = AccessLog::on_demand(&self.worker, self.id);
                log.add(&entry, notes.as_ref());
                log.write();
            }
        }
        Ok(connection)
    }

    /// Has a finished response wait for its client in memory, or in a temporary file when that is full. When there is no
    /// space for a file, this thread waits.
    ///
    /// # Errors
    /// When the thread had to wait for the client, and the client is gone or too slow.
    fn park(&self, py: Python<'_>, connection: &mut Connection) -> std::io::Result<()> {
        connection.pace = Pace::of_response(connection.rates, self.second());
        connection.parked = self.worker.parked.take(connection.unsent.in_memory());
        if connection.parked.is_some() {
            return Ok(());
        }
        py.detach(|| match connection.unsent.move_to_file(&self.worker.temp) {
            Ok(()) => Ok(()),
            Err(problem) => {
                log_response_not_kept(&problem);
                connection.wait_until_sent()
            }
        })
    }
}
