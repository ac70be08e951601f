//! Questions of containers, and what resolvers make of those that are forwarded.
//!
//! ```text
//!  how (1): bits 0-2 what, bit 3 TCP
//!   0-3  network (1), length (2), bytes         a question
//!   4    milliseconds (2)                       time passes
//!   5    length (2), bytes                      a resolver's datagram
//!   6    which (1), flags (2), counts (3), length (2), bytes
//!                                               a resolver's answer: the question that was sent, with these flags, counts and records
//!   7    which (1), length (2), bytes           the same question by TCP; with a length of 0 the connection fails
//! ```
//!
//! What must hold: an answer is to its question, within what its asker takes, and no question itself; a network is told no address of
//! the other; whoever is forwarded gets one answer.

use super::input::Input;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use weft::names::directory::{Entry, Kind};
use weft::names::forward::{Forwarder, Output};
use weft::names::zone::Others;
use weft::names::{Directory, Effort, MAX_DATAGRAM, Settings, Transport, Verdict, Zone, answer};
use weft::wire::key::PublicKey;

const BLUE: u32 = 100;
const RED: u32 = 200;
/// The socket by which resolvers are asked.
const SOCKET: usize = 3;
/// Red's only address.
const SECRET: [u8; 4] = [203, 0, 113, 77];

fn directory() -> Directory {
    let zone = |vni, domain: &str, subnet: &str| Zone {
        vni,
        domain: domain.to_owned(),
        others: Others::Forward,
        local_first: true,
        subnets: vec![subnet.parse().expect("a subnet")],
        service: vec![],
    };
    let directory = Directory::default();
    let zones = vec![zone(BLUE, "blue.weft", "10.32.0.0/16"), zone(RED, "red.weft", "203.0.113.0/24")];
    directory.set_settings(Settings::new(zones, Vec::new()));
    let many: Vec<IpAddr> = (0..200).map(|n| IpAddr::from([10, 32, 1, n])).collect();
    let (web, secret) = ([IpAddr::from([10, 32, 0, 5])], [IpAddr::from(SECRET)]);
    let services = ["sql:5432/tcp".parse().expect("a service")];
    let entry = |vni, name, addresses, services| Entry { vni, name, kind: Kind::Added, addresses, services };
    let entries = [
        entry(BLUE, "web", &web[..], &services[..]),
        entry(BLUE, "api.web", &web, &[]),
        entry(BLUE, "many", &many, &[]),
        entry(RED, "secret", &secret, &[]),
    ];
    directory.set_member(PublicKey([1; 32]), true, entries);
    directory
}

/// The target.
pub fn run(data: &[u8]) {
    let directory = directory();
    let mut forwarder: Forwarder<u32> = Forwarder::new([1; 32]);
    let resolvers: Vec<SocketAddr> = (1..4).map(|n| SocketAddr::from(([192, 0, 2, n], 53))).collect();
    forwarder.set_resolvers(resolvers.clone());
    let (mut input, mut now, mut asked) = (Input::new(data), Duration::ZERO, 0);
    let mut open: BTreeMap<u32, ([u8; 2], Transport)> = BTreeMap::new();
    let mut sent: Vec<(SocketAddr, Vec<u8>)> = Vec::new();
    let mut streams: Vec<(u64, Vec<u8>)> = Vec::new();
    let mut out = Vec::new();
    while let Some(how) = input.byte() {
        let transport = if how & 8 == 0 { Transport::Udp } else { Transport::Tcp };
        match how & 7 {
            0..4 => {
                let vni = if input.byte().unwrap_or(0) & 1 == 0 { BLUE } else { RED };
                let length = input.word().unwrap_or(0);
                let query = input.bytes(length.into());
                let random = u64::from(how) << 32;
                let mut soon = Vec::new();
                let little = answer(&directory, vni, transport, Effort::Little, query, random, &mut soon);
                let verdict = answer(&directory, vni, transport, Effort::Whole, query, random, &mut out);
                assert!(little == Verdict::Later || (little, &soon) == (verdict, &out), "{query:?}");
                match verdict {
                    Verdict::Later => panic!("there is no later"),
                    Verdict::Silent => assert!(out.is_empty()),
                    Verdict::Answer => {
                        check(&out, [query[0], query[1]], transport);
                        let is_told = |bytes: &[u8]| bytes.windows(4).any(|window| window == SECRET);
                        assert!(vni == RED || is_told(query) || !is_told(&out), "{out:?}");
                        let again = answer(&directory, vni, transport, Effort::Whole, &out.clone(), 0, &mut out);
                        assert_eq!(again, Verdict::Silent, "an answer was answered");
                    }
                    Verdict::Forward => {
                        asked += 1;
                        open.insert(asked, ([query[0], query[1]], transport));
                        forwarder.ask(now, asked, vni, transport, query);
                    }
                }
            }
            4 => {
                now += Duration::from_millis(input.word().unwrap_or(0).into());
                forwarder.tick(now);
            }
            5 => {
                let length = input.word().unwrap_or(0);
                forwarder.datagram(now, resolvers[usize::from(how >> 4) % 3], SOCKET, input.bytes(length.into()));
            }
            6 => {
                let which = usize::from(input.byte().unwrap_or(0));
                let (flags, counts) = (input.word().unwrap_or(0), input.bytes(3));
                let length = input.word().unwrap_or(0);
                let records = input.bytes(length.into());
                if let Some((from, question)) = sent.get(which % sent.len().max(1)) {
                    forwarder.datagram(now, *from, SOCKET, &response(question, flags, counts, records));
                }
            }
            _ => {
                let which = usize::from(input.byte().unwrap_or(0));
                let length = input.word().unwrap_or(0);
                let records = input.bytes(length.into());
                if !streams.is_empty() {
                    let (exchange, question) = streams.swap_remove(which % streams.len());
                    let bytes = response(&question, 0x8180, &[how >> 4, 0, 0], records);
                    forwarder.stream(now, exchange, if records.is_empty() { Err(()) } else { Ok(&bytes) });
                }
            }
        }
        collect(&mut forwarder, &mut open, &mut sent, &mut streams);
    }
    while let Some(deadline) = forwarder.next_deadline() {
        forwarder.tick(deadline);
        collect(&mut forwarder, &mut open, &mut sent, &mut streams);
    }
    assert!(open.is_empty(), "{} were left without an answer", open.len());
}

fn collect(
    forwarder: &mut Forwarder<u32>,
    open: &mut BTreeMap<u32, ([u8; 2], Transport)>,
    sent: &mut Vec<(SocketAddr, Vec<u8>)>,
    streams: &mut Vec<(u64, Vec<u8>)>,
) {
    while let Some(output) = forwarder.poll_output() {
        match output {
            Output::Datagram { exchange, to, bytes } => {
                forwarder.sent(exchange, SOCKET);
                sent.push((to, bytes));
            }
            Output::Stream { exchange, bytes, .. } => streams.push((exchange, bytes)),
            Output::Close { .. } => {}
            Output::Answer { token, bytes } => {
                let (id, transport) = open.remove(&token).expect("a second answer");
                check(&bytes, id, transport);
            }
        }
    }
}

fn check(answer: &[u8], id: [u8; 2], transport: Transport) {
    assert!(answer.len() >= 12 && answer[..2] == id && answer[2] & 0x80 != 0, "{answer:?}");
    let most = if transport == Transport::Udp { MAX_DATAGRAM } else { 65_535 };
    assert!(answer.len() <= most);
}

fn response(question: &[u8], flags: u16, counts: &[u8], records: &[u8]) -> Vec<u8> {
    let mut bytes = question.to_vec();
    bytes[2..4].copy_from_slice(&(flags | 0x8000).to_be_bytes());
    // Behind the one question nothing of it is left.
    bytes.truncate(question_end(question));
    for (at, count) in [7, 9, 11].into_iter().zip(counts) {
        bytes[at] = *count;
    }
    bytes.extend_from_slice(records);
    bytes
}

fn question_end(question: &[u8]) -> usize {
    let mut at = 12;
    while question[at] != 0 {
        at += 1 + usize::from(question[at]);
    }
    at + 5
}

fn question(name: &str, rtype: u16, opt: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(!opt.is_empty())];
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(label.len() as u8);
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend_from_slice(&rtype.to_be_bytes());
    bytes.extend_from_slice(&[0, 1]);
    bytes.extend_from_slice(opt);
    bytes
}

fn asked(how: u8, network: u8, question: &[u8]) -> Vec<u8> {
    let [high, low] = (question.len() as u16).to_be_bytes();
    [&[how, network, high, low][..], question].concat()
}

/// Where a fuzzer begins.
pub fn seeds(add: &mut dyn FnMut(&'static str, &str, Vec<u8>)) {
    let opt = [0, 0, 41, 4, 208, 0, 0, 0x80, 0, 0, 0];
    let cookie = [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 12, 0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8];
    for (name, asks, rtype, opt) in [
        ("a", "web.blue.weft", 1, &[][..]),
        ("aaaa", "WEB", 28, &opt),
        ("any", "web", 255, &[]),
        ("soa", "blue.weft", 6, &[]),
        ("srv", "_sql._tcp.web.blue.weft", 33, &cookie),
        ("ptr", "5.0.32.10.in-addr.arpa", 12, &[]),
        ("ptr6", "0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa", 12, &[]),
        ("many", "many", 1, &opt),
        ("nobody", "nobody.blue.weft", 1, &[]),
        ("other", "secret.red.weft", 1, &[]),
        ("unknown", "web", 64_999, &[]),
        ("axfr", "blue.weft", 252, &[]),
        ("root", "", 2, &[]),
    ] {
        add(
            "dns",
            name,
            [asked(0, 0, &question(asks, rtype, opt)), asked(8, 1, &question(asks, rtype, opt))].concat(),
        );
    }
    let ask = asked(0, 0, &question("example.org", 1, &opt));
    // A record of the question's own name.
    let record = [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 198, 51, 100, 1];
    let answered = |flags: u16, count: u8, records: &[u8]| {
        let ([high, low], [long, short]) = (flags.to_be_bytes(), (records.len() as u16).to_be_bytes());
        [&[6, 0, high, low, count, 0, 0, long, short][..], records].concat()
    };
    add("dns", "forwarded", [&ask[..], &answered(0x8180, 1, &record), &[4, 0x40, 0], &ask].concat());
    add("dns", "failed", [&ask[..], &answered(0x8182, 0, &[]), &answered(0x8185, 0, &[])].concat());
    add("dns", "silent", [&ask[..], &[4, 0x08, 0, 4, 0x08, 0, 4, 0x08, 0]].concat());
    add("dns", "truncated", [&ask[..], &answered(0x8380, 0, &[]), &[0x17, 0, 0, 16], &record].concat());
    add("dns", "cut", [&ask[..], &answered(0x8180, 1, &record[..9])].concat());
    add("dns", "pointer", asked(0, 0, &[0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 12, 0, 1, 0, 1]));
    add("dns", "counts", asked(0, 0, &[0, 7, 1, 0, 0, 1, 255, 255, 255, 255, 255, 255, 0, 0, 1, 0, 1]));
}
