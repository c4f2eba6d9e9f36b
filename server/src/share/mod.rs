//! Everything that lies between the processes: the board, the caches, the mules' queues. The master makes it at its
//! start, so that it outlives every other process and every reload.

mod board;
pub(crate) mod cache;
mod mutex;
mod parts;
mod peers;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use anyhow::Context;
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, send, setsockopt, socketpair, sockopt};
use rwsgi_stats::Snapshot;
use tracing::warn;

pub(crate) use self::board::{Board, Metric};
use self::cache::{Cache, How};
pub(crate) use self::mutex::{Guard, Mutex};
pub(crate) use self::peers::PeerQueue;
use crate::ipc::ShareDescriptors;
use crate::ipc::inherit::InheritedFd;
use rwsgi_config::Between;

/// See the module.
#[derive(Debug)]
pub(crate) struct Share {
    /// Locks and metrics.
    pub(crate) board: Board,
    /// In the order of the configuration.
    pub(crate) caches: Vec<Cache>,
    /// The mules' queues: that of all, one for each mule, one for each farm.
    pub(crate) queues: Vec<MuleQueue>,
    /// Connections that a worker hands over to another; `None` where none has any to hand over.
    pub(crate) peers: Option<PeerQueue>,
}

/// Messages that wait for a mule. The kernel keeps them as long as the master runs.
#[derive(Debug)]
pub(crate) struct MuleQueue {
    /// Where they go in.
    pub(crate) entry: OwnedFd,
    /// Where they come out.
    pub(crate) exit: OwnedFd,
}

/// The queue that every mule takes from.
pub(crate) const ANY_MULE: usize = 0;
/// What may wait in a queue, bytes; the system may grant less.
const QUEUE: usize = 1 << 20;

impl Share {
    /// Makes it; with a queue of connections when workers hand over theirs.
    ///
    /// # Errors
    /// When the system has no memory or descriptors left.
    pub(crate) fn create(between: &Between, has_peers: bool) -> anyhow::Result<Self> {
        let mules = between.mules.len();
        let queues = if mules == 0 { 0 } else { 1 + mules + between.farms.len() };
        let cache = |shape| Cache::create(shape).with_context(|| format!("cache2: cannot make '{}'", shape.name));
        let made = Self {
            board: Board::create(between).context("cannot make the locks and metrics")?,
            caches: between.caches.iter().map(cache).collect::<Result<_, _>>()?,
            queues: (0..queues)
                .map(|_| MuleQueue::create())
                .collect::<Result<_, _>>()
                .context("cannot make the mules' queues")?,
            peers: has_peers.then(PeerQueue::create).transpose().context("cannot make the workers' queue")?,
        };
        made.fill(between);
        Ok(made)
    }

    /// Puts what is configured into the caches. What cannot be put is a warning, as in uWSGI.
    fn fill(&self, between: &Between) {
        for item in &between.items {
            let value = match &item.value {
                Some(value) => Ok(value.clone().into_bytes()),
                None => std::fs::read(&item.key),
            };
            let value = match value {
                Ok(value) => value,
                Err(error) => {
                    warn!("load-file-in-cache: cannot read '{}': {error}", item.key);
                    continue;
                }
            };
            let named = |cache: &&Cache| item.cache.as_ref().is_none_or(|name| *name == cache.shape().name);
            for cache in self.caches.iter().filter(named) {
                if !matches!(cache.set(item.key.as_bytes(), &value, 0, How::New), Ok(true)) {
                    let name = &cache.shape().name;
                    warn!(
                        "cache '{name}': '{}' cannot be put there: it is there, too large, or the cache is full",
                        item.key
                    );
                }
            }
        }
    }

    /// For a process that is about to be started; `inherit` makes a copy of a descriptor that it inherits.
    ///
    /// # Errors
    /// When `inherit` fails.
    pub(crate) fn descriptors(
        &self,
        inherit: impl Fn(BorrowedFd<'_>) -> nix::Result<InheritedFd>,
    ) -> nix::Result<ShareDescriptors> {
        let queue = |queue: &MuleQueue| Ok((inherit(queue.entry.as_fd())?, inherit(queue.exit.as_fd())?));
        Ok(ShareDescriptors {
            board: inherit(self.board.file())?,
            caches: self.caches.iter().map(|cache| inherit(cache.file())).collect::<nix::Result<_>>()?,
            queues: self.queues.iter().map(queue).collect::<nix::Result<_>>()?,
            peers: self.peers.as_ref().map(|peers| peers.descriptors(&inherit)).transpose()?,
        })
    }

    /// Takes what the master made.
    ///
    /// # Errors
    /// When it cannot be mapped.
    pub(crate) fn take(descriptors: &mut ShareDescriptors, between: &Between) -> anyhow::Result<Self> {
        let caches = descriptors.caches.iter_mut().zip(&between.caches);
        let queue =
            |(entry, exit): &mut (InheritedFd, InheritedFd)| Ok(MuleQueue { entry: entry.take()?, exit: exit.take()? });
        Ok(Self {
            board: Board::map(descriptors.board.take()?, between)?,
            caches: caches.map(|(fd, shape)| Ok(Cache::map(fd.take()?, shape)?)).collect::<anyhow::Result<_>>()?,
            queues: descriptors.queues.iter_mut().map(queue).collect::<anyhow::Result<_>>()?,
            peers: descriptors.peers.as_mut().map(PeerQueue::inherited).transpose()?,
        })
    }
}

impl Share {
    /// Puts a message into the queue of a mule; 0 is any, and so is a number that there is not, as with uWSGI. Without
    /// mules nothing is sent.
    ///
    /// # Errors
    /// When the queue is full.
    pub(crate) fn send_to_mule(&self, number: u32, message: &[u8]) -> nix::Result<()> {
        let Some(queue) = self.queues.get(number as usize).or_else(|| self.queues.get(ANY_MULE)) else { return Ok(()) };
        send(queue.entry.as_raw_fd(), message, MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT).map(drop)
    }

    /// Adds what is known of it to a snapshot. Waits for nobody.
    pub(crate) fn describe(&self, between: &Between, snapshot: &mut Snapshot) {
        let locks = (0..).map_while(|number| Some((number, self.board.lock(number)?)));
        snapshot.locks = locks.map(|(number, lock)| [(format!("user {number}"), lock.owner().into())].into()).collect();
        snapshot.caches = self
            .caches
            .iter()
            .map(|cache| {
                let (shape, counts) = (cache.shape(), cache.counts());
                rwsgi_stats::Cache {
                    name: shape.name.clone(),
                    hash: "fnv1a".into(),
                    hashsize: shape.hashsize.into(),
                    keysize: shape.keysize.into(),
                    max_items: shape.items.into(),
                    blocks: shape.blocks.into(),
                    blocksize: shape.blocksize,
                    items: counts.items,
                    hits: counts.hits,
                    miss: counts.misses,
                    full: counts.full,
                    last_modified_at: counts.changed,
                }
            })
            .collect();
        let metrics = between.metrics.iter().enumerate().map(|(index, metric)| {
            let value = self.board.metric(index).get();
            (metric.name.clone(), rwsgi_stats::Metric { kind: metric.kind, oid: metric.oid.clone(), value })
        });
        snapshot.metrics = metrics.collect();
    }
}

impl MuleQueue {
    fn create() -> nix::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (entry, exit) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        // More space than the default, as far as the system allows it.
        if setsockopt(&entry, sockopt::SndBufForce, &QUEUE).is_err() {
            setsockopt(&entry, sockopt::SndBuf, &QUEUE)?;
        }
        Ok(Self { entry, exit })
    }
}
