//! Files for what waits and is too large for memory. They have no name: nobody else can open them, and nothing is left
//! behind however a process ends.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::OnceLock;

/// A new file, for this process alone.
///
/// # Errors
/// When the directory cannot be written to, or descriptors are out; says which directory, and how to choose another.
pub(crate) fn unnamed() -> io::Result<File> {
    // Asked once: a worker's application may change its environment while another thread reads it here.
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    let directory = DIRECTORY.get_or_init(directory);
    tempfile::tempfile_in(directory).map_err(|error| {
        let what = format!("cannot make a temporary file in '{}' (TMPDIR): {error}", directory.display());
        io::Error::new(error.kind(), what)
    })
}

/// `TMPDIR`; or `/var/tmp`, which is on a disk where `/tmp` is memory, if it can be written to: in a container it may be
/// the image's, which is read only.
fn directory() -> PathBuf {
    match std::env::var_os("TMPDIR") {
        None => writable_or("/var/tmp".into(), std::env::temp_dir()),
        Some(_) => std::env::temp_dir(),
    }
}

fn writable_or(wanted: PathBuf, other: PathBuf) -> PathBuf {
    if tempfile::tempfile_in(&wanted).is_ok() { wanted } else { other }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn a_directory_that_cannot_be_written_to_gives_way_to_another() {
        let [here, other] = [std::env::temp_dir(), "/other".into()];
        assert_eq!(writable_or(here.clone(), other.clone()), here);
        assert_eq!(writable_or("/proc".into(), other.clone()), other);
        assert_eq!(writable_or("/nowhere".into(), other.clone()), other);
    }

    #[test]
    fn a_file_keeps_what_is_written_and_has_no_name() {
        let mut file = unnamed().unwrap();
        assert_eq!(file.metadata().unwrap().nlink(), 0);
        file.write_all(b"kept").unwrap();
        file.rewind().unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "kept");
    }
}
