//! The service address: what is sent there stays on its host, and nobody else is taken for it.

use super::world::{Acquaintance, Delivery, World};
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use weft::switch::counters::Drop;
use weft::switch::policy::{Isolation, Policy, PortPolicy};
use weft::switch::service::Service;
use weft::switch::topology::Port;
use weft::wire::announce::unsolicited_advertisement;
use weft::wire::ethernet::Mac;
use weft::wire::vnet::{GSO_TCPV4, NEEDS_CSUM, VnetHeader};

const NET: u32 = 7;
const SERVICE: [u8; 4] = [10, 32, 0, 1];
const SERVICE_V6: &str = "fd00:32::1";

fn mac(n: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, n])
}

/// An ARP frame: a request (1) or a reply (2).
fn arp(operation: u8, mac: Mac, from: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let head = [8, 6, 0, 1, 8, 0, 6, 4, 0, operation];
    [&Mac::BROADCAST.0[..], &mac.0, &head, &mac.0, &from, &[0; 6], &target].concat()
}

fn packet(to: Mac, mac: Mac, from: [u8; 4], target: [u8; 4]) -> Vec<u8> {
    let header = [0x45, 0, 0, 48, 0, 0, 0, 0, 64, 17, 0, 0];
    [&to.0[..], &mac.0, &[8, 0], &header, &from, &target, &[7; 28]].concat()
}

struct Hosts {
    world: World,
    ports: Vec<Arc<Port>>,
}

impl Hosts {
    /// Two hosts with two containers each in one network.
    fn new() -> Self {
        let mut world = World::new(1, 2);
        world.introduce_all(&Acquaintance::default());
        world.connect(0, 1);
        let service: Service = [IpAddr::from(SERVICE), SERVICE_V6.parse().unwrap()].into_iter().collect();
        world.services = [(0, service), (1, service)].into();
        for (host, n) in [(0, 11), (0, 12), (1, 13), (1, 14)] {
            world.add_port(host, NET, mac(n));
        }
        world.run(Duration::from_millis(500));
        let ports = world.hosts.iter().flat_map(|host| host.ports.clone()).collect();
        Self { world, ports }
    }

    /// A container of host 0 sends a frame: what arrives at ports of both hosts, and what is served.
    fn send(&mut self, frame: &[u8]) -> (Vec<Delivery>, Vec<Delivery>) {
        self.send_with(VnetHeader::default(), frame)
    }

    fn send_with(&mut self, header: VnetHeader, frame: &[u8]) -> (Vec<Delivery>, Vec<Delivery>) {
        let port = self.ports[0].clone();
        self.world.port_input(0, &port, header, frame);
        self.world.run(Duration::from_millis(100));
        let outs = self.world.hosts.iter_mut().map(|host| &mut host.out);
        let (mut delivered, mut served) = (Vec::new(), Vec::new());
        for out in outs {
            delivered.append(&mut out.deliveries);
            served.append(&mut out.served);
        }
        (delivered, served)
    }

    fn is_far(&self, delivery: &Delivery) -> bool {
        self.ports[2..].iter().any(|port| port.id == delivery.port)
    }

    fn dropped(&self, host: usize, reason: Drop) -> u64 {
        self.world.hosts[host].dropped(reason)
    }
}

#[test]
fn what_is_for_the_service_address_is_served_on_its_host_and_nowhere_else() {
    let mut hosts = Hosts::new();
    let own = Mac::service(NET);
    // Also where nothing is suppressed, and also one who has no address yet and wants this one.
    for from in [[10, 32, 0, 11], [0; 4]] {
        let (told, served) = hosts.send(&arp(1, mac(11), from, SERVICE));
        assert_eq!((told.len(), served.len(), told[0].port), (1, 0, hosts.ports[0].id), "{from:?}");
        assert_eq!((&told[0].frame[22..28], &told[0].frame[28..32]), (&own.0[..], &SERVICE[..]));
    }
    let frame = packet(own, mac(11), [10, 32, 0, 11], SERVICE);
    let header = VnetHeader {
        flags: NEEDS_CSUM,
        gso_type: GSO_TCPV4,
        gso_size: 9,
        csum_start: 34,
        csum_offset: 6,
        ..VnetHeader::default()
    };
    let (delivered, served) = hosts.send_with(header, &frame);
    assert_eq!((delivered.len(), served.len()), (0, 1));
    assert_eq!((served[0].header, &served[0].frame, served[0].port), (header, &frame, hosts.ports[0].id));

    // Nothing but IP is answered there, and in no VLAN.
    let mut other = frame.clone();
    other[12..14].copy_from_slice(&[0x88, 0xb5]);
    let mut tagged = frame.clone();
    tagged.splice(12..12, [0x81, 0, 0, 7]);
    for frame in [other, tagged] {
        assert!(hosts.send(&frame).1.is_empty());
    }
    assert_eq!(hosts.dropped(0, Drop::ServiceRefused), 2);
    assert_eq!(hosts.world.hosts.iter().map(|host| host.switch.fdb.len_of(NET)).sum::<usize>(), 1, "only who spoke");
}

#[test]
fn nobody_is_taken_for_the_service_address() {
    let mut hosts = Hosts::new();
    let own = Mac::service(NET);
    let answered = hosts.send(&arp(1, mac(11), SERVICE, SERVICE)).0;
    assert_eq!((answered.len(), answered[0].port), (1, hosts.ports[0].id), "it hears that the address is taken");
    let group = Mac([0x33, 0x33, 0, 0, 0, 1]);
    let v6: std::net::Ipv6Addr = SERVICE_V6.parse().unwrap();
    let from_v6 =
        [&group.0[..], &mac(11).0, &[0x86, 0xdd, 0x60, 0, 0, 0, 0, 4, 17, 1], &v6.octets(), &[9; 20]].concat();
    // The same where a header more is in front of it.
    let mut wrapped = unsolicited_advertisement(mac(11), v6);
    (wrapped[19], wrapped[20]) = (wrapped[19] + 8, 60);
    wrapped.splice(54..54, [58, 0, 1, 4, 0, 0, 0, 0]);
    let lies = [
        ("a reply that tells it", arp(2, mac(11), SERVICE, [10, 32, 0, 13])),
        ("a question in its name", arp(1, mac(11), SERVICE, [10, 32, 0, 13])),
        ("a packet in its name", packet(mac(13), mac(11), SERVICE, [10, 32, 0, 13])),
        ("its MAC address", packet(mac(13), own, [10, 32, 0, 11], [10, 32, 0, 13])),
        ("an advertisement", unsolicited_advertisement(mac(11), v6)),
        ("an advertisement behind options", wrapped),
        ("a packet of IPv6 in its name", from_v6),
    ];
    for (n, (what, lie)) in lies.iter().enumerate() {
        let (delivered, served) = hosts.send(lie);
        assert!(delivered.is_empty() && served.is_empty(), "{what}");
        assert_eq!(hosts.dropped(0, Drop::ServiceClaimed), n as u64 + 2, "{what}");
    }
    // With a guard nothing passes that cannot be read: Linux takes a frame in any number of such tags for one in none, and they are not all looked through.
    let mut tagged = arp(2, mac(11), SERVICE, [10, 32, 0, 13]);
    tagged.splice(12..12, [0x81, 0, 0, 0].repeat(3));
    hosts.world.policy = Some(Arc::default());
    hosts.world.publish();
    assert!(hosts.send(&tagged).0.is_empty());
    assert_eq!(hosts.dropped(0, Drop::Unreadable), 1);
    // A member that lets it pass is not believed either, nor does it have ours answer for it.
    hosts.world.services.remove(&0);
    hosts.world.publish();
    let delivered = hosts.send(&tagged).0;
    assert_eq!((delivered.iter().any(|it| hosts.is_far(it)), hosts.dropped(1, Drop::Unreadable)), (false, 1));
    for (n, (what, lie)) in lies.iter().enumerate().filter(|(_, (what, _))| !what.contains("MAC")) {
        let (delivered, served) = hosts.send(lie);
        let arrived = delivered.iter().filter(|delivery| hosts.is_far(delivery)).count();
        assert_eq!((arrived, served.len()), (0, 0), "{what}");
        assert!(hosts.dropped(1, Drop::ServiceClaimed) > 0, "{n}: {what}");
    }
    assert_eq!(hosts.dropped(1, Drop::ServiceClaimed), lies.len() as u64 - 1);
}

#[test]
fn what_is_for_elsewhere_goes_to_the_egress_port_or_nowhere() {
    let mut hosts = Hosts::new();
    let own = Mac::service(NET);
    let outside = packet(own, mac(11), [10, 32, 0, 11], [192, 0, 2, 1]);
    let port = hosts.ports[0].clone();
    (0..200).for_each(|_| hosts.world.port_input(0, &port, VnetHeader::default(), &outside));
    let told = std::mem::take(&mut hosts.world.hosts[0].out.served).len();
    assert_eq!(hosts.dropped(0, Drop::NoEgress), 200);
    assert!((64..=128).contains(&told), "{told} were handed on, to be told: so many a second and no more");

    hosts.world.egress = Some(hosts.ports[1].id);
    hosts.world.publish();
    let (delivered, served) = hosts.send(&outside);
    assert_eq!((delivered.len(), served.len(), delivered[0].port), (1, 0, hosts.ports[1].id));
    assert_eq!((&delivered[0].frame[..6], &delivered[0].frame[6..]), (&mac(12).0[..], &outside[6..]));
    assert_eq!(
        hosts.send(&packet(own, mac(11), [10, 32, 0, 11], SERVICE)).1.len(),
        1,
        "the address stays where it is"
    );
    // Who is the way out has none itself.
    hosts.world.egress = Some(hosts.ports[0].id);
    hosts.world.publish();
    hosts.send(&outside);
    assert_eq!(hosts.dropped(0, Drop::NoEgress), 201);
}

#[test]
fn what_there_is_no_room_for_is_counted_once() {
    let mut hosts = Hosts::new();
    let own = Mac::service(NET);
    let port = hosts.ports[0].clone();
    for (target, reason) in [(SERVICE, Drop::ServiceQueueFull), ([192, 0, 2, 1], Drop::NoEgress)] {
        let before = hosts.world.hosts[0].switch.counters.dropped_in_all();
        let refused = port.flow.rx.drops.load(Relaxed);
        hosts.world.hosts[0].out.serves_nothing = true;
        hosts.send(&packet(own, mac(11), [10, 32, 0, 11], target));
        assert_eq!(hosts.dropped(0, reason), 1, "{reason:?}");
        assert_eq!(hosts.world.hosts[0].switch.counters.dropped_in_all(), before + 1, "{reason:?}");
        assert_eq!(port.flow.rx.drops.load(Relaxed), refused + 1, "{reason:?}");
    }
}

#[test]
fn an_isolated_port_gets_out_through_the_host_and_not_back_in() {
    let mut hosts = Hosts::new();
    let (own, exit) = (Mac::service(NET), hosts.ports[1].clone());
    let subnets = vec!["10.32.0.0/16".parse().unwrap()];
    let isolation = Isolation { promiscuous: [exit.mac].into(), hosts: [exit.mac].into(), subnets };
    let mut policy = Policy { isolation: Some(isolation), ..Policy::default() };
    policy.ports.insert(exit.id, PortPolicy { promiscuous: true, ..PortPolicy::default() });
    hosts.world.policy = Some(Arc::new(policy));
    hosts.world.egress = Some(exit.id);
    hosts.world.publish();
    for (n, host) in [(12, 0), (13, 1)] {
        hosts.world.hosts[host].switch.neighbours.insert(NET, [10, 32, 0, n].into(), mac(n));
    }
    let mut arrives = |to: Mac, target: [u8; 4]| {
        let (delivered, served) = hosts.send(&packet(to, mac(11), [10, 32, 0, 11], target));
        assert!(delivered.iter().all(|delivery| delivery.port == exit.id));
        delivered.len() + served.len()
    };
    for to in [own, exit.mac] {
        assert_eq!(arrives(to, [192, 0, 2, 1]), 1, "out");
        assert_eq!(arrives(to, [10, 32, 0, 12]), 1, "the host itself");
        assert_eq!(arrives(to, [10, 32, 0, 13]), 0, "another container that is known");
        assert_eq!(arrives(to, [10, 32, 0, 99]), 0, "another that is not");
    }
    assert_eq!(arrives(own, SERVICE), 1);
    assert_eq!(hosts.dropped(0, Drop::Isolated), 4);
}
