//! The worker's side of the links to the router: one connection per thread, made again when the router was started
//! again.

use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::sync::Arc;
use std::sync::atomic::Ordering::AcqRel;
use std::time::Duration;

use anyhow::Context;
use tracing::warn;

use super::connection::{Connection, Wait};
use super::kind::Kind;
use super::release::HandedOver;
use super::state::Worker;
use super::worker_thread::WorkerThread;
use crate::ids::ThreadIndex;
use crate::io::pace::MinRates;
use crate::io::pass_fd::receive_fd;
use crate::ipc::LinkEndpoint;
use nix::sys::epoll::{EpollEvent, EpollFlags};
use rwsgi_protocol::link::{Hello, Purpose};

/// The longest wait for the router to read a response: it reads nothing while its client is slow and there is no space to
/// keep the response.
const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);
/// The longest wait for the router to hand a client over.
const HAND_OVER: Duration = Duration::from_secs(5);

impl Worker {
    /// A thread's link is gone; it is made again at the next sweep.
    pub(super) fn lose_link(&self, thread: ThreadIndex) {
        self.lost_links.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(thread);
    }
}

impl WorkerThread {
    /// Connects this thread to the router, if there is one.
    pub(super) fn link_to_router(&mut self) {
        if self.worker.link.is_some() {
            self.worker.lose_link(self.id);
            self.link_again();
        }
    }

    /// Makes the links again that were lost.
    pub(super) fn link_again(&mut self) {
        let Some(endpoint) = &self.worker.link else { return };
        let lost = {
            let mut lost = self.worker.lost_links.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            std::mem::take(&mut *lost)
        };
        for thread in lost {
            if let Err(failure) = self.connect(endpoint, thread) {
                warn!("thread {thread}: {failure:#}; trying again");
                self.worker.lose_link(thread);
            }
        }
    }

    fn connect(&self, endpoint: &LinkEndpoint, thread: ThreadIndex) -> anyhow::Result<()> {
        let (worker, slot) = (self.worker.id, self.worker.slot.get());
        let hello = Hello { purpose: Purpose::Serve, worker, thread: thread.get(), slot, token: endpoint.token };
        let stream = say_hello(&endpoint.name, hello)?;
        stream.set_nonblocking(true)?;
        let mut connection =
            Connection::new(OwnedFd::from(stream), Kind::Link(thread), String::new(), FOREVER, MinRates::NONE);
        connection.armed = Some(Wait::Read);
        if self.worker.config.websockets.over_http {
            let hello = Hello { purpose: Purpose::TakeClient, ..hello };
            let handed_over = Arc::clone(&self.worker.handed_over);
            connection.link.upgrade = Some(Box::new(UpgradePath { router: endpoint.name.clone(), hello, handed_over }));
        }
        let (fd, socket) = (connection.fd(), Arc::clone(&connection.socket));
        if self.worker.connections.put(fd, connection).is_err() {
            anyhow::bail!("descriptor {fd} is beyond what a worker can hold");
        }
        self.worker.open.fetch_add(1, AcqRel);
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP;
        let flags = if self.worker.one_shot() { flags | EpollFlags::EPOLLONESHOT } else { flags };
        self.worker.epoll.add(&*socket, EpollEvent::new(flags, fd as u64)).context("cannot watch the link")?;
        Ok(())
    }
}

/// Connects to the router and says who this is.
fn say_hello(router: &str, hello: Hello) -> anyhow::Result<UnixStream> {
    let address = SocketAddr::from_abstract_name(router)?;
    let mut stream = UnixStream::connect_addr(&address).context("cannot connect to the http router")?;
    stream.write_all(&hello.encode()).context("cannot send the hello to the http router")?;
    Ok(stream)
}

/// How a link's client comes to be the worker's: the router hands its connection over.
pub(super) struct UpgradePath {
    /// The router's abstract name.
    router: String,
    hello: Hello,
    handed_over: Arc<HandedOver>,
}

impl UpgradePath {
    /// The connection of the client whose request this thread serves.
    ///
    /// # Errors
    /// When the router is gone, or refuses.
    pub(super) fn take_client(&self) -> io::Result<OwnedFd> {
        let stream = say_hello(&self.router, self.hello).map_err(io::Error::other)?;
        stream.set_read_timeout(Some(HAND_OVER))?;
        let refused =
            "the http router does not hand the client's connection over: it sent more than its request, or is gone";
        let client = receive_fd(&stream)?.ok_or_else(|| io::Error::other(refused))?;
        self.handed_over.note(&client);
        Ok(client)
    }
}
