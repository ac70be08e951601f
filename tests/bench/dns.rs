//! Names under load: 100,000 of them, asked for 20,000 times a second by a container.
//!
//! `cargo bench --bench dns` as root. It is the daemon's data plane with one worker, the thread behind the service address and a TAP in a
//! network namespace; the client there sends by the clock, whether or not answers come, and asks for names all over the directory.
//! The exit code is 1 if one question in a thousand has no answer, or one in a hundred waits for it for more than 1 ms. Where
//! `dnsperf` is installed it asks, too. Other rates: `cargo bench --bench dns -- 50000`.

#![allow(clippy::print_stdout)]

use arc_swap::ArcSwap;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant};
use weft::io::netlink::Netlink;
use weft::io::netns::Netns;
use weft::io::outbox::{Outbox, PortEntry, PortTable};
use weft::io::service::Prepared;
use weft::io::tap::{Tap, TapOffload};
use weft::io::udp::{UdpOffload, UdpSockets};
use weft::io::worker::{Worker, port_token};
use weft::io::{gate_settings, random};
use weft::names::directory::{Entry, Kind};
use weft::names::zone::Others;
use weft::names::{Directory, Settings, Zone};
use weft::switch::Switch;
use weft::switch::allowance::Allowance;
use weft::switch::counters::{Drop, Flow};
use weft::switch::fdb::Limits;
use weft::switch::ids::PortId;
use weft::switch::staging::Merge;
use weft::switch::topology::{Network, Port, Topology};
use weft::tunnel::{Engine, Gate};
use weft::wire::ethernet::Mac;
use weft::wire::key::{PublicKey, Secret};

const VNI: u32 = 100;
const NAMES: usize = 100_000;
const OF_MEMBER: usize = 2_000;
const RATE: u64 = 20_000;
const SPAN: Duration = Duration::from_secs(10);
const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 32, 0, 1);
const STATION: Mac = Mac([2, 0, 0, 0, 0, 9]);

fn name(n: usize) -> String {
    format!("c{n}.app")
}

fn address(n: usize) -> IpAddr {
    IpAddr::from([10, 32 + (n >> 16) as u8, (n >> 8) as u8, n as u8])
}

/// Everybody's names.
fn directory() -> Directory {
    let directory = Directory::default();
    let zone = Zone {
        vni: VNI,
        domain: "bench.weft".into(),
        others: Others::Refuse,
        local_first: false,
        subnets: vec!["10.32.0.0/12".parse().expect("a prefix")],
        service: vec![SERVICE.into()],
    };
    directory.set_settings(Settings::new(vec![zone], Vec::new()));
    for member in 0..NAMES / OF_MEMBER {
        let named: Vec<(String, [IpAddr; 1])> =
            (0..OF_MEMBER).map(|n| member * OF_MEMBER + n).map(|n| (name(n), [address(n)])).collect();
        let entries = named.iter().map(|(name, addresses)| Entry {
            vni: VNI,
            name,
            kind: Kind::Attachment,
            addresses,
            services: &[],
        });
        directory.set_member(PublicKey([member as u8 + 1; 32]), member == 0, entries);
    }
    assert_eq!(directory.refused(), 0, "names were refused");
    directory
}

/// A question with this number for a name.
fn question(number: u16, name: &str) -> Vec<u8> {
    let mut bytes = [&number.to_be_bytes()[..], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]].concat();
    for label in name.split('.').chain(["bench", "weft"]) {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    bytes
}

/// What came of a load.
#[derive(Default)]
struct Outcome {
    sent: usize,
    wrong: usize,
    /// Of each answer, from the moment its question was sent, ascending.
    waits: Vec<Duration>,
}

impl Outcome {
    fn at(&self, part: f64) -> Duration {
        let at = (self.waits.len() as f64 * part) as usize;
        self.waits.get(at.min(self.waits.len().saturating_sub(1))).copied().unwrap_or(Duration::MAX)
    }
}

/// Asks by the clock.
fn load(socket: &UdpSocket, rate: u64, span: Duration) -> Outcome {
    // SAFETY: a plain request with a number; without it the kernel lets the client sleep 50 µs too long.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1000) };
    let gap = Duration::from_nanos(1_000_000_000 / rate);
    let mut outcome = Outcome::default();
    let mut waiting: Vec<Option<(Instant, usize)>> = vec![None; 1 << 16];
    let mut buffer = [0; 2048];
    let begun = Instant::now();
    let mut due = begun;
    while begun.elapsed() < span + Duration::from_secs(1) {
        while due <= Instant::now() && due < begun + span {
            let number = outcome.sent as u16;
            // All over the directory, in an order that no cache foresees.
            let n = outcome.sent.wrapping_mul(61_031) % NAMES;
            let bytes = question(number, &name(n));
            waiting[usize::from(number)] = Some((Instant::now(), n));
            match socket.send(&bytes) {
                Ok(_) => outcome.sent += 1,
                Err(error) => panic!("the client cannot send: {error}"),
            }
            due += gap;
        }
        loop {
            match socket.recv(&mut buffer) {
                Ok(length) => {
                    let number = u16::from_be_bytes([buffer[0], buffer[1]]);
                    let Some((since, n)) = waiting[usize::from(number)].take() else { continue };
                    outcome.waits.push(since.elapsed());
                    let IpAddr::V4(expected) = address(n) else { continue };
                    let is_right =
                        buffer[3] & 15 == 0 && buffer[..length].windows(4).any(|four| four == expected.octets());
                    outcome.wrong += usize::from(!is_right);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("the client cannot receive: {error}"),
            }
        }
        let pause = due.saturating_duration_since(Instant::now()).min(Duration::from_millis(1));
        let time = libc::timespec { tv_sec: 0, tv_nsec: pause.as_nanos() as libc::c_long };
        let mut poll = libc::pollfd { fd: socket.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one pollfd and one timespec, which live here.
        unsafe { libc::ppoll(&raw mut poll, 1, &raw const time, std::ptr::null()) };
    }
    outcome.waits.sort_unstable();
    outcome
}

/// What the machine does to a thread that only looks at the clock, before anything else runs: for what part of the time it was
/// kept from that for more than 1 ms. No answer comes sooner than that lets it.
fn stillness() -> f64 {
    let (mut looked, mut still) = (Duration::ZERO, Duration::ZERO);
    for _ in 0..10 {
        let begun = Instant::now();
        let mut last = begun;
        while last.duration_since(begun) < Duration::from_millis(500) {
            let now = Instant::now();
            let gap = now.duration_since(last);
            if gap > Duration::from_millis(1) {
                still += gap;
            }
            last = now;
        }
        looked += last.duration_since(begun);
        // Kernels stop a thread of real-time priority that never does.
        std::thread::sleep(Duration::from_millis(100));
    }
    still.as_secs_f64() / looked.as_secs_f64()
}

/// CPU time of our threads by name, from /proc.
fn threads() -> Vec<(String, Duration)> {
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else { return Vec::new() };
    let of = |path: std::path::PathBuf| {
        let name = std::fs::read_to_string(path.join("comm")).ok()?.trim().to_owned();
        let spent = std::fs::read_to_string(path.join("schedstat")).ok()?;
        Some((name, Duration::from_nanos(spent.split_whitespace().next()?.parse().ok()?)))
    };
    let mut threads: Vec<_> = tasks.filter_map(|task| of(task.ok()?.path())).collect();
    threads.sort();
    threads
}

fn main() -> ExitCode {
    let rate = std::env::args().find_map(|word| word.parse().ok()).unwrap_or(RATE);
    println!("the machine alone: stood still for {:.2} % of the time", 100.0 * stillness());
    let now = Instant::now();
    let container = Netns::create().expect("a network namespace: run this as root");
    let offload = TapOffload { checksum: true, tso: true, uso: false };
    let make = || {
        let tap = Tap::create("eth1", offload).expect("a TAP");
        let mut netlink = Netlink::open().expect("netlink");
        let index = netlink.link("eth1").expect("links").expect("eth1").index;
        netlink.set_mac(index, STATION).expect("a MAC address");
        netlink.add_address(index, "10.47.255.9/12".parse().expect("an address"), true).expect("an address");
        netlink.set_up(index).expect("eth1 up");
        let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
        (tap, socket)
    };
    let (tap, socket) = container.run(make).expect("to enter the namespace");
    let (id, fd) = (PortId(1), tap.as_raw_fd());
    let port = Arc::new(Port { id, vni: VNI, mac: STATION, flow: Flow::default(), spoken: Allowance::default() });
    let service = [IpAddr::V4(SERVICE)].into_iter().collect();
    let network = Network { vni: VNI, mtu: 1500, ports: vec![port.clone()], service, ..Network::default() };
    let gate = Gate::new(&Secret::private([1; 32]), gate_settings(Engine::Ring));
    let limits = Limits { max_entries: 1024, max_per_port: 1024, max_per_peer: 1024 };
    let topology = Topology::new(Ipv4Addr::LOCALHOST, vec![network], &[]);
    let switch = Arc::new(Switch::new(gate, topology, limits, random(), now));
    let table = Arc::new(ArcSwap::from_pointee(PortTable::from_iter([(id, Arc::new(PortEntry { port, tap }))])));
    let sockets = UdpSockets::bind(0, 1, UdpOffload { segment: false, gro: false }).expect("sockets").remove(0);
    let sockets = Arc::new(sockets);
    let (notices, _told) = crossbeam::channel::bounded(64);
    let prepared = Prepared::new().expect("a poll");
    let directory = Arc::new(directory());
    let outbox = || {
        let outbox = Outbox::new(switch.clone(), sockets.clone(), table.clone(), None, notices.clone());
        outbox.with_service(directory.clone(), prepared.queue())
    };
    let worker = Worker::start(0, switch.clone(), sockets.clone(), table.clone(), outbox(), Merge::Nothing);
    let worker = worker.expect("a worker");
    let own = outbox();
    let services = prepared.start(switch.clone(), own, directory.clone()).expect("a thread");
    let mut source = mio::unix::SourceFd(&fd);
    worker.registry.register(&mut source, port_token(id), mio::Interest::READABLE).expect("to register the TAP");

    socket.connect((SERVICE, 53)).expect("a way to the service address");
    socket.set_nonblocking(true).expect("a socket");
    load(&socket, 1000, Duration::from_secs(1));
    let before = threads();
    let outcome = load(&socket, rate, SPAN);
    let spent = threads().into_iter().filter(|(name, _)| name.starts_with("weft")).map(|(name, spent)| {
        let earlier = before.iter().find(|(known, _)| *known == name).map_or(Duration::ZERO, |(_, spent)| *spent);
        format!("{name} {:.1} µs", (spent - earlier).as_secs_f64() * 1e6 / outcome.sent.max(1) as f64)
    });
    let (answered, lost) = (outcome.waits.len(), outcome.sent - outcome.waits.len());
    println!("{NAMES} names, {rate} questions a second for {} s", SPAN.as_secs());
    println!("  answered {answered}, lost {lost}, wrong {}", outcome.wrong);
    let [p50, p99, p999, most] = [0.5, 0.99, 0.999, 1.0].map(|part| outcome.at(part));
    println!("  waited for: p50 {p50:.1?}, p99 {p99:.1?}, p99.9 {p999:.1?}, at most {most:.1?}");
    println!("  CPU time of a question: {}", spent.collect::<Vec<_>>().join(", "));
    let full = switch.counters.dropped(Drop::ServiceQueueFull);
    println!("  dropped because too many came at once: {full}");
    dnsperf(&container, rate);
    drop(services);
    let well = lost * 1000 <= outcome.sent && outcome.wrong == 0 && p99 <= Duration::from_millis(1);
    if well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The same by somebody else's client.
fn dnsperf(container: &Netns, rate: u64) {
    let path = std::env::temp_dir().join(format!("weft-names-{}", std::process::id()));
    let line = |n: usize| format!("{}.bench.weft A\n", name(n.wrapping_mul(61_031) % NAMES));
    std::fs::write(&path, (0..NAMES).map(line).collect::<String>()).expect("a file of names");
    let mut command = Command::new("dnsperf");
    command.args(["-s", &SERVICE.to_string(), "-Q", &rate.to_string(), "-l", "10", "-q", "1000", "-d"]).arg(&path);
    let output = container.run(|| command.output()).expect("to enter the namespace");
    let _ = std::fs::remove_file(&path);
    let Ok(output) = output else { return println!("dnsperf is not installed: it was not asked") };
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let wanted = [
        "Queries sent",
        "Queries completed",
        "Queries lost",
        "Response codes",
        "Queries per second",
        "Average Latency",
        "Latency StdDev",
    ];
    println!("dnsperf -Q {rate}:");
    said.lines().filter(|line| wanted.iter().any(|word| line.contains(word))).for_each(|line| println!("{line}"));
}
