//! A client that a proxy speaks for: its address in place of the proxy's.

use std::net::SocketAddr;

use rwsgi_protocol::link::Peer;

/// The text of a [`Peer`] with the client's address, and with the port that it connected to if that is to be told.
pub(crate) fn client(peer: &str, from: SocketAddr, to: Option<SocketAddr>) -> String {
    let mut server = peer.splitn(4, ' ').skip(2);
    let (name, port) = (server.next().unwrap_or_default(), server.next().unwrap_or_default());
    let client = Some((from.ip(), from.port()));
    match to {
        Some(to) => Peer::text(client, &format!("{name} {}", to.port())),
        None => Peer::text(client, &format!("{name} {port}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clients_address_takes_the_place_of_the_proxys() {
        let (from, to) = ("192.0.2.1:5".parse().unwrap(), "198.51.100.1:443".parse().unwrap());
        assert_eq!(client("127.0.0.1 40000 web 8000", from, None), "192.0.2.1 5 web 8000");
        assert_eq!(client("  web 80", from, Some(to)), "192.0.2.1 5 web 443");
    }
}
