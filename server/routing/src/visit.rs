//! What the rules know of a request, and what they want done.

use std::fs::File;

use super::variables::Variables;

/// What a rule may ask about the server and the response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The worker's number.
    pub worker: u32,
    /// The status of the response; 0 before there is one.
    pub status: u16,
    /// When the request began, µs since 1970.
    pub began: u64,
    /// How long it took, µs; 0 before the end.
    pub took: u64,
    /// Bytes of the body that were sent.
    pub body_sent: u64,
}

impl Facts {
    /// What `${uwsgi[name]}` stands for.
    pub(crate) fn named(&self, name: &[u8]) -> String {
        match name {
            b"wid" => self.worker.to_string(),
            b"pid" => std::process::id().to_string(),
            b"status" => self.status.to_string(),
            b"rtime" => self.took.to_string(),
            b"rsize" => self.body_sent.to_string(),
            b"sor" => self.began.to_string(),
            b"lq" => "0".into(),
            // The kernel makes one.
            b"uuid" => {
                let made = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
                made.trim_end().to_owned()
            }
            _ => String::new(),
        }
    }
}

/// What is to be done outside of the response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A line for the server's log.
    Log(Vec<u8>),
    /// A line for the server's log that says what is wrong with a rule.
    Complain(String),
    /// A name and a value for the request's line in the access log.
    LogVariable(Vec<u8>, Vec<u8>),
    /// The request has no line in the access log.
    DoNotLog,
    /// Raise this signal of uWSGI's.
    Signal(u8),
    /// End the process when the request is not over in so many seconds.
    Harakiri(u32),
}

/// A response that a rule gives.
#[derive(Debug)]
pub enum Answer {
    /// A status line's text, headers, and a body.
    Text {
        /// As in `404 Not Found`.
        status: Vec<u8>,
        /// Names and values; a client may have a hand in the values.
        headers: Vec<(&'static str, Vec<u8>)>,
        /// The body.
        body: Vec<u8>,
    },
    /// A file as it is on the disk, with conditions and ranges (`static`).
    Static(Vec<u8>),
    /// An open file (`file`, `sendfile`, `fastfile`).
    File {
        /// As in `200 OK`.
        status: Vec<u8>,
        /// Its type.
        content_type: Vec<u8>,
        /// The file.
        file: File,
    },
    /// This status, with the page that the configuration has for it.
    Page(u16),
    /// None: the connection is closed.
    Nothing,
}

/// One request on its way through the rules.
#[derive(Debug, Default)]
pub struct Visit {
    /// Its variables.
    pub variables: Variables,
    /// What else is known.
    pub facts: Facts,
    /// Lines to be added to the response's head.
    pub add_headers: Vec<Vec<u8>>,
    /// Names of headers that are left out of the response's head.
    pub remove_headers: Vec<Vec<u8>>,
    /// The head starts anew with this status (`clearheaders`).
    pub new_head: Option<Vec<u8>>,
    /// No head is sent (`disableheaders`).
    pub without_head: bool,
    /// The body is compressed.
    pub gzip: bool,
    /// The body is sent in chunks where the client knows those.
    pub chunked: bool,
    /// Goes before the body (`send`).
    pub before_body: Vec<u8>,
    /// What is to be done, in order.
    pub effects: Vec<Effect>,
}

impl Visit {
    /// Forgets the request.
    pub fn clear(&mut self) {
        let Self { variables, facts, add_headers, remove_headers, before_body, effects, .. } = self;
        variables.clear();
        *facts = Facts { worker: facts.worker, ..Facts::default() };
        add_headers.clear();
        remove_headers.clear();
        before_body.clear();
        effects.clear();
        (self.new_head, self.without_head, self.gzip, self.chunked) = (None, false, false, false);
    }
}
