//! The stats servers: tasks of the master's loop that hand the document to each client that connects.
//!
//! A plain socket sends one JSON document to each connection at once and closes it, as uWSGI does. With `stats-http`,
//! it answers HTTP ([`http`]). Nothing that a client does or leaves undone holds up the loop, nor more than a bounded
//! number of connections and documents: where a further client comes, the one that has been silent for the longest is
//! closed.

mod http;
mod metrics;
mod probe;

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::sys::socket::{AddressFamily, SockaddrLike, SockaddrStorage, getsockname};
use rwsgi_stats::Snapshot;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tracing::{info, warn};

pub use self::http::{HttpAccess, OwnNames};
pub use self::metrics::MetricsAccess;
pub use self::probe::{Probes, Readiness};
use super::snapshot::{Purpose, SnapshotRequest};

/// Connections that may be open at a time: more than there are monitors, and few enough for the memory of their documents.
const CONNECTIONS: usize = 32;
/// In so many turns of the loop a client that has asked has its answer.
const TURNS: usize = 16;
/// How long a client may take to send its request, and to take the answer.
const PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 600 } else { 4 });
/// How long a connection is kept after the answer, for the client to close it first.
const LINGER: Duration = Duration::from_secs(if cfg!(test) { 600 } else { 1 });
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

/// What a stats server says to whoever connects.
#[derive(Clone, Debug)]
pub enum Service {
    /// The document, without being asked.
    Plain,
    /// What is asked for over HTTP.
    Http(HttpAccess),
    /// Probes over HTTP, and nothing else.
    Probes(Probes),
}

/// An open connection.
struct Connection {
    task: AbortHandle,
    turn: Rc<Cell<Turn>>,
}

/// Whose turn it is on a connection. When there are too many connections, the smallest is closed first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Turn {
    /// Nobody's: the client has its answer.
    Over,
    /// The client's, which last did something then.
    Client(Instant),
    /// The server's.
    Ours,
}

/// Serves a bound, listening, non-blocking socket until the master ends. Runs within a `LocalSet`.
///
/// `ask` has somebody take a snapshot and send it.
pub async fn serve(listener: OwnedFd, service: Service, ask: impl Fn(SnapshotRequest) + 'static) {
    let listener = match adopt(listener) {
        Ok(listener) => listener,
        Err(error) => {
            warn!("stats: the socket cannot be used: {error}");
            return;
        }
    };
    let (service, ask) = (Rc::new(service), Rc::new(ask));
    let mut connections: Vec<Connection> = Vec::with_capacity(CONNECTIONS);
    let mut failing = false;
    loop {
        match listener.accept().await {
            Ok(mut stream) => {
                if std::mem::take(&mut failing) {
                    info!("stats: connections are accepted again");
                }
                connections.retain(|connection| !connection.task.is_finished());
                if connections.len() >= CONNECTIONS {
                    let_answer(&connections).await;
                    close_most_silent(&mut connections);
                }
                let (service, ask) = (service.clone(), ask.clone());
                let turn = Rc::new(Cell::new(Turn::Client(Instant::now())));
                let mark = turn.clone();
                let task = tokio::task::spawn_local(async move {
                    // A client that goes away or is too slow is no concern of the server's.
                    let _ = answer(&mut *stream, &service, &*ask, &mark).await;
                });
                connections.push(Connection { task: task.abort_handle(), turn });
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

/// Many may come at once, and be accepted before the first of them was looked at: those that have asked are answered first.
async fn let_answer(connections: &[Connection]) {
    let is_over = |connection: &Connection| connection.task.is_finished() || connection.turn.get() == Turn::Over;
    for _ in 0..TURNS {
        if connections.iter().any(is_over) {
            return;
        }
        tokio::task::yield_now().await;
    }
}

fn close_most_silent(connections: &mut Vec<Connection>) {
    let silent = connections.iter().enumerate().min_by_key(|(_, connection)| connection.turn.get());
    if let Some((place, _)) = silent {
        connections.remove(place).task.abort();
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

async fn answer(
    stream: &mut dyn Stream,
    service: &Service,
    ask: &impl Fn(SnapshotRequest),
    turn: &Cell<Turn>,
) -> io::Result<()> {
    let bytes = match service {
        Service::Plain => {
            turn.set(Turn::Ours);
            document(&snapshot(ask, Purpose::Document).await?)?
        }
        Service::Http(access) => {
            let request = within(http::read_request(stream, &access.names)).await?;
            turn.set(Turn::Ours);
            http::respond(&request, access, ask).await?
        }
        Service::Probes(probes) => {
            let request = within(http::read_request(stream, &OwnNames::default())).await?;
            turn.set(Turn::Ours);
            probes.answer(&request).await?
        }
    };
    within(async {
        let mut rest = &bytes[..];
        turn.set(Turn::Client(Instant::now()));
        while !rest.is_empty() {
            let sent = stream.write(rest).await?;
            if sent == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            rest = &rest[sent..];
            turn.set(Turn::Client(Instant::now()));
        }
        stream.shutdown().await
    })
    .await?;
    drop(bytes);
    turn.set(Turn::Over);
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

async fn snapshot(ask: &impl Fn(SnapshotRequest), purpose: Purpose) -> io::Result<Snapshot> {
    let (answer, receiver) = oneshot::channel();
    ask(SnapshotRequest { purpose, answer });
    receiver.await.map_err(io::Error::other)
}

fn document(snapshot: &Snapshot) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(2048 * (snapshot.workers.len() + 1));
    rwsgi_stats::write_json(&mut bytes, snapshot)?;
    Ok(bytes)
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
    fn with_server<T>(listener: OwnedFd, service: Service, workers: u32, client: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        tokio::task::LocalSet::new().block_on(&runtime, async {
            tokio::task::spawn_local(serve(listener, service, move |asked| {
                let _ = asked.answer.send(snapshot_of(workers));
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

    fn over_http() -> Service {
        Service::Http(HttpAccess::default())
    }

    /// What a server that speaks HTTP answers.
    fn exchange(request: &[u8]) -> String {
        let (listener, address) = tcp();
        with_server(listener, over_http(), 1, async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(request).await.unwrap();
            String::from_utf8(all(stream).await).unwrap()
        })
    }

    #[test]
    fn a_plain_socket_sends_the_document_at_once_and_closes() {
        let (listener, address) = tcp();
        let bytes =
            with_server(listener, Service::Plain, 3, async { all(TcpStream::connect(address).await.unwrap()).await });
        assert_eq!(serde_json::from_slice::<Snapshot>(&bytes).unwrap(), snapshot_of(3));
        let (listener, address) = abstract_unix("plain");
        let bytes = with_server(listener, Service::Plain, 3, async { all(connect_unix(&address).await).await });
        assert_eq!(serde_json::from_slice::<Snapshot>(&bytes).unwrap().workers.len(), 3);
    }

    #[test]
    fn a_client_that_sends_what_nobody_asked_for_still_gets_the_whole_document() {
        let (listener, address) = tcp();
        let bytes = with_server(listener, Service::Plain, 200, async {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            all(stream).await
        });
        assert_eq!(serde_json::from_slice::<Snapshot>(&bytes).unwrap().workers.len(), 200);
    }

    #[test]
    fn http_answers_as_uwsgi_s_but_lets_no_page_read_it() {
        let answer = exchange(b"GET /?x=1 HTTP/1.1\r\nHost: x\r\n\r\n");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.0 200 OK\r\n"), "{head}");
        for header in ["Connection: close", "Content-Type: application/json"] {
            assert!(head.lines().any(|line| line == header), "{head}");
        }
        assert!(!head.contains("Access-Control"), "{head}");
        assert_eq!(serde_json::from_str::<Snapshot>(body).unwrap(), snapshot_of(1));

        let only_head = exchange(b"HEAD / HTTP/1.0\r\n\r\n");
        assert_eq!(only_head.trim_end(), head, "a HEAD is a GET without its body");
        let metrics = exchange(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
        assert!(metrics.contains("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{metrics}");
        assert!(metrics.contains("\nrwsgi_worker_requests_total{worker=\"1\"} 0\n"), "{metrics}");
        let open = exchange(
            b"GET /metrics HTTP/1.1\r\nAccept: text/plain;q=0.5\r\naccept: application/openmetrics-text\r\n\r\n",
        );
        assert!(open.contains("\r\nContent-Type: application/openmetrics-text; version=1.0.0;"), "{open}");
        assert!(open.contains("\r\nVary: Accept\r\n") && open.ends_with("\n# EOF\n"), "{open}");
        for (request, status) in [
            (&b"GET /other HTTP/1.1\r\nHost: x\r\n\r\n"[..], "404 Not Found"),
            // Where nobody can say, as beside an emperor alone.
            (b"GET /-/live HTTP/1.1\r\nHost: x\r\n\r\n", "404 Not Found"),
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
        request.resize(8 * 1024, b'x');
        assert!(exchange(&request).starts_with("HTTP/1.0 400 "));
    }

    #[test]
    fn clients_that_never_read_do_not_lock_others_out() {
        let (listener, address) = abstract_unix("silent");
        let bytes = with_server(listener, Service::Plain, 300, async {
            let mut silent = Vec::new();
            for _ in 0..4 * CONNECTIONS {
                silent.push(connect_unix(&address).await);
            }
            all(connect_unix(&address).await).await
        });
        assert_eq!(serde_json::from_slice::<Snapshot>(&bytes).unwrap().workers.len(), 300);
    }

    #[test]
    fn everybody_who_has_asked_is_answered_however_many_come_at_once() {
        let (listener, address) = tcp();
        let asking: Vec<_> = (0..3 * CONNECTIONS)
            .map(|_| {
                let mut stream = std::net::TcpStream::connect(address).unwrap();
                std::io::Write::write_all(&mut stream, b"GET /-/live HTTP/1.0\r\n\r\n").unwrap();
                stream.set_nonblocking(true).unwrap();
                stream
            })
            .collect();
        let probes = Probes::new(|answer| drop(answer.send(Ok(()))));
        with_server(listener, Service::Probes(probes), 1, async {
            for stream in asking {
                let answer = all(TcpStream::from_std(stream).unwrap()).await;
                assert!(answer.starts_with(b"HTTP/1.0 200 OK"), "{answer:?}");
            }
        });
    }

    #[test]
    fn clients_that_never_ask_do_not_lock_others_out() {
        let (listener, address) = tcp();
        let answer = with_server(listener, over_http(), 1, async {
            let mut silent = Vec::new();
            for _ in 0..4 * CONNECTIONS {
                silent.push(TcpStream::connect(address).await.unwrap());
            }
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
            all(stream).await
        });
        assert!(answer.starts_with(b"HTTP/1.0 200 OK"));
    }
}
