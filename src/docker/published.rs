//! Ports of the host that lead to a container, where weft leads it out (`-o gateway=weft`): what `-p` asks for.
//!
//! Docker tells them once, when the container is connected, and expects that they are held from then on. A port's name holds what
//! is published for it: `RevokeExternalConnectivity`, `DeleteEndpoint` and the end of the port withdraw all of it.

use super::api::Endpoint;
use super::options::shortened;
use super::record::EndpointRecord;
use super::{Driver, Member, Refusal};
use crate::wire::service::Protocol;
use serde::Deserialize;
use serde_json::{Value, json};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Ports to be published, among an endpoint's options.
const PORTMAP: &str = "com.docker.network.portmap";
/// Most of them for one container; Docker expands `-p 8000-8999:8000-8999` into single ones.
const MAX_PORTS: usize = 1024;
const REMEDY: &str = "give one port of the host for each of the container's (-p 8080:80), or use 'weft publish'";

/// One port of the host, to one of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The network.
    pub network: String,
    /// The host's address, which may be all of a family.
    pub host_ip: IpAddr,
    /// The host's port.
    pub host_port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The container's address, of the same family.
    pub address: IpAddr,
    /// The container's port.
    pub port: u16,
    /// The port that holds it.
    pub holder: String,
}

/// As Docker writes a port to be published.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct Binding {
    proto: u8,
    port: u16,
    #[serde(rename = "HostIP")]
    host_ip: String,
    host_port: u16,
    host_port_end: u16,
}

impl Driver {
    /// `ProgramExternalConnectivity`: only asked of whoever leads the container out, which is docker_gwbridge unless the network was made
    /// with `-o gateway=weft`. All of it is published, or nothing.
    ///
    /// # Errors
    /// What cannot be published, and why.
    pub(super) fn program(&self, asked: &Endpoint, member: &mut impl Member) -> Result<Value, Refusal> {
        let bindings = match asked.options.get(PORTMAP) {
            None | Some(Value::Null) => Vec::new(),
            Some(list) => Vec::<Binding>::deserialize(list)
                .map_err(|error| format!("{PORTMAP} is no list of ports: {}", shortened(&error.to_string())))?,
        };
        if bindings.is_empty() {
            return Ok(json!({}));
        }
        let endpoint = self.endpoints.get(&asked.id);
        let endpoint = endpoint
            .ok_or_else(|| format!("there is no endpoint {}: start the container again", shortened(&asked.id)))?;
        if bindings.len() > MAX_PORTS {
            return Err(format!("{} ports are too many, at most {MAX_PORTS} are published", bindings.len()).into());
        }
        let mut wanted = Vec::new();
        for binding in &bindings {
            wanted.extend(read(binding, endpoint)?);
        }
        for one in &wanted {
            if let Err(reason) = member.publish(one) {
                member.withdraw(&endpoint.port);
                return Err(reason.into());
            }
        }
        Ok(json!({}))
    }

    /// `RevokeExternalConnectivity`.
    pub(super) fn revoke(&self, asked: &Endpoint, member: &mut impl Member) -> Value {
        if let Some(endpoint) = self.endpoints.get(&asked.id) {
            member.withdraw(&endpoint.port);
        }
        json!({})
    }
}

/// One for each family that the container has an address of, or that of the host's address.
fn read(binding: &Binding, endpoint: &EndpointRecord) -> Result<Vec<Published>, String> {
    let Binding { proto, port, host_ip, host_port, host_port_end } = binding;
    let protocol = match proto {
        6 => Protocol::Tcp,
        17 => Protocol::Udp,
        132 => return Err(format!("port {port}: weft publishes TCP and UDP, and not SCTP")),
        other => return Err(format!("port {port}: IP protocol {other} has no ports that weft publishes")),
    };
    if *port == 0 {
        return Err(format!("0 is no port: {REMEDY}"));
    }
    if *host_port == 0 {
        return Err(format!("{port}/{protocol}: weft chooses no port of the host: {REMEDY}"));
    }
    if *host_port_end != 0 && host_port_end != host_port {
        return Err(format!("{port}/{protocol}: weft does not choose among {host_port}-{host_port_end}: {REMEDY}"));
    }
    let at = match host_ip.as_str() {
        "" => vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)],
        text => vec![text.parse().map_err(|_| format!("{} is no address of the host", shortened(text)))?],
    };
    let all = at.into_iter().filter_map(|host_ip| {
        let address = endpoint.addresses.iter().find(|own| own.address.is_ipv4() == host_ip.is_ipv4())?.address;
        let (network, holder) = (endpoint.network.clone(), endpoint.port.clone());
        Some(Published { network, host_ip, host_port: *host_port, protocol, address, port: *port, holder })
    });
    let all: Vec<Published> = all.collect();
    if all.is_empty() {
        return Err(format!("{port}/{protocol}: the container has no address that {host_ip} could lead to"));
    }
    Ok(all)
}
