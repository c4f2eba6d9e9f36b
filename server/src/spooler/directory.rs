//! The directories that jobs lie in, before anybody works in them.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;

use anyhow::Context;
use nix::unistd::{Gid, Uid, chown, geteuid};

use rwsgi_config::Config;

/// Makes the directories that are not there, and has all of them called by their real names, as `spool()` knows them.
///
/// # Errors
/// When one cannot be made or entered.
pub(crate) fn prepare(config: &mut Config) -> anyhow::Result<()> {
    let owner = config.uid.as_ref().map(|user| Uid::from_raw(user.uid)).filter(|_| geteuid().is_root());
    let group = config.gid.map(Gid::from_raw).filter(|_| geteuid().is_root());
    for directory in config.spooler.directories.iter_mut().chain(&mut config.spooler.external) {
        match DirBuilder::new().mode(0o750).create(&*directory) {
            // The user that the server changes to must be able to write there.
            Ok(()) => chown(&*directory, owner, group)
                .with_context(|| format!("spooler: cannot give '{}' away", directory.display()))?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                return Err(error).with_context(|| format!("spooler: cannot make '{}'", directory.display()));
            }
        }
        *directory = std::fs::canonicalize(&*directory)
            .with_context(|| format!("spooler: cannot enter '{}'", directory.display()))?;
    }
    Ok(())
}
