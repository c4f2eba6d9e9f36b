//! The rights that the emperor keeps when it drops root's: `cap`.

use anyhow::Context;
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

use crate::identity::Identity;
use crate::master::privileges::drop_privileges;
use rwsgi_config::Config;

/// Becomes the user and the groups that are configured, and keeps the capabilities of `cap`. To be called while this
/// process has one thread.
///
/// # Errors
/// When the system refuses.
pub(super) fn drop_rights(config: &Config, user: Option<&Identity>) -> anyhow::Result<()> {
    let is_root = nix::unistd::geteuid().is_root();
    let wanted = config.emperor.capabilities.iter().map(|number| 1_u64 << number);
    let kept = CapabilitySet::from_bits_retain(wanted.fold(0, |all, one| all | one));
    // One that gives vassals the rights of their owners is root for that.
    if user.is_none() && config.emperor.tyrant && kept.is_empty() {
        return Ok(());
    }
    if kept.is_empty() || !is_root {
        return drop_privileges(config, user);
    }
    let why = "cap: cannot keep capabilities";
    nix::sys::prctl::set_keepcaps(true).context(why)?;
    drop_privileges(config, user)?;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    set_capabilities(None, sets).context(why)
}
