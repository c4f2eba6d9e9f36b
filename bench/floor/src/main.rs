//! The floor of the benchmark: an epoll loop that answers whatever it reads with one fixed response, without looking at
//! it, and without Python. A server spends on a request at least what this does.
//!
//! It is not a server: a request that comes in two pieces gets two answers.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Type: text/plain\r\n\
    Content-Length: 12\r\n\r\nHello World\n";
/// Which event is the listener's; connections have their descriptors.
const LISTENER: u64 = u64::MAX;

fn main() -> std::io::Result<()> {
    let Some(address) = std::env::args().nth(1) else {
        return Err(std::io::Error::other("usage: rwsgi-bench-floor HOST:PORT"));
    };
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;

    let mut connections: HashMap<u64, TcpStream> = HashMap::new();
    let mut events = [EpollEvent::empty(); 256];
    let mut buffer = [0; 16384];
    loop {
        let ready = epoll.wait(&mut events, EpollTimeout::NONE)?;
        for event in &events[..ready] {
            if event.data() == LISTENER {
                accept(&listener, &epoll, &mut connections)?;
            } else if let Some(connection) = connections.get_mut(&event.data())
                && !answer(connection, &mut buffer)
            {
                connections.remove(&event.data());
            }
        }
    }
}

fn accept(listener: &TcpListener, epoll: &Epoll, connections: &mut HashMap<u64, TcpStream>) -> std::io::Result<()> {
    loop {
        match listener.accept() {
            Ok((connection, _)) => {
                connection.set_nonblocking(true)?;
                connection.set_nodelay(true)?;
                let id = u64::from(connection.as_raw_fd().unsigned_abs());
                epoll.add(&connection, EpollEvent::new(EpollFlags::EPOLLIN, id))?;
                connections.insert(id, connection);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// Whether the connection goes on.
fn answer(connection: &mut TcpStream, buffer: &mut [u8]) -> bool {
    match connection.read(buffer) {
        Ok(0) => false,
        Ok(_) => connection.write_all(RESPONSE).is_ok(),
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    }
}
