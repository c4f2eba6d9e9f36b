//! Accepting connections with the peer's address: one system call for both.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{SocketAddrAny, SocketFlags, acceptfrom_with};
use rwsgi_stats::Address;

use rwsgi_protocol::link::Peer;

/// A socket that clients connect to.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) fd: OwnedFd,
    /// Whether its clients have IP addresses.
    is_tcp: bool,
    /// Whether clients of other machines connect here.
    is_direct: bool,
    /// The environ's `SERVER_NAME` and `SERVER_PORT`, with a space between them.
    server: String,
}

impl Listener {
    /// Takes a bound, listening socket, and makes it non-blocking.
    ///
    /// # Errors
    /// When it is no descriptor that can be.
    pub(crate) fn new(fd: OwnedFd, address: &Address) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&fd, true)?;
        let (is_tcp, server) = match address {
            Address::Tcp { host, port } => (true, format!("{} {port}", server_name(host))),
            // The environ's server name and port may not be empty (PEP 3333).
            Address::Unix(_) | Address::Abstract(_) => (false, format!("{} 80", server_name(""))),
        };
        Ok(Self { fd, is_tcp, is_direct: is_direct(address), server })
    }

    /// Whether its clients have IP addresses.
    pub(crate) fn is_tcp(&self) -> bool {
        self.is_tcp
    }

    /// Whether clients of other machines connect here themselves: whatever connects to a loopback address or a unix socket
    /// is a proxy.
    pub(crate) fn is_direct(&self) -> bool {
        self.is_direct
    }

    /// The next connection, and the text of its [`Peer`]. `None` when nobody waits.
    ///
    /// # Errors
    /// When the system is out of descriptors or memory: the connection stays in the backlog.
    pub(crate) fn accept(&self) -> io::Result<Option<(OwnedFd, String)>> {
        let Some((socket, from)) = accept(&self.fd)? else { return Ok(None) };
        let client = if self.is_tcp { from.and_then(ip_of) } else { None };
        let peer = Peer::text(client, &self.server);
        Ok(Some((socket, peer)))
    }
}

/// The next connection, non-blocking and closed on exec, and its other end's address. `None` when nobody waits.
///
/// # Errors
/// When the system is out of descriptors or memory.
pub(crate) fn accept(listener: impl AsFd) -> io::Result<Option<(OwnedFd, Option<SocketAddrAny>)>> {
    loop {
        match acceptfrom_with(&listener, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
            Ok(accepted) => return Ok(Some(accepted)),
            Err(Errno::AGAIN) => return Ok(None),
            // A client that gave up while it waited is skipped.
            Err(Errno::INTR | Errno::CONNABORTED | Errno::PROTO) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn is_direct(address: &Address) -> bool {
    match address {
        Address::Tcp { host, .. } => match host.parse::<IpAddr>() {
            Ok(ip) => !ip.to_canonical().is_loopback(),
            Err(_) => host != "localhost",
        },
        Address::Unix(_) | Address::Abstract(_) => false,
    }
}

fn ip_of(address: SocketAddrAny) -> Option<(IpAddr, u16)> {
    let address = std::net::SocketAddr::try_from(address).ok()?;
    Some((address.ip(), address.port()))
}

/// The client's address in a peer's text.
pub(crate) fn client_of(peer: &str) -> &str {
    match peer.split(' ').next() {
        Some("") | None => "a client",
        Some(address) => address,
    }
}

/// The name for an address that is no particular one: the machine's, as uWSGI has it.
fn server_name(host: &str) -> String {
    if !matches!(host, "" | "0.0.0.0" | "::") {
        return host.to_owned();
    }
    let name = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    name.filter(|name| !name.is_empty()).unwrap_or_else(|| "localhost".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    fn tcp(host: &str) -> Option<(Listener, u16)> {
        let listener = TcpListener::bind((host, 0)).ok()?;
        let port = listener.local_addr().unwrap().port();
        Some((Listener::new(listener.into(), &Address::Tcp { host: host.into(), port }).unwrap(), port))
    }

    #[test]
    fn a_client_of_ipv4_has_the_same_address_at_a_socket_for_both_versions() {
        let (listener, port) = tcp("127.0.0.1").unwrap();
        assert!(listener.accept().unwrap().is_none());
        let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let own = client.local_addr().unwrap().port();
        let (_, peer) = listener.accept().unwrap().unwrap();
        assert_eq!(peer, format!("127.0.0.1 {own} 127.0.0.1 {port}"));

        // A machine without IPv6 has no such socket.
        let Some((listener, port)) = tcp("::") else { return };
        let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let own = client.local_addr().unwrap().port();
        let (_, peer) = listener.accept().unwrap().unwrap();
        assert!(peer.starts_with(&format!("127.0.0.1 {own} ")), "{peer}");
    }

    #[test]
    fn a_client_without_an_address_has_a_name_in_the_log() {
        assert_eq!(client_of("10.0.0.1 5 host 80"), "10.0.0.1");
        assert_eq!(client_of("  host 80"), "a client");
    }

    #[test]
    fn connections_that_were_reset_in_the_backlog_need_no_room_on_the_stack() {
        const CLIENTS: usize = 2_000;
        let (listener, port) = tcp("127.0.0.1").unwrap();
        // As long as the system allows.
        nix::sys::socket::listen(&listener.fd, nix::sys::socket::Backlog::new(4096).unwrap()).unwrap();
        for _ in 0..CLIENTS {
            let client = TcpStream::connect(("127.0.0.1", port)).unwrap();
            super::super::close::reset_on_close(&client);
        }
        let small = std::thread::Builder::new().stack_size(64 * 1024);
        let taken = small.spawn(move || {
            while let Some(connection) = listener.accept().unwrap() {
                drop(connection);
            }
        });
        taken.unwrap().join().unwrap();
    }

    #[test]
    fn clients_connect_themselves_to_what_other_machines_reach() {
        for (address, is_ours) in [
            (":80", true),
            ("0.0.0.0:80", true),
            ("192.0.2.1:80", true),
            ("[::]:80", true),
            ("example.org:80", true),
            ("127.0.0.1:80", false),
            ("127.1.2.3:80", false),
            ("[::1]:80", false),
            ("[::ffff:127.0.0.1]:80", false),
            ("localhost:80", false),
            ("/run/app.sock", false),
            ("@app", false),
        ] {
            assert_eq!(is_direct(&address.parse().unwrap()), is_ours, "{address}");
        }
    }
}
