//! What must survive a restart of ours: Docker tells it once.

use super::options::NetworkOptions;
use crate::wire::cidr::Cidr;
use crate::wire::ethernet::Mac;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// One thing to remember.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// A network of Docker's.
    Network(NetworkRecord),
    /// A container's presence in one.
    Endpoint(EndpointRecord),
}

impl Record {
    /// Where it is kept, in place of what was there.
    pub fn slot(&self) -> String {
        match self {
            Self::Network(network) => network_slot(&network.id),
            Self::Endpoint(endpoint) => endpoint_slot(&endpoint.id),
        }
    }
}

/// Where a network is kept.
pub fn network_slot(id: &str) -> String {
    format!("network:{id}")
}

/// Where an endpoint is kept.
pub fn endpoint_slot(id: &str) -> String {
    format!("endpoint:{id}")
}

/// A network of Docker's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkRecord {
    /// Docker's id for it.
    pub id: String,
    /// What was asked for with it.
    pub options: NetworkOptions,
    /// Addresses set aside.
    pub aux: Vec<IpAddr>,
}

/// A container's presence in a network of Docker's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointRecord {
    /// Docker's id for it.
    pub id: String,
    /// Docker's id for the network.
    pub network_id: String,
    /// The weft network.
    pub network: String,
    /// The port's name.
    pub port: String,
    /// The interface's name in the host's namespace.
    pub source: String,
    /// Its addresses.
    pub addresses: Vec<Cidr>,
    /// Of these, the ones that Docker has from another IPAM driver: leased by us, and to be released by us.
    pub claimed: Vec<IpAddr>,
    /// Its MAC address.
    pub mac: Mac,
    /// Where Docker says the container's namespace is.
    pub sandbox: Option<String>,
    /// What Docker's API said that the container is called.
    #[serde(default)]
    pub names: Vec<String>,
}

impl EndpointRecord {
    /// Whether it has an address.
    pub fn has(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|have| have.address == address)
    }
}
