//! Taking a connection as far as it goes without waiting: what waits to be sent goes first, then bytes are read and used.

use std::os::fd::AsFd;

use pyo3::prelude::*;
use tracing::error;

use super::connection::{Connection, Kind, Spooled, Wait};
use super::intake::client_of;
use super::worker_thread::{Next, WorkerThread};

/// A connection and what becomes of it.
pub(super) type Driven = (Box<Connection>, Next);

/// How long a client that was refused may take to stop sending, seconds.
const LINGER: u32 = 2;

impl WorkerThread {
    /// Takes a connection as far as it goes without waiting.
    pub(super) fn drive(
        &mut self,
        py: Python<'_>,
        mut connection: Box<Connection>,
        scratch: &mut [u8],
    ) -> anyhow::Result<Driven> {
        // What the thread has sent of a parked response counts like everything else.
        let advance = |connection: &mut Connection| connection.output.advance(connection.socket.as_fd());
        let sent =
            if connection.output.is_file() { py.detach(|| advance(&mut connection)) } else { advance(&mut connection) };
        self.count_sent(&mut connection);
        match sent {
            Err(failure) => {
                if failure.kind() == std::io::ErrorKind::UnexpectedEof {
                    error!("a response to {} breaks off: {failure}", client_of(&connection.peer));
                }
                self.count_write_error();
                return Ok((connection, Next::Close));
            }
            Ok(false) => return Ok(self.wait(connection, Wait::Write)),
            Ok(true) => {}
        }
        if connection.closing {
            return Ok(self.end(connection, scratch));
        }
        let held_back = std::mem::take(&mut connection.held_back);
        if let (false, Some(pending)) = (held_back, &connection.pending) {
            if pending.gather.is_spooling() {
                return self.spool(py, connection, scratch);
            }
            if pending.gather.has_room() {
                return self.fill(py, connection);
            }
        }
        let mut bytes = if held_back {
            &std::mem::take(&mut connection.input)
        } else {
            let len = match connection.receive(scratch) {
                Err(_) | Ok(Some(0)) => return Ok(self.gone(connection)),
                Ok(None) => return Ok(self.wait(connection, Wait::Read)),
                Ok(Some(len)) => len,
            };
            connection.fresh = false;
            if connection.input.is_empty() {
                &scratch[..len]
            } else {
                connection.input.extend_from_slice(&scratch[..len]);
                &std::mem::take(&mut connection.input)
            }
        };
        loop {
            let before = bytes.len();
            let (back, next) = self.consume(py, connection, &mut bytes)?;
            connection = back;
            if let Some(next) = next {
                return Ok((connection, next));
            }
            if connection.closing {
                return Ok(self.end(connection, &mut []));
            }
            if !connection.output.is_empty() {
                if !bytes.is_empty() {
                    // A client that sends requests and takes no answers must not fill the memory.
                    connection.held_back = true;
                    connection.input = bytes.to_vec();
                }
                return Ok(self.wait(connection, Wait::Write));
            }
            // Requests that were sent one behind another are served one after another.
            if bytes.is_empty() || bytes.len() == before {
                return Ok(self.wait(connection, Wait::Read));
            }
        }
    }

    /// Takes what is there of a body that goes to memory; serves the request when that is all.
    fn fill(&mut self, py: Python<'_>, mut connection: Box<Connection>) -> anyhow::Result<Driven> {
        let Some(mut pending) = connection.pending.take() else { return Ok(self.wait(connection, Wait::Read)) };
        match pending.gather.receive(connection.socket.as_fd()) {
            None => {
                connection.pending = Some(pending);
                Ok(self.gone(connection))
            }
            Some(false) => {
                connection.pending = Some(pending);
                Ok(self.wait(connection, Wait::Read))
            }
            Some(true) => {
                let (connection, next) = self.serve_gathered(py, connection, pending)?;
                Ok(self.after(connection, next))
            }
        }
    }

    /// What becomes of a connection whose request, if it was one, is served, and of which nothing more was read.
    fn after(&mut self, connection: Box<Connection>, next: Option<Next>) -> Driven {
        match next {
            Some(next) => (connection, next),
            None if connection.closing => self.end(connection, &mut []),
            None if connection.output.is_empty() => self.wait(connection, Wait::Read),
            None => self.wait(connection, Wait::Write),
        }
    }

    /// Takes what is there of a body that goes to a file; serves the request when that is all.
    fn spool(&mut self, py: Python<'_>, mut connection: Box<Connection>, scratch: &mut [u8]) -> anyhow::Result<Driven> {
        let (connection, next) = match py.detach(|| connection.spool(scratch)) {
            Ok(Spooled::Waits) => return Ok(self.wait(connection, Wait::Read)),
            Ok(Spooled::Gone) => return Ok(self.gone(connection)),
            Ok(Spooled::Complete(pending)) => self.serve_gathered(py, connection, pending)?,
            Err(failure) => self.refuse_gathering(connection, failure),
        };
        Ok(self.after(connection, next))
    }

    /// The client went away: in the middle of a request, perhaps.
    pub(super) fn gone(&mut self, connection: Box<Connection>) -> Driven {
        if !connection.is_idle() && !matches!(connection.kind, Kind::Link(_)) {
            self.count_read_error();
        }
        (connection, Next::Close)
    }

    pub(super) fn count_sent(&mut self, connection: &mut Connection) {
        let sent = connection.take_sent();
        if sent > 0 {
            self.cell().sent(sent as usize);
        }
    }

    /// Leaves a connection to wait, and says how long it may.
    pub(super) fn wait(&mut self, mut connection: Box<Connection>, wait: Wait) -> Driven {
        let config = &self.shared.config;
        connection.deadline = match connection.kind {
            // The router looks after its own.
            Kind::Link(_) if wait == Wait::Read => u32::MAX,
            _ if wait == Wait::Write => self.deadline(config.socket_timeout),
            _ if connection.is_idle() && !connection.fresh => self.deadline(config.http_keepalive),
            // A body must go on coming.
            _ if connection.is_idle() || connection.pending.is_some() => self.deadline(config.socket_timeout),
            // The head as a whole must come in time, however it is divided: see `keep`.
            _ => connection.deadline,
        };
        (connection, Next::Wait(wait))
    }

    /// The last answer is sent: closes, or waits for a client that may still be sending.
    pub(super) fn end(&mut self, mut connection: Box<Connection>, scratch: &mut [u8]) -> Driven {
        if !connection.output.is_empty() {
            return self.wait(connection, Wait::Write);
        }
        if !connection.linger {
            return (connection, Next::Close);
        }
        if !connection.shut {
            connection.shut();
            connection.deadline = self.deadline(LINGER);
        }
        let mut small = [0; 1024];
        let room = if scratch.is_empty() { &mut small[..] } else { scratch };
        match connection.receive(room) {
            Err(_) | Ok(Some(0)) => (connection, Next::Close),
            // However fast it sends: others get their turn, and the deadline comes.
            Ok(_) => (connection, Next::Wait(Wait::Read)),
        }
    }
}
