//! The connection to a server's control socket.

use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket, sockopt};
use rwsgi_stats::control::{Reply, Request};

/// How long a server may take to take a request.
const PATIENCE: Duration = Duration::from_secs(10);

/// How often it is looked whether an answer is still wanted.
const LOOK: Duration = Duration::from_millis(200);

/// The longest reply that is read, bytes.
const LONGEST_REPLY: usize = 64 << 20;

/// A connection to a server.
pub(super) struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects to a control socket.
    ///
    /// # Errors
    /// When there is none, or it is not for this user.
    pub(super) fn connect(path: &Path) -> io::Result<Self> {
        Self::connect_within(PATIENCE, path)
    }

    /// The same: a server that accepts nobody, with as many waiting as may wait, has so long.
    ///
    /// # Errors
    /// As [`Self::connect`].
    pub(super) fn connect_within(time: Duration, path: &Path) -> io::Result<Self> {
        let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        let stream = UnixStream::from(socket);
        // unix(7) has no word of it: `connect` heeds it as well.
        stream.set_write_timeout(Some(time))?;
        connect(stream.as_raw_fd(), &UnixAddr::new(path)?)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// The user and the process that listen.
    ///
    /// # Errors
    /// Never for a connected socket.
    pub(super) fn server(&self) -> io::Result<(u32, i32)> {
        let credentials = getsockopt(self.stream.get_ref(), sockopt::PeerCredentials)?;
        Ok((credentials.uid(), credentials.pid()))
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
        // A server that refuses whoever connects says why, and may have hung up by now.
        let sent = self.stream.get_mut().write_all(&line);
        loop {
            let mut line = Vec::new();
            while line.last() != Some(&b'\n') {
                match self.stream.fill_buf() {
                    Ok([]) => {
                        sent.context("the server has hung up")?;
                        bail!("the server has hung up without an answer");
                    }
                    Ok(bytes) => {
                        let end = bytes.iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |end| end + 1);
                        line.extend_from_slice(&bytes[..end]);
                        self.stream.consume(end);
                    }
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) => return Err(error).context("the server has hung up"),
                }
                if line.len() > LONGEST_REPLY {
                    bail!("the server's answer is longer than {} MiB", LONGEST_REPLY >> 20);
                }
                // Who says something now and then is not waited for any longer than who says nothing.
                if line.last() != Some(&b'\n') && is_enough() {
                    return Ok(None);
                }
            }
            match serde_json::from_slice(&line).context("the server does not speak the control protocol")? {
                Reply::Progress(_) if is_enough() => return Ok(None),
                Reply::Progress(text) => progress(&text),
                end => return Ok(Some(end)),
            }
        }
    }
}
