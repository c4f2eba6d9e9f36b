//! Without a screen: tables, JSON, CSV for files and pipes; assertions, verdicts and exit codes for CI.

mod assert_file;
mod batch;
mod ending;
mod fleet;
mod generations;
mod html;
mod judge;
mod lines;
mod memory;
mod output;
mod profile;
mod servers;
mod stacks;
#[cfg(test)]
mod tests;
mod timeline;
mod verdict;
mod watch;
mod window;

pub(crate) use assert_file::parse_file;
pub(crate) use batch::Batch;
pub(crate) use fleet::json_schema as fleet_json_schema;
pub(crate) use fleet::{refusal, watch_fleet};
pub(crate) use judge::{Baseline, Phases};
pub(crate) use lines::json_schema;
pub(crate) use memory::{LONGER, QUESTIONS, memory, memory_question, report_lines};
pub(crate) use profile::{Destination, Sampling, is_patchy, profile, profile_file, samples_in_short};
pub(crate) use servers::{servers_json, servers_text};
#[cfg(test)]
pub(crate) use stacks::tests::stacks as stacks_of_a_test;
pub(crate) use stacks::{Part, doing, name_of, request_of, stacks};
pub(crate) use watch::{End, Format, Plan, baseline, replay, watch};
