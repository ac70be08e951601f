//! What a network's containers are called by DNS, and who answers for other names.

use super::reader::{Report, Section};
use super::text::host_name;
use crate::wire::name::to_host_name;
use std::net::{IpAddr, SocketAddr};

/// The most resolvers: a question waits for one after the other.
pub const MAX_RESOLVERS: usize = 3;
/// The longest domain: with a container's name in front it is still a name (RFC 1035 §2.3.4).
const MAX_DOMAIN: usize = 110;
/// Where resolvers listen.
const DNS_PORT: u16 = 53;

/// What becomes of questions for names that are not the network's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Dns {
    /// The host's resolvers are asked.
    #[default]
    Forward,
    /// They are refused.
    Refuse,
    /// The network has no DNS at all.
    Off,
}

/// The names of one network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Naming {
    /// The domain they are below, in lower case without a dot at the end.
    pub zone: String,
    /// What becomes of others.
    pub dns: Dns,
    /// Whether the instances on this host come before all others.
    pub local_first: bool,
}

impl Naming {
    /// That of the network `name` where the file does not say.
    pub fn of_network(name: &str) -> Self {
        let mut name = to_host_name(name).unwrap_or_default();
        name.truncate(MAX_DOMAIN - ".weft".len());
        let zone = format!("{}.weft", name.trim_end_matches(['.', '-']));
        Self { zone: zone.trim_start_matches('.').to_owned(), dns: Dns::default(), local_first: false }
    }

    pub(super) fn read(report: &mut Report<'_>, section: &Section<'_>, network: &str) -> Self {
        let default = Self::of_network(network);
        Self {
            zone: section.read(report, "zone", zone).unwrap_or(default.zone),
            dns: section.read(report, "dns", dns).unwrap_or_default(),
            local_first: section.boolean(report, "dns_local_first"),
        }
    }
}

/// The resolvers of `[node]`.
pub(super) fn resolvers(report: &mut Report<'_>, section: &Section<'_>) -> Vec<SocketAddr> {
    section.at_most(report, "resolvers", MAX_RESOLVERS);
    let resolvers = section.read_list(report, "resolvers", resolver).into_iter();
    resolvers.take(MAX_RESOLVERS).map(|(_, resolver)| resolver).collect()
}

fn zone(text: &str) -> Result<String, &'static str> {
    let text = text.strip_suffix('.').unwrap_or(text);
    match host_name(text) {
        Ok(zone) if zone.len() <= MAX_DOMAIN => Ok(zone),
        _ => Err(
            "a zone is a domain like \"blue.weft\", at most 110 letters, digits, '-', '_' and dots between labels",
        ),
    }
}

fn dns(text: &str) -> Result<Dns, &'static str> {
    match text {
        "forward" => Ok(Dns::Forward),
        "refuse" => Ok(Dns::Refuse),
        "off" => Ok(Dns::Off),
        _ => Err("write \"forward\", \"refuse\" or \"off\""),
    }
}

fn resolver(text: &str) -> Result<SocketAddr, &'static str> {
    let address: Option<SocketAddr> = text.parse().ok();
    let address = address.or_else(|| Some(SocketAddr::new(text.parse::<IpAddr>().ok()?, DNS_PORT)));
    match address {
        Some(address) if address.port() > 0 && !address.ip().is_unspecified() && !address.ip().is_multicast() => {
            Ok(address)
        }
        _ => Err("a resolver is an IP address, or IP:PORT"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_network_has_a_domain() {
        for (name, zone) in
            [("blue", "blue.weft"), ("My_Net-", "my_net.weft"), ("a..b.", "a.b.weft"), ("...", "weft")]
        {
            assert_eq!(Naming::of_network(name).zone, zone);
        }
    }
}
