//! The wire is really standard: hosts that know nothing of weft take part with stock WireGuard (wireguard-go) and the
//! kernel's VXLAN device.
//!
//! A stock host is a host of the lab whose daemon is never started. It has the key that daemon would have, so that the
//! others' files name it right, and these interfaces:
//!
//! ```text
//!   eth0 ── wg…  MTU 1420, the tunnel address ── vxlan0  MTU 1370, 10.32.9.H/16, fd00:32::9:H/64
//! ```

#![allow(clippy::unwrap_used)]

mod common;
#[path = "common/frames.rs"]
mod frames;

use common::{cli, eventually, place, skip::skip};
use frames::{Sniffer, check_frame, v6};
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};
use weft::control::request::{PeerStatus, Request, Response};
use weft::io::netns::Netns;
use weft::lab::daemon::Files;
use weft::lab::ping::Pinger;
use weft::lab::{Host, Lab, Stop, datagrams, generator, process};
use weft::wire::fragment::{Outcome, Reassembler};
use weft::wire::key::{PublicKey, Secret};

/// Longer than it takes either side to notice that the other has forgotten it: KEEPALIVE_TIMEOUT + REKEY_TIMEOUT of the
/// WireGuard paper §6.1, and retries.
const PATIENCE: Duration = Duration::from_secs(40);
const BRIEF: Duration = Duration::from_millis(600);
const MEASURE: Duration = Duration::from_millis(500);
const VNI: &str = "100";

/// Why the stock side cannot be had here.
fn missing() -> Option<String> {
    for (program, arguments) in [("wireguard-go", &["--version"][..]), ("wg", &["--version"]), ("ip", &["-V"])] {
        let outcome = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
        if let Err(error) = outcome {
            return Some(format!("{program}: {error}: install wireguard-go, wireguard-tools and iproute2"));
        }
    }
    let netns = Netns::create().ok()?;
    let vxlan = inside(&netns, "ip", &["link", "add", "v", "type", "vxlan", "id", "1", "dstport", "4789"]).output();
    match vxlan {
        Ok(output) if output.status.success() => None,
        _ => Some("this kernel has no vxlan device".to_owned()),
    }
}

fn inside(netns: &Netns, program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    process::inside(netns, &mut command).unwrap();
    command
}

/// Runs a command that must succeed inside a namespace; returns what it printed.
#[track_caller]
fn run(netns: &Netns, line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let output = inside(netns, words[0], &words[1..]).output().unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {complaint}");
    String::from_utf8(output.stdout).unwrap()
}

/// How a stock host sees a member.
struct Member {
    public_key: PublicKey,
    endpoint: Option<Ipv4Addr>,
    preshared_key: Option<String>,
}

impl Member {
    fn at(host: &Host) -> Self {
        Self { public_key: host.public_key, endpoint: Some(host.v4), preshared_key: None }
    }

    /// One that is not known where to reach.
    fn somewhere(host: &Host) -> Self {
        Self { endpoint: None, ..Self::at(host) }
    }

    fn with_key(self, key: Option<&str>) -> Self {
        Self { preshared_key: key.map(str::to_owned), ..self }
    }
}

/// A host with stock WireGuard and VXLAN. Dropping it ends wireguard-go.
struct Stock {
    netns: Netns,
    files: Files,
    tunnel_address: Ipv4Addr,
    wg: String,
    wireguard: Child,
    v4: Ipv4Addr,
    v6: Ipv6Addr,
}

impl Stock {
    /// Sets up host `h` of the lab.
    fn start(lab: &Lab, h: u8, members: &[Member]) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        // wireguard-go's control sockets stand all in one directory, whatever the namespace.
        let wg = format!("wg{}x{}", std::process::id(), NUMBER.fetch_add(1, Relaxed));
        let host = lab.host(h.into());
        let stock = Self {
            netns: host.netns.try_clone().unwrap(),
            files: host.files.clone(),
            tunnel_address: host.public_key.tunnel_address(),
            wireguard: spawn_wireguard(host, &wg),
            wg,
            v4: Ipv4Addr::new(10, 32, 9, h),
            v6: v6(h.into()),
        };
        stock.configure(members);
        let (own, wg) = (stock.tunnel_address, &stock.wg);
        stock.run(&format!("ip link add vxlan0 type vxlan id {VNI} dstport 4789 local {own} dev {wg}"));
        for member in members {
            let address = member.public_key.tunnel_address();
            stock.run(&format!("bridge fdb append 00:00:00:00:00:00 dev vxlan0 dst {address}"));
        }
        stock.run("ip link set vxlan0 mtu 1370 up");
        stock
    }

    /// Gives the VXLAN device itself its place in the network.
    fn address(self, on: &str) -> Self {
        self.run(&format!("ip address add {}/16 dev {on}", self.v4));
        self.run(&format!("ip -6 address add {}/64 dev {on} nodad", self.v6));
        self
    }

    /// Tells WireGuard who is who and gives it its address and routes.
    fn configure(&self, members: &[Member]) {
        let key = fs::read_to_string(self.files.key()).unwrap();
        let mut text = format!("[Interface]\nPrivateKey = {}\nListenPort = 51820\n", key.trim());
        for Member { public_key, endpoint, preshared_key } in members {
            let address = public_key.tunnel_address();
            text += &format!("[Peer]\nPublicKey = {public_key}\nAllowedIPs = {address}/32\n");
            if let Some(endpoint) = endpoint {
                text += &format!("Endpoint = {endpoint}:51820\n");
            }
            if let Some(key) = preshared_key {
                text += &format!("PresharedKey = {key}\n");
            }
        }
        let file = self.files.dir.join("wg.conf");
        fs::write(&file, text).unwrap();
        self.run(&format!("wg setconf {} {}", self.wg, file.display()));
        self.run(&format!("ip address replace {}/32 dev {}", self.tunnel_address, self.wg));
        self.run(&format!("ip link set {} mtu 1420 up", self.wg));
        for member in members {
            self.run(&format!("ip route replace {}/32 dev {}", member.public_key.tunnel_address(), self.wg));
        }
    }

    #[track_caller]
    fn run(&self, line: &str) -> String {
        run(&self.netns, line)
    }

    /// Everything that is known of a peer, as `wg show … dump` has it: 4 is its latest handshake, 5 and 6 the bytes
    /// received and sent.
    fn dump(&self, member: &Host) -> Vec<String> {
        let text = self.run(&format!("wg show {} dump", self.wg));
        let key = member.public_key.to_string();
        let line = text.lines().find(|line| line.starts_with(&key)).unwrap_or_default();
        line.split('\t').map(str::to_owned).collect()
    }

    fn forget(&self, member: &Host) {
        self.run(&format!("wg set {} peer {} remove", self.wg, member.public_key));
    }

    fn ping(&self, to: IpAddr, size: usize, patience: Duration) {
        Pinger::open(&self.netns, to, None).unwrap().until(size, patience).unwrap();
    }

    /// Ends wireguard-go, and with it everything it knows, its interface, and the VXLAN device on it.
    fn stop(&mut self) {
        process::end(&mut self.wireguard, Duration::from_secs(5)).unwrap();
        let gone = || (!place::links(&self.netns).contains(&self.wg)).then_some(());
        eventually("the interface of wireguard-go is gone", gone);
    }
}

impl Drop for Stock {
    fn drop(&mut self) {
        let _ = process::end(&mut self.wireguard, Duration::from_secs(5));
        let _ = fs::remove_file(format!("/var/run/wireguard/{}.sock", self.wg));
    }
}

fn spawn_wireguard(host: &Host, wg: &str) -> Child {
    let mut command = inside(&host.netns, "wireguard-go", &["-f", wg]);
    let log = fs::OpenOptions::new().create(true).append(true).open(host.files.dir.join("wireguard.log")).unwrap();
    command.stdout(log.try_clone().unwrap()).stderr(log).env("LOG_LEVEL", "error");
    process::die_with_us(&mut command);
    let child = command.spawn().unwrap();
    let socket = format!("/var/run/wireguard/{wg}.sock");
    eventually("wireguard-go listens", || Path::new(&socket).exists().then_some(()));
    child
}

/// Lays a lab of weft hosts and, last, one stock host; every weft host's file says of it what `lines` says.
fn lab(weft_hosts: usize, containers: usize, lines: &str) -> Lab {
    let mut lab = Lab::lay(place::spec(weft_hosts + 1, containers)).unwrap();
    let stock = format!("name = \"h{}\"\n", weft_hosts + 1);
    for h in 1..=weft_hosts {
        edit(lab.host(h), |text| text.replace(&stock, &format!("{stock}{lines}\n")));
        lab.start_daemon(h, &Stop::default()).unwrap();
        (1..=containers).for_each(|c| lab.attach(h, c).unwrap());
    }
    lab
}

/// Changes a daemon's file.
fn edit(host: &Host, change: impl FnOnce(String) -> String) {
    let file = host.files.config();
    let before = fs::read_to_string(&file).unwrap();
    let after = change(before.clone());
    assert_ne!(before, after);
    fs::write(&file, after).unwrap();
}

/// What host `h` thinks of the peer called `name`.
fn peer(lab: &Lab, h: usize, name: &str) -> PeerStatus {
    let Response::Peers(peers) = lab.host(h).control(&Request::Peers).unwrap() else { panic!("no peers") };
    peers.into_iter().find(|peer| peer.name == name).unwrap()
}

#[test]
fn a_stock_host_and_a_weft_container_exchange_everything_both_ways() {
    if let Some(why) = missing() {
        skip!("{why}");
    }
    if !place::usable() {
        return;
    }
    let lab = lab(1, 1, "networks = [\"lab\"]");
    let stock = Stock::start(&lab, 2, &[Member::at(lab.host(1))]).address("vxlan0");
    let (container, stop) = (lab.container(1, 1), Stop::default());
    // Every packet that comes out of the tunnel, before VXLAN and merging.
    let mut tunnel = Sniffer::open(&stock.netns, &stock.wg);

    // The first needs a handshake and ARP or neighbour discovery by broadcast. The port's MTU is 1500, VXLAN's 1370, and
    // the tunnel carries 1384 of a frame at best.
    let sizes = [56, 1342, 1343, 1372, 1373, 1472, 1473, 10_000, 60_000];
    for size in sizes {
        for (weft, other) in [(container.v4.into(), stock.v4.into()), (container.v6.into(), stock.v6.into())] {
            container.ping(other, size, common::SOON).unwrap();
            stock.ping(weft, size, common::SOON);
        }
    }
    stock.run("ip neigh flush dev vxlan0");
    stock.ping(container.v6.into(), 56, common::SOON);
    stock.ping(container.v4.into(), 56, common::SOON);

    let (near, far) = (&container.netns, &stock.netns);
    for (there, back) in [(stock.v4.into(), container.v4.into()), (IpAddr::from(stock.v6), container.v6.into())] {
        let (there, back) = (SocketAddr::new(there, 0), SocketAddr::new(back, 0));
        for (from, to, address) in [(near, far, there), (far, near, back)] {
            let moved = generator::bulk_tcp(from, to, address, 1, MEASURE, &stop).unwrap();
            assert!(moved.bytes > 1 << 20, "{moved:?} to {address}");
        }
        let sizes = || (0..64).chain(1100..1500).chain((1500..datagrams::MAX_DATAGRAM).step_by(4999));
        datagrams::every_size(near, far, there, sizes(), &stop).unwrap();
        datagrams::every_size(far, near, back, sizes(), &stop).unwrap();
    }

    let peers: Vec<PeerStatus> = cli::weft(&lab.host(1).files.socket(), "peers --json").json();
    let PeerStatus { weft, networks, state, path_mtu_source, .. } = &peers[0];
    assert_eq!((*weft, state.as_str()), (false, "up"), "{peers:?}");
    assert_eq!(networks.as_deref(), Some(&["lab".to_owned()][..]), "{peers:?}");
    assert_eq!((peers[0].path_mtu, path_mtu_source.as_str()), (1280, "assumed"), "{peers:?}");

    drop(stop);
    assert_plain_vxlan(&mut tunnel);
}

/// All VXLAN that came in is as RFC 7348 has it, fragments included, and every checksum in it is complete and right: a
/// stock host knows nothing of partial ones.
fn assert_plain_vxlan(tunnel: &mut Sniffer) {
    let (mut reassembler, now) = (Reassembler::default(), Instant::now());
    let (mut frames, mut checked, mut fragments) = (0, 0, 0);
    for seen in tunnel.seen().iter().filter(|seen| !seen.outgoing) {
        let packet = &seen.bytes;
        // A probe may be larger than a path of 1280 carries: that is what it is for.
        let fits = packet.len() <= 1280 - 60;
        let whole = if u16::from_be_bytes([packet[6], packet[7]]) & 0x3fff == 0 {
            packet.clone()
        } else {
            fragments += 1;
            match reassembler.insert(now, packet) {
                Outcome::Whole(whole) => whole.to_vec(),
                Outcome::Waiting => continue,
                Outcome::Bad => panic!("a bad fragment: {seen:?}"),
            }
        };
        let (ip, udp) = whole.split_at(20);
        assert_eq!((ip[0], ip[9]), (0x45, 17), "{seen:?}");
        if u16::from_be_bytes([udp[2], udp[3]]) != 4789 {
            continue;
        }
        let (vxlan, frame) = udp[8..].split_at(8);
        assert!(fits, "{seen:?}");
        assert_eq!(vxlan, [8, 0, 0, 0, 0, 0, 100, 0], "{seen:?}");
        frames += 1;
        checked += usize::from(check_frame(frame).unwrap_or_else(|wrong| panic!("{wrong}: {seen:?}")));
    }
    assert!(
        frames > 1000 && checked > 1000 && fragments > 100,
        "{frames} frames, {checked} checked, {fragments} fragments"
    );
}

#[test]
fn either_side_may_begin_and_a_preshared_key_counts() {
    if let Some(why) = missing() {
        skip!("{why}");
    }
    if !place::usable() {
        return;
    }
    let key = Secret::shared([7; 32]).to_base64();
    let lines = |more: &str| format!("networks = [\"lab\"]\npreshared_key = \"{key}\"\n{more}");
    // weft begins: the stock host has no endpoint for it.
    {
        let lab = lab(1, 1, &lines(""));
        let stock = Stock::start(&lab, 2, &[Member::somewhere(lab.host(1)).with_key(Some(&key))]).address("vxlan0");
        lab.container(1, 1).ping(stock.v4.into(), 56, PATIENCE).unwrap();
        stock.ping(lab.container(1, 1).v4.into(), 56, BRIEF);
    }
    // The stock host begins: weft has no endpoint for it, and hears from it first.
    let lab = lab(1, 1, &lines(""));
    let endpoint = format!("endpoints = [\"{}:51820\"]\n", lab.host(2).v4);
    edit(lab.host(1), |text| text.replace(&endpoint, ""));
    cli::weft(&lab.host(1).files.socket(), "reload").done();
    let member = |key: Option<&str>| [Member::at(lab.host(1)).with_key(key)];
    let stock = Stock::start(&lab, 2, &member(Some(&key))).address("vxlan0");
    let container = lab.container(1, 1);
    stock.ping(container.v4.into(), 56, PATIENCE);
    container.ping(stock.v6.into(), 56, BRIEF).unwrap();
    assert_eq!(peer(&lab, 1, "h2").endpoint, Some(SocketAddr::new(lab.host(2).v4.into(), 51820)));

    // Without the key, or with another, there is no session; with it there is one again.
    for wrong in [None, Some(Secret::shared([8; 32]).to_base64())] {
        stock.forget(lab.host(1));
        stock.configure(&member(wrong.as_deref()));
        let mut pinger = Pinger::open(&stock.netns, container.v4.into(), None).unwrap();
        pinger.until(56, BRIEF).unwrap_err();
        assert_eq!(stock.dump(lab.host(1))[4], "0");
    }
    stock.forget(lab.host(1));
    stock.configure(&member(Some(&key)));
    stock.ping(container.v4.into(), 56, PATIENCE);
    container.ping(stock.v4.into(), 56, BRIEF).unwrap();
}

#[test]
fn a_session_is_made_again_after_either_side_forgot_the_other() {
    if let Some(why) = missing() {
        skip!("{why}");
    }
    if !place::usable() {
        return;
    }
    let mut lab = lab(1, 1, "networks = [\"lab\"]");
    let address = lab.container(1, 1).v4.into();
    let mut stock = Stock::start(&lab, 2, &[Member::at(lab.host(1))]).address("vxlan0");
    stock.ping(address, 56, PATIENCE);
    assert_ne!(stock.dump(lab.host(1))[4], "0");

    // The stock side removes its peer, adds it again, and says something.
    stock.forget(lab.host(1));
    assert!(stock.dump(lab.host(1))[0].is_empty());
    stock.configure(&[Member::at(lab.host(1))]);
    stock.ping(address, 56, PATIENCE);
    lab.container(1, 1).ping(stock.v4.into(), 56, BRIEF).unwrap();

    // Its wireguard-go is another one, and waits to be spoken to.
    stock.stop();
    stock = Stock::start(&lab, 2, &[Member::somewhere(lab.host(1))]).address("vxlan0");
    lab.container(1, 1).ping(stock.v4.into(), 56, PATIENCE).unwrap();
    stock.ping(address, 56, BRIEF);

    // weft is another one.
    lab.kill_daemon(1, libc::SIGKILL).unwrap();
    lab.start_daemon(1, &Stop::default()).unwrap();
    lab.container(1, 1).ping(stock.v4.into(), 56, PATIENCE).unwrap();
    stock.ping(address, 56, BRIEF);
}

#[test]
fn a_stock_host_that_changes_its_address_is_followed_and_keepalives_flow() {
    if let Some(why) = missing() {
        skip!("{why}");
    }
    if !place::usable() {
        return;
    }
    let mut lab = lab(1, 1, "networks = [\"lab\"]\nkeepalive = 1");
    let stock = Stock::start(&lab, 2, &[Member::at(lab.host(1))]).address("vxlan0");
    stock.ping(lab.container(1, 1).v4.into(), 56, PATIENCE);

    // A keepalive is 32 bytes, and weft sends one a second. Nobody else speaks for a while.
    let received = |stock: &Stock| stock.dump(lab.host(1))[5].parse::<u64>().unwrap();
    let before = received(&stock);
    eventually("three keepalives", || (received(&stock) >= before + 3 * 32).then_some(()));

    // Another address, and the next thing the stock host says is a keepalive.
    let (v4, v6) = ("192.0.2.77".parse().unwrap(), "2001:db8::77".parse().unwrap());
    lab.readdress(2, v4, v6).unwrap();
    // Setting the endpoint makes wireguard-go forget the interface it sent from last, which it would cling to for 15 s.
    let (wg, key, endpoint) = (&stock.wg, lab.host(1).public_key, lab.host(1).v4);
    stock.run(&format!("wg set {wg} peer {key} endpoint {endpoint}:51820 persistent-keepalive 1"));
    let moved = SocketAddr::new(v4.into(), 51820);
    eventually("the peer's endpoint is the other address", || {
        (peer(&lab, 1, "h2").endpoint == Some(moved)).then_some(())
    });
    lab.container(1, 1).ping(stock.v6.into(), 10_000, common::SOON).unwrap();

    // Another port, which WireGuard takes for the same host.
    stock.run(&format!("wg set {} listen-port 51999", stock.wg));
    let moved = SocketAddr::new(v4.into(), 51999);
    eventually("the peer's endpoint is the other port", || {
        (peer(&lab, 1, "h2").endpoint == Some(moved)).then_some(())
    });
    lab.container(1, 1).ping(stock.v4.into(), 10_000, common::SOON).unwrap();
}

#[test]
fn two_weft_hosts_and_a_stock_host_are_one_network_and_see_each_broadcast_once() {
    if let Some(why) = missing() {
        skip!("{why}");
    }
    if !place::usable() {
        return;
    }
    let lab = lab(2, 2, "networks = [\"lab\"]");
    // A full mesh, as split horizon wants it; VXLAN is a port of a kernel bridge here.
    let stock = Stock::start(&lab, 3, &[Member::at(lab.host(1)), Member::at(lab.host(2))]);
    stock.run("ip link add br0 type bridge");
    stock.run("ip link set vxlan0 master br0");
    stock.run("ip link set br0 mtu 1370 up");
    let stock = stock.address("br0");
    let containers = [(1, 1), (1, 2), (2, 1), (2, 2)].map(|(h, c)| lab.container(h, c));
    for container in &containers {
        for (weft, other) in [(container.v4.into(), stock.v4.into()), (container.v6.into(), stock.v6.into())] {
            container.ping(other, 56, common::SOON).unwrap();
            stock.ping(weft, 10_000, common::SOON);
        }
    }
    containers[0].ping(containers[3].v4.into(), 56, common::SOON).unwrap();
    assert!(peer(&lab, 1, "h2").weft && !peer(&lab, 1, "h3").weft);

    let places: Vec<(&Netns, &str)> =
        containers.iter().map(|container| (&container.netns, "eth1")).chain([(&stock.netns, "br0")]).collect();
    for (from, (sender, _)) in places.iter().enumerate() {
        let mut sniffers: Vec<Sniffer> = places.iter().map(|(netns, ifname)| Sniffer::open(netns, ifname)).collect();
        let socket = sender.run(|| UdpSocket::bind("0.0.0.0:0").unwrap()).unwrap();
        socket.set_broadcast(true).unwrap();
        let said = |n: usize| format!("place {from} says {n} to everyone").into_bytes();
        for n in 0..10 {
            socket.send_to(&said(n), "10.32.255.255:9").unwrap();
        }
        for (to, sniffer) in sniffers.iter_mut().enumerate().filter(|(to, _)| *to != from) {
            (0..10).for_each(|n| drop(sniffer.arrived(&said(n))));
            assert_eq!((0..10).map(|n| sniffer.copies(&said(n))).max(), Some(1), "from {from} to {to}");
        }
        assert_eq!(sniffers[from].copies(format!("place {from} says").as_bytes()), 0, "it came back to {from}");
    }
    let (near, far, stop) = (&containers[3].netns, &stock.netns, Stop::default());
    generator::bulk_tcp(near, far, (stock.v4, 0).into(), 2, MEASURE, &stop).unwrap();
    generator::bulk_tcp(far, near, (containers[3].v4, 0).into(), 2, MEASURE, &stop).unwrap();
}
