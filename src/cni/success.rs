//! What was made, as runtimes and the next plugin of a list are told it: interfaces, addresses, routes, DNS.
//!
//! One structure for all versions. What a version does not have is left out of it, and the family of an address, which versions
//! before 1.0.0 want said, is put in. Fields of other plugins that mean nothing here are carried along.

use super::error::{CniError, Code};
use super::version::Version;
use crate::wire::cidr::Cidr;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::net::IpAddr;

/// What ADD answers, what an IPAM plugin answers, and what a runtime calls `prevResult`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Success {
    /// Interfaces of the container and, by other plugins, of the host.
    #[serde(deserialize_with = "or_null")]
    pub interfaces: Vec<Interface>,
    /// Their addresses.
    #[serde(deserialize_with = "or_null")]
    pub ips: Vec<Ip>,
    /// What is routed over them.
    #[serde(deserialize_with = "or_null")]
    pub routes: Vec<Route>,
    /// Who resolves names.
    #[serde(deserialize_with = "or_null")]
    pub dns: Dns,
}

/// An interface.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Interface {
    /// Its name.
    #[serde(deserialize_with = "or_null")]
    pub name: String,
    /// Its MAC address.
    #[serde(deserialize_with = "or_null", skip_serializing_if = "String::is_empty")]
    pub mac: String,
    /// Its MTU, from 1.1.0 on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// The container's namespace; empty for an interface of the host.
    #[serde(deserialize_with = "or_null", skip_serializing_if = "String::is_empty")]
    pub sandbox: String,
    /// What others say of it.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// An address.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ip {
    /// With its prefix length.
    pub address: Cidr,
    /// The router of its subnet.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional")]
    pub gateway: Option<IpAddr>,
    /// Which of the interfaces has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<usize>,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Route {
    /// Where it leads.
    pub dst: Cidr,
    /// Through whom; without, through the gateway of the first address of its family.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "optional")]
    pub gw: Option<IpAddr>,
    /// Priority, MTU and the like, from 1.1.0 on.
    #[serde(flatten)]
    pub more: Map<String, Value>,
}

/// Who resolves names, as in resolv.conf(5).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dns {
    /// Addresses of servers.
    #[serde(deserialize_with = "or_null", skip_serializing_if = "Vec::is_empty")]
    pub nameservers: Vec<String>,
    /// The local domain.
    #[serde(deserialize_with = "or_null", skip_serializing_if = "String::is_empty")]
    pub domain: String,
    /// What short names are looked for in.
    #[serde(deserialize_with = "or_null", skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<String>,
    /// Options of the resolver.
    #[serde(deserialize_with = "or_null", skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

impl Dns {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Success {
    /// Reads what another plugin, or this one, answered.
    ///
    /// # Errors
    /// [`Code::Decode`]; `what` says whose it was.
    pub fn read(value: Value, what: &str) -> Result<Self, CniError> {
        let wrong = |error: String| CniError::new(Code::Decode, format!("{what} cannot be read: {error}"));
        if !value.is_object() {
            return Err(wrong("it is no JSON object".to_owned()));
        }
        let success: Self = serde_json::from_value(value).map_err(|error| wrong(error.to_string()))?;
        let beyond = success.ips.iter().find(|ip| ip.interface.is_some_and(|at| at >= success.interfaces.len()));
        match beyond.filter(|_| !success.interfaces.is_empty()) {
            Some(ip) => Err(wrong(format!("{} is on an interface that is not in it", ip.address))),
            None => Ok(success),
        }
    }

    /// In the words of a version.
    pub fn to_json(&self, version: Version) -> Value {
        let mut object = json!({ "cniVersion": version.name() });
        let mut told = self.clone();
        if version < Version::V1_1_0 {
            for interface in &mut told.interfaces {
                interface.mtu = None;
                interface.more.clear();
            }
            told.routes.iter_mut().for_each(|route| route.more.clear());
        }
        let mut ips = json!(told.ips);
        if version < Version::V1_0_0 {
            for (said, ip) in ips.as_array_mut().into_iter().flatten().zip(&told.ips) {
                said["version"] = if ip.address.address.is_ipv4() { "4" } else { "6" }.into();
            }
        }
        for (key, list) in [("interfaces", json!(told.interfaces)), ("ips", ips), ("routes", json!(told.routes))] {
            if list.as_array().is_some_and(|list| !list.is_empty()) {
                object[key] = list;
            }
        }
        object["dns"] = json!(told.dns);
        object
    }
}

/// `null` is as good as nothing: Go writes it for empty lists.
pub(super) fn or_null<'de, D: serde::Deserializer<'de>, T: Deserialize<'de> + Default>(
    from: D,
) -> Result<T, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

/// An address that may be absent, `null` or, as Go writes it where there is none, an empty text.
mod optional {
    use serde::{Deserialize, Serialize};
    use std::net::IpAddr;

    pub(super) fn serialize<S: serde::Serializer>(address: &Option<IpAddr>, to: S) -> Result<S::Ok, S::Error> {
        address.serialize(to)
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<IpAddr>, D::Error> {
        let text = Option::<String>::deserialize(from)?.filter(|text| !text.is_empty());
        text.map(|text| text.parse().map_err(|_| serde::de::Error::custom(format!("{text:?} is no IP address"))))
            .transpose()
    }
}
