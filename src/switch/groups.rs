//! Who gets a multicast frame: the ports and peers that listen to its group (RFC 4541).
//!
//! Control makes a [`Forwarding`] of each network that is snooped, from what its ports report and what members announce, and
//! puts it here. A frame to a group then goes
//!
//! - to the ports that listen to the group, and to those behind which a multicast router is;
//! - to the peers that announced the group, and to those that announce nothing: a stock host cannot tell us.
//!
//! What concerns a single link goes to everyone; a report goes to routers alone, for a listener that hears another's report
//! keeps its own to itself (RFC 2236 §3) and we would never know of it. All of a family's groups at once are named by its
//! unspecified address: so a port or member asks that has a router.
//!
//! A network without a [`Forwarding`] is not narrowed.

use super::counters::Drop;
use super::ids::{IdMap, PeerId, PortId};
use super::topology::{Network, Peer, Port};
use super::{Egress, Event, Switch};
use crate::wire::ethernet::Frame;
use crate::wire::multicast::{Class, classify};
use arc_swap::ArcSwap;
use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

/// Who listens to one group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Receivers {
    ports: BTreeSet<PortId>,
    peers: BTreeSet<PeerId>,
}

/// Who listens to what in one network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Forwarding {
    groups: HashMap<IpAddr, Receivers>,
    /// Who needs all groups of IPv4 and IPv6.
    all: [Receivers; 2],
    /// Peers that say what they listen to.
    informed: BTreeSet<PeerId>,
}

impl Forwarding {
    /// A port listens to a group; to all of its family if it is unspecified.
    pub fn port_listens(&mut self, port: PortId, group: IpAddr) {
        self.receivers(group).ports.insert(port);
    }

    /// A peer says that it listens to these groups and no others.
    pub fn peer_listens(&mut self, peer: PeerId, groups: impl IntoIterator<Item = IpAddr>) {
        self.informed.insert(peer);
        for group in groups {
            self.receivers(group).peers.insert(peer);
        }
    }

    fn receivers(&mut self, group: IpAddr) -> &mut Receivers {
        match group.is_unspecified() {
            true => &mut self.all[usize::from(group.is_ipv6())],
            false => self.groups.entry(group).or_default(),
        }
    }
}

/// The networks that are snooped.
#[derive(Debug, Default)]
pub struct Groups(ArcSwap<IdMap<u32, Arc<Forwarding>>>);

impl Groups {
    /// Sets who listens to what in a network; `None` no longer narrows it. Called by control alone.
    pub fn set(&self, vni: u32, forwarding: Option<Forwarding>) {
        let mut networks = IdMap::clone(&self.0.load());
        match forwarding {
            Some(forwarding) => networks.insert(vni, Arc::new(forwarding)),
            None => networks.remove(&vni),
        };
        self.0.store(Arc::new(networks));
    }
}

/// Who of a network gets a frame that is for several.
pub(super) enum Audience {
    /// Everyone.
    Everyone,
    /// Everyone but the peers that hear of stations by the mesh.
    Unmeshed,
    /// Who listens to this group; only who listens to all of its family if it is unspecified.
    Listeners(Arc<Forwarding>, IpAddr),
}

impl Audience {
    pub(super) fn has_port(&self, port: PortId) -> bool {
        self.receivers().is_none_or(|mut receivers| receivers.any(|to| to.ports.contains(&port)))
    }

    pub(super) fn has_peer(&self, peer: &Peer) -> bool {
        match self {
            Self::Everyone => true,
            Self::Unmeshed => !peer.is_meshed(),
            Self::Listeners(forwarding, _) => {
                !forwarding.informed.contains(&peer.id)
                    || self.receivers().is_none_or(|mut receivers| receivers.any(|to| to.peers.contains(&peer.id)))
            }
        }
    }

    fn receivers(&self) -> Option<impl Iterator<Item = &Receivers>> {
        let Self::Listeners(forwarding, group) = self else { return None };
        let all = &forwarding.all[usize::from(group.is_ipv6())];
        Some(forwarding.groups.get(group).into_iter().chain([all]))
    }

    /// Why nobody gets the frame, if nobody does.
    pub(super) fn nobody(&self) -> Drop {
        match self {
            Self::Everyone | Self::Unmeshed => Drop::NoReceiver,
            Self::Listeners(..) => Drop::NoListener,
        }
    }
}

impl Switch {
    /// Who gets a frame that was sent to a group or to an unknown station.
    pub(super) fn audience(&self, network: &Network, frame: &Frame<'_>) -> Audience {
        match self.class(network, frame) {
            Class::Everyone | Class::Router => Audience::Everyone,
            Class::Group(group) => self.listeners(network, group),
            Class::Report if frame.ethertype() == crate::wire::ethernet::IPV4 => {
                self.listeners(network, Ipv4Addr::UNSPECIFIED.into())
            }
            Class::Report => self.listeners(network, Ipv6Addr::UNSPECIFIED.into()),
        }
    }

    fn class(&self, network: &Network, frame: &Frame<'_>) -> Class {
        if network.snooping { classify(frame) } else { Class::Everyone }
    }

    fn listeners(&self, network: &Network, group: IpAddr) -> Audience {
        match self.groups.0.load().get(&network.vni) {
            Some(forwarding) => Audience::Listeners(forwarding.clone(), group),
            None => Audience::Everyone,
        }
    }

    /// Tells control of a port's frame that says who listens. Returns whether that was all it is for, so that it is not
    /// lost when nobody else wants it.
    pub(super) fn snoop(
        &self,
        second: u32,
        network: &Network,
        port: &Port,
        frame: &Frame<'_>,
        out: &mut impl Egress,
    ) -> bool {
        let class = self.class(network, frame);
        if !matches!(class, Class::Report | Class::Router) {
            return false;
        }
        if !port.may_speak(second) {
            self.counters.drop(Drop::ControlQueueFull);
            return true;
        }
        self.counters.snooped_frames.add(1);
        out.notify(Event::Snooped(port.id, frame.bytes()));
        class == Class::Report
    }
}
