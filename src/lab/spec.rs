//! What lab is wanted: a value that a caller fills in, a file can hold and [`super::Lab::build`] makes real.

use super::LabError;
use super::link::LinkSettings;
use super::topology::{Addresses, Topology};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::PathBuf;

/// Hosts of one lab: the fourth byte of 192.0.2.N names the host, and each has a daemon that needs memory.
pub const MAX_HOSTS: usize = 64;
/// Containers of one host and network: the fourth byte of 10.32.H.C names the container.
pub const MAX_CONTAINERS: usize = 200;
/// The UDP port the daemons listen on.
pub const LISTEN_PORT: u16 = 51820;
/// The interface every container has.
pub const CONTAINER_IFNAME: &str = "eth1";
/// The interface every host has on the underlay.
pub const HOST_IFNAME: &str = "eth0";

/// A lab to build.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LabSpec {
    /// Its name, distinct among the labs of this machine and user.
    pub name: String,
    /// The directory that holds the run directories of all labs.
    pub base: PathBuf,
    /// Hosts, named h1, h2, ….
    pub hosts: usize,
    /// Overlay networks. Each has containers of its own, numbered on: c1, c2, ….
    pub networks: Vec<NetworkSpec>,
    /// Lines for `[[network]]` of each of them.
    #[serde(default)]
    pub network_config: String,
    /// What connects the hosts.
    pub underlay: Underlay,
    /// What each daemon's file says of the others.
    pub discovery: Discovery,
    /// Whether the daemons reach each other by IPv6 rather than IPv4. The hosts have both kinds of address.
    pub ipv6_underlay: bool,
    /// MTU of the hosts' `eth0`; on a routed underlay each site has its own.
    pub underlay_mtu: u16,
    /// Keys of `[offload]` to switch off.
    pub offload_off: Vec<String>,
    /// Lines to put into every daemon's file, below all else.
    pub extra_config: String,
    /// Lines to put into `[node]` of every daemon's file.
    pub extra_node: String,
    /// Lines to put into every `[[peer]]` of every daemon's file.
    pub extra_peer: String,
    /// The weft binary to run on the hosts.
    pub weft: PathBuf,
}

/// An overlay network of a lab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSpec {
    /// Its name.
    pub name: String,
    /// Its VNI.
    pub vni: u32,
    /// MTU of its ports.
    pub mtu: u16,
    /// Containers each host has in it.
    pub containers: usize,
}

/// What connects the hosts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Underlay {
    /// A kernel bridge: as fast as it gets.
    Bridge,
    /// The lab's own wire, which can lose, delay and reorder; chance comes from the seed.
    Impaired(LinkSettings, u64),
    /// Sites behind NATs and firewalls, joined by an internet. Hosts may lack an address family: its address is then
    /// unspecified.
    Routed(Topology),
}

/// What a daemon's file says of the other hosts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Discovery {
    /// Who they are, and where those are that can be reached from outside.
    #[default]
    Full,
    /// Who they are, and where the first is.
    Seed,
    /// Nothing: whoever joins is vouched for by an authority.
    Authority,
}

impl LabSpec {
    /// Hosts on a bridge, each with `containers` containers in one network called `lab` with VNI 100, run by this
    /// program itself.
    pub fn new(name: impl Into<String>, hosts: usize, containers: usize) -> Self {
        let network = NetworkSpec { name: "lab".to_owned(), vni: 100, mtu: 1500, containers };
        Self {
            name: name.into(),
            base: super::registry::base(),
            hosts,
            networks: vec![network],
            network_config: String::new(),
            underlay: Underlay::Bridge,
            discovery: Discovery::Full,
            ipv6_underlay: false,
            underlay_mtu: 1500,
            offload_off: Vec::new(),
            extra_config: String::new(),
            extra_node: String::new(),
            extra_peer: String::new(),
            weft: PathBuf::from("/proc/self/exe"),
        }
    }

    /// As [`LabSpec::new`], with the hosts of a topology.
    pub fn routed(name: impl Into<String>, topology: Topology, containers: usize) -> Self {
        let hosts = topology.hosts();
        Self { underlay: Underlay::Routed(topology), ..Self::new(name, hosts, containers) }
    }

    /// The addresses of host `h` (from 1) on the underlay; without a gateway where all is one segment.
    pub fn addresses(&self, h: usize) -> Addresses {
        match &self.underlay {
            Underlay::Routed(topology) => topology.addresses(h),
            Underlay::Bridge | Underlay::Impaired(..) => {
                let (v4, v6) = host_addresses(h);
                Addresses { v4: Some((v4, None)), v6: Some((v6, None)) }
            }
        }
    }

    /// Which address of host `to` stands in the file of host `from`, if any.
    pub(super) fn endpoint(&self, from: usize, to: usize) -> Option<IpAddr> {
        if self.discovery == Discovery::Seed && to != 1 {
            return None;
        }
        match &self.underlay {
            Underlay::Routed(topology) => topology.address_of(from, to, self.ipv6_underlay),
            Underlay::Bridge | Underlay::Impaired(..) => {
                let (v4, v6) = host_addresses(to);
                Some(if self.ipv6_underlay { v6.into() } else { v4.into() })
            }
        }
    }

    /// # Errors
    /// The first thing about it that cannot be built.
    pub fn check(&self) -> Result<(), LabError> {
        let refuse = |text: String| Err(LabError::Refused(text));
        if !(1..=MAX_HOSTS).contains(&self.hosts) {
            return refuse(format!("a lab has 1 to {MAX_HOSTS} hosts, not {}", self.hosts));
        }
        let containers = self.networks.iter().map(|network| network.containers).sum::<usize>();
        if containers > MAX_CONTAINERS {
            return refuse(format!("a host of a lab has at most {MAX_CONTAINERS} containers, not {containers}"));
        }
        if self.underlay_mtu < 1280 {
            return refuse(format!("an underlay needs an MTU of at least 1280, not {}", self.underlay_mtu));
        }
        if let Underlay::Routed(topology) = &self.underlay {
            topology.check(self.hosts)?;
        }
        super::registry::check_name(&self.name)
    }
}

/// The addresses of host `h` (from 1) on the underlay (RFC 5737, RFC 3849).
pub fn host_addresses(h: usize) -> (Ipv4Addr, Ipv6Addr) {
    (Ipv4Addr::new(192, 0, 2, h as u8), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, h as u16))
}

/// The addresses of container `c` (from 1) of host `h` (from 1). All networks use the same prefixes, 10.32.0.0/16
/// and fd00:32::/64, so that nothing but the VNI keeps them apart.
pub fn container_addresses(h: usize, c: usize) -> (Ipv4Addr, Ipv6Addr) {
    (Ipv4Addr::new(10, 32, h as u8, c as u8), Ipv6Addr::new(0xfd00, 0x32, 0, 0, 0, 0, h as u16, c as u16))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_cannot_be_built_is_refused() {
        let good = LabSpec::new("test", 3, 2);
        good.check().unwrap();
        assert!(LabSpec { hosts: 0, ..good.clone() }.check().is_err());
        assert!(LabSpec { hosts: MAX_HOSTS + 1, ..good.clone() }.check().is_err());
        assert!(LabSpec { underlay_mtu: 1279, ..good.clone() }.check().is_err());
        assert!(LabSpec { name: "../up".to_owned(), ..good }.check().is_err());
        assert!(LabSpec::new("test", 1, MAX_CONTAINERS + 1).check().is_err());
    }

    #[test]
    fn a_spec_survives_its_file() {
        let link = LinkSettings { loss: 5.0, cut_pairs: [(0, 1)].into(), ..Default::default() };
        let spec = LabSpec { underlay: Underlay::Impaired(link, 7), ..LabSpec::new("test", 3, 2) };
        let text = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<LabSpec>(&text).unwrap(), spec);
    }
}
