//! weft: a userspace Ethernet switch for containers that spans hosts.
//!
//! Each container gets a TAP **port**. A host's **switch** learns MAC addresses and forwards frames between its
//! ports and, over WireGuard-encrypted UDP, to the other **members** of the mesh. Inside a **tunnel** everything
//! is plain IPv4: frames travel as VXLAN (RFC 7348), the mesh's own messages on one UDP port.
//!
//! # Two planes
//!
//! ```text
//!            control plane (one thread)                      data plane (N identical workers)
//!   config ─► control ─► publishes ─► Topology ─────────────► Switch ◄── TAP reads, UDP batches
//!     ▲          ▲                                              │
//!   file     Request/Response                                   └──► TAP writes, sealed UDP batches
//! ```
//!
//! The *data plane* runs to completion: read, switch, write; no allocation, no clock read and no log line per
//! frame. A frame is delivered or counted under exactly one [`switch::counters::Drop`]. The *control plane* is one
//! thread that owns everything slow. They share an immutable topology snapshot, the FDB, one mutex per peer
//! tunnel, and bounded queues.
//!
//! # Who may import whom
//!
//! ```text
//! main → cli → lab, io, cni, control, trust, switch (why frames are dropped), config, wire
//! io → cni, control, docker, names, mesh, trust, ipam, switch, tunnel, config, wire
//! lab → io, control, trust, config, wire        cni → control, config, wire
//! control → docker, names, mesh, trust, ipam, switch, tunnel, config, wire        docker → config, wire
//! config → wire        names, ipam → wire
//! switch → tunnel, wire        tunnel → aead, wire        mesh → trust, wire        trust → ipam, wire
//! aead, wire → nothing of ours
//! ```
//!
//! Only `io` and `lab` contain `unsafe`, threads, clocks or sockets; the rest are values to which bytes, events and
//! `now` are arguments. `aead` has `unsafe` too, for vector instructions, and nothing else of the world.
//! `tests/architecture.rs` enforces all of this.

pub mod aead;
pub mod cli;
pub mod cni;
pub mod config;
pub mod control;
pub mod docker;
pub mod io;
pub mod ipam;
pub mod lab;
pub mod mesh;
pub mod names;
pub mod switch;
pub mod trust;
pub mod tunnel;
pub mod wire;
