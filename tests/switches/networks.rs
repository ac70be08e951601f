//! Networks: apart from each other, replicated only to who has them, and several on one container.

use super::{Party, attach_line, edit, lab_with, mac, peer};
use crate::common::{SOON, cli, eventually, place};
use crate::frames::{Sender, Sniffer, frame};
use std::net::UdpSocket;
use weft::control::request::NetworkStatus;
use weft::io::netns::Netns;
use weft::lab::ping::Pinger;
use weft::lab::spec::{CONTAINER_IFNAME, LabSpec, NetworkSpec};
use weft::wire::ethernet::Mac;

fn two_networks(hosts: usize, containers: usize) -> LabSpec {
    let mut spec = place::spec(hosts, containers);
    spec.networks.push(NetworkSpec { name: "other".to_owned(), vni: 200, mtu: 1500, containers });
    spec
}

#[test]
fn two_networks_with_the_same_addresses_on_the_same_hosts_never_meet() {
    if !place::usable() {
        return;
    }
    let lab = place::lab(two_networks(2, 1));
    // Twins: the same IP and MAC addresses in both networks.
    let (address, station) = ("10.32.77.7", "02:77:00:00:00:07");
    let twins = ["lab", "other"].map(|network| {
        let netns = Netns::create().unwrap();
        let more = format!("--name twin-{network} --mac {station} --ip {address}/16");
        cli::weft(&lab.host(2).files.socket(), &attach_line(&netns, network, "eth1", &more)).done();
        netns
    });
    for (network, (twin, stranger)) in ["lab", "other"].into_iter().zip([(0, 1), (1, 0)]) {
        let asker = lab.containers_of(network)[0];
        let mut ears = [twin, stranger].map(|at| Sniffer::open(&twins[at], "eth1"));
        asker.ping(address.parse().unwrap(), 4000, SOON).unwrap();
        let socket = asker.netns.run(|| UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
        socket.set_broadcast(true).unwrap();
        let texts = ["to everyone", "to the twin"].map(|text| format!("{text} in {network}").into_bytes());
        socket.send_to(&texts[0], "10.32.255.255:9").unwrap();
        socket.send_to(&texts[1], (address, 9)).unwrap();
        for text in &texts {
            ears[0].arrived(text);
            assert_eq!(ears[0].copies(text), 1);
        }
        // Whatever leaked would have come before what is sent in the other network now.
        let other = lab.containers_of(if network == "lab" { "other" } else { "lab" })[0];
        let barrier = frame(Mac::BROADCAST, mac(other), b"the barrier");
        Sender::open(&other.netns, CONTAINER_IFNAME).send(&barrier);
        ears[1].arrived(b"the barrier");
        assert!(texts.iter().all(|text| ears[1].copies(text) == 0), "{network} leaked");
    }
    // Nor does a container that is only in one of them reach the other's.
    let (one, two) = (lab.containers_of("lab")[1], lab.containers_of("other")[1]);
    for to in [two.v4.into(), two.v6.into()] {
        let mut pinger = Pinger::open(&one.netns, to, None).unwrap();
        pinger.until(56, std::time::Duration::from_millis(400)).unwrap_err();
    }
}

#[test]
fn what_is_for_everyone_goes_only_to_hosts_that_have_the_network() {
    if !place::usable() {
        return;
    }
    let without = |text: String| {
        let (before, rest) = text.split_once("[[network]]\nname = \"other\"").unwrap();
        let (_, after) = rest.split_once("\n\n").unwrap();
        format!("{before}{after}")
    };
    let mut spec = two_networks(3, 1);
    spec.networks[0].containers = 2;
    let mut lab = weft::lab::Lab::lay(spec).unwrap();
    edit(lab.host(3), without);
    lab.start_daemons(&weft::lab::Stop::default()).unwrap();
    for (h, containers) in [(1, 3), (2, 3), (3, 2)] {
        (1..=containers).for_each(|c| lab.attach(h, c).unwrap());
    }
    let networks = |host: &str| match host {
        "h3" => vec!["lab".to_owned()],
        _ => vec!["lab".to_owned(), "other".to_owned()],
    };
    for name in ["h2", "h3"] {
        eventually("the peers have told their networks", || {
            (peer(lab.host(1), name).networks == Some(networks(name))).then_some(())
        });
    }
    let shown: Vec<NetworkStatus> = cli::weft(&lab.host(1).files.socket(), "networks --json").json();
    let of = |name: &str| shown.iter().find(|network| network.name == name).unwrap().peers.clone();
    assert_eq!((of("lab"), of("other")), (vec!["h2".to_owned(), "h3".to_owned()], vec!["h2".to_owned()]));

    let (from, to) = (lab.container(1, 3), lab.container(2, 3));
    let mut ear = Sniffer::open(&to.netns, CONTAINER_IFNAME);
    let mouth = Sender::open(&from.netns, CONTAINER_IFNAME);
    let before = ["h2", "h3"].map(|name| peer(lab.host(1), name).tx_packets);
    let unknown = crate::frames::stranger(9);
    for n in 0..500 {
        for (kind, destination) in [("broadcast", Mac::BROADCAST), ("unknown unicast", unknown)] {
            mouth.send(&frame(destination, mac(from), format!("{kind} {n}.").as_bytes()));
        }
    }
    ear.arrived(b"unknown unicast 499.");
    let after = ["h2", "h3"].map(|name| peer(lab.host(1), name).tx_packets);
    assert!(after[0] - before[0] >= 1000, "{before:?} {after:?}");
    // The mesh's own few messages, and announcements in the network that h3 has.
    assert!(after[1] - before[1] < 100, "{before:?} {after:?}");
    assert_eq!(super::dropped(lab.host(3), "unknown_network"), 0);

    // Should it get the network, it gets the frames.
    edit(lab.host(3), |text| text + "\n[[network]]\nname = \"other\"\nvni = 200\n");
    cli::weft(&lab.host(3).files.socket(), "reload").done();
    lab.attach(3, 3).unwrap();
    lab.container(1, 3).ping(lab.container(3, 3).v4.into(), 56, SOON).unwrap();
    let mut party = Party::of(&[lab.container(1, 3), lab.container(2, 3), lab.container(3, 3)]);
    let text = party.from(0, Mac::BROADCAST, "now to all three");
    assert_eq!(party.send(0, &text, b"now to all three"), [0, 1, 1]);
}

#[test]
fn one_container_has_several_ports_in_one_network_and_in_two() {
    if !place::usable() {
        return;
    }
    let lab = lab_with(two_networks(2, 1), |_, text| text);
    let (container, socket) = (lab.container(1, 1), lab.host(1).files.socket());
    let lines = [
        attach_line(&container.netns, "lab", "eth2", "--name second --ip 10.32.201.1/24 --ip fd00:32::201:1/112"),
        attach_line(&container.netns, "other", "eth3", "--name third --ip 10.32.202.1/24 --ip fd00:32::202:1/112"),
    ];
    lines.iter().for_each(|line| drop(cli::weft(&socket, line).done()));
    let far = |network: &str| lab.containers_of(network)[1];
    let ends = [("lab", "10.32.201.2/24", "fd00:32::201:2/112"), ("other", "10.32.202.2/24", "fd00:32::202:2/112")]
        .map(|(network, v4, v6)| {
            let netns = Netns::create().unwrap();
            let line = attach_line(&netns, network, "eth1", &format!("--name far-{network} --ip {v4} --ip {v6}"));
            cli::weft(&lab.host(2).files.socket(), &line).done();
            netns
        });
    for to in [far("lab").v4.to_string(), "10.32.201.2".into(), "fd00:32::201:2".into(), "10.32.202.2".into()] {
        container.ping(to.parse().unwrap(), 5000, SOON).unwrap();
    }
    for (end, to) in [(0, "10.32.201.1"), (0, "fd00:32::201:1"), (1, "10.32.202.1"), (1, "fd00:32::202:1")] {
        Pinger::open(&ends[end], to.parse().unwrap(), None).unwrap().until(5000, SOON).unwrap();
    }

    // Two ports in one network are two stations, and hear each other; the third is elsewhere.
    let mut ears = ["eth1", "eth2", "eth3"].map(|ifname| Sniffer::open(&container.netns, ifname));
    let mouth = Sender::open(&container.netns, CONTAINER_IFNAME);
    mouth.send(&frame(Mac::BROADCAST, mac(container), b"from the first port"));
    ears[1].arrived(b"from the first port");
    assert_eq!(ears.each_mut().map(|ear| ear.copies(b"from the first port")), [0, 1, 0]);
    let shown = cli::weft(&socket, "ports").done();
    assert!(["c1 ", "second", "third"].iter().all(|name| shown.contains(name)), "{shown}");
    // Each goes by itself.
    cli::weft(&socket, "detach second").done();
    assert!(place::link(&container.netns, "eth2").is_none());
    container.ping(far("lab").v4.into(), 56, SOON).unwrap();
    container.ping("10.32.202.2".parse().unwrap(), 56, SOON).unwrap();
}
