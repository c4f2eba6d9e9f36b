//! The stats servers: tasks of the master's loop that hand the document to whoever connects.
//!
//! A plain socket sends one JSON document to each connection at once and closes it, as uWSGI does. With `stats-http`,
//! it answers HTTP: `/` is that document. Nothing that a client does or leaves undone
//! holds up the loop, nor more than a bounded number of connections and documents.

use std::future::Future;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockaddrLike, SockaddrStorage, getsockname};
use rwsgi_stats::Snapshot;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;
use tracing::warn;

/// Connections that are served at a time; more wait in the backlog.
const CONNECTIONS: usize = 32;
/// How long a client may take to send its request, and to take the answer.
const PATIENCE: Duration = Duration::from_secs(4);
/// How long a connection is kept after the answer, for the client to close it first.
const LINGER: Duration = Duration::from_secs(1);
/// The largest request head, bytes.
const HEAD_MAX: usize = 8 * 1024;
/// More headers than any monitor sends.
const HEADERS_MAX: usize = 64;
/// How long to wait when the system is out of descriptors, so that the loop is not taken up by failing.
const PAUSE: Duration = Duration::from_millis(100);

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A client's connection, of either kind.
trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

/// Serves a bound, listening, non-blocking socket until the master ends. Runs within a `LocalSet`.
///
/// `ask` has somebody take a snapshot and send it; a dropped sender means that the server is stopping.
pub async fn serve(listener: OwnedFd, http: bool, ask: impl Fn(oneshot::Sender<Snapshot>) + 'static) {
    let listener = match adopt(listener) {
        Ok(listener) => listener,
        Err(error) => {
            warn!("stats: the socket cannot be used: {error}");
            return;
        }
    };
    let ask = Rc::new(ask);
    let room = std::sync::Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let Ok(place) = room.clone().acquire_owned().await else { return };
        let accepted: io::Result<Box<dyn Stream>> = match &listener {
            Listener::Tcp(tcp) => tcp.accept().await.map(|(stream, _)| Box::new(stream) as Box<dyn Stream>),
            Listener::Unix(unix) => unix.accept().await.map(|(stream, _)| Box::new(stream) as Box<dyn Stream>),
        };
        match accepted {
            Ok(mut stream) => {
                let ask = ask.clone();
                tokio::task::spawn_local(async move {
                    // A client that goes away or is too slow is no concern of the server's.
                    let _ = answer(&mut *stream, http, &*ask).await;
                    drop(place);
                });
            }
            Err(error) => {
                warn!("stats: a connection cannot be accepted: {error}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn adopt(fd: OwnedFd) -> io::Result<Listener> {
    let bound: SockaddrStorage = getsockname(std::os::fd::AsRawFd::as_raw_fd(&fd.as_fd()))?;
    if bound.family() == Some(AddressFamily::Unix) {
        Ok(Listener::Unix(UnixListener::from_std(fd.into())?))
    } else {
        Ok(Listener::Tcp(TcpListener::from_std(fd.into())?))
    }
}

async fn answer(stream: &mut dyn Stream, http: bool, ask: &impl Fn(oneshot::Sender<Snapshot>)) -> io::Result<()> {
    let bytes = if http {
        let request = within(read_request(stream)).await?;
        respond(&request, ask).await?
    } else {
        document(&snapshot(ask).await?)?
    };
    within(async {
        stream.write_all(&bytes).await?;
        stream.shutdown().await
    })
    .await?;
    drop(bytes);
    // To close on bytes that were not read would reset the connection, and take the answer away from a client that
    // sent more than was asked of it.
    let mut rest = [0; 512];
    let drained = timeout(LINGER, async {
        while stream.read(&mut rest).await? > 0 {}
        io::Result::Ok(())
    })
    .await;
    drained.unwrap_or(Ok(()))
}

async fn within<T>(step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(PATIENCE, step).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn snapshot(ask: &impl Fn(oneshot::Sender<Snapshot>)) -> io::Result<Snapshot> {
    let (sender, receiver) = oneshot::channel();
    ask(sender);
    receiver.await.map_err(io::Error::other)
}

fn document(snapshot: &Snapshot) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(2048 * (snapshot.workers.len() + 1));
    serde_json::to_writer(&mut bytes, snapshot)?;
    Ok(bytes)
}

/// What a client asked for.
#[derive(Debug, PartialEq, Eq)]
enum Request {
    Get {
        head_only: bool,
        path: String,
    },
    OtherMethod,
    /// Not HTTP, or too much of it.
    Bad,
}

async fn read_request(stream: &mut dyn Stream) -> io::Result<Request> {
    let mut head = Vec::with_capacity(1024);
    loop {
        let room = (HEAD_MAX - head.len()) as u64;
        if (&mut *stream).take(room).read_buf(&mut head).await? == 0 {
            return if head.is_empty() { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(Request::Bad) };
        }
        if let Some(request) = parse_request(&head) {
            return Ok(request);
        }
    }
}

/// `None` while the head is incomplete.
fn parse_request(head: &[u8]) -> Option<Request> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) if head.len() < HEAD_MAX => return None,
        Ok(httparse::Status::Partial) | Err(_) => return Some(Request::Bad),
    }
    let target = request.path.unwrap_or("/");
    let path = crate::protocol::target::split(target).path.to_owned();
    Some(match request.method {
        Some("GET") => Request::Get { head_only: false, path },
        Some("HEAD") => Request::Get { head_only: true, path },
        _ => Request::OtherMethod,
    })
}

async fn respond(request: &Request, ask: &impl Fn(oneshot::Sender<Snapshot>)) -> io::Result<Vec<u8>> {
    let (head_only, path) = match request {
        Request::Get { head_only, path } => (*head_only, path.as_str()),
        Request::OtherMethod => {
            return Ok(response(
                "405 Method Not Allowed",
                "text/plain",
                b"only GET and HEAD\n",
                "Allow: GET, HEAD\r\n",
                false,
            ));
        }
        Request::Bad => return Ok(response("400 Bad Request", "text/plain", b"not an HTTP request\n", "", false)),
    };
    Ok(match path {
        "/" => {
            let body = document(&snapshot(ask).await?)?;
            // As uWSGI does: any page may show these figures.
            response("200 OK", "application/json", &body, "Access-Control-Allow-Origin: *\r\n", head_only)
        }
        _ => response("404 Not Found", "text/plain", b"there is only /\n", "", head_only),
    })
}

fn response(status: &str, content_type: &str, body: &[u8], more: &str, head_only: bool) -> Vec<u8> {
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
