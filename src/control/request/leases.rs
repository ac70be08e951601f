//! Addresses: what is asked of them, and what is shown.

use crate::wire::cidr::Cidr;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// The address wanted for a holder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LeaseWanted {
    /// The network's name.
    pub network: String,
    /// Who gets it: who asks again under the same name has the same address again. `container:NAME:IFNAME`, `cni:ID:IFNAME`; an
    /// engine that does not know for whom it asks makes one up that begins with `docker:`.
    pub holder: String,
    /// Which.
    pub wish: Wish,
}

/// Which address is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Wish {
    /// One of each of these families, out of this member's slices.
    Auto {
        /// An IPv4 address.
        v4: bool,
        /// An IPv6 address.
        v6: bool,
    },
    /// This very one.
    Exactly(IpAddr),
}

/// An address and who has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseStatus {
    /// The network's name.
    pub network: String,
    /// The address, with the prefix length of its network.
    pub address: Cidr,
    /// Who has it: a port's name, or what an engine calls it.
    pub holder: String,
    /// At which member, by name.
    pub member: String,
    /// `in use`; `reserved`, while no port has it yet; or `kept` for a container that may come back.
    pub state: String,
    /// Since when, in seconds since 1970; known on the member that has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// For how many seconds it is kept still.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_s: Option<u64>,
}
