//! Where lines of the log go: loggers, routes, encoders, drains and filters, as uWSGI's options have them.
//!
//! The thread of the master that writes the log owns it all. Nothing here waits for who does not take a line for longer
//! than [`datagram::PATIENCE`]: what a logger does not take goes to the log file or standard error instead, so that no line
//! is lost and no worker waits for ever.

mod datagram;
mod encode;
mod file;
mod output;

use regex::bytes::Regex;
use tracing::Level;

use self::encode::encode;
pub(crate) use self::file::{FileRules, LogFile};
use self::output::Output;
use crate::identity::Identity;
use rwsgi_config::{LogEncoder, LogStream, LogsConfig, line_pattern};

/// The longest line, bytes; a longer one is logged in parts.
const LONGEST_LINE: usize = 64 * 1024;

/// Something that the thread has to say, which it cannot write to standard error, because it reads that.
pub(crate) type Remark = (Level, String);

/// Who sees each line that is logged, as it was written.
pub(crate) type LineCopy = Box<dyn Fn(&[u8]) + Send>;

/// Where lines go that no logger takes: the log file, or the standard error that the server was given.
pub(crate) trait Fallback {
    /// Writes bytes.
    fn write(&mut self, bytes: &[u8]);
    /// Writes a line of the server's own.
    fn tell(&mut self, remark: Remark);
}

/// Which lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LineKind {
    /// Of the access log, when it has loggers of its own.
    Request,
    /// All others.
    General,
}

/// All loggers, and the ways to them.
pub(crate) struct Loggers {
    outputs: Vec<Output>,
    general: Way,
    requests: Way,
    drain: Vec<Regex>,
    filter: Vec<Regex>,
    copy: Option<LineCopy>,
    /// Space for a line on its way through the encoders.
    scratch: [Vec<u8>; 2],
}

/// The way of the lines of one kind.
struct Way {
    /// What is written of a line whose end has not come yet.
    rest: Vec<u8>,
    /// Loggers without a name, by their number.
    defaults: Vec<usize>,
    routes: Vec<(Regex, usize)>,
    encoders: Vec<LogEncoder>,
}

impl Loggers {
    /// Opens every logger. What cannot be opened is tried again later; `remarks` says so.
    pub(crate) fn open(
        logs: &LogsConfig,
        rules: &FileRules,
        user: Option<&Identity>,
        remarks: &mut Vec<Remark>,
    ) -> Self {
        let configured: Vec<_> = logs.general.loggers.iter().chain(&logs.requests.loggers).collect();
        let outputs: Vec<_> =
            configured.iter().map(|logger| Output::open(logger, logs, rules, user, remarks)).collect();
        let first_of_requests = logs.general.loggers.len();
        let way = |stream: &LogStream, own: std::ops::Range<usize>| {
            // Its own loggers before those of the other kind.
            let all = own.clone().chain(0..configured.len());
            let named = |name: &str| all.clone().find(|number| configured[*number].name.as_deref() == Some(name));
            // Patterns were checked, and routes to nowhere left out, with the configuration.
            let routes = stream
                .routes
                .iter()
                .filter_map(|route| Some((line_pattern(&route.pattern).ok()?, named(&route.logger)?)));
            Way {
                rest: Vec::new(),
                defaults: own.filter(|number| configured[*number].name.is_none()).collect(),
                routes: routes.collect(),
                encoders: stream.encoders.clone(),
            }
        };
        let patterns = |patterns: &[String]| patterns.iter().filter_map(|pattern| line_pattern(pattern).ok()).collect();
        Self {
            general: way(&logs.general, 0..first_of_requests),
            requests: way(&logs.requests, first_of_requests..configured.len()),
            drain: patterns(&logs.drain),
            filter: patterns(&logs.filter),
            outputs,
            copy: None,
            scratch: Default::default(),
        }
    }

    /// Shows somebody each line, before any encoder.
    pub(crate) fn with_copy(self, copy: Option<LineCopy>) -> Self {
        Self { copy, ..self }
    }

    /// Takes what was written, and sends each whole line on.
    pub(crate) fn take(&mut self, kind: LineKind, bytes: &[u8], fallback: &mut dyn Fallback) {
        let mut bytes = bytes;
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = bytes.split_at(end + 1);
            bytes = rest;
            if self.way(kind).rest.is_empty() {
                self.pass(kind, line, fallback);
            } else {
                self.way(kind).rest.extend_from_slice(line);
                self.pass_rest(kind, fallback);
            }
        }
        let rest = &mut self.way(kind).rest;
        rest.extend_from_slice(bytes);
        if rest.len() >= LONGEST_LINE {
            self.pass_rest(kind, fallback);
        }
    }

    /// Whether the end of a line is awaited.
    pub(crate) fn has_rest(&self) -> bool {
        !(self.general.rest.is_empty() && self.requests.rest.is_empty())
    }

    /// Sends what there is of lines whose end has not come.
    pub(crate) fn flush(&mut self, fallback: &mut dyn Fallback) {
        for kind in [LineKind::General, LineKind::Request] {
            if !self.way(kind).rest.is_empty() {
                self.pass_rest(kind, fallback);
            }
        }
    }

    /// Opens files again by their names; what it says of that.
    pub(crate) fn reopen(&mut self) -> Vec<Remark> {
        self.outputs.iter_mut().filter_map(Output::reopen).collect()
    }

    /// Puts files aside and opens new ones; what it says of that.
    pub(crate) fn rotate(&mut self) -> Vec<Remark> {
        self.outputs.iter_mut().filter_map(Output::rotate).collect()
    }

    fn way(&mut self, kind: LineKind) -> &mut Way {
        match kind {
            LineKind::General => &mut self.general,
            LineKind::Request => &mut self.requests,
        }
    }

    fn pass_rest(&mut self, kind: LineKind, fallback: &mut dyn Fallback) {
        let mut line = std::mem::take(&mut self.way(kind).rest);
        self.pass(kind, &line, fallback);
        line.clear();
        self.way(kind).rest = line;
    }

    /// Sends one line to those that are to have it.
    fn pass(&mut self, kind: LineKind, line: &[u8], fallback: &mut dyn Fallback) {
        let Self { outputs, general, requests, drain, filter, copy, scratch } = self;
        // `$` is the end of the line, as in PCRE, and not what comes after its last character.
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let way = match kind {
            LineKind::General => {
                let is_any = |patterns: &[Regex]| patterns.iter().any(|pattern| pattern.is_match(text));
                if is_any(drain) || !(filter.is_empty() || is_any(filter)) {
                    return;
                }
                general
            }
            LineKind::Request => requests,
        };
        if let Some(copy) = copy {
            copy(line);
        }
        let mut send = |number: Option<usize>| {
            let name = number.and_then(|number| outputs[number].name());
            let encoded = encode(&way.encoders, name, line, scratch);
            match number {
                Some(number) => outputs[number].send(encoded, fallback),
                None => fallback.write(encoded),
            }
        };
        let mut is_routed = false;
        for (_, number) in way.routes.iter().filter(|(pattern, _)| pattern.is_match(text)) {
            send(Some(*number));
            is_routed = true;
        }
        if is_routed {
            return;
        }
        way.defaults.iter().for_each(|number| send(Some(*number)));
        if way.defaults.is_empty() {
            send(None);
        }
    }
}

#[cfg(test)]
mod tests;
