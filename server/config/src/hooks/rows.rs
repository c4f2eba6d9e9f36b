//! The options of hooks and of what the start waits for.

use super::{Awaited, Phase, add_call, add_exec, add_file, add_flock, add_hook, add_touch, await_it};
use crate::row::Kind::{Custom, Flag, Number, Paths};
use crate::row::PROCESS;
use crate::row::{Group, Row};

const HOOKS: Row = Row { group: Group::Hooks, repeats: true, ..PROCESS };

/// A row of `exec-*`, `hook-*` or `call-*`.
macro_rules! hook {
    ($name:literal, $phase:ident, $add:ident, $takes:literal, $help:literal) => {
        Row {
            names: &[$name],
            kind: Custom(|c, value| $add(c, Phase::$phase, value)),
            takes: $takes,
            help: $help,
            is_for_shell: true,
            ..HOOKS
        }
    };
}

macro_rules! awaited {
    ($names:expr, $make:expr, $takes:literal, $help:literal) => {
        Row {
            names: $names,
            kind: Custom(|c, value| await_it(c, $make(value.into()))),
            takes: $takes,
            help: $help,
            ..HOOKS
        }
    };
}

macro_rules! flock {
    ($name:literal, $waits:literal, $late:literal, $help:literal) => {
        Row {
            names: &[$name],
            kind: Custom(|c, value| add_flock(c, $name, value, $waits, $late)),
            takes: "FILE",
            help: $help,
            ..HOOKS
        }
    };
}

#[rustfmt::skip]
pub(crate) static ROWS: &[Row] = &[
    hook!("hook-asap", Asap, add_hook, "ACTION:ARGUMENT", "Do this before anything else; a failure ends the start"),
    hook!("hook-pre-jail", PreJail, add_hook, "ACTION:ARGUMENT", "Do this before sockets are bound, at the start only"),
    hook!("hook-in-jail", InJail, add_hook, "ACTION:ARGUMENT", "Do this before sockets are bound, at the start and at a reload"),
    hook!("hook-post-jail", PostJail, add_hook, "ACTION:ARGUMENT", "Do this as root, when `jailed` is set"),
    hook!("hook-as-root", AsRoot, add_hook, "ACTION:ARGUMENT", "Do this as root before privileges are dropped, when the server is started as root"),
    hook!("hook-as-user", AsUser, add_hook, "ACTION:ARGUMENT", "Do this after privileges were dropped, when the server is started as root"),
    hook!("hook-pre-app", PreApp, add_hook, "ACTION:ARGUMENT", "Do this before the application is loaded"),
    hook!("hook-post-app", PostApp, add_hook, "ACTION:ARGUMENT", "Do this after the application is loaded"),
    hook!("hook-master-start", MasterStart, add_hook, "ACTION:ARGUMENT", "Do this in the master when the application is loaded; unix_signal:15 gracefully_kill_them_all is what SIGTERM does anyway"),
    hook!("hook-post-fork", PostFork, add_hook, "ACTION:ARGUMENT", "Do this in each worker once it is forked"),
    hook!("hook-accepting", Accepting, add_hook, "ACTION:ARGUMENT", "Do this in each worker before it serves"),
    hook!("hook-accepting-once", AcceptingOnce, add_hook, "ACTION:ARGUMENT", "The same in the first process of each worker only"),
    hook!("hook-accepting1", Accepting1, add_hook, "ACTION:ARGUMENT", "Do this in worker 1 before it serves"),
    hook!("hook-accepting1-once", Accepting1Once, add_hook, "ACTION:ARGUMENT", "The same in its first process only"),
    hook!("hook-as-mule", AsMule, add_hook, "ACTION:ARGUMENT", "Do this in each mule once it is forked"),
    hook!("hook-as-gateway", AsGateway, add_hook, "ACTION:ARGUMENT", "Do this in the http router when it starts"),
    hook!("hook-as-user-atexit", AsUserAtexit, add_hook, "ACTION:ARGUMENT", "Do this at the server's end and before a reload; a failure is logged"),
    hook!("hook-as-emperor", AsEmperor, add_hook, "ACTION:ARGUMENT", "Do this in the emperor when a vassal was started"),
    hook!("hook-as-vassal", AsVassal, add_hook, "ACTION:ARGUMENT", "Do this in a vassal's process before its program is executed"),
    hook!("hook-emperor-start", EmperorStart, add_hook, "ACTION:ARGUMENT", "Do this in the emperor before it starts the first vassal; a failure ends it"),
    hook!("hook-emperor-stop", EmperorStop, add_hook, "ACTION:ARGUMENT", "Do this in a vassal when its emperor tells it to stop, before it does"),
    hook!("hook-emperor-reload", EmperorReload, add_hook, "ACTION:ARGUMENT", "Do this in a vassal when its emperor tells it to reload, before it does"),
    hook!("hook-emperor-lost", EmperorLost, add_hook, "ACTION:ARGUMENT", "Do this in a vassal when its emperor is gone, before it stops"),
    hook!("exec-as-emperor", AsEmperor, add_exec, "COMMAND", "Run this command in the emperor when a vassal was started"),
    hook!("exec-as-vassal", AsVassal, add_exec, "COMMAND", "Run this command in a vassal's process before its program is executed"),
    Row { names: &["hook-touch"], kind: Custom(add_touch), takes: "FILE ACTION:ARGUMENT", is_for_shell: true,
          help: "Do this when the file changes", ..HOOKS },
    hook!("exec-asap", Asap, add_exec, "COMMAND", "Run this command before anything else; a failure ends the start"),
    hook!("exec-pre-jail", PreJail, add_exec, "COMMAND", "Run this command before sockets are bound, at the start only"),
    hook!("exec-in-jail", InJail, add_exec, "COMMAND", "Run this command before sockets are bound, at the start and at a reload"),
    hook!("exec-post-jail", PostJail, add_exec, "COMMAND", "Run this command as root, when `jailed` is set"),
    hook!("exec-as-root", AsRoot, add_exec, "COMMAND", "Run this command as root before privileges are dropped, when the server is started as root"),
    hook!("exec-as-user", AsUser, add_exec, "COMMAND", "Run this command after privileges were dropped, when the server is started as root"),
    hook!("exec-pre-app", PreApp, add_exec, "COMMAND", "Run this command before the application is loaded"),
    hook!("exec-post-app", PostApp, add_exec, "COMMAND", "Run this command after the application is loaded"),
    hook!("exec-as-user-atexit", AsUserAtexit, add_exec, "COMMAND", "Run this command at the server's end and before a reload"),
    hook!("call-asap", Asap, add_call, "CALLABLE", "An error: there is no Python yet"),
    hook!("call-pre-jail", PreJail, add_call, "CALLABLE", "An error: there is no Python yet"),
    hook!("call-in-jail", InJail, add_call, "CALLABLE", "An error: there is no Python yet"),
    hook!("call-post-jail", PostJail, add_call, "CALLABLE", "An error: there is no Python yet"),
    hook!("call-as-root", AsRoot, add_call, "CALLABLE", "An error: there is no Python yet"),
    hook!("call-as-user", AsUser, add_call, "CALLABLE", "An error: there is no Python yet"),
    hook!("call-pre-app", PreApp, add_call, "CALLABLE", "Call this Python callable, as in module.function, before the application is loaded"),
    hook!("call-post-app", PostApp, add_call, "CALLABLE", "Call this Python callable after the application is loaded"),
    hook!("call-as-user-atexit", AsUserAtexit, add_call, "CALLABLE", "An error: there is no Python in the master"),
    Row { names: &["jailed"], kind: Flag(|c| &mut c.hooks.jailed), repeats: false,
          help: "Run the hooks of post-jail: somebody else has confined this server", ..HOOKS },
    Row { names: &["binsh"], kind: Paths(|c| &mut c.hooks.shells), takes: "FILE",
          help: "Run commands by this shell instead of /bin/sh; the first that is executable is taken", ..HOOKS },
    Row { names: &["file-write"], kind: Custom(add_file), takes: "FILE=TEXT",
          help: "Write this text to the file after the hooks of in-jail, as who starts the server", ..HOOKS },
    awaited!(&["wait-for-interface", "wait-interface", "wait-for-iface", "wait-iface"], Awaited::Interface, "NAME",
             "Wait for this network interface before the hooks of as-root"),
    // uWSGI looks for anything of these names, whichever option is used.
    awaited!(&["wait-for-fs", "wait-for-file", "wait-for-dir"], Awaited::Entry, "PATH",
             "Wait for this file or directory before the hooks of as-root"),
    awaited!(&["wait-for-mountpoint"], Awaited::MountPoint, "DIR",
             "Wait until a file system is mounted here, before the hooks of as-root"),
    awaited!(&["wait-for-socket"], Awaited::Socket, "ADDRESS",
             "Wait until this socket takes connections, before the application is loaded"),
    Row { names: &["wait-for-interface-timeout", "wait-interface-timeout", "wait-for-iface-timeout", "wait-iface-timeout"],
          kind: Number(|c| &mut c.hooks.interface_timeout, 0..=86_400 * 365), takes: "SECONDS", default: "60", repeats: false,
          help: "Give up waiting for a network interface after this, and end the start", ..HOOKS },
    Row { names: &["wait-for-fs-timeout"], kind: Number(|c| &mut c.hooks.fs_timeout, 0..=86_400 * 365), takes: "SECONDS",
          default: "60", repeats: false,
          help: "Give up waiting for a file, directory or mount after this, and end the start", ..HOOKS },
    Row { names: &["wait-for-socket-timeout"], kind: Number(|c| &mut c.hooks.socket_timeout, 0..=86_400 * 365),
          takes: "SECONDS", default: "60", repeats: false,
          help: "Give up waiting for a socket after this, and end the start", ..HOOKS },
    flock!("flock", false, false, "Lock this file, which must exist, before anything else; end the start if another server has it"),
    flock!("flock-wait", true, false, "Lock this file, which must exist, before anything else; wait for another server that has it"),
    flock!("flock2", false, true, "The same as flock, once the log is set up"),
    flock!("flock-wait2", true, true, "The same as flock-wait, once the log is set up"),
];
