//! `vacuum`: the files that are removed when the server ends, however it ends but by a kill.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tracing::{info, warn};

use crate::owned_file::{Last, Place};

/// Files that this server made. Dropped, it removes those that are still the same.
#[derive(Debug, Default)]
pub(crate) struct Leftovers {
    /// Each with its device and inode: one of that name may be another server's by now.
    files: Vec<(PathBuf, (u64, u64))>,
}

impl Leftovers {
    /// This server has just made `path`, which is to be removed.
    pub(crate) fn add(&mut self, path: &Path) {
        // The working directory may be another at the end.
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
        if let Some(identity) = identity(&path) {
            self.files.push((path, identity));
        }
    }
}

impl Drop for Leftovers {
    fn drop(&mut self) {
        for (path, made) in &self.files {
            match remove(path, *made) {
                Ok(true) => info!("vacuum: removed '{}'", path.display()),
                Ok(false) => {}
                Err(error) => warn!(
                    "vacuum: cannot remove '{}': {error}: its directory must belong to the user that the server runs as",
                    path.display()
                ),
            }
        }
    }
}

/// Removes the file that was made, if it is still there; returns whether it was.
fn remove(path: &Path, made: (u64, u64)) -> std::io::Result<bool> {
    // Privileges are dropped by now, or never.
    let place = match Place::find(path, Last::Keep, None) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        found => found?,
    };
    match place.look()? {
        Some(found) if found.identity() == made => place.remove().map(|()| true),
        _ => Ok(false),
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_somebody_put_in_its_place_stays() {
        let directory = std::env::temp_dir().join(format!("rwsgi-leftovers-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let (ours, theirs) = (directory.join("ours"), directory.join("theirs"));
        let mut leftovers = Leftovers::default();
        for path in [&ours, &theirs] {
            std::fs::write(path, "").unwrap();
            leftovers.add(path);
        }
        std::fs::write(directory.join("new"), "").unwrap();
        std::fs::rename(directory.join("new"), &theirs).unwrap();
        drop(leftovers);
        assert!(!ours.exists() && theirs.exists());
        std::fs::remove_dir_all(directory).unwrap();
    }
}
