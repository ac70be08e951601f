//! What is fuzzed, as plain functions over bytes, so that a fuzzer and an ordinary test can both call them.
//!
//! There is one target for each place where bytes of strangers are read. A target does not only wait for a panic: it
//! knows what must hold whatever comes in (every frame delivered or counted, nothing answered that was not asked,
//! what is cut and merged comes out as it went in) and asserts it.
//!
//! | target         | whose bytes                                                    |
//! |----------------|----------------------------------------------------------------|
//! | `datagram`     | anyone's, on the UDP port                                      |
//! | `stream`       | anyone's, on a TCP connection                                  |
//! | `beacon`       | anyone's on the LAN, to the members' multicast group           |
//! | `handshake`    | anyone's, as far as the gate lets them: what a tunnel opens      |
//! | `inner_packet` | an authenticated but hostile peer's, out of its tunnel         |
//! | `fragment`     | the same peer's, in pieces and over time                       |
//! | `frame`        | a container's, from a TAP, and what two switches make of them  |
//! | `service`      | a container's to its network's service address                |
//! | `merge`        | frames of a tunnel on their way to a TAP                       |
//! | `multicast`    | a container's, as far as they say what it listens to           |
//! | `message`      | an authenticated but hostile peer's, to the mesh, over all ways |
//! | `gossip`       | a member's that lies, and a stranger's: what it says of members |
//! | `config`       | the configuration file                                         |
//! | `docker`       | Docker's, on its plugin socket, and its API's                  |
//! | `request`      | a caller's, on the control socket                              |
//! | `cni`          | a container runtime's, and an IPAM plugin's                    |
//! | `dns`          | a container's that asks for names, and a resolver's that answers |
//! | `certificate`  | a member's, and an authority's that signs anything             |
//! | `ledger`       | the same authority's, over time                                |
//! | `token`        | whoever says that it invites us                                |
//! | `trust_message` | a stranger's and a hostile member's, about trust              |
//!
//! `tests/fuzz_corpus.rs` replays every file of `corpus/` with these functions and makes the seeds among them
//! ([`seeds`]); it includes this file by path, so everything here is named relative to it.

pub mod beacon;
pub mod certificate;
pub mod cni;
pub mod config;
pub mod datagram;
pub mod dns;
pub mod docker;
mod draft;
pub mod fragment;
pub mod frame;
pub mod gossip;
pub mod handshake;
pub mod inner_packet;
mod input;
pub mod ledger;
pub mod merge;
pub mod message;
pub mod multicast;
pub mod request;
pub mod seeds;
pub mod service;
pub mod stream;
pub mod token;
pub mod trust_message;
mod trust_seeds;
mod world;

/// Takes an input, and panics when something does not hold.
pub type Target = fn(&[u8]);

/// Every target by its name, which is also its directory in `corpus/`.
pub const TARGETS: &[(&str, Target)] = &[
    ("beacon", beacon::run),
    ("certificate", certificate::run),
    ("cni", cni::run),
    ("config", config::run),
    ("datagram", datagram::run),
    ("dns", dns::run),
    ("docker", docker::run),
    ("fragment", fragment::run),
    ("frame", frame::run),
    ("gossip", gossip::run),
    ("handshake", handshake::run),
    ("inner_packet", inner_packet::run),
    ("ledger", ledger::run),
    ("merge", merge::run),
    ("multicast", multicast::run),
    ("message", message::run),
    ("request", request::run),
    ("service", service::run),
    ("stream", stream::run),
    ("token", token::run),
    ("trust_message", trust_message::run),
];
