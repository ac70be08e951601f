//! The tour: everything weft is for, shown on a fresh lab, step by step, each with its figure.
//!
//! A step holds or it does not; what follows a failed step is still tried, because one failure tells less than which
//! ones. Only a lab that cannot be built, and somebody who wants us to end, cut the tour short. Whatever happens, the
//! lab is taken down, and that it left nothing is the last step.

use super::capture::Capture;
use super::generator::TrafficError;
use super::report::human;
use super::spec::{LISTEN_PORT, LabSpec, NetworkSpec};
use super::{Container, Lab, LabError, Stop, datagrams, generator, registry};
use crate::control::request::{FdbEntry, Request, Response};
use serde::Serialize;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// The network the tour plays in.
const MAIN: &str = "lab";
/// The network that must not be reached from it. Its containers have addresses of the same prefix, so only the VNI
/// stands between.
const OTHER: &str = "other";
/// How long a ping may take: the first of a pair meets a handshake and an address resolution.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a ping that must fail is tried.
const IN_VAIN: Duration = Duration::from_millis(700);
/// Payload of the large ping: more than any port MTU.
const LARGE: usize = 10_000;
/// What is sent through the overlay and must not show on the underlay.
const MARKER: &[u8] = b"this text is for the overlay's eyes only; ";
/// How long an FDB may take to show every station of [`MAIN`] that has spoken.
const LEARNED: Duration = Duration::from_secs(2);
/// The last step, which is never left out.
const CLEAN_UP: &str = "clean-up";

/// What became of one step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// What was shown.
    pub name: String,
    /// Whether it held.
    pub ok: bool,
    /// The figure, or what went wrong.
    pub detail: String,
}

/// What became of the tour.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Report {
    /// Whether every step held.
    pub ok: bool,
    /// The steps, in their order.
    pub steps: Vec<Step>,
    /// One TCP stream between containers of two hosts, in 10⁹ bits a second.
    pub tcp_gbps: Option<f64>,
    /// Datagrams of 64 bytes delivered between containers of two hosts, in 1000 a second.
    pub udp64_kpps: Option<f64>,
    /// The FDB of the first host, for people.
    #[serde(skip)]
    pub fdb: Vec<FdbEntry>,
}

/// What the tour tells while it runs.
#[derive(Debug)]
pub enum Progress<'a> {
    /// A step begins.
    Begin(&'a str),
    /// A step is over.
    End(&'a Step),
}

/// The lab of the tour: three hosts with two containers each, and one more each in another network.
pub fn spec(name: impl Into<String>) -> LabSpec {
    let mut spec = LabSpec::new(name, 3, 2);
    spec.networks.push(NetworkSpec { name: OTHER.to_owned(), vni: 200, mtu: 1500, containers: 1 });
    spec
}

/// Builds the lab and shows everything. Each measurement lasts `measure`.
pub fn run(spec: LabSpec, measure: Duration, stop: &Stop, progress: &mut dyn FnMut(Progress<'_>)) -> Report {
    let mut tour = Tour { report: Report::default(), stop, progress };
    let dir = spec.base.join(&spec.name);
    let mut lab = None;
    tour.step("hosts and daemons", || {
        let begun = Instant::now();
        let built = lab.insert(Lab::lay(spec)?);
        built.start_daemons(stop)?;
        Ok(format!("{} hosts, a daemon on each, ready in {}", built.hosts().len(), human(begun.elapsed())))
    });
    if let (Some(lab), true) = (&mut lab, tour.held()) {
        tour.visit(lab, measure);
    }
    tour.step(CLEAN_UP, || {
        let begun = Instant::now();
        let daemons: Vec<u32> =
            lab.iter().flat_map(|lab| lab.hosts()).filter_map(|host| Some(host.daemon()?.pid())).collect();
        drop(lab.take());
        if dir.exists() || daemons.iter().any(|&pid| registry::start_time(pid).is_some()) {
            return Err(LabError::Refused("a daemon or a directory was left behind".to_owned()));
        }
        Ok(format!("nothing left after {}", human(begun.elapsed())))
    });
    let mut report = tour.report;
    report.ok = report.steps.iter().all(|step| step.ok) && !stop.is_set();
    report
}

struct Tour<'a> {
    report: Report,
    stop: &'a Stop,
    progress: &'a mut dyn FnMut(Progress<'_>),
}

impl Tour<'_> {
    fn step<T>(&mut self, name: &str, run: impl FnOnce() -> Result<T, LabError>) -> Option<T>
    where
        T: ToString,
    {
        // Somebody wants us to end: there is nothing but the clean-up left to do.
        if self.stop.is_set() && name != CLEAN_UP {
            return None;
        }
        (self.progress)(Progress::Begin(name));
        let outcome = run();
        let (ok, detail) = match &outcome {
            Ok(figure) => (true, figure.to_string()),
            Err(error) => (false, error.to_string()),
        };
        let step = Step { name: name.to_owned(), ok, detail };
        (self.progress)(Progress::End(&step));
        self.report.steps.push(step);
        outcome.ok()
    }

    fn held(&self) -> bool {
        self.report.steps.iter().all(|step| step.ok)
    }

    fn visit(&mut self, lab: &mut Lab, measure: Duration) {
        let stop = self.stop;
        let mut capture = None;
        self.step("containers", || {
            if let Some(underlay) = lab.underlay_netns() {
                let started = Capture::start(underlay, &[LISTEN_PORT], MARKER);
                capture = Some(started.map_err(LabError::io("capture on the underlay"))?);
            }
            lab.attach_all()?;
            Ok(format!(
                "{} attached to network {MAIN}, {} to network {OTHER}",
                lab.containers_of(MAIN).len(),
                lab.containers_of(OTHER).len()
            ))
        });
        if !self.held() {
            return;
        }
        let lab = &*lab;
        let all = lab.containers_of(MAIN);
        let (near, far) = (lab.container(1, 1), lab.container(2, 1));
        let address = SocketAddr::from((far.v4, 0));
        self.step("ping, IPv4", || everyone(&all, 56, stop, |to| vec![to.v4.into()]));
        self.step("ping, IPv6", || {
            everyone(&all, 56, stop, |to| std::iter::once(to.v6).chain(to.link_local).map(IpAddr::V6).collect())
        });
        self.step(&format!("ping, {LARGE} bytes"), || {
            everyone(&all, LARGE, stop, |to| vec![to.v4.into(), to.v6.into()])
        });
        self.step("UDP of every size", || {
            let sizes =
                (0..2000).chain((2000..datagrams::MAX_DATAGRAM).step_by(997)).chain([datagrams::MAX_DATAGRAM]);
            let passed = datagrams::every_size(&near.netns, &far.netns, address, sizes, stop)?;
            Ok(format!("{passed} sizes up to {} bytes came back unchanged", datagrams::MAX_DATAGRAM))
        });
        self.step("networks apart", || apart(lab, stop));
        self.step("only WireGuard outside", || {
            generator::send_text(&near.netns, &far.netns, address, MARKER, 20_000, stop)?;
            let capture = capture.take().ok_or_else(|| LabError::Refused("there was no capture".to_owned()))?;
            let seen = capture.finish().map_err(LabError::io("capture on the underlay"))?;
            if seen.findings > 0 || seen.wireguard() == 0 {
                return Err(LabError::Refused(seen.to_string()));
            }
            Ok(seen.to_string())
        });
        if let Some(Learned { entries, .. }) = self.step("FDB", || learned(lab)) {
            self.report.fdb = entries;
        }
        let tcp = self.step("bulk TCP", || {
            let moved = generator::bulk_tcp(&near.netns, &far.netns, address, 1, measure, stop)?;
            Ok(Figure(moved.gbps(), "Gbit/s, one stream, container to container"))
        });
        self.report.tcp_gbps = tcp.map(|figure| rounded(figure.0));
        let udp = self.step("64-byte UDP", || {
            let flood = datagrams::flood(&near.netns, &far.netns, address, 64, measure, stop)?;
            if flood.delivered == 0 {
                return Err(TrafficError::Wrong("no datagram arrived".to_owned()).into());
            }
            Ok(Figure(flood.delivered_kpps(), "thousand a second delivered"))
        });
        self.report.udp64_kpps = udp.map(|figure| rounded(figure.0));
        self.step("a cable pulled and plugged", || cut(lab, stop));
    }
}

/// A figure with its unit.
struct Figure(f64, &'static str);

impl std::fmt::Display for Figure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.2} {}", self.0, self.1)
    }
}

fn rounded(figure: f64) -> f64 {
    (figure * 100.0).round() / 100.0
}

/// Every container pings every other at each of its addresses.
fn everyone(
    all: &[&Container],
    size: usize,
    stop: &Stop,
    addresses: impl Fn(&Container) -> Vec<IpAddr>,
) -> Result<String, LabError> {
    let mut delays = Vec::new();
    for from in all {
        for to in all.iter().filter(|to| to.name != from.name) {
            for address in addresses(to) {
                stop.check()?;
                delays.push(from.ping(address, size, PATIENCE)?);
            }
        }
    }
    delays.sort_unstable();
    let (median, slowest) = (delays[delays.len() / 2], delays[delays.len() - 1]);
    Ok(format!("{} answered, median {}, slowest {}", delays.len(), human(median), human(slowest)))
}

/// The containers of the other network reach each other and none of the first, wherever that is.
fn apart(lab: &Lab, stop: &Stop) -> Result<String, LabError> {
    let (inside, outside) = (lab.containers_of(OTHER), lab.containers_of(MAIN));
    let from = inside[0];
    for to in &inside[1..] {
        from.ping(to.v4.into(), 56, PATIENCE)?;
    }
    stop.check()?;
    // All at once: each of them is waited for in vain.
    let addresses = outside.iter().flat_map(|to| [IpAddr::V4(to.v4), IpAddr::V6(to.v6)]);
    let reached = std::thread::scope(|scope| {
        let pings: Vec<_> =
            addresses.map(|to| (to, scope.spawn(move || from.ping(to, 56, IN_VAIN).is_ok()))).collect();
        pings.into_iter().filter_map(|(to, ping)| generator::joined(ping).then_some(to)).collect::<Vec<_>>()
    });
    match reached.first() {
        Some(to) => Err(LabError::Refused(format!("{} of {OTHER} reached {to} of {MAIN}", from.name))),
        None => Ok(format!("{} reaches all {} of {OTHER} and none of {MAIN}", from.name, inside.len())),
    }
}

/// An FDB that shows every station.
struct Learned {
    entries: Vec<FdbEntry>,
    ports: usize,
    peers: usize,
}

impl std::fmt::Display for Learned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "h1 knows {} stations on its ports and {} behind peers", self.ports, self.peers)
    }
}

fn learned(lab: &Lab) -> Result<Learned, LabError> {
    let here = lab.host(1);
    let own = here.containers.iter().filter(|container| container.network == MAIN).count();
    let others = lab.containers_of(MAIN).len() - own;
    let deadline = Instant::now() + LEARNED;
    loop {
        let Response::Fdb(entries) = here.control(&Request::Fdb { network: None })? else {
            return Err(LabError::Refused("the daemon of h1 shows no FDB".to_owned()));
        };
        let count =
            |place: &str| entries.iter().filter(|entry| entry.network == MAIN && entry.at.starts_with(place)).count();
        let (ports, peers) = (count("port "), count("peer "));
        if ports >= own && peers >= others {
            return Ok(Learned { entries, ports, peers });
        }
        if Instant::now() > deadline {
            let text =
                format!("h1 knows {ports} of {own} stations on its ports and {peers} of {others} behind peers");
            return Err(LabError::Refused(text));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Without its cable a host is gone and the others are not; with it, it is back.
fn cut(lab: &Lab, stop: &Stop) -> Result<String, LabError> {
    let (near, gone, other) = (lab.container(1, 1), lab.container(2, 1), lab.container(3, 1));
    lab.set_cable(2, false)?;
    let reached = near.ping(gone.v4.into(), 56, IN_VAIN);
    let still = near.ping(other.v4.into(), 56, PATIENCE);
    lab.set_cable(2, true)?;
    stop.check()?;
    let begun = Instant::now();
    near.ping(gone.v4.into(), 56, PATIENCE)?;
    let back = begun.elapsed();
    still?;
    if reached.is_ok() {
        return Err(LabError::Refused("h2 was reached without its cable".to_owned()));
    }
    Ok(format!("h2 was gone, h3 was not, and h2 was back after {}", human(back)))
}
