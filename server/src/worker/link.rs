//! The worker's side of the links to the router: one connection per thread, made again when the router was started
//! again.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::AcqRel;
use std::time::Duration;

use anyhow::Context;
use tracing::warn;

use super::connection::{Connection, Wait};
use super::kind::Kind;
use super::lane::Lane;
use super::state::Worker;
use super::upgrade::{UpgradePath, say_hello};
use super::worker_thread::WorkerThread;
use crate::ids::ThreadIndex;
use crate::io::pace::MinRates;
use crate::ipc::LinkEndpoint;
use nix::sys::epoll::{EpollEvent, EpollFlags};
use rwsgi_protocol::link::{Hello, Purpose};

/// The longest wait for the router to read a response: it reads nothing while its client is slow and there is no space to
/// keep the response.
const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);

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
        connection.link.lane = Some(Box::new(Lane::new(endpoint.name.clone(), hello)));
        if self.worker.config.websockets.over_http {
            let hello = Hello { purpose: Purpose::TakeClient, ..hello };
            let handed_over = Arc::clone(&self.worker.handed_over);
            connection.link.upgrade = Some(Box::new(UpgradePath::new(endpoint.name.clone(), hello, handed_over)));
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
