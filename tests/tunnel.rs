//! The tunnel against what boringtun 0.7.1 gets wrong, and against strangers: real switches, virtual time.
//!
//! Each defect that the header of `src/switch/tunnel.rs` lists has a test here that shows it does not bite. Hours pass in
//! milliseconds, see `sim/clock.rs`.

#![allow(clippy::unwrap_used)]
// What is shared with the simulation is not all needed here.
#![allow(dead_code)]

mod sim;
mod tunnels;
