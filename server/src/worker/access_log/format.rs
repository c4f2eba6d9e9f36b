//! A format, compiled: literal text and variables, each with how its text is escaped.

use rwsgi_config::AccessFormat;

use super::escape::Escape;
use super::variables::{LogvarStyle, Variable};

/// A piece of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Segment {
    Text(Box<str>),
    Value(Variable, Escape),
}

/// What is known of a thread when its format is compiled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) worker: u32,
    pub(super) thread: u32,
}

/// `log-micros`, `memory-report`, and traces of requests: what some of the formats say besides.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Extras {
    pub(super) micros: bool,
    pub(super) memory: bool,
    pub(super) traces: bool,
}

const COMBINED: &str =
    "%(addr) - %(user) [%(ltime)] \"%(method) %(uri) %(proto)\" %(status) %(rsize) \"%(referer)\" \"%(uagent)\"";

/// The segments of a line, without its end.
pub(super) fn compile(format: &AccessFormat, place: Place, extras: Extras) -> Vec<Segment> {
    match format {
        AccessFormat::Own => own(place, extras),
        AccessFormat::Uwsgi => uwsgi(extras),
        AccessFormat::Combined => pattern(COMBINED),
        AccessFormat::Json => json(extras),
        AccessFormat::Logfmt => logfmt(extras),
        AccessFormat::Pattern(text) => pattern(text),
    }
}

fn text(text: impl Into<Box<str>>) -> Segment {
    Segment::Text(text.into())
}

fn plain(variable: Variable) -> Segment {
    Segment::Value(variable, Escape::Plain)
}

/// The numbers of requests that are traced, where some are.
fn trace_ids(extras: Extras, style: LogvarStyle) -> Option<Segment> {
    extras.traces.then(|| plain(Variable::TraceIds(style)))
}

fn own(Place { worker, thread }: Place, extras: Extras) -> Vec<Segment> {
    let quoted = |variable| Segment::Value(variable, Escape::Quoted);
    let mut line = vec![plain(Variable::UtcTime), text(format!(" worker {worker} thread {thread} "))];
    line.extend([plain(Variable::Client), text(" \""), quoted(Variable::Method), text(" "), quoted(Variable::Uri)]);
    line.extend([text(" "), quoted(Variable::Protocol), text("\" "), plain(Variable::Status), text(" ")]);
    line.extend([plain(Variable::Sent), text(" bytes ")]);
    line.extend(match extras.micros {
        true => [plain(Variable::Micros), text(" micros")],
        false => [plain(Variable::PreciseMillis), text(" ms")],
    });
    if extras.memory {
        line.extend([text(" rss "), plain(Variable::Resident), text(" vsz "), plain(Variable::Mapped)]);
    }
    line.extend(trace_ids(extras, LogvarStyle::Quoted));
    line.push(plain(Variable::Logvars(LogvarStyle::Quoted)));
    line
}

/// As `uwsgi_logit_simple` of uWSGI writes it.
fn uwsgi(extras: Extras) -> Vec<Segment> {
    let mut line = Vec::new();
    if extras.memory {
        line.extend([text("{address space usage: "), plain(Variable::Mapped), text(" bytes/")]);
        line.extend([plain(Variable::MappedMegabytes), text("MB} {rss usage: "), plain(Variable::Resident)]);
        line.extend([text(" bytes/"), plain(Variable::ResidentMegabytes), text("MB} ")]);
    }
    line.extend([text("[pid: "), plain(Variable::Pid), text("|app: 0|req: "), plain(Variable::ProcessRequests)]);
    line.extend([text("/"), plain(Variable::AllRequests), text("] ")]);
    // Here, and only here, what is missing is nothing.
    line.extend([plain(Variable::Client), text(" ("), Segment::Value(Variable::User, Escape::Bare), text(") {")]);
    line.extend([plain(Variable::Variables), text(" vars in "), plain(Variable::PacketSize), text(" bytes} [")]);
    line.extend([plain(Variable::Ctime), text("] "), plain(Variable::Method), text(" "), plain(Variable::Uri)]);
    line.extend([text(" => generated "), plain(Variable::BodySize), text(" bytes in ")]);
    line.extend(match extras.micros {
        true => [plain(Variable::Micros), text(" micros")],
        false => [plain(Variable::Millis), text(" msecs")],
    });
    line.extend([plain(Variable::Via), text("("), plain(Variable::Protocol), text(" "), plain(Variable::Status)]);
    line.extend([text(") "), plain(Variable::Headers), text(" headers in "), plain(Variable::HeadSize)]);
    line.extend([text(" bytes ("), plain(Variable::Switches), text(" switches on core "), plain(Variable::Thread)]);
    line.push(text(")"));
    line
}

/// The keys of the JSON format, in order, and whether each is a text.
#[rustfmt::skip]
pub(super) const JSON: &[(&str, Variable)] = &[
    ("time", Variable::UtcTime), ("worker", Variable::Worker), ("thread", Variable::Thread), ("pid", Variable::Pid),
    ("client", Variable::Client), ("user", Variable::User), ("method", Variable::Method), ("uri", Variable::Uri),
    ("protocol", Variable::Protocol), ("host", Variable::Host), ("referer", Variable::Referer),
    ("user_agent", Variable::UserAgent), ("status", Variable::Status), ("request_bytes", Variable::ContentLength),
    ("response_bytes", Variable::BodySize), ("head_bytes", Variable::HeadSize), ("duration_us", Variable::Micros),
];

fn json(extras: Extras) -> Vec<Segment> {
    let mut line = Vec::new();
    for (number, (key, variable)) in JSON.iter().enumerate() {
        let comma = if number == 0 { "{" } else { "," };
        let is_time = *variable == Variable::UtcTime;
        line.push(text(format!("{comma}\"{key}\":{}", if is_time { "\"" } else { "" })));
        line.push(Segment::Value(variable.clone(), Escape::JsonString));
        line.extend(is_time.then(|| text("\"")));
    }
    line.extend(trace_ids(extras, LogvarStyle::Json));
    line.extend([plain(Variable::Logvars(LogvarStyle::Json)), text("}")]);
    line
}

fn logfmt(extras: Extras) -> Vec<Segment> {
    let mut line = Vec::new();
    for (number, (key, variable)) in JSON.iter().enumerate() {
        let blank = if number == 0 { "" } else { " " };
        line.extend([text(format!("{blank}{key}=")), Segment::Value(variable.clone(), Escape::Logfmt)]);
    }
    line.extend(trace_ids(extras, LogvarStyle::Logfmt));
    line.push(plain(Variable::Logvars(LogvarStyle::Logfmt)));
    line
}

/// Reads a format as `uwsgi_build_log_format` of uWSGI does.
fn pattern(format: &str) -> Vec<Segment> {
    #[derive(PartialEq)]
    enum State {
        Text,
        Percent,
        Open,
    }
    let bytes = format.as_bytes();
    let mut segments = Vec::new();
    let mut state = State::Text;
    let mut begin = 0;
    let mut variable = None;
    // Every boundary is beside an ASCII character, so that each piece is UTF-8.
    let piece = |from: usize, to: usize| format.get(from..to).unwrap_or_default();
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'%' if state == State::Text => state = State::Percent,
            b'(' if state == State::Percent => state = State::Open,
            b'%' | b'(' => {}
            b')' => {
                if let Some(start) = variable.take() {
                    segments.push(Segment::Value(Variable::named(piece(start, at)), Escape::Plain));
                    state = State::Text;
                    begin = at + 1;
                }
            }
            _ => {
                if state == State::Open {
                    segments.push(text(piece(begin, at - 2)));
                    variable = Some(at);
                }
                state = State::Text;
            }
        }
    }
    if begin < bytes.len() {
        segments.push(text(piece(begin, bytes.len())));
    }
    segments.retain(|segment| *segment != text(""));
    escape(&mut segments, format.trim_start().starts_with('{'));
    segments
}

/// A variable between double quotes must not end them.
fn escape(segments: &mut [Segment], is_json: bool) {
    let mut quotes = 0;
    for segment in segments {
        match segment {
            // In JSON, one that is escaped begins and ends no string.
            Segment::Text(text) if is_json => {
                quotes += text.replace("\\\\", "").replace("\\\"", "").matches('"').count();
            }
            Segment::Text(text) => quotes += text.matches('"').count(),
            Segment::Value(_, escape) if quotes % 2 == 1 => {
                *escape = if is_json { Escape::Json } else { Escape::Quoted }
            }
            Segment::Value(..) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(name: &str, escape: Escape) -> Segment {
        Segment::Value(Variable::named(name), escape)
    }

    #[test]
    fn formats_are_read_as_uwsgi_reads_them() {
        let plain = |name: &str| value(name, Escape::Plain);
        for (format, expected) in [
            ("%(addr) - %(user)", vec![plain("addr"), text(" - "), plain("user")]),
            ("a%(uri)b", vec![text("a"), plain("uri"), text("b")]),
            ("100%%(status)%", vec![text("100%"), plain("status"), text("%")]),
            ("%d (x) %()%(", vec![text("%d (x) %()%(")]),
            (
                "é%(var.HTTP_X_Y)é",
                vec![text("é"), Segment::Value(Variable::Header("x-y".into()), Escape::Plain), text("é")],
            ),
            ("%(metric.a.b)%(mine)", vec![plain("metric.a.b"), plain("mine")]),
            ("", vec![]),
        ] {
            assert_eq!(pattern(format), expected, "{format}");
        }
    }

    #[test]
    fn what_stands_between_quotes_cannot_end_them() {
        assert_eq!(pattern("\"%(uri)\" %(uri)")[1], value("uri", Escape::Quoted));
        assert_eq!(pattern("\"%(uri)\" %(uri)")[3], value("uri", Escape::Plain));
        assert_eq!(pattern(" {\"uri\": \"%(uri)\"}")[1], value("uri", Escape::Json));
        assert_eq!(pattern(r#"{"request": "\"%(uri)\""}"#)[1], value("uri", Escape::Json));
    }

    #[test]
    fn the_line_of_uwsgi_is_the_one_that_its_documentation_spells_out() {
        let documented = pattern(
            "[pid: %(pid)|app: -|req: -/-] %(addr) (%(user)) {%(vars) vars in %(pktsize) bytes} [%(ctime)] %(method) %(uri) \
             => generated %(rsize) bytes in %(msecs) msecs (%(proto) %(status)) %(headers) headers in %(hsize) bytes \
             (%(switches) switches on core %(core))",
        );
        let ours = uwsgi(Extras::default());
        let named = |line: &[Segment]| -> Vec<Variable> {
            let values = line.iter().filter_map(|segment| match segment {
                Segment::Value(Variable::ProcessRequests | Variable::AllRequests | Variable::Via, _) => None,
                Segment::Value(variable, _) => Some(variable.clone()),
                Segment::Text(_) => None,
            });
            values.collect()
        };
        assert_eq!(named(&ours), named(&documented));
    }
}
