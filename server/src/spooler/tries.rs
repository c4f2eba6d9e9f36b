//! How often a job was tried: kept with its file, in an extended attribute, so that it outlives the process that tried.
//!
//! uWSGI takes no notice of it. Where the file system has no such attributes every try counts as the first.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::libc;

const NAME: &CStr = c"user.rwsgi.tries";

/// Counts one more try of the job in this file; returns how many they are.
pub(crate) fn count_one(path: &Path) -> u32 {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return 1 };
    let mut bytes = [0; 4];
    // SAFETY: both strings end with a NUL, and the buffer has the length that is told.
    let read = unsafe { libc::lgetxattr(path.as_ptr(), NAME.as_ptr(), bytes.as_mut_ptr().cast(), bytes.len()) };
    let before = if read == bytes.len() as isize { u32::from_le_bytes(bytes) } else { 0 };
    let tries = before.saturating_add(1);
    let bytes = tries.to_le_bytes();
    // SAFETY: as above. That it may fail is said above.
    unsafe { libc::lsetxattr(path.as_ptr(), NAME.as_ptr(), bytes.as_ptr().cast(), bytes.len(), 0) };
    tries
}
