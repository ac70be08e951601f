//! What the kernel does without a daemon: the bare path, a bridge, VXLAN.

use super::pair::{HOSTS, Pair, Route};
use crate::lab::LabError;
use crate::lab::spec::CONTAINER_IFNAME;
use crate::lab::underlay::index;
use std::net::Ipv4Addr;

/// Outer Ethernet without its checksum is not part of an MTU: IPv4, UDP, VXLAN, inner Ethernet.
pub(super) const VXLAN_OVERHEAD: u16 = 20 + 8 + 8 + 14;
/// RFC 7348 §5.
const VXLAN_PORT: u16 = 4789;
const VNI: u32 = 100;
const BRIDGE: &str = "br0";

/// The hosts' own addresses on the underlay.
pub(super) fn bare(pair: &mut Pair) -> Result<(), LabError> {
    let (near, far) = (pair.host(1), pair.host(2));
    pair.across = Some(Route::new((&near.netns, near.v4), (&far.netns, far.v4))?);
    Ok(())
}

/// The two containers of the first host, each with a veth on one bridge.
pub(super) fn bridge(pair: &mut Pair) -> Result<(), LabError> {
    pair.netlink(1, |netlink| {
        netlink.add_bridge(BRIDGE)?;
        let bridge = index(netlink, BRIDGE)?;
        netlink.set_up(bridge)
    })?;
    for c in [1, 2] {
        let (container, name) = (pair.lab().container(1, c), format!("c{c}"));
        pair.netlink(1, |netlink| {
            netlink.add_veth(&name, CONTAINER_IFNAME, Some(&container.netns))?;
            let (bridge, port) = (index(netlink, BRIDGE)?, index(netlink, &name)?);
            netlink.set_master(port, Some(bridge))?;
            netlink.set_up(port)
        })?;
        pair.bring_up_container(c)?;
    }
    pair.containers_reach_each_other()
}

/// A VXLAN device on each host, with the other as its only remote.
pub(super) fn vxlan(pair: &mut Pair) -> Result<(), LabError> {
    let (one, two) = (pair.host(1).v4, pair.host(2).v4);
    vxlan_between(pair, [one, two], pair.mtu(VXLAN_OVERHEAD))
}

/// A VXLAN device on each host between these addresses of theirs, which becomes the overlay.
pub(super) fn vxlan_between(pair: &mut Pair, ends: [Ipv4Addr; 2], mtu: u16) -> Result<(), LabError> {
    for h in HOSTS {
        let (local, remote) = (ends[h - 1], ends[2 - h]);
        pair.netlink(h, |netlink| netlink.add_vxlan("vxlan0", VNI, local, remote, VXLAN_PORT))?;
        pair.bring_up(h, "vxlan0", Some(mtu), Pair::overlay(h))?;
    }
    pair.hosts_reach_each_other()
}
