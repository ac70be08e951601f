//! The mesh as those have it who run it: hosts that join by a line, members that are let go, containers that move, relays
//! (the real binary on hosts of a lab).

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;
mod meshes;
mod support;
