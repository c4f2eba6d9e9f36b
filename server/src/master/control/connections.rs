//! The connections to the control socket: a task for each reads requests, hands them to the loop and writes the
//! replies. No client can block the loop, and the number of connections is bounded.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use rwsgi_stats::control::{LONGEST_REQUEST, Reply, Request};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tracing::{info, warn};

use super::asked::{Answering, Asked};
use super::peer::Peer;
use crate::master::events::{Event, Events};

/// Connections that may be open at a time. Beyond it the one that has been silent for the longest is closed.
const CONNECTIONS: usize = 16;
/// How long a client may take to read on.
const PATIENCE: Duration = Duration::from_secs(if cfg!(test) { 600 } else { 10 });
/// How long a client that is refused is listened to.
const LINGER: Duration = Duration::from_secs(1);
/// How often it is looked whether a client that says no more has gone, while its answer is waited for.
const LOOK: Duration = Duration::from_millis(250);
/// How long to wait before the next try when the system is out of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// An open connection.
struct Connection {
    task: AbortHandle,
    /// Since when nothing has been asked for; `None` while an answer is awaited.
    silent_since: Rc<Cell<Option<Instant>>>,
}

/// Serves a listening socket that does not block, until the master ends. Runs within a `LocalSet`.
///
/// # Errors
/// When the loop cannot wait for the socket.
pub(in crate::master) fn serve(socket: OwnedFd, events: &Events) -> io::Result<()> {
    let listener = UnixListener::from_std(socket.into())?;
    let events = events.clone();
    tokio::task::spawn_local(async move { accept_all(&listener, &events).await });
    Ok(())
}

async fn accept_all(listener: &UnixListener, events: &Events) {
    let mut connections: Vec<Connection> = Vec::new();
    let mut is_failing = false;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                if std::mem::take(&mut is_failing) {
                    info!("control: connections are accepted again");
                }
                connections.retain(|connection| !connection.task.is_finished());
                if connections.len() >= CONNECTIONS {
                    close_most_silent(&mut connections);
                }
                let silent_since = Rc::new(Cell::new(Some(Instant::now())));
                let (mark, events) = (silent_since.clone(), events.clone());
                let task = tokio::task::spawn_local(async move {
                    // A client that goes away or is too slow is no concern of the server's.
                    let _ = converse(stream, &events, &mark).await;
                });
                connections.push(Connection { task: task.abort_handle(), silent_since });
            }
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                if !std::mem::replace(&mut is_failing, true) {
                    warn!("control: connections cannot be accepted: {error}; trying again until they can");
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Closes a connection of which nothing is awaited; where an answer is awaited on all of them, the oldest.
fn close_most_silent(connections: &mut Vec<Connection>) {
    let silent = connections.iter().enumerate();
    let silent =
        silent.min_by_key(|(_, connection)| (connection.silent_since.get().is_none(), connection.silent_since.get()));
    if let Some((place, _)) = silent {
        connections.remove(place).task.abort();
    }
}

/// Answers one request after another, until the client hangs up.
async fn converse(stream: UnixStream, events: &Events, silent_since: &Cell<Option<Instant>>) -> io::Result<()> {
    let peer = Peer::of(&stream).await;
    let (reader, mut writer) = stream.into_split();
    let peer = match peer {
        Ok(peer) => Arc::new(peer),
        Err(refused) => {
            if refused.kind() == io::ErrorKind::PermissionDenied {
                warn!(
                    "control: {refused} is refused: only root and the user that the server runs as may use the socket"
                );
            }
            let why = "only root and the user that the server runs as may use its control socket";
            return refuse(reader, writer, why).await;
        }
    };
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        silent_since.set(Some(Instant::now()));
        if (&mut reader).take(LONGEST_REQUEST as u64 + 1).read_until(b'\n', &mut line).await? == 0 {
            return Ok(());
        }
        silent_since.set(None);
        if line.len() > LONGEST_REQUEST {
            let why = format!("a request is a line of {LONGEST_REQUEST} bytes at most");
            return refuse(reader.into_inner(), writer, &why).await;
        }
        let request: Request = match serde_json::from_slice(&line) {
            Ok(request) => request,
            Err(invalid) => {
                let why = format!("that is no request: {invalid}: docs/control.md lists the requests");
                send(&mut writer, &Reply::Failed(why)).await?;
                continue;
            }
        };
        let (answering, mut replies) = Answering::new();
        let asked = Event::Control(Box::new(Asked { request, peer: peer.clone(), answering }));
        if events.send(asked).await.is_err() {
            return Ok(());
        }
        loop {
            let reply = tokio::select! {
                reply = replies.next() => reply,
                () = hung_up(&reader) => return Ok(()),
            };
            send(&mut writer, &reply).await?;
            if !matches!(reply, Reply::Progress(_)) {
                break;
            }
        }
    }
}

/// Says why nothing more is done for a client. What it sends meanwhile is read away: to close on that would be an error to
/// it before it has read why.
async fn refuse(mut reader: OwnedReadHalf, mut writer: OwnedWriteHalf, why: &str) -> io::Result<()> {
    send(&mut writer, &Reply::Failed(why.into())).await?;
    writer.shutdown().await?;
    let mut rest = [0; 1024];
    let drained = timeout(LINGER, async {
        while reader.read(&mut rest).await? > 0 {}
        io::Result::Ok(())
    });
    drained.await.unwrap_or(Ok(()))
}

/// Waits until the client has closed its end. One that only says no more (`shutdown`) still wants its answer.
async fn hung_up(reader: &BufReader<OwnedReadHalf>) {
    let stream = reader.get_ref();
    loop {
        if is_closed(stream.as_ref()) {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn is_closed(stream: &UnixStream) -> bool {
    let mut polled = [PollFd::new(stream.as_fd(), PollFlags::empty())];
    let found = poll(&mut polled, PollTimeout::ZERO);
    found.is_err() || polled[0].revents().is_some_and(|events| events.contains(PollFlags::POLLHUP))
}

async fn send(writer: &mut OwnedWriteHalf, reply: &Reply) -> io::Result<()> {
    let mut bytes = Vec::new();
    rwsgi_stats::write_json(&mut bytes, reply)?;
    bytes.push(b'\n');
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        match timeout(PATIENCE, writer.write(rest)).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            sent => rest = &rest[sent..],
        }
    }
    Ok(())
}
