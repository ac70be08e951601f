//! Questions as resolvers ask them, and what they get.
#![allow(clippy::unwrap_used)]

use super::directory::{Entry, Kind};
use super::zone::Others;
use super::{Directory, Effort, Settings, Transport, Verdict, Zone, answer};
use crate::wire::key::PublicKey;
use crate::wire::service::Service;
use domain::base::iana::{Class, Opcode, OptRcode, Rcode, Rtype};
use domain::base::{Message, MessageBuilder, Name, Question};
use domain::rdata::AllRecordData;
use proptest::prelude::*;
use std::net::IpAddr;

const BLUE: u32 = 100;
const RED: u32 = 200;
const HERE: PublicKey = PublicKey([1; 32]);
const THERE: PublicKey = PublicKey([2; 32]);

fn zone(vni: u32, network: &str, subnets: &[&str]) -> Zone {
    Zone {
        vni,
        domain: format!("{network}.weft"),
        others: Others::Forward,
        local_first: false,
        subnets: subnets.iter().map(|subnet| subnet.parse().unwrap()).collect(),
        service: subnets
            .iter()
            .map(|subnet| subnet.parse::<crate::wire::cidr::Cidr>().unwrap().first_host().unwrap().address)
            .collect(),
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// What a member has, as text: `NAME@VNI ADDRESS… SERVICE…`.
fn set(directory: &Directory, member: PublicKey, entries: &[&str]) {
    let read: Vec<(u32, &str, Vec<IpAddr>, Vec<Service>)> = entries
        .iter()
        .map(|entry| {
            let mut words = entry.split(' ');
            let (name, vni) = words.next().unwrap().split_once('@').unwrap();
            let (addresses, services): (Vec<&str>, Vec<&str>) =
                words.partition(|word| word.parse::<IpAddr>().is_ok());
            let addresses = addresses.iter().map(|word| ip(word)).collect();
            (vni.parse().unwrap(), name, addresses, services.iter().map(|word| word.parse().unwrap()).collect())
        })
        .collect();
    let entries = read.iter().map(|(vni, name, addresses, services)| Entry {
        vni: *vni,
        name,
        kind: if services.is_empty() { Kind::Attachment } else { Kind::Added },
        addresses,
        services,
    });
    directory.set_member(member, member == HERE, entries);
}

/// Two networks on two members.
fn world() -> Directory {
    let directory = Directory::default();
    let zones = vec![zone(BLUE, "blue", &["10.32.0.0/16", "fd00:32::/64"]), zone(RED, "red", &["10.33.0.0/16"])];
    directory.set_settings(Settings::new(zones, Vec::new()));
    set(&directory, HERE, &["web@100 10.32.0.5 fd00:32::5", "db@100 10.32.0.6", "api.web@100 10.32.0.7"]);
    set(
        &directory,
        THERE,
        &[
            "web@100 10.32.1.5",
            "db@100 5432 sql:5433 53/udp",
            "secret@200 10.33.0.9",
            "www.corp.example@100 10.32.1.8",
        ],
    );
    directory
}

/// A question, what goes into its header and its EDNS being the caller's.
fn query(name: &str, rtype: Rtype, edns: Option<(u16, u8)>) -> Vec<u8> {
    let mut builder = MessageBuilder::new_vec();
    builder.header_mut().set_id(0x1234);
    builder.header_mut().set_rd(true);
    let mut builder = builder.question();
    builder.push(Question::new(Name::vec_from_str(name).unwrap(), rtype, Class::IN)).unwrap();
    let mut builder = builder.additional();
    if let Some((size, version)) = edns {
        builder
            .opt(|opt| {
                opt.set_udp_payload_size(size);
                opt.set_version(version);
                Ok(())
            })
            .unwrap();
    }
    builder.finish()
}

fn reply(directory: &Directory, vni: u32, transport: Transport, query: &[u8]) -> Option<Message<Vec<u8>>> {
    const RANDOM: u64 = 0x1234_5678_9abc_def1;
    let (mut out, mut soon) = (Vec::new(), Vec::new());
    let verdict = answer(directory, vni, transport, Effort::Whole, query, RANDOM, &mut out);
    // What takes little is no other answer.
    let little = answer(directory, vni, transport, Effort::Little, query, RANDOM, &mut soon);
    assert!(little == Verdict::Later && soon.is_empty() || (little, &soon) == (verdict, &out));
    match verdict {
        Verdict::Answer => Some(Message::from_octets(out).unwrap()),
        _ => {
            assert!(out.is_empty());
            None
        }
    }
}

fn ask(directory: &Directory, name: &str, rtype: Rtype) -> Option<Message<Vec<u8>>> {
    reply(directory, BLUE, Transport::Udp, &query(name, rtype, None))
}

/// The answer section as `TYPE DATA`, sorted.
fn answers(message: &Message<Vec<u8>>) -> Vec<String> {
    let section = message.answer().unwrap().into_records::<AllRecordData<_, _>>();
    let mut lines: Vec<_> =
        section.map(|record| record.unwrap()).map(|r| format!("{} {}", r.rtype(), r.data())).collect();
    lines.sort();
    lines
}

/// The code and the SOA's owner of a negative answer.
fn negative(message: &Message<Vec<u8>>) -> (Rcode, String) {
    assert!(message.header().aa());
    assert_eq!(answers(message), [""; 0]);
    let mut authority = message.authority().unwrap();
    let soa = authority.next().unwrap().unwrap();
    assert_eq!(soa.rtype(), Rtype::SOA);
    (message.header().rcode(), soa.owner().to_string())
}

#[test]
fn a_name_has_the_addresses_of_all_its_instances() {
    let directory = world();
    for name in ["web.blue.weft", "web", "WeB.bLue.WEFT", "web.blue.weft."] {
        let message = ask(&directory, name, Rtype::A).unwrap();
        assert_eq!(answers(&message), ["A 10.32.0.5", "A 10.32.1.5"], "{name}");
        let header = message.header();
        assert!(header.aa() && header.qr() && header.rd() && header.ra() && !header.tc());
        assert_eq!((header.id(), header.rcode()), (0x1234, Rcode::NOERROR));
        let owner = message.answer().unwrap().next().unwrap().unwrap();
        assert!(owner.ttl().as_secs() <= 5);
        // As it was asked, letter by letter (draft-vixie-dnsext-dns0x20).
        assert_eq!(owner.owner().to_string(), name.trim_end_matches('.'));
        assert_eq!(message.sole_question().unwrap().qname().to_string(), name.trim_end_matches('.'));
    }
    assert_eq!(answers(&ask(&directory, "web", Rtype::AAAA).unwrap()), ["AAAA fd00:32::5"]);
    assert_eq!(answers(&ask(&directory, "api.web", Rtype::A).unwrap()), ["A 10.32.0.7"]);
    assert_eq!(answers(&ask(&directory, "www.corp.example", Rtype::A).unwrap()), ["A 10.32.1.8"]);
}

#[test]
fn no_data_and_no_name_are_different_answers() {
    let directory = world();
    let of = |name: &str, rtype| negative(&ask(&directory, name, rtype).unwrap());
    assert_eq!(of("db.blue.weft", Rtype::AAAA), (Rcode::NOERROR, "blue.weft".into()));
    assert_eq!(of("db", Rtype::AAAA), (Rcode::NOERROR, "db".into()));
    assert_eq!(of("db.blue.weft", Rtype::MX), (Rcode::NOERROR, "blue.weft".into()));
    // A type that no library knows.
    assert_eq!(of("db.blue.weft", Rtype::from_int(64_999)), (Rcode::NOERROR, "blue.weft".into()));
    assert_eq!(of("nobody.blue.weft", Rtype::A), (Rcode::NXDOMAIN, "blue.weft".into()));
    assert_eq!(of("x.db.blue.weft", Rtype::A), (Rcode::NXDOMAIN, "blue.weft".into()));
    assert_eq!(of("a\\.b.blue.weft", Rtype::A), (Rcode::NXDOMAIN, "blue.weft".into()));
    // It is the end of a name.
    assert_eq!(of("corp.example.blue.weft", Rtype::A), (Rcode::NOERROR, "blue.weft".into()));
    // Not so where others may have it.
    assert!(ask(&directory, "corp.example", Rtype::A).is_none());
    assert!(ask(&directory, "example", Rtype::A).is_none());
}

#[test]
fn a_network_is_not_told_the_names_of_another_and_nobody_else_is_asked_for_them() {
    let directory = world();
    for name in ["secret.red.weft", "nobody.red.weft", "red.weft"] {
        let told = negative(&ask(&directory, name, Rtype::A).unwrap());
        assert_eq!(told, (Rcode::NXDOMAIN, "weft".into()));
        // As of a network that there is not.
        let green = name.replace("red", "green");
        assert_eq!(negative(&ask(&directory, &green, Rtype::A).unwrap()), told);
    }
    assert!(ask(&directory, "secret", Rtype::A).is_none());
    assert_eq!(negative(&ask(&directory, "secret.blue.weft", Rtype::A).unwrap()).0, Rcode::NXDOMAIN);
    // Neither by address: there it is one of somebody else.
    assert!(ask(&directory, "9.0.33.10.in-addr.arpa", Rtype::PTR).is_none());
}

#[test]
fn what_is_above_a_domain_exists_for_who_is_in_it_and_for_nobody_else() {
    let directory = Directory::default();
    let below = |vni, domain: &str| Zone { domain: domain.to_owned(), ..zone(vni, "", &[]) };
    let zones =
        vec![below(BLUE, "blue.dc1.weft"), below(RED, "red.dc2.weft"), below(300, "corp"), below(400, "hq.corp")];
    directory.set_settings(Settings::new(zones, Vec::new()));
    let of =
        |vni, name: &str| negative(&reply(&directory, vni, Transport::Udp, &query(name, Rtype::A, None)).unwrap());
    for (vni, name, code, apex) in [
        (BLUE, "weft", Rcode::NOERROR, "weft"),
        (BLUE, "dc1.weft", Rcode::NOERROR, "weft"),
        (BLUE, "dc2.weft", Rcode::NXDOMAIN, "weft"),
        (BLUE, "dc3.weft", Rcode::NXDOMAIN, "weft"),
        (RED, "dc2.weft", Rcode::NOERROR, "weft"),
        (300, "weft", Rcode::NOERROR, "weft"),
        (400, "corp", Rcode::NOERROR, "corp"),
        (400, "x.corp", Rcode::NXDOMAIN, "corp"),
        (BLUE, "corp", Rcode::NXDOMAIN, "corp"),
    ] {
        assert_eq!(of(vni, name), (code, apex.to_owned()), "{name} asked in {vni}");
    }
}

#[test]
fn names_of_others_are_forwarded_or_refused_or_not_answered_at_all() {
    let directory = world();
    assert!(ask(&directory, "example.com", Rtype::A).is_none());
    assert!(ask(&directory, "example.com", Rtype::from_int(64_999)).is_none());
    let with = |others| {
        directory.set_settings(Settings::new(vec![Zone { others, ..zone(BLUE, "blue", &["10.32.0.0/16"]) }], vec![]));
        ask(&directory, "example.com", Rtype::A)
    };
    let refused = with(Others::Refuse).unwrap();
    assert_eq!(refused.header().rcode(), Rcode::REFUSED);
    assert!(!refused.header().aa() && !refused.header().ra());
    assert!(ask(&directory, "web", Rtype::A).is_some());
    assert!(with(Others::Off).is_none());
    assert!(ask(&directory, "web", Rtype::A).is_none());
    assert!(reply(&directory, 999, Transport::Udp, &query("web", Rtype::A, None)).is_none());
}

#[test]
fn an_address_has_the_names_of_its_network() {
    let directory = world();
    let of = |name: &str| answers(&ask(&directory, name, Rtype::PTR).unwrap());
    assert_eq!(of("5.0.32.10.in-addr.arpa"), ["PTR web.blue.weft."]);
    assert_eq!(of("5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.2.3.0.0.0.0.D.f.ip6.arpa").len(), 0);
    let v6 = "5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.2.3.0.0.0.0.D.f.IP6.arpa";
    assert_eq!(of(v6), ["PTR web.blue.weft."]);
    assert_eq!(of("1.0.32.10.in-addr.arpa"), ["PTR blue.weft."]);
    let negative = |name: &str, rtype| negative(&ask(&directory, name, rtype).unwrap());
    assert_eq!(negative("77.0.32.10.in-addr.arpa", Rtype::PTR), (Rcode::NXDOMAIN, "0.32.10.in-addr.arpa".into()));
    assert_eq!(negative("x.5.0.32.10.in-addr.arpa", Rtype::PTR).0, Rcode::NXDOMAIN);
    assert_eq!(negative("5.0.32.10.in-addr.arpa", Rtype::A).0, Rcode::NOERROR);
    assert_eq!(negative("32.10.in-addr.arpa", Rtype::NS).0, Rcode::NOERROR);
    for elsewhere in
        ["10.in-addr.arpa", "in-addr.arpa", "4.4.8.8.in-addr.arpa", "05.0.32.10.in-addr.arpa", "x.ip6.arpa"]
    {
        assert!(ask(&directory, elsewhere, Rtype::PTR).is_none(), "{elsewhere}");
    }
}

#[test]
fn services_are_found_by_port_and_by_name() {
    let directory = world();
    let of = |name: &str| answers(&ask(&directory, name, Rtype::SRV).unwrap());
    assert_eq!(of("_5432._tcp.db.blue.weft"), ["SRV 0 0 5432 db.blue.weft"]);
    assert_eq!(of("_SQL._tcp.db"), ["SRV 0 0 5433 db"]);
    assert_eq!(of("_53._udp.db.blue.weft"), ["SRV 0 0 53 db.blue.weft"]);
    let message = ask(&directory, "_5432._tcp.db.blue.weft", Rtype::SRV).unwrap();
    let mut additional = message.additional().unwrap().into_records::<AllRecordData<_, _>>();
    let record = additional.next().unwrap().unwrap();
    assert_eq!((record.owner().to_string(), record.data().to_string()), ("db.blue.weft".into(), "10.32.0.6".into()));
    let negative = |name: &str, rtype| negative(&ask(&directory, name, rtype).unwrap()).0;
    assert_eq!(negative("_5432._tcp.db.blue.weft", Rtype::A), Rcode::NOERROR);
    assert_eq!(negative("_tcp.db.blue.weft", Rtype::SRV), Rcode::NOERROR);
    assert_eq!(negative("_tcp.web.blue.weft", Rtype::SRV), Rcode::NXDOMAIN);
    assert_eq!(negative("_80._tcp.db.blue.weft", Rtype::SRV), Rcode::NXDOMAIN);
    assert_eq!(negative("_5432._udp.db.blue.weft", Rtype::SRV), Rcode::NXDOMAIN);
}

#[test]
fn the_domain_itself_has_its_records() {
    let directory = world();
    let of = |rtype| answers(&ask(&directory, "blue.weft", rtype).unwrap());
    assert_eq!(of(Rtype::A), ["A 10.32.0.1"]);
    assert_eq!(of(Rtype::AAAA), ["AAAA fd00:32::1"]);
    assert_eq!(of(Rtype::NS), ["NS blue.weft."]);
    assert!(of(Rtype::SOA)[0].starts_with("SOA blue.weft. nobody.invalid. "), "{:?}", of(Rtype::SOA));
    assert_eq!(negative(&ask(&directory, "blue.weft", Rtype::MX).unwrap()), (Rcode::NOERROR, "blue.weft".into()));
    assert_eq!(answers(&ask(&directory, "web", Rtype::ANY).unwrap()), ["HINFO \"RFC8482\" \"\""]);
    assert_eq!(ask(&directory, "blue.weft", Rtype::AXFR).unwrap().header().rcode(), Rcode::REFUSED);
}

#[test]
fn what_takes_long_is_left_for_later() {
    let directory = world();
    let at_once = |name: &str, rtype| {
        let mut out = Vec::new();
        answer(&directory, BLUE, Transport::Udp, Effort::Little, &query(name, rtype, None), 7, &mut out)
    };
    let many = |n: u8| (1..=n).map(|n| format!("10.32.2.{n}")).collect::<Vec<_>>().join(" ");
    let (few, more) = (format!("few@100 {}", many(16)), format!("more@100 {}", many(17)));
    let shared: Vec<String> = (0..17).map(|n| format!("alias{n}@100 10.32.3.1")).collect();
    let said: Vec<&str> = [&few, &more].into_iter().chain(&shared).map(String::as_str).collect();
    set(&directory, THERE, &said);
    assert_eq!(at_once("few", Rtype::A), Verdict::Answer);
    assert_eq!(at_once("more.blue.weft", Rtype::A), Verdict::Later);
    assert_eq!(at_once("1.3.32.10.in-addr.arpa", Rtype::PTR), Verdict::Later);
    assert_eq!(at_once("nobody.blue.weft", Rtype::A), Verdict::Answer);

    let deep = |labels: usize| format!("{}few.blue.weft", "a.".repeat(labels - 3));
    assert_eq!(at_once(&deep(16), Rtype::A), Verdict::Answer);
    assert_eq!(at_once(&deep(17), Rtype::A), Verdict::Later);
    assert_eq!(at_once(&deep(120), Rtype::A), Verdict::Later);

    // As long as a question of many records is, as long it takes to read.
    let plain = query("few", Rtype::A, None);
    let record = [0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0];
    for (records, verdict) in [(0, Verdict::Answer), (1, Verdict::Answer), (2, Verdict::Later), (100, Verdict::Later)]
    {
        let mut asked = [&plain[..], &record.repeat(records)].concat();
        asked[10..12].copy_from_slice(&(records as u16).to_be_bytes());
        assert_eq!(answer(&directory, BLUE, Transport::Udp, Effort::Little, &asked, 7, &mut Vec::new()), verdict);
    }
    let long = [&plain[..], &[0; 500]].concat();
    assert_eq!(answer(&directory, BLUE, Transport::Udp, Effort::Little, &long, 7, &mut Vec::new()), Verdict::Later);
}

#[test]
fn instances_come_in_every_order_and_those_here_first_if_wanted() {
    let directory = world();
    let many: Vec<String> = (1..=50).map(|n| format!("10.32.2.{n}")).collect();
    let entry = format!("many@100 {}", many.join(" "));
    set(&directory, THERE, &["web@100 10.32.1.5", &entry]);
    let asked = query("many", Rtype::A, Some((4096, 0)));
    let mut firsts = std::collections::BTreeSet::new();
    for random in 0..400_u64 {
        let mut out = Vec::new();
        answer(
            &directory,
            BLUE,
            Transport::Udp,
            Effort::Whole,
            &asked,
            random.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            &mut out,
        );
        let message = Message::from_octets(out).unwrap();
        assert!(!message.header().tc() && message.as_slice().len() <= super::MAX_DATAGRAM);
        let section = message.answer().unwrap().into_records::<AllRecordData<_, _>>();
        let all: Vec<_> = section.map(|record| record.unwrap().data().to_string()).collect();
        assert_eq!(all.len(), 50);
        firsts.insert(all[0].clone());
    }
    assert_eq!(firsts.len(), 50, "some never come first");

    let zones = vec![Zone { local_first: true, ..zone(BLUE, "blue", &["10.32.0.0/16"]) }];
    directory.set_settings(Settings::new(zones, Vec::new()));
    for random in 0..32 {
        let mut out = Vec::new();
        answer(
            &directory,
            BLUE,
            Transport::Udp,
            Effort::Whole,
            &query("web", Rtype::A, None),
            random << 40 | random,
            &mut out,
        );
        let message = Message::from_octets(out).unwrap();
        let first = message.answer().unwrap().into_records::<AllRecordData<_, _>>().next().unwrap().unwrap();
        assert_eq!(first.data().to_string(), "10.32.0.5");
    }
}

#[test]
fn what_does_not_fit_a_datagram_is_truncated_and_whole_in_a_stream() {
    let directory = world();
    let many: Vec<String> = (1..=200).map(|n| format!("10.32.2.{n}")).collect();
    set(&directory, THERE, &[&format!("many@100 {}", many.join(" "))]);
    let all = reply(&directory, BLUE, Transport::Tcp, &query("many", Rtype::A, None)).unwrap();
    assert_eq!((answers(&all).len(), all.header().tc()), (200, false));
    for (edns, most) in [(None, 512), (Some((100, 0)), 512), (Some((1000, 0)), 1000), (Some((65_535, 0)), 1232)] {
        let some = reply(&directory, BLUE, Transport::Udp, &query("many", Rtype::A, edns)).unwrap();
        let length = some.as_slice().len();
        assert!(some.header().tc() && length <= most && length + 16 > most, "{length} of {most}");
        assert_eq!(some.opt().is_some(), edns.is_some());
    }
}

#[test]
fn an_edns_question_has_an_edns_answer() {
    let directory = world();
    let message = reply(&directory, BLUE, Transport::Udp, &query("web", Rtype::A, Some((1400, 0)))).unwrap();
    let opt = message.opt().unwrap();
    assert_eq!((opt.version(), opt.udp_payload_size()), (0, 1232));
    let message = reply(&directory, BLUE, Transport::Udp, &query("web", Rtype::A, Some((1400, 1)))).unwrap();
    assert_eq!(message.opt_rcode(), OptRcode::BADVERS);
    assert_eq!((message.opt().unwrap().version(), answers(&message).len()), (0, 0));
    assert!(ask(&directory, "web", Rtype::A).unwrap().opt().is_none());
}

#[test]
fn what_is_no_question_is_told_so_or_nothing() {
    let directory = world();
    let good = query("web", Rtype::A, Some((1232, 0)));
    let code = |bytes: &[u8]| {
        reply(&directory, BLUE, Transport::Udp, bytes).map(|message| {
            assert!(message.header().qr() && message.header().id() == 0x1234);
            message.header().rcode()
        })
    };
    let with = |change: fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        code(&bytes)
    };
    assert_eq!(code(&[]), None);
    assert_eq!(code(&good[..11]), None);
    assert_eq!(with(|bytes| bytes[2] |= 0x80), None, "answers are not answered");
    assert_eq!(with(|bytes| bytes[2] |= 0x28), Some(Rcode::NOTIMP), "an update");
    assert_eq!(with(|bytes| bytes[5] = 0), Some(Rcode::FORMERR));
    assert_eq!(with(|bytes| bytes[5] = 2), Some(Rcode::FORMERR));
    assert_eq!(with(|bytes| bytes[4] = 255), Some(Rcode::FORMERR));
    assert_eq!(with(|bytes| bytes[7] = 1), Some(Rcode::FORMERR), "an answer that is not there");
    assert_eq!(with(|bytes| bytes[12] = 0xff), Some(Rcode::FORMERR), "a name that points outside");
    assert_eq!(
        with(|bytes| bytes[12..14].copy_from_slice(&[0xc0, 12])),
        Some(Rcode::FORMERR),
        "a name that is its own end"
    );
    assert_eq!(with(|bytes| bytes[20] = 3), Some(Rcode::REFUSED), "Chaosnet");
    let twice = [&good[..], &good[21..]].concat();
    assert_eq!(with(|bytes| bytes[11] = 2), Some(Rcode::FORMERR));
    assert_eq!(
        {
            let mut bytes = twice;
            bytes[11] = 2;
            code(&bytes)
        },
        Some(Rcode::FORMERR),
        "two OPT records"
    );
    for length in 12..good.len() {
        assert_eq!(code(&good[..length]), Some(Rcode::FORMERR), "cut at {length}");
    }
    let update = {
        let mut bytes = good.clone();
        bytes[2] |= 0x28;
        bytes
    };
    assert_eq!(reply(&directory, BLUE, Transport::Udp, &update).unwrap().header().opcode(), Opcode::UPDATE);
}

proptest! {
    #[test]
    fn no_bytes_are_answered_with_anything_but_an_answer(
        name in 0..6usize,
        flips in proptest::collection::vec((any::<u16>(), any::<u8>()), 0..6),
        cut in any::<u16>(),
        tcp in any::<bool>(),
    ) {
        let directory = world();
        let name = ["web", "_5432._tcp.db.blue.weft", "5.0.32.10.in-addr.arpa", "x.red.weft", "blue.weft", "example.org"][name];
        let mut bytes = query(name, Rtype::ANY, Some((1232, 0)));
        for (at, by) in flips {
            let at = usize::from(at) % bytes.len();
            bytes[at] ^= by;
        }
        bytes.truncate(bytes.len().saturating_sub(usize::from(cut) % 64));
        let mut out = Vec::new();
        let transport = if tcp { Transport::Tcp } else { Transport::Udp };
        if answer(&directory, BLUE, transport, Effort::Whole, &bytes, u64::from(cut), &mut out) == Verdict::Answer {
            prop_assert!(out[..2] == bytes[..2] && out[2] & 0x80 != 0);
            let message = Message::from_octets(out).unwrap();
            for section in [message.answer().unwrap(), message.authority().unwrap(), message.additional().unwrap()] {
                for record in section.into_records::<AllRecordData<_, _>>() {
                    prop_assert!(!record.unwrap().data().to_string().contains("10.33.0.9"), "red's");
                }
            }
        }
    }
}
