//! How often a job was tried: kept with its file, in an extended attribute, so that it outlives the process that tried.
//!
//! uWSGI takes no notice of it. Where the file system has no such attributes every try counts as the first.

use std::path::Path;

use rustix::fs::{XattrFlags, lgetxattr, lsetxattr};

const NAME: &str = "user.rwsgi.tries";

/// Counts one more try of the job in this file; returns how many they are.
pub(crate) fn count_one(path: &Path) -> u32 {
    let mut bytes = [0; 4];
    let before = match lgetxattr(path, NAME, &mut bytes) {
        Ok(4) => u32::from_le_bytes(bytes),
        _ => 0,
    };
    let tries = before.saturating_add(1);
    // That it may fail is said above.
    let _ = lsetxattr(path, NAME, &tries.to_le_bytes(), XattrFlags::empty());
    tries
}
