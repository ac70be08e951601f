//! What is fuzzed, as plain functions over bytes, so that a fuzzer and an ordinary test can both call them.
//!
//! There is one target for each place where bytes of strangers are read. A target does not only wait for a panic: it
//! knows what must hold whatever comes in (every frame delivered or counted, nothing answered that was not asked,
//! what is cut and merged comes out as it went in) and asserts it.
//!
//! | target         | whose bytes                                                    |
//! |----------------|----------------------------------------------------------------|
//! | `datagram`     | anyone's, on the UDP port                                      |
//! | `handshake`    | anyone's, as far as the gate lets them: what a tunnel opens      |
//! | `inner_packet` | an authenticated but hostile peer's, out of its tunnel         |
//! | `fragment`     | the same peer's, in pieces and over time                       |
//! | `frame`        | a container's, from a TAP, and what two switches make of them  |
//! | `merge`        | frames of a tunnel on their way to a TAP                       |
//! | `config`       | the configuration file                                         |
//! | `request`      | a caller's, on the control socket                              |
//!
//! `tests/fuzz_corpus.rs` replays every file of `corpus/` with these functions and makes the seeds among them
//! ([`seeds`]); it includes this file by path, so everything here is named relative to it.

pub mod config;
pub mod datagram;
mod draft;
pub mod fragment;
pub mod frame;
pub mod handshake;
pub mod inner_packet;
mod input;
pub mod merge;
pub mod request;
pub mod seeds;
mod world;

/// Takes an input, and panics when something does not hold.
pub type Target = fn(&[u8]);

/// Every target by its name, which is also its directory in `corpus/`.
pub const TARGETS: &[(&str, Target)] = &[
    ("config", config::run),
    ("datagram", datagram::run),
    ("fragment", fragment::run),
    ("frame", frame::run),
    ("handshake", handshake::run),
    ("inner_packet", inner_packet::run),
    ("merge", merge::run),
    ("request", request::run),
];
