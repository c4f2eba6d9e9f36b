//! The spooler's directory: jobs as files, one each, how they are written, found, taken and put off.
//!
//! Several processes, of several servers, uWSGI's among them, may share a directory: what keeps them from running a job
//! twice is a lock on its file ([`claim`]). What a process knows of the directory is its own ([`index`], [`watch`]) and
//! may be out of date; the file decides. Only a job whose function has said that it is done is removed.
//!
//! Not here: the process that runs the jobs (`auxiliary/spooler.rs`), what a job's function is (`api/spool.rs`), when a
//! process is started or killed (the master).

pub(crate) mod claim;
mod directory;
pub(crate) mod index;
pub(crate) mod job;
mod survey;
pub(crate) mod tries;
pub(crate) mod watch;
pub(crate) mod write;

pub(crate) use self::directory::{JobDirectory, prepare};
pub(crate) use self::survey::{Queue, jobs_in, survey};
