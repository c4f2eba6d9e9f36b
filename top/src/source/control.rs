//! The control protocol's client: one connection, one request, what the server says meanwhile, one answer; all of it within
//! a deadline and of bounded size.
//!
//! Each request has a connection of its own, so that a profile of a minute holds up nothing else.

mod answer;
mod asker;
#[cfg(test)]
mod tests;

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rwsgi_stats::control::{Answer, Reply, Request};
use rwsgi_stats::{Address, Snapshot};
use socket2::Socket;
use thiserror::Error;

pub(crate) use self::asker::{Ask, Asker, ControlEvent, ControlReply};
use super::connect::{Connector, Deadline};
use super::{Fetcher, SourceError, Target};
use crate::format;

/// The longest reply that is read. A profile of every thread of a large pool is far below it.
const LONGEST_REPLY: usize = 64 << 20;
/// What a server may say in all before its answer: somebody who never stops is not listened to.
const MOST_PROGRESS: usize = 1 << 20;

/// How often whoever waits is asked whether it still wants the answer.
const BEAT: Duration = Duration::from_millis(250);

/// Where a server's control socket is, and how long it has to answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Control {
    address: Address,
    timeout: Duration,
}

/// Why a request was not answered. Each message is one line, says what to do where that is known, and names the socket.
#[derive(Debug, Error)]
pub(crate) enum ControlError {
    /// The stats server is no `rwsgi`.
    #[error("uWSGI does not tell {0}: that takes rwsgi")]
    Uwsgi(&'static str),
    /// The stats document has no `control`.
    #[error("the server has no control socket: start it with --control PATH")]
    None,
    /// The address is no path on this machine, and what the server names is not here.
    #[error("the control socket {path} is on another machine than rtop: run rtop there, or bring it here with ssh -L")]
    Elsewhere {
        /// What the server names.
        path: String,
    },
    /// There is no such socket, or nobody listens on it, or it is not for us.
    #[error("cannot connect to the control socket {path}: {error}{}", hint(.error))]
    Connect {
        /// The socket.
        path: String,
        /// Why.
        error: io::Error,
    },
    /// `--control` names the socket of another server than the one that is shown.
    #[error(
        "{path} is the control socket of server {pid}, and server {shown} is shown: name that one's, or leave --control out"
    )]
    Others {
        /// The socket.
        path: String,
        /// Its master.
        pid: i32,
        /// The master that the stats are of.
        shown: i32,
    },
    /// No answer came in time.
    #[error("the control socket {path} gave no answer within {:.1} s", .after.as_secs_f64())]
    TimedOut {
        /// The socket.
        path: String,
        /// How long it had.
        after: Duration,
    },
    /// The connection ended before the answer did.
    #[error("the server closed the control connection before it had answered")]
    Closed,
    /// The connection broke.
    #[error("the control connection broke: {0}")]
    Broken(io::Error),
    /// Something else listens there.
    #[error("{path} does not speak the control protocol: {why}")]
    NotControl {
        /// The socket.
        path: String,
        /// What was wrong with the answer.
        why: String,
    },
    /// More than any answer is.
    #[error("the answer of the control socket is larger than {} MiB", LONGEST_REPLY >> 20)]
    TooLarge,
    /// The server did not do it; the words are its own.
    #[error("{0}")]
    Failed(String),
    /// The server answered what was not asked.
    #[error("the server's answer is not what was asked for: rtop and rwsgi may be of different versions")]
    Another,
    /// Whoever asked does not want the answer any more.
    #[error("given up")]
    GivenUp,
    /// The stats server, which was to name the control socket, did not answer.
    #[error(transparent)]
    Stats(#[from] SourceError),
}

/// What a person can do about a connection that was refused.
fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "; only the server's user and root may: run rtop as one of them",
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => "; is the server running?",
        _ => "",
    }
}

/// What a request is about, for the error of a server that has no answer to it.
pub(crate) fn what_of(request: &Request) -> &'static str {
    match request {
        Request::Stacks { .. } => "stacks",
        Request::Profile { .. } => "profiles",
        Request::Memory { .. } => "where its memory is",
        Request::Stats => "its stats on a control socket",
        _ => "how to control it as rwsgi does",
    }
}

impl Control {
    /// The socket that is named on the command line (`--control`).
    pub(crate) fn at(path: &Path, timeout: Duration) -> Self {
        Self { address: Address::Unix(path.to_owned()), timeout }
    }

    /// The socket that a stats document names, read from `target`.
    ///
    /// # Errors
    /// When it names none, or one that is on another machine.
    pub(crate) fn of_document(
        snapshot: &Snapshot,
        target: &Target,
        request: &Request,
        timeout: Duration,
    ) -> Result<Self, ControlError> {
        let Some(path) = &snapshot.control else {
            return Err(match snapshot.server.as_deref() {
                Some("rwsgi") => ControlError::None,
                _ => ControlError::Uwsgi(what_of(request)),
            });
        };
        let address = match path.strip_prefix('@') {
            Some(name) => Address::Abstract(name.to_owned()),
            None => Address::Unix(PathBuf::from(path)),
        };
        if matches!(&address, Address::Unix(file) if !target.is_local() && !file.exists()) {
            return Err(ControlError::Elsewhere { path: format::one_line(path) });
        }
        Ok(Self { address, timeout })
    }

    /// Finds the control socket of a server: `named` on the command line, or `target` itself, or what its stats document
    /// names.
    ///
    /// # Errors
    /// When there is none, or the stats server does not answer.
    pub(crate) fn find(
        named: Option<&Path>,
        target: &Target,
        request: &Request,
        timeout: Duration,
    ) -> Result<Self, ControlError> {
        if let Some(path) = named {
            return Ok(Self::at(path, timeout));
        }
        let mut fetcher = Fetcher::new(target.clone(), timeout);
        let document = fetcher.fetch()?;
        match target {
            Target::Socket(_) | Target::Tunnel(_) if fetcher.speaks_control() => {
                Ok(Self { address: target.address().clone(), timeout })
            }
            _ => Self::of_document(&document.snapshot, target, request, timeout),
        }
    }

    /// Asks, and waits for the answer for as long as a server has to answer, and `longer`: what the request takes by its
    /// nature, such as the time of a profile. Meanwhile `listen` is called with what the server says, and with nothing four
    /// times a second; when it returns `false`, the request is given up.
    ///
    /// Every text of the answer is a plain line; but of [`Answer::Stats`], which is the model's to clean.
    ///
    /// # Errors
    /// Whatever kept an answer from coming, or what the server says that it could not do.
    pub(crate) fn ask(
        &self,
        request: &Request,
        longer: Duration,
        listen: &mut dyn FnMut(Option<&str>) -> bool,
    ) -> Result<Answer, ControlError> {
        let deadline = Deadline::within(self.timeout.saturating_add(longer));
        let socket = Connector::default().connect(&self.address, &deadline).map_err(|error| self.failed(error))?;
        let mut line = serde_json::to_vec(request).map_err(|error| ControlError::Broken(error.into()))?;
        line.push(b'\n');
        let left = deadline.left().map_err(|error| self.failed(error))?;
        socket.set_write_timeout(Some(left)).map_err(ControlError::Broken)?;
        // A server that refuses whoever connects says why and closes: what it said is worth more than the broken pipe.
        let sent = (&socket).write_all(&line);
        let mut replies = Replies::default();
        let mut said = 0usize;
        loop {
            let line = match (replies.next(&socket, &deadline, listen), &sent) {
                (Err(Cut::Closed | Cut::Io(_)), Err(error)) => {
                    return Err(ControlError::Broken(io::Error::new(error.kind(), error.to_string())));
                }
                (Err(cut), _) => return Err(self.cut(cut)),
                (Ok(line), _) => line,
            };
            let reply = serde_json::from_slice(&line).map_err(|error| ControlError::NotControl {
                path: self.name(),
                why: format::one_line(&error.to_string()),
            })?;
            match reply {
                Reply::Progress(text) => {
                    said = said.saturating_add(line.len());
                    if said > MOST_PROGRESS {
                        return Err(ControlError::TooLarge);
                    }
                    if !listen(Some(&format::one_line(&text))) {
                        return Err(ControlError::GivenUp);
                    }
                }
                Reply::Done(mut answer) => {
                    answer::clean(&mut answer);
                    return Ok(answer);
                }
                Reply::Failed(why) => {
                    let why = format::one_line(&why);
                    let why =
                        if why.is_empty() { "the server refused it and does not say why".to_owned() } else { why };
                    return Err(ControlError::Failed(why));
                }
            }
        }
    }

    /// Checks that it is the socket of the server whose stats are shown.
    ///
    /// # Errors
    /// When it is another server's, or one of both does not answer.
    fn is_of(&self, target: &Target) -> Result<(), ControlError> {
        let shown = Fetcher::new(target.clone(), self.timeout).fetch()?.snapshot;
        let Answer::Stats(asked) = self.ask(&Request::Stats, Duration::ZERO, &mut |_| true)? else {
            return Err(ControlError::Another);
        };
        match (asked.pid, asked.started_at) == (shown.pid, shown.started_at) {
            true => Ok(()),
            false => Err(ControlError::Others { path: self.name(), pid: asked.pid, shown: shown.pid }),
        }
    }

    /// Its path, for people.
    pub(crate) fn name(&self) -> String {
        format::one_line(&self.address.to_string())
    }

    fn failed(&self, error: SourceError) -> ControlError {
        match error {
            SourceError::Connect(error) => ControlError::Connect { path: self.name(), error },
            SourceError::TimedOut(after) => ControlError::TimedOut { path: self.name(), after },
            error => ControlError::Stats(error),
        }
    }

    fn cut(&self, cut: Cut) -> ControlError {
        match cut {
            Cut::Closed => ControlError::Closed,
            Cut::GivenUp => ControlError::GivenUp,
            Cut::TooLarge => ControlError::TooLarge,
            Cut::Late(error) => self.failed(error),
            Cut::Io(error) => ControlError::Broken(error),
        }
    }
}

/// Why there is no whole line.
enum Cut {
    Closed,
    GivenUp,
    TooLarge,
    Late(SourceError),
    Io(io::Error),
}

/// Lines as they come.
#[derive(Default)]
struct Replies {
    bytes: Vec<u8>,
    /// So many of them hold no end of a line.
    searched: usize,
}

impl Replies {
    /// The next line, without its end.
    fn next(
        &mut self,
        socket: &Socket,
        deadline: &Deadline,
        listen: &mut dyn FnMut(Option<&str>) -> bool,
    ) -> Result<Vec<u8>, Cut> {
        loop {
            if let Some(end) = self.bytes[self.searched..].iter().position(|byte| *byte == b'\n') {
                let end = self.searched + end;
                let rest = self.bytes.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.bytes, rest);
                line.truncate(end);
                self.searched = 0;
                return Ok(line);
            }
            self.searched = self.bytes.len();
            if self.bytes.len() > LONGEST_REPLY {
                return Err(Cut::TooLarge);
            }
            let left = deadline.left().map_err(Cut::Late)?;
            socket.set_read_timeout(Some(left.min(BEAT))).map_err(Cut::Io)?;
            let mut buffer = [0; 64 * 1024];
            let mut reader: &Socket = socket;
            match reader.read(&mut buffer) {
                Ok(0) => return Err(Cut::Closed),
                Ok(count) => self.bytes.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The deadline is looked at above.
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    if !listen(None) {
                        return Err(Cut::GivenUp);
                    }
                }
                Err(error) => return Err(Cut::Io(error)),
            }
        }
    }
}
