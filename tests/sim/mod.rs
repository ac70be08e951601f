//! A simulated world, what happens in it, and who watches. The tests of the tunnel borrow the world alone.

mod acts;
mod frames;
mod ledger;
mod multicast;
pub(crate) mod play;
mod rng;
mod service;
mod stations;
mod super_frames;
#[allow(dead_code, reason = "the tests of the tunnel use the rest")]
mod world;
