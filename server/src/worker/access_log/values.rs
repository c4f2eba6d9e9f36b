//! The line of one request: each segment of the format, with its value.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::super::traces::caller_of;
use super::escape::{Escape, write_text};
use super::format::Segment;
use super::variables::{LogvarStyle, Variable};
use super::{AccessLog, Entry, Times, write_apache, write_ctime, write_utc};
use crate::api;
use crate::clock::UnixMicros;
use crate::log_text::write_json;
use crate::procfs::{self, MemorySize};
use crate::stats::traces::TraceIds;
use crate::wsgi::gateway::Incoming;
use crate::wsgi::serving::Notes;
use rwsgi_protocol::path::{self, PathNormalize};
use rwsgi_protocol::target;
use rwsgi_protocol::traceparent::write_hex;

type Logvars = [(Vec<u8>, Vec<u8>)];

/// Requests that this process has written in uWSGI's own line.
static SERVED: AtomicU64 = AtomicU64::new(0);

impl AccessLog {
    pub(super) fn write_line(&mut self, entry: &Entry<'_>, notes: Option<&Notes>, now: UnixMicros) {
        let Self { format, worker, thread, pid, x_forwarded_for, paths, lines, times, path, .. } = self;
        let began = now.as_micros().saturating_sub(entry.took / 1_000);
        let logvars = notes.map_or(&[][..], |notes| &notes.variables);
        let mut line = Line { entry, logvars, notes, now, began, to: lines, times, path, paths: *paths };
        for segment in &*format {
            match segment {
                Segment::Text(text) => line.to.extend_from_slice(text.as_bytes()),
                Segment::Value(variable, escape) => match variable {
                    Variable::Client if *x_forwarded_for => line.client(*escape),
                    Variable::Pid => line.number(*pid),
                    Variable::Worker => line.number(*worker),
                    Variable::Thread => line.number(*thread),
                    _ => line.value(variable, *escape),
                },
            }
        }
        lines.push(b'\n');
    }
}

struct Line<'a> {
    entry: &'a Entry<'a>,
    logvars: &'a Logvars,
    notes: Option<&'a Notes>,
    now: UnixMicros,
    /// When the request began, unix µs.
    began: u64,
    to: &'a mut Vec<u8>,
    times: &'a mut Times,
    path: &'a mut Vec<u8>,
    paths: PathNormalize,
}

impl<'a> Line<'a> {
    fn number(&mut self, number: impl itoa::Integer) {
        self.to.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    }

    fn text(&mut self, text: &[u8], escape: Escape) {
        write_text(self.to, text, escape);
    }

    /// A header of the request, or what a rule has set in its place.
    fn header(&self, name: &str) -> &'a [u8] {
        let set =
            self.notes.and_then(|notes| notes.set.iter().rev().find(|(variable, _)| is_variable_of(variable, name)));
        set.map_or_else(|| header(self.entry.request, name), |(_, value)| value)
    }

    fn client(&mut self, escape: Escape) {
        let forwarded = header(self.entry.request, "x-forwarded-for");
        self.text(if forwarded.is_empty() { self.entry.client } else { forwarded }, escape);
    }

    fn value(&mut self, variable: &Variable, escape: Escape) {
        let entry = self.entry;
        let (sent, took, began) = (entry.sent, entry.took, self.began);
        let begun = began / 1_000_000;
        match variable {
            Variable::Uri => self.text(entry.uri, escape),
            Variable::Method => self.text(entry.method, escape),
            Variable::Client => self.text(entry.client, escape),
            Variable::Protocol => self.text(entry.protocol, escape),
            Variable::User => self.request("REMOTE_USER", escape),
            Variable::Host => self.text(header(entry.request, "host"), escape),
            Variable::UserAgent => self.text(header(entry.request, "user-agent"), escape),
            Variable::Referer => self.text(header(entry.request, "referer"), escape),
            Variable::Header(name) => self.text(self.header(name), escape),
            Variable::Request(name) => self.request(name, escape),
            Variable::Logvar(name) => {
                let found = self.logvars.iter().find(|(known, _)| **known == **name);
                self.text(found.map_or(&[], |(_, value)| value), escape);
            }
            Variable::Logvars(style) => self.all_logvars(*style),
            Variable::TraceId => {
                let trace = entry.traced.map(|ids| ids.trace).or_else(|| Some(caller_of(entry.request)?.trace));
                self.hex(trace, 32, escape);
            }
            Variable::SpanId => self.hex(entry.traced.map(|ids| ids.span.into()), 16, escape),
            Variable::TraceIds(style) => self.trace_ids(*style),
            Variable::Metric(name) => self.number(api::metric(name)),
            Variable::Status => self.number(entry.status),
            Variable::BodySize => self.number(sent.body),
            Variable::HeadSize => self.number(sent.head),
            Variable::Size => self.number(u64::from(sent.head) + sent.body),
            Variable::Sent => self.number(entry.bytes),
            Variable::ContentLength => self.number(body_length(entry.request)),
            Variable::Headers => self.number(sent.headers),
            Variable::Now => self.number(self.now.as_secs()),
            Variable::Time => self.number(begun),
            Variable::TimeMillis => self.number(began / 1_000),
            Variable::TimeMicros => self.number(began),
            Variable::Micros => self.number(took / 1_000),
            Variable::Millis => self.number(took / 1_000_000),
            Variable::Seconds => self.fraction(took / 1_000, 1_000_000),
            Variable::PreciseMillis => self.fraction(took / 1_000, 1_000),
            Variable::Ctime => self.to.extend_from_slice(self.times.ctime.of(begun, |to| write_ctime(to, begun))),
            Variable::ApacheTime => {
                self.to.extend_from_slice(self.times.apache.of(begun, |to| write_apache(to, begun)));
            }
            Variable::FormattedTime => self.formatted_time(begun, escape),
            Variable::UtcTime => {
                let second = self.now.as_secs();
                self.to.extend_from_slice(self.times.utc.of(second, |to| write_utc(to, second)));
                let millis = self.now.as_micros() / 1_000 % 1_000;
                self.to.extend_from_slice(&[b'.', digit(millis / 100), digit(millis / 10), digit(millis), b'Z']);
            }
            Variable::Switches => self.to.push(b'1'),
            Variable::Modifier1 | Variable::Modifier2 => self.to.push(b'0'),
            Variable::Variables => self.number(count_variables(entry.request)),
            Variable::PacketSize => self.number(packet_size(entry.request)),
            Variable::Mapped => self.number(memory().mapped),
            Variable::Resident => self.number(memory().resident),
            Variable::MappedMegabytes => self.number(memory().mapped >> 20),
            Variable::ResidentMegabytes => self.number(memory().resident >> 20),
            Variable::WriteErrors => self.number(u8::from(entry.client_gone)),
            Variable::ReadErrors => self.number(u8::from(entry.body_broken)),
            Variable::IoErrors => self.number(u8::from(entry.client_gone) + u8::from(entry.body_broken)),
            Variable::ProcessRequests => self.number(SERVED.fetch_add(1, Relaxed) + 1),
            Variable::AllRequests => self.number(api::count_logged()),
            Variable::Via => self.to.extend_from_slice(if sent.by_file { b" via sendfile() " } else { b" " }),
            // Known to the thread.
            Variable::Pid | Variable::Worker | Variable::Thread => {}
        }
    }

    /// A number of so many digits, or that there is none.
    fn hex(&mut self, number: Option<u128>, digits: usize, escape: Escape) {
        let mut text = [0; 32];
        let text = &mut text[..digits];
        match number {
            Some(number) => write_hex(number, text),
            None => return self.text(b"", escape),
        }
        self.text(text, escape);
    }

    fn trace_ids(&mut self, style: LogvarStyle) {
        let Some(TraceIds { trace, span, .. }) = self.entry.traced else { return };
        let (before, between, after): (&[u8], &[u8], &[u8]) = match style {
            LogvarStyle::Quoted | LogvarStyle::Logfmt => (b" trace_id=", b" span_id=", b""),
            LogvarStyle::Json => (b",\"trace_id\":\"", b"\",\"span_id\":\"", b"\""),
        };
        self.to.extend_from_slice(before);
        self.hex(Some(trace), 32, Escape::Plain);
        self.to.extend_from_slice(between);
        self.hex(Some(span.into()), 16, Escape::Plain);
        self.to.extend_from_slice(after);
    }

    fn formatted_time(&mut self, second: u64, escape: Escape) {
        let Some(format) = &self.times.format else { return self.value(&Variable::ApacheTime, escape) };
        let text = self.times.formatted.of(second, |to| crate::local_time::write(to, format, second));
        write_text(self.to, text, escape);
    }

    /// A number of `unit`ths, with as many digits after the point as `unit` has zeros.
    fn fraction(&mut self, number: u64, unit: u64) {
        self.number(number / unit);
        self.to.push(b'.');
        let mut unit = unit / 10;
        while unit > 0 {
            self.to.push(digit(number / unit));
            unit /= 10;
        }
    }

    /// A variable of the request that is no header, by its name of CGI.
    fn request(&mut self, name: &str, escape: Escape) {
        if let Some(set) = self.notes.and_then(|notes| notes.set_to(name.as_bytes())) {
            return self.text(set, escape);
        }
        let Incoming::Http { head, peer, body_len } = self.entry.request else {
            return self.text(packet_variable(self.entry.request, name), escape);
        };
        let target = target::split(head.target);
        let text = match name {
            "REQUEST_METHOD" => head.method,
            "REQUEST_URI" => head.target,
            "QUERY_STRING" => target.query,
            "SERVER_PROTOCOL" => head.version.as_str(),
            "REMOTE_ADDR" => peer.remote_addr,
            "REMOTE_PORT" => peer.remote_port,
            "SERVER_NAME" | "SERVER_ADDR" => peer.server_addr,
            "SERVER_PORT" => peer.server_port,
            "CONTENT_LENGTH" => match body_len {
                Some(length) => return self.number(*length),
                None => "",
            },
            "PATH_INFO" => {
                // One that leads above the root was refused before it came here.
                let path = path::of_target(self.paths, target.path.as_bytes(), self.path).unwrap_or(b"/");
                return write_text(self.to, path, escape);
            }
            _ => "",
        };
        self.text(text.as_bytes(), escape);
    }

    fn all_logvars(&mut self, style: LogvarStyle) {
        let (logvars, to) = (self.logvars, &mut *self.to);
        if logvars.is_empty() {
            return;
        }
        match style {
            LogvarStyle::Quoted => {
                for (name, value) in logvars {
                    to.push(b' ');
                    named(to, name, Escape::Quoted);
                    to.extend_from_slice(b"=\"");
                    named(to, value, Escape::Quoted);
                    to.push(b'"');
                }
            }
            LogvarStyle::Logfmt => {
                for (name, value) in logvars {
                    to.push(b' ');
                    write_text(to, name, Escape::Logfmt);
                    to.push(b'=');
                    write_text(to, value, Escape::Logfmt);
                }
            }
            LogvarStyle::Json => {
                to.extend_from_slice(b",\"vars\":{");
                for (number, (name, value)) in logvars.iter().enumerate() {
                    to.extend_from_slice(if number == 0 { b"\"" } else { b",\"" });
                    write_json(to, name);
                    to.extend_from_slice(b"\":\"");
                    write_json(to, value);
                    to.push(b'"');
                }
                to.push(b'}');
            }
        }
    }
}

/// Adds a text that may be empty.
fn named(to: &mut Vec<u8>, text: &[u8], escape: Escape) {
    if !text.is_empty() {
        write_text(to, text, escape);
    }
}

fn digit(number: u64) -> u8 {
    b'0' + (number % 10) as u8
}

fn memory() -> MemorySize {
    // Without /proc there is nothing to tell.
    procfs::own_memory().unwrap_or_default()
}

/// A header of the request, the last when there are several; empty without one.
fn header<'a>(request: &Incoming<'a>, name: &str) -> &'a [u8] {
    match request {
        Incoming::Http { head, .. } => {
            let is_it = |header: &&httparse::Header<'a>| header.name.eq_ignore_ascii_case(name);
            head.headers.iter().rev().find(is_it).map_or(&[], |header| header.value)
        }
        Incoming::Uwsgi(packet) => {
            let is_it = |variable: &[u8]| is_variable_of(variable, name);
            packet.vars().filter(|(variable, _)| is_it(variable)).last().map_or(&[], |(_, value)| value)
        }
    }
}

/// Whether `variable` is the one of the header `name`.
fn is_variable_of(variable: &[u8], name: &str) -> bool {
    match name {
        "content-type" => variable == b"CONTENT_TYPE",
        _ => variable.strip_prefix(b"HTTP_").is_some_and(|variable| is_header(variable, name)),
    }
}

/// Whether `variable`, without `HTTP_`, is what CGI makes of the header `name`.
fn is_header(variable: &[u8], name: &str) -> bool {
    variable.len() == name.len()
        && std::iter::zip(variable, name.bytes()).all(|(seen, byte)| match byte {
            b'-' => *seen == b'_',
            letter => *seen == letter.to_ascii_uppercase(),
        })
}

/// A variable of a packet, the last of its name; empty without one.
fn packet_variable<'a>(request: &Incoming<'a>, name: &str) -> &'a [u8] {
    match request {
        Incoming::Http { .. } => &[],
        Incoming::Uwsgi(packet) => {
            packet.vars().filter(|(variable, _)| *variable == name.as_bytes()).last().map_or(&[], |(_, value)| value)
        }
    }
}

fn body_length(request: &Incoming<'_>) -> u64 {
    match request {
        Incoming::Http { body_len, .. } => body_len.unwrap_or(0),
        Incoming::Uwsgi(packet) => packet.content_length().unwrap_or(0),
    }
}

/// What uWSGI makes of a request in HTTP besides its headers, and the length of those names.
const HTTP_VARIABLES: [&str; 9] = [
    "REQUEST_METHOD",
    "REQUEST_URI",
    "PATH_INFO",
    "QUERY_STRING",
    "SERVER_PROTOCOL",
    "SCRIPT_NAME",
    "SERVER_NAME",
    "SERVER_PORT",
    "REMOTE_ADDR",
];

/// uWSGI counts names and values.
fn count_variables(request: &Incoming<'_>) -> usize {
    2 * match request {
        Incoming::Http { head, .. } => HTTP_VARIABLES.len() + head.headers.len(),
        Incoming::Uwsgi(packet) => packet.vars().count(),
    }
}

fn packet_size(request: &Incoming<'_>) -> usize {
    // Two lengths of two bytes for each.
    const LENGTHS: usize = 4;
    match request {
        Incoming::Http { head, peer, .. } => {
            let target = target::split(head.target);
            let fixed = head.method.len() + head.target.len() + target.path.len() + target.query.len();
            let fixed = fixed + head.version.as_str().len() + peer.server_addr.len() + peer.server_port.len();
            let fixed = fixed + peer.remote_addr.len();
            let names: usize = HTTP_VARIABLES.iter().map(|name| name.len() + LENGTHS).sum();
            let header = |header: &httparse::Header<'_>| {
                let is_bare = header.name.eq_ignore_ascii_case("content-type")
                    || header.name.eq_ignore_ascii_case("content-length");
                LENGTHS + header.name.len() + header.value.len() + if is_bare { 0 } else { "HTTP_".len() }
            };
            fixed + names + head.headers.iter().map(header).sum::<usize>()
        }
        Incoming::Uwsgi(packet) => packet.len() - rwsgi_protocol::uwsgi::HEADER_LEN,
    }
}
