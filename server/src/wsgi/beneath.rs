//! Opens a file below a directory, so that the file that was checked is the file that is opened.
//!
//! A name is looked up once. With a check of where it leads and a second lookup to open it, whoever may write to the
//! directory could change a link in between.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, open, openat, openat2, readlink};
use rustix::io::Errno;

/// Opening a named pipe would wait for its writer, and opening a terminal would make it ours.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);
/// Finds the file without opening it.
const FIND: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);

/// Opens the regular file `relative` below the directory `root` for reading. Follows links that lead to a place below
/// `root` or below one of `safe`, which are real paths. `None` when there is no such file, or it cannot be opened.
pub(super) fn open_beneath(root: &Path, relative: &[u8], safe: &[PathBuf]) -> Option<File> {
    let relative = Path::new(OsStr::from_bytes(relative));
    // Only a link may lead out of the directory, not a client's `..`.
    if !relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return None;
    }
    let root = open(root, FIND | OFlags::DIRECTORY, Mode::empty()).ok()?;
    let file = match openat2(&root, relative, READ, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS)
    {
        Ok(file) => file,
        // A link leads out of the directory, perhaps into one of `safe`; or an absolute link leads back in; or a name
        // changed meanwhile; or this kernel or this container's filter has no openat2.
        Err(Errno::XDEV | Errno::AGAIN | Errno::NOSYS | Errno::PERM | Errno::INVAL) => {
            open_by_real_path(&root, relative, safe)?
        }
        Err(_) => return None,
    };
    regular(file)
}

/// Opens a regular file that the configuration names.
pub(super) fn open_file(path: &Path) -> Option<File> {
    regular(open(path, READ, Mode::empty()).ok()?)
}

/// Opens a regular file by a name that a client may have a hand in, and returns its real path. As with uWSGI, a link in
/// the name leads elsewhere only if that is below one of `safe`, which are real paths.
pub(super) fn open_itself(path: &Path, safe: &[PathBuf]) -> Option<(File, PathBuf)> {
    let real = std::fs::canonicalize(path).ok()?;
    let is_itself = real.starts_with(std::path::absolute(path).ok()?);
    let may_be = is_itself || safe.iter().any(|safe| real.starts_with(safe));
    let file = may_be.then(|| open_file(&real)).flatten()?;
    Some((file, real))
}

fn regular(file: OwnedFd) -> Option<File> {
    let file = File::from(file);
    file.metadata().ok()?.is_file().then_some(file)
}

/// Finds the file, asks the kernel for its path, and opens the file that was found. Needs `/proc`.
fn open_by_real_path(root: &OwnedFd, relative: &Path, safe: &[PathBuf]) -> Option<OwnedFd> {
    let found = openat(root, relative, FIND, Mode::empty()).ok()?;
    let path = real_path(&found)?;
    let is_inside = path.starts_with(real_path(root)?) || safe.iter().any(|safe| path.starts_with(safe));
    // Opening a device can have effects.
    if !is_inside || !rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&found).ok()?.st_mode).is_file() {
        return None;
    }
    openat(CWD, link_of(&found), READ, Mode::empty()).ok()
}

/// The real path of an open file now. Needs `/proc`. The kernel adds " (deleted)" to that of a removed file, which changes
/// no check.
pub(super) fn real_path(file: &impl AsFd) -> Option<PathBuf> {
    let path = readlink(link_of(file), Vec::new()).ok()?;
    Some(PathBuf::from(OsStr::from_bytes(path.as_bytes())))
}

fn link_of(file: &impl AsFd) -> String {
    format!("/proc/self/fd/{}", file.as_fd().as_raw_fd())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::unix::fs::symlink;

    /// A directory with a file and links, and a file and a directory beside it.
    fn directory() -> tempfile::TempDir {
        let above = tempfile::tempdir().unwrap();
        let at = |name: &str| above.path().join(name);
        std::fs::create_dir_all(at("site/below")).unwrap();
        std::fs::create_dir(at("safe")).unwrap();
        std::fs::create_dir(at("sites")).unwrap();
        for name in ["site/below/a", "safe/a", "sites/a", "secret"] {
            std::fs::write(at(name), name).unwrap();
        }
        for (target, link) in [
            (Path::new("below/a"), "site/relative"),
            (&at("site/below/a"), "site/absolute"),
            (Path::new("../site/below/a"), "site/around"),
            (&at("secret"), "site/secret"),
            (Path::new("../sites/a"), "site/beside"),
            (&at("safe"), "site/safe"),
            (Path::new("/proc/self/exe"), "site/magic"),
        ] {
            symlink(target, at(link)).unwrap();
        }
        above
    }

    fn text(file: Option<impl Into<File>>) -> Option<String> {
        file.map(|file| {
            let mut text = String::new();
            file.into().read_to_string(&mut text).unwrap();
            text
        })
    }

    #[test]
    fn both_ways_open_the_same_files() {
        let above = directory();
        let root = std::fs::canonicalize(above.path().join("site")).unwrap();
        let safe = [std::fs::canonicalize(above.path().join("safe")).unwrap()];
        for (name, expected) in [
            ("below/a", Some("site/below/a")),
            ("below//./a", Some("site/below/a")),
            ("relative", Some("site/below/a")),
            ("absolute", Some("site/below/a")),
            ("around", Some("site/below/a")),
            ("safe/a", Some("safe/a")),
            ("secret", None),
            ("beside", None),
            ("magic", None),
            ("below", None),
            ("below/a/", None),
            ("below/a/b", None),
            ("missing", None),
            ("", None),
        ] {
            assert_eq!(text(open_beneath(&root, name.as_bytes(), &safe)).as_deref(), expected, "{name}");
            let descriptor = open(&root, FIND | OFlags::DIRECTORY, Mode::empty()).unwrap();
            assert_eq!(text(open_by_real_path(&descriptor, Path::new(name), &safe)).as_deref(), expected, "{name}");
        }
        for name in [&b"below/../below/a"[..], b"../secret", b"/etc/passwd", b"safe/../secret"] {
            assert!(open_beneath(&root, name, &safe).is_none(), "{}", name.escape_ascii());
        }
        assert_eq!(text(open_file(&root.join("below/a"))).as_deref(), Some("site/below/a"));
        assert!(open_file(&root).is_none());
    }
}
