//! What goes on while daemons die, hosts move and the underlay fails (real daemons in a lab).
//!
//! Nothing here sleeps for luck: traffic runs all the time, and each test waits until it is there again.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;
mod support;

use common::eventually;
use common::place::{inside, lab, spec, usable};
use std::collections::HashSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::{Duration, Instant};
use support::traffic::{Pings, Stream};
use support::{dropped, peer, reaches, status};
use weft::io::netlink::{Address, Link, Route};
use weft::lab::link::LinkSettings;
use weft::lab::spec::{CONTAINER_IFNAME, Underlay};
use weft::lab::{Container, Lab, Stop};

/// What the product promises: from the start of a daemon until its containers are reached again.
const BACK: Duration = Duration::from_secs(2);
/// And from SIGTERM until it has ended.
const STOPPED: Duration = Duration::from_secs(1);
/// Between two pings.
const EVERY: Duration = Duration::from_millis(10);
/// A few round trips of TCP at full windows.
const MUCH: u64 = 2 << 20;

/// Everything a user could miss of a container's interface.
#[derive(Debug, PartialEq)]
struct Interface {
    link: Link,
    addresses: Vec<Address>,
    routes: Vec<Route>,
    v6_routes: Vec<String>,
}

fn interface(container: &Container) -> Interface {
    let look = |netlink: &mut weft::io::netlink::Netlink| {
        // Whether a daemon has it open is what changes.
        let link = Link { carrier: false, ..netlink.link(CONTAINER_IFNAME).unwrap().unwrap() };
        let addresses = netlink.addresses(link.index).unwrap();
        let routes = netlink.routes().unwrap();
        let text = fs::read_to_string("/proc/thread-self/net/ipv6_route").unwrap();
        let v6_routes = text.lines().filter(|line| line.ends_with(CONTAINER_IFNAME));
        // The first six fields: where it leads and at what cost; then come reference counts.
        let v6_routes = v6_routes.map(|line| line.split_whitespace().take(6).collect::<Vec<_>>().join(" "));
        Interface { link, addresses, routes, v6_routes: v6_routes.collect() }
    };
    inside(&container.netns, look)
}

/// A lab of two hosts whose containers have a default route besides, with sessions up.
fn two_hosts(containers: usize, change: impl FnOnce(&mut weft::lab::spec::LabSpec)) -> Lab {
    let mut spec = spec(2, containers);
    change(&mut spec);
    let lab = lab(spec);
    for host in lab.hosts() {
        for container in &host.containers {
            inside(&container.netns, |netlink| {
                let index = netlink.link(CONTAINER_IFNAME).unwrap().unwrap().index;
                netlink.add_default_route(IpAddr::V4(Ipv4Addr::new(10, 32, 0, 254)), index).unwrap();
            });
        }
    }
    reaches(lab.container(1, 1), lab.container(2, 1));
    lab
}

/// A stream each way between the first containers of two hosts, and pings.
fn traffic(lab: &Lab) -> (Stream, Stream, Pings) {
    let (a, b) = (lab.container(1, 1), lab.container(2, 1));
    let there = Stream::start(&a.netns, &b.netns, b.v4.into());
    let back = Stream::start(&b.netns, &a.netns, a.v6.into());
    let pings = Pings::start(&a.netns, b.v4.into(), 56, EVERY);
    there.moves_on(MUCH);
    back.moves_on(MUCH);
    pings.answered_after(Instant::now());
    (there, back, pings)
}

/// Ends the daemons of `hosts` by `signal` and starts them again, three times under traffic. One time in three the
/// promise must be kept: the machine may be busy with other tests in the others.
fn restarts(hosts: &[usize], signal: i32) {
    let mut lab = two_hosts(2, |_| {});
    let containers: Vec<_> = (1..=2).flat_map(|h| (1..=2).map(move |c| (h, c))).collect();
    let look = |lab: &Lab| containers.iter().map(|&(h, c)| interface(lab.container(h, c))).collect::<Vec<_>>();
    let before = look(&lab);
    assert!(
        before.iter().all(|interface| interface.addresses.len() == 3 && interface.routes.len() == 4),
        "{before:?}"
    );
    let (there, back, pings) = traffic(&lab);
    let (mut times, mut ends) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        for &h in hosts {
            let (status, after) = lab.kill_daemon(h, signal).unwrap();
            if signal == libc::SIGTERM {
                assert!(status.success(), "{status}");
                ends.push(after);
            }
        }
        assert_eq!(look(&lab), before);
        let start = Instant::now();
        for &h in hosts {
            lab.start_daemon(h, &Stop::default()).unwrap();
        }
        times.push(pings.answered_after(start));
        there.moves_on(MUCH);
        back.moves_on(MUCH);
        assert_eq!(look(&lab), before);
        // Containers of one host reach each other as before, without anything else having been said.
        for &h in hosts {
            reaches(lab.container(h, 1), lab.container(h, 2));
        }
    }
    println!("reached again {times:?} after the start");
    assert!(times.iter().min().unwrap() < &BACK, "{times:?}");
    assert!(ends.iter().min().is_none_or(|end| end < &STOPPED), "{ends:?}");
    drop(pings);
    there.finish();
    back.finish();
}

#[test]
fn a_killed_daemon_finds_its_containers_again_and_their_connections_go_on() {
    if usable() {
        restarts(&[1], libc::SIGKILL);
    }
}

#[test]
fn two_daemons_killed_at_once_find_their_containers_and_each_other_again() {
    if usable() {
        restarts(&[1, 2], libc::SIGKILL);
    }
}

#[test]
fn an_upgrade_by_sigterm_and_start_cuts_no_connection() {
    if usable() {
        restarts(&[2], libc::SIGTERM);
    }
}

#[test]
fn a_host_that_lost_its_state_in_a_reboot_is_reached_again_once_its_containers_are_back() {
    if !usable() {
        return;
    }
    let mut lab = two_hosts(1, |_| {});
    let pings = Pings::start(&lab.container(1, 1).netns, lab.container(2, 1).v4.into(), 56, EVERY);
    lab.kill_daemon(2, libc::SIGKILL).unwrap();
    // What a reboot takes: interfaces, state, sessions. The key and the configuration are on the disk.
    inside(&lab.container(2, 1).netns, |netlink| {
        let link = netlink.link(CONTAINER_IFNAME).unwrap().unwrap();
        netlink.delete(link.index).unwrap();
    });
    fs::remove_dir_all(lab.host(2).files.state()).unwrap();
    let start = Instant::now();
    lab.start_daemon(2, &Stop::default()).unwrap();
    assert_eq!(status(&lab, 2).ports, 0);
    // The other container comes back with another MAC address: the announcement corrects what h1 knows.
    lab.attach(2, 1).unwrap();
    let took = pings.answered_after(start);
    println!("reached again after {took:?}");
    assert!(took < Duration::from_secs(10), "{took:?}");
}

/// Pulls a cable for `outage` under traffic; returns how long after it was plugged a ping was answered.
fn outage(lab: &Lab, outage: Duration) -> Duration {
    let (there, back, pings) = traffic(lab);
    lab.set_cable(2, false).unwrap();
    let pulled = Instant::now();
    // This long, not until something happens.
    std::thread::sleep(outage);
    let plugged = Instant::now();
    assert_eq!(pings.between(pulled + Duration::from_secs(1), plugged).0, 0, "answered without a cable");
    lab.set_cable(2, true).unwrap();
    let took = pings.answered_after(plugged);
    there.moves_on(MUCH);
    back.moves_on(MUCH);
    there.finish();
    back.finish();
    took
}

#[test]
fn a_short_outage_of_the_underlay_is_over_when_it_is_over() {
    if !usable() {
        return;
    }
    let took = outage(&two_hosts(1, |_| {}), Duration::from_secs(3));
    println!("reached again {took:?} after the cable was plugged");
    assert!(took < Duration::from_secs(3), "{took:?}");
}

#[test]
fn an_outage_longer_than_wireguards_patience_is_over_when_it_is_over() {
    if !usable() {
        return;
    }
    // After 15 s of silence a peer counts as deaf and is called every 5 s.
    let took = outage(&two_hosts(1, |spec| spec.ipv6_underlay = true), Duration::from_secs(18));
    println!("reached again {took:?} after the cable was plugged");
    assert!(took < Duration::from_secs(6), "{took:?}");
}

/// Moves host 2 to another address twice under traffic.
fn roams(ipv6: bool) {
    let mut lab = two_hosts(1, |spec| spec.ipv6_underlay = ipv6);
    let (there, back, pings) = traffic(&lab);
    for last in [77, 2] {
        let moved = Instant::now();
        let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last);
        lab.readdress(2, Ipv4Addr::new(192, 0, 2, last as u8), v6).unwrap();
        let took = pings.answered_after(moved);
        println!("reached again {took:?} after the move");
        assert!(took < Duration::from_secs(5), "{took:?}");
        there.moves_on(MUCH);
        back.moves_on(MUCH);
        let (v4, v6) = (lab.host(2).v4, lab.host(2).v6);
        let here = |address: IpAddr| address == IpAddr::V4(v4) || address == IpAddr::V6(v6);
        let endpoint = peer(&lab, 1, "h2").endpoint.unwrap();
        assert!(here(endpoint.ip()), "{endpoint}");
    }
    there.finish();
    back.finish();
}

#[test]
fn a_peer_whose_address_changes_is_followed() {
    if usable() {
        roams(false);
    }
}

#[test]
fn a_peer_whose_address_changes_is_followed_over_ipv6() {
    if usable() {
        roams(true);
    }
}

#[test]
fn loss_reordering_and_duplication_below_are_no_more_than_loss_above() {
    if !usable() {
        return;
    }
    let impaired = LinkSettings { loss: 5.0, reorder: 5.0, duplicate: 5.0, ..Default::default() };
    let lab = two_hosts(1, |spec| spec.underlay = Underlay::Impaired(impaired, 42));
    let (a, b) = (lab.container(1, 1), lab.container(2, 1));

    let stream = Stream::start(&a.netns, &b.netns, b.v4.into());
    let begun = Instant::now();
    let pings = Pings::start(&b.netns, a.v6.into(), 56, EVERY);
    stream.moves_on(MUCH);
    // Those of two or three packets are lost when one of these is: nine in ten arrive, on a machine that keeps up.
    numbered(a, b, 20_000, 0.8);
    eventually("200 pings", || (pings.between(begun, Instant::now()).1 >= 200).then_some(()));
    let (answered, sent) = pings.between(begun, Instant::now());
    println!("{answered} of {sent} pings were answered");
    assert!(answered * 100 > sent * 80, "{answered} of {sent} pings were answered");
    drop(pings);
    assert!(stream.finish() > MUCH);

    // Everything is at rest but the members' own messages: what was sent arrived, or the wire has it on its account.
    let wire = lab.link_counts();
    let (one, two) = (status(&lab, 1), status(&lab, 2));
    println!("{wire:?}\n{:?} {:?}\n{:?} {:?}", one.traffic, one.drops, two.traffic, two.drops);
    let sent = one.traffic.datagrams_tx + two.traffic.datagrams_tx;
    let received = one.traffic.datagrams_rx + two.traffic.datagrams_rx;
    let lost = wire.lost
        + wire.overflowed
        + dropped(&lab, 1, "receive_buffer_full")
        + dropped(&lab, 2, "receive_buffer_full");
    let expected = sent + wire.duplicated - lost;
    // The wire's own queues lose some, uncounted, when the machine is busy.
    assert!(received.abs_diff(expected) < 200 + expected / 30, "{received} of {expected} datagrams arrived");
    let replays = one.drops["replay"] + two.drops["replay"];
    let duplicated = wire.duplicated;
    assert!(replays.abs_diff(duplicated) < 200 + duplicated / 20, "{replays} replays of {duplicated} duplicates");
    for h in [1, 2] {
        // Containers still say a word now and then: at some moment no frame is on its way.
        eventually("every frame out of a tunnel was delivered or counted", || {
            let host = status(&lab, h);
            let ends = ["split_horizon", "no_receiver", "unknown_network", "malformed_inner_frame", "spoofed_source"];
            let ends: u64 = ends
                .iter()
                .chain(&["invalid_source", "port_blocked", "no_listener"])
                .map(|&name| host.drops[name])
                .sum();
            (host.traffic.tunnel_rx_frames + host.traffic.told_frames == host.traffic.port_tx_frames + ends)
                .then_some(())
        });
    }
}

/// Sends `n` numbered datagrams; no number may arrive twice, and `share` of them must arrive.
fn numbered(from: &Container, to: &Container, n: u32, share: f64) {
    let receiver = to.netns.run(|| UdpSocket::bind((to.v4, 0))).unwrap().unwrap();
    let target = receiver.local_addr().unwrap();
    let sender = from.netns.run(|| UdpSocket::bind((from.v4, 0))).unwrap().unwrap();
    socket2::SockRef::from(&receiver).set_recv_buffer_size(8 << 20).unwrap();
    receiver.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let seen = std::thread::scope(|scope| {
        let count = scope.spawn(|| {
            let (mut seen, mut buffer) = (HashSet::new(), [0; 2000]);
            while let Ok(length) = receiver.recv(&mut buffer) {
                let number = u32::from_be_bytes(*buffer[..length].first_chunk().unwrap());
                assert!(seen.insert(number), "datagram {number} arrived twice");
            }
            seen.len()
        });
        for number in 0..n {
            let size = [4, 100, 1400, 1472, 1800][number as usize % 5];
            let mut datagram = vec![0; size];
            datagram[..4].copy_from_slice(&number.to_be_bytes());
            sender.send_to(&datagram, target).unwrap();
            if number % 16 == 0 {
                // A burst of what a queue holds; the rest of the test is no test of queues.
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        count.join().unwrap()
    });
    println!("{seen} of {n} datagrams arrived");
    assert!(seen as f64 > f64::from(n) * share, "{seen} of {n} datagrams arrived");
}
