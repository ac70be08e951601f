//! Formats: pure functions over bytes. No state, no time, no I/O; nothing of ours is imported here.
//!
//! # The overhead ruler
//!
//! ```text
//!  underlay IP  UDP  WireGuard   inner IPv4  UDP  VXLAN  Ethernet   the container's packet      WireGuard tag
//! |  20 / 40  |  8 |    16    |     20     |  8 |   8  |    14    |                           |      16      |
//!                             |<- INNER_OVERHEAD = 36 ->|<------------ frame ----------------->|
//!                             |<------------------ inner packet ------------------------------>|
//!             |<- one UDP datagram, never fragmented outside (DF) ---------------------------------------------|
//! ```
//!
//! On a 1500-byte IPv4 path the inner packet is at most 1440 bytes (1420 over IPv6), so a frame of 1404 bytes
//! (an IP packet of 1390) crosses unfragmented. A larger one is fragmented as an IPv4 packet *inside* the tunnel.

pub mod announce;
pub mod bytes;
pub mod checksum;
pub mod cidr;
pub mod ethernet;
pub mod fragment;
pub mod igmp;
pub mod key;
pub mod merge;
pub mod message;
pub mod mld;
pub mod mss;
pub mod multicast;
pub mod name;
pub mod neighbour;
pub mod packet;
pub mod ports;
pub mod range;
pub mod segment;
pub mod service;
pub mod stream;
#[cfg(test)]
pub(crate) mod testing;
pub mod vnet;
pub mod vxlan;
pub mod way;

/// Bytes were not what the format requires. Malformed is malformed: the caller counts it and goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed")]
pub struct Malformed;

/// Inner IPv4 (20) + UDP (8) + VXLAN (8) in front of a frame.
pub const INNER_OVERHEAD: usize = 36;
/// WireGuard's data header (16) and authentication tag (16).
pub const WIREGUARD_OVERHEAD: usize = 32;
/// Outer IPv4 (20) + UDP (8).
pub const UNDERLAY_OVERHEAD_V4: usize = 28;
/// Outer IPv6 (40) + UDP (8).
pub const UNDERLAY_OVERHEAD_V6: usize = 48;
/// The smallest path MTU we assume of any underlay: IPv6's minimum link MTU (RFC 8200 §5).
pub const MIN_PATH_MTU: u16 = 1280;
/// The largest port MTU a network may ask for.
pub const MAX_PORT_MTU: u16 = 9000;
/// The largest frame without FCS: the largest port MTU, Ethernet, and two VLAN tags.
pub const MAX_FRAME: usize = MAX_PORT_MTU as usize + 14 + 8;
/// The largest super-frame a TAP hands over: 64 KiB of IP behind Ethernet and two VLAN tags.
pub const MAX_SUPER_FRAME: usize = 65_535 + 14 + 8;
/// UDP port of the mesh's own messages inside a tunnel ("WEFT" on a telephone keypad).
pub const MESH_PORT: u16 = 9338;
/// UDP port of relayed datagrams inside a tunnel: those of a pair of members that have no way of their own.
pub const RELAY_PORT: u16 = 9339;
/// UDP port of VXLAN (RFC 7348 §5).
pub const VXLAN_PORT: u16 = 4789;
