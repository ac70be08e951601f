//! What programs on the hosts of a topology see of it, without a daemon: NATs as a STUN client names them, TCP through
//! them, partitions, MTUs; and hosts that reboot, whatever the underlay.

use crate::common::place::{lab, spec, usable};
use crate::common::{SOON, eventually};
use crate::support::reaches;
use crate::support::traffic::Stream;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;
use weft::io::netns::Netns;
use weft::lab::internet::firewall::FirewallSettings;
use weft::lab::internet::nat::Behaviour::{self, AddressAndPortDependent, AddressDependent, EndpointIndependent};
use weft::lab::internet::nat::{NatSettings, Ports};
use weft::lab::link::LinkSettings;
use weft::lab::ping::Pinger;
use weft::lab::spec::{LabSpec, Underlay};
use weft::lab::topology::{Middlebox, Site, Topology};
use weft::lab::{Lab, Stop};

/// How long something that must not arrive is waited for, after everything sent before it has.
const BRIEF: Duration = Duration::from_millis(300);
/// More than TCP's window at its beginning.
const MUCH: u64 = 1 << 20;

/// Hosts without daemons.
fn hosts(topology: Topology) -> Lab {
    let hosts = topology.hosts();
    Lab::lay(LabSpec { underlay: Underlay::Routed(topology), ..spec(hosts, 0) }).unwrap()
}

fn socket(netns: &Netns, address: impl Into<IpAddr>, port: u16) -> UdpSocket {
    let address = SocketAddr::new(address.into(), port);
    let socket = netns.run(|| UdpSocket::bind(address)).unwrap().unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    socket
}

/// Who a datagram of `from` comes from, at `to`.
fn seen(from: &UdpSocket, to: &UdpSocket) -> SocketAddr {
    from.send_to(b"who am I?", to.local_addr().unwrap()).unwrap();
    to.recv_from(&mut [0; 64]).unwrap().1
}

/// Whether a datagram of `from` to `to` gets to `receiver`.
fn arrives(from: &UdpSocket, to: SocketAddr, receiver: &UdpSocket) -> bool {
    let text = from.local_addr().unwrap().to_string();
    from.send_to(text.as_bytes(), to).unwrap();
    receiver.set_read_timeout(Some(BRIEF)).unwrap();
    let mut buffer = [0; 64];
    let arrived = loop {
        match receiver.recv_from(&mut buffer) {
            Ok((length, _)) if buffer[..length] == *text.as_bytes() => break true,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break false,
            Err(error) => panic!("{error}"),
        }
    };
    receiver.set_read_timeout(Some(SOON)).unwrap();
    arrived
}

/// Which remotes, of three, are treated alike: the first, one at its address with another port, one elsewhere.
fn named(alike: [bool; 3]) -> Behaviour {
    match alike {
        [true, true, true] => EndpointIndependent,
        [true, true, false] => AddressDependent,
        [true, false, false] => AddressAndPortDependent,
        other => panic!("no behaviour: {other:?}"),
    }
}

#[test]
fn a_stun_client_names_every_nat_as_it_is() {
    if !usable() {
        return;
    }
    let lab = hosts(Topology::new([Site::public([1]), Site::public([2]), Site::behind(NatSettings::default(), [3])]));
    let (a, b, client) = (lab.host(1), lab.host(2), lab.host(3));
    // The servers of RFC 5780: two addresses, two ports.
    let servers = [socket(&a.netns, a.v4, 3478), socket(&a.netns, a.v4, 3479), socket(&b.netns, b.v4, 3478)];
    let kinds = [EndpointIndependent, AddressDependent, AddressAndPortDependent];
    for mapping in kinds {
        for filtering in kinds {
            let nat = NatSettings { mapping, filtering, ..Default::default() };
            lab.set_box(3, Middlebox { nat: Some(nat), ..Default::default() }).unwrap();
            let inside = socket(&client.netns, client.v4, 0);
            let outsides = servers.each_ref().map(|server| seen(&inside, server));
            assert!(outsides.iter().all(|outside| outside.ip().to_string() == "198.51.100.3"), "{outsides:?}");
            assert_eq!(named(outsides.map(|outside| outside == outsides[0])), mapping);

            // One that has spoken to the first server alone.
            let inside = socket(&client.netns, client.v4, 0);
            let outside = seen(&inside, &servers[0]);
            let answered = servers.each_ref().map(|server| arrives(server, outside, &inside));
            assert_eq!(named(answered), filtering, "behind mapping {mapping:?}");
        }
    }
}

#[test]
fn neighbours_behind_a_nat_meet_at_its_outside_if_it_turns_them_back_and_keeps_their_ports_if_it_does() {
    if !usable() {
        return;
    }
    let lab = hosts(Topology::new([Site::public([1]), Site::behind(NatSettings::default(), [2, 3])]));
    let server = socket(&lab.host(1).netns, lab.host(1).v4, 3478);
    let inside = [2, 3].map(|h| socket(&lab.host(h).netns, lab.host(h).v4, 5000));
    for (hairpin, ports) in [(false, Ports::Preserved), (true, Ports::Preserved), (true, Ports::Random)] {
        let nat = NatSettings { hairpin, ports, filtering: EndpointIndependent, ..Default::default() };
        lab.set_box(2, Middlebox { nat: Some(nat), ..Default::default() }).unwrap();
        let outside = seen(&inside[0], &server);
        assert_eq!(outside.port() == 5000, ports == Ports::Preserved);
        // Only one of two can keep the same port.
        assert_ne!(seen(&inside[1], &server).port(), 5000);
        assert_eq!(arrives(&inside[1], outside, &inside[0]), hairpin);
    }
    // Without the way round, too, they are on one segment.
    assert!(arrives(&inside[1], inside[0].local_addr().unwrap(), &inside[0]));
}

#[test]
fn tcp_passes_nat_and_firewall_and_outlives_a_partition() {
    if !usable() {
        return;
    }
    let mut topology = Topology::new([Site::public([1]), Site::behind(NatSettings::symmetric(), [2])]);
    topology.sites[1].middlebox.firewall = FirewallSettings::without_udp();
    let lab = hosts(topology);
    let (server, client) = (lab.host(1), lab.host(2));
    let stream = Stream::start(&client.netns, &server.netns, server.v4.into());
    stream.moves_on(MUCH);
    let (near, far) = (socket(&client.netns, client.v4, 0), socket(&server.netns, server.v4, 53));
    assert!(!arrives(&near, far.local_addr().unwrap(), &far));
    lab.change_site(2, |site| site.middlebox.firewall = FirewallSettings::closed()).unwrap();
    assert!(arrives(&near, far.local_addr().unwrap(), &far));
    lab.partition(&[&[1]]).unwrap();
    assert!(!arrives(&near, far.local_addr().unwrap(), &far));
    let before = lab.internet_counts().unwrap().lines.cut;
    eventually("TCP tries in vain", || (lab.internet_counts().unwrap().lines.cut > before).then_some(()));
    lab.heal().unwrap();
    stream.moves_on(MUCH);
    stream.finish();
}

#[test]
fn each_site_has_its_mtu_and_a_router_says_so_or_does_not() {
    if !usable() {
        return;
    }
    let jumbo = |h| Site { mtu: 9000, ..Site::public([h]) };
    let lab = hosts(Topology::new([jumbo(1), jumbo(2), Site::public([3])]));
    let ping = |to: IpAddr, size, patience| {
        Pinger::open(&lab.host(1).netns, to, None).and_then(|mut pinger| pinger.until(size, patience))
    };
    let received = || lab.internet_counts().unwrap().lines.received;
    for (to, size) in [(IpAddr::V4(lab.host(2).v4), 8972), (IpAddr::V6(lab.host(2).v6), 8952)] {
        ping(to, 56, SOON).unwrap();
        let before = received();
        ping(to, size, SOON).unwrap();
        assert_eq!(received() - before, 2, "an echo of {size} bytes in one packet there and one back");
    }
    // The first is too large for the other site; once the kernel has been told, it cuts.
    for to in [IpAddr::V4(lab.host(3).v4), IpAddr::V6(lab.host(3).v6)] {
        ping(to, 8000, SOON).unwrap();
    }
    lab.change_site(2, |site| (site.icmp, site.line.max_packet) = (false, Some(1400))).unwrap();
    ping(lab.host(2).v4.into(), 1372, SOON).unwrap();
    ping(lab.host(2).v4.into(), 1373, BRIEF).unwrap_err();
}

#[test]
fn a_host_that_reboots_is_back_with_its_containers_whatever_connects_it() {
    if !usable() {
        return;
    }
    let wire = Underlay::Impaired(LinkSettings::default(), 1);
    for underlay in [Underlay::Bridge, wire, Underlay::Routed(Topology::flat(2))] {
        let mut lab = lab(LabSpec { underlay, ..spec(2, 1) });
        reaches(lab.container(1, 1), lab.container(2, 1));
        let key = lab.host(2).public_key;
        lab.crash(2).unwrap();
        lab.crash(2).unwrap_err();
        lab.reboot(2, &Stop::default()).unwrap();
        reaches(lab.container(1, 1), lab.container(2, 1));
        // As well while it is running.
        lab.reboot(2, &Stop::default()).unwrap();
        reaches(lab.container(2, 1), lab.container(1, 1));
        assert_eq!(lab.host(2).public_key, key);
        lab.set_cable(2, false).unwrap();
        lab.container(1, 1).ping(lab.container(2, 1).v4.into(), 56, BRIEF).unwrap_err();
        lab.set_cable(2, true).unwrap();
        reaches(lab.container(1, 1), lab.container(2, 1));
    }
}
