//! `weft names`: what is asked of the daemon, and what it answers.

use crate::wire::service::Service;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// The name that `weft names add` adds to a network: for what is outside of weft, or to say what a name offers. What the name has
/// already stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AddName {
    /// The network's name.
    pub network: String,
    /// The name, with or without the network's domain.
    pub name: String,
    /// Its addresses.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// What it offers.
    #[serde(default)]
    pub services: Vec<Service>,
}

/// What `weft names remove` takes back; all that was added to the name here, where neither addresses nor services are given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RemoveName {
    /// The network's name.
    pub network: String,
    /// The name, with or without the network's domain.
    pub name: String,
    /// Only these addresses.
    #[serde(default)]
    pub addresses: Vec<IpAddr>,
    /// Only these services.
    #[serde(default)]
    pub services: Vec<Service>,
}

/// A name as one member has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NameStatus {
    /// The name, below the network's domain.
    pub name: String,
    /// The network's name.
    pub network: String,
    /// The domain.
    pub zone: String,
    /// Its addresses there.
    pub addresses: Vec<IpAddr>,
    /// What it offers.
    pub services: Vec<Service>,
    /// Whose it is.
    pub member: String,
    /// `attachment` (a port has it) or `added`.
    pub kind: String,
}
