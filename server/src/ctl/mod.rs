//! `rwsgi ctl`: asks a running server through its control socket, and prints what it answers.

mod client;
mod find;
mod interrupt;
mod print;
mod trial;
mod words;

use std::ffi::OsString;

use rwsgi_stats::control::Reply;

use self::words::{Call, Wanted};

/// It was done.
const DONE: i32 = 0;
/// The server did not do it, or broke off.
const FAILED: i32 = 1;
/// The command line is wrong.
const USAGE: i32 = 2;
/// There is no server to ask, or it is not clear which.
const NO_SERVER: i32 = 3;

/// Does what the words after `rwsgi ctl` say; returns the exit status.
///
/// # Errors
/// When standard output cannot be written to.
pub(crate) fn run(words: Vec<OsString>) -> anyhow::Result<i32> {
    let call = match Call::parse(words) {
        Ok(call) => call,
        Err(usage) => {
            usage.print()?;
            return Ok(if usage.use_stderr() { USAGE } else { DONE });
        }
    };
    let request = match call.wanted {
        Wanted::Servers => {
            let found = find::servers();
            if found.is_empty() {
                print::complain(&format!(
                    "no server of this user has a control socket of the default name: {}",
                    find::ADVICE
                ));
                return Ok(NO_SERVER);
            }
            print::servers(found, call.as_json)?;
            return Ok(DONE);
        }
        Wanted::Trial(trial) => return trial::run(&call.server, &trial, call.as_json),
        Wanted::Request(request) => request,
    };
    let mut client = match find::client(&call.server) {
        Ok(client) => client,
        Err(why) => {
            print::complain(&format!("{why:#}"));
            return Ok(NO_SERVER);
        }
    };
    match client.ask(&request, print::progress) {
        Ok(Reply::Done(answer)) => {
            print::answer(&answer, call.as_json)?;
            Ok(DONE)
        }
        Ok(Reply::Failed(why) | Reply::Progress(why)) => {
            print::complain(&why);
            Ok(FAILED)
        }
        Err(why) => {
            print::complain(&format!("{why:#}"));
            Ok(FAILED)
        }
    }
}
