//! Whatever the underlay's path MTU is and however silently it drops: containers notice nothing.
//!
//! The lab's wire swallows every packet above its limit and tells nobody, as a firewall that drops ICMP does.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;
mod support;

use common::place::{inside, lab, spec, usable};
use common::{SOON, eventually};
use socket2::SockRef;
use std::net::IpAddr;
use std::time::{Duration, Instant};
use support::member::Member;
use support::traffic::{Pings, Stream, any_port};
use support::{dropped, growth, memory, peer, peers_up, reaches, status};
use weft::lab::datagrams::{MAX_DATAGRAM, every_size};
use weft::lab::generator::{bulk_tcp, tcp_pair};
use weft::lab::link::LinkSettings;
use weft::lab::spec::{HOST_IFNAME, LabSpec, NetworkSpec, Underlay};
use weft::lab::{Container, Lab, Stop};
use weft::wire::ethernet::Mac;

/// What TCP must bring over: enough for its window to open.
const MUCH: u64 = 4 << 20;

/// Two hosts on a wire that swallows packets above `most`, each with a container in a network with port MTU 1500 and one
/// with 9000.
fn hosts_on(most: usize, change: impl FnOnce(&mut LabSpec)) -> Lab {
    let mut spec = spec(2, 1);
    let jumbo = NetworkSpec { name: "jumbo".to_owned(), vni: 200, mtu: 9000, containers: 1 };
    spec.networks.push(jumbo);
    spec.underlay_mtu = 9000;
    let link = LinkSettings { max_packet: Some(most), ..Default::default() };
    spec.underlay = Underlay::Impaired(link, 7);
    change(&mut spec);
    let lab = lab(spec);
    reaches(lab.container(1, 1), lab.container(2, 1));
    reaches(lab.container(1, 2), lab.container(2, 2));
    lab
}

/// Waits until both hosts have found this path MTU.
#[track_caller]
fn found(lab: &Lab, mtu: u16, source: &str) {
    for (h, other) in [(1, "h2"), (2, "h1")] {
        eventually(&format!("path MTU {mtu} ({source}) on h{h}: {:?}", peer(lab, h, other)), || {
            let peer = peer(lab, h, other);
            (peer.path_mtu == mtu && peer.path_mtu_source == source).then_some(())
        });
    }
}

/// Everything that could trip over a size, both ways, both families.
fn everything_passes(from: &Container, to: &Container, inner_limit: usize, mtu: usize) {
    for address in [IpAddr::V4(to.v4), IpAddr::V6(to.v6)] {
        from.ping(address, 10_000, SOON).unwrap();
        let headers = if address.is_ipv4() { 28 } else { 48 };
        // Where a frame stops to fit into one packet of the tunnel, then into two, and so on.
        let whole = inner_limit - 36 - 14 - headers;
        let steps = (0..=mtu / inner_limit + 1).map(|n| whole + n * ((inner_limit - 20) & !7));
        let borders = steps.flat_map(|border| border.saturating_sub(10)..border + 10);
        let at_mtu = mtu - headers - 10..mtu - headers + 10;
        let sizes = (0..1600).step_by(13).chain(borders).chain(at_mtu);
        let sizes =
            sizes.chain((1600..9100).step_by(577)).chain((9100..MAX_DATAGRAM).step_by(7919)).chain([MAX_DATAGRAM]);
        every_size(&from.netns, &to.netns, any_port(address), sizes, &Stop::default()).unwrap();
        for (from, to, address) in [(from, to, address), (to, from, family(from, address))] {
            let stream = Stream::start(&from.netns, &to.netns, address);
            stream.moves_on(MUCH);
            stream.finish();
        }
    }
}

/// TCP agrees on segments that the path carries whole, whatever the port's MTU is: at most so many bytes of payload
/// (less the timestamps, if it has them). A connection that began while the usual size was still being tried is
/// prepared for that one.
fn segments_fit(from: &Container, to: &Container, inner_limit: usize) {
    for (address, headers) in [(IpAddr::V4(to.v4), 40), (IpAddr::V6(to.v6), 60)] {
        let fits = inner_limit - 36 - 14 - headers;
        eventually(&format!("segments of {fits} bytes to {address}"), || {
            let (sender, receiver) = tcp_pair(&from.netns, &to.netns, address, SOON).unwrap();
            let sizes = [&sender, &receiver].map(|stream| SockRef::from(stream).tcp_mss().unwrap() as usize);
            sizes.iter().all(|size| (fits - 12..=fits).contains(size)).then_some(())
        });
    }
}

/// The address of a container of the same family as `like`.
fn family(container: &Container, like: IpAddr) -> IpAddr {
    if like.is_ipv4() { container.v4.into() } else { container.v6.into() }
}

/// A path of `mtu` bytes, which each side finds, and over which everything passes.
fn path_of(mtu: u16, ipv6: bool) {
    if !usable() {
        return;
    }
    let lab = hosts_on(mtu.into(), |spec| {
        spec.ipv6_underlay = ipv6;
        // Otherwise they would find each other by the other family, too, and use what is quicker.
        spec.extra_node = "discovery = false".to_owned();
    });
    found(&lab, mtu, "probed");
    let before = status(&lab, 2);
    let inner_limit = usize::from(mtu) - 32 - if ipv6 { 48 } else { 28 };
    for (container, mtu) in [(1, 1500), (2, 9000)] {
        let (from, to) = (lab.container(1, container), lab.container(2, container));
        everything_passes(from, to, inner_limit, mtu);
        segments_fit(from, to, inner_limit);
    }
    let swallowed = lab.link_counts().too_large;
    let after = status(&lab, 2);
    println!("{swallowed} packets were too large; drops {:?}", growth(&before, &after));
    // Only probes may have been: a few for each of two searches, and one for each try of a larger size.
    assert!(swallowed < 60, "{swallowed} packets were too large for a path of {mtu}");
}

#[test]
fn everything_passes_an_ordinary_path() {
    path_of(1500, false);
}

#[test]
fn everything_passes_an_ordinary_path_over_ipv6() {
    path_of(1500, true);
}

#[test]
fn everything_passes_a_path_of_1420() {
    path_of(1420, false);
}

#[test]
fn everything_passes_a_path_of_1420_over_ipv6() {
    path_of(1420, true);
}

#[test]
fn everything_passes_the_smallest_path() {
    path_of(1280, false);
}

#[test]
fn everything_passes_the_smallest_path_over_ipv6() {
    path_of(1280, true);
}

#[test]
fn a_path_that_shrinks_under_tcp_holds_it_up_for_seconds_and_is_used_again_when_it_grows() {
    if !usable() {
        return;
    }
    let lab = hosts_on(1500, |_| {});
    found(&lab, 1500, "probed");
    let (a, b) = (lab.container(1, 1), lab.container(2, 1));
    let there = Stream::start(&a.netns, &b.netns, b.v4.into());
    let back = Stream::start(&b.netns, &a.netns, a.v6.into());
    let pings = Pings::start(&a.netns, b.v4.into(), 1400, Duration::from_millis(20));
    there.moves_on(MUCH);
    back.moves_on(MUCH);
    let mut attempts = 0;
    loop {
        let shrunk = Instant::now();
        lab.change_link(|link| link.max_packet = Some(1280)).unwrap();
        // Frames of this size pass only once the change is known.
        let pinged = pings.answered_after(shrunk);
        there.moves_on(MUCH);
        back.moves_on(MUCH);
        let moved = shrunk.elapsed();
        println!("pings pass {pinged:?} after the path shrank; TCP has moved on {moved:?} after");
        found(&lab, 1280, "probed");
        lab.change_link(|link| link.max_packet = Some(1500)).unwrap();
        found(&lab, 1500, "probed");
        there.moves_on(MUCH);
        back.moves_on(MUCH);
        if pinged < Duration::from_secs(5) && moved < Duration::from_secs(8) {
            break;
        }
        // The machine may have been busy with other things.
        attempts += 1;
        assert!(attempts < 3, "not within seconds: {pinged:?}, {moved:?}");
    }
    there.finish();
    back.finish();
}

#[test]
fn an_interface_whose_mtu_is_lowered_under_tcp_holds_nothing_up() {
    if !usable() {
        return;
    }
    // The sender's kernel refuses super-frames of the old segment size at once (EMSGSIZE, EINVAL).
    let lab = lab(spec(2, 1));
    let (a, b) = (lab.container(1, 1), lab.container(2, 1));
    reaches(a, b);
    found(&lab, 1500, "probed");
    let there = Stream::start(&a.netns, &b.netns, b.v4.into());
    let back = Stream::start(&b.netns, &a.netns, a.v6.into());
    for mtu in [1400, 1280] {
        there.moves_on(MUCH);
        back.moves_on(MUCH);
        for h in [1, 2] {
            inside(&lab.host(h).netns, |netlink| {
                let link = netlink.link(HOST_IFNAME).unwrap().unwrap();
                netlink.set_mtu(link.index, mtu).unwrap();
            });
        }
        let lowered = Instant::now();
        there.moves_on(MUCH);
        back.moves_on(MUCH);
        println!("TCP has moved on {:?} after the MTU became {mtu}", lowered.elapsed());
        assert!(lowered.elapsed() < Duration::from_secs(8), "{:?}", lowered.elapsed());
        found(&lab, mtu as u16, "probed");
    }
    there.finish();
    back.finish();
}

#[test]
fn a_configured_path_mtu_is_taken_as_it_is() {
    if !usable() {
        return;
    }
    let lab = hosts_on(1400, |spec| spec.extra_peer = "path_mtu = 1400".to_owned());
    found(&lab, 1400, "configured");
    everything_passes(lab.container(1, 1), lab.container(2, 1), 1340, 1500);
    assert_eq!(lab.link_counts().too_large, 0, "something was larger than the configured path MTU");
}

#[test]
fn a_jumbo_underlay_is_found_and_carries_jumbo_frames_whole() {
    if !usable() {
        return;
    }
    let mut spec = spec(2, 1);
    spec.underlay_mtu = 9000;
    spec.networks[0].mtu = 8000;
    let lab = lab(spec);
    let (a, b) = (lab.container(1, 1), lab.container(2, 1));
    reaches(a, b);
    found(&lab, 9000, "probed");
    let before = status(&lab, 1).traffic;
    let sizes = std::iter::repeat_n(7900, 500);
    every_size(&a.netns, &b.netns, any_port(b.v4), sizes, &Stop::default()).unwrap();
    let after = status(&lab, 1).traffic;
    let (frames, datagrams) =
        (after.tunnel_tx_frames - before.tunnel_tx_frames, after.datagrams_tx - before.datagrams_tx);
    assert!(frames >= 500 && datagrams < frames + 50, "{datagrams} datagrams for {frames} frames");
    bulk_tcp(&a.netns, &b.netns, any_port(b.v4), 1, Duration::from_millis(500), &Stop::default()).unwrap();
}

#[test]
fn a_member_that_floods_us_with_fragments_gets_no_memory_and_hinders_nobody() {
    if !usable() {
        return;
    }
    let mut lab = lab(spec(3, 1));
    peers_up(&lab, 1, 2);
    lab.kill_daemon(3, libc::SIGKILL).unwrap();
    let mut mallory = Member::join(lab.host(3), lab.host(1));
    let (a, b) = (lab.container(1, 1), lab.container(2, 1));
    let stream = Stream::start(&b.netns, &a.netns, a.v4.into());
    stream.moves_on(MUCH);
    let (start, resident) = (status(&lab, 1), memory(&lab, 1));
    const MORE: u16 = 0x2000;
    let bulk = vec![0x5a; 1408];

    // Beginnings without an end, each of another packet.
    for n in 0..20_000u32 {
        let packet = mallory.packet(n as u16, MORE, 17, &bulk);
        mallory.send(&packet);
        if n % 64 == 0 {
            mallory.listen(Duration::from_millis(1));
        }
    }
    // Ends without a beginning, and pieces from beyond the largest packet.
    for n in 0..3000u16 {
        for offset in [100, 1100, 1200, 8191] {
            let packet = mallory.packet(n, offset, 17, &bulk);
            mallory.send(&packet);
        }
        if n % 16 == 0 {
            mallory.listen(Duration::from_millis(1));
        }
    }
    // Pieces that overlap, that contradict each other's end, and that are no multiple of eight.
    for n in 0..3000u16 {
        for (flags, length) in [(MORE, 800), (MORE | 50, 800), (MORE | 200, 801), (300, 8), (310, 8), (MORE | 350, 8)]
        {
            let packet = mallory.packet(n, flags, 17, &bulk[..length]);
            mallory.send(&packet);
        }
        if n % 16 == 0 {
            mallory.listen(Duration::from_millis(1));
        }
    }
    // Hundreds of tiny pieces of one packet.
    for n in 0..500u16 {
        for piece in 0..64 {
            let packet = mallory.packet(n, MORE | (piece * 2), 17, &bulk[..8]);
            mallory.send(&packet);
        }
        mallory.listen(Duration::from_millis(1));
    }
    stream.moves_on(MUCH);
    let end = status(&lab, 1);
    let grown = memory(&lab, 1).saturating_sub(resident);
    println!("{:?}, {grown} bytes more", growth(&start, &end));
    let more = |reason: &str| end.drops[reason] - start.drops[reason];
    assert!(more("unreassembled") > 15_000 && more("bad_fragment") > 5000, "{:?}", growth(&start, &end));
    assert!(grown < 4 << 20, "{grown} bytes more");

    // The flood leaves nothing behind: what was begun is given up, and an honest packet in pieces is put together.
    let tail = lab.container(1, 1).v4;
    b.ping(IpAddr::V4(tail), 10_000, SOON).unwrap();
    let before = status(&lab, 1).traffic.tunnel_rx_frames;
    let frame = support::raw::frame(Mac::BROADCAST, Mac([2, 0, 0, 0, 6, 6]), 0x88b5, &[1; 1486]);
    let whole = mallory.frame_packet(100, 4242, &frame);
    let (first, second) =
        (mallory.packet(4242, MORE, 17, &whole[20..820]), mallory.packet(4242, 100, 17, &whole[820..]));
    mallory.send(&second);
    mallory.send(&first);
    eventually("an honest packet is put together", || {
        (status(&lab, 1).traffic.tunnel_rx_frames > before).then_some(())
    });
    stream.finish();
    assert_eq!(dropped(&lab, 1, "receive_buffer_full"), 0);
}
