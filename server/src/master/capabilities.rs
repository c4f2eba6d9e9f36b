//! `cap`: which of root's capabilities are kept. Those of a user are ambient, so that the fork server, which is executed,
//! and the workers have them; for root the others leave the bounding set, without which an execution would bring them back.

use anyhow::Context;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capability_is_in_bounding_set, configure_capability_in_ambient_set,
    remove_capability_from_bounding_set, set_capabilities, set_keep_capabilities,
};

/// What the server itself needs as root, as uWSGI has it: to become other users.
const OF_ROOT: CapabilitySet =
    CapabilitySet::SYS_CHROOT.union(CapabilitySet::SETUID).union(CapabilitySet::SETGID).union(CapabilitySet::SETPCAP);

/// Before the user changes: what is permitted stays.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn keep() -> anyhow::Result<()> {
    set_keep_capabilities(true).context("cap: cannot keep capabilities (PR_SET_KEEPCAPS)")
}

/// After the user has changed: only `kept` stay, here and in what is executed.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn narrow_user(kept: u64) -> anyhow::Result<()> {
    let kept = CapabilitySet::from_bits_retain(kept);
    set(kept)?;
    for capability in kept.iter() {
        configure_capability_in_ambient_set(capability, true)
            .with_context(|| format!("cap: cannot pass on {capability:?}"))?;
    }
    set_keep_capabilities(false).context("cap: cannot end the keeping of capabilities")
}

/// When root stays root: only `kept`, and what the server needs, stay.
///
/// # Errors
/// When the kernel refuses.
pub(super) fn narrow_root(kept: u64) -> anyhow::Result<()> {
    let kept = CapabilitySet::from_bits_retain(kept) | OF_ROOT;
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        // The kernel refuses numbers beyond its last.
        if !kept.contains(capability) && capability_is_in_bounding_set(capability).unwrap_or(false) {
            remove_capability_from_bounding_set(capability)
                .with_context(|| format!("cap: cannot give up {capability:?}"))?;
        }
    }
    set(kept)
}

fn set(kept: CapabilitySet) -> anyhow::Result<()> {
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: kept };
    set_capabilities(None, sets).context("cap: the kernel does not grant these capabilities to this process")
}
