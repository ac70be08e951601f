//! What connects the hosts of a lab: a kernel bridge in a namespace of its own, the lab's impaired wire, or an internet
//! with sites, NATs and firewalls ([`super::topology`]) on that same wire.
//!
//! ```text
//!   h1            h2            h3       namespaces of the hosts
//!   eth0          eth0          eth0     192.0.2.N/24, 2001:db8::N/64
//!    │             │             │       veth pairs (bridge), or TAPs (wire)
//!   h1────────────h2────────────h3       br0 in the underlay's namespace, or one thread
//! ```

use super::LabError;
use super::internet::{self, Internet};
use super::link::{Impairment, LinkSettings};
use super::spec::{self, HOST_IFNAME, LabSpec};
use super::topology::{Addresses, Topology};
use super::wire::{Medium, Wire};
use crate::io::netlink::{Netlink, NetlinkError};
use crate::io::netns::Netns;
use crate::wire::cidr::Cidr;
use crate::wire::ethernet::Mac;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

/// The bridge's name in the underlay's namespace.
const BRIDGE: &str = "br0";
/// How long an interface may take to go once nobody holds it.
const UNPLUGGED: Duration = Duration::from_secs(5);

/// The running underlay.
#[derive(Debug)]
pub enum Underlay {
    /// A kernel bridge.
    Bridge {
        /// Where the bridge and the hosts' ends of the cables are.
        netns: Netns,
    },
    /// The impaired wire.
    Impaired(Wire<Impairment>),
    /// An internet.
    Routed(Wire<Internet>),
}

impl Underlay {
    /// Connects the hosts and gives them their addresses.
    ///
    /// # Errors
    /// Not allowed, or the kernel lacks bridge, veth or tun.
    pub fn build(spec: &LabSpec, hosts: &[Netns]) -> Result<Self, LabError> {
        let underlay = match &spec.underlay {
            spec::Underlay::Bridge => {
                let netns = Netns::create().map_err(LabError::io("make the underlay's namespace"))?;
                // The bridge carries the hosts' packets and says nothing itself.
                sysctl(&netns, "ipv6/conf/default/disable_ipv6", "1");
                inside(&netns, "make the underlay's bridge", |netlink| {
                    netlink.add_bridge(BRIDGE)?;
                    let bridge = index(netlink, BRIDGE)?;
                    netlink.set_mtu(bridge, spec.underlay_mtu.into())?;
                    netlink.set_up(bridge)
                })?;
                for (i, host) in hosts.iter().enumerate() {
                    plug(&netns, host, i + 1, spec.underlay_mtu)?;
                }
                Self::Bridge { netns }
            }
            spec::Underlay::Impaired(settings, seed) => {
                let impairment = Impairment::new(hosts.len(), settings.clone(), *seed);
                Self::Impaired(Wire::start(hosts, HOST_IFNAME, impairment).map_err(wire_failed())?)
            }
            spec::Underlay::Routed(topology) => {
                let internet = Internet::new(topology.clone());
                Self::Routed(Wire::start(hosts, HOST_IFNAME, internet).map_err(wire_failed())?)
            }
        };
        for (i, host) in hosts.iter().enumerate() {
            underlay.address(spec, host, i + 1)?;
        }
        Ok(underlay)
    }

    /// Brings the `eth0` of host `h` up with its addresses.
    fn address(&self, spec: &LabSpec, host: &Netns, h: usize) -> Result<(), LabError> {
        let site = match &spec.underlay {
            spec::Underlay::Routed(topology) => topology.site_of(h).and_then(|site| topology.sites.get(site - 1)),
            spec::Underlay::Bridge | spec::Underlay::Impaired(..) => None,
        };
        let mtu = site.map_or(spec.underlay_mtu, |site| site.mtu);
        // An internet knows its hosts by their MAC addresses.
        address(host, spec.addresses(h), mtu, site.map(|_| internet::host_mac(h)))
    }

    /// Connects host `h` (from 1) anew: its namespace or its place is another.
    ///
    /// # Errors
    /// The kernel refused.
    pub(super) fn replace(&mut self, spec: &LabSpec, host: &Netns, h: usize) -> Result<(), LabError> {
        match self {
            Self::Bridge { netns } => {
                unplug(netns, h)?;
                plug(netns, host, h, spec.underlay_mtu)?;
            }
            Self::Impaired(wire) => replug(wire, host, h)?,
            Self::Routed(wire) => replug(wire, host, h)?,
        }
        self.address(spec, host, h)
    }

    /// Plugs or pulls the cable of host `h` (from 1). Its interface stays, only the carrier goes.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn set_cable(&self, h: usize, plugged: bool) -> Result<(), LabError> {
        match self {
            Self::Bridge { netns } => inside(netns, "change the underlay's cable", |netlink| {
                let port = index(netlink, &format!("h{h}"))?;
                if plugged { netlink.set_up(port) } else { netlink.set_down(port) }
            }),
            Self::Impaired(wire) => {
                wire.with(|impairment| {
                    let link = impairment.settings_mut();
                    if plugged {
                        link.cut_hosts.remove(&(h - 1));
                    } else {
                        link.cut_hosts.insert(h - 1);
                    }
                });
                Ok(())
            }
            Self::Routed(_) => self.change_topology(|topology| {
                if plugged {
                    topology.unplugged.remove(&h);
                } else {
                    topology.unplugged.insert(h);
                }
            }),
        }
    }

    /// Changes sites, boxes and lines of an internet.
    ///
    /// # Errors
    /// The underlay is none.
    pub fn change_topology(&self, change: impl FnOnce(&mut Topology)) -> Result<(), LabError> {
        match self {
            Self::Routed(wire) => {
                wire.with(|internet| internet.change(change));
                Ok(())
            }
            Self::Bridge { .. } | Self::Impaired(_) => {
                Err(LabError::Refused("only a routed underlay has sites: give the lab a topology".to_owned()))
            }
        }
    }

    /// Moves host `h` (from 1) to other addresses, as a laptop that changes its network: the cable is replaced and
    /// the interface on it is another.
    ///
    /// # Errors
    /// The kernel refused, or the underlay is the impaired wire.
    pub fn readdress(&self, host: &Netns, h: usize, v4: Ipv4Addr, v6: Ipv6Addr, mtu: u16) -> Result<(), LabError> {
        let Self::Bridge { netns } = self else {
            return Err(LabError::Refused(
                "hosts on the lab's own wire keep their addresses: use the bridge".to_owned(),
            ));
        };
        unplug(netns, h)?;
        plug(netns, host, h, mtu)?;
        address(host, Addresses { v4: Some((v4, None)), v6: Some((v6, None)) }, mtu, None)
    }

    /// Changes what the impaired wire does.
    ///
    /// # Errors
    /// The underlay is another.
    pub fn change_link(&self, change: impl FnOnce(&mut LinkSettings)) -> Result<(), LabError> {
        match self {
            Self::Bridge { .. } => {
                Err(LabError::Refused("a bridge cannot be impaired: use the impaired wire".to_owned()))
            }
            Self::Impaired(wire) => {
                wire.with(|impairment| change(impairment.settings_mut()));
                Ok(())
            }
            Self::Routed(_) => {
                Err(LabError::Refused("each site of a topology has a line of its own: change that".to_owned()))
            }
        }
    }
}

/// Gives host `h` another interface on the wire, once the one it had is gone.
fn replug<M: Medium>(wire: &mut Wire<M>, host: &Netns, h: usize) -> Result<(), LabError> {
    wire.replug(h - 1, None, HOST_IFNAME).map_err(wire_failed())?;
    let deadline = Instant::now() + UNPLUGGED;
    while inside(host, "look for a host's interface", |netlink| netlink.link(HOST_IFNAME))?.is_some() {
        if Instant::now() > deadline {
            return Err(LabError::Refused(format!("the {HOST_IFNAME} of h{h} does not go away")));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    wire.replug(h - 1, Some(host), HOST_IFNAME).map_err(wire_failed())
}

fn wire_failed() -> impl FnOnce(io::Error) -> LabError {
    LabError::io("make the underlay's wire")
}

/// Takes away the bridge's end of a host's cable, and the host's with it.
fn unplug(underlay: &Netns, h: usize) -> Result<(), LabError> {
    inside(underlay, "replace the underlay's cable", |netlink| {
        // The namespace that held the other end may have taken it along already.
        match netlink.link(&format!("h{h}"))? {
            Some(port) => match netlink.delete(port.index) {
                Err(error) if error.is(libc::ENODEV) => Ok(()),
                outcome => outcome,
            },
            None => Ok(()),
        }
    })
}

/// Lays a cable between the bridge and a host.
fn plug(underlay: &Netns, host: &Netns, h: usize, mtu: u16) -> Result<(), LabError> {
    inside(underlay, "lay the underlay's cable", |netlink| {
        let name = format!("h{h}");
        netlink.add_veth(&name, HOST_IFNAME, Some(host))?;
        let (bridge, port) = (index(netlink, BRIDGE)?, index(netlink, &name)?);
        netlink.set_mtu(port, mtu.into())?;
        netlink.set_master(port, Some(bridge))?;
        netlink.set_up(port)
    })
}

/// Brings a host's `eth0` up with its addresses, and routes where it has gateways.
fn address(host: &Netns, addresses: Addresses, mtu: u16, mac: Option<Mac>) -> Result<(), LabError> {
    inside(host, "address a host", |netlink| {
        let eth0 = index(netlink, HOST_IFNAME)?;
        if let Some(mac) = mac {
            netlink.set_mac(eth0, mac)?;
        }
        netlink.set_mtu(eth0, mtu.into())?;
        netlink.set_up(eth0)?;
        let v4 = addresses.v4.map(|(v4, gateway)| (Cidr { address: v4.into(), prefix: 24 }, gateway.map(IpAddr::V4)));
        let v6 = addresses.v6.map(|(v6, gateway)| (Cidr { address: v6.into(), prefix: 64 }, gateway.map(IpAddr::V6)));
        for (cidr, gateway) in v4.into_iter().chain(v6) {
            netlink.add_address(eth0, cidr, true)?;
            if let Some(gateway) = gateway {
                netlink.add_route(None, gateway, eth0)?;
            }
        }
        Ok(())
    })
}

/// The number of an interface that must be there.
pub(super) fn index(netlink: &mut Netlink, name: &str) -> Result<u32, NetlinkError> {
    let missing = || NetlinkError {
        verb: format!("find interface {name}"),
        source: io::Error::from_raw_os_error(libc::ENODEV),
        detail: None,
    };
    Ok(netlink.link(name)?.ok_or_else(missing)?.index)
}

/// Speaks netlink inside a namespace.
pub(super) fn inside<T: Send>(
    netns: &Netns,
    what: &str,
    job: impl FnOnce(&mut Netlink) -> Result<T, NetlinkError> + Send,
) -> Result<T, LabError> {
    let outcome = netns.run(|| job(&mut Netlink::open()?).map_err(io::Error::from)).and_then(|inner| inner);
    outcome.map_err(LabError::io(what))
}

/// Sets `/proc/sys/net/KEY` of a namespace. Some container runtimes forbid it; then duplicate address detection takes
/// its second, and nothing else changes.
pub(super) fn sysctl(netns: &Netns, key: &str, value: &str) {
    let _ = netns.run(|| std::fs::write(format!("/proc/sys/net/{key}"), value));
}
