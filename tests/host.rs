//! The host in networks: `weft expose` with and without masquerading, `weft publish` from outside, from the host and by 127.0.0.1, to
//! instances here and elsewhere, while instances die, rules are flushed and the daemon is restarted; and that nothing is left.

#![allow(clippy::unwrap_used)]

mod common;

use common::cli::weft;
use common::eventually;
use common::place::{self, Sleeper, inside, lab, spec};
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use weft::control::exposures::Record;
use weft::control::request::{Outside, PortStatus, Status};
use weft::io::netlink::Netlink;
use weft::io::netns::Netns;
use weft::io::store::Store;
use weft::lab::ping::Pinger;
use weft::lab::spec::LabSpec;
use weft::lab::{Lab, Stop};

/// The network all of it is about, with its service address at its beginning.
const BLUE: &str = "\n[[network]]\nname = \"blue\"\nvni = 200\nsubnets = [\"10.77.0.0/16\", \"fd77::/64\"]\n";
/// How long a try may take before the next.
const TRY: Duration = Duration::from_millis(500);
/// An address of the host towards the outside, and one out there.
const HOST: &str = "198.51.100.1";
const OUTSIDE: &str = "198.51.100.2";
const HOST_V6: &str = "2001:db8:51::1";
const OUTSIDE_V6: &str = "2001:db8:51::2";

fn socket(lab: &Lab, h: usize) -> PathBuf {
    lab.host(h).files.socket()
}

fn outside(lab: &Lab, h: usize) -> Outside {
    weft(&socket(lab, h), "published --json").json()
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// What nft shows of a namespace; `None` without nft.
fn ruleset(netns: &Netns) -> Option<String> {
    let output = netns.run(|| Command::new("nft").args(["list", "ruleset"]).output()).unwrap().ok()?;
    assert!(output.status.success(), "{output:?}");
    Some(String::from_utf8(output.stdout).unwrap())
}

fn nft(netns: &Netns, line: &str) {
    let output = netns.run(|| Command::new("nft").args(line.split(' ')).output()).unwrap().unwrap();
    assert!(output.status.success(), "nft {line}: {output:?}");
}

fn switch(netns: &Netns, name: &str) -> String {
    let read = || std::fs::read_to_string(format!("/proc/sys/net/{name}")).unwrap();
    netns.run(read).unwrap().trim().to_owned()
}

/// Whether the tests can run, and why not.
fn usable() -> bool {
    if !place::usable() {
        return false;
    }
    let answer = Command::new("nft").arg("--version").output();
    let found = answer.is_ok_and(|output| output.status.success());
    if !found {
        common::skip::say("there is no nft (package nftables)");
    }
    found
}

/// A namespace with a link to a host of the lab: the world outside of the mesh.
fn world(lab: &Lab, h: usize) -> Netns {
    let world = Netns::create().unwrap();
    let add = |netlink: &mut Netlink, ifname: &str, v4: &str, v6: &str| {
        let index = netlink.link(ifname).unwrap().unwrap().index;
        for address in [format!("{v4}/24"), format!("{v6}/64")] {
            netlink.add_address(index, address.parse().unwrap(), true).unwrap();
        }
        netlink.set_up(index).unwrap();
    };
    inside(&lab.host(h).netns, |netlink| {
        netlink.add_veth("out", "in", Some(&world)).unwrap();
        add(netlink, "out", HOST, HOST_V6);
    });
    inside(&world, |netlink| add(netlink, "in", OUTSIDE, OUTSIDE_V6));
    world
}

/// A container in blue, called NAME; its default route is the service address.
fn container(lab: &Lab, h: usize, name: &str, address: &str) -> Sleeper {
    let sleeper = Sleeper::new();
    let (prefix, gateway) = if address.contains(':') { (64, "fd77::1") } else { (16, "10.77.0.1") };
    let line = format!(
        "attach pid:{} --network blue --ip {address}/{prefix}@{gateway} --name {name}:eth1 --dns-name {name}",
        sleeper.pid()
    );
    weft(&socket(lab, h), &line).done();
    sleeper
}

/// A server of a namespace that says its name to whoever asks; ends when it is dropped.
struct Server {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Server {
    /// By TCP and UDP, on this port, of IPv4 and IPv6.
    fn start(netns: &Netns, port: u16, says: &'static str) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let tcp = netns.run(|| TcpListener::bind(("::", port)).unwrap()).unwrap();
        let udp = netns.run(|| UdpSocket::bind(("::", port)).unwrap()).unwrap();
        tcp.set_nonblocking(true).unwrap();
        udp.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let (of_tcp, of_udp) = (over.clone(), over.clone());
        let by_tcp = move || {
            while !of_tcp.load(Relaxed) {
                match tcp.accept() {
                    Ok((mut stream, from)) => {
                        let _ = stream.write_all(format!("{says} {}", from.ip().to_canonical()).as_bytes());
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(5)),
                }
            }
        };
        let by_udp = move || {
            let mut buffer = [0; 64];
            while !of_udp.load(Relaxed) {
                if let Ok((_, from)) = udp.recv_from(&mut buffer) {
                    let _ = udp.send_to(format!("{says} {}", from.ip().to_canonical()).as_bytes(), from);
                }
            }
        };
        Self { over, threads: vec![std::thread::spawn(by_tcp), std::thread::spawn(by_udp)] }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.over.store(true, Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
    }
}

/// Asks by TCP, once: who answered and whom it took us for.
fn try_tcp(netns: &Netns, to: SocketAddr) -> Option<String> {
    netns
        .run(|| {
            let mut stream = TcpStream::connect_timeout(&to, TRY).ok()?;
            stream.set_read_timeout(Some(TRY)).unwrap();
            let mut said = String::new();
            stream.read_to_string(&mut said).ok().filter(|&length| length > 0)?;
            Some(said)
        })
        .unwrap()
}

fn tcp(netns: &Netns, to: &str) -> String {
    eventually(to, || try_tcp(netns, address(to)))
}

/// A UDP client that keeps its port.
struct Client(UdpSocket, SocketAddr);

impl Client {
    fn new(netns: &Netns, to: &str) -> Self {
        let to = address(to);
        let own = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = netns.run(|| UdpSocket::bind(own).unwrap()).unwrap();
        socket.set_read_timeout(Some(TRY)).unwrap();
        Self(socket, to)
    }

    fn ask(&self) -> Option<String> {
        self.0.send_to(b"?", self.1).ok()?;
        let mut buffer = [0; 64];
        let (length, _) = self.0.recv_from(&mut buffer).ok()?;
        Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
    }
}

fn who(said: &str) -> &str {
    said.split(' ').next().unwrap()
}

/// How many instances of a published port are on a host's disk. What the daemon has open is read in a copy; one that was made in the
/// middle of a change is none.
fn remembered(lab: &Lab, h: usize, port: &str) -> usize {
    let copy = lab.dir().join("state-copied");
    std::fs::create_dir_all(&copy).unwrap();
    std::fs::copy(lab.host(h).files.state().join("state.redb"), copy.join("state.redb")).unwrap();
    let records = Store::open(&copy).map(|mut store| store.take_host()).unwrap_or_default();
    std::fs::remove_dir_all(&copy).unwrap();
    let instances = records.iter().find_map(|record| match record {
        Record::Instances(instances) => instances.get(port),
        _ => None,
    });
    instances.map_or(0, Vec::len)
}

/// Asks at this address by TCP and UDP until both instances have answered by either, each having been asked by `seen_as`.
fn both_answer(from: &Netns, to: &str, tcp: u16, udp: u16, seen_as: &str) {
    let to: IpAddr = to.parse().unwrap();
    let mut heard = Vec::new();
    eventually(&format!("both by TCP at {to}"), || {
        heard.extend(try_tcp(from, SocketAddr::new(to, tcp)));
        ["one", "two"].iter().all(|name| heard.iter().any(|said| who(said) == *name)).then_some(())
    });
    let client = || Client::new(from, &SocketAddr::new(to, udp).to_string()).ask();
    for name in ["one", "two"] {
        heard.push(eventually(&format!("{name} by UDP at {to}"), || client().filter(|said| who(said) == name)));
    }
    assert!(heard.iter().all(|said| said.ends_with(&format!(" {seen_as}"))), "{heard:?}");
}

fn blue(hosts: usize) -> Lab {
    lab(LabSpec { extra_config: BLUE.to_owned(), ..spec(hosts, 0) })
}

fn ping(from: &Netns, to: &str) {
    let to: IpAddr = to.parse().unwrap();
    Pinger::open(from, to, None).unwrap().until(56, common::SOON).unwrap();
}

#[test]
fn an_exposed_network_is_reached_from_the_host_and_its_containers_reach_the_outside_if_asked() {
    if !usable() {
        return;
    }
    let mut lab = blue(2);
    let (here, there) = (container(&lab, 1, "here", "10.77.0.5"), container(&lab, 2, "there", "10.77.0.6"));
    let world = world(&lab, 1);
    let host = lab.host(1).netns.try_clone().unwrap();
    let forwarding = switch(&host, "ipv4/ip_forward");
    let said = weft(&socket(&lab, 1), "expose blue --ip 10.77.0.2/16 --ip fd77::2/64").done();
    assert!(said.contains("10.77.0.2/16, fd77::2/64") && said.contains("weft-blue"), "{said}");
    for container in ["10.77.0.5", "10.77.0.6"] {
        ping(&host, container);
    }
    ping(&there.netns(), "10.77.0.2");

    // That a host is in a network is no way out of it.
    assert!(Pinger::open(&here.netns(), OUTSIDE.parse().unwrap(), None).unwrap().until(56, TRY).is_err());
    let server = Server::start(&world, 9000, "world");
    weft(&socket(&lab, 1), "expose blue --masquerade").done();
    assert_eq!(outside(&lab, 1).exposed.iter().map(|one| one.masquerade).collect::<Vec<_>>(), [true]);
    ping(&here.netns(), OUTSIDE);
    assert_eq!(tcp(&here.netns(), &format!("{OUTSIDE}:9000")), format!("world {HOST}"));
    let asked = || Client::new(&here.netns(), &format!("{OUTSIDE}:9000")).ask();
    assert_eq!(eventually("an answer", asked), format!("world {HOST}"));
    assert_eq!(switch(&host, "ipv4/ip_forward"), "1");
    // No container is this host's router, and a way out is no way in: a neighbour that sends by this host reaches itself only.
    assert_eq!(switch(&host, "ipv6/conf/weft-blue/accept_ra"), "0");
    inside(&world, |netlink| {
        let index = netlink.link("in").unwrap().unwrap().index;
        netlink.add_route(Some("10.77.0.0/16".parse().unwrap()), HOST.parse().unwrap(), index).unwrap();
    });
    ping(&world, "10.77.0.2");
    let inner = Server::start(&here.netns(), 9001, "here");
    assert_eq!(who(&tcp(&host, "10.77.0.5:9001")), "here");
    assert!(try_tcp(&world, address("10.77.0.5:9001")).is_none());
    assert!(Pinger::open(&world, "10.77.0.5".parse().unwrap(), None).unwrap().until(56, TRY).is_err());
    drop(inner);
    // What others reach is theirs: the other host is no way out.
    assert!(try_tcp(&there.netns(), address(&format!("{OUTSIDE}:9000"))).is_none());
    // Again it is the same, and a restart changes nothing.
    let rules = ruleset(&host).unwrap();
    weft(&socket(&lab, 1), "expose blue --masquerade").done();
    lab.kill_daemon(1, libc::SIGKILL).unwrap();
    assert_eq!(ruleset(&host).unwrap(), rules);
    lab.start_daemon(1, &Stop::default()).unwrap();
    assert_eq!(tcp(&here.netns(), &format!("{OUTSIDE}:9000")), format!("world {HOST}"));
    assert_eq!(ruleset(&host).unwrap(), rules);
    drop(server);

    weft(&socket(&lab, 1), "hide blue").done();
    assert_eq!(ruleset(&host).unwrap(), "");
    assert_eq!(place::links(&host), ["eth0", "lo", "out"]);
    assert_eq!(switch(&host, "ipv4/ip_forward"), forwarding);
    assert!(weft(&socket(&lab, 1), "hide blue").done().contains("not exposed"));
    assert_eq!(outside(&lab, 1), Outside::default());
    let log = std::fs::read_to_string(lab.host(1).files.log()).unwrap();
    assert!(!log.contains("stays changed"), "{log}");
}

#[test]
fn a_published_port_leads_to_containers_here_and_elsewhere() {
    if !usable() {
        return;
    }
    let mut lab = blue(2);
    let one = container(&lab, 1, "web", "10.77.0.5");
    let two = container(&lab, 2, "web", "10.77.0.6");
    let (world, host) = (world(&lab, 1), lab.host(1).netns.try_clone().unwrap());
    let servers = [Server::start(&one.netns(), 80, "one"), Server::start(&two.netns(), 80, "two")];
    let forwarding = switch(&host, "ipv4/ip_forward");
    weft(&socket(&lab, 1), "expose blue --ip 10.77.0.2/16").done();
    weft(&socket(&lab, 1), "publish 8080:web:80 --network blue").done();
    weft(&socket(&lab, 1), "publish 5353:web:80/udp --network blue").done();
    weft(&socket(&lab, 1), "publish 127.0.0.1:8081:10.77.0.6:80 --network blue").done();
    eventually("both are known", || (outside(&lab, 1).published[0].instances.len() == 2).then_some(()));

    // The host forwards for that, and is nobody's way out for it: neither of its own containers' nor of another host's.
    let route = |netns: &Netns, to: &str, via: &str, ifname: &str| {
        inside(netns, |netlink| {
            let index = netlink.link(ifname).unwrap().unwrap().index;
            netlink.add_route(Some(to.parse().unwrap()), via.parse().unwrap(), index).unwrap();
        });
    };
    route(&world, "10.77.0.0/16", HOST, "in");
    let beyond = Server::start(&world, 9000, "world");
    for container in [&one, &two] {
        route(&container.netns(), &format!("{OUTSIDE}/32"), "10.77.0.2", "eth1");
        assert!(try_tcp(&container.netns(), address(&format!("{OUTSIDE}:9000"))).is_none());
    }
    drop(beyond);

    // From outside, from the host, by its own address and by 127.0.0.1: each in turn.
    for (from, to) in [(&world, HOST), (&host, HOST), (&host, "127.0.0.1"), (&host, "10.77.0.2")] {
        both_answer(from, to, 8080, 5353, "10.77.0.2");
    }
    // A container of the network, by the host's address in it.
    assert!(["one", "two"].contains(&who(&tcp(&one.netns(), "10.77.0.2:8080"))));
    assert_eq!(who(&tcp(&host, "127.0.0.1:8081")), "two");
    assert!(try_tcp(&world, address(&format!("{HOST}:8081"))).is_none());
    // 127.0.0.1 of the host stays its own.
    let own = host.run(|| TcpListener::bind("127.0.0.1:7000").unwrap()).unwrap();
    let to_host = |netlink: &mut Netlink| {
        let index = netlink.link("eth1").unwrap().unwrap().index;
        netlink.add_route(Some("127.0.0.0/8".parse().unwrap()), "10.77.0.2".parse().unwrap(), index)
    };
    let routed = inside(&one.netns(), |netlink| to_host(netlink).is_ok());
    if routed {
        assert!(try_tcp(&one.netns(), address("127.0.0.1:7000")).is_none());
    }
    drop(own);

    // What is taken is refused by name.
    let own = host.run(|| TcpListener::bind("0.0.0.0:7001").unwrap()).unwrap();
    let said = weft(&socket(&lab, 1), "publish 7001:web:80 --network blue").refused();
    assert!(said.contains("7001/tcp") && said.contains(&format!("(pid {})", std::process::id())), "{said}");
    drop(own);
    let said = weft(&socket(&lab, 1), "publish 8080:db:80 --network blue").refused();
    assert!(said.contains("web:80 of network blue"), "{said}");
    assert!(host.run(|| TcpListener::bind("0.0.0.0:8080")).unwrap().is_err(), "others are kept off");

    // A connection to the other host outlives the daemon here, which begins with knowing nobody.
    weft(&socket(&lab, 1), "publish 9090:web:81 --network blue").done();
    let listener = two.netns().run(|| TcpListener::bind("0.0.0.0:81")).unwrap().unwrap();
    let echo = std::thread::spawn(move || {
        let sends_back = |stream: TcpStream| std::io::copy(&mut stream.try_clone().unwrap(), &mut &stream);
        // Probes say nothing.
        while sends_back(listener.accept().unwrap().0).unwrap_or(0) == 0 {}
    });
    let connect = || world.run(|| TcpStream::connect_timeout(&address(&format!("{HOST}:9090")), TRY)).unwrap().ok();
    let mut stream = eventually("a connection to two", connect);
    stream.set_read_timeout(Some(common::SOON)).unwrap();
    let mut exchange = || {
        stream.write_all(b"?").unwrap();
        stream.read_exact(&mut [0]).unwrap();
    };
    exchange();
    eventually("who is behind it is on the disk", || (remembered(&lab, 1, "9090/tcp") == 2).then_some(()));
    lab.kill_daemon(1, libc::SIGKILL).unwrap();
    lab.start_daemon(1, &Stop::default()).unwrap();
    for _ in 0..30 {
        exchange();
        std::thread::sleep(Duration::from_millis(100));
    }
    drop(stream);
    echo.join().unwrap();

    let said = weft(&socket(&lab, 1), "hide blue").refused();
    assert!(said.contains("unpublish") && said.contains("8080/tcp"), "{said}");
    for port in ["8080", "5353/udp", "127.0.0.1:8081", "9090"] {
        weft(&socket(&lab, 1), &format!("unpublish {port}")).done();
    }
    assert!(try_tcp(&world, address(&format!("{HOST}:8080"))).is_none());
    host.run(|| TcpListener::bind("0.0.0.0:8080").unwrap()).unwrap();
    weft(&socket(&lab, 1), "hide blue").done();
    assert_eq!((ruleset(&host).unwrap(), switch(&host, "ipv4/ip_forward")), (String::new(), forwarding));
    drop(servers);
}

#[test]
fn by_ipv6_published_ports_lead_to_containers_and_containers_reach_the_outside() {
    if !usable() {
        return;
    }
    let lab = blue(2);
    let (one, two) = (container(&lab, 1, "web", "fd77::5"), container(&lab, 2, "web", "fd77::6"));
    let (world, host) = (world(&lab, 1), lab.host(1).netns.try_clone().unwrap());
    let servers = [Server::start(&one.netns(), 80, "one"), Server::start(&two.netns(), 80, "two")];
    let forwarding = switch(&host, "ipv6/conf/all/forwarding");
    weft(&socket(&lab, 1), "expose blue --ip fd77::2/64").done();
    // At any address of the host, and at one.
    let published =
        ["8080", "5353/udp", &format!("[{HOST_V6}]:8081"), &format!("[{HOST_V6}]:5354/udp")].map(str::to_owned);
    for port in &published {
        let (host_port, proto) = port.split_once('/').unwrap_or((port, "tcp"));
        weft(&socket(&lab, 1), &format!("publish {host_port}:web:80/{proto} --network blue")).done();
    }
    eventually("both are known", || {
        outside(&lab, 1).published.iter().all(|one| one.instances.len() == 2).then_some(())
    });
    for (from, to) in [(&world, HOST_V6), (&host, HOST_V6), (&host, "fd77::2")] {
        both_answer(from, to, 8080, 5353, "fd77::2");
    }
    for from in [&world, &host] {
        both_answer(from, HOST_V6, 8081, 5354, "fd77::2");
    }
    assert!(try_tcp(&host, address("[fd77::2]:8081")).is_none());
    assert!(try_tcp(&host, address("[::1]:8080")).is_none());
    assert!(["one", "two"].contains(&who(&tcp(&one.netns(), "[fd77::2]:8080"))));
    // There is no instance for who comes by IPv4.
    assert!(try_tcp(&world, address(&format!("{HOST}:8080"))).is_none());

    let out_there = Server::start(&world, 9000, "world");
    let to = format!("[{OUTSIDE_V6}]:9000");
    assert!(try_tcp(&one.netns(), address(&to)).is_none());
    weft(&socket(&lab, 1), "expose blue --masquerade").done();
    ping(&one.netns(), OUTSIDE_V6);
    assert_eq!(tcp(&one.netns(), &to), format!("world {HOST_V6}"));
    let asked = || Client::new(&one.netns(), &to).ask();
    assert_eq!(eventually("an answer", asked), format!("world {HOST_V6}"));
    assert_eq!(switch(&host, "ipv6/conf/all/forwarding"), "1");
    // The other host is no way out, and this one no way in.
    assert!(try_tcp(&two.netns(), address(&to)).is_none());
    inside(&world, |netlink| {
        let index = netlink.link("in").unwrap().unwrap().index;
        netlink.add_route(Some("fd77::/64".parse().unwrap()), HOST_V6.parse().unwrap(), index).unwrap();
    });
    ping(&world, "fd77::2");
    assert!(try_tcp(&world, address("[fd77::5]:80")).is_none());

    for port in &published {
        weft(&socket(&lab, 1), &format!("unpublish {port}")).done();
    }
    weft(&socket(&lab, 1), "hide blue").done();
    assert_eq!((ruleset(&host).unwrap(), switch(&host, "ipv6/conf/all/forwarding")), (String::new(), forwarding));
    drop((servers, out_there));
}

#[test]
fn an_instance_that_dies_is_replaced_by_another() {
    if !usable() {
        return;
    }
    let mut lab = blue(3);
    let one = container(&lab, 1, "web", "10.77.0.5");
    let two = container(&lab, 2, "web", "10.77.0.6");
    let three = container(&lab, 3, "web", "10.77.0.7");
    let world = world(&lab, 1);
    let of_one = Server::start(&one.netns(), 80, "one");
    let _of_two = Server::start(&two.netns(), 80, "two");
    let _of_three = Server::start(&three.netns(), 80, "three");
    weft(&socket(&lab, 1), "expose blue --ip 10.77.0.2/16").done();
    // A client that sends before the port is published is not left behind.
    let early = Client::new(&world, &format!("{HOST}:5353"));
    assert_eq!(early.ask(), None);
    weft(&socket(&lab, 1), "publish 8080:web:80 --network blue").done();
    weft(&socket(&lab, 1), "publish 5353:web:80/udp --network blue").done();
    eventually("an answer to the early one", || early.ask());

    // Its program ends: it is left out, and comes back.
    let control = socket(&lab, 1);
    let state = |instance: &str| {
        let all: Outside = weft(&control, "published --json").json();
        let tcp = all.published.iter().find(|one| one.publish.host_port == 8080).unwrap();
        let found = tcp.instances.iter().find(|one| one.address.to_string() == instance);
        found.map(|one| one.state.clone()).unwrap_or_default()
    };
    let ask_some = || (0..8).filter_map(|_| try_tcp(&world, address(&format!("{HOST}:8080")))).collect::<Vec<_>>();
    eventually("all three are used", || (state("10.77.0.7") == "used").then_some(()));
    drop(of_one);
    eventually("one is unhealthy", || (state("10.77.0.5") == "unhealthy").then_some(()));
    let heard = ask_some();
    assert!(heard.len() == 8 && heard.iter().all(|said| who(said) != "one"), "{heard:?}");
    let of_one = Server::start(&one.netns(), 80, "one");
    eventually("one is used again", || (state("10.77.0.5") == "used").then_some(()));

    // The container ends: a client that goes on sending from the same port finds another.
    let clients: Vec<Client> = (0..6).map(|_| Client::new(&world, &format!("{HOST}:5353"))).collect();
    let with_two: Vec<&Client> =
        clients.iter().filter(|client| client.ask().is_some_and(|said| who(&said) == "two")).collect();
    assert!(!with_two.is_empty());
    two.end();
    eventually("two is gone", || state("10.77.0.6").is_empty().then_some(()));
    for client in with_two {
        eventually("UDP goes on", || client.ask().filter(|said| who(said) != "two"));
    }

    // Its host ends.
    lab.kill_daemon(3, libc::SIGKILL).unwrap();
    eventually("three is gone", || state("10.77.0.7").is_empty().then_some(()));
    assert_eq!(who(&tcp(&world, &format!("{HOST}:8080"))), "one");
    drop(of_one);
}

#[test]
fn rules_that_somebody_flushes_come_back_and_a_restart_goes_on() {
    if !usable() {
        return;
    }
    let mut lab = blue(1);
    let web = container(&lab, 1, "web", "10.77.0.5");
    let _server = Server::start(&web.netns(), 80, "web");
    let (world, host) = (world(&lab, 1), lab.host(1).netns.try_clone().unwrap());
    weft(&socket(&lab, 1), "expose blue --ip 10.77.0.2/16").done();
    weft(&socket(&lab, 1), "publish 8080:web:80 --network blue").done();
    let to = format!("{HOST}:8080");
    assert_eq!(who(&tcp(&world, &to)), "web");
    eventually("the container is known", || ruleset(&host).filter(|rules| rules.contains("10.77.0.5")));
    let rules = ruleset(&host).unwrap();

    for harm in ["flush ruleset", "flush chain inet weft publish", "delete table inet weft"] {
        nft(&host, harm);
        let begun = Instant::now();
        eventually(harm, || (ruleset(&host).unwrap() == rules).then_some(()));
        assert!(begun.elapsed() < Duration::from_secs(10), "{harm}: {:?}", begun.elapsed());
        assert_eq!(who(&tcp(&world, &to)), "web");
    }
    // Others' tables are theirs, and one that drops what is forwarded is told of.
    nft(&host, "add table ip filter");
    nft(&host, "add chain ip filter FORWARD { type filter hook forward priority 0 ; policy drop ; }");
    let warned = |wanted: bool| {
        let status: Status = weft(&socket(&lab, 1), "status --json").json();
        let warning = status.warnings.into_iter().find(|warning| warning.contains("chain FORWARD"));
        (warning.is_some() == wanted).then_some(warning.unwrap_or_default())
    };
    let warning = eventually("a warning", || warned(true));
    assert!(warning.contains("iptables -I FORWARD -i weft-blue -j ACCEPT"), "{warning}");
    assert!(try_tcp(&world, address(&to)).is_none());
    nft(&host, "insert rule ip filter FORWARD iifname weft-blue accept");
    nft(&host, "insert rule ip filter FORWARD oifname weft-blue accept");
    eventually("no warning", || warned(false));
    assert_eq!(who(&tcp(&world, &to)), "web");
    nft(&host, "delete table ip filter");
    // What IPv6 needed goes back without it, though IPv4 is used still.
    weft(&socket(&lab, 1), "expose blue --masquerade").done();
    assert_eq!(switch(&host, "ipv6/conf/all/forwarding"), "1");
    weft(&socket(&lab, 1), "expose blue").done();
    assert_eq!([switch(&host, "ipv4/ip_forward"), switch(&host, "ipv6/conf/all/forwarding")], ["1", "0"]);

    // A network manager that does not know the interface takes its addresses, or switches it off.
    for harm in ["addr flush dev weft-blue", "link set weft-blue down"] {
        let output = host.run(|| Command::new("ip").args(harm.split(' ')).output()).unwrap().unwrap();
        assert!(output.status.success(), "ip {harm}: {output:?}");
        let begun = Instant::now();
        eventually(harm, || try_tcp(&world, address(&to)));
        assert!(begun.elapsed() < Duration::from_secs(10), "{harm}: {:?}", begun.elapsed());
    }

    // The rules stay while there is no daemon, and the next one takes them over.
    lab.kill_daemon(1, libc::SIGTERM).unwrap();
    assert_eq!(ruleset(&host).unwrap(), rules);
    lab.start_daemon(1, &Stop::default()).unwrap();
    assert_eq!(who(&tcp(&world, &to)), "web");
    let ports: Vec<PortStatus> = weft(&socket(&lab, 1), "ports --json").json();
    assert!(ports.iter().any(|port| port.name == "expose:blue" && port.state == "up"), "{ports:?}");
    // Flushed while there was none.
    lab.kill_daemon(1, libc::SIGKILL).unwrap();
    nft(&host, "flush ruleset");
    lab.start_daemon(1, &Stop::default()).unwrap();
    assert_eq!(who(&tcp(&world, &to)), "web");

    weft(&socket(&lab, 1), "unpublish 8080").done();
    weft(&socket(&lab, 1), "hide blue").done();
    assert_eq!(ruleset(&host).unwrap(), "");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(ruleset(&host).unwrap(), "", "it does not come back either");
}

#[test]
fn a_published_port_alone_exposes_its_network_with_an_address_of_the_slice_and_hides_it_again() {
    if !usable() {
        return;
    }
    let sliced = BLUE.replace("vni = 200", "vni = 200\nslice = [\"10.77.8.0/24\", \"fd77::800/120\"]");
    let lab = lab(LabSpec { extra_config: sliced, ..spec(1, 0) });
    let web = container(&lab, 1, "web", "10.77.0.5");
    let _server = Server::start(&web.netns(), 80, "web");
    let (world, host) = (world(&lab, 1), lab.host(1).netns.try_clone().unwrap());
    weft(&socket(&lab, 1), "publish 8080:web:80 --network blue").done();
    let exposed = outside(&lab, 1).exposed;
    assert!(exposed[0].addresses[0].cidr.to_string().starts_with("10.77.8."), "{exposed:?}");
    assert!(!exposed[0].asked_for);
    let said = tcp(&world, &format!("{HOST}:8080"));
    assert_eq!(said, format!("web {}", exposed[0].addresses[0].cidr.address));
    weft(&socket(&lab, 1), "unpublish 8080").done();
    assert_eq!((ruleset(&host).unwrap().as_str(), outside(&lab, 1)), ("", Outside::default()));
    assert_eq!(place::links(&host), ["eth0", "lo", "out"]);
}
