//! Names and the service address as containers meet them: `ping` and `dig` in a lab of real daemons.

#![allow(clippy::unwrap_used)]

mod common;
mod support;

use common::cli::weft;
use common::place::{self, lab, spec};
use common::skip::skip;
use common::{SOON, eventually};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};
use support::{dropped, peers_up};
use weft::control::request::{Attach, Request, Response};
use weft::io::netns::Netns;
use weft::lab::ping::Pinger;
use weft::lab::spec::{LabSpec, NetworkSpec};
use weft::lab::{Container, Lab, Stop};
use weft::names::forward::PATIENCE;

const GATEWAY: &str = "10.32.0.1";
const GATEWAY_V6: &str = "fd00:32::1";

fn usable() -> bool {
    if Command::new("dig").arg("-v").output().is_err() {
        common::skip::say("dig is not installed (bind9-dnsutils)");
        return false;
    }
    place::usable()
}

/// What `dig` was told.
#[derive(Debug, Default, PartialEq, Eq)]
struct Told {
    status: String,
    flags: String,
    /// Type and data of each answer, sorted.
    answers: Vec<String>,
    ttl: u32,
}

/// What a program says that runs in a namespace.
fn run(netns: &Netns, command: &mut Command) -> String {
    weft::lab::process::inside(netns, command).unwrap();
    String::from_utf8(command.output().unwrap().stdout).unwrap()
}

/// Runs `dig @SERVER LINE` in a namespace; `None` if nothing answered.
fn dig_at(netns: &Netns, server: &str, line: &str) -> Option<Told> {
    let mut command = Command::new("dig");
    command.arg(format!("@{server}")).args(["+tries=1", "+time=5", "+noall", "+comments", "+answer"]);
    command.args(line.split_whitespace());
    let mut told = Told::default();
    for line in run(netns, &mut command).lines() {
        if let Some((_, rest)) = line.split_once("status: ") {
            told.status = rest.split(',').next().unwrap().to_owned();
        } else if let Some(rest) = line.strip_prefix(";; flags: ") {
            told.flags = rest.split(';').next().unwrap().to_owned();
        } else if let [_, ttl, "IN", kind, data @ ..] = line.split_whitespace().collect::<Vec<_>>().as_slice()
            && !line.starts_with(';')
        {
            told.answers.push(format!("{kind} {}", data.join(" ")));
            told.ttl = told.ttl.max(ttl.parse().unwrap());
        }
    }
    told.answers.sort();
    (!told.status.is_empty()).then_some(told)
}

fn dig(container: &Container, line: &str) -> Told {
    dig_at(&container.netns, GATEWAY, line).unwrap_or_else(|| panic!("{}: dig {line}: no answer", container.name))
}

/// Waits until `dig LINE` is told these answers.
fn becomes(container: &Container, line: &str, answers: &[&str]) {
    eventually(&format!("dig {line}: {answers:?}"), || (dig(container, line).answers == answers).then_some(()));
}

/// Attaches a namespace to a network of host `h` with these names.
fn attach(lab: &Lab, h: usize, netns: &Netns, network: &str, name: &str, addresses: &[&str], names: &[&str]) {
    let target = weft::config::Target::Netns(place::path_of(netns));
    let request = Request::Attach(Attach {
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        ifname: Some(name.to_owned()),
        name: Some(name.to_owned()),
        names: names.iter().map(|&name| name.to_owned()).collect(),
        ..Attach::new(target, network)
    });
    let response = lab.host(h).control(&request).unwrap();
    assert!(matches!(response, Response::Attached(_)), "{response:?}");
}

fn said(lab: &Lab, h: usize, line: &str) -> String {
    weft(&lab.host(h).files.socket(), line).done()
}

fn pings(netns: &Netns, to: &str, size: usize) {
    let to: IpAddr = to.parse().unwrap();
    Pinger::open(netns, to, None).unwrap().until(size, SOON).unwrap();
}

#[test]
fn every_host_answers_at_the_service_address_and_nobody_else_does() {
    if !place::usable() {
        return;
    }
    if Command::new("ping").arg("-V").output().is_err() {
        skip!("ping is not installed");
    }
    let lab = lab(spec(2, 2));
    for (h, c) in [(1, 1), (2, 1)] {
        for (to, size) in [(GATEWAY, 56), (GATEWAY, 1472), (GATEWAY_V6, 56), (GATEWAY_V6, 1452)] {
            pings(&lab.container(h, c).netns, to, size);
        }
    }
    assert_eq!(support::status(&lab, 1).drops["service_refused"], 0);
    // It is not a place that is learned, or that another could have.
    assert!(!said(&lab, 1, "fdb").contains("0a:77:66"));
    let netns = Netns::create().unwrap();
    let line = |more: &str| format!("attach netns:{} --network lab {more}", place::path_of(&netns).display());
    let refused = weft(&lab.host(1).files.socket(), &line(&format!("--ip {GATEWAY}/16"))).refused();
    assert!(refused.contains("answered for") && refused.contains("choose another address"), "{refused}");
    let refused = weft(&lab.host(1).files.socket(), &line("--ip 10.32.9.9/16 --mac 0a:77:66:00:00:64")).refused();
    assert!(refused.contains("answered for"), "{refused}");

    // A container that takes it all the same finds that it is taken, and nobody else notices.
    let thief = lab.container(2, 2);
    place::inside(&thief.netns, |netlink| {
        let index = netlink.link("eth1").unwrap().unwrap().index;
        netlink.add_address(index, format!("{GATEWAY}/16").parse().unwrap(), true).unwrap();
    });
    let before = dropped(&lab, 2, "service_claimed");
    let victim = lab.container(2, 1);
    let from = thief.netns.run(|| UdpSocket::bind((GATEWAY.parse::<IpAddr>().unwrap(), 0)).unwrap()).unwrap();
    from.send_to(b"I am the gateway", (victim.v4, 9)).unwrap();
    eventually("the claim is refused", || (dropped(&lab, 2, "service_claimed") > before).then_some(()));
    pings(&victim.netns, GATEWAY, 56);
    pings(&lab.container(1, 1).netns, GATEWAY, 56);

    // There is no way out, and who tries is told.
    place::inside(&victim.netns, |netlink| {
        let index = netlink.link("eth1").unwrap().unwrap().index;
        netlink.add_default_route(GATEWAY.parse().unwrap(), index).unwrap();
        netlink.add_default_route(GATEWAY_V6.parse().unwrap(), index).unwrap();
    });
    for (to, what) in
        [("192.0.2.1", "Destination Net Unreachable"), ("2001:db8::1", "Destination unreachable: No route")]
    {
        let said = run(&victim.netns, Command::new("ping").args(["-c", "1", "-W", "10", to]));
        assert!(said.contains(what), "{said}");
    }
    assert!(dropped(&lab, 2, "no_egress") > 1);
}

#[test]
fn names_are_answered_in_their_network_on_every_host_as_dig_expects() {
    if !usable() {
        return;
    }
    let other = NetworkSpec { name: "other".into(), vni: 200, mtu: 1500, containers: 1 };
    let mut spec = spec(2, 1);
    spec.networks.push(other);
    // What is asked of the outside fails loudly here, where there is none.
    let extra_node = "resolvers = [\"192.0.2.1\"]".to_owned();
    let lab = lab(LabSpec { extra_node, ..spec });
    peers_up(&lab, 1, 1);
    let (here, there) = (Netns::create().unwrap(), Netns::create().unwrap());
    attach(&lab, 1, &here, "lab", "web-1", &["10.32.5.1/16", "fd00:32::5:1/64"], &["web", "www"]);
    attach(&lab, 2, &there, "lab", "web-2", &["10.32.5.2/16"], &["web", "db"]);
    let asker = lab.container(1, 1);
    for (h, server) in [(1, GATEWAY), (2, GATEWAY), (1, GATEWAY_V6), (2, GATEWAY_V6)] {
        let netns = &lab.container(h, 1).netns;
        eventually("both instances are known", || {
            let told = dig_at(netns, server, "web.lab.weft A").unwrap();
            (told.answers == ["A 10.32.5.1", "A 10.32.5.2"]).then_some(())
        });
        let told = dig_at(netns, server, "+tcp web.lab.weft A").unwrap();
        assert_eq!((told.status.as_str(), told.answers.len()), ("NOERROR", 2), "by TCP");
        assert!(told.flags.contains("aa") && told.ttl <= 5, "{told:?}");
    }
    for (line, status, answers) in [
        ("web.lab.weft AAAA", "NOERROR", vec!["AAAA fd00:32::5:1"]),
        ("WWW.Lab.Weft A", "NOERROR", vec!["A 10.32.5.1"]),
        ("web A", "NOERROR", vec!["A 10.32.5.1", "A 10.32.5.2"]),
        ("db.lab.weft AAAA", "NOERROR", vec![]),
        ("nobody.lab.weft A", "NXDOMAIN", vec![]),
        ("-x 10.32.5.9", "NXDOMAIN", vec![]),
    ] {
        let told = dig(asker, line);
        assert_eq!(
            (told.status.as_str(), told.answers),
            (status, answers.iter().map(|&a| a.to_owned()).collect()),
            "{line}"
        );
    }
    assert_eq!(dig(asker, "-x 10.32.5.2").answers, ["PTR db.lab.weft.", "PTR web.lab.weft."]);
    assert_eq!(dig(asker, "-x fd00:32::5:1").answers, ["PTR web.lab.weft.", "PTR www.lab.weft."]);
    said(&lab, 2, "names add db --network lab --srv postgres:5432/tcp");
    becomes(asker, "_postgres._tcp.db.lab.weft SRV", &["SRV 0 0 5432 db.lab.weft."]);

    // Another network is another world, and knows its own.
    let stranger = lab.containers_of("other")[0];
    assert_eq!(dig(stranger, "web.other.weft A").status, "NXDOMAIN");
    let told = dig(stranger, "web.lab.weft A");
    assert!(told.answers.is_empty() && told.status != "NOERROR", "{told:?}");
    let elsewhere = Netns::create().unwrap();
    attach(&lab, 1, &elsewhere, "other", "web-3", &["10.32.5.3/16"], &["web"]);
    becomes(stranger, "web.other.weft A", &["A 10.32.5.3"]);
    becomes(asker, "web.lab.weft A", &["A 10.32.5.1", "A 10.32.5.2"]);

    // Fifty answers do not fit: dig asks again by TCP.
    for n in 1..=50 {
        let netns = if n % 2 == 0 { &here } else { &there };
        let (name, address) = (format!("many-{n}"), format!("10.32.7.{n}/16"));
        attach(&lab, 2 - (n + 1) % 2, netns, "lab", &name, &[&address], &["many"]);
    }
    eventually("all fifty", || (dig(asker, "many.lab.weft A").answers.len() == 50).then_some(()));
    let whole = dig(asker, "+ignore +noedns many.lab.weft A");
    assert!(whole.flags.contains("tc"), "{whole:?}");
    assert!(!dig(asker, "+ignore +bufsize=1232 many.lab.weft A").flags.contains("tc"), "with EDNS fifty fit");
}

#[test]
fn a_name_is_gone_within_a_second_of_its_container_and_with_its_host() {
    if !usable() {
        return;
    }
    let mut lab = lab(spec(2, 1));
    peers_up(&lab, 1, 1);
    let netns = Netns::create().unwrap();
    attach(&lab, 2, &netns, "lab", "web", &["10.32.5.2/16"], &["web"]);
    becomes(lab.container(1, 1), "web.lab.weft A", &["A 10.32.5.2"]);
    let stopped = Instant::now();
    said(&lab, 2, "detach web");
    eventually("the name is gone", || {
        (dig(lab.container(1, 1), "web.lab.weft A").status == "NXDOMAIN").then_some(())
    });
    assert!(stopped.elapsed() < Duration::from_millis(1500), "it took {:?}", stopped.elapsed());

    attach(&lab, 2, &netns, "lab", "web", &["10.32.5.2/16"], &["web"]);
    becomes(lab.container(1, 1), "web.lab.weft A", &["A 10.32.5.2"]);
    lab.kill_daemon(2, libc::SIGKILL).unwrap();
    // The mesh has to notice; from then on it is gone at once.
    eventually("the host is known to be dead", || (support::peer(&lab, 1, "h2").alive == Some(false)).then_some(()));
    let noticed = Instant::now();
    eventually("the name of a dead host is gone", || {
        (dig(lab.container(1, 1), "web.lab.weft A").status == "NXDOMAIN").then_some(())
    });
    assert!(noticed.elapsed() < Duration::from_secs(1), "it took {:?}", noticed.elapsed());
    let names = said(&lab, 1, "names");
    assert!(!names.contains("10.32.5.2"), "{names}");
    lab.start_daemon(2, &Stop::default()).unwrap();
    becomes(lab.container(1, 1), "web.lab.weft A", &["A 10.32.5.2"]);
}

#[test]
fn of_the_containers_with_one_name_those_on_the_askers_host_come_first_if_wanted() {
    if !usable() {
        return;
    }
    let lab = lab(LabSpec { network_config: "dns_local_first = true".to_owned(), ..spec(2, 1) });
    let netns = Netns::create().unwrap();
    for (h, n) in [(1, 1), (2, 2), (2, 3)] {
        attach(&lab, h, &netns, "lab", &format!("web-{n}"), &[&format!("10.32.5.{n}/16")], &["web"]);
    }
    for (h, own) in [(1, &["10.32.5.1"][..]), (2, &["10.32.5.2", "10.32.5.3"])] {
        let asker = lab.container(h, 1);
        becomes(asker, "web.lab.weft A", &["A 10.32.5.1", "A 10.32.5.2", "A 10.32.5.3"]);
        // By chance it would be so one time in three.
        for _ in 0..12 {
            let mut dig = Command::new("dig");
            let said = run(&asker.netns, dig.args([&format!("@{GATEWAY}"), "+short", "web.lab.weft", "A"]));
            let answers: Vec<&str> = said.lines().collect();
            let first = answers.get(..own.len()).unwrap_or_default();
            let are_own = first.iter().all(|answer| own.contains(answer));
            assert!(answers.len() == 3 && are_own, "on host {h}: {answers:?}");
        }
    }
}

#[test]
fn two_thousand_questions_a_second_are_all_answered() {
    if !place::usable() {
        return;
    }
    if Command::new("dnsperf").arg("-h").output().is_err() {
        skip!("dnsperf is not installed");
    }
    let lab = lab(spec(2, 1));
    let netns = Netns::create().unwrap();
    let mut questions = String::new();
    for h in 1..=2 {
        let (port, address) = (format!("web-{h}"), format!("10.32.5.{h}/16"));
        let names: Vec<String> = (0..16).map(|n| format!("{port}-{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        attach(&lab, h, &netns, "lab", &port, &[&address], &names);
        // Each has no address of IPv6, which is an answer too.
        questions.extend(names.iter().map(|name| format!("{name}.lab.weft A\n{name}.lab.weft AAAA\n")));
        questions.push_str(&format!("{h}.5.32.10.in-addr.arpa PTR\n"));
    }
    let asker = lab.container(1, 1);
    eventually("the other host's are known", || said(&lab, 1, "names").contains("web-2-15").then_some(()));
    let file = lab.dir().join("questions");
    std::fs::write(&file, questions).unwrap();
    let mut dnsperf = Command::new("dnsperf");
    dnsperf.args(["-s", GATEWAY, "-Q", "2000", "-l", "3", "-d"]).arg(&file);
    let said = run(&asker.netns, &mut dnsperf);
    let told = |what: &str| said.lines().find_map(|line| line.trim().strip_prefix(what)).unwrap_or_default().trim();
    let sent = told("Queries sent:");
    assert!(sent.parse::<u32>().is_ok_and(|sent| sent > 1000), "{said}");
    assert_eq!(told("Queries completed:"), format!("{sent} (100.00%)"), "{said}");
    assert_eq!(told("Queries lost:"), "0 (0.00%)", "{said}");
    assert_eq!(told("Response codes:"), format!("NOERROR {sent} (100.00%)"), "{said}");
    assert_eq!(dropped(&lab, 1, "service_queue_full"), 0);
}

/// A resolver of the outside in a namespace: says 192.0.2.7 to everything, cut short by UDP if the question begins with `long`.
struct Resolver {
    port: u16,
    asked: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
}

impl Resolver {
    fn start(netns: &Netns) -> Self {
        let bind = || {
            let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let udp = UdpSocket::bind(tcp.local_addr().unwrap()).unwrap();
            (tcp, udp)
        };
        place::inside(netns, |netlink| {
            let lo = netlink.link("lo").unwrap().unwrap().index;
            netlink.set_up(lo).unwrap();
        });
        let (tcp, udp) = netns.run(bind).unwrap();
        let port = tcp.local_addr().unwrap().port();
        let (asked, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        udp.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        tcp.set_nonblocking(true).unwrap();
        let (count, end) = (asked.clone(), stop.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while !end.load(Relaxed) {
                if let Ok((length, from)) = udp.recv_from(&mut buffer) {
                    count.fetch_add(1, Relaxed);
                    udp.send_to(&outside_answer(&buffer[..length], buffer[13..].starts_with(b"long")), from).unwrap();
                }
                let Ok((mut stream, _)) = tcp.accept() else { continue };
                stream.set_nonblocking(false).unwrap();
                let mut length = [0; 2];
                stream.read_exact(&mut length).unwrap();
                let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
                stream.read_exact(&mut query).unwrap();
                let answer = outside_answer(&query, false);
                stream.write_all(&(answer.len() as u16).to_be_bytes()).unwrap();
                stream.write_all(&answer).unwrap();
            }
        });
        Self { port, asked, stop }
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

/// The question with an answer behind it: A 192.0.2.7, for a minute.
fn outside_answer(query: &[u8], truncated: bool) -> Vec<u8> {
    let name = query[12..].iter().position(|&byte| byte == 0).unwrap() + 13;
    let mut answer = query[..name + 4].to_vec();
    answer[2..4].copy_from_slice(&[if truncated { 0x83 } else { 0x81 }, 0x80]);
    answer[4..12].copy_from_slice(&[0, 1, 0, u8::from(!truncated), 0, 0, 0, 0]);
    if !truncated {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 7]);
    }
    answer
}

#[test]
fn other_names_are_asked_of_the_resolvers_unless_the_network_is_to_itself() {
    if !usable() {
        return;
    }
    let mut spec = spec(1, 1);
    for (name, vni) in [("inside", 200), ("silent", 300)] {
        spec.networks.push(NetworkSpec { name: name.into(), vni, mtu: 1500, containers: 1 });
    }
    let mut lab = Lab::lay(spec).unwrap();
    let (first, resolver) = (Resolver::start(&lab.host(1).netns), Resolver::start(&lab.host(1).netns));
    let path = lab.host(1).files.config();
    let own = |resolver: &Resolver| format!("resolvers = [\"127.0.0.1:{}\"]\n", resolver.port);
    let text = std::fs::read_to_string(&path).unwrap().replace("[node]\n", &format!("[node]\n{}", own(&first)));
    std::fs::write(&path, &text).unwrap();
    lab.start_daemons(&Stop::default()).unwrap();
    lab.attach_all().unwrap();
    let container = lab.containers_of("lab")[0];
    // The very first question is answered, and the first one after a reload by whom the file says then.
    assert_eq!(dig(container, "www.example.org A").answers, ["A 192.0.2.7"]);
    assert_eq!((first.asked.load(Relaxed), resolver.asked.load(Relaxed)), (1, 0));
    let text = text.replace(&own(&first), &own(&resolver));
    let text = text.replace("name = \"inside\"\n", "name = \"inside\"\ndns = \"refuse\"\n");
    let text = text.replace("name = \"silent\"\n", "name = \"silent\"\ndns = \"off\"\n");
    std::fs::write(&path, text).unwrap();
    said(&lab, 1, "reload");

    assert_eq!(dig(container, "www.example.org A").answers, ["A 192.0.2.7"]);
    assert_eq!((first.asked.load(Relaxed), resolver.asked.load(Relaxed)), (1, 1));
    let told = dig(container, "example.com A");
    assert_eq!((told.status.as_str(), told.answers.len()), ("NOERROR", 1), "{told:?}");
    assert!(!told.flags.contains("aa"), "{told:?}");
    // It is remembered for a while.
    let before = resolver.asked.load(Relaxed);
    dig(container, "example.com A");
    assert_eq!(resolver.asked.load(Relaxed), before);
    eventually("status counts it", || said(&lab, 1, "status").contains("1 cached").then_some(()));
    for transport in ["", "+tcp"] {
        assert_eq!(
            dig(container, &format!("{transport} long{}.example A", transport.len())).answers,
            ["A 192.0.2.7"]
        );
    }
    // Our own domain is nobody else's business.
    let before = resolver.asked.load(Relaxed);
    assert_eq!(dig(container, "nobody.lab.weft A").status, "NXDOMAIN");
    assert_eq!(dig(lab.containers_of("inside")[0], "example.net A").status, "REFUSED");
    assert_eq!(dig(lab.containers_of("inside")[0], "nobody.inside.weft A").status, "NXDOMAIN");
    assert_eq!(resolver.asked.load(Relaxed), before);
    let silent = &lab.containers_of("silent")[0].netns;
    assert_eq!(dig_at(silent, GATEWAY, "+time=1 example.net A"), None);
    pings(silent, GATEWAY, 56);
}

#[test]
fn a_resolver_that_is_silent_costs_the_first_question_a_little_and_one_without_a_way_none() {
    if !usable() {
        return;
    }
    let lab = lab(spec(1, 1));
    let (host, container) = (lab.host(1), lab.container(1, 1));
    let working = Resolver::start(&host.netns);
    let silent = host.netns.run(|| UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
    silent.set_nonblocking(true).unwrap();
    let text = std::fs::read_to_string(host.files.config()).unwrap();
    let reload_with = |others: &str| {
        let resolvers = format!("[node]\nresolvers = [{others}, \"127.0.0.1:{}\"]\n", working.port);
        std::fs::write(host.files.config(), text.replace("[node]\n", &resolvers)).unwrap();
        said(&lab, 1, "reload");
    };
    let ask = |name: &str| {
        let begun = Instant::now();
        assert_eq!(dig(container, &format!("{name} A")).answers, ["A 192.0.2.7"], "{name}");
        begun.elapsed()
    };

    reload_with(&format!("\"{}\"", silent.local_addr().unwrap()));
    // Before a C library would ask again.
    let took = ask("one.example.org");
    assert!((PATIENCE..Duration::from_secs(5)).contains(&took), "it took {took:?}");
    silent.recv(&mut [0; 512]).expect("the silent one was asked");
    let took = ask("two.example.org");
    assert!(took < PATIENCE, "it took {took:?}");
    assert!(silent.recv(&mut [0; 512]).is_err(), "the silent one was asked again");

    // The host has a route to its neighbours only.
    reload_with("\"203.0.113.1\", \"2001:db8:1::1\"");
    let took = ask("three.example.org");
    assert!(took < PATIENCE, "it took {took:?}");
}

#[test]
fn what_is_no_question_hurts_nobody() {
    if !usable() {
        return;
    }
    let lab = lab(spec(1, 2));
    let container = lab.container(1, 1);
    let socket = container.netns.run(|| UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
    let mut bytes = vec![0u8; 600];
    for n in 0..3000_usize {
        bytes.iter_mut().enumerate().for_each(|(at, byte)| *byte = (n * 31 + at * (n % 7)) as u8);
        socket.send_to(&bytes[..n % 600], (GATEWAY.parse::<IpAddr>().unwrap(), 53)).unwrap();
    }
    let neighbour = lab.container(1, 2);
    assert_eq!(dig(neighbour, "nobody.lab.weft A").status, "NXDOMAIN");
    pings(&neighbour.netns, GATEWAY, 56);
}
