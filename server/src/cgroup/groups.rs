//! Which directories are those of this process's control groups.
//!
//! `/proc/self/cgroup` has the path of its group in each hierarchy, and `/proc/self/mountinfo` where that hierarchy is mounted
//! and which part of it: in a container it is often only the container's own group.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The directory of a group, and those of the groups that it is in, as far up as they are mounted; empty where there is no
/// such hierarchy.
pub(super) type Levels = Vec<PathBuf>;

/// More levels than anybody has.
const MOST_LEVELS: usize = 32;

/// Where a process's groups are.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Groups {
    /// Of version 2.
    pub(super) unified: Levels,
    /// Of version 1's controller `memory`.
    pub(super) memory: Levels,
    /// Of version 1's controller `cpu`.
    pub(super) cpu: Levels,
}

impl Groups {
    /// Finds them from the text of `/proc/self/cgroup` and `/proc/self/mountinfo`.
    pub(super) fn find(cgroup: &str, mountinfo: &str) -> Self {
        let mut groups = Self::default();
        for (controllers, path) in cgroup.lines().filter_map(membership) {
            let has = |name| controllers.split(',').any(|controller| controller == name);
            if controllers.is_empty() {
                groups.unified = levels(path, mountinfo, |mount| mount.kind == "cgroup2");
            }
            if has("memory") {
                groups.memory = levels(path, mountinfo, |mount| mount.has_controller("memory"));
            }
            if has("cpu") {
                groups.cpu = levels(path, mountinfo, |mount| mount.has_controller("cpu"));
            }
        }
        groups
    }

    /// One group of version 2, of which this is the directory.
    pub(super) fn only(directory: PathBuf) -> Self {
        Self { unified: vec![directory], ..Self::default() }
    }
}

/// A line as `4:memory:/a/b`, or `0::/a/b`: its controllers and its path.
fn membership(line: &str) -> Option<(&str, &str)> {
    let (_, rest) = line.split_once(':')?;
    rest.split_once(':')
}

/// A mounted hierarchy.
struct Mount<'a> {
    /// `cgroup2`, or `cgroup` for version 1.
    kind: &'a str,
    options: &'a str,
    /// The group whose directory is mounted.
    root: PathBuf,
    point: PathBuf,
}

impl<'a> Mount<'a> {
    /// From a line of `mountinfo`, see proc_pid_mountinfo(5).
    fn parse(line: &'a str) -> Option<Self> {
        let (place, what) = line.split_once(" - ")?;
        let mut what = what.split(' ');
        let (kind, options) = (what.next()?, what.nth(1)?);
        if !matches!(kind, "cgroup" | "cgroup2") {
            return None;
        }
        let mut place = place.split(' ').skip(3);
        Some(Self { kind, options, root: unescape(place.next()?), point: unescape(place.next()?) })
    }

    fn has_controller(&self, name: &str) -> bool {
        self.kind == "cgroup" && self.options.split(',').any(|option| option == name)
    }
}

/// A path of `mountinfo`, where blanks and backslashes are three octal digits.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let escaped = after.get(..3).filter(|_| *first == b'\\').and_then(|digits| str::from_utf8(digits).ok());
        match escaped.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[3..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    OsString::from_vec(bytes).into()
}

/// The directories of the group of this path, in the first such mount that has it. Where a mount has another part of the
/// hierarchy than the path says, as in a container with version 1, what is mounted is the group.
fn levels(path: &str, mountinfo: &str, is_meant: impl Fn(&Mount<'_>) -> bool) -> Levels {
    let mounts = || mountinfo.lines().filter_map(Mount::parse).filter(|mount| is_meant(mount));
    let within = |mount: Mount<'_>| {
        let below = Path::new(path).strip_prefix(&mount.root).ok()?;
        let directory = mount.point.join(below);
        let is_there = !path.contains("/..") && directory.is_dir();
        is_there.then(|| up_to(&directory, &mount.point))
    };
    let found = mounts().find_map(within);
    found.or_else(|| mounts().next().map(|mount| vec![mount.point])).unwrap_or_default()
}

fn up_to(directory: &Path, top: &Path) -> Levels {
    directory.ancestors().take_while(|level| level.starts_with(top)).take(MOST_LEVELS).map(Path::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_of_version_2_is_found_with_those_that_it_is_in() {
        let top = tempfile::tempdir().unwrap();
        let group = top.path().join("system.slice/app.service");
        std::fs::create_dir_all(&group).unwrap();
        let mounts = format!(
            "24 30 0:22 / /proc rw - proc proc rw\n31 23 0:28 / {} rw,nosuid shared:9 - cgroup2 cgroup2 rw\n",
            top.path().display()
        );
        let groups = Groups::find("0::/system.slice/app.service\n", &mounts);
        let levels = vec![group, top.path().join("system.slice"), top.path().to_owned()];
        assert_eq!(groups, Groups { unified: levels, ..Groups::default() });
    }

    #[test]
    fn a_container_sees_only_its_own_group_whatever_the_path_says() {
        let top = tempfile::tempdir().unwrap();
        let point = top.path().display();
        // Version 1 without a namespace: the path is the one of the host.
        let mounts = format!(
            "35 31 0:32 /docker/abc {point} ro - cgroup cgroup rw,memory\n36 31 0:30 /docker/abc {point} ro - cgroup cgroup rw,cpu,cpuacct\n"
        );
        let groups = Groups::find("5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n0::/docker/abc\n", &mounts);
        let own = vec![top.path().to_owned()];
        assert_eq!(groups, Groups { memory: own.clone(), cpu: own.clone(), unified: Vec::new() });
        let other = Groups::find("5:memory:/kubepods/xyz\n", &mounts);
        assert_eq!(other.memory, own);
        let outside = Groups::find("0::/../elsewhere\n", &format!("1 1 0:1 / {point} rw - cgroup2 x rw\n"));
        assert_eq!(outside.unified, own);
    }

    #[test]
    fn nothing_is_found_where_nothing_is_mounted() {
        assert_eq!(Groups::find("0::/a\n", "24 30 0:22 / /proc rw - proc proc rw\n"), Groups::default());
        assert_eq!(Groups::find("what\n:\n0:\n", "x - cgroup2\n - cgroup2 a b\n"), Groups::default());
    }

    #[test]
    fn octal_digits_stand_for_blanks() {
        assert_eq!(unescape(r"/a\040b\134c\9"), PathBuf::from(r"/a b\c\9"));
    }
}
