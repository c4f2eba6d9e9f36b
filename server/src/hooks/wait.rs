//! What a start waits for: files, mounts, interfaces, sockets, and files that another server has locked.

use std::fs::{File, OpenOptions};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::net::if_::if_nametoindex;
use rwsgi_config::hooks::{Awaited, HooksConfig};
use rwsgi_stats::Address;
use tracing::info;

/// How often it is looked for.
const INTERVAL: Duration = Duration::from_millis(200);
/// How long an attempt to connect may take.
const CONNECT: Duration = Duration::from_secs(1);
/// When the configuration says 0.
const DEFAULT: u32 = 60;

/// Waits until it is there.
///
/// # Errors
/// When it does not come within its timeout.
pub(crate) fn wait_for(config: &HooksConfig, awaited: &Awaited) -> anyhow::Result<()> {
    let (name, seconds) = match awaited {
        Awaited::Interface(name) => (format!("network interface '{name}'"), config.interface_timeout),
        Awaited::Socket(address) => (format!("socket '{address}'"), config.socket_timeout),
        Awaited::Entry(path) => (format!("'{}'", path.display()), config.fs_timeout),
        Awaited::File(path) => (format!("file '{}'", path.display()), config.fs_timeout),
        Awaited::Directory(path) => (format!("directory '{}'", path.display()), config.fs_timeout),
        Awaited::MountPoint(path) => (format!("a file system at '{}'", path.display()), config.fs_timeout),
    };
    let seconds = if seconds == 0 { DEFAULT } else { seconds };
    if is_there(awaited)? {
        return Ok(());
    }
    info!("waiting up to {seconds} s for {name}");
    let until = Instant::now() + Duration::from_secs(seconds.into());
    while Instant::now() < until {
        std::thread::sleep(INTERVAL);
        if is_there(awaited)? {
            info!("{name} is there");
            return Ok(());
        }
    }
    bail!("{name} is not there after {seconds} s")
}

fn is_there(awaited: &Awaited) -> anyhow::Result<bool> {
    Ok(match awaited {
        Awaited::Interface(name) => if_nametoindex(name.as_str()).is_ok(),
        Awaited::Entry(path) => path.exists(),
        Awaited::File(path) => path.is_file(),
        Awaited::Directory(path) => path.is_dir(),
        Awaited::MountPoint(path) => is_mount_point(path),
        Awaited::Socket(address) => connects(&address.parse().context("wait-for-socket")?),
    })
}

/// Whether another file system begins here.
fn is_mount_point(path: &Path) -> bool {
    let device = |path: &Path| std::fs::metadata(path).ok().filter(std::fs::Metadata::is_dir).map(|file| file.dev());
    let (inside, above) = (device(path), device(&path.join("..")));
    inside.is_some() && above.is_some() && inside != above
}

fn connects(address: &Address) -> bool {
    match address {
        Address::Tcp { host, port } => {
            let addresses = (host.as_str(), *port).to_socket_addrs();
            addresses.is_ok_and(|mut all| all.any(|address| TcpStream::connect_timeout(&address, CONNECT).is_ok()))
        }
        Address::Unix(path) => UnixStream::connect(path).is_ok(),
        Address::Abstract(name) => {
            SocketAddr::from_abstract_name(name).is_ok_and(|address| UnixStream::connect_addr(&address).is_ok())
        }
    }
}

/// Locks the files of `flock` and its like that are due now, for as long as this process lives. The locks conflict with
/// uWSGI's, and survive going to the background, which those do not.
///
/// # Errors
/// When a file is not there, or another server has it.
pub(crate) fn lock_files(config: &HooksConfig, is_late: bool) -> anyhow::Result<()> {
    for flock in config.flocks.iter().filter(|flock| flock.is_late == is_late) {
        let (option, name) = (&flock.option, flock.path.display());
        let file = OpenOptions::new().read(true).write(true).open(&flock.path);
        let file = file.with_context(|| format!("{option}: cannot open '{name}', which must exist"))?;
        let locked = match lock(&file, false) {
            Err(Errno::EACCES | Errno::EAGAIN) if flock.waits => {
                info!("{option}: waiting for another server that holds '{name}'");
                lock(&file, true)
            }
            Err(Errno::EACCES | Errno::EAGAIN) => bail!("{option}: another server holds '{name}'"),
            locked => locked,
        };
        locked.with_context(|| format!("{option}: cannot lock '{name}'"))?;
        // It is held until the process ends.
        std::mem::forget(file);
    }
    Ok(())
}

fn lock(file: &File, waits: bool) -> nix::Result<()> {
    let whole = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    loop {
        let argument = if waits { FcntlArg::F_OFD_SETLKW(&whole) } else { FcntlArg::F_OFD_SETLK(&whole) };
        match fcntl(file, argument) {
            Err(Errno::EINTR) => {}
            locked => return locked.map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rwsgi_config::hooks::Flock;

    #[test]
    fn what_is_there_is_not_waited_for_and_what_does_not_come_is_an_error() {
        let config = HooksConfig { fs_timeout: 1, socket_timeout: 1, interface_timeout: 1, ..HooksConfig::default() };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let there = [
            Awaited::Entry("/".into()),
            Awaited::Directory("/".into()),
            Awaited::MountPoint("/proc".into()),
            Awaited::Interface("lo".into()),
            Awaited::Socket(listener.local_addr().unwrap().to_string()),
        ];
        for awaited in there {
            wait_for(&config, &awaited).unwrap();
        }
        let error = wait_for(&config, &Awaited::File("/proc".into())).unwrap_err().to_string();
        assert!(error.contains("file '/proc' is not there after 1 s"), "{error}");
    }

    #[test]
    fn one_server_at_a_time_holds_a_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let flock = |waits| HooksConfig {
            flocks: vec![Flock { option: "flock".into(), path: path.clone(), waits, is_late: false }],
            ..HooksConfig::default()
        };
        assert!(lock_files(&flock(false), false).unwrap_err().to_string().contains("must exist"));
        std::fs::write(&path, "").unwrap();
        lock_files(&flock(false), true).unwrap();
        let held = File::options().write(true).open(&path).unwrap();
        lock(&held, false).unwrap();
        assert!(lock_files(&flock(false), false).unwrap_err().to_string().contains("another server holds"));
        let (taken, done) = std::sync::mpsc::channel();
        let waiting = flock(true);
        let waiter = std::thread::spawn(move || taken.send(lock_files(&waiting, false).is_ok()).unwrap());
        drop(held);
        assert!(done.recv_timeout(Duration::from_secs(20)).unwrap());
        waiter.join().unwrap();
    }
}
