//! Seeds: small inputs made by the crate's own emitters, from which a fuzzer finds its way.
//!
//! They are committed as `corpus/TARGET/seed-NAME`, so that they can be looked at and are replayed like everything else
//! that was found; `WEFT_WRITE_SEEDS=1 cargo test --test fuzz_corpus` writes them.

use super::frame;
use super::gossip::{document, pushed};
use super::input::put_word;
use super::stream::CALLED;
use super::world::{LOCAL, REMOTE};
use std::net::Ipv4Addr;
use weft::config::{PortAddress, Target};
use weft::control::nat::Proto;
use weft::control::request::{self, Attach, Backend, Detach, Invite, LeaseWanted, Request, Unpublish, Wish};
use weft::mesh::gossip::{Heard, Heartbeat, Message as Gossip, Part, Piece, Want};
use weft::wire::announce::{gratuitous_arp, unsolicited_advertisement};
use weft::wire::ethernet::Mac;
use weft::wire::fragment::pieces;
use weft::wire::message::{self, Message};
use weft::wire::stream::{PreambleKey, framed};
use weft::wire::vnet::{self, PartialChecksum, VnetHeader};
use weft::wire::vxlan::{RELAY_OVERHEAD, emit_relayed};
use weft::wire::{INNER_OVERHEAD, vxlan};
use weft::wire::{igmp, mld};

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
    beacons(&mut add);
    super::cni::seeds(&mut add);
    configs(&mut add);
    datagrams(&mut add);
    super::docker::seeds(&mut add);
    super::dns::seeds(&mut add);
    fragments(&mut add);
    frames(&mut add);
    gossips(&mut add);
    handshakes(&mut add);
    inner_packets(&mut add);
    merges(&mut add);
    multicasts(&mut add);
    messages(&mut add);
    requests(&mut add);
    super::service::seeds(&mut add);
    streams(&mut add);
    super::trust_seeds::add(&mut add);
    seeds
}

type Add<'a> = dyn FnMut(&'static str, &str, Vec<u8>) + 'a;

fn beacons(add: &mut Add<'_>) {
    // A right clock's hour, the next, one far off; and what the flipped byte is part of.
    let (now, next, wrong) = (0x8000u16, 0x8001, 5);
    for (name, hour, place, by) in [
        ("whole", now, 0, 0),
        ("hour-wrong", wrong, 0, 0),
        ("magic", now, 0, 1),
        ("version", now, 4, 3),
        ("flags", now, 5, 1),
        ("port", now, 7, 0x6c),
        ("hour", next, 11, 1),
        ("tag", now, 12, 1),
        ("tag-end", now, 27, 0x80),
    ] {
        let [high, low] = hour.to_be_bytes();
        let record = [1, high, low, place, by];
        add("beacon", name, [&record[..], &[3, high, low, 0, 0], &record].concat());
    }
    add("beacon", "raw", [&[0, 28][..], b"weft\x01\x01", &[7; 22], &[4, 3], b"wef"].concat());
    add("beacon", "questions", [1, 0x80, 0, 5, 0].repeat(30));
}

fn streams(add: &mut Add<'_>) {
    let frame = |datagram: &[u8]| {
        framed(datagram.len(), |room| {
            room.copy_from_slice(datagram);
            Some(datagram.len())
        })
        .expect("a datagram")
    };
    let (small, initiation) = (frame(&[4, 0, 0, 0]), frame(&[1; 148]));
    let preamble = PreambleKey::of(&CALLED).preamble([1; 16]);
    let mut stream = |name: &str, how: u8, size: u8, parts: &[&[u8]]| {
        add("stream", name, [&[how, size][..], &parts.concat()].concat());
    };
    stream("called", 0, 0, &[&small, &initiation]);
    stream("called-bytes", 0, 1, &[&small, &initiation, &small]);
    stream("called-odd", 0, 7, &[&initiation, &initiation]);
    stream("caller", 3, 0, &[&small, &initiation]);
    stream("caller-bytes", 3, 1, &[&initiation]);
    stream("caller-own-preamble", 1, 33, &[&preamble, &small]);
    stream("caller-wrong", 1, 5, &[&[9; 32], &small]);
    stream("half-preamble", 1, 0, &[&preamble[..20]]);
    stream("half-datagram", 0, 3, &[&small, &initiation[..70]]);
    stream("half-length", 0, 0, &[&small, &[0]]);
    stream("length-zero", 0, 2, &[&small, &[0, 0], &small]);
    stream("length-large", 3, 9, &[&small, &[0xff, 0xff], &small]);
}

fn configs(add: &mut Add<'_>) {
    let peer = "[[peer]]\nname = 'beta'\npublic_key = 'S3Lq3SdLf7QGdu1mNkYPDnHPhbtSNYRTlFmgzYw8ORU='\n";
    let network = "[[network]]\nname = 'blue'\nvni = 7\n";
    let port = "[[port]]\nnetwork = 'blue'\ntarget = 'host'\n";
    let mut config = |name: &str, parts: &[&str]| add("config", name, parts.concat().into_bytes());
    config("example", &[include_str!("../../config/weft.toml")]);
    config("empty", &[]);
    config(
        "trust",
        &[
            "[trust]\nauthority = ['S3Lq3SdLf7QGdu1mNkYPDnHPhbtSNYRTlFmgzYw8ORU=']\nallow = ['a', 'b']\ndeny = ['b', 'c']\n",
        ],
    );
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

fn gossips(add: &mut Add<'_>) {
    let said = |how: u8, message: &Gossip<'_>| {
        let payload = message.write();
        [&[how][..], &(payload.len() as u16).to_be_bytes(), &payload].concat()
    };
    let (head, owner) = (&document().head, document().head.owner);
    let beat = Heartbeat { is_chosen: true, is_urgent: true, sequence: 7, stamp: 9, echo: 3, ..Heartbeat::default() };
    let beat = Gossip::Heartbeat(Heartbeat { digest: 5, ledger: 2, news: vec![(owner, head.version + 1)], ..beat });
    let want = |version, mask| Gossip::Want(vec![Want { owner, version, mask }]);
    let offer = |is_answer| Gossip::Offer { is_answer, buckets: vec![(0, vec![]), (33, vec![(owner, u64::MAX)])] };
    let piece = |number, bytes| Gossip::Ledger(Piece { version: 3, hash: [1; 16], count: 2, number, bytes });
    let heard = Gossip::Heard(vec![Heard { owner, version: head.version, is_duplicate: true }]);
    let parts = vec![Part::Owner(owner), Part::Page(&[1, 0, 0]), Part::Head(&head.bytes)];
    add("gossip", "heartbeat", [said(0, &beat), said(0xf1, &beat), said(0xf8, &beat)].concat());
    add("gossip", "documents", said(0, &Gossip::Documents { is_pushed: true, parts }));
    add("gossip", "heard", said(0, &heard));
    add("gossip", "want", [said(0, &want(0, 0)), said(8, &want(head.version, 3)), said(1, &want(0, 1))].concat());
    add("gossip", "summary", said(0, &Gossip::Summary(Box::new([4; 64]))));
    add("gossip", "offer", [said(0, &offer(false)), said(8, &offer(true)), said(0xf8, &beat)].concat());
    add("gossip", "ledger", [said(0, &piece(0, &[7; 1024])), said(1, &piece(1, b"end"))].concat());
    add("gossip", "ledger-heard", said(0, &Gossip::LedgerHeard { version: 1, hash: [1; 16], mask: 3 }));
    add("gossip", "future", vec![2, 31, 0, 3, 1, 2, 3, 7, 6]);
    let damaged = (0..pushed().len() as u16).step_by(7).take(30);
    add("gossip", "damaged", damaged.flat_map(|at| [&[4][..], &at.to_be_bytes(), &[1]].concat()).collect());
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
    // What A knows: see `frame`.
    let ask = |to: Mac| {
        [&to.0[..], &STATION.0, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &STATION.0, &[10, 32, 0, 1, 0, 0]].concat()
    };
    let ask = |to: Mac| whole(0, &[&ask(to)[..], &[0; 4], &frame::V4.octets()].concat());
    frame("asked", 240, 4, &[ask(Mac::BROADCAST), ask(REMOTE), ask(LOCAL)]);
    frame("claimed", 240, 4, &[whole(0, &gratuitous_arp(STATION, frame::V4)), whole(0, &gratuitous_arp(STATION, A))]);
    let group = |v6: bool, mac: [u8; 6], at: usize, to: &[u8]| {
        let mut frame = headers(v6, true, &[], Mac(mac));
        frame[at..at + to.len()].copy_from_slice(to);
        stretched(RIGHT, &frame, 300)
    };
    let far = group(false, [1, 0, 0x5e, 1, 2, 3], 30, &frame::FAR.octets());
    let near = group(true, [0x33, 0x33, 0, 0, 0, 1], 38, &frame::NEAR.octets());
    let nobody = group(false, [1, 0, 0x5e, 1, 2, 4], 30, &[239, 1, 2, 4]);
    frame("streams", 240, 5, &[far, near, nobody]);
    let second = std::time::Duration::from_secs(1);
    frame("queries", 240, 4, &[whole(0, &igmp::query(None, second)), whole(0, &mld::query(None, second))]);
    frame("reserved", 240, 0, &[whole(RIGHT, &headers(false, true, &[], Mac([1, 0x80, 0xc2, 0, 0, 3])))]);
}

fn multicasts(add: &mut Add<'_>) {
    const UP: [u8; 6] = [0x0c, 0, 0, 0x0d, 0, 0];
    // How, pause, length: see `multicast`.
    let record = |how: u8, pause: u8, bytes: &[u8]| [&[how, pause, bytes.len() as u8][..], bytes].concat();
    let v4 = |pause, message: &[u8]| record(0x30, pause, message);
    let v6 = |pause, message: &[u8]| record(0x34, pause, message);
    let group = |last: u8| [239, 1, 2, last];
    let group6 = |last: u8| [&[0xff, 5][..], &[0; 13], &[last]].concat();
    let old = |kind: u8, last: u8| [&[kind, 0, 0, 0][..], &group(last)].concat();
    let old6 = |kind: u8, last: u8| [&[kind, 0, 0, 0, 0, 0, 0, 0][..], &group6(last)].concat();
    let mut multicast = |name: &str, records: &[Vec<u8>]| {
        add("multicast", name, [&UP[..], &records.concat()].concat());
    };
    let exclude = |last: u8| [&[4, 0, 0, 0][..], &group(last)].concat();
    let include = [&[3, 0, 0, 0][..], &group(1)].concat();
    let some = [&[5, 1, 0, 2][..], &group(2), &[10, 0, 0, 1, 10, 0, 0, 2], &[0; 4]].concat();
    let report = |records: &[&[u8]]| [&[0x22, 0, 0, 0, 0, 0, 0, records.len() as u8][..], &records.concat()].concat();
    let exclude6 = |last: u8| [&[4, 0, 0, 0][..], &group6(last)].concat();
    let report6 = |records: &[&[u8]]| [&[143, 0, 0, 0, 0, 0, 0, records.len() as u8][..], &records.concat()].concat();
    multicast("igmp1", &[v4(0, &old(0x12, 1)), v4(200, &old(0x12, 1))]);
    multicast("igmp2", &[v4(0, &old(0x16, 1)), v4(1, &old(0x17, 1)), v4(1, &old(0x16, 1))]);
    multicast("igmp3", &[v4(0, &report(&[&exclude(1), &some])), v4(1, &report(&[&include]))]);
    multicast("igmp3-cut", &[v4(0, &report(&[&exclude(1)])[..12]), v4(1, &[0x22, 0, 0, 0, 0, 0, 0xff, 0xff])]);
    multicast("igmp-router", &[v4(0, &[0x11, 100, 0, 0, 0, 0, 0, 0])]);
    multicast("igmp-damaged", &[record(0x20, 0, &old(0x16, 1))]);
    multicast("mld1", &[v6(0, &old6(131, 1)), v6(1, &old6(132, 1))]);
    multicast("mld2", &[v6(0, &report6(&[&exclude6(1), &exclude6(2)])), v6(255, &report6(&[&exclude6(1)]))]);
    multicast("mld-bare", &[record(0x14, 0, &report6(&[&exclude6(1)]))]);
    multicast("mld-router", &[v6(0, &[&[130, 0, 0, 0, 0, 9, 0, 0][..], &[0; 20]].concat())]);
    multicast("of-the-link", &[v4(0, &[0x16, 0, 0, 0, 224, 0, 0, 251]), v4(0, &[0x16, 0, 0, 0, 10, 0, 0, 1])]);
    let second = std::time::Duration::from_secs(1);
    multicast("queries", &[record(8, 0, &igmp::query(None, second)), record(8, 1, &mld::query(None, second))]);
    multicast("there-before", &[record(0x1e, 0, &[]), v4(1, &old(0x16, 1)), record(0x0c, 1, &[])]);
    let asked = [&[0xff; 6][..], &STATION.0, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &STATION.0, &[10, 32, 0, 1]].concat();
    multicast("a-question", &[record(8, 0, &[&asked[..], &[0; 6], &[10, 32, 0, 2]].concat())]);
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
    let relayed = |datagram: &[u8], how: u8| {
        let mut bytes = vec![0; RELAY_OVERHEAD];
        emit_relayed(&mut bytes, A, B, 3, 16, datagram.len());
        bytes.extend_from_slice(datagram);
        record(how, &bytes)
    };
    let data = [&[4, 0, 0, 0, 1, 0x02, 0x10, 0][..], &[0; 60]].concat();
    let initiation = [&[1, 0, 0, 0][..], &[9; 144]].concat();
    add("inner_packet", "relayed", [relayed(&data, 0x43), relayed(&initiation, 0x43), relayed(&[], 0x43)].concat());
    add("inner_packet", "to-relay", [relayed(&data, 0x83), relayed(&data, 0xc3), relayed(&data, 0)].concat());
    let vnis = vec![1, 2, 0xff_ffff];
    let hello = |reply_wanted| Message::Hello { capabilities: 1, vnis: vnis.clone(), incarnation: 9, reply_wanted };
    let message = |message: &Message, pad| record(0, &message::packet(message, A, B, pad));
    add("inner_packet", "hello", [message(&hello(true), None), message(&hello(false), None)].concat());
    add("inner_packet", "probe", message(&Message::Probe { token: 5 }, Some(1300)));
    add("inner_packet", "probe-ack", message(&Message::ProbeAck { token: 5, size: 1300, seen: None }, None));
    add("inner_packet", "future", message(&Message::Unknown, Some(100)));
    let mut ping = arp.clone();
    ping[9] = 1;
    add("inner_packet", "icmp", record(3, &ping));
}

fn messages(add: &mut Add<'_>) {
    let from = |way: u8, message: &Message| {
        let payload = message::packet(message, A, B, None).split_off(28);
        [&[0, way, payload.len() as u8][..], &payload].concat()
    };
    let hello = Message::Hello { capabilities: 1, vnis: vec![7], incarnation: 9, reply_wanted: true };
    let hello = from(1, &hello);
    let probe = |way: u8| from(way, &Message::Probe { token: 5 });
    let punch = |reply_wanted: bool| {
        let addresses: Vec<_> = (2..12).map(|n| std::net::SocketAddr::from(([192, 0, 2, n], 51820))).collect();
        from(0, &Message::Punch { addresses, reply_wanted })
    };
    let used = [4, 4 | 1, 3, 13].repeat(40);
    let answer = |n: u8| vec![2, n];
    let route = |bits: u8| vec![6, bits];
    add("message", "hello", [hello.clone(), probe(1), answer(0), answer(1)].concat());
    add("message", "probes-from-everywhere", [hello.clone(), (0..60).flat_map(probe).collect()].concat());
    add("message", "punch", [hello.clone(), route(1), vec![4, 2], punch(true), used.clone(), punch(false)].concat());
    add("message", "punch-again-and-again", [hello.clone(), punch(true).repeat(40)].concat());
    add("message", "silence", [hello.clone(), used.clone(), route(1), used.clone()].concat());
    add("message", "relay", [hello.clone(), route(3), vec![3, 250], answer(0), used.clone(), route(0)].concat());
    add("message", "streams", [hello.clone(), (0..20).flat_map(|n| [5, n]).collect(), used.clone()].concat());
    add("message", "known", [hello.clone(), (0..30).flat_map(|n| [7, n * 8, 8]).collect(), used.clone()].concat());
    add("message", "answers", [hello.clone(), [2, 0, 3, 13, 4, 5].repeat(60)].concat());
    add(
        "message",
        "malformed",
        [vec![1, 1, 40, 3, 8, 0, 9], vec![1, 1, 2, 3, 5, 0, 9], vec![0, 1, 2, 9, 9]].concat(),
    );
    add("message", "session-gone", [hello, used, vec![4, 0, 3, 250, 4, 0, 3, 250, 4, 1, 3, 250]].concat());
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
            addresses: address.parse::<PortAddress>().into_iter().collect(),
            mac: Some(STATION),
            ifname: Some("eth1".to_owned()),
            ..Attach::new(target.parse::<Target>().expect("a target"), "blue")
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
    let invite = Request::Invite(Invite {
        name: "beta".to_owned(),
        life_s: 3600,
        slices: "10.32.1.0/24".parse().into_iter().collect(),
        endpoints: vec!["192.0.2.1:51820".to_owned()],
    });
    let trust = [
        ("invite", invite),
        ("revoke", Request::Revoke { member: "beta".to_owned() }),
        ("rotate", Request::Rotate { overlap_s: 86_400 }),
    ];
    let lease = |wish: Wish| {
        Request::Lease(LeaseWanted { network: "blue".to_owned(), holder: "cni:1:eth0".to_owned(), wish })
    };
    let address = std::net::IpAddr::from([10, 32, 1, 9]);
    let leases = [
        ("lease", lease(Wish::Auto { v4: true, v6: false })),
        ("lease-exactly", lease(Wish::Exactly(address))),
        ("release", Request::Release { network: "blue".to_owned(), address }),
        ("reclaim", Request::Reclaim { member: "beta".to_owned() }),
    ];
    let publish = request::Publish {
        network: "blue".to_owned(),
        host_ip: "127.0.0.1".parse().ok(),
        host_port: 8080,
        proto: Proto::Tcp,
        to: Backend::Name("web".to_owned()),
        port: 80,
        holder: Some("cni:1:eth0".to_owned()),
    };
    let expose = request::Expose {
        network: "blue".to_owned(),
        addresses: "10.32.0.2/16".parse().into_iter().collect(),
        auto: false,
        masquerade: true,
    };
    let outside = [
        ("expose", Request::Expose(expose)),
        ("hide", Request::Hide { network: "blue".to_owned() }),
        ("publish", Request::Publish(publish)),
        ("unpublish", Request::Unpublish(Unpublish::Holder("cni:1:eth0".to_owned()))),
        ("published", Request::Published),
    ];
    for (name, request) in requests.into_iter().chain(trust).chain(leases).chain(outside) {
        add("request", name, serde_json::to_vec(&request).expect("a request can be written"));
    }
    add("request", "unknown", br#"{"request":"attach","target":"pid:-1","network":"","colour":1}"#.to_vec());
    add("request", "deep", b"[".repeat(300));
}
