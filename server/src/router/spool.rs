//! Files for what waits and is too large for memory. They have no name, so that nothing is left behind however the
//! front ends.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::libc;

/// A new file, for this process alone.
pub(super) fn unlinked_file() -> io::Result<File> {
    let directory = directory();
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    let opened = options.clone().custom_flags(libc::O_TMPFILE).open(&directory);
    // Not every file system knows how to make one without a name.
    opened.or_else(|_| named_then_unlinked(&directory, &mut options)).map_err(|error| {
        io::Error::new(error.kind(), format!("cannot create a file in {}: {error}", directory.display()))
    })
}

/// `TMPDIR`, or `/var/tmp`, which is on a disk where `/tmp` is memory.
fn directory() -> PathBuf {
    let on_disk = Path::new("/var/tmp");
    match std::env::var_os("TMPDIR") {
        None if on_disk.is_dir() => on_disk.to_owned(),
        _ => std::env::temp_dir(),
    }
}

fn named_then_unlinked(directory: &Path, options: &mut OpenOptions) -> io::Result<File> {
    let mut attempt = 0u32;
    loop {
        let path = directory.join(format!("rwsgi-router-{}-{attempt}", std::process::id()));
        match options.create_new(true).open(&path) {
            Ok(file) => {
                std::fs::remove_file(&path)?;
                return Ok(file);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && attempt < 100 => attempt += 1,
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Seek, Write};

    #[test]
    fn a_file_system_without_nameless_files_will_do() {
        let mut options = OpenOptions::new();
        let named = named_then_unlinked(&directory(), options.read(true).write(true));
        for mut file in [named.unwrap(), unlinked_file().unwrap()] {
            file.write_all(b"kept").unwrap();
            file.rewind().unwrap();
            let mut text = String::new();
            file.read_to_string(&mut text).unwrap();
            assert_eq!(text, "kept");
        }
    }
}
