//! Stations that the mesh knows: they are found without a flood, found again when they move, and nobody speaks for them.
//!
//! Each host has [`Stations`] and does with its outputs what control does. What hosts tell each other arrives when it likes,
//! within a second and in any order, as if some of it had been lost and sent again.

use super::world::{Acquaintance, World};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use weft::mesh::facts::Attachment;
use weft::mesh::stations::{Output, Stations};
use weft::switch::counters::Drop;
use weft::switch::ids::{Place, PortId};
use weft::switch::topology::Port;
use weft::wire::announce::{gratuitous_arp, unsolicited_advertisement};
use weft::wire::ethernet::Mac;
use weft::wire::vnet::VnetHeader;

const NET: u32 = 7;
const MS: Duration = Duration::from_millis(1);
/// What news may take: the mesh promises a second.
const SLOWEST: u64 = 900;

fn ip(n: u8) -> IpAddr {
    IpAddr::from([10, 32, 0, n])
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// An ARP frame: who has `target`, says `from`, who is at `mac`.
fn ask(mac: Mac, from: IpAddr, target: IpAddr, to: Mac) -> Vec<u8> {
    let mut frame = [&to.0[..], &mac.0, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &mac.0, &octets(from), &[0; 6]].concat();
    frame.extend(octets(target));
    frame
}

/// The MAC address that an ARP frame tells of an address.
fn told(frame: &[u8], of: IpAddr) -> Option<Mac> {
    let arp = frame.len() >= 42 && frame[12..14] == [8, 6] && frame[28..32] == octets(of);
    arp.then(|| Mac(*frame[22..].first_chunk::<6>().unwrap()))
}

struct News {
    to: usize,
    from: usize,
    version: u64,
    list: Vec<Attachment>,
}

/// Hosts whose control planes know each other's attachments.
struct Mesh {
    world: World,
    stations: Vec<Stations>,
    /// What each host has.
    lists: Vec<(u64, Vec<Attachment>)>,
    /// What is on its way, and which version each host knows of each.
    news: BTreeMap<(Duration, u64), News>,
    known: BTreeMap<(usize, usize), u64>,
    serial: u64,
}

impl Mesh {
    fn new(seed: u64, hosts: usize) -> Self {
        let mut world = World::new(seed, hosts);
        world.narrow = true;
        world.introduce_all(&Acquaintance::default());
        let stations = world.hosts.iter().map(|host| Stations::new(host.key)).collect();
        let lists = vec![(0, Vec::new()); hosts];
        let mut mesh = Self { world, stations, lists, news: BTreeMap::new(), known: BTreeMap::new(), serial: 0 };
        for (a, b) in mesh.world.pairs() {
            mesh.world.connect(a, b);
        }
        mesh.run(500 * MS);
        mesh
    }

    /// A container appears behind a port of its own.
    fn attach(&mut self, host: usize, mac: Mac, address: IpAddr) -> Arc<Port> {
        let sequence = self.stations[host].next_sequence(NET, mac, &[address]);
        self.world.add_port(host, NET, mac);
        let name = format!("c{}", mac.0[5]);
        self.lists[host].1.push(Attachment { vni: NET, mac, addresses: vec![address], sequence, name });
        self.publish(host);
        self.world.hosts[host].ports.last().unwrap().clone()
    }

    fn detach(&mut self, host: usize, port: PortId) {
        let mac = self.world.hosts[host].ports.iter().find(|known| known.id == port).unwrap().mac;
        self.lists[host].1.retain(|attachment| attachment.mac != mac);
        self.world.remove_port(host, port);
        self.publish(host);
    }

    /// We know at once what we have; the others later.
    fn publish(&mut self, host: usize) {
        self.lists[host].0 += 1;
        for to in 0..self.world.hosts.len() {
            let (version, list) = self.lists[host].clone();
            let news = News { to, from: host, version, list };
            if to == host {
                self.hear(news);
                continue;
            }
            self.serial += 1;
            let delay = MS * (5 + self.world.rng.next() % SLOWEST) as u32;
            self.news.insert((self.world.now + delay, self.serial), news);
        }
    }

    fn hear(&mut self, news: News) {
        let News { to, from, version, list } = news;
        let known = self.known.entry((to, from)).or_default();
        if *known >= version {
            return;
        }
        *known = version;
        let key = self.world.hosts[from].key;
        self.stations[to].set(self.world.now, key, &format!("h{from}"), &list);
        while let Some(output) = self.stations[to].poll_output() {
            let host = &self.world.hosts[to];
            let place = |member, mac: Mac| match self.world.hosts.iter().position(|host| host.key == member) {
                Some(n) if n == to => host.ports.iter().find(|port| port.mac == mac).map(|port| Place::Port(port.id)),
                Some(n) => host.peers.get(&n).map(|peer| Place::Peer(peer.id)),
                None => None,
            };
            match output {
                Output::Station { vni, mac, member, sequence } => {
                    assert!(host.switch.fdb.insert_mesh(vni, mac, place(member, mac).unwrap(), sequence));
                }
                Output::NoStation { vni, mac, member } => {
                    // A port that is gone has taken its entries along.
                    if let Some(place) = place(member, mac) {
                        host.switch.fdb.remove_mesh(vni, mac, place);
                    }
                }
                Output::Address { vni, address, mac, tell } => {
                    host.switch.neighbours.insert(vni, address, mac);
                    let IpAddr::V4(address) = address else { continue };
                    if tell {
                        self.world.tell_ports(to, vni, &gratuitous_arp(mac, address));
                    }
                }
                Output::NoAddress { vni, address } => host.switch.neighbours.remove(vni, address),
                Output::Warning { text, .. } => panic!("nobody did anything wrong: {text}"),
            }
        }
    }

    fn run(&mut self, span: Duration) {
        let end = self.world.now + span;
        while let Some((&(at, _), _)) = self.news.first_key_value().filter(|((at, _), _)| *at <= end) {
            self.world.run(at.saturating_sub(self.world.now));
            let (_, news) = self.news.pop_first().unwrap();
            self.hear(news);
        }
        let rest = end.saturating_sub(self.world.now);
        self.world.run(rest);
    }

    fn send(&mut self, host: usize, port: &Port, frame: &[u8]) {
        self.world.port_input(host, port, VnetHeader::default(), frame);
    }

    /// What was handed to ports of a host since this was last asked.
    fn deliveries(&mut self, host: usize) -> Vec<(PortId, Vec<u8>)> {
        let deliveries = std::mem::take(&mut self.world.hosts[host].out.deliveries);
        deliveries.into_iter().map(|delivery| (delivery.port, delivery.frame)).collect()
    }

    fn flooded(&self, host: usize) -> u64 {
        self.world.hosts[host].switch.counters.flooded_frames.get()
    }

    fn suppressed(&self, host: usize) -> u64 {
        self.world.hosts[host].switch.counters.suppressed_frames.get()
    }
}

fn mac(n: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, n])
}

#[test]
fn a_container_that_moves_is_reached_within_a_second_without_a_question_two_hundred_times() {
    let mut mesh = Mesh::new(1, 3);
    let asker = mesh.attach(2, mac(1), ip(1));
    mesh.attach(0, mac(2), ip(2));
    mesh.attach(1, mac(3), ip(3));
    let mut places = [0, 1];
    let mut moving = mesh.attach(0, mac(100), ip(100));
    mesh.run(1000 * MS);
    mesh.send(2, &asker, &ask(mac(1), ip(1), ip(100), Mac::BROADCAST));
    let mut remembered = mesh.deliveries(2).iter().find_map(|(_, frame)| told(frame, ip(100))).unwrap();
    assert_eq!((remembered, mesh.suppressed(2)), (mac(100), 1));
    mesh.world.link.loss = 0.3;
    for round in 0..200_u8 {
        let [from, to] = places;
        mesh.detach(from, moving.id);
        // Half of them come up with another MAC address, and some before the old place has told that they stopped.
        let next = if round % 2 == 0 { moving.mac } else { mac(100 + (round % 100) + 1) };
        if round % 3 == 0 {
            mesh.run(300 * MS);
        }
        moving = mesh.attach(to, next, ip(100));
        let start = mesh.world.now;
        for try_ in 0_u8.. {
            mesh.run(50 * MS);
            for (port, frame) in mesh.deliveries(2) {
                if port == asker.id
                    && let Some(mac) = told(&frame, ip(100))
                {
                    remembered = mac;
                }
            }
            let text = [round, try_];
            mesh.send(2, &asker, &[&remembered.0[..], &mac(1).0, &[0x88, 0xb5], &text, &[0; 50]].concat());
            mesh.run(15 * MS);
            let arrived = mesh.deliveries(to);
            let reached = arrived.iter().any(|(port, frame)| *port == moving.id && frame[14] == round);
            if reached && remembered == moving.mac {
                break;
            }
            assert!(mesh.world.now - start < 1000 * MS + 65 * MS, "round {round}: not reached");
        }
        places = [to, from];
        mesh.deliveries(0);
        mesh.deliveries(1);
    }
    mesh.run(1000 * MS);
    for host in 0..3 {
        let switch = &mesh.world.hosts[host].switch;
        let expected = match host == places[0] {
            true => Place::Port(moving.id),
            false => Place::Peer(mesh.world.hosts[host].peers[&places[0]].id),
        };
        assert_eq!(switch.fdb.lookup(0, NET, moving.mac), Some(expected), "host {host}");
        assert_eq!(switch.neighbours.lookup(NET, ip(100)), Some(moving.mac), "host {host}");
        assert_eq!(switch.fdb.len(), 4, "host {host}: nothing is left behind");
    }
    assert_eq!(mesh.suppressed(2), 1, "it never asked again");
}

#[test]
fn questions_for_known_addresses_go_nowhere_and_all_others_go_on() {
    let mut mesh = Mesh::new(2, 2);
    let one = mesh.attach(0, mac(1), ip(1));
    let next_door = mesh.attach(0, mac(2), ip(2));
    mesh.attach(1, mac(3), ip(3));
    mesh.run(1000 * MS);
    mesh.deliveries(0);

    // (what is asked, what is told, whether it goes on)
    let zero = IpAddr::from([0, 0, 0, 0]);
    let cases = [
        ("a far address", ask(mac(1), ip(1), ip(3), Mac::BROADCAST), Some(mac(3)), false),
        ("a near address", ask(mac(1), ip(1), ip(2), Mac::BROADCAST), Some(mac(2)), false),
        ("an unknown address", ask(mac(1), ip(1), ip(9), Mac::BROADCAST), None, true),
        ("a probe for a taken address", ask(mac(1), zero, ip(3), Mac::BROADCAST), Some(mac(3)), false),
        ("a claim to a taken address", gratuitous_arp(mac(1), [10, 32, 0, 3].into()), Some(mac(3)), false),
        ("a probe for the own address", ask(mac(1), zero, ip(1), Mac::BROADCAST), None, true),
        ("the own address, announced", gratuitous_arp(mac(1), [10, 32, 0, 1].into()), None, true),
        ("are you still there?", ask(mac(1), ip(1), ip(3), mac(3)), None, false),
        ("are you still at the old place?", ask(mac(1), ip(1), ip(3), mac(2)), Some(mac(3)), false),
        ("not a question", unsolicited_advertisement(mac(1), "fd00::3".parse().unwrap()), None, true),
    ];
    for (what, frame, expected, goes_on) in cases {
        let before = (mesh.flooded(0), mesh.suppressed(0));
        mesh.send(0, &one, &frame);
        let deliveries = mesh.deliveries(0);
        let answers: Vec<Mac> = deliveries
            .iter()
            .filter(|(port, _)| *port == one.id)
            .map(|(_, frame)| Mac(*frame[22..].first_chunk::<6>().unwrap()))
            .collect();
        assert_eq!(answers, expected.into_iter().collect::<Vec<_>>(), "{what}");
        assert_eq!(deliveries.iter().any(|(port, _)| *port == next_door.id), goes_on, "{what}");
        let after = (before.0 + u64::from(goes_on), before.1 + u64::from(expected.is_some()));
        assert_eq!((mesh.flooded(0), mesh.suppressed(0)), after, "{what}");
    }
    // A network for itself knows none of it.
    mesh.world.add_port(0, NET + 1, mac(1));
    mesh.world.add_port(0, NET + 1, mac(7));
    let other = mesh.world.hosts[0].ports[2].clone();
    mesh.send(0, &other, &ask(mac(1), ip(1), ip(3), Mac::BROADCAST));
    assert_eq!(mesh.deliveries(0).iter().filter(|(port, _)| *port == other.id).count(), 0);
}

#[test]
fn nobody_takes_a_container_s_address_by_speaking_with_it() {
    let mut mesh = Mesh::new(3, 3);
    let thief = mesh.attach(0, mac(1), ip(1));
    let asker = mesh.attach(1, mac(2), ip(2));
    let owner = mesh.attach(2, mac(3), ip(3));
    mesh.run(1000 * MS);
    for host in 0..3 {
        mesh.deliveries(host);
    }
    let lie = [&Mac::BROADCAST.0[..], &mac(3).0, &[0x88, 0xb5], &[0; 60]].concat();
    mesh.send(0, &thief, &lie);
    mesh.run(100 * MS);
    assert_eq!(mesh.world.hosts[0].dropped(Drop::SpoofedSource), 1);
    assert!((0..3).all(|host| mesh.deliveries(host).is_empty()));
    // A host that lets its container lie is not believed either.
    mesh.world.hosts[0].switch.fdb.remove_mesh(NET, mac(3), Place::Peer(mesh.world.hosts[0].peers[&2].id));
    mesh.send(0, &thief, &lie);
    mesh.run(100 * MS);
    assert_eq!([1, 2].map(|host| mesh.world.hosts[host].dropped(Drop::SpoofedSource)), [1, 1]);
    mesh.send(1, &asker, &[&mac(3).0[..], &mac(2).0, &[0x88, 0xb5], &[0; 60]].concat());
    mesh.run(100 * MS);
    assert_eq!(mesh.deliveries(2).iter().map(|(port, _)| *port).collect::<Vec<_>>(), [owner.id]);
}
