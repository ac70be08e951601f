//! Isolation and policy, by what containers see: frames that lie, ports that must not reach each other, rules, and rates.
//!
//! That a frame does not arrive is known when it was counted and a later one has arrived.

#![allow(clippy::unwrap_used)]

mod common;
#[path = "support/mod.rs"]
mod support;

use common::cli::weft;
use common::place::{self, lab, path_of, spec};
use common::{SOON, eventually};
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use support::raw::{Raw, frame, udp_frame};
use support::{dropped, drops_grow, status};
use weft::control::request::{FdbEntry, NetworkPolicy};
use weft::io::netns::Netns;
use weft::lab::datagrams::flood;
use weft::lab::ping::Pinger;
use weft::lab::spec::LabSpec;
use weft::lab::{Lab, Stop};
use weft::wire::ethernet::Mac;

/// Time in which what may pass does: all is set up by then.
const BRIEF: Duration = Duration::from_millis(1500);
const BLUE: &str = "\n[[network]]\nname = \"blue\"\nvni = 200\nsubnets = [\"10.77.0.0/16\", \"fd77::/64\"]\n";

fn blue(more: &str) -> Lab {
    let lab = lab(LabSpec { extra_config: format!("{BLUE}{more}"), ..spec(2, 0) });
    (1..=2).for_each(|h| support::peers_up(&lab, h, 1));
    lab
}

fn socket(lab: &Lab, h: usize) -> PathBuf {
    lab.host(h).files.socket()
}

/// A container of host `h`, with `10.77.1.N` and `fd77::1:N` if `n` is not 0.
fn attach(lab: &Lab, h: usize, name: &str, n: u8, more: &str) -> Netns {
    let netns = Netns::create().unwrap();
    let ips = if n > 0 { format!("--ip 10.77.1.{n}/16 --ip fd77::1:{n}/64") } else { String::new() };
    let target = path_of(&netns);
    weft(&socket(lab, h), &format!("attach netns:{} --network blue --name {name} {ips} {more}", target.display()))
        .done();
    netns
}

fn pings(from: &Netns, to: &str, patience: Duration) -> bool {
    let to: IpAddr = to.parse().unwrap();
    Pinger::open(from, to, None).unwrap().until(56, patience).is_ok()
}

/// All of them reach each other, so that what does not arrive later is refused and not late.
fn wait_for(from: &Netns, to: &str) {
    assert!(pings(from, to, SOON), "{to} is not there");
}

fn policy(lab: &Lab, h: usize) -> NetworkPolicy {
    let all: Vec<NetworkPolicy> = weft(&socket(lab, h), "policy --json").json();
    all.into_iter().find(|network| network.network == "blue").unwrap()
}

fn edit(lab: &Lab, h: usize, change: impl FnOnce(String) -> String) {
    let path = lab.host(h).files.config();
    let text = fs::read_to_string(&path).unwrap();
    let changed = change(text.clone());
    assert_ne!(text, changed);
    fs::write(&path, changed).unwrap();
    weft(&socket(lab, h), "reload").done();
}

#[test]
fn a_container_cannot_pass_for_another_nor_for_a_router() {
    if !place::usable() {
        return;
    }
    let lab = blue("");
    let [liar, neighbour] = [(1, "liar"), (2, "neighbour")].map(|(n, name)| attach(&lab, 1, name, n, ""));
    let far = attach(&lab, 2, "far", 3, "");
    let plain = attach(&lab, 1, "plain", 0, "");
    let server = attach(&lab, 1, "server", 5, "--allow dhcp-server");
    wait_for(&liar, "10.77.1.2");
    wait_for(&liar, "10.77.1.3");
    let [out, near, away, plain, server] = [&liar, &neighbour, &far, &plain, &server].map(|at| Raw::open(at, "eth1"));
    // What is known of another host's containers is what the mesh says, not what their frames taught.
    eventually("the mesh tells of the far container", || {
        let entries: Vec<FdbEntry> = weft(&socket(&lab, 1), "fdb --json").json();
        entries.iter().any(|entry| entry.mac == away.mac && entry.kind == "mesh").then_some(())
    });
    let address = |n: u8| Ipv4Addr::new(10, 77, 1, n);
    let all = Mac::BROADCAST;
    let lie = b"this is a lie";
    let udp = |mac: Mac, from: u8, ports: [u16; 2], text: &[u8]| {
        udp_frame((mac, all), (address(from), ports[0]), (Ipv4Addr::BROADCAST, ports[1]), text)
    };
    let arp = |mac: Mac, of: u8| {
        let fields =
            [&[0, 1, 8, 0, 6, 4, 0, 2][..], &mac.0, &address(of).octets(), &[0; 6], &address(9).octets(), lie]
                .concat();
        frame(all, mac, 0x0806, &fields)
    };
    let mut tagged = udp(out.mac, 3, [7, 7], lie);
    tagged.splice(12..12, [0x81, 0, 0, 0]);
    let six = |from: &str, next: u8, payload: &[&[u8]]| {
        let [from, to] = [from, "ff02::1"].map(|text| text.parse::<Ipv6Addr>().unwrap().octets());
        let payload = [&payload.concat(), &lie[..]].concat();
        let packet = [&[0x60, 0, 0, 0, 0, payload.len() as u8, next, 255][..], &from, &to, &payload].concat();
        frame(all, out.mac, 0x86dd, &packet)
    };
    // Neighbour advertisements, solicitations, redirects and router advertisements differ in what follows their type.
    let [own, others] = ["fd77::1:1", "fd77::1:3"].map(|text| text.parse::<Ipv6Addr>().unwrap().octets());
    let advertise = |of: &[u8], mac: Mac| six("fd77::1:1", 58, &[&[136, 0, 0, 0, 32, 0, 0, 0], of, &[2, 1], &mac.0]);
    let router = six("fe80::1", 58, &[&[134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0]]);
    let redirect = six("fe80::1", 58, &[&[137, 0, 0, 0, 0, 0, 0, 0], &own, &others]);
    let fragment =
        six("fd77::1:1", 44, &[&[58, 0, 0, 1, 0, 0, 0, 9, 136, 0, 0, 0, 32, 0, 0, 0], &others, &[2, 1], &out.mac.0]);
    // Behind a hop-by-hop header with nothing in it.
    let behind =
        six("fd77::1:1", 0, &[&[58, 0, 1, 4, 0, 0, 0, 0, 136, 0, 0, 0, 32, 0, 0, 0], &others, &[2, 1], &out.mac.0]);
    let lies = [
        ("foreign_mac", &out, udp(away.mac, 3, [7, 7], lie)),
        ("foreign_mac", &out, udp(Mac([2, 9, 9, 9, 9, 9]), 1, [7, 7], lie)),
        ("spoofed_source", &plain, udp(away.mac, 3, [7, 7], lie)),
        ("spoofed_address", &out, udp(out.mac, 3, [7, 7], lie)),
        ("spoofed_address", &out, udp(out.mac, 99, [7, 7], lie)),
        ("spoofed_address", &out, tagged),
        ("spoofed_address", &out, arp(out.mac, 3)),
        ("spoofed_address", &plain, arp(plain.mac, 3)),
        ("spoofed_address", &plain, udp(plain.mac, 3, [7, 7], lie)),
        ("rogue_dhcp", &out, udp(out.mac, 1, [67, 68], lie)),
        ("rogue_dhcp", &plain, udp(plain.mac, 66, [67, 68], lie)),
        ("rogue_router", &out, router),
        ("rogue_router", &out, redirect),
        ("spoofed_address", &out, six("fd77::1:3", 17, &[&[0, 7, 0, 7, 0, 8, 0, 0]])),
        ("spoofed_address", &out, advertise(&others, out.mac)),
        ("spoofed_address", &out, advertise(&own, away.mac)),
        ("spoofed_address", &out, behind),
        ("unreadable", &out, fragment),
    ];
    for (reason, from, bytes) in &lies {
        let before = status(&lab, 1);
        from.send(bytes).unwrap();
        drops_grow(&lab, 1, reason, &before, 1);
    }
    // What is right passes, also of who has no address that we know, and of who may do more.
    for (from, text, bytes) in [
        (&plain, &b"somebody"[..], udp(plain.mac, 66, [7, 7], b"somebody")),
        (&server, b"an offer", udp(server.mac, 5, [67, 68], b"an offer")),
        (&out, b"the truth", udp(out.mac, 1, [7, 7], b"the truth")),
    ] {
        from.send(&bytes).unwrap();
        for (at, who) in [(&near, "near"), (&away, "far")] {
            let has = |bytes: &[u8], text: &[u8]| bytes.windows(text.len()).any(|window| window == text);
            let seen = at.receive_one(SOON, |bytes| has(bytes, text) || has(bytes, lie));
            assert!(has(&seen.unwrap(), text), "{who} has heard a lie");
        }
    }
    let refused = policy(&lab, 1);
    assert!(refused.refused["spoofed_address"] >= 5, "{refused:?}");
    assert!(refused.latest.iter().any(|refused| refused.what == "10.77.1.3 -> 255.255.255.255 udp/7"), "{refused:?}");
    let told = weft(&socket(&lab, 1), "status").done();
    assert!(told.contains("rogue_router") && told.contains("LAST REFUSED"), "{told}");
}

#[test]
fn isolated_ports_reach_the_host_and_promiscuous_ports_and_no_others() {
    if !place::usable() {
        return;
    }
    let lab = blue("isolate = true\n");
    let [a, b] = [(1, "a"), (2, "b")].map(|(n, name)| attach(&lab, 1, name, n, ""));
    let c = attach(&lab, 2, "c", 3, "");
    let shared = attach(&lab, 2, "shared", 4, "--allow promiscuous");
    weft(&socket(&lab, 1), "attach host --network blue --ifname blue0 --ip 10.77.1.100/16").done();
    for from in [&a, &b, &c] {
        wait_for(from, "10.77.1.100");
        wait_for(from, "10.77.1.4");
        wait_for(&shared, "10.77.1.3");
    }
    wait_for(&shared, "fd77::1:1");
    let before = [1, 2].map(|h| dropped(&lab, h, "isolated"));
    for (from, to) in [(&a, "10.77.1.2"), (&a, "10.77.1.3"), (&c, "10.77.1.1"), (&a, "fd77::1:3")] {
        assert!(!pings(from, to, BRIEF), "{to} was reached");
    }
    assert!(dropped(&lab, 1, "isolated") > before[0]);
    // A host that does not isolate does not open the other's ports.
    edit(&lab, 2, |text| text.replace("isolate = true", "isolate = false"));
    let before = status(&lab, 1);
    assert!(!pings(&c, "10.77.1.1", BRIEF));
    drops_grow(&lab, 1, "isolated", &before, 1);
    edit(&lab, 1, |text| text.replace("isolate = true", "isolate = false"));
    for (from, to) in [(&a, "10.77.1.2"), (&a, "10.77.1.3"), (&c, "10.77.1.1")] {
        wait_for(from, to);
    }
}

/// Whether a connection comes about and carries data both ways.
fn connects(from: &Netns, to: &Netns, address: &str, patience: Duration) -> bool {
    let address: SocketAddr = address.parse().unwrap();
    let listener = to.run(|| TcpListener::bind(address)).unwrap().unwrap();
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        let stream = from.run(|| TcpStream::connect_timeout(&address, Duration::from_millis(400))).unwrap();
        let Ok(mut stream) = stream else { continue };
        let (mut accepted, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        accepted.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(b"question").unwrap();
        let mut text = [0; 8];
        accepted.read_exact(&mut text).unwrap();
        accepted.write_all(b"response").unwrap();
        stream.read_exact(&mut text).unwrap();
        return text == *b"response";
    }
    false
}

#[test]
fn only_what_a_rule_allows_passes_and_either_end_is_enough() {
    if !place::usable() {
        return;
    }
    let rules =
        "\n[[allow]]\nnetwork = \"blue\"\nfrom = \"label:tier=web\"\nto = \"db\"\nports = [\"tcp/5432\", \"icmp\"]\n";
    let lab = blue(rules);
    let web = attach(&lab, 1, "web", 1, "--label tier=web");
    let other = attach(&lab, 1, "other", 2, "");
    let db = attach(&lab, 2, "postgres", 3, "--dns-name db --label tier=data");
    wait_for(&web, "10.77.1.3");
    wait_for(&web, "fd77::1:3");
    assert!(connects(&web, &db, "10.77.1.3:5432", SOON) && connects(&web, &db, "[fd77::1:3]:5432", SOON));
    assert!(!connects(&web, &db, "10.77.1.3:22", BRIEF));
    assert!(!connects(&db, &web, "10.77.1.1:5432", BRIEF), "a rule has a direction");
    assert!(!connects(&other, &db, "10.77.1.3:5432", BRIEF));
    assert!(!pings(&db, "10.77.1.1", BRIEF) && !pings(&other, "10.77.1.1", BRIEF));
    let told = policy(&lab, 1);
    let rule = &told.rules[0];
    assert_eq!((rule.from_addresses, rule.to_addresses), (2, 2));
    assert!(rule.hits > 10 && told.refused["not_allowed"] > 1, "{told:?}");
    assert!(told.latest.iter().any(|refused| refused.what == "10.77.1.1 -> 10.77.1.3 tcp/22"), "{told:?}");
    let text = weft(&socket(&lab, 1), "policy").done();
    assert!(text.contains("label:tier=web") && text.contains("tcp/5432,icmp"), "{text}");

    // One end has no rules: the other decides, at the sender's or at the receiver's side.
    edit(&lab, 2, |text| text.replace(rules, "\n"));
    assert!(connects(&web, &db, "10.77.1.3:5432", SOON));
    assert!(!connects(&web, &db, "10.77.1.3:22", BRIEF));
    let before = status(&lab, 1);
    assert!(!connects(&db, &web, "10.77.1.1:22", BRIEF));
    drops_grow(&lab, 1, "not_allowed", &before, 1);

    // A label goes with its port, and rules with a reload.
    weft(&socket(&lab, 1), "detach web").done();
    eventually("the label is gone", || (policy(&lab, 1).rules[0].from_addresses == 0).then_some(()));
    edit(&lab, 1, |text| text.replace(rules, "\n"));
    assert!(connects(&other, &db, "10.77.1.3:22", SOON));
}

#[test]
fn a_port_sends_and_gets_no_more_than_its_rate() {
    if !place::usable() {
        return;
    }
    let lab = blue("");
    let slow = attach(&lab, 1, "slow", 1, "--rate-out 8M/400k --rate-in 4M/400k");
    let fast = attach(&lab, 2, "fast", 2, "");
    wait_for(&slow, "10.77.1.2");
    let time = Duration::from_secs(1);
    for (from, to, address, rate, reason) in
        [(&slow, &fast, "10.77.1.2:9000", 8e6, "rate_out"), (&fast, &slow, "10.77.1.1:9000", 4e6, "rate_in")]
    {
        let before = status(&lab, 1);
        // Never more, and as much where the machine is not too busy to carry it.
        eventually("half the rate", || {
            let started = Instant::now();
            let flood = flood(from, to, address.parse().unwrap(), 1000, time, &Stop::default()).unwrap();
            // The bits of whole frames, in the time that it really took, and one burst.
            let most = rate * started.elapsed().as_secs_f64() + 400e3;
            let bits = flood.delivered as f64 * 1042.0 * 8.0;
            assert!(bits <= most * 1.02, "{bits} bits of at most {most}, {flood:?}");
            (bits > rate * 0.5).then_some(())
        });
        drops_grow(&lab, 1, reason, &before, 1);
    }
}
