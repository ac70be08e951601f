//! Multicast: what ports and peers listen to, and what the switch makes of it.
//!
//! The switch passes on what ports say in IGMP and MLD; [`crate::mesh::listeners::Listeners`] knows what that means and asks them in turn; and from
//! both, and from what peers announce, follows the [`Forwarding`] of each snooped network.

use super::{Control, Host};
use crate::mesh::listeners::Output;
use crate::switch::groups::Forwarding;
use crate::switch::ids::{PeerId, PortId};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Instant;

impl<H: Host> Control<H> {
    /// A port's frame says who listens.
    pub fn snooped(&mut self, now: Instant, port: PortId, frame: &[u8]) {
        self.listeners.heard(self.elapsed(now), port, frame);
        self.run_listeners();
    }

    /// A peer announces that it listens to these groups, by network, and to no others; `None` if it announces nothing and is
    /// to have everything. An unspecified address is all groups of its family.
    pub fn peer_listens(&mut self, peer: PeerId, groups: Option<BTreeSet<(u32, IpAddr)>>) {
        let before = match groups {
            Some(groups) => self.peer_groups.insert(peer, groups),
            None => self.peer_groups.remove(&peer),
        };
        self.multicast_due |= before.as_ref() != self.peer_groups.get(&peer);
    }

    /// Makes the switch follow what peers announced: once, however many of them did.
    pub(super) fn run_multicast(&mut self) {
        if std::mem::take(&mut self.multicast_due) {
            self.config.networks.iter().for_each(|network| self.forward_multicast(network.vni));
        }
    }

    /// The groups that our ports listen to.
    pub(super) fn listened_groups(&self) -> Vec<(u32, IpAddr)> {
        self.listeners.groups().into_iter().collect()
    }

    /// Asks ports, and makes the switch follow what changed.
    pub(super) fn run_listeners(&mut self) {
        let mut changed = BTreeSet::new();
        while let Some(output) = self.listeners.poll_output() {
            match output {
                Output::Query { vni, port: Some(port), frame } => {
                    self.switch.tell_port(vni, port, &frame, self.host.out());
                }
                Output::Query { vni, port: None, frame } => self.switch.tell_ports(vni, &frame, self.host.out()),
                Output::Changed(vni) => {
                    changed.insert(vni);
                }
            }
        }
        self.members.facts_due |= !changed.is_empty();
        changed.into_iter().for_each(|vni| self.forward_multicast(vni));
    }

    /// Tells the switch who listens to what in one network.
    fn forward_multicast(&self, vni: u32) {
        let mut forwarding = Forwarding::default();
        for (port, group) in self.listeners.of_network(vni) {
            forwarding.port_listens(port, group);
        }
        for (&peer, groups) in &self.peer_groups {
            forwarding.peer_listens(peer, groups.iter().filter(|(of, _)| *of == vni).map(|&(_, group)| group));
        }
        self.switch.groups.set(vni, Some(forwarding));
    }
}
