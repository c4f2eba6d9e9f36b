//! What the server does when something happens: a file is touched, a descriptor can be read, the application raises.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Config;
use super::row::Kind::{Custom, Flag, Paths, Texts};
use super::row::RELOAD;
use super::row::Row;
use super::value;

/// Files, descriptors and exceptions that the server reacts to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reactions {
    /// `touch-exec`: files, and the command that is run when one changes.
    pub touch_exec: Vec<(PathBuf, String)>,
    /// `touch-logrotate`: put the log aside when one of these changes.
    pub touch_logrotate: Vec<PathBuf>,
    /// `fs-reload`: reload when one of these, or what is in it, changes.
    pub fs_reload: Vec<PathBuf>,
    /// `fs-brutal-reload`: the same, and the old workers are given no time.
    pub fs_brutal_reload: Vec<PathBuf>,
    /// `reload-on-fd`, `brutal-reload-on-fd`: inherited descriptors, how many bytes are read, and whether it is brutal.
    pub reload_on_fd: Vec<(i32, usize, bool)>,
    /// `exit-on-reload`: end where a reload is asked for.
    pub exit_on_reload: bool,
    /// `die-on-idle`: end when `idle` has come.
    pub die_on_idle: bool,
    /// `reload-on-exception*`.
    pub exceptions: ReloadOnException,
    /// `catch-exceptions`: the client is shown the traceback.
    pub catch_exceptions: bool,
}

/// Exceptions after which a worker is replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadOnException {
    /// Any.
    pub any: bool,
    /// By the name of the class.
    pub types: Vec<String>,
    /// By the text.
    pub values: Vec<String>,
    /// By class and text, as in `ValueError: x`.
    pub representations: Vec<String>,
}

impl ReloadOnException {
    /// Whether nothing is asked for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.any && self.types.is_empty() && self.values.is_empty() && self.representations.is_empty()
    }

    /// Whether it is one of these.
    #[must_use]
    pub fn matches(&self, kind: &str, value: &str) -> bool {
        self.any
            || self.types.iter().any(|name| is_class(name, kind))
            || self.values.iter().any(|text| text == value)
            || self.representations.iter().any(|text| is_representation(text, kind, value))
    }
}

/// A class by its name, with its module before it or without.
fn is_class(name: &str, kind: &str) -> bool {
    name == kind || name.rsplit_once('.').is_some_and(|(_, name)| name == kind)
}

/// `ValueError: x`, as uWSGI and the log have it, or `ValueError('x')` with quotes of either kind.
fn is_representation(text: &str, kind: &str, value: &str) -> bool {
    if let Some((name, rest)) = text.split_once(": ")
        && is_class(name, kind)
        && rest == value
    {
        return true;
    }
    let Some((name, rest)) = text.split_once('(') else { return false };
    let inside = rest.strip_suffix(')').unwrap_or(rest).trim_end_matches(',');
    // The text of a KeyError has quotes of its own.
    is_class(name, kind) && (inside == value || inside.trim_matches(['\'', '"']) == value)
}

fn touch_exec(config: &mut Config, value: &str) -> Result<(), String> {
    let (file, command) = value.split_once(' ').ok_or("a file, a blank and a command")?;
    config.reactions.touch_exec.push((file.into(), command.into()));
    Ok(())
}

fn reload_on_fd(config: &mut Config, text: &str, is_brutal: bool) -> Result<(), String> {
    let expected = || "a descriptor (3 or more) that the server inherits, as in 5 or 5:8".to_owned();
    let (fd, bytes) = text.split_once(':').unwrap_or((text, "1"));
    let fd = value::number(fd, &(3..=1 << 20)).map_err(|_| expected())?;
    let bytes = value::number(bytes, &(0..=65_536_usize)).map_err(|_| expected())?.max(1);
    config.reactions.reload_on_fd.push((fd, bytes, is_brutal));
    Ok(())
}

#[rustfmt::skip]
pub(crate) static ROWS: &[Row] = &[
    Row { names: &["touch-exec"], kind: Custom(touch_exec), takes: "FILE COMMAND", repeats: true, is_for_shell: true,
          help: "Run this command when the file changes", ..RELOAD },
    Row { names: &["touch-logrotate"], kind: Paths(|c| &mut c.reactions.touch_logrotate), takes: "FILE",
          help: "Put the log file aside and open a new one when this file changes", ..RELOAD },
    Row { names: &["fs-reload"], kind: Paths(|c| &mut c.reactions.fs_reload), takes: "PATH",
          help: "Reload when this file, or what is in this directory, changes", ..RELOAD },
    Row { names: &["fs-brutal-reload"], kind: Paths(|c| &mut c.reactions.fs_brutal_reload), takes: "PATH",
          help: "The same, without time for the requests in progress", ..RELOAD },
    Row { names: &["reload-on-fd"], kind: Custom(|c, value| reload_on_fd(c, value, false)), takes: "FD[:BYTES]", repeats: true,
          help: "Reload when this inherited descriptor can be read", ..RELOAD },
    Row { names: &["brutal-reload-on-fd"], kind: Custom(|c, value| reload_on_fd(c, value, true)), takes: "FD[:BYTES]",
          repeats: true, help: "The same, without time for the requests in progress", ..RELOAD },
    Row { names: &["exit-on-reload"], kind: Flag(|c| &mut c.reactions.exit_on_reload),
          help: "Stop where a reload is asked for, for a supervisor to start the server again", ..RELOAD },
    Row { names: &["die-on-idle"], kind: Flag(|c| &mut c.reactions.die_on_idle),
          help: "Stop the server when idle has passed without a request", ..RELOAD },
    Row { names: &["reload-on-exception"], kind: Flag(|c| &mut c.reactions.exceptions.any),
          help: "Replace a worker when the application raises", ..RELOAD },
    Row { names: &["reload-on-exception-type"], kind: Texts(|c| &mut c.reactions.exceptions.types), takes: "CLASS",
          help: "Replace a worker when the application raises an exception of this class", ..RELOAD },
    Row { names: &["reload-on-exception-value"], kind: Texts(|c| &mut c.reactions.exceptions.values), takes: "TEXT",
          help: "Replace a worker when the application raises an exception with this text", ..RELOAD },
    Row { names: &["reload-on-exception-repr"], kind: Texts(|c| &mut c.reactions.exceptions.representations), takes: "CLASS: TEXT",
          help: "Replace a worker when the application raises an exception of this class and text", ..RELOAD },
    Row { names: &["catch-exceptions"], kind: Flag(|c| &mut c.reactions.catch_exceptions),
          help: "Show the client what the application raised, with the traceback and the request: for development only", ..RELOAD },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exceptions_are_told_apart() {
        let only = |representation: &str| ReloadOnException {
            representations: vec![representation.into()],
            ..ReloadOnException::default()
        };
        for text in ["ValueError('x y')", "ValueError(\"x y\",)", "ValueError: x y", "builtins.ValueError: x y"] {
            assert!(only(text).matches("ValueError", "x y"), "{text}");
            assert!(!only(text).matches("ValueError", "x"), "{text}");
            assert!(!only(text).matches("KeyError", "x y"), "{text}");
        }
        assert!(only("KeyError('x')").matches("KeyError", "'x'"));
        let by_type = ReloadOnException { types: vec!["builtins.KeyError".into()], ..ReloadOnException::default() };
        assert!(by_type.matches("KeyError", "anything") && !by_type.matches("ValueError", "KeyError"));
        assert!(!ReloadOnException::default().matches("KeyError", ""));
        assert!(ReloadOnException::default().is_empty() && !by_type.is_empty());
    }
}
