//! What is seen: a screen made from the model, and the keys that change what it shows.
//!
//! Nothing here knows of sockets or files; a screen draws into a buffer and can be tested without a terminal.

pub(crate) mod columns;
mod header;
pub(crate) mod keys;
mod live;
mod screen;
mod table;
mod terminal;
#[cfg(test)]
mod tests;
mod theme;

pub(crate) use live::{Options, run};
pub(crate) use screen::Screen;
pub(crate) use theme::{Theme, ascii};
