//! The tunnel against what boringtun 0.7.1 gets wrong, and against strangers: real switches, virtual time.
//!
//! Each defect that the header of `src/switch/tunnel.rs` lists has a test here that shows it does not bite. Hours pass in
//! milliseconds, see `sim/clock.rs`.

#![allow(clippy::unwrap_used)]

#[path = "sim/clock.rs"]
mod clock;
#[allow(dead_code, reason = "the simulation uses the rest")]
#[path = "sim/rng.rs"]
mod rng;
mod tunnels;
#[allow(dead_code, reason = "the simulation uses the rest")]
#[path = "sim/world.rs"]
mod world;
