//! Lines as datagrams: to a socket, to the system's syslog, to another machine's.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::clock::UnixMicros;
use crate::local_time;

/// How long one line waits for a socket that takes nothing.
pub(super) const PATIENCE: Duration = Duration::from_millis(200);
/// How long a socket that takes nothing is left alone, and one that is not there.
pub(super) const RETRY: Duration = Duration::from_secs(1);
/// The same after a name could not be resolved, which may take seconds each time.
const RETRY_NAME: Duration = Duration::from_secs(60);
/// What uWSGI leaves of a packet for the beginning of a message to a remote syslog, bytes.
const RSYSLOG_HEADER: usize = 30;
const RSYSLOG_PORT: u16 = 514;

/// What is put around a line.
#[derive(Debug)]
pub(super) enum Framing {
    /// A text before it.
    Raw { prefix: String },
    /// As C's `syslog` does.
    Syslog { priority: u32, ident: String },
    /// As uWSGI does for a remote syslog, in packets of at most so many bytes.
    Rsyslog { priority: u32, ident: String, packet: usize, split: bool },
}

/// Where datagrams go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Destination {
    /// A host and a port.
    Udp(String),
    /// A path, or an abstract name behind `@`.
    Unix(String),
}

impl Destination {
    /// As `socket:` of uWSGI reads it: what has a colon is a host and a port.
    pub(super) fn of_socket(address: &str) -> Self {
        if address.contains(':') { Self::Udp(address.to_owned()) } else { Self::Unix(address.to_owned()) }
    }

    /// As `rsyslog:` of uWSGI reads it: what begins with a slash is a path.
    pub(super) fn of_rsyslog(address: &str) -> Self {
        if address.starts_with('/') {
            return Self::Unix(address.to_owned());
        }
        let has_port = address.contains(':');
        Self::Udp(if has_port { address.to_owned() } else { format!("{address}:{RSYSLOG_PORT}") })
    }

    fn connect(&self) -> io::Result<Socket> {
        match self {
            Self::Udp(address) => {
                let address =
                    address.strip_prefix(':').map_or_else(|| address.clone(), |port| format!("127.0.0.1:{port}"));
                let no_address = || io::Error::new(ErrorKind::NotFound, "the name has no address");
                let to = address.to_socket_addrs()?.next().ok_or_else(no_address)?;
                let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
                let socket = UdpSocket::bind(any)?;
                socket.set_nonblocking(true)?;
                Ok(Socket::Udp(socket, to))
            }
            Self::Unix(path) => {
                let socket = UnixDatagram::unbound()?;
                match path.strip_prefix('@') {
                    Some(name) => socket.connect_addr(&UnixAddress::from_abstract_name(name)?)?,
                    None => socket.connect(path)?,
                }
                socket.set_nonblocking(true)?;
                Ok(Socket::Unix(socket))
            }
        }
    }
}

#[derive(Debug)]
enum Socket {
    // Not connected: a reader that is not there at the moment is no error then, as with uWSGI.
    Udp(UdpSocket, SocketAddr),
    Unix(UnixDatagram),
}

impl Socket {
    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let send = || match self {
            Self::Udp(socket, to) => socket.send_to(bytes, to),
            Self::Unix(socket) => socket.send(bytes),
        };
        match send() {
            Err(failure) if failure.kind() == ErrorKind::WouldBlock => {
                let fd = match self {
                    Self::Udp(socket, _) => socket.as_fd(),
                    Self::Unix(socket) => socket.as_fd(),
                };
                let patience = PollTimeout::try_from(PATIENCE).unwrap_or(PollTimeout::ZERO);
                // Whatever comes of it, the next try tells.
                let _ = poll(&mut [PollFd::new(fd, PollFlags::POLLOUT)], patience);
                send().map(drop)
            }
            sent => sent.map(drop),
        }
    }
}

/// A logger that sends datagrams.
#[derive(Debug)]
pub(super) struct Datagrams {
    destination: Destination,
    framing: Framing,
    socket: Option<Socket>,
    /// Nothing is tried before.
    not_before: Option<Instant>,
    packet: Vec<u8>,
}

impl Datagrams {
    pub(super) fn new(destination: Destination, framing: Framing) -> Self {
        Self { destination, framing, socket: None, not_before: None, packet: Vec::new() }
    }

    /// Connects, if it is not.
    ///
    /// # Errors
    /// When nobody is there.
    pub(super) fn connect(&mut self) -> io::Result<()> {
        if self.not_before.is_some_and(|moment| Instant::now() < moment) {
            return Err(ErrorKind::NotConnected.into());
        }
        self.not_before = None;
        if self.socket.is_none() {
            let begun = Instant::now();
            let connected = self.destination.connect();
            if connected.is_err() {
                let is_slow = begun.elapsed() > PATIENCE;
                self.not_before = Some(Instant::now() + if is_slow { RETRY_NAME } else { RETRY });
            }
            self.socket = Some(connected?);
        }
        Ok(())
    }

    /// Sends a line.
    ///
    /// # Errors
    /// When it was not taken.
    pub(super) fn send(&mut self, line: &[u8]) -> io::Result<()> {
        self.connect()?;
        let sent = self.try_send(line);
        let Err(failure) = sent else { return Ok(()) };
        match failure.kind() {
            ErrorKind::WouldBlock => self.not_before = Some(Instant::now() + RETRY),
            // Too long for a datagram.
            _ if failure.raw_os_error() == Some(nix::libc::EMSGSIZE) => {}
            _ => {
                // It may have been started again: at once, and then once a second.
                self.socket = None;
                self.connect()?;
                let sent = self.try_send(line);
                if sent.is_err() {
                    self.socket = None;
                    self.not_before = Some(Instant::now() + RETRY);
                }
                return sent;
            }
        }
        Err(failure)
    }

    fn try_send(&mut self, line: &[u8]) -> io::Result<()> {
        let Self { framing, socket, packet, .. } = self;
        let Some(socket) = socket else { return Err(ErrorKind::NotConnected.into()) };
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        match framing {
            Framing::Raw { prefix } if prefix.is_empty() => socket.send(line),
            Framing::Raw { prefix } => {
                packet.clear();
                packet.extend_from_slice(prefix.as_bytes());
                packet.extend_from_slice(line);
                socket.send(packet)
            }
            Framing::Syslog { priority, ident } => {
                begin(packet, *priority, ident);
                packet.extend_from_slice(text);
                socket.send(packet)
            }
            Framing::Rsyslog { priority, ident, packet: longest, split } => {
                let room = longest.saturating_sub(RSYSLOG_HEADER).max(1);
                let pieces = text.chunks(room).take(if *split { usize::MAX } else { 1 });
                for piece in pieces {
                    begin(packet, *priority, ident);
                    let room = longest.saturating_sub(packet.len()).max(1);
                    packet.extend_from_slice(&piece[..piece.len().min(room)]);
                    socket.send(packet)?;
                }
                Ok(())
            }
        }
    }
}

/// `<30>Nov 26 01:55:56 ident: ` (RFC 3164)
fn begin(packet: &mut Vec<u8>, priority: u32, ident: &str) {
    packet.clear();
    packet.push(b'<');
    packet.extend_from_slice(itoa::Buffer::new().format(priority).as_bytes());
    packet.push(b'>');
    local_time::write(packet, local_time::SYSLOG, UnixMicros::now().as_secs());
    packet.push(b' ');
    packet.extend_from_slice(ident.as_bytes());
    packet.extend_from_slice(b": ");
}
