//! The stats servers: tasks of the master's loop that hand the document to each client that connects.
//!
//! A plain socket sends one JSON document to each connection at once and closes it, as uWSGI does. With `stats-http`,
//! it answers HTTP: `/` is that document, `/metrics` is Prometheus's text. Nothing that a client does or leaves undone
//! holds up the loop, nor more than a bounded number of connections and documents.

use std::future::Future;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockaddrLike, SockaddrStorage, getsockname};
use rwsgi_stats::Snapshot;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;
use tracing::{info, warn};

use super::metrics;

/// Connections that are served at a time; more wait in the backlog.
const CONNECTIONS: usize = 32;
/// How long a client may take to send its request, and to take the answer.
const PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 4 });
/// How long a connection is kept after the answer, for the client to close it first.
const LINGER: Duration = Duration::from_secs(1);
/// The largest request head, bytes.
const HEAD_MAX: usize = 8 * 1024;
/// More headers than any monitor sends.
const HEADERS_MAX: usize = 64;
/// How long to wait before the next try when the system is out of descriptors, so that the loop is not taken up by
/// failing.
const PAUSE: Duration = Duration::from_millis(100);

enum StatsListener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl StatsListener {
    /// The next connection. One that is gone again before it is accepted is passed over.
    ///
    /// # Errors
    /// When the system has no descriptors or memory left.
    async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        loop {
            let accepted = match self {
                Self::Tcp(tcp) => tcp.accept().await.map(|(stream, _)| Box::new(stream) as Box<dyn Stream>),
                Self::Unix(unix) => unix.accept().await.map(|(stream, _)| Box::new(stream) as Box<dyn Stream>),
            };
            match accepted {
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                accepted => return accepted,
            }
        }
    }
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
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let mut failing = false;
    loop {
        // The semaphore is never closed.
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok(mut stream) => {
                if std::mem::take(&mut failing) {
                    info!("stats: connections are accepted again");
                }
                let ask = ask.clone();
                tokio::task::spawn_local(async move {
                    // A client that goes away or is too slow is no concern of the server's.
                    let _ = answer(&mut *stream, http, &*ask).await;
                    drop(place);
                });
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    warn!("stats: connections cannot be accepted: {error}; trying again until they can");
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn adopt(fd: OwnedFd) -> io::Result<StatsListener> {
    let bound: SockaddrStorage = getsockname(std::os::fd::AsRawFd::as_raw_fd(&fd.as_fd()))?;
    if bound.family() == Some(AddressFamily::Unix) {
        Ok(StatsListener::Unix(UnixListener::from_std(fd.into())?))
    } else {
        Ok(StatsListener::Tcp(TcpListener::from_std(fd.into())?))
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
        let space = (HEAD_MAX - head.len()) as u64;
        if (&mut *stream).take(space).read_buf(&mut head).await? == 0 {
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
    let path = rwsgi_protocol::target::split(target).path.to_owned();
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
        "/metrics" => {
            let body = metrics::text(snapshot(ask).await?);
            response("200 OK", metrics::CONTENT_TYPE, body.as_bytes(), "", head_only)
        }
        _ => response("404 Not Found", "text/plain", b"there is / (JSON) and /metrics\n", "", head_only),
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::SocketAddr;

    use rwsgi_stats::Worker;
    use tokio::net::{TcpStream, UnixStream};

    fn snapshot_of(workers: u32) -> Snapshot {
        let worker = |id| Worker { id, status: "x".repeat(1500), ..Worker::default() };
        Snapshot { version: "1.2".into(), workers: (1..=workers).map(worker).collect(), ..Snapshot::default() }
    }

    /// Runs `client` against a server of `listener`.
    fn with_server<T>(listener: OwnedFd, http: bool, workers: u32, client: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            tokio::task::spawn_local(serve(listener, http, move |answer| {
                let _ = answer.send(snapshot_of(workers));
            }));
            timeout(Duration::from_secs(30), client).await.expect("the server holds the client up")
        })
    }

    fn tcp() -> (OwnedFd, std::net::SocketAddr) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        (listener.into(), address)
    }

    fn abstract_unix(name: &str) -> (OwnedFd, SocketAddr) {
        let address = SocketAddr::from_abstract_name(format!("rwsgi-stats-{name}-{}", std::process::id())).unwrap();
        let listener = std::os::unix::net::UnixListener::bind_addr(&address).unwrap();
        listener.set_nonblocking(true).unwrap();
        (listener.into(), address)
    }

    async fn connect_unix(address: &SocketAddr) -> UnixStream {
        let stream = std::os::unix::net::UnixStream::connect_addr(address).unwrap();
        stream.set_nonblocking(true).unwrap();
        UnixStream::from_std(stream).unwrap()
    }

    async fn all(mut stream: impl AsyncRead + Unpin) -> Vec<u8> {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).await.unwrap();
        bytes
    }

    /// What a server that speaks HTTP answers.
    fn exchange(request: &[u8]) -> String {
        let (listener, address) = tcp();
        with_server(listener, true, 1, async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(request).await.unwrap();
            String::from_utf8(all(stream).await).unwrap()
        })
    }

    #[test]
    fn a_plain_socket_sends_the_document_at_once_and_closes() {
        let (listener, address) = tcp();
        let bytes = with_server(listener, false, 3, async { all(TcpStream::connect(address).await.unwrap()).await });
        assert_eq!(serde_json::from_slice::<Snapshot>(&bytes).unwrap(), snapshot_of(3));
        let (listener, address) = abstract_unix("plain");
        let bytes = with_server(listener, false, 3, async { all(connect_unix(&address).await).await });
        assert_eq!(serde_json::from_slice::<Snapshot>(&bytes).unwrap().workers.len(), 3);
    }

    #[test]
    fn a_client_that_sends_what_nobody_asked_for_still_gets_the_whole_document() {
        let (listener, address) = tcp();
        let bytes = with_server(listener, false, 200, async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            all(stream).await
        });
        assert_eq!(serde_json::from_slice::<Snapshot>(&bytes).unwrap().workers.len(), 200);
    }

    #[test]
    fn http_answers_as_uwsgi_s_and_the_rest_properly() {
        let answer = exchange(b"GET /?x=1 HTTP/1.1\r\nHost: x\r\n\r\n");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.0 200 OK\r\n"), "{head}");
        for header in ["Connection: close", "Access-Control-Allow-Origin: *", "Content-Type: application/json"] {
            assert!(head.lines().any(|line| line == header), "{head}");
        }
        assert_eq!(serde_json::from_str::<Snapshot>(body).unwrap(), snapshot_of(1));

        let only_head = exchange(b"HEAD / HTTP/1.0\r\n\r\n");
        assert_eq!(only_head.trim_end(), head, "a HEAD is a GET without its body");
        let metrics = exchange(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(metrics.contains("\r\nContent-Type: application/openmetrics-text"), "{metrics}");
        assert!(metrics.contains("\nrwsgi_worker_requests_total{worker=\"1\"} 0\n"), "{metrics}");
        for (request, status) in [
            (&b"GET /other HTTP/1.1\r\nHost: x\r\n\r\n"[..], "404 Not Found"),
            (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}", "405 Method Not Allowed"),
            (b"what?\r\n\r\n", "400 Bad Request"),
        ] {
            let answer = exchange(request);
            assert!(answer.starts_with(&format!("HTTP/1.0 {status}\r\n")), "{answer}");
        }
        assert!(exchange(b"DELETE / HTTP/1.1\r\n\r\n").contains("\r\nAllow: GET, HEAD\r\n"));
    }

    #[test]
    fn a_head_without_an_end_is_refused() {
        let mut request = b"GET / HTTP/1.1\r\nX: ".to_vec();
        request.resize(HEAD_MAX, b'x');
        assert!(exchange(&request).starts_with("HTTP/1.0 400 "));
    }

    #[test]
    fn a_head_may_come_byte_by_byte() {
        let head = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
        for len in 0..head.len() {
            assert_eq!(parse_request(&head[..len]), None);
        }
        assert_eq!(parse_request(head), Some(Request::Get { head_only: false, path: "/".into() }));
    }

    #[test]
    fn clients_that_never_read_do_not_lock_others_out() {
        let (listener, address) = abstract_unix("silent");
        let bytes = with_server(listener, false, 300, async {
            let mut silent = Vec::new();
            for _ in 0..CONNECTIONS {
                silent.push(connect_unix(&address).await);
            }
            all(connect_unix(&address).await).await
        });
        assert_eq!(serde_json::from_slice::<Snapshot>(&bytes).unwrap().workers.len(), 300);
    }

    #[test]
    fn clients_that_never_ask_do_not_lock_others_out() {
        let (listener, address) = tcp();
        let answer = with_server(listener, true, 1, async {
            let mut silent = Vec::new();
            for _ in 0..CONNECTIONS {
                silent.push(TcpStream::connect(address).await.unwrap());
            }
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
            all(stream).await
        });
        assert!(answer.starts_with(b"HTTP/1.0 200 OK"));
    }
}
