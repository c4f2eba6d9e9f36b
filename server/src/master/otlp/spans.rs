//! A traced request as three spans: the request, what it waited, and the application's call. The attributes are those of
//! OpenTelemetry's conventions for HTTP servers; nothing is in them that [`Shown`] hides in the stats.

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::trace::v1::span::{Event, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{Span, Status};

use super::values::{attribute, number, seconds, text};
use crate::clock::{Clock, MonotonicNanos};
use crate::stats::request::{Vars, route_of};
use crate::stats::route_text::RouteText;
use crate::stats::traces::{TraceEnd, TraceReport};
use rwsgi_protocol::SocketProtocol;
use rwsgi_stats::Shown;

/// `trace_flags` of a sampled span whose parent is known to be of this process or none, or of another.
const LOCAL_PARENT: u32 = 0x101;
const REMOTE_PARENT: u32 = 0x301;
/// The longest `tracestate`, characters.
const STATE_MAX: usize = 512;
/// The methods that the conventions know.
const METHODS: [&str; 10] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"];

/// The spans of a request. `clock` says what time its moments were, `with_routes` whether routes are told apart.
pub(super) fn of(report: &TraceReport, clock: Clock, shown: Shown, with_routes: bool) -> Vec<Span> {
    let vars = Vars::of(&report.request, "", shown);
    let times = Times::of(report, clock);
    let failure = failure_of(report);
    let request = Span {
        parent_span_id: if report.ids.parent == 0 { Vec::new() } else { id(report.ids.parent) },
        flags: if report.ids.parent == 0 { LOCAL_PARENT } else { REMOTE_PARENT },
        trace_state: trace_state(report, &vars),
        name: name_of(report, &vars, with_routes),
        kind: SpanKind::Server as i32,
        attributes: attributes(report, &vars, with_routes, failure.as_ref().map(|(kind, _)| kind.as_str())),
        ..span(report, report.ids.span, times.came, times.ended)
    };
    let inner = |name: &str, span_id, from, to| Span {
        parent_span_id: id(report.ids.span),
        flags: LOCAL_PARENT,
        name: name.to_owned(),
        kind: SpanKind::Internal as i32,
        ..span(report, span_id, from, to)
    };
    let queue = Span {
        attributes: vec![
            attribute("rwsgi.queue_time", seconds(report.phases.queue)),
            attribute("rwsgi.gil_wait", seconds(report.phases.gil)),
        ],
        // Nothing refers to it: any number will do that is not another's.
        ..inner("queue", report.ids.span ^ report.ids.application.rotate_left(1) | 1, times.gathered, times.started)
    };
    let mut application = inner("application", report.ids.application, times.started, times.answered);
    application.events.extend(exception(report, times.answered, shown));
    let mut spans = vec![request, queue, application];
    if let Some((_, message)) = failure {
        for span in [0, 2] {
            spans[span].status = Some(Status { code: StatusCode::Error as i32, message: message.clone() });
        }
    }
    spans
}

/// The moments of a request, unix ns.
struct Times {
    came: u64,
    gathered: u64,
    started: u64,
    answered: u64,
    ended: u64,
}

impl Times {
    fn of(report: &TraceReport, clock: Clock) -> Self {
        let phases = &report.phases;
        let began = report.request.started;
        let came = began.as_nanos().saturating_sub(phases.queue + phases.gil + phases.body);
        let came = clock.unix_at(MonotonicNanos::from_nanos(came)).as_micros().saturating_mul(1_000);
        let gathered = came.saturating_add(phases.body);
        let started = gathered.saturating_add(phases.queue).saturating_add(phases.gil);
        let answered = started.saturating_add(phases.application);
        Self { came, gathered, started, answered, ended: answered.saturating_add(phases.write) }
    }
}

fn id(number: u64) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

fn span(report: &TraceReport, span_id: u64, from: u64, to: u64) -> Span {
    Span {
        trace_id: report.ids.trace.to_be_bytes().to_vec(),
        span_id: id(span_id),
        start_time_unix_nano: from,
        end_time_unix_nano: to,
        ..Span::default()
    }
}

/// What `error.type` is, and what there is to say of it; `None` for what is no error of the server's.
fn failure_of(report: &TraceReport) -> Option<(String, String)> {
    let [kind, ..] = &report.exception;
    match report.end {
        TraceEnd::Harakiri => Some(("harakiri".into(), "it ran longer than harakiri".into())),
        TraceEnd::Died => Some(("worker_died".into(), "its worker's process died".into())),
        _ if !kind.is_empty() => Some((kind.clone(), String::new())),
        _ if report.status >= 500 => Some((report.status.to_string(), String::new())),
        _ => None,
    }
}

/// `None` when what the method says is not a name of a method.
fn known_method(method: &str) -> Option<&'static str> {
    METHODS.into_iter().find(|known| *known == method)
}

fn route(report: &TraceReport, with_routes: bool) -> Option<RouteText> {
    // A path that the application does not know has no route, and clients invent paths.
    (with_routes && (report.status != 404 || !report.request.route_name.is_empty())).then(|| route_of(&report.request))
}

fn name_of(report: &TraceReport, vars: &Vars, with_routes: bool) -> String {
    let method = known_method(vars.get("REQUEST_METHOD").unwrap_or("")).unwrap_or("HTTP");
    match route(report, with_routes) {
        Some(route) => format!("{method} {}", route.as_str()),
        None => method.to_owned(),
    }
}

/// What the caller has sent, when the trace is the caller's.
fn trace_state(report: &TraceReport, vars: &Vars) -> String {
    if report.ids.parent == 0 {
        return String::new();
    }
    let lines: Vec<_> = vars.lines().collect();
    let states = lines.iter().filter_map(|line| line.strip_prefix("HTTP_TRACESTATE="));
    let state = states.collect::<Vec<_>>().join(",");
    // It ends with a whole entry or is left out.
    if state.len() <= STATE_MAX { state } else { String::new() }
}

fn attributes(report: &TraceReport, vars: &Vars, with_routes: bool, failure: Option<&str>) -> Vec<KeyValue> {
    let get = |name| vars.get(name).filter(|value: &&str| !value.is_empty());
    let is_http = report.request.protocol == SocketProtocol::Http;
    let mut list = Vec::with_capacity(20);
    let mut add = |key: &str, value| list.push(attribute(key, value));
    let method = get("REQUEST_METHOD").unwrap_or("");
    match known_method(method) {
        Some(method) => add("http.request.method", text(method)),
        None => {
            add("http.request.method", text("_OTHER"));
            add("http.request.method_original", text(method));
        }
    }
    let uri = get("REQUEST_URI").or_else(|| get("PATH_INFO")).unwrap_or("/");
    let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
    // The absolute form has an authority before its path.
    let authority = path.split_once("://").filter(|_| !path.starts_with('/'));
    let path = authority.map_or(path, |(_, rest)| rest.find('/').map_or("/", |slash| &rest[slash..]));
    add("url.path", text(path));
    if !query.is_empty() {
        add("url.query", text(query));
    }
    let is_https = get("UWSGI_SCHEME") == Some("https")
        || get("REQUEST_SCHEME") == Some("https")
        || get("HTTPS").is_some_and(|value| value.eq_ignore_ascii_case("on") || value == "1");
    add("url.scheme", text(if is_https { "https" } else { "http" }));
    if report.status != 0 {
        add("http.response.status_code", number(report.status));
    }
    if let Some(route) = route(report, with_routes) {
        // What the application calls it, or the pattern of its path, of which there are few too.
        add("http.route", text(route.as_str()));
    }
    if let Some(host) = get("HTTP_HOST") {
        let (host, port) = host_and_port(host);
        add("server.address", text(host));
        if let Some(port) = port {
            add("server.port", number(port));
        }
    }
    if let Some(address) = get("REMOTE_ADDR") {
        add("client.address", text(address));
        if is_http {
            add("network.peer.address", text(address));
        }
    }
    if let (true, Some(port)) = (is_http, get("REMOTE_PORT").and_then(|port| port.parse::<u16>().ok())) {
        add("network.peer.port", number(port));
    }
    if let Some(version) = get("SERVER_PROTOCOL").and_then(|protocol| protocol.strip_prefix("HTTP/")) {
        add("network.protocol.version", text(version));
    }
    if let Some(agent) = get("HTTP_USER_AGENT") {
        add("user_agent.original", text(agent));
    }
    if let Some(length) = get("CONTENT_LENGTH").and_then(|length| length.parse::<u64>().ok()) {
        add("http.request.body.size", number(length));
    }
    if report.status != 0 {
        add("http.response.body.size", number(report.body));
    }
    if let Some(kind) = failure {
        add("error.type", text(kind));
    }
    if report.end == TraceEnd::ClientGone {
        add("rwsgi.client_gone", number(1));
    }
    if report.phases.body > 0 {
        add("rwsgi.body_time", seconds(report.phases.body));
    }
    let [worker, pid, thread] = report.server;
    add("rwsgi.worker", number(worker));
    add("rwsgi.core", number(thread));
    add("rwsgi.worker.pid", number(pid));
    list
}

/// `example.org:8000`, `[::1]:8000`.
fn host_and_port(host: &str) -> (&str, Option<u16>) {
    match host.rsplit_once(':') {
        Some((name, port)) if !name.contains(':') || name.ends_with(']') => {
            (name.trim_matches(['[', ']']), port.parse().ok())
        }
        _ => (host.trim_matches(['[', ']']), None),
    }
}

fn exception(report: &TraceReport, at: u64, shown: Shown) -> Option<Event> {
    let [kind, message, frames] = &report.exception;
    if kind.is_empty() {
        return None;
    }
    let mut attributes = vec![attribute("exception.type", text(kind.as_str()))];
    for (key, value) in [("exception.message", shown.text(message)), ("exception.stacktrace", frames.as_str().into())] {
        if !value.is_empty() {
            attributes.push(attribute(key, text(value)));
        }
    }
    Some(Event { time_unix_nano: at, name: "exception".to_owned(), attributes, ..Event::default() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::cell::{HeldRequest, PhaseNanos};
    use crate::stats::traces::TraceIds;
    use opentelemetry_proto::tonic::common::v1::any_value::Value;

    fn report(head: &str) -> TraceReport {
        TraceReport {
            ids: TraceIds { trace: 5, parent: 6, span: 7, application: 8 },
            request: HeldRequest {
                started: MonotonicNanos::from_nanos(9_000_000),
                protocol: SocketProtocol::Http,
                peer: "192.0.2.1 4711 10.0.0.1 80".into(),
                head: head.as_bytes().to_vec(),
                route_name: Vec::new(),
            },
            phases: PhaseNanos { queue: 1_000, body: 2_000, gil: 3_000, application: 4_000, write: 5_000 },
            status: 200,
            body: 11,
            end: TraceEnd::Done,
            exception: Default::default(),
            server: [1, 2, 0],
        }
    }

    fn spans(report: &TraceReport) -> Vec<Span> {
        of(report, Clock::default(), Shown::default(), true)
    }

    fn value(span: &Span, key: &str) -> Option<String> {
        let found = span.attributes.iter().find(|attribute| attribute.key == key)?;
        Some(match found.value.as_ref()?.value.as_ref()? {
            Value::StringValue(text) => text.clone(),
            Value::IntValue(number) => number.to_string(),
            other => format!("{other:?}"),
        })
    }

    const HEAD: &str = "GET /users/42?token=secret HTTP/1.1\r\nHost: example.org:8000\r\nUser-Agent: a\r\n\
        Cookie: sid=secret\r\nAuthorization: Bearer secret\r\ntracestate: a=1\r\ntracestate: b=2\r\n\r\n";

    #[test]
    fn a_request_is_three_spans_that_lie_within_each_other() {
        let spans = spans(&report(HEAD));
        let [request, queue, application] = &spans[..] else { panic!("{spans:?}") };
        assert_eq!((request.name.as_str(), request.kind), ("GET /users/{}", SpanKind::Server as i32));
        assert_eq!((queue.name.as_str(), application.name.as_str()), ("queue", "application"));
        let of = |span: &Span| span.end_time_unix_nano - span.start_time_unix_nano;
        assert_eq!([request, queue, application].map(of), [15_000, 4_000, 4_000]);
        assert_eq!(queue.start_time_unix_nano - request.start_time_unix_nano, 2_000);
        assert_eq!(queue.end_time_unix_nano, application.start_time_unix_nano);
        assert_eq!(request.parent_span_id, 6_u64.to_be_bytes());
        for inner in [queue, application] {
            assert_eq!((&inner.parent_span_id, &inner.trace_id), (&request.span_id, &request.trace_id));
        }
        assert_eq!((request.trace_state.as_str(), request.flags), ("a=1,b=2", REMOTE_PARENT));
        assert_eq!(application.span_id, 8_u64.to_be_bytes());
        assert!(request.status.is_none());
    }

    #[test]
    fn attributes_are_those_of_the_conventions_and_no_secret_is_among_them() {
        let spans = spans(&report(HEAD));
        for (key, expected) in [
            ("http.request.method", "GET"),
            ("url.path", "/users/42"),
            ("url.query", "token=…"),
            ("url.scheme", "http"),
            ("http.response.status_code", "200"),
            ("server.address", "example.org"),
            ("server.port", "8000"),
            ("client.address", "192.0.2.1"),
            ("network.peer.port", "4711"),
            ("network.protocol.version", "1.1"),
            ("user_agent.original", "a"),
            ("http.route", "/users/{}"),
        ] {
            assert_eq!(value(&spans[0], key).as_deref(), Some(expected), "{key}");
        }
        assert!(!format!("{spans:?}").contains("secret"));
        let named = TraceReport {
            request: HeldRequest { route_name: b"users.one".to_vec(), ..report(HEAD).request },
            ..report(HEAD)
        };
        assert_eq!(value(&super::tests::spans(&named)[0], "http.route").as_deref(), Some("users.one"));
    }

    #[test]
    fn what_clients_invent_makes_no_names_of_spans() {
        let name = |head: &str, status| spans(&TraceReport { status, ..report(head) })[0].name.clone();
        assert_eq!(name("GET /x HTTP/1.1\r\n\r\n", 404), "GET");
        assert_eq!(name("BREW /x HTTP/1.1\r\n\r\n", 404), "HTTP");
        let brewed = &spans(&report("BREW / HTTP/1.1\r\n\r\n"))[0];
        assert_eq!(value(brewed, "http.request.method").as_deref(), Some("_OTHER"));
        assert_eq!(value(brewed, "http.request.method_original").as_deref(), Some("BREW"));
        let absolute = &spans(&report("GET http://a.example/b?c HTTP/1.1\r\nHost: a\r\n\r\n"))[0];
        assert_eq!(value(absolute, "url.path").as_deref(), Some("/b"));
        let inside = &spans(&report("GET /to/http://a.example/b HTTP/1.1\r\nHost: a\r\n\r\n"))[0];
        assert_eq!(value(inside, "url.path").as_deref(), Some("/to/http://a.example/b"));
        assert_eq!(host_and_port("[::1]:80"), ("::1", Some(80)));
        assert_eq!(host_and_port("::1"), ("::1", None));
    }

    #[test]
    fn an_error_is_one_of_the_server_s() {
        let error = |report: TraceReport| {
            let spans = spans(&report);
            (spans[0].status.is_some(), value(&spans[0], "error.type"), spans[2].events.len())
        };
        let exception = ["ValueError".into(), "no https://u:secret@a/".into(), "a.py:1 in f".into()];
        assert_eq!(error(TraceReport { status: 404, ..report(HEAD) }), (false, None, 0));
        assert_eq!(error(TraceReport { status: 503, ..report(HEAD) }), (true, Some("503".into()), 0));
        let raised = TraceReport { status: 500, exception, ..report(HEAD) };
        assert!(!format!("{:?}", spans(&raised)).contains("secret"));
        assert_eq!(error(raised), (true, Some("ValueError".into()), 1));
        let died = TraceReport { status: 0, end: TraceEnd::Died, ..report(HEAD) };
        assert_eq!(error(died), (true, Some("worker_died".into()), 0));
    }
}
