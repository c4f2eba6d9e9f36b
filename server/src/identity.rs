//! The user and groups that a server started as root becomes, and a thread that opens files with another user's rights.

use std::ffi::CString;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, bail};
use nix::unistd::{Gid, Uid, User, getegid, geteuid, getgrouplist, setfsgid, setfsuid};

use rwsgi_config::Config;

/// A user and groups, by number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// `None` to stay root.
    pub(crate) uid: Option<Uid>,
    pub(crate) gid: Gid,
    /// The additional groups; `gid` is the first.
    pub(crate) groups: Vec<Gid>,
}

impl Identity {
    /// What `uid`, `gid` and `add-gid` ask for; `None` when they ask for nothing, or this process is not root.
    ///
    /// # Errors
    /// When the user's group is not known, or its additional groups cannot be read.
    pub(crate) fn of(config: &Config) -> anyhow::Result<Option<Self>> {
        let asks = config.uid.is_some() || config.gid.is_some() || !config.add_gid.is_empty();
        if !asks || !geteuid().is_root() {
            return Ok(None);
        }
        let user = config.uid.as_ref();
        let gid = match (config.gid, user) {
            (Some(gid), _) => Gid::from_raw(gid),
            (None, None) => getegid(),
            (None, Some(user)) => match User::from_uid(Uid::from_raw(user.uid)) {
                Ok(Some(entry)) => entry.gid,
                // Without a group of its own the application would keep root's.
                _ => bail!(
                    "uid: user {0} has no entry in /etc/passwd, which would say its group: add 'gid = {0}' or another",
                    user.uid
                ),
            },
        };
        let mut groups = match user.and_then(|user| user.name.as_deref()).filter(|_| !config.no_initgroups) {
            Some(name) => {
                let name = CString::new(name).context("uid: the user's name holds a NUL byte")?;
                getgrouplist(&name, gid).context("uid: cannot read the user's additional groups")?
            }
            None => vec![gid],
        };
        for group in config.add_gid.iter().copied().map(Gid::from_raw) {
            if !groups.contains(&group) {
                groups.push(group);
            }
        }
        Ok(Some(Self { uid: user.map(|user| Uid::from_raw(user.uid)), gid, groups }))
    }

    /// A user as `/etc/passwd` has it; `None` when the user is not in it.
    ///
    /// # Errors
    /// When the user or its groups cannot be read.
    pub(crate) fn of_user(uid: Uid) -> std::io::Result<Option<Self>> {
        let Some(entry) = User::from_uid(uid)? else { return Ok(None) };
        let groups = getgrouplist(&CString::new(entry.name)?, entry.gid)?;
        Ok(Some(Self { uid: Some(uid), gid: entry.gid, groups }))
    }
}

/// Held by the thread that has the rights of another user, and while privileges are dropped: otherwise that thread would
/// take root's groups back afterwards.
static RIGHTS: Mutex<()> = Mutex::new(());

/// Waits until no thread has the rights of another user. No thread takes any while the guard lives.
pub(crate) fn hold_rights() -> MutexGuard<'static, ()> {
    RIGHTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// While it lives, this thread opens and makes files with the rights of another user. Only one can exist in a process: a
/// thread that has one must not take a second.
#[derive(Debug)]
pub(crate) struct FileRights {
    groups: Vec<Gid>,
    gid: Gid,
    uid: Uid,
    /// Also keeps the value in its thread: a guard cannot be sent.
    _alone: MutexGuard<'static, ()>,
}

impl FileRights {
    /// Takes the rights of a user until the returned value is dropped.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn of(uid: Uid, identity: &Identity) -> std::io::Result<Self> {
        let alone = hold_rights();
        let groups = nix::unistd::getgroups()?;
        set_groups(&identity.groups)?;
        let before = Self { groups, gid: getegid(), uid: geteuid(), _alone: alone };
        // The user last: it takes away the right to change the others.
        setfsgid(identity.gid);
        setfsuid(uid);
        // `setfsuid` returns the id of before and reports no failure; a second call returns the id of now.
        if setfsuid(uid) != uid {
            // Dropping `before` restores root's rights.
            return Err(nix::errno::Errno::EPERM.into());
        }
        Ok(before)
    }
}

impl Drop for FileRights {
    fn drop(&mut self) {
        setfsuid(self.uid);
        setfsgid(self.gid);
        if set_groups(&self.groups).is_err() || setfsuid(self.uid) != self.uid {
            // The kernel has no reason to refuse. Nothing that follows may run with half of the rights.
            std::process::abort();
        }
    }
}

/// Sets the additional groups of this thread alone.
fn set_groups(groups: &[Gid]) -> rustix::io::Result<()> {
    let groups: Vec<_> = groups.iter().map(|group| rustix::process::Gid::from_raw(group.as_raw())).collect();
    rustix::thread::set_thread_groups(&groups)
}
