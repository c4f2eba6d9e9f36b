//! How many connections wait in a listening socket's accept queue, as the kernel reports.
//!
//! TCP reports it through `TCP_INFO` (what `ss` shows as Recv-Q and Send-Q), unix sockets through the kernel's socket
//! diagnosis (`sock_diag(7)`). What a full queue turned away is known for each TCP socket (`SO_MEMINFO`); of a unix
//! socket nothing is ever turned away: the client waits, or gets an error at once.

#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket};
use nix::sys::stat::fstat;
use rwsgi_stats::Address;

/// A listening socket's accept queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Connections that wait to be accepted.
    pub depth: u32,
    /// The most that may wait: what `listen` asked for, as far as the system allows.
    pub capacity: u32,
    /// Attempts to connect that were dropped, mostly because the queue was full. A client that tries again is counted
    /// again.
    pub dropped: u32,
    /// The kernel keeps clients until their first byte (`TCP_DEFER_ACCEPT`). What they send before it, which is nothing but
    /// that they are there, counts as dropped, too: see [`super::drops`].
    pub is_deferred: bool,
}

/// Reads backlogs. Holds the socket to the kernel's diagnosis, once a unix socket was asked about.
#[derive(Debug, Default)]
pub struct Backlogs {
    diagnosis: Option<OwnedFd>,
}

impl Backlogs {
    /// The accept queue of `listener`, which is bound to `address`.
    ///
    /// # Errors
    /// When the kernel does not say: `listener` does not listen, or the kernel has no diagnosis of unix sockets.
    pub fn read(&mut self, address: &Address, listener: BorrowedFd<'_>) -> nix::Result<Backlog> {
        match address {
            Address::Tcp { .. } => tcp(listener),
            Address::Unix(_) | Address::Abstract(_) => {
                let diagnosis = match self.diagnosis.take() {
                    Some(open) => open,
                    None => socket(
                        AddressFamily::Netlink,
                        SockType::Raw,
                        SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
                        SockProtocol::NetlinkSockDiag,
                    )?,
                };
                let backlog = unix(&diagnosis, listener)?;
                // Kept only after a good answer: one that came too late must not answer the next question.
                self.diagnosis = Some(diagnosis);
                Ok(backlog)
            }
        }
    }
}

fn tcp(listener: BorrowedFd<'_>) -> nix::Result<Backlog> {
    // Of a listening socket, `tcpi_unacked` and `tcpi_sacked` are the accept queue's depth and capacity.
    let info: libc::tcp_info = socket_option(listener, libc::IPPROTO_TCP, libc::TCP_INFO)?;
    if info.tcpi_state != TCP_LISTEN {
        return Err(Errno::EINVAL);
    }
    let memory: [u32; SK_MEMINFO_VARS] = socket_option(listener, libc::SOL_SOCKET, libc::SO_MEMINFO)?;
    let deferred = socket_option::<libc::c_int>(listener, libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT);
    Ok(Backlog {
        depth: info.tcpi_unacked,
        capacity: info.tcpi_sacked,
        dropped: memory[SK_MEMINFO_DROPS],
        is_deferred: deferred.is_ok_and(|seconds| seconds != 0),
    })
}

/// `include/net/tcp_states.h`.
const TCP_LISTEN: u8 = 10;
/// `linux/sock_diag.h`: length of the `SO_MEMINFO` array, and where the drops are in it.
const SK_MEMINFO_VARS: usize = 9;
const SK_MEMINFO_DROPS: usize = 8;

/// Plain data that any bytes are a value of.
trait Plain: Copy {}
impl Plain for libc::c_int {}
impl Plain for libc::tcp_info {}
impl Plain for [u32; SK_MEMINFO_VARS] {}

fn socket_option<T: Plain>(fd: BorrowedFd<'_>, level: i32, name: i32) -> nix::Result<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` has space for `len` bytes, and the kernel writes no more than `len`.
    let result = unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, value.as_mut_ptr().cast(), &raw mut len) };
    Errno::result(result)?;
    // SAFETY: zeroed before, and any bytes are a `T`: an older kernel that writes less leaves zeros.
    Ok(unsafe { value.assume_init() })
}

/// `linux/netlink.h`, `linux/sock_diag.h`, `linux/unix_diag.h`.
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const UDIAG_SHOW_RQLEN: u32 = 0x10;
const UNIX_DIAG_RQLEN: u16 = 4;
const NETLINK_HEADER: usize = 16;
const REQUEST: usize = NETLINK_HEADER + 24;
const ANSWER: usize = NETLINK_HEADER + 16;

fn unix(diagnosis: &OwnedFd, listener: BorrowedFd<'_>) -> nix::Result<Backlog> {
    let inode = fstat(listener)?.st_ino as u32;
    let any_cookie = u32::MAX;
    let every_state = u32::MAX;
    let family = u32::from_ne_bytes([libc::AF_UNIX as u8, 0, 0, 0]);
    let mut request = Vec::with_capacity(REQUEST);
    request.extend_from_slice(&(REQUEST as u32).to_ne_bytes());
    request.extend_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    for word in [0, 0, family, every_state, inode, UDIAG_SHOW_RQLEN, any_cookie, any_cookie] {
        request.extend_from_slice(&word.to_ne_bytes());
    }
    sendto(diagnosis.as_raw_fd(), &request, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    // The kernel answers before `sendto` returns.
    let mut answer = [0; 512];
    let len = recv(diagnosis.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT)?;
    parse_unix(&answer[..len.min(answer.len())], inode)
}

fn parse_unix(answer: &[u8], inode: u32) -> nix::Result<Backlog> {
    let u16_at = |at: usize| answer.get(at..at + 2).map(|b| u16::from_ne_bytes([b[0], b[1]])).ok_or(Errno::EBADMSG);
    let u32_at =
        |at: usize| answer.get(at..at + 4).map(|b| u32::from_ne_bytes([b[0], b[1], b[2], b[3]])).ok_or(Errno::EBADMSG);
    if u16_at(4)? != SOCK_DIAG_BY_FAMILY {
        // An error message carries the negated error number.
        return Err(Errno::from_raw(-(u32_at(NETLINK_HEADER)? as i32)));
    }
    if u32_at(NETLINK_HEADER + 4)? != inode {
        return Err(Errno::EBADMSG);
    }
    let mut at = ANSWER;
    while at + 4 <= answer.len() {
        let len = usize::from(u16_at(at)?);
        if u16_at(at + 2)? == UNIX_DIAG_RQLEN {
            return Ok(Backlog { depth: u32_at(at + 4)?, capacity: u32_at(at + 8)?, ..Backlog::default() });
        }
        at += len.max(4).next_multiple_of(4);
    }
    Err(Errno::EBADMSG)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
    use std::time::{Duration, Instant};

    use nix::sys::socket::listen;

    fn until(condition: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !condition() {
            assert!(Instant::now() < deadline, "not within ten seconds");
            std::thread::yield_now();
        }
    }

    fn address(text: &str) -> Address {
        text.parse().unwrap()
    }

    #[test]
    fn tcp_connections_that_nobody_accepts_are_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listen(&listener, nix::sys::socket::Backlog::new(17).unwrap()).unwrap();
        let local = listener.local_addr().unwrap();
        let read = || Backlogs::default().read(&address(&local.to_string()), listener.as_fd()).unwrap();
        assert_eq!(read(), Backlog { depth: 0, capacity: 17, ..Backlog::default() });
        let _waiting = [TcpStream::connect(local).unwrap(), TcpStream::connect(local).unwrap()];
        // A connection is there for its client a moment before it is in the queue.
        until(|| read().depth == 2);
        drop(listener.accept().unwrap());
        assert_eq!(read().depth, 1);
    }

    #[test]
    fn what_a_full_tcp_queue_turns_away_is_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listen(&listener, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
        let local = listener.local_addr().unwrap();
        let read = || Backlogs::default().read(&address(&local.to_string()), listener.as_fd()).unwrap();
        let _first = TcpStream::connect(local).unwrap();
        until(|| read().depth == 1);
        let second = TcpStream::connect_timeout(&local, Duration::from_millis(50));
        assert!(second.is_err(), "a queue of one took two");
        assert!(read().dropped > 0);
    }

    #[test]
    fn unix_connections_that_nobody_accepts_are_counted() {
        let name = format!("rwsgi-backlog-{}", std::process::id());
        let local = SocketAddr::from_abstract_name(&name).unwrap();
        let listener = UnixListener::bind_addr(&local).unwrap();
        listen(&listener, nix::sys::socket::Backlog::new(9).unwrap()).unwrap();
        let mut backlogs = Backlogs::default();
        let address = address(&format!("@{name}"));
        assert_eq!(
            backlogs.read(&address, listener.as_fd()).unwrap(),
            Backlog { depth: 0, capacity: 9, ..Backlog::default() }
        );
        let _waiting = [(); 3].map(|()| UnixStream::connect_addr(&local).unwrap());
        assert_eq!(backlogs.read(&address, listener.as_fd()).unwrap().depth, 3);
        drop(listener.accept().unwrap());
        assert_eq!(backlogs.read(&address, listener.as_fd()).unwrap().depth, 2);
    }

    #[test]
    fn a_socket_that_does_not_listen_is_an_error() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(Backlogs::default().read(&address("127.0.0.1:1"), stream.as_fd()).is_err());
        let file = std::fs::File::open("/proc/self/stat").unwrap();
        assert!(Backlogs::default().read(&address("/x.sock"), file.as_fd()).is_err());
    }
}
