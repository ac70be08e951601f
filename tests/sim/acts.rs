//! What happens in a [`Play`]: calms, in which everybody talks and all must be right, storms, in which everything goes
//! wrong that can, and how it all heals.

use super::frames::{Flow, Kind, Unit};
use super::play::{MS, Play, S, Station, Way};
use super::world::{Acquaintance, Datagram, Link, World, endpoint};
use std::collections::BTreeSet;
use std::time::Duration;
use weft::switch::counters::Drop;
use weft::switch::fdb;
use weft::switch::ids::Place;
use weft::wire::ethernet::Mac;
use weft::wire::vnet::{self, VnetHeader};

impl Play {
    fn any_station(&mut self) -> Option<usize> {
        (!self.stations.is_empty()).then(|| self.world.rng.range(0..self.stations.len()))
    }

    /// To another station of its network mostly, else to a group, else to nobody.
    fn any_destination(&mut self, s: usize) -> Mac {
        let (vni, mac) = (self.stations[s].vni, self.stations[s].mac);
        let others: Vec<Mac> = self
            .stations
            .iter()
            .filter(|other| other.vni == vni && other.mac != mac)
            .map(|other| other.mac)
            .collect();
        match self.world.rng.range(0..8) {
            0 => Mac::BROADCAST,
            1 => Mac([0x33, 0x33, 0, 0, 0, 1]),
            2 => self.fresh_mac(),
            _ if others.is_empty() => Mac::BROADCAST,
            _ => *self.world.rng.pick(&others),
        }
    }

    pub(super) fn announce_all(&mut self) {
        for s in 0..self.stations.len() {
            self.send(s, Mac::BROADCAST);
        }
        self.run(S);
    }

    /// Nothing is lost: everything arrives where it should, once.
    pub(crate) fn calm(&mut self, steps: usize) {
        self.calm = true;
        self.world.note(|| "calm".to_owned());
        self.announce_all();
        for _ in 0..steps {
            let Some(s) = self.any_station() else { break };
            match self.world.rng.range(0..12) {
                0 => self.misbehave(s),
                1 => self.move_station(s),
                3 => self.announce(s),
                2 => {
                    let span = MS * self.world.rng.range(0..3000) as u32;
                    self.run(span);
                }
                _ => {
                    let to = self.any_destination(s);
                    self.send(s, to);
                    if self.world.rng.one_in(2) {
                        self.run(MS);
                    }
                }
            }
        }
        self.settle();
    }

    fn settle(&mut self) {
        self.run(S);
        assert_eq!(self.world.too_big, 0, "seed {}: datagrams larger than the path", self.seed);
        if let Err(objection) = self.ledger.settle() {
            panic!("seed {}: {objection}", self.seed);
        }
    }

    /// A station appears behind another port of its network and says so. In a calm all hear it before anybody goes on.
    fn move_station(&mut self, s: usize) {
        let vni = self.stations[s].vni;
        let places =
            self.world.hosts.iter().enumerate().flat_map(|(n, host)| host.ports.iter().map(move |port| (n, port)));
        let places: Vec<_> = places.filter(|(_, port)| port.vni == vni).map(|(n, port)| (n, port.id)).collect();
        if places.is_empty() {
            return;
        }
        if self.calm {
            self.run(100 * MS);
        }
        let (host, port) = *self.world.rng.pick(&places);
        (self.stations[s].host, self.stations[s].port) = (host, port);
        let mac = self.stations[s].mac;
        self.world.note(|| format!("{mac} moves to {port:?} on host {host}"));
        self.pin();
        self.send(s, Mac::BROADCAST);
        if self.calm {
            self.run(100 * MS);
        }
    }

    /// Whatever can go wrong does.
    pub(crate) fn storm(&mut self, steps: usize) {
        self.calm = false;
        for _ in 0..steps {
            let hosts = self.world.hosts.len();
            let (a, b) = {
                let pairs = self.world.pairs();
                *self.world.rng.pick(&pairs)
            };
            match self.world.rng.range(0..60) {
                0 => {
                    self.world.note(|| format!("host {a} restarts"));
                    self.world.reboot(a);
                    self.pin();
                }
                1 => {
                    self.world.note(|| format!("host {a} forgets host {b}"));
                    self.world.part(a, b);
                }
                2 => self.meet(),
                3 | 4 => {
                    self.world.note(|| format!("nothing goes from host {a} to host {b}"));
                    self.world.cut.insert((a, b));
                }
                5 | 6 => {
                    self.world.note(|| "all links heal".to_owned());
                    self.world.cut.clear();
                }
                7 => {
                    let loss = *self.world.rng.pick(&[0.0, 0.01, 0.1, 0.4]);
                    let jitter = *self.world.rng.pick(&[Duration::ZERO, MS, 20 * MS, 300 * MS]);
                    let duplication = *self.world.rng.pick(&[0.0, 0.05, 0.3]);
                    self.world.note(|| format!("loss {loss}, jitter {jitter:?}, duplication {duplication}"));
                    self.world.link = Link { loss, jitter, duplication, ..self.world.link };
                }
                8 => {
                    let vnis: BTreeSet<u32> = self.stations.iter().map(|station| station.vni).chain([100]).collect();
                    let vnis: Vec<u32> = vnis.into_iter().collect();
                    let vni = *self.world.rng.pick(&vnis);
                    self.add_port(self.seed as usize % hosts, vni);
                }
                9 => self.remove_port(a),
                10 => {
                    let span = S * self.world.rng.range(1..700) as u32;
                    self.world.note(|| format!("silence for {span:?}"));
                    self.run(span);
                }
                11 => self.rubbish(a),
                12 => self.flood_addresses(),
                13 => {
                    let mtu = *self.world.rng.pick(&[1280, 1420, 1500]);
                    self.world.note(|| format!("the path MTU becomes {mtu}"));
                    self.world.set_mtu(mtu);
                }
                14..20 => {
                    let span = MS * self.world.rng.range(0..2000) as u32;
                    self.run(span);
                }
                n => {
                    let Some(s) = self.any_station() else { continue };
                    match n {
                        20 | 21 => self.misbehave(s),
                        22 => self.move_station(s),
                        23 => self.announce(s),
                        _ => {
                            let to = self.any_destination(s);
                            self.send(s, to);
                            if self.world.rng.one_in(2) {
                                self.run(3 * MS);
                            }
                        }
                    }
                }
            }
        }
    }

    fn remove_port(&mut self, host: usize) {
        let Some(port) = self.world.hosts[host].ports.first().map(|port| port.id) else { return };
        self.world.note(|| format!("{port:?} disappears from host {host}"));
        self.stations.retain(|station| station.port != port);
        self.world.remove_port(host, port);
        for other in &self.world.hosts {
            // As control does, when it learns that an attachment ended.
            for entry in other.switch.fdb.snapshot(0).iter().filter(|entry| entry.kind == fdb::Kind::Static) {
                if !self.stations.iter().any(|station| (station.mac, station.vni) == (entry.mac, entry.vni)) {
                    other.switch.fdb.remove_static(entry.vni, entry.mac, entry.place);
                }
            }
        }
    }

    /// Everybody knows everybody again.
    fn meet(&mut self) {
        for (a, b) in self.world.pairs() {
            if !self.world.hosts[a].peers.contains_key(&b) {
                self.world.introduce(a, b, &Acquaintance::default());
            }
        }
        self.world.note(|| "all hosts know one another".to_owned());
        self.pin();
    }

    fn rubbish(&mut self, host: usize) {
        for _ in 0..20 {
            let len = self.world.rng.range(1..200);
            let mut bytes: Vec<u8> = (0..len).map(|_| self.world.rng.next() as u8).collect();
            if self.world.rng.one_in(2) && len > 4 {
                bytes[..4].copy_from_slice(&[self.world.rng.range(1..5) as u8, 0, 0, 0]);
            }
            let (from, to) = (endpoint(99), self.world.hosts[host].endpoint);
            self.world.network(Datagram { from, to, bytes });
        }
    }

    /// A container floods its switch with source addresses.
    fn flood_addresses(&mut self) {
        let Some(s) = self.any_station() else { return };
        let station = self.stations[s].clone();
        self.world.note(|| format!("{:?} floods addresses", station.port));
        for _ in 0..100 {
            let (source, destination) = (self.fresh_mac(), self.fresh_mac());
            let id = self.fresh_flow();
            let flow = Flow { id, kind: Kind::Raw, v6: false, source, destination, tags: Vec::new() };
            self.ledger.open(&flow, station.vni);
            let (vnet, frame) = flow.raw(0, 50);
            self.ledger.sent(id, station.port, &[Unit::Datagram { number: 0, len: 50 }], None);
            self.input(&station, vnet, &frame, &flow, Way::Port);
        }
    }

    /// The faults end; after half a minute in which everybody speaks, everything must be as if nothing had been.
    pub(crate) fn heal(&mut self) {
        self.world.link = Link { mtu: self.world.link.mtu, ..Link::default() };
        self.world.cut.clear();
        self.meet();
        // What was made for a wider path and waits is lost.
        self.run(10 * S);
        self.world.too_big = 0;
        for _ in 0..30 {
            for s in 0..self.stations.len() {
                self.send(s, Mac::BROADCAST);
            }
            for (a, b) in self.world.pairs() {
                self.world.connect(a, b);
            }
            self.run(S);
        }
        for (a, b) in self.world.pairs() {
            // A session that nobody used may have come to its end just here.
            let live = |world: &World| world.hosts[a].peers[&b].tunnel().is_live();
            if !live(&self.world) {
                self.world.connect(a, b);
                self.run(100 * MS);
            }
            self.ensure(live(&self.world), || "a session did not come back", (a, b));
        }
        // Every station to every other of its network.
        self.calm = true;
        for s in 0..self.stations.len() {
            let (mac, vni) = (self.stations[s].mac, self.stations[s].vni);
            let others: Vec<Mac> = self
                .stations
                .iter()
                .filter(|other| other.vni == vni && other.mac != mac)
                .map(|other| other.mac)
                .collect();
            for to in others {
                self.send(s, to);
            }
            self.run(100 * MS);
        }
        self.settle();
    }

    /// Station `s` sends something that no switch may pass on.
    fn misbehave(&mut self, s: usize) {
        let station = self.stations[s].clone();
        let (kind, tags) = (Kind::Udp, Vec::new());
        let flow = |source, destination| Flow { id: 0, kind, v6: false, source, destination, tags: tags.clone() };
        let other = self.fresh_mac();
        let (vnet, good) = flow(station.mac, other).udp(&[(0, 64)], true);
        let refuse = |play: &mut Self, vnet, frame: &[u8], reason| play.refused(&station, vnet, frame, reason);
        match self.world.rng.range(0..9) {
            0 => {
                let cut = self.world.rng.range(0..14);
                refuse(self, VnetHeader::default(), &good[..cut], Drop::MalformedFrame);
            }
            1 => {
                let mut tag = good[..12].to_vec();
                tag.extend([0x81, 0, 0, 7, 0x81, 0, 0]);
                let cut = self.world.rng.range(14..19);
                refuse(self, VnetHeader::default(), &tag[..if cut == 18 { 19 } else { cut }], Drop::MalformedFrame);
            }
            2 => {
                let gso_type = *self.world.rng.pick(&[2, vnet::GSO_UDP, 6, 0x80, 0x85, 0xff]);
                refuse(self, VnetHeader { gso_type, ..vnet }, &good, Drop::MalformedFrame);
            }
            3 => {
                let beyond = self.world.rng.range(good.len() - 7..65_536) as u16;
                refuse(self, VnetHeader { csum_start: beyond, ..vnet }, &good, Drop::MalformedFrame);
            }
            4 => {
                // It would rewrite the addresses or ports that were just checked.
                let (v6, tags) = (self.world.rng.one_in(2), vec![0; self.world.rng.range(0..3)]);
                let judged = Flow { v6, tags, ..flow(station.mac, other) };
                let (vnet, frame) = judged.udp(&[(0, 64)], true);
                let (csum_start, csum_offset) = match self.world.rng.one_in(2) {
                    true => (self.world.rng.range(0..judged.l4()), self.world.rng.range(0..40)),
                    false => (judged.l4(), *self.world.rng.pick(&[0, 2])),
                };
                let (csum_start, csum_offset) = (csum_start as u16, csum_offset as u16);
                refuse(self, VnetHeader { csum_start, csum_offset, ..vnet }, &frame, Drop::MalformedFrame);
            }
            5 => {
                let mut source = *self.world.rng.pick(&[Mac([0; 6]), Mac::BROADCAST, station.mac]);
                if source == station.mac {
                    source.0[0] |= 1;
                }
                let (vnet, frame) = flow(source, other).udp(&[(0, 64)], true);
                refuse(self, vnet, &frame, Drop::InvalidSource);
            }
            6 => {
                let reserved = Mac([1, 0x80, 0xc2, 0, 0, self.world.rng.range(0..16) as u8]);
                let (vnet, frame) = flow(station.mac, reserved).udp(&[(0, 64)], true);
                refuse(self, vnet, &frame, Drop::ReservedDestination);
            }
            7 => {
                let len = usize::from(self.world.port_mtu) + 23 - 42;
                let datagrams = [(0, len), (1, len)];
                let count = self.world.rng.range(1..3);
                let (vnet, frame) = flow(station.mac, other).udp(&datagrams[..count], false);
                refuse(self, vnet, &frame, Drop::OversizedFrame);
            }
            _ => {
                let elsewhere =
                    |other: &&Station| other.pinned && other.vni == station.vni && other.port != station.port;
                let Some(victim) = self.stations.iter().find(elsewhere).map(|victim| victim.mac) else { return };
                let (vnet, frame) = flow(victim, other).udp(&[(0, 64)], true);
                let host = &self.world.hosts[station.host];
                // A host that lost sight of the victim's may have it where it was.
                let here = Place::Port(station.port);
                let statics = host.switch.fdb.snapshot(0);
                let known = statics.iter().any(|e| e.kind == fdb::Kind::Static && e.mac == victim && e.place != here);
                if known {
                    refuse(self, vnet, &frame, Drop::SpoofedSource);
                }
            }
        }
    }
}
