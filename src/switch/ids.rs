//! How the switch names what a frame can come from and go to.
//!
//! The control plane gives the numbers and never gives one again while the daemon runs, so that a worker holding an
//! old topology cannot mean the wrong port.

/// A local port: a TAP in one network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortId(pub u32);

/// Another member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub u32);

/// Where a station is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// Behind a local port.
    Port(PortId),
    /// Behind another member.
    Peer(PeerId),
}
