//! Pidfiles: written by the master, read by `--stop` and `--reload`. A stale one is noticed: its process id may be
//! another program's by now, or another server's.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, bail};
use nix::fcntl::OFlag;
use nix::unistd::{Pid, fchown};

use crate::identity::Identity;
use crate::owned_file;

/// The name that a master has in `/proc`.
pub(crate) const MASTER_NAME: &CStr = c"rwsgi master";
/// The name of an emperor that has no master.
pub(crate) const EMPEROR_NAME: &CStr = c"rwsgi emperor";

/// How much later than its pidfile a process may seem to have started: clocks are read at different moments, seconds.
const TOLERANCE: u64 = 2;
/// The most that is read, bytes: enough for a process id, and the path may name any file.
const SIZE_MAX: u64 = 64;

/// The name of the control socket of the server with this process id, where nobody gives it another.
pub(crate) fn control_socket_name(pid: u32) -> String {
    format!("rwsgi-{pid}.sock")
}

/// The server that a control socket of this name belongs to.
pub(crate) fn server_of_control_socket(name: &str) -> Option<u32> {
    let pid = name.strip_prefix("rwsgi-")?.strip_suffix(".sock")?;
    pid.parse().ok().filter(|number| control_socket_name(*number) == name)
}

/// The running server whose pidfile this is.
///
/// # Errors
/// When there is none: why, in words.
pub(crate) fn running(pidfile: &Path) -> anyhow::Result<Pid> {
    // Opening a named pipe would wait for its writer.
    let file = File::options().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(pidfile);
    let file = file.with_context(|| format!("cannot read the pidfile '{}'", pidfile.display()))?;
    named_in(&file, pidfile)
}

/// The running server that this file names.
fn named_in(file: &File, pidfile: &Path) -> anyhow::Result<Pid> {
    let path = pidfile.display();
    let mut text = String::new();
    file.take(SIZE_MAX).read_to_string(&mut text).with_context(|| format!("cannot read the pidfile '{path}'"))?;
    let pid: i32 = match text.trim().parse() {
        Ok(pid) if pid > 1 => pid,
        _ => bail!("'{path}' is no pidfile: it should hold a process id alone"),
    };
    match std::fs::read_to_string(format!("/proc/{pid}/comm")) {
        Ok(name) if [MASTER_NAME, EMPEROR_NAME].iter().any(|own| name.trim_end().as_bytes() == own.to_bytes()) => {}
        Ok(name) => bail!("the pidfile '{path}' is stale: process {pid} is '{}', not a rwsgi master", name.trim_end()),
        Err(_) => bail!("the pidfile '{path}' is stale: there is no process {pid}"),
    }
    let written = file.metadata().map(|file| file.mtime().unsigned_abs());
    if let (Ok(written), Some(started)) = (written, started_at(pid))
        && started > written + TOLERANCE
    {
        bail!("the pidfile '{path}' is stale: process {pid} was started after it was written");
    }
    Ok(Pid::from_raw(pid))
}

/// When a process started, unix seconds.
fn started_at(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // proc_pid_stat(5): field 22, in ticks since the system was started.
    let ticks: u64 = stat.rsplit_once(") ")?.1.split(' ').nth(22 - 3)?.parse().ok()?;
    let per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok()??.unsigned_abs();
    let system = std::fs::read_to_string("/proc/stat").ok()?;
    let booted: u64 = system.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(booted + ticks / per_second)
}

/// Writes this process's id. The file is given to `user`, who the server becomes: in a directory like /tmp only its owner
/// may remove it.
///
/// # Errors
/// When the file belongs to another running server, or cannot be written, or is not to be trusted.
pub(crate) fn write(option: &str, pidfile: &Path, user: Option<&Identity>) -> anyhow::Result<()> {
    let path = pidfile.display();
    let opened = owned_file::open_to_write(pidfile, OFlag::O_RDWR, user);
    let (mut file, is_to_give) = opened.map_err(explain).with_context(|| format!("{option}: cannot write '{path}'"))?;
    match named_in(&file, pidfile) {
        Ok(pid) if pid != Pid::this() => {
            bail!("{option}: '{path}' belongs to a running server (process {pid}): stop that, or choose another file")
        }
        _ => {}
    }
    if let Some(Identity { uid: Some(uid), gid, .. }) = user
        && is_to_give
    {
        fchown(&file, Some(*uid), Some(*gid))
            .with_context(|| format!("{option}: cannot give '{path}' to {}", owned_file::named(uid.as_raw())))?;
    }
    rewrite(&mut file).with_context(|| format!("{option}: cannot write '{path}'"))
}

fn rewrite(file: &mut File) -> io::Result<()> {
    if file.metadata()?.is_file() {
        file.set_len(0)?;
        file.rewind()?;
    }
    file.write_all(format!("{}\n", std::process::id()).as_bytes())
}

fn explain(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::NotFound => io::Error::new(error.kind(), format!("{error}: the directory does not exist")),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_is_no_master_is_not_taken_for_one() {
        let directory = std::env::temp_dir().join(format!("rwsgi-pidfile-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("x.pid");
        for (text, expected) in [
            (format!("{}\n", std::process::id()), "not a rwsgi master"),
            ("2147483646".into(), "there is no process"),
            ("-1".into(), "is no pidfile"),
            (String::new(), "is no pidfile"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = running(&path).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        write("pidfile", &path, None).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap().trim(), std::process::id().to_string());
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn this_process_started_a_moment_ago() {
        let now = crate::clock::UnixMicros::now().as_secs();
        let started = started_at(std::process::id() as i32).unwrap();
        assert!(started <= now + TOLERANCE && started + 3_600 > now, "{started} {now}");
    }
}
