//! The first message to a process that was started by exec. It has a configuration, which is of any length: ten thousand
//! rules are more than a packet may have. So it lies in a memory file, and the packet brings that.

use std::fs::File;
use std::io::{self, BufWriter, Read, Seek, Write};
use std::os::fd::BorrowedFd;

use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::io::pass_fd::{receive_fd, send_fd};

/// Sends it; nobody needs to read it yet.
///
/// # Errors
/// When the other end is gone, or the system has no descriptor or memory left.
pub(crate) fn send_first(channel: BorrowedFd<'_>, message: &impl Serialize) -> io::Result<()> {
    let file = File::from(memfd_create(c"rwsgi-setup", MFdFlags::MFD_CLOEXEC)?);
    let mut writer = BufWriter::new(&file);
    serde_json::to_writer(&mut writer, message)?;
    writer.flush()?;
    drop(writer);
    send_fd(channel, file)
}

/// Receives it; `None` when the other end is gone.
///
/// # Errors
/// When what comes is no such message.
pub(crate) fn receive_first<T: DeserializeOwned>(channel: BorrowedFd<'_>) -> io::Result<Option<T>> {
    let Some(file) = receive_fd(channel)? else { return Ok(None) };
    let mut file = File::from(file);
    file.rewind()?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(Some(serde_json::from_slice(&bytes)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ipc::channel;
    use std::os::fd::AsFd;

    #[test]
    fn it_may_be_longer_than_any_packet_and_the_end_is_seen() {
        let (ours, theirs) = channel().unwrap();
        let rules = vec!["route = ^/place/ return:404".to_owned(); 200_000];
        send_first(ours.as_fd(), &rules).unwrap();
        assert!(receive_first::<Vec<String>>(theirs.as_fd()).unwrap() == Some(rules));
        drop(ours);
        assert!(receive_first::<Vec<String>>(theirs.as_fd()).unwrap().is_none());
    }
}
