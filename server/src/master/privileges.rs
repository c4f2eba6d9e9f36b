//! Users and groups of the processes and the socket files.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::Context;
use nix::unistd::{Gid, Uid, User, chown, geteuid, initgroups, setgid, setgroups, setuid};
use tracing::{info, warn};

use rwsgi_config::{Config, RunAs};

/// Gives a socket file the mode and the owner that are configured.
///
/// # Errors
/// When the system refuses, mostly because this process is not root.
pub(super) fn adjust_socket(path: &Path, config: &Config) -> anyhow::Result<()> {
    if let Some(owner) = config.chown_socket {
        chown(path, Some(Uid::from_raw(owner.uid)), owner.gid.map(Gid::from_raw))
            .with_context(|| format!("chown-socket: cannot give '{}' away", path.display()))?;
    }
    if let Some(mode) = config.chmod_socket {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
            .with_context(|| format!("chmod-socket: cannot change the mode of '{}'", path.display()))?;
    }
    Ok(())
}

/// The group to run as: the one that is configured, or the user's own.
fn group(config: &Config) -> Option<Gid> {
    let own = |user: &RunAs| User::from_uid(Uid::from_raw(user.uid)).ok().flatten().map(|user| user.gid);
    config.gid.map(Gid::from_raw).or_else(|| config.uid.as_ref().and_then(own))
}

/// Becomes the user and the group that are configured, for good. What is to belong to them is given away first.
///
/// # Errors
/// When the system refuses.
pub(super) fn drop_privileges(config: &Config) -> anyhow::Result<()> {
    let group = group(config);
    if !geteuid().is_root() {
        let wants_other = config.uid.as_ref().is_some_and(|user| user.uid != geteuid().as_raw());
        if wants_other || group.is_some_and(|group| group != nix::unistd::getegid()) {
            warn!("uid, gid: only root can become another user: this server goes on as user {}", geteuid());
        }
        return Ok(());
    }
    if let Some(user) = &config.uid
        && let Some(pidfile) = &config.pidfile
    {
        // In a directory like /tmp only its owner may remove it.
        chown(pidfile, Some(Uid::from_raw(user.uid)), group)
            .with_context(|| format!("pidfile: cannot give '{}' to user {}", pidfile.display(), user.uid))?;
    }
    if let Some(group) = group {
        setgid(group).with_context(|| format!("gid: cannot become group {group}"))?;
        match config.uid.as_ref().and_then(|user| user.name.as_deref()) {
            Some(name) => {
                let name = std::ffi::CString::new(name).context("uid: the user's name holds a NUL byte")?;
                initgroups(&name, group).context("uid: cannot take the user's additional groups")?;
            }
            None => setgroups(&[group]).context("gid: cannot drop root's additional groups")?,
        }
    }
    match &config.uid {
        Some(user) => {
            setuid(Uid::from_raw(user.uid)).with_context(|| format!("uid: cannot become user {}", user.uid))?;
            info!("running as user {} and group {}", nix::unistd::getuid(), nix::unistd::getgid());
        }
        None => warn!("running as root: an intruder would have the whole machine; set uid (and gid) to another user"),
    }
    Ok(())
}
