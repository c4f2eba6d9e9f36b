//! `rwsgi ctl`: asks a running server through its control socket, and prints what it answers.

mod client;
mod print;
mod words;

use std::ffi::OsString;

use rwsgi_stats::control::Reply;

use self::words::Call;

/// It was done.
const DONE: i32 = 0;
/// The server did not do it, or broke off.
const FAILED: i32 = 1;
/// The words say nothing that can be asked.
const USAGE: i32 = 2;
/// No server is there to be asked.
const NO_SERVER: i32 = 3;

/// Does what the words say that follow `rwsgi ctl`; returns the exit status.
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
    let mut client = match client::Client::find(&call.server) {
        Ok(client) => client,
        Err(why) => {
            eprintln!("rwsgi ctl: {why:#}");
            return Ok(NO_SERVER);
        }
    };
    let asked = client.ask(&call.request, |progress| eprintln!("{progress}"));
    match asked {
        Ok(Reply::Done(answer)) => {
            print::print(&answer, call.as_json)?;
            Ok(DONE)
        }
        Ok(Reply::Failed(why) | Reply::Progress(why)) => {
            eprintln!("rwsgi ctl: {why}");
            Ok(FAILED)
        }
        Err(why) => {
            eprintln!("rwsgi ctl: {why:#}");
            Ok(FAILED)
        }
    }
}
