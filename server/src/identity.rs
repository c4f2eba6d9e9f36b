//! Whom a server that root starts becomes: the user, the group and the additional groups that are configured.

use std::ffi::CString;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, bail};
use nix::unistd::{Gid, Uid, User, getegid, geteuid, getgrouplist, setfsgid, setfsuid};

use rwsgi_config::Config;

/// A user and groups, all by number.
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
                // To go on without would leave the application root's groups.
                _ => bail!(
                    "uid: user {0} has no entry in /etc/passwd that would say its group, and would keep those of root: add \
                     'gid = {0}', or the group that it is to have",
                    user.uid
                ),
            },
        };
        let mut groups = match user.and_then(|user| user.name.as_deref()) {
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

    /// A user as `/etc/passwd` has it; `None` when it has no such.
    ///
    /// # Errors
    /// When the user or its groups cannot be read.
    pub(crate) fn of_user(uid: Uid) -> std::io::Result<Option<Self>> {
        let Some(entry) = User::from_uid(uid)? else { return Ok(None) };
        let groups = getgrouplist(&CString::new(entry.name)?, entry.gid)?;
        Ok(Some(Self { uid: Some(uid), gid: entry.gid, groups }))
    }
}

/// Held by the thread that has rights of another user, and while privileges are dropped: root's groups would come back to
/// the thread afterwards.
static RIGHTS: Mutex<()> = Mutex::new(());

/// Waits until no thread has rights of another user, and keeps it so.
pub(crate) fn hold_rights() -> MutexGuard<'static, ()> {
    RIGHTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// While it lives, this thread opens and makes files with the rights of another user, and no other thread does. A thread
/// can have one at a time.
#[derive(Debug)]
pub(crate) struct FileRights {
    groups: Vec<Gid>,
    gid: Gid,
    uid: Uid,
    /// Nor can another thread drop it.
    _alone: MutexGuard<'static, ()>,
}

impl FileRights {
    /// Takes the rights of a user; root's come back when what is returned is dropped.
    ///
    /// # Errors
    /// When the system refuses.
    pub(crate) fn of(uid: Uid, identity: &Identity) -> std::io::Result<Self> {
        let alone = hold_rights();
        let groups = nix::unistd::getgroups()?;
        set_groups(&identity.groups)?;
        let before = Self { groups, gid: getegid(), uid: geteuid(), _alone: alone };
        // The user last: it takes away the right to change the others.
        setfsgid(identity.gid);
        setfsuid(uid);
        // It says what was in force before, whether or not it was changed: asked again, it says what is now.
        if setfsuid(uid) != uid {
            // `before` gives everything back.
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
            // The kernel has no reason to refuse, and to go on in between would be wrong for all that follows.
            std::process::abort();
        }
    }
}

/// Of this thread alone.
fn set_groups(groups: &[Gid]) -> rustix::io::Result<()> {
    let groups: Vec<_> = groups.iter().map(|group| rustix::process::Gid::from_raw(group.as_raw())).collect();
    rustix::thread::set_thread_groups(&groups)
}
