//! A process of a Python's program that enters the server before Python starts there, and so without what a Python that runs
//! nothing takes: 3 MB, and the time of its start.
//!
//! The package has no program of its own. But what `LD_PRELOAD` names is loaded into a program before its `main` runs, and
//! may do so itself (`crate::python` does). A process that is to be one without Python is executed with the extension in
//! `LD_PRELOAD`, and in [`TOLD`] how it is to be entered. Both variables are gone before anything else runs. Where the system
//! does not load it (a Python with capabilities of its file), Python starts and enters the server as ever: so the command
//! line is always one that does that.

#![allow(unsafe_code)]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The variable `PROCESS:COUNT:PROGRAM`: for which process it is (0 for one that is about to be made), how many words of its
/// command line come before the name that the server is called by, and the program that starts Python.
const TOLD: &str = "RWSGI_WITHOUT_PYTHON";
const PRELOAD: &str = "LD_PRELOAD";
/// The file beside the extension that enters the server in a Python.
const LAUNCH: &str = "launch.py";

/// How the server is entered.
#[derive(Debug, PartialEq)]
pub(crate) struct Entry {
    /// The name that it is called by, and its arguments.
    pub(crate) arguments: Vec<OsString>,
    /// What starts Python.
    pub(crate) program: OsString,
    /// The extension.
    pub(crate) library: PathBuf,
}

impl Entry {
    /// What this process was told, which it then forgets; `None` when it was told nothing.
    pub(crate) fn take() -> Option<Self> {
        let told = std::env::var_os(TOLD)?;
        let command = std::fs::read("/proc/self/cmdline").unwrap_or_default();
        let entry = Self::read(&told, std::env::var_os(PRELOAD).as_deref(), &command, std::process::id())?;
        forget();
        Some(entry)
    }

    /// The file by which a Python enters the server.
    pub(crate) fn launch(&self) -> PathBuf {
        self.library.with_file_name(LAUNCH)
    }

    /// `None` when that is not meant for this process.
    fn read(told: &OsStr, preload: Option<&OsStr>, command: &[u8], process: u32) -> Option<Self> {
        let mut told = told.as_bytes().splitn(3, |byte| *byte == b':');
        let mut number = || std::str::from_utf8(told.next()?).ok()?.parse::<usize>().ok();
        let (for_process, before) = (number()?, number()?);
        let program = OsStr::from_bytes(told.next()?).to_owned();
        let library = PathBuf::from(preloaded(preload?).find(|library| is_ours(library))?);
        let words: Vec<OsString> =
            command.strip_suffix(b"\0")?.split(|byte| *byte == 0).map(|word| OsStr::from_bytes(word).into()).collect();
        let arguments = words.get(before..).filter(|arguments| !arguments.is_empty())?.to_vec();
        // One that was made by somebody who was told before has another command line.
        let is_launched = || before == 2 && words[1] == "-S" && Path::new(&words[2]) == library.with_file_name(LAUNCH);
        (for_process == process as usize || for_process == 0 && is_launched()).then_some(Self {
            arguments,
            program,
            library,
        })
    }
}

/// Takes what was told out of the environment.
pub(crate) fn forget() {
    if std::env::var_os(TOLD).is_none() {
        return;
    }
    let preload = std::env::var_os(PRELOAD);
    // SAFETY: this process has no other thread yet that reads the environment: it begins here, before the server does.
    unsafe {
        std::env::remove_var(TOLD);
        match preload.as_deref().map(others) {
            Some(others) if others.is_empty() => std::env::remove_var(PRELOAD),
            Some(others) => std::env::set_var(PRELOAD, others),
            None => {}
        }
    }
}

/// The libraries of `LD_PRELOAD`.
fn preloaded(preload: &OsStr) -> impl Iterator<Item = &OsStr> {
    preload.as_bytes().split(|byte| matches!(byte, b':' | b' ')).map(OsStr::from_bytes)
}

/// Not by its place: a library that was loaded before may have put itself in front.
fn is_ours(library: &OsStr) -> bool {
    Path::new(library).file_name().is_some_and(|name| name.as_bytes().starts_with(b"_rwsgi."))
}

/// `LD_PRELOAD` without our library, with which nothing but a Python can be started.
fn others(preload: &OsStr) -> OsString {
    let others: Vec<_> = preloaded(preload).filter(|library| !is_ours(library)).collect();
    others.join(OsStr::new(":"))
}

/// What has a process that is about to be started enter the server without Python.
pub(crate) struct Way {
    /// What is to be executed: the very program of this process, for a script in its place would be run by a shell.
    pub(crate) path: OsString,
    /// Variables for its environment.
    pub(crate) variables: [(OsString, OsString); 2],
}

impl Way {
    /// `None` where that is not possible: a program that was replaced, a path that `LD_PRELOAD` cannot hold.
    pub(crate) fn find(program: &OsStr, library: &Path) -> Option<Self> {
        let path = std::env::current_exe().ok().filter(|path| path.exists())?;
        let library = library.as_os_str();
        if library.as_bytes().iter().any(|byte| byte.is_ascii_whitespace() || matches!(byte, b':' | b'$')) {
            return None;
        }
        let mut preload = library.to_owned();
        if let Some(others) = std::env::var_os(PRELOAD).filter(|others| !others.is_empty()) {
            preload.push(":");
            preload.push(others);
        }
        let mut told = OsString::from("0:2:");
        told.push(program);
        Some(Self { path: path.into(), variables: [(PRELOAD.into(), preload), (TOLD.into(), told)] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(told: &str, preload: &str, command: &[u8]) -> Option<(Vec<OsString>, OsString, PathBuf)> {
        let entry = Entry::read(told.as_ref(), Some(preload.as_ref()), command, 7)?;
        Some((entry.arguments, entry.program, entry.library))
    }

    #[test]
    fn what_others_preload_stays() {
        for (preload, rest) in [
            ("/p/_rwsgi.abi3.so", ""),
            ("/p/_rwsgi.abi3.so:/l/a.so /l/b.so:c.so", "/l/a.so:/l/b.so:c.so"),
            ("/l/agent.so:/p/_rwsgi.abi3.so", "/l/agent.so"),
            ("/l/agent.so /p/_rwsgi.abi3.so", "/l/agent.so"),
            ("/l/a.so", "/l/a.so"),
        ] {
            assert_eq!(others(preload.as_ref()), rest, "{preload}");
        }
    }

    #[test]
    fn a_process_enters_that_was_meant() {
        let entered = |arguments: &[&str]| {
            Some((arguments.iter().map(Into::into).collect(), "/v/bin/python".into(), "/p/_rwsgi.so".into()))
        };
        let console = b"/v/bin/python\0/v/bin/rwsgi\0--http\0:8000\0\0";
        let told = "7:1:/v/bin/python";
        assert_eq!(read(told, "/p/_rwsgi.so", console), entered(&["/v/bin/rwsgi", "--http", ":8000", ""]));
        assert_eq!(read(told, "/p/_rwsgi.so:/lib/other.so", console).map(|entry| entry.2), Some("/p/_rwsgi.so".into()));
        assert_eq!(read(told, "/lib/agent.so:/p/_rwsgi.so", console).map(|entry| entry.2), Some("/p/_rwsgi.so".into()));
        let role = b"/v/bin/python\0-S\0/p/launch.py\0@http\x005\0";
        assert_eq!(read("0:2:/v/bin/python", "/p/_rwsgi.so", role), entered(&["/p/launch.py", "@http", "5"]));
        for (told, command) in [
            ("8:1:/v/bin/python", console.as_slice()),
            ("0:1:/v/bin/python", console),
            ("0:2:/v/bin/python", b"/v/bin/python\0-S\0/q/launch.py\0@http\x005\0"),
            ("7:9:/v/bin/python", console),
            ("7:1", console),
            ("7:1:/v/bin/python", b""),
        ] {
            assert_eq!(read(told, "/p/_rwsgi.so", command), None, "{told}");
        }
    }
}
