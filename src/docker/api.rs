//! The bodies of Docker's calls. Everything may be absent or `null`, and what is not known is passed over: Docker's
//! versions differ in what they send.

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// `null` is what is absent.
fn lax<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Option::<T>::deserialize(from).map(Option::unwrap_or_default)
}

/// `NetworkDriver.CreateNetwork`, and `DeleteNetwork`, which says only which one.
#[derive(Debug, Default, Deserialize)]
pub struct Network {
    /// Its id, of this host alone.
    #[serde(default, rename = "NetworkID", deserialize_with = "lax")]
    pub id: String,
    /// Among them, under `com.docker.network.generic`, those that people give.
    #[serde(default, rename = "Options", deserialize_with = "lax")]
    pub options: Map<String, Value>,
    /// Its IPv4 subnets.
    #[serde(default, rename = "IPv4Data", deserialize_with = "lax")]
    pub v4: Vec<Pool>,
    /// Its IPv6 subnets.
    #[serde(default, rename = "IPv6Data", deserialize_with = "lax")]
    pub v6: Vec<Pool>,
}

/// A subnet of a network.
#[derive(Debug, Default, Deserialize)]
pub struct Pool {
    /// As CIDR; `0.0.0.0/0` where Docker's IPAM driver is `null`.
    #[serde(default, rename = "Pool", deserialize_with = "lax")]
    pub pool: String,
    /// Addresses that are not to be given, by what people call them; with prefix length.
    #[serde(default, rename = "AuxAddresses", deserialize_with = "lax")]
    pub aux: BTreeMap<String, String>,
}

/// `NetworkDriver.CreateEndpoint`, `Join`, `Leave`, `DeleteEndpoint` and `ProgramExternalConnectivity`: each says a part.
#[derive(Debug, Default, Deserialize)]
pub struct Endpoint {
    /// The network's id.
    #[serde(default, rename = "NetworkID", deserialize_with = "lax")]
    pub network: String,
    /// Its own.
    #[serde(default, rename = "EndpointID", deserialize_with = "lax")]
    pub id: String,
    /// What Docker knows of the interface.
    #[serde(default, rename = "Interface", deserialize_with = "lax")]
    pub interface: Interface,
    /// Where the container's namespace is, or will be.
    #[serde(default, rename = "SandboxKey", deserialize_with = "lax")]
    pub sandbox: String,
    /// Docker's own, and those of `--driver-opt`.
    #[serde(default, rename = "Options", deserialize_with = "lax")]
    pub options: Map<String, Value>,
}

/// An endpoint's interface; what is empty, the driver may choose.
#[derive(Debug, Default, Deserialize)]
pub struct Interface {
    /// IPv4 address with prefix length.
    #[serde(default, rename = "Address", deserialize_with = "lax")]
    pub v4: String,
    /// IPv6 address with prefix length.
    #[serde(default, rename = "AddressIPv6", deserialize_with = "lax")]
    pub v6: String,
    /// MAC address.
    #[serde(default, rename = "MacAddress", deserialize_with = "lax")]
    pub mac: String,
}

/// `IpamDriver.RequestPool`.
#[derive(Debug, Default, Deserialize)]
pub struct RequestPool {
    /// One of those that we named.
    #[serde(default, rename = "AddressSpace", deserialize_with = "lax")]
    pub space: String,
    /// `--subnet`, if one was given.
    #[serde(default, rename = "Pool", deserialize_with = "lax")]
    pub pool: String,
    /// `--ip-range`, if one was given.
    #[serde(default, rename = "SubPool", deserialize_with = "lax")]
    pub range: String,
    /// `--ipam-opt`.
    #[serde(default, rename = "Options", deserialize_with = "lax")]
    pub options: Map<String, Value>,
    /// Whether it is one of IPv6.
    #[serde(default, rename = "V6", deserialize_with = "lax")]
    pub v6: bool,
}

/// `IpamDriver.RequestAddress` and `ReleaseAddress`.
#[derive(Debug, Default, Deserialize)]
pub struct Address {
    /// As we named it.
    #[serde(default, rename = "PoolID", deserialize_with = "lax")]
    pub pool: String,
    /// The one wanted; empty leaves the choice to us.
    #[serde(default, rename = "Address", deserialize_with = "lax")]
    pub address: String,
    /// Among them, whether it is for the gateway.
    #[serde(default, rename = "Options", deserialize_with = "lax")]
    pub options: Map<String, Value>,
}
