//! The variables of `log-format`: uWSGI's, by their names there.

/// What a variable stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Variable {
    Uri,
    Method,
    User,
    Client,
    Host,
    Protocol,
    UserAgent,
    Referer,
    Status,
    BodySize,
    HeadSize,
    Size,
    ContentLength,
    Now,
    Ctime,
    Time,
    ApacheTime,
    FormattedTime,
    TimeMillis,
    TimeMicros,
    Micros,
    Millis,
    Seconds,
    Pid,
    Worker,
    Thread,
    Switches,
    Variables,
    PacketSize,
    Modifier1,
    Modifier2,
    Mapped,
    Resident,
    MappedMegabytes,
    ResidentMegabytes,
    Headers,
    WriteErrors,
    ReadErrors,
    IoErrors,
    /// A header of the request, by its name with hyphens.
    Header(Box<str>),
    /// Another variable of the request, by its name of CGI.
    Request(Box<str>),
    /// A metric of the application's.
    Metric(Box<str>),
    /// What the application or a route has set for the line.
    Logvar(Box<[u8]>),
    /// The time in UTC, of the line, with milliseconds: in formats of ours.
    UtcTime,
    /// Bytes that were sent, with what frames them: in formats of ours.
    Sent,
    /// Milliseconds with three digits after the point: in formats of ours.
    PreciseMillis,
    /// Requests that this process has served: in uWSGI's own line.
    ProcessRequests,
    /// Requests that all processes have served: in uWSGI's own line.
    AllRequests,
    /// How the response was sent: in uWSGI's own line.
    Via,
    /// The trace that the request belongs to.
    TraceId,
    /// The request's span.
    SpanId,
    /// Both of a request that is traced: in formats of ours.
    TraceIds(LogvarStyle),
    /// All that the application has set for the line: in formats of ours.
    Logvars(LogvarStyle),
}

/// How the application's own variables are added to a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LogvarStyle {
    /// ` name="value"` for each.
    Quoted,
    /// `,"vars":{"name":"value"}` when there are any.
    Json,
    /// ` name=value` for each.
    Logfmt,
}

/// The variables with a name of their own: name, what it stands for, and that in words for the documentation.
#[rustfmt::skip]
pub(super) const NAMED: &[(&str, Variable, &str)] = &[
    ("uri", Variable::Uri, "the request target, with its query, as the client sent it"),
    ("method", Variable::Method, "the method"),
    ("user", Variable::User, "`REMOTE_USER`, when the proxy or a rule has set it"),
    ("addr", Variable::Client, "the client's address; with `log-x-forwarded-for` what `X-Forwarded-For` says"),
    ("host", Variable::Host, "the `Host` header"),
    ("proto", Variable::Protocol, "`HTTP/1.1` or `HTTP/1.0`"),
    ("uagent", Variable::UserAgent, "the `User-Agent` header"),
    ("referer", Variable::Referer, "the `Referer` header"),
    ("status", Variable::Status, "the status code; 0 when no response was begun"),
    ("rsize", Variable::BodySize, "bytes of the response's body"),
    ("hsize", Variable::HeadSize, "bytes of the response's head"),
    ("size", Variable::Size, "bytes of head and body"),
    ("cl", Variable::ContentLength, "bytes of the request's body"),
    ("epoch", Variable::Now, "the time of the line, unix seconds"),
    ("ctime", Variable::Ctime, "when the request began, local time, as `Thu Nov 26 01:55:56 2026`"),
    ("time", Variable::Time, "when the request began, unix seconds"),
    ("ltime", Variable::ApacheTime, "when the request began, local time, as `26/Nov/2026:01:55:56 +0000`"),
    ("ftime", Variable::FormattedTime, "the same in the format of `log-date`, with `log-format-strftime`; else as `ltime`"),
    ("tmsecs", Variable::TimeMillis, "when the request began, unix milliseconds"),
    ("tmicros", Variable::TimeMicros, "when the request began, unix microseconds"),
    ("micros", Variable::Micros, "how long it took, microseconds"),
    ("msecs", Variable::Millis, "how long it took, milliseconds"),
    ("secs", Variable::Seconds, "how long it took, seconds, with six digits after the point"),
    ("pid", Variable::Pid, "the worker's process id"),
    ("wid", Variable::Worker, "the worker's number"),
    ("core", Variable::Thread, "the thread's number"),
    ("switches", Variable::Switches, "always 1: there is no asynchronous mode"),
    ("vars", Variable::Variables, "names and values of the variables in the uwsgi packet, so twice their number; of HTTP, what uWSGI would make of it"),
    ("pktsize", Variable::PacketSize, "bytes of these variables"),
    ("modifier1", Variable::Modifier1, "always 0: other packets are not served"),
    ("modifier2", Variable::Modifier2, "always 0"),
    ("vsz", Variable::Mapped, "the worker's address space, bytes; uWSGI gives 0 without `memory-report`"),
    ("rss", Variable::Resident, "the worker's resident memory, bytes; likewise"),
    ("vszM", Variable::MappedMegabytes, "the same as `vsz`, megabytes"),
    ("rssM", Variable::ResidentMegabytes, "the same as `rss`, megabytes"),
    ("headers", Variable::Headers, "how many headers the application gave"),
    ("werr", Variable::WriteErrors, "1 when the client went away before it had the response, else 0"),
    ("rerr", Variable::ReadErrors, "1 when the rest of the request's body could not be read, else 0"),
    ("ioerr", Variable::IoErrors, "the sum of the two"),
    ("trace_id", Variable::TraceId, "the trace that the request belongs to: of the span that is exported, or of a valid `traceparent`"),
    ("span_id", Variable::SpanId, "the request's span, when it is exported"),
];

impl Variable {
    /// The variable that a format calls so. What is no other variable is one that the application may set.
    pub(super) fn named(name: &str) -> Self {
        if let Some((_, variable, _)) = NAMED.iter().find(|(known, ..)| *known == name) {
            return variable.clone();
        }
        if let Some(name) = name.strip_prefix("metric.") {
            return Self::Metric(name.into());
        }
        match name.strip_prefix("var.") {
            None => Self::Logvar(name.as_bytes().into()),
            Some("CONTENT_TYPE") => Self::Header("content-type".into()),
            Some(name) => match name.strip_prefix("HTTP_") {
                Some(header) => Self::Header(header.replace('_', "-").to_ascii_lowercase().into()),
                None => Self::Request(name.into()),
            },
        }
    }
}
