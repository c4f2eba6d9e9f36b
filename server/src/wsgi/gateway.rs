//! The call: a request goes in, the application runs, its response goes out, and whatever it does wrong becomes a line
//! in the log and a correct answer or a closed connection.

use pyo3::exceptions::PyAssertionError;
use pyo3::prelude::*;
use tracing::error;

use super::application::one_line;
use super::environ::EnvironBuilder;
use super::exchange::{Active, CurrentRequest, Progress, ResponseError};
use super::input::Input;
use super::raised::Raised;
use super::respond::{Failure, respond};
use super::serving;
use super::start_response::StartResponse;
use super::transport::Transport;
use crate::protocol::date::HttpDate;
use crate::protocol::http::Head;
use crate::protocol::link::Peer;
use crate::protocol::response::{Exchange, Framing, HeadWriter, Plan};
use crate::protocol::uwsgi;

/// A request as it came in: what its environ is made of.
pub enum Incoming<'a> {
    /// HTTP, and what is known of the connection.
    Http {
        /// The head.
        head: &'a Head<'a, 'a>,
        /// The connection's ends.
        peer: Peer<'a>,
        /// Length of the body, if there is one.
        body_len: Option<u64>,
    },
    /// A uwsgi packet.
    Uwsgi(&'a uwsgi::Packet<'a>),
}

/// A request that the application is done with.
pub struct Served {
    /// The client, with whatever is still to be sent.
    pub transport: Box<dyn Transport>,
    /// The status code that was sent; 0 when none was.
    pub status: u16,
    /// Whether the connection may stay.
    pub keep_alive: bool,
    /// What the application raised, if it did.
    pub raised: Option<Raised>,
    /// The client went away before the response was complete.
    pub client_gone: bool,
    /// A response was begun whose end is that of the connection, and did not come to its end: closing as usual would
    /// make it look whole.
    pub broken_off: bool,
}

/// Calls the application for one thread.
pub struct Gateway {
    application: Py<PyAny>,
    environ: EnvironBuilder,
    objects: Objects,
    date: HttpDate,
    spare: Vec<u8>,
}

/// What the application is given of a request, used again as long as it keeps none of it.
struct Objects {
    current: CurrentRequest,
    start_response: Py<StartResponse>,
    input: Py<Input>,
}

impl Objects {
    fn new(py: Python<'_>) -> PyResult<Self> {
        let current = CurrentRequest::default();
        let start_response = Py::new(py, StartResponse::new(py, &current)?)?;
        let input = Py::new(py, Input::new(&current))?;
        Ok(Self { current, start_response, input })
    }

    fn are_ours_alone(&self, py: Python<'_>) -> bool {
        let write = self.start_response.get().write();
        [self.start_response.as_ptr(), write.as_ptr(), self.input.as_ptr()]
            .into_iter()
            .all(|object| is_ours_alone(py, object))
    }
}

#[allow(unsafe_code)]
fn is_ours_alone(_py: Python<'_>, object: *mut pyo3::ffi::PyObject) -> bool {
    // SAFETY: the caller owns a reference, so that the object lives; the GIL is held.
    unsafe { pyo3::ffi::Py_REFCNT(object) == 1 }
}

impl Gateway {
    /// For one thread of a server with this many threads and processes.
    ///
    /// # Errors
    /// When Python has no memory left.
    pub fn new(py: Python<'_>, application: Py<PyAny>, multithread: bool, multiprocess: bool) -> PyResult<Self> {
        Ok(Self {
            application,
            environ: EnvironBuilder::new(py, multithread, multiprocess)?,
            objects: Objects::new(py)?,
            date: HttpDate::now(),
            spare: Vec::with_capacity(512),
        })
    }

    /// Sets the time that `Date` tells, unix seconds.
    pub fn set_time(&mut self, seconds: u64) {
        self.date = HttpDate::from_unix(seconds);
    }

    /// Has the application answer a request.
    ///
    /// # Errors
    /// Only when Python itself fails (no memory); the request is lost then, and the caller should give up.
    pub fn serve(
        &mut self,
        py: Python<'_>,
        request: &Incoming<'_>,
        exchange: Exchange,
        transport: Box<dyn Transport>,
    ) -> PyResult<Served> {
        if !self.objects.are_ours_alone(py) {
            self.objects = Objects::new(py)?;
        }
        let Objects { current, start_response, input } = &self.objects;
        let environ = match request {
            Incoming::Http { head, peer, body_len } => self.environ.http(py, head, peer, *body_len, input)?,
            Incoming::Uwsgi(packet) => self.environ.uwsgi(py, packet, input)?,
        };
        serving::reach(current);
        current.put(Active {
            transport,
            exchange,
            progress: Progress::Nothing,
            status: 0,
            body_sent: 0,
            overrun: None,
            told_gone: false,
            date: self.date,
            spare: std::mem::take(&mut self.spare),
        });
        let failure = match self.application.bind(py).call1((environ, start_response)) {
            Ok(result) => respond(py, current, &result).err(),
            Err(error) => Some(Failure::Raised(error)),
        };
        let Some(mut active) = current.take(py) else {
            return Err(pyo3::exceptions::PySystemError::new_err("a request vanished while it was served"));
        };
        let mut served_ok = failure.is_none();
        let mut raised = None;
        let mut client_gone = false;
        match failure {
            None => {}
            Some(Failure::Response(ResponseError::Client(_))) => client_gone = true,
            Some(Failure::Raised(exception)) if active.is_told_gone(py, &exception) => client_gone = true,
            Some(Failure::Raised(exception)) => {
                error!("{}: {}", describe(request), one_line(py, &exception));
                exception.display(py);
                // What `write()` raised for the same reason has told of it.
                if exception.is_instance_of::<PyAssertionError>(py) {
                    active.overrun = None;
                }
                raised = Some(Raised::of(py, &exception));
            }
            // The client has as much as the application announced; what is wrong is told below.
            Some(Failure::Response(ResponseError::TooLong(_))) => served_ok = true,
            Some(Failure::Response(error)) => raised = Some(fault(request, &error)),
        }
        if let Some(said) = active.overrun {
            raised = raised.or(Some(fault(request, &ResponseError::TooLong(said))));
        }
        if !served_ok && !client_gone && !matches!(active.progress, Progress::Sending(_)) {
            served_ok = answer_500(&mut active);
        }
        let keep_alive = served_ok && matches!(active.progress, Progress::Sending(plan) if plan.keep_alive);
        let sent = matches!(active.progress, Progress::Sending(_));
        let broken_off =
            !served_ok && matches!(active.progress, Progress::Sending(Plan { framing: Framing::UntilClose, .. }));
        self.spare = active.spare;
        Ok(Served {
            transport: active.transport,
            status: if sent { active.status } else { 0 },
            keep_alive,
            raised,
            client_gone,
            broken_off,
        })
    }
}

/// A request in a line of the log.
fn describe(request: &Incoming<'_>) -> String {
    match request {
        Incoming::Http { head, .. } => format!("{} {}", head.method, head.target),
        Incoming::Uwsgi(packet) => {
            let var = |name: &[u8]| {
                let value = packet.vars().filter(|(found, _)| *found == name).last();
                value.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).unwrap_or_default()
            };
            format!("{} {}", var(b"REQUEST_METHOD"), var(b"REQUEST_URI"))
        }
    }
}

/// The application broke the protocol: says so in the log, and for the stats.
fn fault(request: &Incoming<'_>, error: &ResponseError) -> Raised {
    error!("{}: {error}", describe(request));
    Raised { kind: "ResponseError".into(), message: error.to_string(), ..Raised::default() }
}

/// Nothing was sent: the client can be told that something went wrong.
fn answer_500(active: &mut Active) -> bool {
    const BODY: &[u8] = b"Internal Server Error\n";
    let mut buffer = std::mem::take(&mut active.spare);
    buffer.clear();
    let Ok(mut head) = HeadWriter::new(b"500 Internal Server Error", buffer) else { return false };
    if head.header(b"Content-Type", b"text/plain; charset=utf-8").is_err() {
        return false;
    }
    active.status = 500;
    active.progress = Progress::Head(head);
    active.send(&[BODY], Some(BODY.len() as u64), &mut |_| None).is_ok()
}
