//! Who is at the other end of a connection.

use std::fmt;
use std::io;

use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::{Uid, User, geteuid};
use rwsgi_stats::is_control;
use tokio::net::UnixStream;

/// Who asks, as the kernel and `/proc` know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::master) struct Peer {
    uid: u32,
    /// Empty for one without a name.
    user: String,
    pid: i32,
    /// The name of its program: what the program says itself.
    command: String,
}

impl Peer {
    /// Who has connected.
    ///
    /// # Errors
    /// When it is another user than root and the one that this process runs as: who, in words.
    pub(super) async fn of(stream: &UnixStream) -> io::Result<Self> {
        let credentials = getsockopt(stream, sockopt::PeerCredentials)?;
        let (uid, pid) = (credentials.uid(), credentials.pid());
        // Names of users may come from a directory somewhere in the network.
        let user = tokio::task::spawn_blocking(move || User::from_uid(Uid::from_raw(uid)).ok().flatten());
        let user = user.await.ok().flatten().map(|user| user.name).unwrap_or_default();
        let command = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let peer = Self { uid, user, pid, command: command.trim_end().replace(is_control, "?") };
        match peer.may_act(geteuid().as_raw()) {
            true => Ok(peer),
            false => Err(io::Error::new(io::ErrorKind::PermissionDenied, peer.to_string())),
        }
    }

    /// Whether it may do something with a server of this user.
    fn may_act(&self, server: u32) -> bool {
        self.uid == 0 || self.uid == server
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { uid, user, pid, command } = self;
        match user.as_str() {
            "" => write!(to, "uid {uid} (pid {pid} {command})"),
            user => write!(to, "{user} (uid {uid}, pid {pid} {command})"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_root_and_the_server_s_own_user_may_act() {
        let peer = |uid| Peer { uid, user: "alice".into(), pid: 4242, command: "rtop".into() };
        assert!(peer(0).may_act(33) && peer(33).may_act(33));
        assert!(!peer(1000).may_act(33) && !peer(1000).may_act(0));
        assert_eq!(peer(1000).to_string(), "alice (uid 1000, pid 4242 rtop)");
    }
}
