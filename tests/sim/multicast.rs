//! Multicast goes where it is listened to.

use super::world::{Acquaintance, World};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;
use weft::mesh::listeners::Listeners;
use weft::switch::counters::Drop;
use weft::switch::groups::Forwarding;
use weft::switch::ids::PortId;
use weft::wire::checksum::{fold, sum};
use weft::wire::ethernet::Mac;
use weft::wire::vnet::VnetHeader;

const NET: u32 = 7;
const MS: Duration = Duration::from_millis(1);
const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);
const IGMP: u8 = 2;
const UDP: u8 = 17;

fn mac(n: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, n])
}

/// An IPv4 frame to a group.
fn frame(from: u8, group: Ipv4Addr, protocol: u8, message: &[u8]) -> Vec<u8> {
    let [_, b, c, d] = group.octets();
    let mut frame = [&[0x01, 0, 0x5e, b & 0x7f, c, d][..], &mac(from).0, &[8, 0, 0x45, 0, 0]].concat();
    frame.push(20 + message.len() as u8);
    frame.extend([0, 0, 0, 0, 1, protocol, 0, 0, 10, 32, 0, from]);
    frame.extend(group.octets());
    frame.extend(message);
    frame
}

fn igmp(from: u8, kind: u8, group: Ipv4Addr) -> Vec<u8> {
    let mut message = [&[kind, 0, 0, 0][..], &group.octets()].concat();
    let check = !fold(sum(0, &message));
    message[2..4].copy_from_slice(&check.to_be_bytes());
    frame(from, group, IGMP, &message)
}

/// Hosts with what control makes of what their ports say.
struct Mesh {
    world: World,
    listeners: Vec<Listeners<PortId>>,
    /// By number, as in its MAC address: host and port.
    containers: BTreeMap<u8, (usize, PortId)>,
    /// A host that tells nobody what it listens to, as a stock one.
    stock: Option<usize>,
}

impl Mesh {
    /// `containers` of each host.
    fn new(containers: &[&[u8]], stock: Option<usize>) -> Self {
        let mut world = World::new(5, containers.len());
        world.narrow = true;
        world.introduce_all(&Acquaintance::default());
        let mut mesh = Self { world, listeners: Vec::new(), containers: BTreeMap::new(), stock };
        for (host, numbers) in containers.iter().enumerate() {
            let mut listeners = Listeners::default();
            for &number in *numbers {
                let port = mesh.world.add_port(host, NET, mac(number));
                mesh.containers.insert(number, (host, port));
                listeners.port_up(Duration::ZERO, NET, port, false);
            }
            mesh.listeners.push(listeners);
        }
        for (a, b) in mesh.world.pairs() {
            mesh.world.connect(a, b);
        }
        mesh.world.run(500 * MS);
        mesh.spread();
        mesh
    }

    /// Everybody knows who listens to what.
    fn spread(&mut self) {
        for (n, host) in self.world.hosts.iter_mut().enumerate() {
            for (port, frame) in std::mem::take(&mut host.out.snooped) {
                self.listeners[n].heard(self.world.now, port, &frame);
            }
        }
        for (n, host) in self.world.hosts.iter().enumerate() {
            let mut forwarding = Forwarding::default();
            self.listeners[n].of_network(NET).for_each(|(port, group)| forwarding.port_listens(port, group));
            for (&other, peer) in host.peers.iter().filter(|(other, _)| Some(**other) != self.stock) {
                forwarding.peer_listens(peer.id, self.listeners[other].groups().into_iter().map(|(_, group)| group));
            }
            host.switch.groups.set(NET, Some(forwarding));
        }
    }

    /// A container sends a frame; who got it, and how many tunnels it went into.
    fn send(&mut self, from: u8, frame: &[u8]) -> (Vec<u8>, u64) {
        let (host, id) = self.containers[&from];
        let port = self.world.hosts[host].ports.iter().find(|port| port.id == id).unwrap().clone();
        let sealed = |mesh: &Self| mesh.world.hosts[host].switch.counters.tunnel_tx_frames.get();
        let before = sealed(self);
        self.world.port_input(host, &port, VnetHeader::default(), frame);
        self.world.run(100 * MS);
        let mut reached = Vec::new();
        for host in &mut self.world.hosts {
            for delivery in std::mem::take(&mut host.out.deliveries) {
                let (&number, _) = self.containers.iter().find(|(_, (_, port))| *port == delivery.port).unwrap();
                reached.push(number);
            }
        }
        reached.sort_unstable();
        (reached, sealed(self) - before)
    }

    fn data(&mut self, from: u8, group: [u8; 4]) -> (Vec<u8>, u64) {
        self.send(from, &frame(from, group.into(), UDP, &[0; 40]))
    }
}

#[test]
fn a_stream_goes_only_to_ports_and_members_that_listen() {
    let mut mesh = Mesh::new(&[&[1, 2], &[3, 4], &[5]], None);
    let [sender, group] = [1, 3];
    assert_eq!(mesh.data(sender, GROUP.octets()), (vec![], 0));
    assert_eq!(mesh.world.hosts[0].dropped(Drop::NoListener), 1);
    // A report is for nobody but the switch while there is no router.
    assert_eq!(mesh.send(group, &igmp(group, 0x16, GROUP)), (vec![], 0));
    assert_eq!(mesh.world.hosts[1].dropped(Drop::NoListener), 0, "it was not in vain");
    mesh.spread();
    assert_eq!(mesh.data(sender, GROUP.octets()), (vec![3], 1));
    assert_eq!(mesh.data(4, GROUP.octets()), (vec![3], 0), "next door");
    assert_eq!(mesh.data(sender, [239, 1, 2, 4]), (vec![], 0), "another group");
    // What concerns the link is everybody's, and so is what is not IP.
    assert_eq!(mesh.data(sender, [224, 0, 0, 251]), (vec![2, 3, 4, 5], 2));
    let raw = [&[0x01, 0, 0x5e, 1, 2, 3][..], &mac(1).0, &[0x88, 0xb5], &[0; 40]].concat();
    assert_eq!(mesh.send(sender, &raw), (vec![2, 3, 4, 5], 2));
    let listeners = &mut mesh.listeners[1];
    listeners.tick(mesh.world.now + Duration::from_secs(260));
    mesh.spread();
    assert_eq!(mesh.data(sender, GROUP.octets()), (vec![], 0), "forgotten");
}

#[test]
fn a_router_gets_all_streams_and_all_reports_wherever_it_is() {
    let mut mesh = Mesh::new(&[&[1, 2], &[3, 4], &[5]], None);
    let [sender, router] = [1, 3];
    let everybody_else = vec![1, 2, 4, 5];
    assert_eq!(mesh.send(router, &igmp(router, 0x11, Ipv4Addr::UNSPECIFIED)).0, everybody_else, "a query is for all");
    mesh.spread();
    assert_eq!(mesh.data(sender, GROUP.octets()), (vec![3], 1));
    assert_eq!(mesh.send(5, &igmp(5, 0x16, GROUP)), (vec![3], 1), "a report from far");
    assert_eq!(mesh.send(4, &igmp(4, 0x16, GROUP)), (vec![3], 0), "and from next door");
    mesh.spread();
    assert_eq!(mesh.data(sender, GROUP.octets()), (vec![3, 4, 5], 2));
}

#[test]
fn a_host_that_tells_nothing_gets_every_stream_and_its_ports_only_theirs() {
    let mut mesh = Mesh::new(&[&[1], &[2, 3]], Some(1));
    assert_eq!(mesh.data(1, GROUP.octets()), (vec![], 1));
    assert_eq!(mesh.world.hosts[1].dropped(Drop::NoListener), 1);
    mesh.send(2, &igmp(2, 0x16, GROUP));
    mesh.spread();
    assert_eq!(mesh.data(1, GROUP.octets()), (vec![2], 1));
}

#[test]
fn a_port_that_says_too_much_is_not_heard_and_harms_nobody() {
    let mut mesh = Mesh::new(&[&[1, 2], &[3]], None);
    let (host, id) = mesh.containers[&1];
    let port = mesh.world.hosts[host].ports.iter().find(|port| port.id == id).unwrap().clone();
    for n in 0..1000_u16 {
        let [a, b] = n.to_be_bytes();
        mesh.world.port_input(host, &port, VnetHeader::default(), &igmp(1, 0x16, Ipv4Addr::new(239, 9, a, b)));
    }
    assert_eq!(mesh.world.hosts[0].out.snooped.len(), 64);
    assert_eq!(mesh.world.hosts[0].dropped(Drop::ControlQueueFull), 1000 - 64);
    mesh.send(2, &igmp(2, 0x16, GROUP));
    mesh.spread();
    assert_eq!(mesh.data(3, GROUP.octets()).0, [2]);
    assert_eq!(mesh.listeners[0].groups().len(), 65);
    let group = IpAddr::from(GROUP);
    assert!(mesh.listeners[0].groups().contains(&(NET, group)));
}
