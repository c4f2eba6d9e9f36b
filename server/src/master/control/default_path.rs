//! Where the control socket is when nobody says: in a directory where nobody but the server's user and root may put
//! files. Its name is that of the master's process, by which `rwsgi ctl` finds it.

use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::Mode;
use nix::unistd::geteuid;

use super::socket::{is_dead, lock};
use crate::identity::Identity;
use crate::owned_file::{Last, Place};
use crate::pidfile::{control_socket_name, server_of_control_socket};

/// The directory of root's servers; those that become another user have one below, named by the user's id.
const ROOTS: &str = "/run/rwsgi";

/// A directory, ready to be used; `Ok(None)` where none is to be expected. `user` is who the server becomes.
///
/// # Errors
/// When there is one that is not used: which, and why.
pub(super) fn directory(user: Option<&Identity>) -> Result<Option<PathBuf>, String> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let user = user.filter(|user| user.uid.is_some());
    let mut refused = Vec::new();
    // systemd has made it, and removes it. There may be several.
    if let Some(given) = variable("RUNTIME_DIRECTORY") {
        let first = given.to_string_lossy().split(':').next().map(PathBuf::from).unwrap_or_default();
        match check(&first, user) {
            Ok(()) => return Ok(Some(first)),
            Err(why) => refused.push(format!("RUNTIME_DIRECTORY: {why}")),
        }
    }
    // Of a login; a server that becomes another user could not enter it.
    if let (Some(given), None) = (variable("XDG_RUNTIME_DIR"), user) {
        match check(&given, None) {
            Ok(()) => {
                let own = given.join("rwsgi");
                return make(&own, 0o700).and_then(|()| check(&own, None)).map(|()| Some(own));
            }
            Err(why) => refused.push(format!("XDG_RUNTIME_DIR: {why}")),
        }
    }
    if geteuid().is_root() {
        match of_roots(user) {
            Ok(directory) => return Ok(Some(directory)),
            Err(why) => refused.push(why),
        }
    }
    if refused.is_empty() { Ok(None) } else { Err(refused.join("; ")) }
}

/// For a server that root starts.
fn of_roots(user: Option<&Identity>) -> Result<PathBuf, String> {
    let roots = PathBuf::from(ROOTS);
    make(&roots, 0o755)?;
    check(&roots, None)?;
    let Some(Identity { uid: Some(uid), gid, .. }) = user else { return Ok(roots) };
    let own = roots.join(uid.to_string());
    // It is made and given away at once, as another server that starts sees it.
    let _lock = lock(&roots);
    let made = Place::find(&own, Last::Keep, user).and_then(|place| match place.look()? {
        Some(_) => Ok(()),
        None => place.make_directory(Mode::S_IRWXU, Some(*uid), Some(*gid)),
    });
    made.map_err(|error| format!("'{}' cannot be made: {error}", own.display()))?;
    check(&own, user)?;
    Ok(own)
}

fn make(directory: &Path, mode: u32) -> Result<(), String> {
    let made = match DirBuilder::new().mode(mode).create(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        // Whatever the umask is: other users' servers have theirs below.
        Ok(()) => std::fs::set_permissions(directory, Permissions::from_mode(mode)),
        failed => failed,
    };
    made.map_err(|error| format!("'{}' cannot be made: {error}", directory.display()))
}

fn check(directory: &Path, user: Option<&Identity>) -> Result<(), String> {
    match is_ours_alone(directory, user) {
        true => Ok(()),
        false => Err(format!(
            "'{}' is not a directory of the server's user or root's where nobody else may write",
            directory.display()
        )),
    }
}

/// Whether this is a directory, no link, where only root, this process's user and the one that it becomes put files.
fn is_ours_alone(directory: &Path, user: Option<&Identity>) -> bool {
    let becomes = user.and_then(|user| user.uid);
    std::fs::symlink_metadata(directory).is_ok_and(|found| {
        let is_owned = found.uid() == geteuid().as_raw() || becomes.is_some_and(|uid| uid.as_raw() == found.uid());
        directory.is_absolute() && found.is_dir() && is_owned && found.mode() & 0o022 == 0
    })
}

/// The socket of this process in there.
pub(super) fn own_path(directory: &Path) -> PathBuf {
    directory.join(control_socket_name(std::process::id()))
}

/// Removes sockets of servers that were killed. The directory is locked meanwhile, as it is while one is bound.
pub(super) fn remove_stale(directory: &Path, user: Option<&Identity>) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
        let pid = path.file_name().and_then(|name| name.to_str()).and_then(server_of_control_socket);
        // To connect would wake its master; a process of another pid namespace is known by nothing else.
        let is_living = |pid: u32| Path::new(&format!("/proc/{pid}")).exists();
        if pid.is_none_or(is_living) || !is_dead(&path) {
            continue;
        }
        // Whoever sees to it as well may have been faster.
        let _ = Place::find(&path, Last::Keep, user).and_then(|place| place.remove());
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_directory_where_others_put_files_is_not_used_nor_is_a_link() {
        let base = std::env::temp_dir().join(format!("rwsgi-control-{}", std::process::id()));
        make(&base, 0o700).unwrap();
        assert!(is_ours_alone(&base, None));
        let link = base.join("link");
        symlink(&base, &link).unwrap();
        assert!(!is_ours_alone(&link, None) && !is_ours_alone(Path::new("relative"), None));
        for mode in [0o770, 0o777, 0o1777] {
            std::fs::set_permissions(&base, std::fs::Permissions::from_mode(mode)).unwrap();
            assert!(!is_ours_alone(&base, None), "{mode:o}");
        }
        std::fs::remove_dir_all(base).unwrap();
    }

    #[test]
    fn sockets_of_dead_servers_are_removed_and_nothing_else() {
        let base = std::env::temp_dir().join(format!("rwsgi-stale-{}", std::process::id()));
        make(&base, 0o700).unwrap();
        let [dead, living, other] =
            ["rwsgi-2147483646.sock", "rwsgi-2147483645.sock", "other.sock"].map(|name| base.join(name));
        drop(UnixListener::bind(&dead).unwrap());
        drop(UnixListener::bind(&other).unwrap());
        let _living = UnixListener::bind(&living).unwrap();
        remove_stale(&base, None);
        assert!(!dead.exists() && living.exists() && other.exists());
        std::fs::remove_dir_all(base).unwrap();
    }
}
