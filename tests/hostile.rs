//! Strangers on the underlay, members and containers that send what they should not: everybody else is served, memory
//! stays where it was, and each thing is counted under its reason.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;
mod support;

use blake2::digest::consts::U16;
use blake2::digest::{KeyInit, Mac as _};
use blake2::{Blake2s256, Blake2sMac, Digest};
use common::place::{inside, lab, spec, unguarded, usable};
use common::skip::skip;
use common::{SOON, eventually};
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};
use support::member::Member;
use support::raw::{Raw, frame, udp_frame};
use support::traffic::{Background, Pings, Stream, any_port};
use support::{dropped, drops_grow, growth, logged, memory, peer, peers_up, reaches, status};
use weft::control::request::{FdbEntry, Request, Response, Status};
use weft::lab::generator::bulk_tcp;
use weft::lab::link::Random;
use weft::lab::spec::{CONTAINER_IFNAME, HOST_IFNAME, LISTEN_PORT, NetworkSpec};
use weft::lab::{Container, Host, Lab, Stop, process};
use weft::wire::ethernet::Mac;
use weft::wire::key::PublicKey;
use weft::wire::message::{self, Message};
use weft::wire::vnet::{GSO_ECN, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM, VnetHeader};
use weft::wire::{MESH_PORT, VXLAN_PORT};

/// What TCP must bring over to show that it works.
const MUCH: u64 = 2 << 20;
/// The network of all containers here.
const VNI: u32 = 100;
/// An EtherType for experiments (IEEE 802, 0x88b5).
const EXPERIMENT: u16 = 0x88b5;
/// Memory that allocators and counters may take meanwhile.
const FLAT: u64 = 8 << 20;
/// What a daemon may have to say about it: it counts, it does not complain.
const QUIET: u64 = 16 << 10;

fn mac_of(container: &Container) -> Mac {
    inside(&container.netns, |netlink| netlink.link(CONTAINER_IFNAME).unwrap().unwrap().mac.unwrap())
}

fn raw(container: &Container) -> Raw {
    Raw::open(&container.netns, CONTAINER_IFNAME)
}

/// Since `before`: how often `reason` happened.
fn more(before: &Status, after: &Status, reason: &str) -> u64 {
    after.drops[reason] - before.drops[reason]
}

/// A host on the underlay that sends what it likes to the daemon of another, under any address.
struct Stranger {
    raw: Raw,
    victim: (Mac, Ipv4Addr),
}

impl Stranger {
    fn new(on: &Host, victim: &Host) -> Self {
        let mac = inside(&victim.netns, |netlink| netlink.link(HOST_IFNAME).unwrap().unwrap().mac.unwrap());
        Self { raw: Raw::open(&on.netns, HOST_IFNAME), victim: (mac, victim.v4) }
    }

    /// The frame that carries a datagram from `from` to the victim.
    fn frame(&self, from: (Ipv4Addr, u16), payload: &[u8]) -> Vec<u8> {
        let (mac, address) = self.victim;
        udp_frame((self.raw.mac, mac), from, (address, LISTEN_PORT), payload)
    }

    fn send(&self, from: (Ipv4Addr, u16), payload: &[u8]) {
        self.raw.insist(&self.frame(from, payload)).unwrap();
    }
}

/// A handshake initiation to `victim` with a right first MAC, and nothing else right.
fn forged_initiation(victim: &PublicKey, random: &mut Random) -> Vec<u8> {
    let mut message: Vec<u8> = [1, 0, 0, 0].into_iter().chain(bytes(random, 112)).collect();
    let key = Blake2s256::new().chain_update(b"mac1----").chain_update(victim.0).finalize();
    let mac = <Blake2sMac<U16> as KeyInit>::new_from_slice(&key).unwrap().chain_update(&message).finalize();
    message.extend(mac.into_bytes());
    message.resize(148, 0);
    message
}

fn bytes(random: &mut Random, count: usize) -> Vec<u8> {
    std::iter::repeat_with(|| random.next_u64().to_le_bytes()).flatten().take(count).collect()
}

#[test]
fn what_is_not_from_a_peer_is_counted_for_what_it_is_and_harms_nobody() {
    if !usable() {
        return;
    }
    let mut lab = lab(spec(3, 1));
    peers_up(&lab, 1, 2);
    lab.kill_daemon(3, libc::SIGKILL).unwrap();
    let (a, b) = (lab.container(1, 1), lab.container(2, 1));
    reaches(b, a);
    // An honest data message of h2, seen on its way.
    let tap = Raw::open(lab.underlay_netns().unwrap(), "h2");
    let pings = Pings::start(&b.netns, a.v4.into(), 56, Duration::from_millis(20));
    let data = |frame: &[u8]| {
        frame.len() > 150 && frame.len() < 400 && frame[36..38] == LISTEN_PORT.to_be_bytes() && frame[42] == 4
    };
    let captured = tap.receive_one(SOON, |frame| data(frame) && frame[30..34] == lab.host(1).v4.octets()).unwrap();
    let captured = &captured[42..];
    drop(tap);
    let stream = Stream::start(&b.netns, &a.netns, a.v4.into());
    stream.moves_on(MUCH);

    let stranger = Stranger::new(lab.host(3), lab.host(1));
    let (honest, own) = ((lab.host(2).v4, LISTEN_PORT), (lab.host(3).v4, 4242));
    let mut random = Random(1);
    let resident = memory(&lab, 1);
    let mut expect: BTreeMap<&str, u64> = BTreeMap::new();
    let before = status(&lab, 1);
    let mut count = |reason: &'static str, n: u64| *expect.entry(reason).or_default() += n;

    // Garbage of every length, none of which begins as a message of WireGuard does.
    for size in (0..1473).step_by(3) {
        let mut garbage = bytes(&mut random, size);
        if let Some(first) = garbage.first_mut() {
            *first |= 0x80;
        }
        stranger.send(own, &garbage);
        count("not_wireguard", 1);
    }
    // Messages cut short or too long; a data message has at least 32 bytes.
    for (kind, length) in
        [(1, 147), (1, 149), (1, 4), (2, 91), (2, 93), (3, 63), (3, 65), (4, 31), (4, 4), (5, 148), (0, 92)]
    {
        let mut message = bytes(&mut random, length);
        message[..4].copy_from_slice(&[kind, 0, 0, 0]);
        stranger.send(own, &message);
        count("not_wireguard", 1);
    }
    // An initiation that was not made with our key, or that was but is of nobody. Fewer than one address may send.
    for n in 0..30 {
        let mut message = forged_initiation(&lab.host(1).public_key, &mut random);
        message[116] ^= n % 2;
        stranger.send(own, &message);
        count("handshake_refused", 1);
    }
    // Answers and data for sessions that do not exist.
    let index = captured[4..8].to_vec();
    for (kind, length) in [(2, 92), (3, 64), (4, 32), (4, 1472)].into_iter().cycle().take(400) {
        let mut message = bytes(&mut random, length);
        message[..4].copy_from_slice(&[kind, 0, 0, 0]);
        if message[5..8] == index[1..4] || message[9..12] == index[1..4] {
            continue;
        }
        stranger.send(own, &message);
        count("unknown_session", 1);
    }
    // Answers to handshakes that were never begun, for a tunnel that exists.
    for (kind, length) in [(2, 92), (3, 64)].into_iter().cycle().take(40) {
        let mut message = bytes(&mut random, length);
        message[..4].copy_from_slice(&[kind, 0, 0, 0]);
        let at = if kind == 2 { 8 } else { 4 };
        message[at..at + 4].copy_from_slice(&index);
        stranger.send(own, &message);
        count("handshake_refused", 1);
    }
    // Data for a session that exists, but not of its key: also as large as a datagram can be.
    for n in 0..100u64 {
        let mut message = captured.to_vec();
        message[8..16].copy_from_slice(&(1 << 40 | n).to_le_bytes());
        let last = message.len() - 1;
        message[last] ^= 1;
        stranger.send(if n % 2 == 0 { honest } else { own }, &message);
        count("not_authentic", 1);
    }
    let socket = lab.host(3).netns.run(|| UdpSocket::bind((lab.host(3).v4, 0))).unwrap().unwrap();
    for n in 0..10u64 {
        let mut message = captured[..8].to_vec();
        message.extend((1 << 40 | n).to_le_bytes());
        message.resize(65_507, 7);
        socket.send_to(&message, (lab.host(1).v4, LISTEN_PORT)).unwrap();
        count("not_authentic", 1);
    }
    // The honest message once more, from where it came and from elsewhere.
    for n in 0..100 {
        stranger.send(if n % 2 == 0 { honest } else { own }, captured);
        count("replay", 1);
    }
    let sum: u64 = expect.values().sum();
    eventually("all of it is counted", || {
        let now = status(&lab, 1);
        (now.drops.values().sum::<u64>() - before.drops.values().sum::<u64>() >= sum).then_some(())
    });
    let after = status(&lab, 1);
    let expect: BTreeMap<String, u64> = expect.into_iter().map(|(reason, n)| (reason.to_owned(), n)).collect();
    let mut grown: BTreeMap<String, u64> = growth(&before, &after).into_iter().collect();
    grown.remove("path_too_small");
    assert_eq!(grown, expect);
    // A stranger who has our traffic does not move a peer.
    assert_eq!(peer(&lab, 1, "h2").endpoint.unwrap().ip(), IpAddr::V4(lab.host(2).v4));
    stream.moves_on(MUCH);
    stream.finish();
    let (answered, sent) = pings.between(Instant::now() - Duration::from_secs(60), Instant::now());
    assert!(answered * 10 >= sent * 9, "{answered} of {sent}");
    assert!(memory(&lab, 1) < resident + FLAT);
    assert!(logged(&lab, 1) < QUIET, "{} bytes of log", logged(&lab, 1));
}

#[test]
fn fifty_thousand_forged_handshakes_a_second_stop_neither_traffic_nor_a_member_that_joins() {
    if !usable() {
        return;
    }
    let mut lab = lab(spec(4, 1));
    peers_up(&lab, 1, 3);
    lab.kill_daemon(3, libc::SIGKILL).unwrap();
    lab.kill_daemon(4, libc::SIGKILL).unwrap();
    // Answers to addresses that nobody has must have somewhere to go, as on the Internet.
    let router = lab.host(3).v4;
    inside(&lab.host(1).netns, |netlink| {
        let link = netlink.link(HOST_IFNAME).unwrap().unwrap();
        netlink.add_default_route(router.into(), link.index).unwrap();
    });
    let throughput = |lab: &Lab| {
        let (a, b) = (lab.container(1, 1), lab.container(2, 1));
        bulk_tcp(&b.netns, &a.netns, any_port(a.v4), 1, Duration::from_secs(2), &Stop::default()).unwrap().gbps()
    };
    throughput(&lab);
    let undisturbed = throughput(&lab);
    let (resident, before) = (memory(&lab, 1), status(&lab, 1));

    let stranger = Stranger::new(lab.host(3), lab.host(1));
    let (mut random, key) = (Random(2), lab.host(1).public_key);
    let frames: Vec<Vec<u8>> = (0..16_384)
        .map(|_| {
            let message = forged_initiation(&key, &mut random);
            let [a, b, c, d, ..] = random.next_u64().to_le_bytes();
            // Two of 65,536 addresses of the benchmarking network (RFC 2544).
            stranger.frame((Ipv4Addr::new(198, 18, a, b), u16::from_le_bytes([c, d]) | 1024), &message)
        })
        .collect();
    let sent = Arc::new(AtomicU64::new(0));
    let (counter, begun) = (sent.clone(), Instant::now());
    let flood = Background::start(move || {
        let so_far = counter.load(Relaxed);
        if so_far as f64 > begun.elapsed().as_secs_f64() * 50_000.0 {
            return std::thread::sleep(Duration::from_micros(500));
        }
        let at = (so_far as usize % frames.len()) & !63;
        counter.fetch_add(stranger.raw.send_many(&frames[at..at + 64]) as u64, Relaxed);
    });
    eventually("the flood has begun", || (sent.load(Relaxed) > 10_000).then_some(()));
    // The best of four, for the machine may be busy with other things.
    let mut disturbed = 0.0f64;
    for _ in 0..4 {
        disturbed = disturbed.max(throughput(&lab));
        if disturbed > undisturbed / 3.0 {
            break;
        }
    }
    let rate = sent.load(Relaxed) as f64 / begun.elapsed().as_secs_f64();

    let joined = Instant::now();
    lab.start_daemon(4, &Stop::default()).unwrap();
    let patience = Duration::from_secs(40);
    lab.container(4, 1).ping(lab.container(1, 1).v4.into(), 56, patience).unwrap();
    let joined = joined.elapsed();
    let rate_at_end = sent.load(Relaxed) as f64 / begun.elapsed().as_secs_f64();
    drop(flood);
    let sent = sent.load(Relaxed);
    let counted = |after: &Status| {
        let reasons = ["handshake_refused", "handshake_limited", "receive_buffer_full"];
        reasons.iter().map(|reason| more(&before, after, reason)).sum::<u64>()
    };
    eventually("the flood is counted", || (counted(&status(&lab, 1)) >= sent * 99 / 100).then_some(()));
    let after = status(&lab, 1);
    let grown = memory(&lab, 1).saturating_sub(resident);
    println!(
        "{undisturbed:.2} Gbit/s undisturbed, {disturbed:.2} under {rate:.0} forged handshakes/s ({rate_at_end:.0} in all); \
         joined after {joined:?}; {grown} bytes more; {:?}",
        growth(&before, &after)
    );
    assert!(rate > 30_000.0, "the generator managed only {rate:.0} a second");
    assert!(disturbed > undisturbed / 5.0, "{disturbed:.2} of {undisturbed:.2} Gbit/s are left");
    // What the buffer had no room for may have been anybody's.
    let read = counted(&after) - more(&before, &after, "receive_buffer_full");
    assert!(read <= sent + 10, "{read} read of {sent}");
    assert!(grown < FLAT, "{grown} bytes more");
    assert!(logged(&lab, 1) < QUIET, "{} bytes of log", logged(&lab, 1));
}

/// What a container sent and what became of it on its host, when nobody else says anything there.
struct Account {
    before: [Status; 2],
}

impl Account {
    fn open(lab: &Lab) -> Self {
        Self { before: [status(lab, 1), status(lab, 2)] }
    }

    fn more(&self, lab: &Lab, h: usize, reason: &str) -> u64 {
        more(&self.before[h - 1], &status(lab, h), reason)
    }
}

#[test]
fn frames_of_every_length_and_type_arrive_as_they_were_sent() {
    if !usable() {
        return;
    }
    let mut spec = unguarded(2, 0);
    spec.networks = vec![NetworkSpec { name: "jumbo".to_owned(), vni: VNI, mtu: 9000, containers: 1 }];
    let lab = lab(spec);
    let (a, b) = (lab.container(1, 1), lab.container(2, 1));
    reaches(a, b);
    let (sender, receiver) = (raw(a), raw(b));
    let account = Account::open(&lab);
    let (to, from) = (mac_of(b), mac_of(a));
    let mut random = Random(3);
    let passes = |sent: Vec<u8>| {
        sender.insist(&sent).unwrap_or_else(|error| panic!("{} bytes: {error}", sent.len()));
        let ours = |frame: &[u8]| frame.get(6..12) == sent.get(6..12) && frame[12..14] == sent[12..14];
        let received = receiver.receive_one(SOON, ours).unwrap_or_else(|| panic!("{} bytes are lost", sent.len()));
        assert_eq!(received.len(), sent.len());
        assert!(received == sent, "{} bytes arrived changed", sent.len());
    };
    for length in (0..1600).chain((1600..9000).step_by(61)).chain(8990..=9000) {
        passes(frame(to, from, EXPERIMENT, &bytes(&mut random, length)));
    }
    // Whatever they claim to be, with rubbish inside.
    let types = [
        0x0000, 0x0004, 0x05dc, 0x0600, 0x0806, 0x0842, 0x22f3, 0x6003, 0x8035, 0x809b, 0x8137, 0x8847, 0x8863,
        0x8864,
    ];
    for ethertype in types.into_iter().chain([0x888e, 0x88cc, 0x88e5, 0x88f7, 0x8906, 0x9000, 0x9100, 0xfffe, 0xffff])
    {
        for length in [0, 46, 1500, 4000] {
            passes(frame(to, from, ethertype, &bytes(&mut random, length)));
        }
    }
    // IPv4 and IPv6 that are none.
    for ethertype in [0x0800, 0x86dd] {
        for length in 0..100 {
            passes(frame(to, from, ethertype, &bytes(&mut random, length)));
        }
    }
    // One tag, a service tag, two, three; priorities and the reserved VIDs included.
    for tags in
        [&[(0x8100, 5)][..], &[(0x8100, 0)], &[(0x8100, 0xefff)], &[(0x88a8, 7)], &[(0x88a8, 7), (0x8100, 0xa005)]]
            .into_iter()
            .chain([&[(0x8100, 1), (0x8100, 2)][..], &[(0x88a8, 1), (0x88a8, 2), (0x8100, 3)]])
    {
        for length in [46, 1496, 8000] {
            let mut payload: Vec<u8> = Vec::new();
            for (tpid, tci) in &tags[1..] {
                payload.extend([u16::to_be_bytes(*tpid), u16::to_be_bytes(*tci)].concat());
            }
            payload.extend(EXPERIMENT.to_be_bytes());
            payload.extend(bytes(&mut random, length));
            let (tpid, tci) = tags[0];
            passes(frame(to, from, tpid, &[&u16::to_be_bytes(tci)[..], &payload].concat()));
        }
    }
    for reason in ["malformed_frame", "oversized_frame", "port_blocked"] {
        assert_eq!((account.more(&lab, 1, reason), account.more(&lab, 2, reason)), (0, 0), "{reason}");
    }
    // A tag that is cut short, and frames that are larger than the network allows, though the container's own
    // interface was told otherwise.
    for tpid in [0x8100u16, 0x88a8] {
        for length in 0..4 {
            sender.insist(&frame(to, from, tpid, &vec![0; length])).unwrap();
        }
    }
    drops_grow(&lab, 1, "malformed_frame", &account.before[0], 8);
    inside(&a.netns, |netlink| {
        let link = netlink.link(CONTAINER_IFNAME).unwrap().unwrap();
        netlink.set_mtu(link.index, 20_000).unwrap();
    });
    for length in [9009, 9010, 9100, 15_000, 19_999] {
        sender.insist(&frame(to, from, EXPERIMENT, &vec![0; length])).unwrap();
    }
    drops_grow(&lab, 1, "oversized_frame", &account.before[0], 5);
    reaches(a, b);
}

#[test]
fn addresses_a_bridge_must_not_take_are_dropped_under_their_reasons() {
    if !usable() {
        return;
    }
    let lab = lab(unguarded(2, 2));
    let (a, other, b) = (lab.container(1, 1), lab.container(1, 2), lab.container(2, 1));
    for to in [b, other] {
        reaches(a, to);
    }
    reaches(other, b);
    let (sender, mac, to) = (raw(a), mac_of(a), mac_of(b));
    let stream = Stream::start(&b.netns, &other.netns, other.v4.into());
    stream.moves_on(MUCH);
    let account = Account::open(&lab);
    let cases = [
        (to, Mac([0; 6]), "invalid_source"),
        (to, Mac::BROADCAST, "invalid_source"),
        (to, Mac([1, 0, 0x5e, 0, 0, 1]), "invalid_source"),
        (to, mac_of(other), "spoofed_source"),
        (Mac::BROADCAST, mac_of(other), "spoofed_source"),
        (mac, Mac([2, 0, 0, 0, 7, 7]), "same_port"),
    ];
    let reserved = (0..16).map(|last| (Mac([1, 0x80, 0xc2, 0, 0, last]), mac, "reserved_destination"));
    let mut expect: BTreeMap<&str, u64> = BTreeMap::new();
    for (to, from, reason) in cases.into_iter().chain(reserved) {
        for _ in 0..50 {
            sender.insist(&frame(to, from, EXPERIMENT, &[0; 100])).unwrap();
        }
        let n = expect.entry(reason).or_default();
        *n += 50;
        // One batch at a time: the container's own queue would lose some of many.
        drops_grow(&lab, 1, reason, &account.before[0], *n);
    }
    for (reason, n) in expect {
        assert_eq!(account.more(&lab, 1, reason), n, "{reason}");
    }
    // 01-80-C2-00-00-10 and beyond are forwarded (IEEE 802.1Q table 8-1 ends at 0F).
    let receiver = raw(b);
    sender.insist(&frame(Mac([1, 0x80, 0xc2, 0, 0, 0x10]), mac, EXPERIMENT, &[1; 100])).unwrap();
    receiver.receive_one(SOON, |frame| frame[..6] == [1, 0x80, 0xc2, 0, 0, 0x10]).unwrap();
    // Whose address was forged is where it was.
    stream.moves_on(MUCH);
    stream.finish();
    reaches(b, other);
}

/// A TCP or UDP super-frame, or a single frame, with its headers as a kernel makes them.
fn honest_super_frame(random: &mut Random, macs: (Mac, Mac), from: Ipv4Addr, to: Ipv4Addr) -> (VnetHeader, Vec<u8>) {
    let length = [1, 100, 1400, 3000, 20_000, 60_000][random.next_u64() as usize % 6];
    let mut packet = udp_frame(macs, (from, 4000), (to, 5000), &bytes(random, length));
    let tcp = random.next_u64().is_multiple_of(2) && length >= 100;
    if tcp {
        packet[23] = 6;
        packet[24..26].fill(0);
        support::raw::finish_ipv4(&mut packet[14..34]);
        (packet[46], packet[47]) = (0x50, 0x10);
    }
    let header = VnetHeader {
        flags: NEEDS_CSUM,
        gso_type: if length < 1400 {
            0
        } else if tcp {
            GSO_TCPV4
        } else {
            GSO_UDP_L4
        },
        hdr_len: if tcp { 54 } else { 42 },
        gso_size: if length < 1400 { 0 } else { 1400 },
        csum_start: 34,
        csum_offset: if tcp { 16 } else { 6 },
    };
    (header, packet)
}

/// Makes one field of the header, or of the frame's own headers, something else.
fn lie(random: &mut Random, header: &mut VnetHeader, packet: &mut Vec<u8>) {
    let any = random.next_u64() as u16;
    let mut pick = |of: &[u16]| of[random.next_u64() as usize % of.len()];
    match any % 11 {
        0 => header.flags = pick(&[0, 2, 3, 0xff]) as u8,
        1 => {
            let types = [0, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, GSO_TCPV4 | GSO_ECN, 3, 2, 0xff];
            header.gso_type = types[usize::from(any / 11) % types.len()];
        }
        2 => header.hdr_len = pick(&[0, 14, 34, 1000, any]),
        3 | 4 => header.gso_size = pick(&[1, 8, 100, 1401, 9000, 65_535, any]),
        5 => header.csum_start = pick(&[0, 14, 33, 35, 54, 1000, any]),
        6 => header.csum_offset = pick(&[0, 6, 16, 17, 65_535, any]),
        7 => packet.truncate(usize::from(pick(&[14, 34, 42, 54, 60])).max(14)),
        _ => {
            // A byte of Ethernet's type, of IP's or of TCP's header.
            let at = 12 + usize::from(any / 11) % 42;
            if let Some(byte) = packet.get_mut(at) {
                *byte = pick(&[0, 1, 4, 0x4f, 0x60, 0xff]) as u8;
            }
        }
    }
}

#[test]
fn forged_virtio_headers_from_a_container_change_nothing_for_others() {
    if !usable() {
        return;
    }
    let lab = lab(spec(2, 2));
    let (a, local, b) = (lab.container(1, 1), lab.container(1, 2), lab.container(2, 1));
    reaches(a, b);
    reaches(a, local);
    let stream = Stream::start(&b.netns, &local.netns, local.v4.into());
    stream.moves_on(MUCH);
    let account = Account::open(&lab);
    let (resident, pids) = (memory(&lab, 1), [1, 2].map(|h| status(&lab, h).pid));
    let sender = Raw::with_vnet_header(&a.netns, CONTAINER_IFNAME);
    let mut random = Random(4);
    let (mut taken, mut refused) = (0u64, 0u64);
    for to in [b, local] {
        let macs = (sender.mac, mac_of(to));
        for round in 0..6000 {
            let (mut header, mut packet) = honest_super_frame(&mut random, macs, a.v4, to.v4);
            // One or two lies each.
            for _ in 0..1 + round % 2 {
                lie(&mut random, &mut header, &mut packet);
            }
            match sender.insist(&[&header.to_bytes()[..], &packet].concat()) {
                Ok(()) => taken += 1,
                Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EMSGSIZE)) => refused += 1,
                Err(error) => panic!("{header:?}: {error}"),
            }
            if round % 50 == 0 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
    stream.moves_on(MUCH);
    let [one, two] = [1, 2].map(|h| status(&lab, h));
    println!(
        "{taken} taken, {refused} refused by the container's kernel; h1 {:?}; h2 {:?}",
        growth(&account.before[0], &one),
        growth(&account.before[1], &two)
    );
    // What goes into a tunnel comes out of it as it is.
    for reason in ["bad_fragment", "malformed_packet", "malformed_inner_frame"] {
        assert_eq!(more(&account.before[1], &two, reason), 0, "{reason}");
    }
    assert!(taken > 3000, "only {taken} of the headers got past the container's kernel");
    assert_eq!([one.pid, two.pid], pids);
    stream.finish();
    for to in [b, local] {
        reaches(a, to);
    }
    assert!(memory(&lab, 1) < resident + FLAT);
}

fn fdb(lab: &Lab, h: usize) -> Vec<FdbEntry> {
    match lab.host(h).control(&Request::Fdb { network: None }).unwrap() {
        Response::Fdb(entries) => entries,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_container_that_makes_up_addresses_fills_its_own_share_of_the_fdb_and_no_more() {
    if !usable() {
        return;
    }
    let lab = lab(unguarded(2, 2));
    let (a, mallory, b) = (lab.container(1, 1), lab.container(1, 2), lab.container(2, 1));
    reaches(a, b);
    // A station behind an honest container on each host, as behind a bridge there.
    let stations = [Mac([2, 0, 0, 0, 0, 1]), Mac([2, 0, 0, 0, 0, 2])];
    for (container, station) in [(a, stations[0]), (b, stations[1])] {
        raw(container).insist(&frame(Mac::BROADCAST, station, EXPERIMENT, &[0; 46])).unwrap();
    }
    let knows =
        |h: usize, station: Mac, at: &str| fdb(&lab, h).iter().any(|entry| entry.mac == station && entry.at == at);
    eventually("the stations are learned", || {
        (knows(1, stations[0], "port c1") && knows(2, stations[1], "port c1")).then_some(())
    });
    let before = status(&lab, 1);
    let resident = [1, 2].map(|h| memory(&lab, h));
    let stream = Stream::start(&b.netns, &a.netns, a.v4.into());
    let flooder = raw(mallory);
    const FLOOD: u64 = 100_000;
    // In batches: the container's own queue loses some of them when the machine is busy.
    let mut addresses = (0u32..).map(|n| {
        let [a, b, c, d] = n.to_be_bytes();
        Mac([6, 1, a, b, c, d])
    });
    eventually("all addresses were seen", || {
        for address in addresses.by_ref().take(2000) {
            flooder.insist(&frame(Mac([2, 9, 9, 9, 9, 9]), address, EXPERIMENT, &[0; 46])).unwrap();
        }
        (status(&lab, 1).fdb.learned - before.fdb.learned > FLOOD).then_some(())
    });
    stream.moves_on(MUCH);
    let after = status(&lab, 1);
    let (here, there) = (fdb(&lab, 1), fdb(&lab, 2));
    let behind = |entries: &[FdbEntry], at: &str| {
        entries.iter().filter(|entry| entry.at == at && entry.kind == "dynamic").count()
    };
    println!(
        "{} behind the port, {} behind the peer; {:?}",
        behind(&here, "port c2"),
        behind(&there, "peer h1"),
        after.fdb
    );
    assert!(behind(&here, "port c2") <= 1024 && behind(&there, "peer h1") <= 16_384);
    assert!(after.fdb.evicted - before.fdb.evicted > FLOOD / 2);
    assert!(knows(1, stations[0], "port c1") && knows(2, stations[1], "port c1"), "honest stations were forgotten");
    assert!(here.iter().any(|entry| entry.mac == mac_of(a) && entry.kind == "static"));
    stream.finish();
    // Full shares, and what it took to list them.
    for h in [1, 2] {
        assert!(memory(&lab, h) < resident[h - 1] + 2 * FLAT, "h{h}: {} → {}", resident[h - 1], memory(&lab, h));
    }
}

#[test]
fn a_broadcast_storm_of_one_container_leaves_room_for_the_others() {
    if !usable() {
        return;
    }
    let lab = lab(spec(2, 2));
    let (a, mallory, b) = (lab.container(1, 1), lab.container(1, 2), lab.container(2, 1));
    reaches(a, b);
    let stream = Stream::start(&b.netns, &a.netns, a.v4.into());
    let pings = Pings::start(&a.netns, b.v4.into(), 56, Duration::from_millis(20));
    stream.moves_on(MUCH);
    let before = status(&lab, 1);
    let flooder = raw(mallory);
    let frames = vec![frame(Mac::BROADCAST, mac_of(mallory), EXPERIMENT, &[0; 100]); 64];
    let begun = Instant::now();
    let storm = Background::start(move || {
        flooder.send_many(&frames);
    });
    eventually("the storm", || {
        (status(&lab, 1).traffic.flooded_frames - before.traffic.flooded_frames > 100_000).then_some(())
    });
    let moved = stream.moves_on(MUCH);
    eventually("pings", || (pings.between(begun, Instant::now()).1 > 20).then_some(()));
    let (answered, sent) = pings.between(begun, Instant::now());
    drop(storm);
    let after = status(&lab, 1);
    let flooded = after.traffic.flooded_frames - before.traffic.flooded_frames;
    let rate = flooded as f64 / begun.elapsed().as_secs_f64();
    println!("{rate:.0} broadcasts/s; TCP took {moved:?} for {MUCH} bytes; {answered} of {sent} pings answered");
    assert!(answered * 2 > sent, "{answered} of {sent}");
    stream.finish();
}

#[test]
fn a_member_that_breaks_the_rules_inside_its_tunnel_is_counted_and_outdone() {
    if !usable() {
        return;
    }
    let mut lab = lab(spec(3, 1));
    peers_up(&lab, 1, 2);
    lab.kill_daemon(3, libc::SIGKILL).unwrap();
    let mut mallory = Member::join(lab.host(3), lab.host(1));
    let mut random = Random(5);
    let (a, b) = (lab.container(1, 1), lab.container(2, 1));
    reaches(a, b);
    let stream = Stream::start(&b.netns, &a.netns, a.v4.into());
    stream.moves_on(MUCH);
    let (resident, before) = (memory(&lab, 1), status(&lab, 1));
    let station = Mac([2, 0, 0, 0, 6, 6]);
    let (mac_a, mac_b) = (mac_of(a), mac_of(b));
    let good = frame(mac_a, station, EXPERIMENT, &[0; 100]);
    let (ours, theirs, second) = (mallory.ours, mallory.theirs, lab.host(2).public_key.tunnel_address());
    let mut expect: BTreeMap<&str, u64> = BTreeMap::new();
    let mut each = |mallory: &mut Member, reason: &'static str, packet: &[u8]| {
        for _ in 0..500 {
            mallory.send(packet);
        }
        mallory.listen(Duration::from_millis(5));
        *expect.entry(reason).or_default() += 500;
    };

    for vni in [0, 1, 99, 101, 0xff_ffff] {
        let packet = mallory.frame_packet(vni, 0, &good);
        each(&mut mallory, "unknown_network", &packet);
    }
    // Not its tunnel address, and not ours.
    for (from, to) in
        [(second, theirs), (theirs, theirs), (ours, second), (ours, Ipv4Addr::LOCALHOST), (ours, Ipv4Addr::BROADCAST)]
    {
        (mallory.ours, mallory.theirs) = (from, to);
        let packet = mallory.frame_packet(VNI, 0, &good);
        each(&mut mallory, "spoofed_tunnel_address", &packet);
    }
    (mallory.ours, mallory.theirs) = (ours, theirs);
    // No IPv4, IPv4 that is none, VXLAN that is none.
    let mut v6 = vec![0x60; 40];
    v6[4..6].fill(0);
    let mut wrong_sum = mallory.frame_packet(VNI, 0, &good);
    wrong_sum[10] ^= 1;
    let mut options = mallory.packet(0, 0, 17, &[0; 40]);
    options[0] = 0x4f;
    let mut no_vni = mallory.frame_packet(VNI, 0, &good);
    no_vni[28] = 0;
    let short_udp = mallory.packet(0, 0, 17, &[0; 7]);
    let short_vxlan = mallory.udp_packet(VXLAN_PORT, &[8, 0, 0, 0, 0, 0, 100]);
    for packet in [&v6, &wrong_sum, &options, &no_vni, &short_udp, &short_vxlan, &vec![0; 60], &vec![0xf0; 1]] {
        each(&mut mallory, "malformed_packet", packet);
    }
    // Other ports and protocols: TCP, ICMP, IP in IP, WireGuard's own.
    for port in [0, 53, 4788, 4790, LISTEN_PORT, 65_535] {
        let packet = mallory.udp_packet(port, &[0; 100]);
        each(&mut mallory, "unknown_protocol", &packet);
    }
    for protocol in [0, 1, 4, 6, 47, 255] {
        let packet = mallory.packet(0, 0, protocol, &[0; 100]);
        each(&mut mallory, "unknown_protocol", &packet);
    }
    // Frames that are none, of nobody, of somebody else, for somebody else's host, for bridges only.
    let cases = [
        (vec![0; 0], "malformed_inner_frame"),
        (vec![2; 13], "malformed_inner_frame"),
        (frame(mac_a, station, 0x8100, &[0; 3]), "malformed_inner_frame"),
        (frame(mac_a, Mac([0; 6]), EXPERIMENT, &[0; 50]), "invalid_source"),
        (frame(mac_a, Mac::BROADCAST, EXPERIMENT, &[0; 50]), "invalid_source"),
        (frame(Mac::BROADCAST, mac_a, EXPERIMENT, &[0; 50]), "spoofed_source"),
        (frame(mac_b, station, EXPERIMENT, &[0; 50]), "split_horizon"),
        (frame(Mac([1, 0x80, 0xc2, 0, 0, 0]), station, EXPERIMENT, &[0; 50]), "reserved_destination"),
    ];
    for (inner, reason) in cases {
        let packet = mallory.frame_packet(VNI, 0, &inner);
        each(&mut mallory, reason, &packet);
    }
    for (reason, n) in &expect {
        drops_grow(&lab, 1, reason, &before, *n);
    }
    let after = status(&lab, 1);
    let mut grown: BTreeMap<String, u64> = growth(&before, &after).into_iter().collect();
    // What the containers' kernels themselves send now and then: probes of the path's answer, and multicast reports.
    for chatter in ["path_too_small", "no_listener"] {
        grown.remove(chatter);
    }
    let expect: BTreeMap<String, u64> = expect.into_iter().map(|(reason, n)| (reason.to_owned(), n)).collect();
    assert_eq!(grown, expect);

    // Frames whose checksum is said to be partial, anywhere: delivered, or dropped here or by the container's kernel.
    for n in 0..2000u64 {
        let inner = frame(
            mac_a,
            station,
            [EXPERIMENT, 0x0800, 0x86dd][n as usize % 3],
            &bytes(&mut random, n as usize % 200),
        );
        let mut packet = mallory.frame_packet(VNI, 0, &inner);
        packet[29] |= 0x20;
        packet[35] = random.next_u64() as u8;
        mallory.send(&packet);
        if n % 64 == 0 {
            mallory.listen(Duration::from_millis(1));
        }
    }
    let after = status(&lab, 1);

    // Messages of the mesh: rubbish, probes to be answered, and ever other networks, as fast as they go.
    let received = mallory.received;
    let begun = Instant::now();
    let mut slowest = Duration::ZERO;
    for n in 0..30_000u32 {
        let token = random.next_u64();
        let packet = match n % 4 {
            0 => mallory.udp_packet(MESH_PORT, &bytes(&mut random, 60)),
            1 => message::packet(&Message::Probe { token }, ours, theirs, Some(1400)),
            2 => message::packet(&Message::ProbeAck { token, size: 9000, seen: None }, ours, theirs, None),
            _ => {
                let vnis = (0..100).map(|_| 1 + (random.next_u64() % 0xff_fffe) as u32).collect();
                let hello = Message::Hello { capabilities: n, vnis, incarnation: token, reply_wanted: true };
                message::packet(&hello, ours, theirs, None)
            }
        };
        mallory.send(&packet);
        if n % 256 == 0 {
            mallory.listen(Duration::from_millis(2));
        }
        if n % 3000 == 0 {
            let asked = Instant::now();
            status(&lab, 1);
            slowest = slowest.max(asked.elapsed());
        }
    }
    let lasted = begun.elapsed();
    mallory.listen(Duration::from_millis(200));
    let answers = mallory.received - received;
    println!(
        "{answers} answers in {lasted:?}; the slowest status took {slowest:?}; {:?}",
        growth(&after, &status(&lab, 1))
    );
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    // All but a peer's share ends before it could crowd out others.
    let refused = more(&after, &status(&lab, 1), "control_queue_full");
    assert!(refused > 30_000 - 513 * (lasted.as_secs() + 2), "{refused} refused in {lasted:?}");
    // 128 messages a second are heeded; what the stations and the path need comes on top.
    let heeded = 128 * (lasted.as_secs() + 2);
    assert!(answers < 2 * heeded, "{answers} answers");
    stream.moves_on(MUCH);
    stream.finish();
    reaches(a, b);
    let grown = memory(&lab, 1).saturating_sub(resident);
    assert!(grown < FLAT, "{grown} bytes more");
    assert!(logged(&lab, 1) < QUIET, "{} bytes of log", logged(&lab, 1));
}

#[test]
fn a_container_whose_interface_is_down_costs_only_its_own_frames() {
    if !usable() {
        return;
    }
    let lab = lab(spec(2, 2));
    let (a, down, b) = (lab.container(1, 1), lab.container(1, 2), lab.container(2, 1));
    reaches(b, a);
    reaches(b, down);
    let stream = Stream::start(&b.netns, &a.netns, a.v4.into());
    stream.moves_on(MUCH);
    let switch = |up: bool| {
        inside(&down.netns, |netlink| {
            let link = netlink.link(CONTAINER_IFNAME).unwrap().unwrap();
            if up { netlink.set_up(link.index).unwrap() } else { netlink.set_down(link.index).unwrap() }
        });
    };
    let (sender, to) = (raw(b), mac_of(down));
    switch(false);
    let before = status(&lab, 1);
    for n in 1..=20 {
        for _ in 0..50 {
            sender.insist(&frame(to, sender.mac, EXPERIMENT, &[0; 100])).unwrap();
        }
        drops_grow(&lab, 1, "port_blocked", &before, n * 50);
    }
    stream.moves_on(MUCH);
    switch(true);
    reaches(b, down);
    reaches(down, a);
    stream.finish();
}

#[test]
fn a_daemon_that_stands_still_loses_what_its_socket_cannot_hold_and_says_how_much() {
    if !usable() {
        return;
    }
    let lab = lab(spec(2, 1));
    let (a, b) = (lab.container(1, 1), lab.container(2, 1));
    reaches(a, b);
    let sender = raw(b);
    let before = [status(&lab, 1), status(&lab, 2)];
    let victim = lab.host(1).daemon().unwrap();
    victim.signal(libc::SIGSTOP);
    let filler = frame(mac_of(a), sender.mac, EXPERIMENT, &[0; 1300]);
    // Four times what the buffer holds, in batches that the container's own queue holds.
    eventually("all has left", || {
        (0..500).for_each(|_| sender.insist(&filler).unwrap());
        (status(&lab, 2).traffic.datagrams_tx - before[1].traffic.datagrams_tx >= 15_000).then_some(())
    });
    victim.signal(libc::SIGCONT);
    reaches(b, a);
    let [one, two] = [status(&lab, 1), status(&lab, 2)];
    let lost = more(&before[0], &one, "receive_buffer_full");
    let sent = two.traffic.datagrams_tx - before[1].traffic.datagrams_tx;
    let received = one.traffic.datagrams_rx - before[0].traffic.datagrams_rx;
    println!("{sent} sent, {received} received, {lost} lost in the buffer");
    // The kernel counts a train that arrived as one as one.
    let gone = sent - received;
    assert!(lost > 0 && (lost..lost * 64).contains(&gone), "{sent} sent, {received} received, {lost} lost");
}

#[test]
fn an_underlay_that_takes_too_little_fills_the_socket_and_is_counted() {
    if !usable() {
        return;
    }
    let lab = lab(spec(2, 1));
    let (a, b) = (lab.container(1, 1), lab.container(2, 1));
    reaches(a, b);
    let tc = |arguments: &str| -> io::Result<bool> {
        let mut command = std::process::Command::new("tc");
        command.args(arguments.split(' '));
        process::inside(&lab.host(1).netns, &mut command)?;
        Ok(command.status()?.success())
    };
    if !tc("qdisc add dev eth0 root tbf rate 20mbit burst 256k limit 64m").is_ok_and(|done| done) {
        skip!("there is no tc, or the kernel has no tbf");
    }
    let before = status(&lab, 1);
    let sender = raw(a);
    let frames = vec![frame(mac_of(b), sender.mac, EXPERIMENT, &[0; 1300]); 64];
    let flood = Background::start(move || {
        sender.send_many(&frames);
        std::thread::sleep(Duration::from_millis(1));
    });
    drops_grow(&lab, 1, "socket_full", &before, 1000);
    drop(flood);
    let after = status(&lab, 1);
    let frames = after.traffic.tunnel_tx_frames - before.traffic.tunnel_tx_frames;
    let left = after.traffic.datagrams_tx - before.traffic.datagrams_tx;
    let full = more(&before, &after, "socket_full");
    println!("{frames} frames, {left} datagrams taken, {full} refused");
    assert!((left + full).abs_diff(frames) < 200, "{frames} frames, {left} datagrams taken, {full} refused");
    assert!(tc("qdisc del dev eth0 root").unwrap());
    reaches(a, b);
    assert_eq!(dropped(&lab, 1, "send_failed"), 0);
}
