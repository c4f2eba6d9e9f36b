//! The router's end of a thread's lane ([`Purpose::Lane`](rwsgi_protocol::link::Purpose)): memory that both map, for parts
//! of responses of at least 4 kB and requests' bodies of at least 64 kB, and a connection over which descriptors of files
//! come, for responses that are parts of files. The kernel sends these from its page cache.
//!
//! A thread asks for its lane when it first has a use for it. It has 2.2 MB of memory at most, and stays as long as the link.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use tracing::warn;

use super::keyed::Key;
use super::link::Link;
use super::state::Router;
use crate::clock::MonotonicNanos;
use crate::ids::{SlotId, ThreadIndex};
use crate::io::descriptors::for_files;
use crate::io::pass_fd::{receive_fd_and, send_fd};
use crate::io::segment::Segment;
use crate::log_limit::{self, LineKind};

/// The most descriptors that are kept for files on their way.
const SPARE_MAX: usize = 64;

/// See the module.
#[derive(Debug)]
pub(super) struct Lane {
    socket: OwnedFd,
    pub(super) segment: Arc<Segment>,
}

/// A part of a file, as a thread passes it.
pub(super) struct FilePart {
    file: File,
    offset: u64,
    len: u64,
}

/// Counts the files of threads that wait for clients.
#[derive(Debug, Default)]
pub(super) struct PassedFiles {
    each: Arc<()>,
    /// Threads were told to pass no more.
    are_too_many: bool,
    /// Descriptors that are kept for files on their way: temporary files and clients may have all others.
    spare: Vec<OwnedFd>,
}

impl PassedFiles {
    /// How many may wait: half of the descriptors that are reserved for files. Each of the threads may pass another one
    /// before it knows.
    fn most() -> usize {
        for_files() / 2
    }

    fn count(&self) -> usize {
        Arc::strong_count(&self.each) - 1
    }

    /// Keeps descriptors for files on their way, as many as should be; returns whether there are. `any` is one to copy.
    fn fill_spare(&mut self, any: impl AsFd) -> bool {
        let wanted = (Self::most() / 2).clamp(1, SPARE_MAX);
        while self.spare.len() < wanted
            && let Ok(spare) = any.as_fd().try_clone_to_owned()
        {
            self.spare.push(spare);
        }
        self.spare.len() >= wanted
    }
}

impl Lane {
    /// The next file on it; `None` when no descriptor was free for it, so that it is lost.
    ///
    /// # Errors
    /// When there is none, or it is not a file.
    fn take_file(&self) -> io::Result<Option<FilePart>> {
        let mut words = [0; 16];
        let (Some(file), _) = receive_fd_and(&self.socket, &mut words)? else { return Ok(None) };
        let file = File::from(file);
        // The router must never wait for a pipe.
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("not a file"));
        }
        let [offset, len] = [0, 8].map(|at| words[at..].first_chunk().map_or(0, |word| u64::from_le_bytes(*word)));
        Ok(Some(FilePart { file, offset, len }))
    }
}

impl Router<'_> {
    /// Gives a thread the lane that it asks for, on the connection `asker`, which becomes a part of it. Closing it is a no.
    pub(super) fn open_lane(&mut self, asker: Key, slot: SlotId, thread: ThreadIndex) {
        let Some(asker) = self.links.remove(asker) else { return };
        // Not its successor's: both would write to the memory.
        let is_of_thread = |link: &Link| link.slot == Some(slot) && link.thread == thread && link.pid == asker.pid;
        let Some(key) = self.links.keys(is_of_thread).pop() else { return };
        let has_spare = self.passed_files.fill_spare(&self.epoll.0);
        if !has_spare && !self.passed_files.are_too_many {
            self.take_files(false);
        }
        let takes_files = !self.passed_files.are_too_many;
        let Some(link) = self.links.get_mut(key) else { return };
        if link.lane.is_some() {
            return;
        }
        let opened = Segment::create().map_err(io::Error::from).and_then(|(segment, file)| {
            segment.take_files(takes_files);
            send_fd(&asker.fd, &file).map(|()| segment)
        });
        match opened {
            Ok(segment) => {
                // What comes is read when the link says so.
                let _ = self.epoll.delete(&asker.fd);
                link.lane = Some(Lane { socket: asker.fd, segment: Arc::new(segment) });
            }
            // Its bodies go over the link.
            Err(error) if log_limit::allows(LineKind::NoWorker) => {
                warn!("no shared memory for bodies of worker {} thread {thread}: {error}", link.worker);
            }
            Err(_) => {}
        }
    }

    /// Sends a client the part of a file that its thread has passed. Returns whether there was one.
    pub(super) fn pass_on_file(&mut self, link: Key, client_key: Option<Key>) -> bool {
        let before = MonotonicNanos::now();
        let Some(lane) = self.links.get_mut(link).and_then(|link| link.lane.as_ref()) else { return false };
        // The file has its place.
        self.passed_files.spare.pop();
        let taken = lane.take_file();
        if !self.passed_files.fill_spare(&self.epoll.0) && !self.passed_files.are_too_many {
            self.take_files(false);
        }
        let part = match taken {
            Ok(part) => part,
            Err(error) => {
                warn!("a worker's file is not sent: {error}");
                return false;
            }
        };
        let Some((client_key, client)) = client_key.and_then(|key| Some((key, self.clients.get_mut(key)?))) else {
            return true;
        };
        let Some(part) = part else {
            // Only this response breaks off.
            if log_limit::allows(LineKind::ResponseNotKept) {
                warn!("a file is not sent, as no descriptor is free (ulimit -n); its client is reset");
            }
            client.reset_on_close();
            self.close_client(client_key);
            return true;
        };
        if client.tls.is_some() {
            return false;
        }
        let waits = !client.unsent.is_empty();
        client.unsent.add_file(part.file, part.offset, part.len, Arc::clone(&self.passed_files.each));
        let sent = if waits { None } else { Some(client.flush()) };
        match sent {
            Some(Err(_)) => {
                client.reset_on_close();
                self.close_client(client_key);
            }
            Some(Ok(sent)) => {
                self.arm_client(client_key);
                self.bulk.use_since(sent.count as usize, before);
                if sent.more {
                    self.turn_again_client(client_key);
                }
            }
            None => {}
        }
        if !self.passed_files.are_too_many && self.passed_files.count() > PassedFiles::most() {
            self.take_files(false);
        }
        true
    }

    /// Once a second: whether threads may pass files again.
    pub(super) fn take_files_again(&mut self) {
        let PassedFiles { are_too_many, .. } = self.passed_files;
        if are_too_many
            && self.passed_files.count() <= PassedFiles::most() / 2
            && self.passed_files.fill_spare(&self.epoll.0)
        {
            self.take_files(true);
        }
    }

    #[cold]
    fn take_files(&mut self, take: bool) {
        self.passed_files.are_too_many = !take;
        for (_, Link { lane, .. }) in self.links.iter() {
            lane.iter().for_each(|lane| lane.segment.take_files(take));
        }
    }
}
