//! WebSocket (RFC 6455) on the connection of the request that this thread serves: the handshake, messages, and the socket
//! itself for libraries that speak the protocol themselves.
//!
//! A thread that speaks WebSocket serves nobody else until the application returns. The frames are tungstenite's.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use rustix::event::PollFlags;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Bytes, Error, Message};

use super::active::CurrentRequest;
use super::incoming::Incoming;
use crate::io::wait::until_ready;
use rwsgi_config::WebSocketRules;

/// The environ's key under which libraries look for the connection's socket object, wherever they run: gunicorn's.
pub(super) const SOCKET_KEY: &str = "gunicorn.socket";

/// What is asked of clients.
#[derive(Clone, Copy, Debug, Default)]
pub struct Terms {
    /// By the configuration.
    pub rules: WebSocketRules,
    /// The longest wait for a client to take what it is sent.
    pub patience: Duration,
}

/// What a request that asks for an upgrade offers.
pub(crate) struct Offer {
    key: Vec<u8>,
    origin: Option<Vec<u8>>,
    /// The first subprotocol that the client names.
    protocol: Option<Vec<u8>>,
    terms: Terms,
}

impl Offer {
    /// `None` when the request does not ask for WebSocket, version 13 (RFC 6455 section 4.2.1).
    fn of(request: &Incoming<'_>, terms: Terms) -> Option<Self> {
        let field = |name: &str| match request {
            Incoming::Http { head, .. } => {
                let mut found = head.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
                found.next().map(|header| header.value)
            }
            Incoming::Uwsgi(packet) => {
                let name = format!("HTTP_{}", name.to_ascii_uppercase().replace('-', "_"));
                packet.vars().find(|(found, _)| *found == name.as_bytes()).map(|(_, value)| value)
            }
        };
        let is_get = match request {
            Incoming::Http { head, .. } => head.method == "GET",
            Incoming::Uwsgi(packet) => packet.vars().any(|(name, value)| name == b"REQUEST_METHOD" && value == b"GET"),
        };
        let asks =
            is_get && field("upgrade")?.eq_ignore_ascii_case(b"websocket") && field("sec-websocket-version")? == b"13";
        asks.then_some(())?;
        let first = |list: &[u8]| list.split(|&byte| byte == b',').next().unwrap_or_default().trim_ascii().to_vec();
        Some(Self {
            key: field("sec-websocket-key")?.to_vec(),
            origin: field("origin").map(<[u8]>::to_vec),
            protocol: field("sec-websocket-protocol").map(first),
            terms,
        })
    }
}

thread_local! {
    static OFFER: RefCell<Option<Offer>> = const { RefCell::new(None) };
    static SOCKET: RefCell<Option<WebSocket>> = const { RefCell::new(None) };
}

/// This thread's request asks for an upgrade. Returns what goes into the environ for it, if it is one to WebSocket.
pub(super) fn begin(py: Python<'_>, request: &Incoming<'_>, terms: Terms) -> PyResult<Option<Py<ClientSocket>>> {
    let Some(offer) = Offer::of(request, terms) else { return Ok(None) };
    OFFER.set(Some(offer));
    let Some(request) = CurrentRequest::of_thread() else { return Ok(None) };
    Py::new(py, ClientSocket { request, object: PyOnceLock::new() }).map(Some)
}

/// The request is over.
pub(super) fn end() {
    OFFER.set(None);
    if let Some(mut socket) = SOCKET.take() {
        // The client may be gone, or the handshake of the end may be over.
        let _ = socket.frames.close(None).and_then(|()| socket.frames.flush());
        let _ = rustix::net::shutdown(&*socket.fd, rustix::net::Shutdown::Write);
    }
}

/// Whether this thread's request asks for WebSocket, or speaks it.
pub(crate) fn is_offered() -> bool {
    OFFER.with_borrow(Option::is_some) || SOCKET.with_borrow(Option::is_some)
}

/// Answers the client's handshake. What is `None` is taken from the request.
///
/// # Errors
/// When the request asks for nothing like it, a response was begun, or the client is gone.
pub(crate) fn handshake(
    py: Python<'_>,
    request: &CurrentRequest,
    key: Option<Vec<u8>>,
    origin: Option<Vec<u8>>,
    protocol: Option<Vec<u8>>,
) -> PyResult<()> {
    let Some(offer) = OFFER.take() else {
        return Err(PyOSError::new_err(
            "unable to complete websocket handshake: the request does not ask for it (Upgrade: websocket, \
             Sec-WebSocket-Version: 13, Sec-WebSocket-Key)",
        ));
    };
    let head =
        response(&key.unwrap_or(offer.key), origin.or(offer.origin).as_deref(), protocol.or(offer.protocol).as_deref());
    let terms = offer.terms;
    let answered = request.with(|active| -> PyResult<io::Result<WebSocket>> {
        Ok(py.detach(|| {
            let fd = match SOCKET.take() {
                // `uwsgi.connection_fd()` has taken it.
                Some(taken) => taken.fd,
                None => Arc::new(active.upgrade()?),
            };
            WebSocket::answer(fd, terms, &head)
        }))
    })?;
    match answered {
        Ok(socket) => {
            SOCKET.set(Some(socket));
            Ok(())
        }
        Err(error) => Err(PyOSError::new_err(format!("unable to complete websocket handshake: {error}"))),
    }
}

/// The descriptor of the client's connection, which the http router is asked for if need be.
///
/// # Errors
/// When the client is gone, or its connection is not to be had.
pub(crate) fn connection_fd(py: Python<'_>, request: &CurrentRequest) -> PyResult<RawFd> {
    if let Some(fd) = SOCKET.with_borrow(|socket| socket.as_ref().map(|socket| socket.fd.as_raw_fd())) {
        return Ok(fd);
    }
    let terms = OFFER.with_borrow(|offer| offer.as_ref().map(|offer| offer.terms)).unwrap_or_default();
    let fd = request.with(|active| -> PyResult<OwnedFd> { Ok(py.detach(|| active.upgrade())?) })?;
    let socket = WebSocket::new(Arc::new(fd), terms);
    let fd = socket.fd.as_raw_fd();
    SOCKET.set(Some(socket));
    Ok(fd)
}

/// The next message, text or binary. Without `wait`, `None` when there is none yet.
///
/// # Errors
/// When the client closed, broke the protocol, or did not answer a ping in time.
pub(crate) fn receive(py: Python<'_>, wait: bool) -> PyResult<Option<Vec<u8>>> {
    with_socket(py, "receive", |socket| socket.receive(wait))
}

/// Sends a text message.
///
/// # Errors
/// When the client is gone, takes nothing for too long, or the bytes are not UTF-8.
pub(crate) fn send_text(py: Python<'_>, text: Vec<u8>) -> PyResult<()> {
    with_socket(py, "send", |socket| {
        let text = String::from_utf8(text)
            .map_err(|_| io::Error::other("a text message must be UTF-8: use websocket_send_binary()"))?;
        socket.send(Message::text(text))
    })
}

/// Sends a binary message.
///
/// # Errors
/// When the client is gone or takes nothing for too long.
pub(crate) fn send_binary(py: Python<'_>, bytes: Vec<u8>) -> PyResult<()> {
    with_socket(py, "send", |socket| socket.send(Message::binary(bytes)))
}

/// Does something with this thread's WebSocket, without the GIL.
fn with_socket<T: Send>(
    py: Python<'_>,
    verb: &str,
    f: impl FnOnce(&mut WebSocket) -> io::Result<T> + Send,
) -> PyResult<T> {
    let problem = |error: io::Error| PyOSError::new_err(format!("unable to {verb} websocket message: {error}"));
    let Some(mut socket) = SOCKET.take() else {
        return Err(problem(io::Error::other("websocket_handshake() was not called in this thread's request")));
    };
    let (socket, outcome) = py.detach(move || {
        let outcome = f(&mut socket);
        (socket, outcome)
    });
    SOCKET.set(Some(socket));
    outcome.map_err(problem)
}

fn response(key: &[u8], origin: Option<&[u8]>, protocol: Option<&[u8]>) -> Vec<u8> {
    let mut head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n".to_vec();
    let accept = derive_accept_key(key);
    let fields = [
        ("Sec-WebSocket-Accept", Some(accept.as_bytes())),
        ("Sec-WebSocket-Origin", origin),
        ("Sec-WebSocket-Protocol", protocol),
    ];
    for (name, value) in fields {
        // A line end would begin another header; the application may pass what it likes.
        let Some(value) = value.filter(|value| !value.is_empty() && !value.iter().any(u8::is_ascii_control)) else {
            continue;
        };
        head.extend_from_slice(name.as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value);
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

/// One client.
struct WebSocket {
    fd: Arc<OwnedFd>,
    frames: tungstenite::WebSocket<Stream>,
    terms: Terms,
    /// When it was pinged last.
    pinged: Option<Instant>,
}

impl WebSocket {
    fn new(fd: Arc<OwnedFd>, terms: Terms) -> Self {
        let most = Some(terms.rules.max_size);
        let stream = Stream { fd: Arc::clone(&fd), heard: Instant::now() };
        let config = WebSocketConfig::default().max_message_size(most).max_frame_size(most);
        let frames = tungstenite::WebSocket::from_raw_socket(stream, Role::Server, Some(config));
        Self { fd, frames, terms, pinged: None }
    }

    /// Sends the handshake's answer.
    fn answer(fd: Arc<OwnedFd>, terms: Terms, head: &[u8]) -> io::Result<Self> {
        let mut socket = Self::new(fd, terms);
        let mut left = head;
        while !left.is_empty() {
            match socket.frames.get_mut().write(left) {
                Ok(count) => left = &left[count..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => socket.until_writable()?,
                Err(error) => return Err(error),
            }
        }
        Ok(socket)
    }

    fn until_writable(&self) -> io::Result<()> {
        until_ready(&*self.fd, PollFlags::OUT, self.terms.patience)
    }

    fn receive(&mut self, wait: bool) -> io::Result<Option<Vec<u8>>> {
        loop {
            match self.frames.read() {
                Ok(Message::Text(text)) => return Ok(Some(Bytes::from(text).into())),
                Ok(Message::Binary(bytes)) => return Ok(Some(bytes.into())),
                // The answer to a ping or a close waits to be sent.
                Ok(_) => self.flush()?,
                Err(error) => match plain(error) {
                    error if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
                    // Who polls relies on this for pings, as with uWSGI.
                    _ if !wait => return self.check_silence().map(|_| None),
                    _ => self.await_message()?,
                },
            }
        }
    }

    /// Waits until something comes, and pings a client that is silent.
    fn await_message(&mut self) -> io::Result<()> {
        let patience = self.check_silence()?;
        match until_ready(&*self.fd, PollFlags::IN, patience) {
            // The silence has become too long.
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Ok(()),
            ready => ready,
        }
    }

    /// Pings a client that is silent. Returns how long it may stay silent from now on.
    ///
    /// # Errors
    /// When it has not answered a ping in time.
    fn check_silence(&mut self) -> io::Result<Duration> {
        let WebSocketRules { ping_freq, pong_tolerance, .. } = self.terms.rules;
        let heard = self.frames.get_ref().heard;
        if let Some(pinged) = self.pinged.filter(|pinged| *pinged > heard) {
            let left = pong_tolerance.checked_sub(pinged.elapsed()).filter(|left| !left.is_zero());
            return left.ok_or_else(|| io::Error::new(io::ErrorKind::TimedOut, "the client did not answer a ping"));
        }
        if ping_freq.is_zero() {
            return Ok(Duration::MAX);
        }
        if let Some(left) = ping_freq.checked_sub(heard.elapsed()).filter(|left| !left.is_zero()) {
            return Ok(left);
        }
        self.pinged = Some(Instant::now());
        self.send(Message::Ping(Bytes::new()))?;
        Ok(pong_tolerance)
    }

    fn send(&mut self, message: Message) -> io::Result<()> {
        match self.frames.write(message) {
            Ok(()) => {}
            Err(error) => match plain(error) {
                // It is kept, and goes with what follows.
                error if error.kind() == io::ErrorKind::WouldBlock => {}
                error => return Err(error),
            },
        }
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        loop {
            match self.frames.flush() {
                Ok(()) => return Ok(()),
                Err(error) => match plain(error) {
                    error if error.kind() == io::ErrorKind::WouldBlock => self.until_writable()?,
                    error => return Err(error),
                },
            }
        }
    }
}

fn plain(error: Error) -> io::Error {
    match error {
        Error::Io(error) => error,
        Error::ConnectionClosed | Error::AlreadyClosed => {
            io::Error::new(io::ErrorKind::ConnectionAborted, "the client has closed the connection")
        }
        error => io::Error::new(io::ErrorKind::InvalidData, error),
    }
}

/// The connection for tungstenite, which never waits.
struct Stream {
    fd: Arc<OwnedFd>,
    /// When bytes came last.
    heard: Instant,
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = recv(self.fd.as_fd(), buffer, RecvFlags::DONTWAIT)?.0;
        self.heard = Instant::now();
        Ok(count)
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(send(self.fd.as_fd(), bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The client's connection as a Python socket object, for a library that speaks WebSocket itself. The connection is taken
/// when the object is first used: until then the application can answer with HTTP.
#[pyclass(frozen)]
pub(crate) struct ClientSocket {
    request: CurrentRequest,
    object: PyOnceLock<Py<PyAny>>,
}

#[pymethods]
impl ClientSocket {
    fn __getattr__<'py>(&self, py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
        // What looks at every object, as a debugger does, is not to take the connection.
        if name.starts_with("__") {
            return Err(pyo3::exceptions::PyAttributeError::new_err(name.to_owned()));
        }
        self.socket(py)?.getattr(name)
    }
}

impl ClientSocket {
    fn socket<'py>(&self, py: Python<'py>) -> PyResult<&Bound<'py, PyAny>> {
        // Threads that use it first at the same time get the same object.
        let object = self.object.get_or_try_init(py, || {
            let fd = self.request.with(|active| -> PyResult<OwnedFd> { Ok(py.detach(|| active.upgrade())?) })?;
            let socket = py.import("socket")?.getattr("socket")?;
            let options = pyo3::types::PyDict::new(py);
            // The object owns it from here on; if it cannot be made, the connection is closed with the request.
            options.set_item("fileno", fd.as_raw_fd())?;
            let socket = socket.call((), Some(&options))?;
            let _ = fd.into_raw_fd();
            socket.call_method1("setblocking", (true,))?;
            Ok::<_, PyErr>(socket.unbind())
        })?;
        Ok(object.bind(py))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_has_the_key_of_the_rfc_and_no_line_of_the_applications() {
        let head = response(b"dGhlIHNhbXBsZSBub25jZQ==", Some(b"http://a\r\nX: y"), Some(b"chat"));
        let head = String::from_utf8(head).unwrap();
        assert!(head.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{head}");
        assert!(head.contains("Sec-WebSocket-Protocol: chat\r\n"), "{head}");
        assert!(!head.contains("X: y"), "{head}");
    }
}
