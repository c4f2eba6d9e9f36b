//! A response on its way through rules: its head is changed once it is ready, and its body as it comes.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Instant;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::beneath::open_itself;
use super::rules::SharedRules;
use rwsgi_protocol::SocketProtocol;
use rwsgi_protocol::http::Version;
use rwsgi_protocol::response::{Exchange, Field, HeadWriter};
use rwsgi_routing::{Answer, Effect, Next, Phase, Visit, reason};

/// A file that a rule gives for a response of the application's is read into memory: one of more than this, bytes, is
/// none for that.
const LONGEST_PAGE: u64 = 16 << 20;

/// A request that rules have looked at.
#[derive(Debug)]
pub(super) struct Routed {
    pub(super) shared: Arc<SharedRules>,
    pub(super) visit: Visit,
    pub(super) began: Instant,
    /// The master was asked to end this process if the request takes too long.
    pub(super) has_harakiri: bool,
    pub(super) stage: Stage,
    /// The body is sent in chunks, although its length may be known.
    pub(super) in_chunks: bool,
    /// The length that the application said of its body, when the head does not say it any more.
    pub(super) said: Option<u64>,
    /// How much of that it has given.
    pub(super) given: u64,
}

/// How far the response has come.
#[derive(Debug)]
pub(super) enum Stage {
    /// There is none.
    Before,
    /// The head is as it will be sent, and the body as it comes.
    Plain,
    /// The body is compressed.
    Gzip(GzEncoder<Vec<u8>>),
    /// This is sent in place of the body that comes.
    Replaced(Vec<u8>),
    /// What comes is not sent.
    Dropped,
}

/// A head as rules change it.
pub(super) struct Head {
    pub(super) status: Vec<u8>,
    pub(super) fields: Vec<Field>,
}

/// An answer as a head and a body; `None` when there is to be no response.
pub(super) type Made = Option<(Head, Vec<u8>)>;

impl Routed {
    pub(super) fn new(shared: Arc<SharedRules>) -> Self {
        Self {
            shared,
            visit: Visit::default(),
            began: Instant::now(),
            has_harakiri: false,
            stage: Stage::Before,
            in_chunks: false,
            said: None,
            given: 0,
        }
    }

    /// Forgets the request.
    pub(super) fn clear(&mut self) {
        self.visit.clear();
        self.begin_anew();
        self.has_harakiri = false;
        self.began = Instant::now();
    }

    /// Another head takes the place of one that was not sent.
    pub(super) fn begin_anew(&mut self) {
        (self.stage, self.in_chunks) = (Stage::Before, false);
        (self.said, self.given) = (None, 0);
    }

    /// The pieces of the application's body up to the length that it has said.
    pub(super) fn within<'a>(&mut self, pieces: &[&'a [u8]]) -> Vec<&'a [u8]> {
        let mut left = self.said.map_or(usize::MAX, |said| usize::try_from(said - self.given).unwrap_or(usize::MAX));
        let mut within = Vec::with_capacity(pieces.len());
        for piece in pieces {
            let taken = &piece[..piece.len().min(left)];
            left -= taken.len();
            self.given += taken.len() as u64;
            within.push(taken);
        }
        within
    }

    /// Whether the application has given all that it said.
    pub(super) fn has_all(&self) -> bool {
        self.said.is_some_and(|said| self.given >= said)
    }

    /// What the rules make of a head; `None` when there is to be no response. `is_empty` says that no body will come.
    pub(super) fn settle(&mut self, head: &HeadWriter, exchange: Exchange, is_empty: bool) -> Option<HeadWriter> {
        let (status, fields) = head.parts();
        let mut head = Head { status, fields };
        let mut body = None;
        self.visit.facts.status = head.code();
        // What was asked for before there was a response has no head to begin anew.
        self.visit.new_head = None;
        let shared = Arc::clone(&self.shared);
        if let Next::Answer(answer) = shared.rules.run(Phase::Error, &mut self.visit) {
            let (made, instead) = self.made_of(answer)?;
            (head, body) = (made, Some(instead));
        }
        self.collect(&mut head);
        self.visit.new_head = None;
        self.visit.facts.status = head.code();
        if let Next::Answer(answer) = shared.rules.run(Phase::Response, &mut self.visit) {
            let (made, instead) = self.made_of(answer)?;
            (head, body) = (made, Some(instead));
            self.collect(&mut head);
        } else if let Some(status) = self.visit.new_head.take() {
            head = Head { status, fields: Vec::new() };
        }
        self.visit.facts.status = head.code();
        self.choose_stage(&mut head, body, exchange, is_empty);
        Some(self.write(head))
    }

    /// Takes out headers that are not to be sent, and makes variables of those that are wanted as such.
    fn collect(&mut self, head: &mut Head) {
        let config = &self.shared.config;
        let visit = &mut self.visit;
        head.fields.retain(|(name, value)| {
            let is = |other: &[u8]| name.eq_ignore_ascii_case(other);
            if config.del_headers.iter().any(|removed| is(removed.as_bytes()))
                || visit.remove_headers.iter().any(|removed| is(removed))
            {
                return false;
            }
            let mut stays = true;
            for collect in config.collect_headers.iter().filter(|collect| is(collect.header.as_bytes())) {
                visit.variables.set(collect.variable.as_bytes(), value);
                stays &= !collect.pulled;
            }
            stays
        });
    }

    fn choose_stage(&mut self, head: &mut Head, body: Option<Vec<u8>>, exchange: Exchange, is_empty: bool) {
        let visit = &self.visit;
        let visit_chunked = visit.chunked;
        let may_have_body = !matches!(head.code(), 100..=199 | 204 | 205 | 304);
        let has_body = may_have_body && !exchange.head_only;
        let is_encoded = head.fields.iter().any(|(name, _)| name.eq_ignore_ascii_case(b"Content-Encoding"));
        let knows_chunks = exchange.protocol == SocketProtocol::Http && exchange.version == Version::Http11;
        let has_nothing = is_empty && body.is_none() && visit.before_body.is_empty();
        // A part of a file is none of its compressed bytes.
        let compresses = visit.gzip && may_have_body && !is_encoded && head.code() != 206;
        // Where the application made no body because of HEAD, there is none to compress.
        let compresses = compresses && (!has_nothing || exchange.head_only);
        if compresses {
            head.compress();
        }
        if compresses && !has_nothing {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            match body {
                None => self.stage = Stage::Gzip(encoder),
                Some(body) => {
                    // Writing to memory cannot fail.
                    let _ = encoder.write_all(&visit.before_body).and_then(|()| encoder.write_all(&body));
                    self.stage = Stage::Replaced(encoder.finish().unwrap_or_default());
                    self.visit.before_body.clear();
                }
            }
        } else if let Some(body) = body {
            self.stage = Stage::Replaced([std::mem::take(&mut self.visit.before_body), body].concat());
        } else {
            self.stage = Stage::Plain;
        }
        self.in_chunks = visit_chunked && has_body && knows_chunks;
        let is_another =
            compresses || !self.visit.before_body.is_empty() || self.in_chunks || !matches!(self.stage, Stage::Plain);
        if may_have_body && is_another {
            let said = head.take_length();
            self.said = said.filter(|_| has_body && matches!(self.stage, Stage::Plain | Stage::Gzip(_)));
        }
    }

    fn write(&mut self, head: Head) -> HeadWriter {
        let mut writer = HeadWriter::new(&head.status, Vec::with_capacity(512)).unwrap_or_else(|problem| {
            self.visit.effects.push(Effect::Complain(format!("a rule's status: {problem}: 500 is sent")));
            // This one is as it has to be.
            HeadWriter::internal_error()
        });
        for (name, value) in &head.fields {
            self.add(&mut writer, name, value);
        }
        let shared = Arc::clone(&self.shared);
        for (name, value) in &shared.config.add_headers {
            self.add(&mut writer, name.as_bytes(), value.as_bytes());
        }
        for line in std::mem::take(&mut self.visit.add_headers) {
            let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
            let value = line.get(colon + 1..).unwrap_or_default().trim_ascii();
            self.add(&mut writer, line[..colon].trim_ascii(), value);
        }
        writer
    }

    /// Adds a header, unless it would end its line, or is none: a client may have a hand in it.
    fn add(&mut self, writer: &mut HeadWriter, name: &[u8], value: &[u8]) {
        if let Err(problem) = writer.header(name, value) {
            self.visit.effects.push(Effect::Complain(format!("a header is left out: {problem}")));
        }
    }

    /// The answer of a rule as a head and a body.
    pub(super) fn made_of(&self, answer: Answer) -> Made {
        let text = |status: &[u8], kind: &[u8], body: Vec<u8>| {
            Some((Head { status: status.to_vec(), fields: vec![(b"Content-Type".to_vec(), kind.to_vec())] }, body))
        };
        match answer {
            Answer::Text { status, headers, body } => {
                let fields = headers.into_iter().map(|(name, value)| (name.as_bytes().to_vec(), value)).collect();
                Some((Head { status, fields }, body))
            }
            Answer::Page(code) => {
                let reason = reason(code).unwrap_or("Unknown");
                let status = format!("{code} {reason}");
                match self.shared.page(code) {
                    Some(page) => text(status.as_bytes(), b"text/html", page),
                    None => text(status.as_bytes(), b"text/plain", reason.into()),
                }
            }
            Answer::File { status, content_type, file } => match read(&file) {
                Some(body) => text(&status, &content_type, body),
                None => self.made_of(Answer::Page(500)),
            },
            Answer::Static(path) => {
                let kind = rwsgi_routing::mime_type(&path).unwrap_or("application/octet-stream");
                let place = std::path::Path::new(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(&path));
                match open_itself(place, &self.shared.safe).and_then(|(file, _)| read(&file)) {
                    Some(body) => text(b"200 OK", kind.as_bytes(), body),
                    None => self.made_of(Answer::Page(404)),
                }
            }
            Answer::Nothing => None,
        }
    }
}

fn read(file: &std::fs::File) -> Option<Vec<u8>> {
    use std::io::Read as _;
    let mut body = Vec::new();
    file.take(LONGEST_PAGE + 1).read_to_end(&mut body).ok()?;
    (body.len() as u64 <= LONGEST_PAGE).then_some(body)
}

impl Head {
    fn code(&self) -> u16 {
        self.status.get(..3).and_then(|code| std::str::from_utf8(code).ok()?.parse().ok()).unwrap_or(0)
    }

    /// Takes the length out.
    fn take_length(&mut self) -> Option<u64> {
        let place = self.fields.iter().position(|(name, _)| name.eq_ignore_ascii_case(b"Content-Length"))?;
        std::str::from_utf8(&self.fields.remove(place).1).ok()?.parse().ok()
    }

    /// What is said of the body as it is no longer holds: parts of it cannot be had, and its tag is that of a body which
    /// means the same, as with nginx.
    fn compress(&mut self) {
        self.fields.retain(|(name, _)| !name.eq_ignore_ascii_case(b"Accept-Ranges"));
        for (name, value) in &mut self.fields {
            if name.eq_ignore_ascii_case(b"ETag") && value.starts_with(b"\"") {
                value.splice(..0, *b"W/");
            }
        }
        self.fields.push((b"Content-Encoding".to_vec(), b"gzip".to_vec()));
    }
}
