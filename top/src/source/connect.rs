//! Connecting within a deadline that takes everything in: the name's resolution, and addresses that never answer.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use rwsgi_stats::Address;
use socket2::{Domain, SockAddr, Socket, Type};

use super::SourceError;

/// How long an address has to itself before the next one is tried beside it (RFC 8305).
const HEAD_START: Duration = Duration::from_millis(250);

/// When an attempt has to be over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline {
    end: Instant,
    pub(super) timeout: Duration,
}

impl Deadline {
    pub(super) fn within(timeout: Duration) -> Self {
        Self { end: Instant::now() + timeout, timeout }
    }

    /// What is left of it, no less than what the system takes for a time-out.
    pub(super) fn left(&self) -> Result<Duration, SourceError> {
        let left = self.end.saturating_duration_since(Instant::now());
        // The system takes a time-out of zero for none at all.
        if left < Duration::from_millis(1) { Err(SourceError::TimedOut(self.timeout)) } else { Ok(left) }
    }

    pub(super) fn classify(&self, error: io::Error) -> SourceError {
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => SourceError::TimedOut(self.timeout),
            _ => SourceError::Read(error),
        }
    }
}

type Resolved = io::Result<Vec<SocketAddr>>;

/// Connects to one server again and again.
#[derive(Debug, Default)]
pub(super) struct Connector {
    /// A resolution that was given up, and is still under way: there is never more than one.
    resolving: Option<Receiver<Resolved>>,
    /// The address that answered last, which is tried first.
    good: Option<SocketAddr>,
}

impl Connector {
    pub(super) fn connect(&mut self, address: &Address, deadline: &Deadline) -> Result<Socket, SourceError> {
        match address {
            Address::Tcp { host, port } => {
                let mut addresses = self.resolve(if host.is_empty() { "localhost" } else { host }, *port, deadline)?;
                addresses.sort_by_key(|address| Some(*address) != self.good);
                let (socket, address) = connect_any(&addresses, deadline)?;
                self.good = Some(address);
                Ok(socket)
            }
            Address::Unix(path) => connect_one(&SockAddr::unix(path).map_err(SourceError::Connect)?, deadline),
            // uWSGI binds abstract names with a NUL at their end, which is a part of the name (and may be one too many).
            Address::Abstract(name) => {
                let names = [format!("\0{name}\0"), format!("\0{name}")].map(SockAddr::unix);
                let mut names = names.into_iter().flatten();
                let refused = || SourceError::Connect(io::Error::from(io::ErrorKind::AddrNotAvailable));
                let first = connect_one(&names.next().ok_or_else(refused)?, deadline);
                first.or_else(|error| connect_one(&names.next().ok_or(error)?, deadline))
            }
        }
    }

    /// The addresses of a name. Asking for them may take longer than a server has to answer, so that a thread does it.
    fn resolve(&mut self, host: &str, port: u16, deadline: &Deadline) -> Result<Vec<SocketAddr>, SourceError> {
        if let Ok(ip) = host.parse() {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        let host = host.to_owned();
        self.resolve_by(move || (host, port).to_socket_addrs().map(Iterator::collect), deadline)
    }

    fn resolve_by(
        &mut self,
        ask: impl FnOnce() -> Resolved + Send + 'static,
        deadline: &Deadline,
    ) -> Result<Vec<SocketAddr>, SourceError> {
        let answer = match self.resolving.take() {
            Some(answer) => answer,
            None => {
                let (sender, answer) = mpsc::sync_channel(1);
                let spawned = thread::Builder::new().name("resolve".into()).spawn(move || sender.send(ask()));
                spawned.map_err(SourceError::Resolve)?;
                answer
            }
        };
        match answer.recv_timeout(deadline.left()?) {
            Ok(resolved) => resolved.map_err(SourceError::Resolve),
            Err(RecvTimeoutError::Timeout) => {
                self.resolving = Some(answer);
                Err(SourceError::Unresolved(deadline.timeout))
            }
            Err(RecvTimeoutError::Disconnected) => Err(SourceError::Resolve(io::ErrorKind::Other.into())),
        }
    }
}

/// Connects to the first of the addresses that answers. One that refuses is passed over at once; beside one that says nothing
/// for a while the next is tried.
fn connect_any(addresses: &[SocketAddr], deadline: &Deadline) -> Result<(Socket, SocketAddr), SourceError> {
    let mut last = SourceError::Connect(io::Error::from(io::ErrorKind::AddrNotAvailable));
    // Nearly always the first answers at once, or refuses; threads are for when it does not.
    let mut silent = Vec::new();
    for (place, &address) in addresses.iter().enumerate() {
        let alone = place + 1 == addresses.len() && silent.is_empty();
        let patience = if alone { deadline.left()? } else { HEAD_START.min(deadline.left()?) };
        match connect_within(&address.into(), patience) {
            Ok(socket) => return Ok((socket, address)),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => silent.push(address),
            Err(error) => last = SourceError::Connect(error),
        }
    }
    if silent.is_empty() {
        return Err(last);
    }
    let (sender, connected) = mpsc::channel();
    for address in silent {
        let (sender, left) = (sender.clone(), deadline.left()?);
        let attempt = move || {
            // Nobody waits any more when another was quicker: the connection is closed then.
            let _ = sender.send((connect_within(&address.into(), left), address));
        };
        thread::Builder::new().name("connect".into()).spawn(attempt).map_err(SourceError::Connect)?;
    }
    drop(sender);
    while let Ok((outcome, address)) = connected.recv() {
        match outcome {
            Ok(socket) => return Ok((socket, address)),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => last = SourceError::TimedOut(deadline.timeout),
            Err(error) => last = SourceError::Connect(error),
        }
    }
    Err(last)
}

fn connect_one(address: &SockAddr, deadline: &Deadline) -> Result<Socket, SourceError> {
    connect_within(address, deadline.left()?).map_err(|error| match error.kind() {
        io::ErrorKind::TimedOut => SourceError::TimedOut(deadline.timeout),
        _ => SourceError::Connect(error),
    })
}

fn connect_within(address: &SockAddr, patience: Duration) -> io::Result<Socket> {
    let domain = if address.is_unix() { Domain::UNIX } else { address.domain() };
    let socket = Socket::new(domain, Type::STREAM, None)?;
    socket.connect_timeout(address, patience)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// An address that never answers: as many connections wait there as may.
    fn black_hole() -> (SocketAddr, Vec<Socket>) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let mut kept = vec![socket];
        while let Ok(waiting) = connect_within(&address.into(), Duration::from_millis(100)) {
            kept.push(waiting);
        }
        (address, kept)
    }

    #[test]
    fn an_address_that_never_answers_leaves_time_for_the_next() {
        let (silent, _kept) = black_hole();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let good = listener.local_addr().unwrap();
        for addresses in [&[silent, good][..], &[silent, silent, good], &[good, silent]] {
            let deadline = Deadline::within(Duration::from_secs(30));
            assert_eq!(connect_any(addresses, &deadline).unwrap().1, good);
            assert!(deadline.left().unwrap() > Duration::from_secs(20), "the silent one took it all");
        }
        let error = connect_any(&[silent, silent], &Deadline::within(Duration::from_millis(600))).unwrap_err();
        assert!(matches!(error, SourceError::TimedOut(_)), "{error}");
    }

    #[test]
    fn a_name_that_is_not_resolved_in_time_takes_no_more_than_the_time_out() {
        let mut connector = Connector::default();
        let (asked, done) = mpsc::channel();
        let slow = move || {
            done.recv().unwrap();
            Ok(vec![SocketAddr::from(([127, 0, 0, 1], 9))])
        };
        let error = connector.resolve_by(slow, &Deadline::within(Duration::from_millis(50))).unwrap_err();
        assert!(error.to_string().contains("not resolved within 0.1 s"), "{error}");
        // The question is still open: nothing asks it again, and its answer is taken when it comes.
        asked.send(()).unwrap();
        let never = || unreachable!("asked again");
        let addresses = connector.resolve_by(never, &Deadline::within(Duration::from_secs(20))).unwrap();
        assert_eq!(addresses.len(), 1);
    }
}
