//! A datagram for each number, by UDP or to a unix socket. What the network or the receiver has no place for is lost, as
//! with UDP anywhere: nothing waits for it.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs, UdpSocket};
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

/// How long the address of a name is used before the name is resolved again.
const RESOLVE: Duration = Duration::from_secs(60);

/// Where datagrams go.
#[derive(Debug)]
pub(super) struct Datagrams {
    /// `host:port`, or the path of a unix socket.
    pub(super) address: String,
    /// Kept, so that a refusal that comes back after the last datagram is told with the next.
    socket: Option<(Socket, Instant)>,
    /// How often a datagram was refused: another address of the name is tried each time.
    refusals: usize,
}

#[derive(Debug)]
enum Socket {
    Udp(UdpSocket),
    Unix(UnixDatagram),
}

impl Datagrams {
    pub(super) fn to(address: String) -> Self {
        Self { address, socket: None, refusals: 0 }
    }

    /// Sends each text; all are tried.
    ///
    /// # Errors
    /// When the address cannot be had, or there is nobody at it.
    pub(super) fn send(&mut self, texts: impl Iterator<Item = String>) -> io::Result<()> {
        let now = Instant::now();
        let (socket, since) = match self.socket.take() {
            Some((socket, since)) if now.duration_since(since) < RESOLVE => (socket, since),
            _ => (connect(&self.address, self.refusals)?, now),
        };
        let mut refused = None;
        for text in texts {
            let sent = match &socket {
                Socket::Udp(socket) => socket.send(text.as_bytes()),
                Socket::Unix(socket) => socket.send(text.as_bytes()),
            };
            match sent {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Told of an earlier one; those after it may arrive.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && matches!(socket, Socket::Udp(_)) => {
                    refused = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        if let Some(refused) = refused {
            self.refusals = self.refusals.wrapping_add(1);
            return Err(refused);
        }
        self.socket = Some((socket, since));
        Ok(())
    }
}

fn connect(address: &str, nth: usize) -> io::Result<Socket> {
    if address.starts_with('/') {
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        socket.connect(address)?;
        return Ok(Socket::Unix(socket));
    }
    connect_udp(address.to_socket_addrs()?.collect(), nth).map(Socket::Udp)
}

/// Connects to one of a name's addresses, the `nth` first: UDP connects also where nobody listens.
fn connect_udp(mut addresses: Vec<SocketAddr>, nth: usize) -> io::Result<UdpSocket> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    // `localhost` is ::1 first on most machines, where a statsd that knows IPv4 alone, as uWSGI does, gets nothing.
    addresses.sort_by_key(SocketAddr::is_ipv6);
    let first = nth % addresses.len().max(1);
    addresses.rotate_left(first);
    for address in addresses {
        let any = if address.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
        let connected = UdpSocket::bind(any).and_then(|socket| socket.connect(address).map(|()| socket));
        match connected {
            Ok(socket) => {
                socket.set_nonblocking(true)?;
                return Ok(socket);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> impl Iterator<Item = String> {
        std::iter::once(text.to_owned())
    }

    #[test]
    fn a_receiver_that_is_gone_is_told_and_one_that_is_back_gets_the_next() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = receiver.local_addr().unwrap();
        let mut datagrams = Datagrams::to(address.to_string());
        datagrams.send(one("a:1|c")).unwrap();
        drop(receiver);
        datagrams.send(one("b:1|c")).unwrap();
        assert_eq!(datagrams.send(one("c:1|c")).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(datagrams.refusals, 1, "another address is next");
        let receiver = UdpSocket::bind(address).unwrap();
        // The refusal of what was sent last may be told once more.
        let _ = datagrams.send(one("d:1|c"));
        datagrams.send(one("e:1|c")).unwrap();
        let mut bytes = [0; 100];
        let texts: Vec<_> = (0..2).map(|_| receiver.recv(&mut bytes).map(|n| bytes[..n].to_vec()).unwrap()).collect();
        assert!(texts.contains(&b"e:1|c".to_vec()), "{texts:?}");
    }

    #[test]
    fn the_addresses_of_a_name_are_tried_in_turn_those_of_ipv4_first() {
        let peer = |addresses: [&str; 2], nth| {
            let addresses = addresses.map(|address| address.parse().unwrap()).to_vec();
            connect_udp(addresses, nth).unwrap().peer_addr().unwrap().to_string()
        };
        assert_eq!(peer(["[::1]:9", "127.0.0.1:9"], 0), "127.0.0.1:9");
        for (nth, address) in [(0, "127.0.0.1:9"), (1, "127.0.0.2:9"), (2, "127.0.0.1:9")] {
            assert_eq!(peer(["127.0.0.1:9", "127.0.0.2:9"], nth), address);
        }
    }

    #[test]
    fn a_unix_socket_that_nobody_reads_holds_up_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("statsd.sock");
        let receiver = UnixDatagram::bind(&path).unwrap();
        let mut datagrams = Datagrams::to(path.to_string_lossy().into_owned());
        datagrams.send((0..10_000).map(|number| format!("a:{number}|c"))).unwrap();
        let mut bytes = [0; 100];
        assert_eq!(receiver.recv(&mut bytes).map(|n| bytes[..n].to_vec()).unwrap(), b"a:0|c");
        drop(receiver);
        std::fs::remove_file(&path).unwrap();
        assert!(datagrams.send(one("a:1|c")).is_err());
        let _receiver = UnixDatagram::bind(&path).unwrap();
        datagrams.send(one("a:1|c")).unwrap();
    }
}
