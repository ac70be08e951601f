//! The ways between members behind NATs and firewalls, on a network in virtual time.

#![allow(clippy::unwrap_used)]

#[path = "paths/choice.rs"]
mod choice;
#[path = "paths/churn.rs"]
mod churn;
#[path = "paths/nat.rs"]
mod nat;
#[path = "paths/punching.rs"]
mod punching;
#[allow(dead_code)]
#[path = "sim/rng.rs"]
mod rng;
#[path = "paths/world.rs"]
mod world;
