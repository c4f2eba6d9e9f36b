//! What a worker reports to the master: that it serves, and that it has served as many requests as it may.

use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use anyhow::Context;
use tracing::{info, warn};

use crate::ids::{ChildId, WorkerId};
use crate::ipc::Notice;
use rwsgi_config::Config;

/// The pipe to the master, and the count that is compared with `max-requests`.
pub(super) struct Notices {
    pipe: std::fs::File,
    child: ChildId,
    served: AtomicU64,
    /// Requests after which the master is notified; 0 for never.
    limit: u64,
}

impl Notices {
    /// For `worker`, whom the master knows as `child`; `pipe` leads to the master.
    pub(super) fn new(pipe: OwnedFd, worker: WorkerId, child: ChildId, config: &Config) -> anyhow::Result<Self> {
        let limit = match config.max_requests {
            0 => 0,
            limit => limit.saturating_add(config.max_requests_delta.saturating_mul((worker.get() - 1).into())),
        };
        Ok(Self { pipe: pipe.into(), child, served: AtomicU64::new(0), limit })
    }

    /// The pipe's descriptor.
    pub(super) fn as_raw_fd(&self) -> RawFd {
        self.pipe.as_raw_fd()
    }

    /// The pipe.
    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.pipe.as_fd()
    }

    /// Notifies the master that this worker serves.
    pub(super) fn tell_ready(&self) -> anyhow::Result<()> {
        let sent = (&self.pipe).write_all(&Notice::Ready(self.child).encode());
        sent.context("cannot notify the master that the worker is ready")
    }

    /// A request was served. The worker goes on serving until the master has replaced it. It asks again after as many
    /// requests: it may have asked while a canary was to replace it, which was undone.
    #[inline]
    pub(super) fn count(&self) {
        if self.limit != 0 && (self.served.fetch_add(1, Relaxed) + 1).is_multiple_of(self.limit) {
            self.tell_enough();
        }
    }

    /// The application has raised what `reload-on-exception` names.
    #[cold]
    pub(super) fn tell_raised(&self, kind: &str) {
        info!("reload-on-exception: the application has raised {kind}");
        if let Err(error) = (&self.pipe).write_all(&Notice::Raised(self.child).encode()) {
            warn!("reload-on-exception: the master cannot be notified: {error}: the worker goes on");
        }
    }

    /// The master is to look at the requests in progress, or at slow ones that have ended.
    #[cold]
    pub(super) fn tell_slow(&self) {
        if let Err(error) = (&self.pipe).write_all(&Notice::Slow(self.child).encode()) {
            warn!("slow-request: the master cannot be notified: {error}");
        }
    }

    #[cold]
    fn tell_enough(&self) {
        if let Err(error) = (&self.pipe).write_all(&Notice::Enough(self.child).encode()) {
            warn!("max-requests: the master cannot be notified: {error}: the worker goes on");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn a_worker_that_goes_on_after_max_requests_asks_again() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let config = Config { max_requests: 2, ..Config::default() };
        let notices = Notices::new(writer.into(), WorkerId::FIRST, ChildId::new(7), &config).unwrap();
        (0..5).for_each(|_| notices.count());
        drop(notices);
        let mut sent = Vec::new();
        reader.read_to_end(&mut sent).unwrap();
        assert_eq!(sent, Notice::Enough(ChildId::new(7)).encode().repeat(2));
    }
}
