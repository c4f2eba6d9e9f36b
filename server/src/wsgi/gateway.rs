//! The call: a request goes in, the application runs, its response goes out, and whatever it does wrong becomes a line
//! in the log and a correct answer or a closed connection.

use pyo3::exceptions::{PyAssertionError, PyBrokenPipeError, PyOSError, PyStopIteration};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};
use tracing::error;

use super::active::{Active, Progress, RequestPlace, ResponseError};
use super::caught;
use super::environ::EnvironBuilder;
pub use super::incoming::Incoming;
use super::input::Input;
use super::raised::Raised;
use super::respond::{ResponseFailure, respond};
use super::response_times::ResponseTimes;
use super::routing::Routing;
use super::serving;
use super::start_response::StartResponse;
pub(crate) use super::trace_header::TraceHeader;
use super::traceback::{self, one_line};
use super::transport::Transport;
use super::websocket;
use crate::log_text::Foreign;
use rwsgi_protocol::date::HttpDate;
use rwsgi_protocol::path::PathNormalize;
use rwsgi_protocol::response::{Exchange, Framing, HeadWriter};
use rwsgi_stats::Shown;

/// A request that the application is done with.
pub struct Served<C> {
    /// The client, with whatever is still to be sent.
    pub client: Box<C>,
    /// The status code that was sent; 0 when none was.
    pub status: u16,
    /// What was sent, for the log.
    pub sent: Sent,
    /// Whether the connection may stay.
    pub keep_alive: bool,
    /// What the application raised, if it did.
    pub raised: Option<Raised>,
    /// The client went away before the response was complete.
    pub client_gone: bool,
    /// A response was begun whose end is that of the connection, and did not come to its end: closing as usual would
    /// make it look whole.
    pub broken_off: bool,
    /// When the application returned, and for whom it waited.
    pub times: ResponseTimes,
}

/// The size of a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Bytes of the body, without what frames it.
    pub body: u64,
    /// Bytes of the head.
    pub head: u32,
    /// How many headers the application gave.
    pub headers: u32,
    /// The body came from a file that was left to the system.
    pub by_file: bool,
}

/// Calls the application for one thread, whose clients are of type `C`.
pub struct Gateway<C> {
    application: Py<PyAny>,
    environ: EnvironBuilder,
    objects: Objects<C>,
    date: HttpDate,
    /// What the log tells of a request.
    shown: Shown,
    /// The client is shown what the application raises.
    catches: bool,
    /// What is done to requests and responses by rules; `None` for nothing.
    routing: Option<Routing>,
    websockets: websocket::Terms,
    /// The key by which the environ tells a request's route, when routes are counted.
    route_key: Option<Py<PyString>>,
    /// Of the next request, when it is traced.
    trace: Option<TraceHeader>,
}

/// What the application is given of a request, used again as long as it keeps none of it. Made by the thread that uses it:
/// see [`is_ours_alone`].
struct Objects<C> {
    place: RequestPlace<C>,
    start_response: Py<StartResponse>,
    input: Py<Input>,
}

impl<C: Transport + 'static> Objects<C> {
    fn new(py: Python<'_>) -> PyResult<Self> {
        let place = RequestPlace::new();
        let start_response = Py::new(py, StartResponse::new(py, place.current())?)?;
        let input = Py::new(py, Input::new(place.current()))?;
        Ok(Self { place, start_response, input })
    }

    fn are_ours_alone(&self, py: Python<'_>) -> bool {
        is_ours_alone(py, &self.start_response)
            && is_ours_alone(py, self.start_response.get().write())
            && is_ours_alone(py, &self.input)
    }
}

#[cfg(not(Py_GIL_DISABLED))]
#[allow(unsafe_code)]
fn is_ours_alone<T>(_py: Python<'_>, object: &Py<T>) -> bool {
    // SAFETY: `object` is a reference, which keeps what it refers to; the GIL is held, as the token says.
    unsafe { pyo3::ffi::Py_REFCNT(object.as_ptr()) == 1 }
}

/// Without the global lock an object's count is two: its own thread's, which no other thread changes, and that of all
/// others. Their sum may be read while a reference goes from one to the other. But with one reference by its own thread, and
/// none by others, the only one is ours. A third kind, without an owner, has 0 in the first and counts as kept.
#[cfg(Py_GIL_DISABLED)]
#[allow(unsafe_code)]
fn is_ours_alone<T>(_py: Python<'_>, object: &Py<T>) -> bool {
    use std::sync::atomic::Ordering::{Acquire, Relaxed};
    // SAFETY: `object` is a reference, which keeps what it refers to; both counts are atomic.
    let object = unsafe { &*object.as_ptr() };
    object.ob_ref_local.load(Relaxed) == 1 && object.ob_ref_shared.load(Acquire) == 0
}

impl<C: Transport + 'static> Gateway<C> {
    /// For one thread of a server that may have others, and other processes.
    ///
    /// # Errors
    /// When Python has no memory left.
    pub fn new(
        py: Python<'_>,
        application: Py<PyAny>,
        multithread: bool,
        multiprocess: bool,
        paths: PathNormalize,
    ) -> PyResult<Self> {
        Ok(Self {
            application,
            environ: EnvironBuilder::new(py, multithread, multiprocess, paths)?,
            objects: Objects::new(py)?,
            date: HttpDate::now(),
            shown: Shown::default(),
            catches: false,
            routing: None,
            websockets: websocket::Terms::default(),
            route_key: None,
            trace: None,
        })
    }

    /// What the log tells of requests; without this, nothing that may be a secret.
    #[must_use]
    pub fn showing(self, shown: Shown) -> Self {
        Self { shown, ..self }
    }

    /// Shows the client what the application raises.
    #[must_use]
    pub fn catching(self, catches: bool) -> Self {
        Self { catches, ..self }
    }

    /// With rules for requests and responses.
    #[must_use]
    pub(crate) fn routing(self, routing: Option<Routing>) -> Self {
        Self { routing, ..self }
    }

    /// What is asked of WebSockets' clients.
    #[must_use]
    pub fn with_websockets(self, websockets: websocket::Terms) -> Self {
        Self { websockets, ..self }
    }

    /// Takes note of the routes that the application tells of.
    #[must_use]
    pub fn counting_routes(self, py: Python<'_>, counts: bool) -> Self {
        Self { route_key: counts.then(|| PyString::intern(py, ROUTE_KEY).unbind()), ..self }
    }

    /// Sets the time for `Date`, unix seconds.
    pub fn set_time(&mut self, seconds: u64) {
        self.date = HttpDate::from_unix(seconds);
    }

    /// The next request is traced: what its application is told.
    pub(crate) fn trace(&mut self, header: TraceHeader) {
        self.trace = Some(header);
    }

    /// The present thread is the one that serves.
    ///
    /// # Errors
    /// When Python has no memory left.
    pub(crate) fn enter(&mut self, py: Python<'_>) -> PyResult<()> {
        if cfg!(Py_GIL_DISABLED) {
            self.objects = Objects::new(py)?;
        }
        Ok(())
    }

    /// Has the application answer a request of `client`.
    ///
    /// # Errors
    /// Only when Python itself fails (no memory); the request is lost then, and the caller should give up.
    pub fn serve(
        &mut self,
        py: Python<'_>,
        request: &Incoming<'_>,
        exchange: Exchange,
        client: Box<C>,
    ) -> PyResult<Served<C>> {
        if !self.objects.are_ours_alone(py) {
            self.objects = Objects::new(py)?;
        }
        let Objects { place, start_response, input } = &self.objects;
        let (environ, asks_upgrade) = match request {
            Incoming::Http { head, peer, body_len } => {
                (self.environ.http(py, head, peer, *body_len, input)?, head.upgrade)
            }
            Incoming::Uwsgi(packet) => self.environ.uwsgi(py, packet, input)?,
        };
        if let Some(trace) = &self.trace {
            trace.put(py, &environ)?;
            self.trace = None;
        }
        place.put(client, exchange, self.date);
        let kept = self.catches.then(|| environ.clone());
        if asks_upgrade {
            offer_websocket(py, &environ, request, self.websockets)?;
        }
        let answer = match &mut self.routing {
            None => None,
            Some(routing) => routing.begin(py, &environ, place)?,
        };
        let mut failure = match (answer, &self.routing) {
            (Some(answer), Some(routing)) => {
                routing.answer(py, place.current(), answer, &environ, start_response.bind(py)).err()
            }
            _ => {
                // Not reached for before anything was added.
                let told = self.route_key.as_ref().map(|key| (key, environ.clone(), environ.len()));
                let failure = match self.application.bind(py).call1((environ, start_response)) {
                    Ok(result) => respond(py, place.current(), &result).err(),
                    Err(error) => Some(ResponseFailure::Raised(error)),
                };
                if let Some((key, environ, len)) = told
                    && environ.len() != len
                {
                    note_route(py, &environ, key);
                }
                failure
            }
        };
        let mut active = place.close(py);
        let mut page = None;
        if asks_upgrade {
            websocket::end();
            if matches!(active.progress, Progress::Upgraded) {
                failure = failure.filter(|failure| !ends_websocket(py, failure));
            }
        }
        let mut ending = Ending { is_whole: failure.is_none(), ..Ending::default() };
        if failure.is_some() || active.overrun.is_some() {
            let (overrun, knows_gone) = (active.overrun, active.knows_gone);
            page = match (&failure, &kept) {
                (Some(ResponseFailure::Raised(raised)), Some(environ)) => {
                    drop(active);
                    let page = caught::page(py, raised, environ);
                    active = place.lock();
                    Some(page)
                }
                _ => None,
            };
            // To print an exception may run Python code, which finds that the request is over.
            drop(active);
            ending = explain(py, request, failure, overrun, knows_gone, self.shown);
            active = place.lock();
        }
        let Ending { mut is_whole, raised, client_gone } = ending;
        if !is_whole && !client_gone && !matches!(active.progress, Progress::Sending(_) | Progress::Upgraded) {
            is_whole = answer_500(&mut *active, page.as_deref(), self.routing.as_ref());
        }
        let plan = match active.progress {
            Progress::Sending(plan) => Some(plan),
            _ => None,
        };
        let Some(client) = active.transport.client.take() else {
            return Err(pyo3::exceptions::PySystemError::new_err("a request vanished while it was served"));
        };
        let is_begun = matches!(active.progress, Progress::Sending(_) | Progress::Upgraded);
        let status = if is_begun { active.status } else { 0 };
        let times = active.times;
        let sent =
            Sent { body: active.body_sent, head: active.head_len, headers: active.headers, by_file: active.by_file };
        if let Some(routing) = &mut self.routing
            && let Some(routed) = active.routed.take()
        {
            drop(active);
            routing.end(py, routed, status, sent.body);
        }
        Ok(Served {
            client,
            status,
            sent,
            keep_alive: is_whole && plan.is_some_and(|plan| plan.keep_alive),
            raised,
            client_gone,
            broken_off: !is_whole && plan.is_some_and(|plan| plan.framing == Framing::UntilClose),
            times,
        })
    }
}

/// The key by which an application may tell a request's route.
const ROUTE_KEY: &str = "rwsgi.route";

/// Takes note of the route that the environ tells of, if it does.
#[cold]
fn note_route(py: Python<'_>, environ: &Bound<'_, PyDict>, key: &Py<PyString>) {
    let found = environ.get_item(key.bind(py)).ok().flatten();
    let text = found.as_ref().and_then(|found| found.cast::<PyString>().ok()?.to_str().ok());
    if let Some(text) = text {
        serving::note(|notes| notes.route = Some(text.as_bytes().to_vec()));
    }
}

/// Puts what a library needs to speak WebSocket itself into the environ of a request that asks for it.
#[cold]
fn offer_websocket(
    py: Python<'_>,
    environ: &Bound<'_, PyDict>,
    request: &Incoming<'_>,
    terms: websocket::Terms,
) -> PyResult<()> {
    match websocket::begin(py, request, terms)? {
        Some(socket) => environ.set_item(websocket::SOCKET_KEY, socket),
        None => Ok(()),
    }
}

/// How an application leaves a WebSocket: the client went away, or, as libraries have it under gunicorn, there is no
/// response.
#[cold]
fn ends_websocket(py: Python<'_>, failure: &ResponseFailure) -> bool {
    match failure {
        ResponseFailure::Raised(error) => {
            error.is_instance_of::<PyStopIteration>(py) || error.is_instance_of::<PyOSError>(py)
        }
        ResponseFailure::Response(_) => true,
    }
}

/// How a request ended.
#[derive(Default)]
struct Ending {
    /// The response is as it should be.
    is_whole: bool,
    raised: Option<Raised>,
    client_gone: bool,
}

/// Says in the log what went wrong.
fn explain(
    py: Python<'_>,
    request: &Incoming<'_>,
    failure: Option<ResponseFailure>,
    mut overrun: Option<u64>,
    knows_gone: bool,
    shown: Shown,
) -> Ending {
    let mut ending = Ending::default();
    match failure {
        None => ending.is_whole = true,
        Some(ResponseFailure::Response(ResponseError::Client(_))) => ending.client_gone = true,
        // The application let pass what `write()` raised: no fault of its own.
        Some(ResponseFailure::Raised(exception)) if knows_gone && exception.is_instance_of::<PyBrokenPipeError>(py) => {
            ending.client_gone = true;
        }
        Some(ResponseFailure::Raised(exception)) => {
            error!("{}: {}", describe(request, shown), one_line(py, &exception));
            traceback::log(py, &exception);
            // What `write()` raised for the same reason has said it.
            if exception.is_instance_of::<PyAssertionError>(py) {
                overrun = None;
            }
            ending.raised = Some(Raised::of(py, &exception));
        }
        // The client has as much as the application announced; what is wrong is logged below.
        Some(ResponseFailure::Response(ResponseError::TooLong(_))) => ending.is_whole = true,
        Some(ResponseFailure::Response(error)) => ending.raised = Some(fault(request, &error, shown)),
    }
    if let Some(said) = overrun {
        let raised = fault(request, &ResponseError::TooLong(said), shown);
        ending.raised.get_or_insert(raised);
    }
    ending
}

/// A request in a line of the log.
fn describe(request: &Incoming<'_>, shown: Shown) -> String {
    match request {
        Incoming::Http { head, .. } => format!("{} {}", head.method, shown.target(head.target)),
        Incoming::Uwsgi(packet) => {
            let var = |name: &[u8]| {
                packet.vars().filter(|(found, _)| *found == name).last().map_or(&[][..], |(_, value)| value)
            };
            let uri = Foreign(var(b"REQUEST_URI")).to_string();
            format!("{} {}", Foreign(var(b"REQUEST_METHOD")), shown.target(&uri))
        }
    }
}

/// The application broke the protocol: says so in the log, and for the stats.
fn fault(request: &Incoming<'_>, error: &ResponseError, shown: Shown) -> Raised {
    error!("{}: {error}", describe(request, shown));
    Raised { kind: "ResponseError".into(), message: error.to_string(), ..Raised::default() }
}

/// Nothing was sent yet: the client can get an error response.
/// `caught` is what `catch-exceptions` shows.
fn answer_500(active: &mut Active, caught: Option<&str>, routing: Option<&Routing>) -> bool {
    let page = routing.and_then(|routing| routing.page(500));
    let (kind, body): (&[u8], &[u8]) = match (caught, &page) {
        (Some(caught), _) => (b"text/plain; charset=utf-8", caught.as_bytes()),
        (None, Some(page)) => (b"text/html", page),
        (None, None) => (b"text/plain; charset=utf-8", b"Internal Server Error\n"),
    };
    let mut buffer = std::mem::take(&mut active.spare_buffer);
    buffer.clear();
    let Ok(mut head) = HeadWriter::new(b"500 Internal Server Error", buffer) else { return false };
    if head.header(b"Content-Type", kind).is_err() {
        return false;
    }
    active.status = 500;
    active.headers = head.headers();
    if let Some(routed) = &mut active.routed {
        routed.begin_anew();
    }
    active.progress = Progress::Head(head);
    active.send(&[body], Some(body.len() as u64), &mut |_| None).is_ok()
}
