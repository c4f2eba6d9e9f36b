//! The header of the PROXY protocol, versions 1 and 2: what a proxy says of its client before the client's own bytes
//! (<https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt>).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::http::Refusal;

/// The longest header that is taken, bytes. Version 1 has 107 at most; version 2 may have more in it than addresses.
pub const MAX_HEADER: usize = V2_HEAD + 4096;

const V1: &[u8] = b"PROXY ";
const V1_MAX: usize = 107;
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_HEAD: usize = 16;

const MALFORMED: Refusal = Refusal { status: 400, reason: "the PROXY header is malformed" };

/// What a connection begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// No header: the client's own bytes. uWSGI serves it as any other client.
    Plain,
    /// The beginning of a header, or of something that may become one.
    Part,
    /// A header.
    Header {
        /// Its bytes.
        len: usize,
        /// The client, and what it connected to; `None` where the proxy speaks for itself, or of no internet addresses.
        addresses: Option<(SocketAddr, SocketAddr)>,
    },
}

/// Looks at the first bytes of a connection.
///
/// # Errors
/// When it is a header, and malformed or too long.
pub fn parse(bytes: &[u8]) -> Result<Start, Refusal> {
    if begins(bytes, V1) {
        return if bytes.len() < V1.len() { Ok(Start::Part) } else { version_1(bytes) };
    }
    match begins(bytes, V2) {
        true if bytes.len() < V2_HEAD => Ok(Start::Part),
        true => version_2(bytes),
        false => Ok(Start::Plain),
    }
}

/// Whether the two agree as far as both go.
fn begins(bytes: &[u8], with: &[u8]) -> bool {
    let len = bytes.len().min(with.len());
    bytes[..len] == with[..len]
}

fn version_1(bytes: &[u8]) -> Result<Start, Refusal> {
    let within = &bytes[..bytes.len().min(V1_MAX)];
    let Some(end) = within.windows(2).position(|two| two == b"\r\n") else {
        return if bytes.len() >= V1_MAX || within[..within.len() - 1].contains(&b'\n') {
            Err(MALFORMED)
        } else {
            Ok(Start::Part)
        };
    };
    let header = |addresses| Ok(Start::Header { len: end + 2, addresses });
    let line = std::str::from_utf8(&within[V1.len()..end]).map_err(|_| MALFORMED)?;
    let mut words = line.split(' ');
    let is_v4 = match words.next() {
        Some("TCP4") => true,
        Some("TCP6") => false,
        Some("UNKNOWN") => return header(None),
        _ => return Err(MALFORMED),
    };
    let mut word = || words.next().ok_or(MALFORMED);
    let (from, to, from_port, to_port) = (word()?, word()?, word()?, word()?);
    let address = |ip: &str, port: &str| {
        let ip: IpAddr = ip.parse().ok().filter(|ip: &IpAddr| ip.is_ipv4() == is_v4)?;
        let digits = port.bytes().all(|byte| byte.is_ascii_digit());
        Some(SocketAddr::new(ip, port.parse().ok().filter(|_| digits)?))
    };
    match (address(from, from_port), address(to, to_port), words.next()) {
        (Some(from), Some(to), None) => header(Some((from, to))),
        _ => Err(MALFORMED),
    }
}

fn version_2(bytes: &[u8]) -> Result<Start, Refusal> {
    let (version, command) = (bytes[12] >> 4, bytes[12] & 15);
    let rest = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    let len = V2_HEAD + rest;
    if version != 2 || command > 1 || len > MAX_HEADER {
        return Err(MALFORMED);
    }
    let Some(rest) = bytes.get(V2_HEAD..len) else { return Ok(Start::Part) };
    let is_local = command == 0;
    let addresses = match bytes[13] >> 4 {
        _ if is_local => None,
        1 => {
            let rest: &[u8; 12] = rest.first_chunk().ok_or(MALFORMED)?;
            let [a, b, c, d, e, f, g, h, ports @ ..] = *rest;
            Some(pair(Ipv4Addr::new(a, b, c, d).into(), Ipv4Addr::new(e, f, g, h).into(), ports))
        }
        2 => {
            let (from, rest) = rest.split_first_chunk::<16>().ok_or(MALFORMED)?;
            let (to, rest) = rest.split_first_chunk::<16>().ok_or(MALFORMED)?;
            let ports = rest.first_chunk().ok_or(MALFORMED)?;
            Some(pair(Ipv6Addr::from(*from).into(), Ipv6Addr::from(*to).into(), *ports))
        }
        // Unix sockets, and what is not said.
        _ => None,
    };
    Ok(Start::Header { len, addresses })
}

fn pair(from: IpAddr, to: IpAddr, [a, b, c, d]: [u8; 4]) -> (SocketAddr, SocketAddr) {
    (SocketAddr::new(from, u16::from_be_bytes([a, b])), SocketAddr::new(to, u16::from_be_bytes([c, d])))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn v1(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
        let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
        format!("PROXY {family} {} {} {} {}\r\n", from.ip(), to.ip(), from.port(), to.port()).into_bytes()
    }

    fn v2(from: SocketAddr, to: SocketAddr, extra: &[u8]) -> Vec<u8> {
        let octets = |address: SocketAddr| match address.ip() {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let ports = [from.port().to_be_bytes(), to.port().to_be_bytes()].concat();
        let rest = [octets(from), octets(to), ports, extra.to_vec()].concat();
        let family = if from.is_ipv4() { 0x11 } else { 0x21 };
        [V2, &[0x21, family], &(rest.len() as u16).to_be_bytes(), &rest].concat()
    }

    #[test]
    fn what_proxies_send_is_understood() {
        let header = |bytes: &[u8], from: Option<&str>| {
            let Start::Header { len, addresses } = parse(bytes).unwrap() else { panic!("{bytes:?}") };
            assert_eq!(addresses.map(|(from, _)| from), from.map(|from| from.parse().unwrap()));
            len
        };
        let line = b"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n";
        assert_eq!(header(&[line, &b"GET / HTTP/1.1\r\n"[..]].concat(), Some("192.0.2.1:56324")), line.len());
        header(b"PROXY TCP6 2001:db8::1 ::1 5 80\r\n", Some("[2001:db8::1]:5"));
        header(b"PROXY UNKNOWN\r\n", None);
        header(b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None);
        // A health check of the proxy itself, and a client of a unix socket.
        header(&[V2, &[0x20, 0, 0, 0]].concat(), None);
        header(&[V2, &[0x21, 0x31, 0, 2, 0, 0]].concat(), None);
    }

    #[test]
    fn what_is_no_header_is_the_clients_own_and_a_broken_one_is_refused() {
        for plain in
            ["GET / HTTP/1.1\r\n", "PROPFIND / HTTP/1.1\r\n", "PROXYX / HTTP/1.1\r\n", "\r\n\r\nGET /", "\x16\x03"]
        {
            assert_eq!(parse(plain.as_bytes()), Ok(Start::Plain), "{plain}");
        }
        for part in
            ["", "P", "PROXY", "PROXY ", "PROXY TCP4 1.2.3.4", "PROXY UNKNOWN\r", "\r\n\r\n\0", "\r\n\r\n\0\r\nQUIT\n!"]
        {
            assert_eq!(parse(part.as_bytes()), Ok(Start::Part), "{part:?}");
        }
        for broken in [
            "PROXY TCP4 1.2.3.4 1.2.3.4 1\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 2 3\r\n",
            "PROXY TCP4 ::1 ::1 1 2\r\n",
            "PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 70000 2\r\n",
            "PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n",
            "PROXY TCP4 1.2.3.4 1.2.3.4 1 2\nGET",
            "PROXY / HTTP/1.1\r\n",
            "\r\n\r\n\0\r\nQUIT\n\x31\x11\0\0",
            "\r\n\r\n\0\r\nQUIT\n\x22\x11\0\0",
            "\r\n\r\n\0\r\nQUIT\n\x21\x11\0\0",
            "\r\n\r\n\0\r\nQUIT\n\x21\x11\x7f\x7f",
        ] {
            assert_eq!(parse(broken.as_bytes()), Err(MALFORMED), "{broken:?}");
        }
        assert_eq!(parse(format!("PROXY UNKNOWN {}\r\n", "x".repeat(100)).as_bytes()), Err(MALFORMED));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), version in 0..3) {
            let start: &[u8] = match version { 1 => V1, 2 => V2, _ => b"" };
            let _ = parse(&[start, &bytes].concat());
        }

        #[test]
        fn a_header_comes_back_whole_and_is_a_part_wherever_it_is_cut(
            from in any::<SocketAddr>(),
            to in any::<SocketAddr>(),
            extra in prop::collection::vec(any::<u8>(), 0..40),
            behind in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            // Flow labels and scopes are not in headers.
            let [from, to] = [from, to].map(|address| SocketAddr::new(address.ip(), address.port()));
            prop_assume!(from.is_ipv4() == to.is_ipv4());
            for header in [v1(from, to), v2(from, to, &extra)] {
                let bytes = [&header[..], &behind].concat();
                prop_assert_eq!(parse(&bytes), Ok(Start::Header { len: header.len(), addresses: Some((from, to)) }));
                for cut in 0..header.len() {
                    prop_assert_eq!(parse(&header[..cut]), Ok(Start::Part), "{}", cut);
                }
            }
        }
    }
}
