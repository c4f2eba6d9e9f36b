//! This server as a vassal: what it tells the emperor that started it, and what that orders. The protocol is uWSGI's, a
//! byte at a time, so that either emperor governs either server.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use nix::sys::socket::{UnixAddr, getsockname};
use tracing::warn;

use crate::ipc::inherit::InheritedFd;

/// The variable by which an emperor names its end of the connection.
pub(crate) const EMPEROR_FD: &str = "UWSGI_EMPEROR_FD";
/// The same for one that sends the configuration as well.
pub(crate) const EMPEROR_FD_CONFIG: &str = "UWSGI_EMPEROR_FD_CONFIG";

/// What a vassal tells its emperor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Report {
    /// The application is loaded.
    Ready = 1,
    /// Requests are accepted.
    Accepting = 5,
    /// The vassal is no reason for concern any more: if it dies, it is started again at once.
    Loyal = 17,
    /// It is to be stopped; one that starts on demand waits for its next connection then.
    Stop = 22,
    /// It is alive.
    Heartbeat = 26,
}

impl Report {
    /// The report of this code; `None` for others, as uWSGI's question for its configuration or for help.
    pub(crate) fn of(byte: u8) -> Option<Self> {
        [Self::Ready, Self::Accepting, Self::Loyal, Self::Stop, Self::Heartbeat]
            .into_iter()
            .find(|it| *it as u8 == byte)
    }
}

/// What an emperor orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Order {
    /// Stop.
    Stop = 0,
    /// Reload.
    Reload = 1,
    /// Stop after the requests in progress.
    StopGracefully = 2,
}

/// What a vassal learns from its emperor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heard {
    /// It is to stop.
    Stop,
    /// It is to reload.
    Reload,
    /// The emperor is gone.
    Lost,
}

/// The connection to the emperor.
#[derive(Debug)]
pub(crate) struct Link(UnixStream);

impl Link {
    /// Takes the connection that the environment names. To be called once, before anything else is opened.
    pub(crate) fn take() -> Option<Self> {
        let number = std::env::var(EMPEROR_FD).ok()?;
        let taken = InheritedFd::from_argument(&number).map(|mut inherited| inherited.take());
        match taken {
            Some(Ok(fd)) if is_unix_socket(&fd) => {
                let stream = UnixStream::from(fd);
                // A full emperor loses a report; the server does not wait for it.
                stream.set_nonblocking(true).ok()?;
                Some(Self(stream))
            }
            _ => {
                warn!("{EMPEROR_FD}: '{number}' is no connection to an emperor: this server is nobody's vassal");
                None
            }
        }
    }

    /// Tells the emperor something. One that is gone is noticed elsewhere.
    pub(crate) fn tell(&self, report: Report) {
        let _ = (&self.0).write(&[report as u8]);
    }

    /// Waits for orders, and passes each on; the last is [`Heard::Lost`].
    ///
    /// # Errors
    /// When the connection cannot be watched.
    pub(crate) fn orders(&self) -> std::io::Result<Orders> {
        Ok(Orders(tokio::net::UnixStream::from_std(self.0.try_clone()?)?))
    }
}

fn is_unix_socket(fd: &OwnedFd) -> bool {
    use std::os::fd::AsRawFd;
    getsockname::<UnixAddr>(fd.as_raw_fd()).is_ok()
}

/// The orders of an emperor, one after another.
#[derive(Debug)]
pub(crate) struct Orders(tokio::net::UnixStream);

impl Orders {
    /// The next order.
    pub(crate) async fn next(&mut self) -> Heard {
        use tokio::io::AsyncReadExt;
        let mut byte = [0];
        loop {
            match self.0.read(&mut byte).await {
                Ok(1) if byte[0] == Order::Reload as u8 => return Heard::Reload,
                Ok(1) if byte[0] == Order::Stop as u8 || byte[0] == Order::StopGracefully as u8 => return Heard::Stop,
                Ok(1) => {}
                _ => return Heard::Lost,
            }
        }
    }
}
