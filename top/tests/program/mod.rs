//! The program without a terminal, servers that count, and files of a test's own.

#![allow(clippy::unwrap_used)]
#![allow(dead_code, reason = "not every test needs all of it")]

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use super::stats_server::Answer;

/// A server that has served 100 more requests each time it is asked, two of them with an exception.
pub(crate) fn counting(poll: u64) -> Answer {
    document(7, 100 * poll, 2 * poll)
}

pub(crate) fn document(pid: u64, requests: u64, exceptions: u64) -> Answer {
    Answer::Text(format!(
        r#"{{"version":"2.0.31","pid":{pid},"workers":[{{"id":1,"pid":8,"status":"idle","requests":{requests},
        "exceptions":{exceptions},"rss":52428800,"respawn_count":1,"cores":[{{"id":0,"requests":{requests}}}]}}]}}"#
    ))
}

pub(crate) fn rtop(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rtop"));
    command.args(arguments).env("LC_ALL", "C").stdin(Stdio::null());
    command.output().unwrap()
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A file of this test alone, gone when it is over.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("rtop-{}-{name}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        Self(path)
    }

    pub(crate) fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    pub(crate) fn read(&self) -> String {
        std::fs::read_to_string(&self.0).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
