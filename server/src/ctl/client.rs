//! The connection to a server's control socket.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use anyhow::{Context, bail};
use rwsgi_stats::control::{Reply, Request};

use super::words::Server;

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
    pub(super) fn ask(&mut self, request: &Request, mut progress: impl FnMut(&str)) -> anyhow::Result<Reply> {
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line).context("the server has hung up")?;
        loop {
            let mut line = Vec::new();
            if self.stream.read_until(b'\n', &mut line).context("the server has hung up")? == 0 {
                bail!("the server has hung up without an answer");
            }
            match serde_json::from_slice(&line).context("the server does not speak the control protocol")? {
                Reply::Progress(text) => progress(&text),
                end => return Ok(end),
            }
        }
    }
}
