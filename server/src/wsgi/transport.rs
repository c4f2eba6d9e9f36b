//! How the application's side of a request reaches the client: a worker's connection, or a test's memory.

use std::fs::File;
use std::io::{self, BufRead};
use std::os::fd::OwnedFd;

/// Bytes that somebody else owns, kept until they are sent.
pub type Kept = Box<dyn AsRef<[u8]> + Send>;

/// One request's way to its client. It is owned by the request while the application runs, and given back after.
pub trait Transport: Send {
    /// Sends `parts` one after the other, as much as the client takes now without waiting, and keeps what is left.
    /// Returns whether nothing is left. What was kept before goes first.
    ///
    /// `own` gives an owner for the bytes of `parts[index]`, so that a large part need not be copied to be kept.
    ///
    /// # Errors
    /// When the client is gone.
    fn send(&mut self, parts: &[&[u8]], own: &mut dyn FnMut(usize) -> Option<Kept>) -> io::Result<bool>;

    /// Says that the next [`Transport::send`] is the last of the response, and that the application is done with the
    /// request: what is sent may wait for what ends the response, or end the connection.
    fn announce_last(&mut self);

    /// Says that the next [`Transport::send`] is a piece of a body of which the application makes more: it may be sent a
    /// moment later, with those that come meanwhile, also while the application is busy.
    fn announce_more(&mut self) {}

    /// Says that somebody else may send to the client too: nothing more is gathered in this request. What was gathered
    /// before is sent by [`Transport::flush`].
    fn gather_no_more(&mut self) {}

    /// Sends `head` and then `len` bytes of `file` from `offset`, without copying them through this process where
    /// the system can. Returns whether nothing is left.
    ///
    /// # Errors
    /// When the client is gone.
    fn send_file(&mut self, head: &[u8], file: File, offset: u64, len: u64) -> io::Result<bool>;

    /// Waits until nothing is left to send. To be called without the GIL.
    ///
    /// # Errors
    /// When the client is gone, or takes nothing for too long.
    fn flush(&mut self) -> io::Result<()>;

    /// The client's connection, for another protocol than HTTP. Nothing is to be sent through `self` after that.
    ///
    /// # Errors
    /// When the client is gone, or is another process's and stays there.
    fn take_client(&mut self) -> io::Result<OwnedFd>;

    /// The request's body. It ends where the body ends.
    fn body(&mut self) -> &mut (dyn BufRead + Send);

    /// What comes next of the body and can be read without waiting for a disk or for a peer.
    fn body_at_hand(&self) -> &[u8];

    /// Bytes of the body that have not been read.
    fn body_left(&self) -> u64;
}
