//! Without a screen: tables, JSON, CSV for files and pipes; assertions, verdicts and exit codes for CI.

mod assert_file;
mod batch;
mod generations;
mod html;
mod judge;
mod lines;
mod output;
#[cfg(test)]
mod tests;
mod timeline;
mod verdict;
mod watch;
mod window;

pub(crate) use assert_file::parse_file;
pub(crate) use batch::Batch;
pub(crate) use judge::{Baseline, Phases};
pub(crate) use lines::json_schema;
pub(crate) use watch::{End, Format, Plan, baseline, replay, watch};
