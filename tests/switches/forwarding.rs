//! Frames: how many copies of each arrive, and that each is what was sent.

use super::{Party, dropped, lab_with, mac, ports};
use crate::common::{SOON, place};
use crate::frames::{Sender, Sniffer, check_frame, ones_complement, tagged, tcp4};
use std::collections::BTreeMap;
use std::net::UdpSocket;
use weft::lab::spec::CONTAINER_IFNAME;
use weft::wire::ethernet::Mac;
use weft::wire::vnet::{GSO_TCPV4, NEEDS_CSUM, TCP_CHECKSUM, VnetHeader};

#[test]
fn broadcast_and_multicast_reach_everyone_once_and_never_come_back() {
    if !place::usable() {
        return;
    }
    let lab = place::lab(place::spec(3, 2));
    let containers = lab.containers_of("lab");
    let mut party = Party::of(&containers);
    let groups =
        [[0xff; 6], [0x01, 0, 0x5e, 0, 0, 0xfb], [0x33, 0x33, 0, 0, 0, 0xfb], [0x01, 0x80, 0xc2, 0, 0, 0x10]];
    for from in 0..containers.len() {
        for (n, group) in groups.into_iter().enumerate() {
            let text = format!("{from} to group {n}.");
            let frame = party.from(from, Mac(group), &text);
            let expected: Vec<usize> = (0..containers.len()).map(|to| usize::from(to != from)).collect();
            assert_eq!(party.send(from, &frame, text.as_bytes()), expected, "{text}");
        }
    }
    assert!(party.ears.iter_mut().all(|ear| ear.seen().iter().all(|seen| seen.complete)));

    // As applications do it.
    let socket = containers[0].netns.run(|| UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
    socket.set_broadcast(true).unwrap();
    socket.send_to(b"a datagram to everyone", "10.32.255.255:9").unwrap();
    party.barrier(0);
    let copies: Vec<usize> = party.ears.iter_mut().map(|ear| ear.copies(b"datagram to everyone")).collect();
    assert_eq!(copies, [0, 1, 1, 1, 1, 1]);
    // Neighbour discovery is multicast, ARP is broadcast, and the kernel knows nobody yet.
    for to in &containers[1..] {
        containers[0].ping(to.v6.into(), 56, SOON).unwrap();
        containers[0].ping(to.link_local.unwrap().into(), 56, SOON).unwrap();
        containers[0].ping(to.v4.into(), 56, SOON).unwrap();
    }
    for host in lab.hosts() {
        assert_eq!((dropped(host, "split_horizon"), dropped(host, "replay")), (0, 0), "{}", host.name);
    }
}

#[test]
fn addresses_that_a_bridge_must_not_forward_end_at_the_port_and_are_counted() {
    if !place::usable() {
        return;
    }
    let lab = place::lab(place::spec(2, 2));
    let mut party = Party::of(&lab.containers_of("lab"));
    let drops = || ports(lab.host(1)).into_iter().find(|port| port.name == "c1").unwrap().drops;
    let (before, of_port) = (dropped(lab.host(1), "reserved_destination"), drops());
    for last in 0..=0x0f {
        let frame = party.from(0, Mac([0x01, 0x80, 0xc2, 0, 0, last]), "for the bridge only");
        party.mouths[0].send(&frame);
    }
    party.barrier(0);
    assert!(party.ears.iter_mut().all(|ear| ear.copies(b"for the bridge only") == 0));
    assert_eq!(dropped(lab.host(1), "reserved_destination"), before + 16);
    assert_eq!(drops(), of_port + 16);
}

#[test]
fn vlan_tags_pass_untouched_whatever_their_kind() {
    if !place::usable() {
        return;
    }
    let lab = place::lab(place::spec(2, 2));
    let mut party = Party::of(&lab.containers_of("lab"));
    let (customer, service) = ([0x81, 0, 0xa0, 5], [0x88, 0xa8, 0x30, 7]);
    let stacks = [&[customer][..], &[service], &[service, customer], &[customer, [0x81, 0, 0x1f, 0xff]]];
    for (n, tags) in stacks.into_iter().enumerate() {
        for (kind, destination) in [("broadcast", Mac::BROADCAST), ("near", party.macs[1]), ("far", party.macs[2])] {
            let text = format!("stack {n}, {kind}.");
            let frame = tagged(&party.from(0, destination, &text), tags);
            let copies = party.send(0, &frame, text.as_bytes());
            let expected = match kind {
                "broadcast" => [0, 1, 1, 1],
                "near" => [0, 1, 0, 0],
                _ => [0, 0, 1, 0],
            };
            assert_eq!(copies, expected, "{text}");
            for (to, _) in copies.iter().enumerate().filter(|(_, copies)| **copies > 0) {
                assert_eq!(party.ears[to].arrived(text.as_bytes()).bytes, frame, "{text} at {to}");
            }
        }
    }
    // A frame with a tag may be longer by it than the port's MTU says.
    let full = tagged(&[&party.from(0, party.macs[2], "a full frame.")[..], &[7; 1500]].concat(), &[customer]);
    let full = full[..1500 + 14 + 4].to_vec();
    assert_eq!(party.send(0, &full, b"a full frame."), [0, 0, 1, 0]);
    assert_eq!(party.ears[2].arrived(b"a full frame.").bytes, full);
}

#[test]
fn a_super_frame_behind_a_vlan_tag_is_whole_next_door_and_cut_right_for_the_tunnel() {
    if !place::usable() {
        return;
    }
    // Where nothing is merged, segments stay what they became.
    let lab = lab_with(place::spec(2, 2), |host, text| match host.name.as_str() {
        "h2" => text + "\n[offload]\ntap_checksum = false\n",
        _ => text,
    });
    let containers = lab.containers_of("lab");
    let sender = Sender::with_offload(&containers[0].netns, CONTAINER_IFNAME);
    let payload: Vec<u8> = (0..30_000u32).map(|i| (i ^ (i >> 8)) as u8).collect();
    let tag = [0x81, 0, 0x60, 42];
    for (to, whole) in [(1, true), (2, false)] {
        let mut ear = Sniffer::open(&containers[to].netns, CONTAINER_IFNAME);
        let addresses = (containers[0].v4, containers[to].v4);
        let macs = (mac(containers[to]), mac(containers[0]));
        let mut frame = tagged(&tcp4(macs, addresses, 1000, &payload), &[tag]);
        // The sum of the pseudo-header alone, as a kernel leaves it to its device.
        let length = (20 + payload.len() as u16).to_be_bytes();
        let pseudo = [&addresses.0.octets(), &addresses.1.octets(), &[0, 6][..], &length].concat();
        frame[18 + 20 + 16..18 + 20 + 18].copy_from_slice(&ones_complement(&pseudo).to_be_bytes());
        let header = VnetHeader {
            flags: NEEDS_CSUM,
            gso_type: GSO_TCPV4,
            hdr_len: 18 + 20 + 20,
            gso_size: 1456,
            csum_start: 18 + 20,
            csum_offset: TCP_CHECKSUM,
        };
        sender.send_with(header, &frame);
        let mut pieces = BTreeMap::new();
        crate::common::eventually("all of the super-frame", || {
            for seen in ear.seen().iter().filter(|seen| seen.bytes[12..16] == tag && !seen.outgoing) {
                let sequence = u32::from_be_bytes(seen.bytes[42..46].try_into().unwrap());
                pieces.insert(sequence, seen.clone());
            }
            let bytes: usize = pieces.values().map(|seen| seen.bytes.len() - 58).sum();
            (bytes >= payload.len()).then_some(())
        });
        let mut received: Vec<u8> = Vec::new();
        for (sequence, seen) in &pieces {
            assert_eq!(*sequence as usize, 1000 + received.len());
            received.extend(&seen.bytes[58..]);
            if !whole {
                assert!(seen.complete && seen.bytes.len() <= 1500 + 18, "{seen:?}");
                assert!(check_frame(&seen.bytes).unwrap());
            }
        }
        assert_eq!(received, payload);
        assert_eq!(pieces.len() == 1, whole, "{} pieces", pieces.len());
    }
}

#[test]
fn a_jumbo_port_passes_jumbo_frames_next_door_and_through_the_tunnel() {
    if !place::usable() {
        return;
    }
    let mut spec = place::spec(2, 2);
    spec.networks[0].mtu = 9000;
    let lab = place::lab(spec);
    let containers = lab.containers_of("lab");
    let mut party = Party::of(&containers);
    for to in [1, 2] {
        for size in [8972, 8973, 60_000] {
            containers[0].ping(containers[to].v4.into(), size, SOON).unwrap();
        }
        containers[0].ping(containers[to].v6.into(), 8952, SOON).unwrap();
        let whole = |ear: &mut Sniffer| ear.seen().iter().any(|seen| !seen.outgoing && seen.bytes.len() == 9014);
        assert!(whole(&mut party.ears[to]), "no frame of 9014 bytes at {}", party.names[to]);
    }
}
