//! Taking a connection as far as it goes without waiting: what waits to be sent goes first, then bytes are read and
//! used.

use std::os::fd::AsFd;

use pyo3::prelude::*;
use tracing::error;

use super::connection::{Connection, ConnectionPhase, Gathered, Wait};
use super::kind::Kind;
use super::worker_thread::{Next, WorkerThread};
use crate::io::accept::client_of;
use crate::io::close::{LINGER, Then, shut_sending};
use crate::io::pace::Pace;
use crate::io::receive::{Received, has_unread};
use rwsgi_protocol::SocketProtocol;

/// Time for one connection with pipelined requests in its turn, ns.
const TURN: u64 = 1_000_000;

/// A connection and what becomes of it.
pub(super) type Driven = (Box<Connection>, Next);

impl WorkerThread {
    /// Takes a connection as far as it goes without waiting.
    pub(super) fn drive(
        &mut self,
        py: Python<'_>,
        mut connection: Box<Connection>,
        scratch: &mut [u8],
    ) -> anyhow::Result<Driven> {
        self.turn_began = self.now;
        if !connection.unsent.is_empty() {
            self.send_waiting(py, &mut connection);
            if !connection.unsent.is_empty() {
                return Ok(self.wait(connection, Wait::Write));
            }
        }
        loop {
            connection = match &connection.phase {
                ConnectionPhase::Flushing(Then::NextRequest) if connection.has_input() => {
                    connection.phase = ConnectionPhase::Idle;
                    connection
                }
                ConnectionPhase::New | ConnectionPhase::Idle | ConnectionPhase::Head => {
                    self.read(py, connection, scratch)?
                }
                ConnectionPhase::Body(gathering) if gathering.intake.is_in_place() => self.fill(py, connection)?,
                ConnectionPhase::Body(gathering) if gathering.intake.is_in_file() => {
                    self.spool(py, connection, scratch)?
                }
                ConnectionPhase::Body(_) => self.read(py, connection, scratch)?,
                ConnectionPhase::Flushing(_)
                | ConnectionPhase::Lingering
                | ConnectionPhase::Serving
                | ConnectionPhase::Over => {
                    return Ok(self.rest(connection, scratch));
                }
            };
            // A client that sends requests and takes no answers must not fill the memory: what is kept of the next
            // request waits until the answer is gone.
            let goes_on = connection.has_input()
                && connection.unsent.is_empty()
                && matches!(connection.phase, ConnectionPhase::Idle | ConnectionPhase::Flushing(Then::NextRequest));
            if !goes_on {
                return Ok(self.rest(connection, scratch));
            }
            if self.has_used_turn(&connection) {
                // Its socket takes more: it is ready at once, behind those that are ready now.
                return Ok(self.wait(connection, Wait::Write));
            }
        }
    }

    /// Whether others get their turn, although the connection has sent more requests. What a link brings is another's
    /// already.
    fn has_used_turn(&self, connection: &Connection) -> bool {
        !connection.is_link() && self.now.nanos_since(self.turn_began) >= TURN
    }

    /// Sends more of what waits. What the thread has sent of a parked response counts like everything else.
    fn send_waiting(&mut self, py: Python<'_>, connection: &mut Connection) {
        let advance = |connection: &mut Connection| connection.unsent.advance(connection.socket.as_fd());
        let sent = if connection.unsent.is_file() { py.detach(|| advance(connection)) } else { advance(connection) };
        self.count_sent(connection);
        if connection.unsent.is_empty() {
            connection.parked = None;
        }
        if let Err(failure) = sent {
            if failure.kind() == std::io::ErrorKind::UnexpectedEof {
                error!("a response to {} breaks off: {failure}", client_of(&connection.peer));
            }
            self.count_write_error();
            connection.give_up();
        }
    }

    /// Reads once, unless there is input that was kept, and serves what requests that makes, one after another.
    fn read(
        &mut self,
        py: Python<'_>,
        mut connection: Box<Connection>,
        scratch: &mut [u8],
    ) -> anyhow::Result<Box<Connection>> {
        let mut kept;
        let bytes = if connection.has_input() {
            kept = std::mem::take(&mut connection.input);
            &mut kept[..]
        } else {
            let len = match connection.receive(scratch) {
                Received::Bytes(len) => len,
                Received::Nothing => return Ok(connection),
                Received::End => return Ok(self.gone(connection)),
            };
            if connection.input.is_empty() {
                &mut scratch[..len]
            } else {
                connection.input.extend_from_slice(&scratch[..len]);
                kept = std::mem::take(&mut connection.input);
                &mut kept[..]
            }
        };
        let mut at = 0;
        loop {
            let used;
            (used, connection) = self.consume(py, connection, &mut bytes[at..])?;
            at += used;
            if at == bytes.len() {
                return Ok(connection);
            }
            match connection.phase {
                // The head was all that was used.
                ConnectionPhase::Body(_) => {}
                ConnectionPhase::Flushing(Then::NextRequest)
                    if connection.unsent.is_empty() && !self.has_used_turn(&connection) =>
                {
                    connection.phase = ConnectionPhase::Idle;
                }
                _ => {
                    connection.input = bytes[at..].to_vec();
                    connection.seen = 0;
                    return Ok(connection);
                }
            }
        }
    }

    /// Takes what is there of a body that goes to memory; serves the request when that is all.
    fn fill(&mut self, py: Python<'_>, mut connection: Box<Connection>) -> anyhow::Result<Box<Connection>> {
        let Connection { socket, phase: ConnectionPhase::Body(gathering), .. } = &mut *connection else {
            return Ok(connection);
        };
        match gathering.intake.receive(&**socket) {
            Ok(Received::End) => Ok(self.gone(connection)),
            Ok(_) if gathering.intake.is_whole() => self.serve_gathered(py, connection),
            Ok(_) => Ok(connection),
            Err(failure) => Ok(self.refuse_body(connection, &failure, &[])),
        }
    }

    /// Takes what is there of a body that goes to a file; serves the request when that is all.
    fn spool(
        &mut self,
        py: Python<'_>,
        mut connection: Box<Connection>,
        scratch: &mut [u8],
    ) -> anyhow::Result<Box<Connection>> {
        match py.detach(|| connection.spool(scratch, &self.worker.temp)) {
            Ok(Gathered::Part) => Ok(connection),
            Ok(Gathered::Gone) => Ok(self.gone(connection)),
            Ok(Gathered::Whole) => self.serve_gathered(py, connection),
            Err(failure) => Ok(self.refuse_body(connection, &failure, &[])),
        }
    }

    /// The client went away: in the middle of a request, perhaps.
    fn gone(&mut self, mut connection: Box<Connection>) -> Box<Connection> {
        if !connection.is_idle() && !connection.is_link() {
            self.count_read_error();
        }
        connection.phase = ConnectionPhase::Over;
        connection
    }

    pub(super) fn count_sent(&mut self, connection: &mut Connection) {
        let sent = connection.take_sent();
        if sent > 0 {
            self.cell().sent(sent as usize);
        }
    }

    /// What a connection waits for that can go no further, or whether it is over.
    pub(super) fn rest(&mut self, mut connection: Box<Connection>, scratch: &mut [u8]) -> Driven {
        if !connection.unsent.is_empty() {
            return self.wait(connection, Wait::Write);
        }
        match connection.phase {
            ConnectionPhase::Flushing(Then::NextRequest) => {
                connection.phase = ConnectionPhase::Idle;
                self.wait(connection, Wait::Read)
            }
            // What the client sent beyond the request would make closing destroy the answer on its way.
            ConnectionPhase::Flushing(Then::Close) if connection.input.is_empty() && !sends_on(&connection) => {
                (connection, Next::Close)
            }
            ConnectionPhase::Flushing(_) => {
                shut_sending(&*connection.socket);
                connection.input = Vec::new();
                connection.phase = ConnectionPhase::Lingering;
                connection.deadline = self.deadline(LINGER.as_secs() as u32);
                self.read_away(connection, scratch)
            }
            ConnectionPhase::Lingering => self.read_away(connection, scratch),
            ConnectionPhase::New | ConnectionPhase::Idle | ConnectionPhase::Head | ConnectionPhase::Body(_) => {
                self.wait(connection, Wait::Read)
            }
            ConnectionPhase::Serving | ConnectionPhase::Over => (connection, Next::Close),
        }
    }

    /// Leaves a connection to wait, and says how long it may.
    fn wait(&mut self, mut connection: Box<Connection>, wait: Wait) -> Driven {
        let config = &self.worker.config;
        if wait == Wait::Write && connection.armed != Some(Wait::Write) {
            connection.pace = Pace::of_response(connection.rates, self.second());
        }
        connection.deadline = match (&connection.phase, wait) {
            // The router looks after its own, and waits for a slow client as long as that may take.
            _ if connection.is_link() => u32::MAX,
            (_, Wait::Write) => self.deadline(config.socket_timeout).min(connection.pace.until()),
            (ConnectionPhase::Idle, _) => self.deadline(config.http_keepalive),
            // A body must go on coming.
            (ConnectionPhase::Body(_), _) => self.deadline(config.socket_timeout).min(connection.pace.until()),
            (ConnectionPhase::New, _) => self.deadline(config.socket_timeout),
            // The head as a whole must come in time, however it is divided: see `keep`.
            _ => connection.deadline,
        };
        (connection, Next::Wait(wait))
    }

    /// Reads what nobody wants. However fast it is sent, others get their turn, and the deadline comes.
    fn read_away(&mut self, connection: Box<Connection>, scratch: &mut [u8]) -> Driven {
        let mut small = [0; 1024];
        let buffer = if scratch.is_empty() { &mut small[..] } else { scratch };
        match connection.receive(buffer) {
            Received::End => (connection, Next::Close),
            Received::Bytes(_) | Received::Nothing => (connection, Next::Wait(Wait::Read)),
        }
    }
}

/// Whether there is more from a client than its requests. Who speaks the uwsgi protocol sends one request.
fn sends_on(connection: &Connection) -> bool {
    connection.kind == Kind::Client(SocketProtocol::Http) && has_unread(&*connection.socket)
}
