//! Answers out of a directory of 100,000 names, half a hundred members having two thousand each: what one costs that is there, one
//! that is not, one with fifty instances, and one of a resolver that is remembered.
//!
//! `cargo bench --bench names`

mod cpu_time;

use cpu_time::{CpuTime, criterion};
use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use std::net::IpAddr;
use std::time::Duration;
use weft::names::directory::{Entry, Kind};
use weft::names::forward::{Forwarder, Output};
use weft::names::zone::Others;
use weft::names::{Directory, Effort, Settings, Transport, Verdict, Zone, answer};
use weft::wire::key::PublicKey;

const VNI: u32 = 100;
const MEMBERS: u8 = 50;
const NAMES: usize = 2000;

fn zone(domain: &str) -> Zone {
    Zone {
        vni: VNI,
        domain: domain.to_owned(),
        others: Others::Forward,
        local_first: false,
        subnets: vec!["10.0.0.0/8".parse().expect("a subnet")],
        service: vec![IpAddr::from([10, 0, 0, 1])],
    }
}

/// What a member says of its names.
fn say(directory: &Directory, member: u8, names: usize) {
    let names: Vec<(String, [IpAddr; 1])> = (0..names)
        .map(|n| {
            let [.., high, low] = n.to_be_bytes();
            (format!("service-{n}.host-{member}"), [IpAddr::from([10, member, high, low])])
        })
        .collect();
    let many = [IpAddr::from([10, member, 255, 1])];
    let entry = |name, addresses| Entry { vni: VNI, name, kind: Kind::Attachment, addresses, services: &[] };
    let entries =
        names.iter().map(|(name, address)| entry(name.as_str(), &address[..])).chain([entry("many", &many)]);
    directory.set_member(PublicKey([member; 32]), false, entries);
}

fn question(name: &str) -> Vec<u8> {
    let labels: Vec<u8> = name.split('.').flat_map(|l| [&[l.len() as u8], l.as_bytes()].concat()).collect();
    let opt = [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0];
    [&[0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1][..], &labels, &[0, 0, 1, 0, 1], &opt].concat()
}

fn names(c: &mut Criterion<CpuTime>) {
    let directory = Directory::default();
    directory.set_settings(Settings::new(vec![zone("blue.weft")], Vec::new()));
    (0..MEMBERS).for_each(|member| say(&directory, member, NAMES));
    let some: Vec<Vec<u8>> = (0..NAMES * usize::from(MEMBERS))
        .map(|n| n.wrapping_mul(7919) % (NAMES * usize::from(MEMBERS)))
        .map(|n| question(&format!("service-{}.host-{}.blue.weft", n % NAMES, n / NAMES)))
        .collect();
    let (mut out, mut at) = (Vec::new(), 0);
    let mut group = c.benchmark_group("100,000 names");
    group.bench_function("one of them", |b| {
        b.iter(|| {
            at = (at + 1) % some.len();
            assert_eq!(
                answer(&directory, VNI, Transport::Udp, Effort::Whole, &some[at], at as u64, &mut out),
                Verdict::Answer
            );
            black_box(&out);
        });
    });
    for (what, name) in [("none of them", "nobody.blue.weft"), ("fifty instances", "many.blue.weft")] {
        let question = question(name);
        group.bench_function(what, |b| {
            b.iter(|| {
                at += 1;
                assert_eq!(
                    answer(&directory, VNI, Transport::Udp, Effort::Whole, &question, at as u64, &mut out),
                    Verdict::Answer
                );
                black_box(&out);
            });
        });
    }
    group.bench_function("a member says what it said", |b| b.iter(|| say(&directory, 7, NAMES)));
    group.bench_function("a member of 2,000 goes and comes", |b| {
        b.iter(|| {
            directory.set_member(PublicKey([7; 32]), false, []);
            say(&directory, 7, NAMES);
        });
    });
    group.finish();

    let mut forwarder = Forwarder::new([1; 32]);
    let resolver = "192.0.2.1:53".parse().expect("an address");
    forwarder.set_resolvers(vec![resolver]);
    let (now, asked) = (Duration::from_secs(1), question("example.org"));
    forwarder.ask(now, (), VNI, Transport::Udp, &asked);
    if let Some(Output::Datagram { exchange, bytes, .. }) = forwarder.poll_output() {
        forwarder.sent(exchange, 1);
        let mut response = bytes[..bytes.len() - 11].to_vec();
        (response[2], response[3], response[7], response[11]) = (0x81, 0x80, 1, 0);
        response.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 0, 0, 4, 198, 51, 100, 1]);
        forwarder.datagram(now, resolver, 1, &response);
        assert!(matches!(forwarder.poll_output(), Some(Output::Answer { .. })));
    }
    c.bench_function("a remembered answer of a resolver", |b| {
        b.iter(|| {
            forwarder.ask(now, (), VNI, Transport::Udp, &asked);
            assert!(matches!(black_box(forwarder.poll_output()), Some(Output::Answer { .. })));
        });
    });
}

criterion_group! {
    name = benches;
    config = criterion();
    targets = names
}
criterion_main!(benches);
