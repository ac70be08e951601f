//! Ports of the host that lead to a container: what a runtime calls `portMappings`, as what the daemon is asked to publish.
//!
//! A mapping is published once for each family that the container has an address of, unless it names an address of the host. The
//! port's name holds what is published, so DEL withdraws all of it with one request.

use super::conf::PortMapping;
use super::error::{CniError, Code};
use super::success::Ip;
use crate::control::nat::Proto;
use crate::control::request::{Backend, Publish};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What to ask for, for the container with these addresses.
///
/// # Errors
/// A mapping makes no sense, or is of a protocol that cannot be had.
pub(super) fn wanted(
    mappings: &[PortMapping],
    network: &str,
    holder: &str,
    ips: &[Ip],
) -> Result<Vec<Publish>, CniError> {
    let mut all = Vec::new();
    // Runtimes list ports that the host does not map, as 0.
    for mapping in mappings.iter().filter(|mapping| mapping.host_port != 0) {
        let wrong = |problem: &str| {
            let PortMapping { host_port, container_port, protocol, host_ip } = mapping;
            let what = format!("{host_ip:?} {host_port} → {container_port} {protocol:?}");
            CniError::new(Code::Config, format!("portMappings, {what}: {problem}"))
        };
        let proto = match mapping.protocol.to_ascii_lowercase().as_str() {
            "" | "tcp" => Proto::Tcp,
            "udp" => Proto::Udp,
            _ => return Err(CniError { code: Code::Unsupported, ..wrong("only tcp and udp can be published") }),
        };
        if mapping.container_port == 0 {
            return Err(wrong("containerPort is no port"));
        }
        let at: Vec<IpAddr> = match mapping.host_ip.as_str() {
            "" => vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()],
            text => vec![text.parse().map_err(|_| wrong("hostIP is no IP address"))?],
        };
        let before = all.len();
        for host_ip in at {
            let mut of_family =
                ips.iter().map(|ip| ip.address.address).filter(|ip| ip.is_ipv4() == host_ip.is_ipv4());
            let Some(address) = of_family.next() else { continue };
            all.push(Publish {
                network: network.to_owned(),
                host_ip: Some(host_ip),
                host_port: mapping.host_port,
                proto,
                to: Backend::Address(address),
                port: mapping.container_port,
                holder: Some(holder.to_owned()),
            });
        }
        if all.len() == before {
            return Err(wrong("the container has no address that it could lead to"));
        }
    }
    Ok(all)
}
