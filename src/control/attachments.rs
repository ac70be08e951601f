//! Attachments: what we tell other members of our ports, and what the switch makes of all that members have.
//!
//! [`crate::mesh::stations::Stations`] decides who has what; here its decisions become mesh entries of the FDB, answers to questions for addresses,
//! and a word to our own containers when an address they may remember is somewhere else. Members that are no peers of ours
//! have their stations once they are ([`Control::place_stations`]).

use super::{Control, Host};
use crate::mesh::facts::Attachment;
use crate::mesh::stations::Output;
use crate::switch::ids::{Place, PortId};
use crate::switch::topology::Port;
use crate::wire::announce;
use crate::wire::ethernet::Mac;
use crate::wire::key::PublicKey;
use std::borrow::Cow;
use std::net::IpAddr;
use std::time::Instant;

impl<H: Host> Control<H> {
    /// What our ports have, to be told to other members whenever it changes.
    pub fn attachments(&self) -> impl Iterator<Item = &Attachment> {
        self.attachments.values()
    }

    /// A member says that it has these attachments and no others; none when it is gone. What it says of networks that the file keeps it
    /// out of does not count.
    pub fn member_has(&mut self, now: Instant, member: PublicKey, name: &str, attachments: &[Attachment]) {
        let mut attachments = Cow::Borrowed(attachments);
        if let Some(admitted) = self.kept_to(&member) {
            attachments.to_mut().retain(|attachment| admitted.contains(&attachment.vni));
        }
        self.stations.set(self.elapsed(now), member, name, &attachments);
        self.policies.due = true;
        self.run_stations();
    }

    /// A port of ours has these addresses from now on, wherever they were.
    pub(super) fn attached(&mut self, now: Instant, port: &Port, name: &str, addresses: Vec<IpAddr>, sequence: u32) {
        let (vni, mac, name) = (port.vni, port.mac, name.to_owned());
        let attachment = Attachment { vni, mac, addresses, sequence, name };
        self.attach_again(now, port.id, attachment);
    }

    /// A port of ours has other addresses than it had.
    pub(super) fn attach_again(&mut self, now: Instant, id: PortId, attachment: Attachment) {
        self.attachments.insert(id, attachment.clone());
        self.policies.pressing.insert(attachment.vni);
        self.stations.attach(self.elapsed(now), &self.config.node.name, attachment);
        self.members.facts_due = true;
        self.run_stations();
    }

    /// A port of ours is gone.
    pub(super) fn detached(&mut self, now: Instant, port: &Port) {
        self.attachments.remove(&port.id);
        self.policies.pressing.insert(port.vni);
        self.stations.detach(self.elapsed(now), port.vni, port.mac);
        self.members.facts_due = true;
        self.run_stations();
    }

    /// Puts all stations of these members where they are: the members became peers, networks came, or entries of the file
    /// that stood in the way are gone.
    pub fn place_stations(&self, is_of: impl Fn(&PublicKey) -> bool) {
        for (vni, mac, member, sequence) in self.stations.stations().filter(|(_, _, member, _)| is_of(member)) {
            if let Some(place) = self.place_of_station(vni, mac, member) {
                self.switch.fdb.insert_mesh(vni, mac, place, sequence);
            }
        }
    }

    /// Puts all stations and their addresses where they are.
    pub fn place_all_stations(&self) {
        self.place_stations(|_| true);
        for (vni, address, mac) in self.stations.addresses().filter(|(vni, ..)| self.has_network(*vni)) {
            if self.is_service(vni, address) {
                continue;
            }
            self.switch.neighbours.insert(vni, address, mac);
        }
    }

    /// What concerns networks that are not ours is not put into the switch, which would never ask for it.
    fn has_network(&self, vni: u32) -> bool {
        self.config.networks.iter().any(|network| network.vni == vni)
    }

    fn is_service(&self, vni: u32, address: IpAddr) -> bool {
        let mut networks = self.config.networks.iter().filter(|network| network.vni == vni);
        networks.any(|network| network.service_addresses().iter().any(|service| service.address == address))
    }

    fn place_of_station(&self, vni: u32, mac: Mac, member: PublicKey) -> Option<Place> {
        if !self.has_network(vni) {
            return None;
        }
        if member == self.identity.key {
            let mut ours = self.attachments.iter();
            return ours.find(|(_, known)| (known.vni, known.mac) == (vni, mac)).map(|(&id, _)| Place::Port(id));
        }
        self.id_of(&member).map(Place::Peer)
    }

    /// Does what follows from what members have.
    pub(super) fn run_stations(&mut self) {
        while let Some(output) = self.stations.poll_output() {
            match output {
                Output::Station { vni, mac, member, sequence } => {
                    if let Some(place) = self.place_of_station(vni, mac, member) {
                        self.switch.fdb.insert_mesh(vni, mac, place, sequence);
                    }
                }
                Output::NoStation { vni, mac, member } => {
                    if let Some(place) = self.place_of_station(vni, mac, member) {
                        self.switch.fdb.remove_mesh(vni, mac, place);
                    }
                }
                Output::Address { vni, .. } if !self.has_network(vni) => {}
                // Whoever says so of a container: our own containers are not to be led there.
                Output::Address { vni, address, .. } if self.is_service(vni, address) => {}
                Output::Address { vni, address, mac, tell } => {
                    self.switch.neighbours.insert(vni, address, mac);
                    if tell {
                        self.switch.tell_ports(vni, &announce::of(mac, address), self.host.out());
                    }
                }
                Output::NoAddress { vni, address } => self.switch.neighbours.remove(vni, address),
                Output::Warning { vni, text, begun } => {
                    let network = self.name_of_network(vni);
                    match begun {
                        _ if !self.members.chatter.may_speak(self.now) => {}
                        true => tracing::warn!("network {network}: {text}"),
                        false => tracing::info!("network {network}: no longer true: {text}"),
                    }
                }
            }
        }
    }

    /// What needs a person's attention among stations and listeners.
    pub(super) fn station_warnings(&self) -> impl Iterator<Item = String> {
        let stations = self.stations.warnings();
        let stations = stations.map(|(vni, text)| format!("network {}: {text}", self.name_of_network(vni)));
        let bounds = [
            (self.stations.refused(), "claims of members on addresses were not taken: there are too many"),
            (self.listeners.refused(), "multicast groups were not listened to: there are too many behind one port"),
        ];
        let bounds = bounds.into_iter().filter(|(count, _)| *count > 0);
        stations.chain(bounds.map(|(count, what)| format!("{count} {what}")))
    }

    pub(super) fn name_of_network(&self, vni: u32) -> String {
        let known = self.config.networks.iter().find(|network| network.vni == vni);
        known.map_or_else(|| format!("with VNI {vni}"), |network| network.name.clone())
    }
}
