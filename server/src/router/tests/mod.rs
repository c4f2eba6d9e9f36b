//! The router with real sockets. The tests are its clients and its workers at once, so that they decide the order of
//! everything and wait for nothing but what must come.

mod ahead;
mod hand_over;
mod leaving;
mod limits;
mod not_begun;
mod requests;
mod rig;
mod schedules;
