//! What a configuration can refer to besides itself: the environment, the machine, the user. Taken once, so that one
//! configuration means one thing from its first line to its last.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use nix::unistd::{Gid, Group, Uid, User, gethostname};

/// A picture of the process and its machine.
#[derive(Clone, Debug)]
pub(super) struct Surroundings {
    /// The environment; what is not UTF-8 cannot be referred to.
    pub(super) env: BTreeMap<String, String>,
    pub(super) directory: PathBuf,
    pub(super) program: PathBuf,
    pub(super) hostname: String,
    pub(super) cores: usize,
    pub(super) uid: u32,
    pub(super) user: String,
    pub(super) gid: u32,
    pub(super) group: String,
    /// Since 1970.
    pub(super) time: Duration,
    /// A server that runs reads its configuration again.
    pub(super) is_reload: bool,
}

impl Surroundings {
    pub(super) fn of_this_process() -> Self {
        let (uid, gid) = (Uid::current(), Gid::current());
        let name = |name: Option<String>, number: u32| name.unwrap_or_else(|| number.to_string());
        Self {
            env: std::env::vars_os()
                .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
                .collect(),
            directory: std::env::current_dir().unwrap_or_default(),
            program: std::env::current_exe().unwrap_or_default(),
            hostname: gethostname().unwrap_or_default().to_string_lossy().into_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            uid: uid.as_raw(),
            user: name(User::from_uid(uid).ok().flatten().map(|user| user.name), uid.as_raw()),
            gid: gid.as_raw(),
            group: name(Group::from_gid(gid).ok().flatten().map(|group| group.name), gid.as_raw()),
            time: SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default(),
            is_reload: false,
        }
    }
}
