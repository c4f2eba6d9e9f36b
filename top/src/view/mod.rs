//! What is seen: a screen made from the model, and the keys that change what it shows.
//!
//! Nothing here knows of sockets or files; a screen draws into a buffer and can be tested without a terminal.

mod acting;
mod actions;
mod asking;
mod charts;
mod detail;
mod escape;
mod filter;
mod findings;
mod flame;
mod fleet;
mod frame;
mod generations;
mod header;
mod inside;
pub(crate) mod keys;
mod layout;
mod lists;
mod live;
mod marks;
mod memory;
mod merged;
mod overlay;
pub(crate) mod panes;
mod playback;
mod screen;
mod selection;
mod spark;
mod stacks;
mod table;
mod targets;
mod terminal;
#[cfg(test)]
pub(crate) mod tests;
mod theme;

pub(crate) use escape::painted;
#[cfg(test)]
pub(crate) use fleet::FLEET_KEYS;
pub(crate) use fleet::{Drill, FleetScreen};
pub(crate) use live::{Deliver, Face, Feed, run};
pub(crate) use playback::{FAST, Pace};
pub(crate) use screen::{Screen, Setup};
pub(crate) use theme::{Colors, PALETTES, Role, Theme, palette, usual_colors};
