//! Seeds: small inputs made by the crate's own emitters, from which a fuzzer finds its way.
//!
//! They are committed as `corpus/TARGET/seed-NAME`, so that they can be looked at and are replayed like everything else
//! that was found; `WEFT_WRITE_SEEDS=1 cargo test --test fuzz_corpus` writes them.

use super::input::put_word;
use super::world::{LOCAL, REMOTE};
use std::net::Ipv4Addr;
use weft::config::{PortAddress, Target};
use weft::control::request::{Attach, Detach, Request};
use weft::wire::announce::{gratuitous_arp, unsolicited_advertisement};
use weft::wire::ethernet::Mac;
use weft::wire::fragment::pieces;
use weft::wire::message::{self, Message};
use weft::wire::vnet::{self, PartialChecksum, VnetHeader};
use weft::wire::{INNER_OVERHEAD, vxlan};

const A: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 1);
const B: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 2);
const STATION: Mac = Mac([2, 0, 0, 0, 1, 1]);

/// One seed: its target, its name and its bytes.
pub struct Seed {
    pub target: &'static str,
    pub name: String,
    pub bytes: Vec<u8>,
}

/// All of them.
pub fn all() -> Vec<Seed> {
    let mut seeds = Vec::new();
    let mut add =
        |target, name: &str, bytes: Vec<u8>| seeds.push(Seed { target, name: format!("seed-{name}"), bytes });
    configs(&mut add);
    datagrams(&mut add);
    fragments(&mut add);
    frames(&mut add);
    handshakes(&mut add);
    inner_packets(&mut add);
    merges(&mut add);
    requests(&mut add);
    seeds
}

type Add<'a> = dyn FnMut(&'static str, &str, Vec<u8>) + 'a;

fn configs(add: &mut Add<'_>) {
    let peer = "[[peer]]\nname = 'beta'\npublic_key = 'S3Lq3SdLf7QGdu1mNkYPDnHPhbtSNYRTlFmgzYw8ORU='\n";
    let network = "[[network]]\nname = 'blue'\nvni = 7\n";
    let port = "[[port]]\nnetwork = 'blue'\ntarget = 'host'\n";
    let mut config = |name: &str, parts: &[&str]| add("config", name, parts.concat().into_bytes());
    config("example", &[include_str!("../../config/weft.toml")]);
    config("empty", &[]);
    config(
        "node",
        &["[node]\nname = 'a'\nlisten_port = 1\nworkers = 2\nlog = 'debug'\ntunnel_address = '100.64.0.9'\n"],
    );
    config(
        "offload",
        &["[offload]\ntap_checksum = false\nudp_gro = false\navx512 = false\n[fdb]\nmax_entries = 128\n"],
    );
    config("peer", &[peer, "endpoints = ['192.0.2.1:51820', '[2001:db8::1]:1', 'b.example:9']\nkeepalive = 25\n"]);
    config("preshared", &[peer, "preshared_key_file = '/psk/beta'\npath_mtu = 1420\nnetworks = ['blue']\n", network]);
    config("network", &[network, "subnets = ['10.0.0.0/8', 'fd00::/64']\nmtu = 9000\nageing = 60\n"]);
    config("static", &[network, "static = [{ mac = '02:00:00:00:00:01', peer = 'beta' }]\n", peer]);
    config(
        "port",
        &[network, port, "ifname = 'eth1'\nmac = '02:00:00:00:00:09'\naddresses = ['10.0.0.2/24@10.0.0.1']\n"],
    );
    config("targets", &[network, port, "[[port]]\nnetwork = 'blue'\ntarget = 'netns:/run/netns/x'\n"]);
    config("twice", &[network, network, peer, peer, port, port]);
    config("misspelt", &["[nod]\nname = 1\n[node]\nlistenport = 'x'\n[[pear]]\n"]);
    config("broken", &["[node\nname = \"", network, "vni = 8\nmtu = 99999\nsubnets = '10.0.0.1/33'\n"]);
}

fn datagrams(add: &mut Add<'_>) {
    let raw = |stride: u16, bytes: &[u8]| {
        [&[0][..], &stride.to_be_bytes(), &(bytes.len() as u16).to_be_bytes(), bytes].concat()
    };
    let data = |counter: u64, length: usize| {
        let mut datagram = vec![4, 0, 0, 0, 1, 0x02, 0x10, 0];
        datagram.extend(counter.to_le_bytes());
        datagram.resize(16 + length, 7);
        datagram
    };
    // Length, cut, place, flip: see `datagram`.
    let whole = |kind: u8, n: u8| vec![kind, n, 0xff, 0xff, 0, 0, 0];
    add("datagram", "empty", raw(0, &[]));
    add("datagram", "garbage", raw(100, &[0xff; 300]));
    add("datagram", "data", raw(200, &data(5, 48)));
    add("datagram", "data-train", raw(32, &[data(1, 16), data(2, 16), data(u64::MAX, 15)].concat()));
    add("datagram", "initiation", raw(148, &[&[1, 0, 0, 0][..], &[9; 144]].concat()));
    add("datagram", "response", raw(92, &[&[2, 0, 0, 0, 9, 9, 9, 9, 1, 0x02, 0x10, 0][..], &[9; 80]].concat()));
    add("datagram", "cookie", raw(64, &[&[3, 0, 0, 0, 1, 0x02, 0x10, 0][..], &[9; 56]].concat()));
    add("datagram", "sealed", [whole(1, 60), whole(1, 0), whole(5, 255)].concat());
    add("datagram", "sealed-damaged", vec![1, 60, 0xff, 0xff, 0, 40, 1, 1, 60, 0, 50, 0, 0, 0]);
    add("datagram", "recorded", [whole(2, 0), whole(2, 1), whole(2, 2)].concat());
    add("datagram", "recorded-damaged", vec![2, 0, 0xff, 0xff, 0, 120, 1, 2, 1, 0, 91, 0, 0, 0]);
    add("datagram", "stranger", [whole(3, 0), whole(7, 0)].concat());
}

fn handshakes(add: &mut Add<'_>) {
    // Which message, cut, place, flip: see `handshake`.
    let whole = |what: u8| vec![what, 0xff, 0xff, 0, 0, 0];
    let flipped = |what: u8, at: u16| [&[what, 0xff, 0xff][..], &at.to_be_bytes(), &[1]].concat();
    let cut = |what: u8, length: u16| [&[what][..], &length.to_be_bytes(), &[0, 0, 0]].concat();
    let raw =
        |what: u8, length: u16| [&[what | 4][..], &length.to_be_bytes(), &vec![what + 1; length.into()]].concat();
    for (what, name) in (0..).zip(["initiation", "response", "cookie", "data"]) {
        add("handshake", name, [whole(what), whole(what)].concat());
        let places = [0, 4, 8, 20, 40, 50].into_iter().flat_map(|at| flipped(what, at));
        add("handshake", &format!("{name}-damaged"), places.collect());
    }
    add("handshake", "all", (0..4).chain(0..4).flat_map(whole).collect());
    add("handshake", "cut", [cut(0, 147), cut(1, 91), cut(2, 63), cut(3, 71), cut(3, 15), cut(3, 0)].concat());
    add("handshake", "garbage", [raw(0, 148), raw(1, 92), raw(2, 64), raw(3, 80), raw(3, 2000)].concat());
}

fn fragments(add: &mut Add<'_>) {
    let record = |how: u8, pause: u8, offset: usize, length: usize| {
        let [a, b] = ((offset / 8) as u16).to_be_bytes();
        let [c, d] = (length as u16).to_be_bytes();
        vec![how, pause, a, b, c, d, 0x55]
    };
    let cut = |packet: usize, limit: usize, id: u8, pause: u8| -> Vec<Vec<u8>> {
        let piece = |p: weft::wire::fragment::Piece| {
            record(id | u8::from(p.more) << 2, pause, p.payload.start - 20, p.payload.len())
        };
        pieces(packet, limit).map(piece).collect()
    };
    let reversed = |mut pieces: Vec<Vec<u8>>| {
        pieces.reverse();
        pieces.concat()
    };
    add("fragment", "in-order", cut(1550, 1440, 0, 0).concat());
    add("fragment", "reversed", reversed(cut(9000, 1440, 1, 0)));
    add("fragment", "largest", cut(weft::wire::fragment::MAX_PACKET, 576, 2, 1).concat());
    add("fragment", "twice", [cut(3000, 1200, 0, 0), cut(3000, 1200, 0, 0)].concat().concat());
    let two = cut(3000, 1200, 0, 1).into_iter().zip(cut(3000, 1200, 1, 1));
    add("fragment", "interleaved", two.flat_map(|(a, b)| [a, b]).flatten().collect());
    add("fragment", "slow", cut(3000, 1200, 0, 130).concat());
    add("fragment", "overlap", [record(4, 0, 0, 800), record(4, 0, 792, 800), record(0, 0, 1600, 8)].concat());
    add("fragment", "two-ends", [record(0, 0, 800, 100), record(0, 0, 800, 200), record(4, 0, 0, 800)].concat());
    add("fragment", "past-the-end", [record(4, 0, 65_528, 800), record(0, 0, 9000, 300)].concat());
    add("fragment", "expired", [record(4, 0, 0, 800), record(0x40, 255, 800, 8), record(0x44, 255, 8, 8)].concat());
    let mut packet = packet(&gratuitous_arp(STATION, A), None);
    packet.truncate(60);
    add("fragment", "raw", [&[0x80, 0, 0, 60][..], &packet].concat());
}

/// Ethernet, IP and TCP or UDP headers; lengths and checksums are for a draft to put right.
fn headers(v6: bool, udp: bool, tags: &[u8], to: Mac) -> Vec<u8> {
    let mut frame = [&to.0[..], &STATION.0, tags].concat();
    if v6 {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, if udp { 17 } else { 6 }, 64]);
        frame.extend([0xfd; 16]);
        frame.extend([0xfe; 16]);
    } else {
        frame.extend([8, 0, 0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, if udp { 17 } else { 6 }, 0, 0]);
        frame.extend([10, 0, 0, 1, 10, 0, 0, 2]);
    }
    frame.extend([0xd4, 0x31, 0, 80]);
    if udp {
        frame.extend([0; 4]);
    } else {
        frame.extend([0, 0, 1, 0, 0, 0, 2, 0, 0x50, 0x10, 1, 0xf5, 0, 0, 0, 0]);
    }
    frame
}

const FLIP: u8 = 0x10;
const RIGHT: u8 = 4;
const PARTIAL: u8 = 8;
const SUPER: u8 = 0x40;

/// A draft of `length` bytes that begins with `frame`.
fn stretched(how: u8, frame: &[u8], length: usize) -> Vec<u8> {
    [&[3 | how][..], &(length as u16).to_be_bytes(), &[frame.len() as u8], frame].concat()
}

/// A draft that is `frame`.
fn whole(how: u8, frame: &[u8]) -> Vec<u8> {
    [&[how][..], &(frame.len() as u16).to_be_bytes(), frame].concat()
}

fn frames(add: &mut Add<'_>) {
    // Limit 0 is the smallest path, 240 is 1440; 3: partial checksums, merging.
    let mut frame = |name: &str, limit: u16, settings: u8, drafts: &[Vec<u8>]| {
        add("frame", name, [&limit.to_be_bytes()[..], &[settings], &drafts.concat()].concat());
    };
    let tag = [0x81, 0, 0, 5];
    let tags = [0x88, 0xa8, 0, 9, 0x81, 0, 0, 5];
    let gso = |kind: u8, size: u16| [&[kind][..], &size.to_be_bytes()].concat();
    let tcp = |v6, tags: &[u8]| headers(v6, false, tags, REMOTE);
    let udp = |v6, tags: &[u8]| headers(v6, true, tags, REMOTE);
    let how = RIGHT | PARTIAL | SUPER;
    frame("arp", 240, 0, &[whole(0, &gratuitous_arp(STATION, A))]);
    frame("advertisement", 240, 1, &[whole(0, &unsolicited_advertisement(STATION, A.to_ipv6_mapped()))]);
    frame("local", 240, 0, &[whole(RIGHT, &headers(false, true, &[], LOCAL))]);
    frame("tcp4-whole", 240, 0, &[stretched(RIGHT, &tcp(false, &[]), 1400)]);
    frame("tcp4-partial", 240, 1, &[stretched(RIGHT | PARTIAL, &tcp(false, &[]), 1400)]);
    frame("tcp4-oversized", 0, 0, &[stretched(RIGHT | PARTIAL, &tcp(false, &[]), 1514)]);
    frame("udp6-in-pieces", 0, 1, &[stretched(RIGHT | PARTIAL, &udp(true, &tag), 1518)]);
    frame("tcp4-super", 240, 3, &[stretched(how, &tcp(false, &[]), 9000), gso(vnet::GSO_TCPV4, 1448)]);
    frame("tcp6-super", 240, 2, &[stretched(how, &tcp(true, &tags), 9000), gso(vnet::GSO_TCPV6, 1348)]);
    frame("tcp4-super-64k", 240, 3, &[stretched(how, &tcp(false, &[]), 65_000), gso(vnet::GSO_TCPV4, 1448)]);
    frame("udp4-super", 240, 3, &[stretched(how, &udp(false, &tag), 6000), gso(vnet::GSO_UDP_L4, 1200)]);
    frame("udp6-super-in-pieces", 0, 3, &[stretched(how, &udp(true, &[]), 6000), gso(vnet::GSO_UDP_L4, 1400)]);
    frame("tcp4-lying-size", 240, 3, &[stretched(how, &tcp(false, &[]), 9000), gso(vnet::GSO_TCPV6, 1)]);
    let lie = VnetHeader { csum_start: 0, ..VnetHeader::single(Some(PartialChecksum { start: 0, offset: 6 })) };
    frame("lying-checksum", 240, 1, &[stretched(RIGHT | 0x80, &tcp(false, &[]), 200), lie.to_bytes().to_vec()]);
    let segment = stretched(RIGHT | PARTIAL, &tcp(false, &[]), 1000);
    let next = [&[1 | RIGHT | PARTIAL][..]].concat();
    frame("tcp4-flow", 240, 3, &[segment.clone(), next.clone(), next.clone(), vec![0x21 | RIGHT, 0, 100], vec![2]]);
    frame("tcp4-flow-flooded", 240, 2, &[vec![0x13], segment[1..].to_vec(), vec![0, 0, 1], next.clone(), next]);
    frame("short", 240, 0, &[whole(0, &STATION.0), whole(0, &[]), whole(0, &[0; 14]), whole(0, &[0xff; 17])]);
    frame("too-long", 240, 0, &[stretched(RIGHT, &tcp(false, &[]), 1600)]);
    frame("reserved", 240, 0, &[whole(RIGHT, &headers(false, true, &[], Mac([1, 0x80, 0xc2, 0, 0, 3])))]);
}

fn packet(frame: &[u8], partial: Option<PartialChecksum>) -> Vec<u8> {
    let mut packet = vec![0; INNER_OVERHEAD];
    vxlan::emit(&mut packet, A, B, 7, 1, 42, partial, frame.len());
    packet.extend_from_slice(frame);
    packet
}

fn inner_packets(add: &mut Add<'_>) {
    let record = |how: u8, packet: &[u8]| [&[how][..], &(packet.len() as u16).to_be_bytes(), packet].concat();
    let arp = packet(&gratuitous_arp(STATION, A), None);
    let mut tcp = headers(false, false, &[], Mac::BROADCAST);
    tcp.resize(200, 3);
    let tcp = packet(&tcp, Some(PartialChecksum { start: 34, offset: 16 }));
    add("inner_packet", "arp", record(0, &arp));
    add("inner_packet", "arp-twice", [record(0, &arp), vec![0x20, 0x30]].concat());
    add("inner_packet", "partial", record(0, &tcp));
    add("inner_packet", "put-right", [record(0x0f, &arp), record(0x0f, &tcp), record(0x0b, &arp[..70])].concat());
    let mut private = arp.clone();
    put_word(&mut private, 33, 2);
    add("inner_packet", "other-network", record(0, &private));
    // Station LOCAL is behind the peer that this comes from.
    add("inner_packet", "split-horizon", record(0, &packet(&headers(false, true, &[], LOCAL), None)));
    let short = &headers(false, true, &[], Mac::BROADCAST)[..38];
    let past_the_end = packet(short, Some(PartialChecksum { start: 34, offset: 6 }));
    add("inner_packet", "partial-past-the-end", record(0, &past_the_end));
    add("inner_packet", "cut", [record(3, &arp[..30]), record(3, &arp[..50]), record(0, &[])].concat());
    let large = packet(&vec![2; 3000], None);
    let original: &[u8; 20] = large.first_chunk().expect("a packet has a header");
    let in_pieces = pieces(large.len(), 1200).flat_map(|piece| {
        let mut bytes = vec![0; 20];
        piece.stamp(original, &mut bytes);
        bytes.extend_from_slice(&large[piece.payload]);
        record(0, &bytes)
    });
    add("inner_packet", "in-pieces", in_pieces.collect());
    let vnis = vec![1, 2, 0xff_ffff];
    let hello = |reply_wanted| Message::Hello { capabilities: 1, vnis: vnis.clone(), incarnation: 9, reply_wanted };
    let message = |message: &Message, pad| record(0, &message::packet(message, A, B, pad));
    add("inner_packet", "hello", [message(&hello(true), None), message(&hello(false), None)].concat());
    add("inner_packet", "probe", message(&Message::Probe { token: 5 }, Some(1300)));
    add("inner_packet", "probe-ack", message(&Message::ProbeAck { token: 5, size: 1300 }, None));
    add("inner_packet", "future", message(&Message::Unknown, Some(100)));
    let mut ping = arp.clone();
    ping[9] = 1;
    add("inner_packet", "icmp", record(3, &ping));
}

fn merges(add: &mut Add<'_>) {
    let flow = |how: u8, v6: bool, udp: bool, tags: &[u8], size: usize| {
        let first = headers(v6, udp, tags, STATION);
        let mut records = [vec![0], stretched(how, &first, first.len() + size)].concat();
        for _ in 0..5 {
            records.extend([0, 1 | how]);
        }
        // A shorter one ends it.
        records.extend([0, 0x21 | how, 0, 10]);
        records
    };
    let tag = [0x81, 0, 0, 5];
    for (name, v6, udp) in
        [("tcp4", false, false), ("tcp6", true, false), ("udp4", false, true), ("udp6", true, true)]
    {
        add("merge", &format!("{name}-partial"), flow(RIGHT | PARTIAL, v6, udp, &[], 1000));
        add("merge", &format!("{name}-complete"), flow(RIGHT, v6, udp, &tag, 500));
    }
    let (tcp, udp) = (flow(RIGHT, false, false, &[], 100), flow(RIGHT, false, true, &[], 100));
    add("merge", "two-flows", [tcp.clone(), udp.clone(), tcp.clone()].concat());
    let arp = [vec![0], whole(0, &gratuitous_arp(STATION, A))].concat();
    add("merge", "opaque-between", [tcp.clone(), arp.clone(), vec![0, 2], tcp.clone()].concat());
    let acknowledgement = [vec![0], whole(RIGHT, &headers(false, false, &[], STATION))].concat();
    add("merge", "acknowledgement-between", [tcp.clone(), acknowledgement, vec![0, 0x25, 0, 100, 0, 5]].concat());
    let mut padded = headers(false, false, &[], STATION);
    padded.resize(57, 1);
    let padded = [vec![0], whole(RIGHT, &padded), vec![0, 0x12, 0, 17, 1], vec![0, 5]].concat();
    add("merge", "wrong-length", padded);
    add("merge", "alone", [vec![0x80], tcp[1..].to_vec(), vec![1, 5, 0x81, 5]].concat());
    // Urgent data goes alone; what continues the run before it may not overtake it.
    let (again, on) = (2 | RIGHT | PARTIAL | FLIP, 1 | RIGHT | PARTIAL | FLIP);
    let first = [vec![0], stretched(RIGHT | PARTIAL, &headers(false, false, &[], STATION), 500)].concat();
    add("merge", "urgent-between", [first, vec![0, again, 0, 47, 0x20], vec![0, on, 0, 47, 0x20]].concat());
    // The same again: a retransmission, which continues nothing.
    add("merge", "retransmitted", [tcp, vec![0, 2 | RIGHT, 0, 2 | RIGHT, 0, 1 | RIGHT]].concat());
}

fn requests(add: &mut Add<'_>) {
    let attach = |target: &str, address: &str| {
        Request::Attach(Attach {
            target: target.parse::<Target>().expect("a target"),
            network: "blue".to_owned(),
            addresses: address.parse::<PortAddress>().into_iter().collect(),
            mac: Some(STATION),
            ifname: Some("eth1".to_owned()),
            name: None,
        })
    };
    let requests = [
        ("status", Request::Status),
        ("peers", Request::Peers),
        ("ports", Request::Ports),
        ("networks", Request::Networks),
        ("fdb", Request::Fdb { network: None }),
        ("fdb-of", Request::Fdb { network: Some("blue".to_owned()) }),
        ("reload", Request::Reload),
        ("attach-netns", attach("netns:/run/netns/x", "10.0.0.2/24@10.0.0.1")),
        ("attach-pid", attach("pid:17", "fd00::2/64")),
        ("attach-container", attach("web", "")),
        ("detach", Request::Detach(Detach { port: "web:eth1".to_owned(), ifname: Some("eth1".to_owned()) })),
    ];
    for (name, request) in requests {
        add("request", name, serde_json::to_vec(&request).expect("a request can be written"));
    }
    add("request", "unknown", br#"{"request":"attach","target":"pid:-1","network":"","colour":1}"#.to_vec());
    add("request", "deep", b"[".repeat(300));
}
