//! Finds the control sockets of running servers: `/proc/net/unix` has every socket that listens, and those that nobody
//! has given another path are named by their master.

use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use nix::unistd::geteuid;

use super::client::Client;
use super::words::Server;
use crate::pidfile::{running, server_of_control_socket};

/// What to do when a server has no control socket that is found.
pub(super) const ADVICE: &str =
    "start it with --control PATH and give that here, or with XDG_RUNTIME_DIR or RUNTIME_DIRECTORY set";

/// Anybody may have sockets of such names that accept nobody: they are not waited for.
const AT_ONCE: Duration = Duration::from_millis(20);

/// A server that answers, and that this user may ask.
pub(super) struct Found {
    /// Its master.
    pub(super) pid: u32,
    /// Its control socket.
    pub(super) path: PathBuf,
    pub(super) client: Client,
}

/// Connects to the server that the command line names, or else to the only one of this user.
///
/// # Errors
/// When there is none, or several.
pub(super) fn client(server: &Server) -> anyhow::Result<Client> {
    if let Some(path) = &server.control {
        return Client::connect(path).map_err(|error| {
            let what_to_do = match error.kind() {
                ErrorKind::PermissionDenied => "run rwsgi ctl as root or as the user that the server runs as",
                _ => "is the server running? rwsgi ctl lists servers",
            };
            anyhow!("cannot connect to the control socket '{}': {error}: {what_to_do}", path.display())
        });
    }
    let mut found = servers();
    if let Some(path) = &server.pidfile {
        let pid = running(path)?.as_raw();
        let named = found.into_iter().find(|server| server.pid.cast_signed() == pid);
        let named = named.with_context(|| {
            format!("server {pid} has no control socket of the default name, or this user may not use it: {ADVICE}")
        });
        return Ok(named?.client);
    }
    match found.len() {
        0 => bail!("no server of this user has a control socket of the default name: {ADVICE}"),
        1 => Ok(found.remove(0).client),
        _ => {
            let name = |server: &Found| format!("\n  --control {}", server.path.display());
            let names: String = found.iter().map(name).collect();
            bail!("several servers run: say which one, with --pidfile FILE or{names}")
        }
    }
}

/// Every server of this user, or of all users for root, in the order of process ids.
pub(super) fn servers() -> Vec<Found> {
    let table = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let mut found: Vec<Found> = listening(&table)
        .into_iter()
        .filter_map(|(pid, path)| {
            let client = Client::connect_within(AT_ONCE, &path).ok()?;
            // Another user may have a socket of such a name: whoever asks it is not to take its words for a server's.
            let (uid, listens) = client.server().ok()?;
            let is_trusted = geteuid().is_root() || uid == 0 || uid == geteuid().as_raw();
            (is_trusted && listens == pid.cast_signed()).then_some(Found { pid, path, client })
        })
        .collect();
    found.sort_by_key(|server| server.pid);
    found.dedup_by_key(|server| server.pid);
    found
}

/// The control sockets in the table of all unix sockets, with the process ids that they are named by.
fn listening(table: &str) -> Vec<(u32, PathBuf)> {
    // unix(7) has no word of it: the flag of those that accept (`__SO_ACCEPTCON`).
    const ACCEPTS: &str = "00010000";
    let row = |line: &str| {
        let flags = line.split_ascii_whitespace().nth(3)?;
        // A path may have blanks in it.
        let path = PathBuf::from(format!("/{}", line.split_once(" /")?.1));
        let pid = server_of_control_socket(path.file_name()?.to_str()?)?;
        (flags == ACCEPTS).then_some((pid, path))
    };
    table.lines().skip(1).filter_map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_that_listen_are_found_by_their_names() {
        let table = "\
Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000002 00000000 00010000 0001 01 51234 /run/user/1000/rwsgi/rwsgi-4242.sock
0000000000000000: 00000003 00000000 00000000 0001 03 51235 /run/user/1000/rwsgi/rwsgi-4243.sock
0000000000000000: 00000002 00000000 00010000 0001 01 51236 /run/other.sock
0000000000000000: 00000002 00000000 00010000 0001 01 51237 @rwsgi-4244.sock
0000000000000000: 00000002 00000000 00010000 0001 01    51 /run/with space/rwsgi-7.sock
0000000000000000: 00000003 00000000 00000000 0001 03 51238
";
        let expected = [(4242, "/run/user/1000/rwsgi/rwsgi-4242.sock"), (7, "/run/with space/rwsgi-7.sock")];
        assert_eq!(listening(table), expected.map(|(pid, path)| (pid, PathBuf::from(path))));
    }
}
