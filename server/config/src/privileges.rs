//! What is kept of root's rights, and when they go.

use super::Config;
use super::row::PROCESS;
use super::row::{Kind, Row};
use super::set;
use Kind::{Custom, Flag};

#[rustfmt::skip]
pub(crate) static ROWS: &[Row] = &[
    Row { names: &["no-initgroups"], kind: Flag(|c| &mut c.no_initgroups),
          help: "Do not take on the groups that the user is in: gid and add-gid are all", ..PROCESS },
    Row { names: &["immediate-uid"], kind: Custom(immediate_uid), takes: "USER",
          help: "The same as uid with no-initgroups: what root opens here is opened before, with the user's rights where others may write", ..PROCESS },
    Row { names: &["immediate-gid"], kind: Custom(set::gid), takes: "GROUP",
          help: "The same as gid", ..PROCESS },
    Row { names: &["cap"], kind: Custom(cap), takes: "NAME[,NAME…]", repeats: true,
          help: "Keep only these of root's capabilities, also as uid: setuid, setgid, net_bind_service, sys_nice …", ..PROCESS },
];

/// The kernel's names, in the order of their numbers.
const CAPABILITIES: [&str; 41] = [
    "chown",
    "dac_override",
    "dac_read_search",
    "fowner",
    "fsetid",
    "kill",
    "setgid",
    "setuid",
    "setpcap",
    "linux_immutable",
    "net_bind_service",
    "net_broadcast",
    "net_admin",
    "net_raw",
    "ipc_lock",
    "ipc_owner",
    "sys_module",
    "sys_rawio",
    "sys_chroot",
    "sys_ptrace",
    "sys_pacct",
    "sys_admin",
    "sys_boot",
    "sys_nice",
    "sys_resource",
    "sys_time",
    "sys_tty_config",
    "mknod",
    "lease",
    "audit_write",
    "audit_control",
    "setfcap",
    "mac_override",
    "mac_admin",
    "syslog",
    "wake_alarm",
    "block_suspend",
    "audit_read",
    "perfmon",
    "bpf",
    "checkpoint_restore",
];

fn immediate_uid(config: &mut Config, value: &str) -> Result<(), String> {
    set::uid(config, value)?;
    config.no_initgroups = true;
    Ok(())
}

fn cap(config: &mut Config, value: &str) -> Result<(), String> {
    for name in value.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        let bare = name.strip_prefix("cap_").unwrap_or(name);
        let number = CAPABILITIES.iter().position(|known| *known == bare);
        let number = number.ok_or_else(|| format!("names of capabilities, as in setuid,setgid: '{name}' is none"))?;
        *config.cap.get_or_insert(0) |= 1 << number;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_have_the_kernel_s_numbers() {
        let mut config = Config::default();
        cap(&mut config, "setgid, setuid").unwrap();
        assert_eq!(config.cap, Some(0xc0));
        cap(&mut config, "cap_chown").unwrap();
        assert_eq!(config.cap, Some(0xc1));
        assert!(cap(&mut config, "fly").is_err());
    }
}
