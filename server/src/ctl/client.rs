//! The connection to a server's control socket.

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use rwsgi_stats::control::{Reply, Request};

use super::words::Server;

/// How often it is looked whether an answer is still wanted.
const LOOK: Duration = Duration::from_millis(200);

/// A connection to a server.
pub(super) struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects to the server that is meant.
    ///
    /// # Errors
    /// When there is none, or more than one could be meant.
    pub(super) fn find(server: &Server) -> anyhow::Result<Self> {
        let Some(path) = &server.control else { bail!("name the server's control socket: --control PATH") };
        Self::connect(path)
    }

    fn connect(path: &PathBuf) -> anyhow::Result<Self> {
        let stream = UnixStream::connect(path);
        let stream = stream.with_context(|| format!("no server answers on '{}'", path.display()))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Asks, and returns what ends the answer.
    ///
    /// # Errors
    /// When the server is gone, or says what is no answer.
    pub(super) fn ask(&mut self, request: &Request, progress: impl FnMut(&str)) -> anyhow::Result<Reply> {
        self.ask_unless(request, progress, || false)?.context("the server has hung up without an answer")
    }

    /// The same; `None` when `is_enough` says so, which is asked several times a second while there is no answer.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub(super) fn ask_unless(
        &mut self,
        request: &Request,
        mut progress: impl FnMut(&str),
        is_enough: impl Fn() -> bool,
    ) -> anyhow::Result<Option<Reply>> {
        self.stream.get_ref().set_read_timeout(Some(LOOK))?;
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line).context("the server has hung up")?;
        loop {
            let mut line = Vec::new();
            loop {
                match self.stream.read_until(b'\n', &mut line) {
                    Ok(0) => bail!("the server has hung up without an answer"),
                    Ok(_) => break,
                    // What has come of the line is in it.
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                        if is_enough() {
                            return Ok(None);
                        }
                    }
                    Err(error) => return Err(error).context("the server has hung up"),
                }
            }
            match serde_json::from_slice(&line).context("the server does not speak the control protocol")? {
                Reply::Progress(text) => progress(&text),
                end => return Ok(Some(end)),
            }
        }
    }
}
