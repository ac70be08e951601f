//! The tunnel: sessions over hours and outages, and strangers. Real switches, virtual time: hours pass in milliseconds.

#![allow(clippy::unwrap_used)]

#[allow(dead_code, reason = "the simulation uses the rest")]
#[path = "sim/rng.rs"]
mod rng;
mod tunnels;
#[allow(dead_code, reason = "the simulation uses the rest")]
#[path = "sim/world.rs"]
mod world;
