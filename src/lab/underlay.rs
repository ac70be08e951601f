//! What connects the hosts of a lab: a kernel bridge in a namespace of its own, or the lab's impaired wire.
//!
//! ```text
//!   h1            h2            h3       namespaces of the hosts
//!   eth0          eth0          eth0     192.0.2.N/24, 2001:db8::N/64
//!    │             │             │       veth pairs (bridge), or TAPs (wire)
//!   h1────────────h2────────────h3       br0 in the underlay's namespace, or one thread
//! ```

use super::LabError;
use super::link::LinkSettings;
use super::spec::{self, HOST_IFNAME, LabSpec};
use super::wire::Wire;
use crate::io::netlink::{Netlink, NetlinkError};
use crate::io::netns::Netns;
use crate::wire::cidr::Cidr;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The bridge's name in the underlay's namespace.
const BRIDGE: &str = "br0";

/// The running underlay.
#[derive(Debug)]
pub enum Underlay {
    /// A kernel bridge.
    Bridge {
        /// Where the bridge and the hosts' ends of the cables are.
        netns: Netns,
    },
    /// The impaired wire.
    Impaired(Wire),
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
                let wire = Wire::start(hosts, HOST_IFNAME, settings.clone(), *seed);
                Self::Impaired(wire.map_err(LabError::io("make the underlay's wire"))?)
            }
        };
        for (i, host) in hosts.iter().enumerate() {
            let (v4, v6) = spec::host_addresses(i + 1);
            address(host, v4, v6, spec.underlay_mtu)?;
        }
        Ok(underlay)
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
                wire.change(|link| {
                    if plugged {
                        link.cut_hosts.remove(&(h - 1));
                    } else {
                        link.cut_hosts.insert(h - 1);
                    }
                });
                Ok(())
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
                "hosts on the impaired wire keep their addresses: use the bridge".to_owned(),
            ));
        };
        inside(netns, "replace the underlay's cable", |netlink| {
            let port = index(netlink, &format!("h{h}"))?;
            netlink.delete(port)
        })?;
        plug(netns, host, h, mtu)?;
        address(host, v4, v6, mtu)
    }

    /// Changes what the impaired wire does.
    ///
    /// # Errors
    /// The underlay is a bridge.
    pub fn change_link(&self, change: impl FnOnce(&mut LinkSettings)) -> Result<(), LabError> {
        match self {
            Self::Bridge { .. } => {
                Err(LabError::Refused("a bridge cannot be impaired: use the impaired wire".to_owned()))
            }
            Self::Impaired(wire) => {
                wire.change(change);
                Ok(())
            }
        }
    }
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

/// Brings a host's `eth0` up with its addresses.
fn address(host: &Netns, v4: Ipv4Addr, v6: Ipv6Addr, mtu: u16) -> Result<(), LabError> {
    inside(host, "address a host", |netlink| {
        let eth0 = index(netlink, HOST_IFNAME)?;
        netlink.set_mtu(eth0, mtu.into())?;
        netlink.set_up(eth0)?;
        netlink.add_address(eth0, Cidr { address: IpAddr::V4(v4), prefix: 24 }, true)?;
        netlink.add_address(eth0, Cidr { address: IpAddr::V6(v6), prefix: 64 }, true)
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
