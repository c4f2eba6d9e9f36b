//! Users and groups of the processes and the socket files.

use std::path::Path;

use anyhow::{Context, bail};
use nix::sys::stat::SFlag;
use nix::unistd::{Gid, Uid, geteuid, getgid, getuid, setgid, setgroups, setuid};
use tracing::{info, warn};

use super::capabilities;
use crate::identity::{Identity, hold_rights};
use crate::owned_file::{Last, Place, named};
use rwsgi_config::Config;

/// Gives a socket file that was just bound the mode and the owner that are configured.
///
/// # Errors
/// When the system refuses, mostly because this process is not root; when another file has taken its place.
pub(super) fn adjust_socket(path: &Path, config: &Config, user: Option<&Identity>) -> anyhow::Result<()> {
    if config.chown_socket.is_none() && config.chmod_socket.is_none() {
        return Ok(());
    }
    let option = if config.chown_socket.is_some() { "chown-socket" } else { "chmod-socket" };
    let place = Place::find(path, Last::Keep, user)
        .with_context(|| format!("{option}: cannot open the directory of '{}'", path.display()))?;
    let found = place.look().with_context(|| format!("{option}: cannot look at '{}'", path.display()))?;
    let found = found.with_context(|| format!("{option}: '{}' was removed as soon as it was bound", path.display()))?;
    if found.kind() != SFlag::S_IFSOCK || !place.is_made_by(found.owner()) || found.has_other_names() {
        bail!(
            "{option}: another file, of {1}, has replaced the socket '{0}': it is left as it is",
            path.display(),
            named(found.owner())
        );
    }
    if let Some(owner) = config.chown_socket {
        found
            .give(Some(Uid::from_raw(owner.uid)), owner.gid.map(Gid::from_raw))
            .with_context(|| format!("chown-socket: cannot give '{}' away", path.display()))?;
    }
    if let Some(mode) = config.chmod_socket {
        found
            .set_mode(mode)
            .with_context(|| format!("chmod-socket: cannot change the mode of '{}'", path.display()))?;
    }
    Ok(())
}

/// Becomes the user and the groups that are configured, for good.
///
/// # Errors
/// When the system refuses.
pub(super) fn drop_privileges(config: &Config, identity: Option<&Identity>) -> anyhow::Result<()> {
    if geteuid().is_root() {
        become_user(identity, config.cap)?;
    } else {
        warn_of_groups(config);
    }
    if config.no_new_privs {
        // All processes that serve are started from now on, by this thread.
        nix::sys::prctl::set_no_new_privs().context("no-new-privs: the kernel refuses it (PR_SET_NO_NEW_PRIVS)")?;
    }
    Ok(())
}

fn become_user(identity: Option<&Identity>, cap: Option<u64>) -> anyhow::Result<()> {
    // The thread of the log may have another user's rights, to open its file.
    let _no_rights = hold_rights();
    if let Some(identity) = identity {
        setgid(identity.gid).with_context(|| format!("gid: cannot become group {}", identity.gid))?;
        setgroups(&identity.groups).context("uid, gid: cannot drop root's additional groups")?;
    }
    match identity.and_then(|identity| identity.uid) {
        Some(user) => {
            if cap.is_some() {
                capabilities::keep()?;
            }
            setuid(user).with_context(|| format!("uid: cannot become user {user}"))?;
            if let Some(kept) = cap {
                capabilities::narrow_user(kept)?;
            }
            info!("running as user {} and group {}", getuid(), getgid());
        }
        None => {
            if let Some(kept) = cap {
                capabilities::narrow_root(kept)?;
            }
            warn!("running as root: an intruder would have the whole machine; set uid (and gid) to another user");
        }
    }
    Ok(())
}

/// Warns when this process is not the configured user and groups and cannot become them.
fn warn_of_groups(config: &Config) {
    let other_user = config.uid.as_ref().is_some_and(|user| user.uid != geteuid().as_raw());
    let other_group = config.gid.is_some_and(|group| group != nix::unistd::getegid().as_raw());
    let mine = nix::unistd::getgroups().unwrap_or_default();
    let new_groups = config.add_gid.iter().any(|group| !mine.contains(&Gid::from_raw(*group)));
    if other_user || other_group || new_groups {
        warn!("uid, gid, add-gid: only root can change user and groups: this server stays user {}", geteuid());
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn what_has_taken_the_place_of_a_socket_is_left_as_it_is() {
        let directory = std::env::temp_dir().join(format!("rwsgi-privileges-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let [precious, path] = ["precious", "app.sock"].map(|name| directory.join(name));
        std::fs::write(&precious, "").unwrap();
        std::fs::set_permissions(&precious, std::fs::Permissions::from_mode(0o600)).unwrap();
        let config = Config { chmod_socket: Some(0o666), ..Config::default() };
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        drop(UnixListener::bind(&path).unwrap());
        adjust_socket(&path, &config, None).unwrap();
        assert_eq!(mode(&path), 0o666);
        for replace in [symlink::<&Path, &Path>, std::fs::hard_link::<&Path, &Path>] {
            std::fs::remove_file(&path).unwrap();
            replace(&precious, &path).unwrap();
            let error = adjust_socket(&path, &config, None).unwrap_err().to_string();
            assert!(error.contains("another file"), "{error}");
        }
        assert_eq!(mode(&precious), 0o600);
        std::fs::remove_dir_all(directory).unwrap();
    }

    /// It was bound with the user's rights; one of root's is another, to which the user's link leads by now.
    #[test]
    fn where_a_link_of_the_user_leads_no_socket_of_root_is_given_away() {
        if !geteuid().is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o755)).unwrap();
        let [run, theirs] = ["run", "theirs"].map(|name| directory.path().join(name));
        let user = Identity { uid: Some(Uid::from_raw(23456)), gid: Gid::from_raw(23456), groups: vec![] };
        std::fs::create_dir(&run).unwrap();
        symlink(&run, &theirs).unwrap();
        std::os::unix::fs::lchown(&theirs, Some(23456), Some(23456)).unwrap();
        let _listener = UnixListener::bind(run.join("app.sock")).unwrap();
        let before = std::fs::metadata(run.join("app.sock")).unwrap().permissions();
        let config = Config { chmod_socket: Some(0o666), ..Config::default() };
        let error = adjust_socket(&theirs.join("app.sock"), &config, Some(&user)).unwrap_err().to_string();
        assert!(error.contains("another file"), "{error}");
        assert_eq!(std::fs::metadata(run.join("app.sock")).unwrap().permissions(), before);
    }
}
