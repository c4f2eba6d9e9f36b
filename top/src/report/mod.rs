//! Without a screen: plain tables for files, mails and pipes.

mod batch;

pub(crate) use batch::Batch;
