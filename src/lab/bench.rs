//! The bench: how fast two hosts are, as figures and as shares of what the bare path between them carries.
//!
//! The bare path is the underlay itself, veth–bridge–veth, measured in the same run by the same generator between
//! the hosts' namespaces: no encryption, no user space. A share of it means more than a figure, which is that of a
//! machine on a day; the report names both.

use super::generator::Bulk;
use super::report::{GB, Machine};
use super::spec::LabSpec;
use super::{Lab, LabError, Stop, datagrams, generator, iperf};
use crate::io::netns::Netns;
use serde::Serialize;
use std::net::SocketAddr;
use std::time::Duration;

/// How long a first ping may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Payload of the small datagrams.
const SMALL: usize = 64;

/// What to measure.
#[derive(Debug, Clone)]
pub struct BenchSpec {
    /// The lab; [`spec`] makes one that fits.
    pub lab: LabSpec,
    /// How long each measurement lasts.
    pub measure: Duration,
    /// How many TCP streams the measurement with several has.
    pub streams: usize,
    /// Whether iperf3 measures as well, if it is installed.
    pub iperf3: bool,
}

/// One figure.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// What was measured.
    pub name: String,
    /// Through weft.
    pub value: f64,
    /// Its unit.
    pub unit: &'static str,
    /// The same over the bare path, where that makes sense.
    pub bare: Option<f64>,
    /// `value` in per cent of `bare`.
    pub percent_of_bare: Option<f64>,
}

/// All figures.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Where and when.
    pub machine: Machine,
    /// MTU of the underlay and of the ports, and what was switched off.
    pub settings: String,
    /// The figures, in the order they were measured.
    pub figures: Vec<Figure>,
    /// What to know about them.
    pub notes: Vec<String>,
}

/// A lab to be measured: two hosts with two containers each.
pub fn spec(name: impl Into<String>) -> LabSpec {
    LabSpec::new(name, 2, 2)
}

/// Builds the lab and measures. `progress` is told what is measured next.
///
/// # Errors
/// The lab cannot be built, or traffic does not flow.
pub fn run(spec: BenchSpec, stop: &Stop, progress: &mut dyn FnMut(&str)) -> Result<Report, LabError> {
    let settings = settings(&spec.lab);
    progress("build the lab");
    let lab = Lab::build(spec.lab.clone(), stop)?;
    let mut bench = Bench { lab: &lab, spec: &spec, stop, progress, figures: Vec::new(), notes: Vec::new() };
    bench.measure()?;
    if spec.iperf3 {
        bench.measure_with_iperf3()?;
    }
    let Bench { figures, notes, .. } = bench;
    Ok(Report { machine: Machine::this(), settings, figures, notes })
}

fn settings(lab: &LabSpec) -> String {
    let port_mtu = lab.networks.first().map_or(0, |network| network.mtu);
    let family = if lab.ipv6_underlay { "IPv6" } else { "IPv4" };
    let mut text = format!("underlay {family}, MTU {}, port MTU {port_mtu}", lab.underlay_mtu);
    if !lab.offload_off.is_empty() {
        text.push_str(&format!(", without {}", lab.offload_off.join(", ")));
    }
    text
}

/// Two ends of a path, with the address of the second.
#[derive(Clone, Copy)]
struct Path<'a>(&'a Netns, &'a Netns, SocketAddr);

struct Bench<'a> {
    lab: &'a Lab,
    spec: &'a BenchSpec,
    stop: &'a Stop,
    progress: &'a mut dyn FnMut(&str),
    figures: Vec<Figure>,
    notes: Vec<String>,
}

impl<'a> Bench<'a> {
    fn bare(&self) -> Path<'a> {
        let (near, far) = (self.lab.host(1), self.lab.host(2));
        Path(&near.netns, &far.netns, (far.v4, 0).into())
    }

    fn overlay(&self, from: (usize, usize), to: (usize, usize)) -> Path<'a> {
        let (from, to) = (self.lab.container(from.0, from.1), self.lab.container(to.0, to.1));
        Path(&from.netns, &to.netns, (to.v4, 0).into())
    }

    fn measure(&mut self) -> Result<(), LabError> {
        let streams = self.spec.streams;
        // Sessions and neighbours are found before anything is measured.
        for (h, c) in [(2, 1), (1, 2)] {
            self.lab.container(1, 1).ping(self.lab.container(h, c).v4.into(), SMALL, PATIENCE)?;
        }
        let bare = self.bare();
        let (there, back, local) =
            (self.overlay((1, 1), (2, 1)), self.overlay((2, 1), (1, 1)), self.overlay((1, 1), (1, 2)));

        let bare_tcp = self.tcp("TCP over the bare path", bare, 1)?.gbps();
        let before = self.cpu_time();
        let moved = self.tcp("TCP, one stream", there, 1)?;
        let used = self.cpu_time().zip(before).map(|(after, before)| after.saturating_sub(before));
        self.note_figure("TCP, 1 stream", moved.gbps(), "Gbit/s", Some(bare_tcp));
        if let (Some(used), true) = (used, moved.bytes > 0) {
            let per_gb = used.as_secs_f64() / (moved.bytes as f64 / GB);
            self.note_figure("CPU of both daemons", per_gb, "s/GB", None);
        }
        let reverse = self.tcp("TCP, the other way", back, 1)?.gbps();
        self.note_figure("TCP, 1 stream, reverse", reverse, "Gbit/s", Some(bare_tcp));
        let bare_several = self.tcp("TCP over the bare path, several streams", bare, streams)?.gbps();
        let several = self.tcp("TCP, several streams", there, streams)?.gbps();
        self.note_figure(&format!("TCP, {streams} streams"), several, "Gbit/s", Some(bare_several));
        let local = self.tcp("TCP, TAP to TAP on one host", local, 1)?.gbps();
        self.note_figure("TCP, TAP to TAP", local, "Gbit/s", Some(bare_tcp));

        let bare_flood = self.flood("64-byte UDP over the bare path", bare)?;
        let flood = self.flood("64-byte UDP", there)?;
        self.note_figure("UDP, 64 bytes, delivered", flood.0, "kpps", Some(bare_flood.0));
        self.note_figure("UDP, 64 bytes, offered", flood.1, "kpps", Some(bare_flood.1));

        let bare_trips = self.round_trips("round trips over the bare path", bare)?;
        let trips = self.round_trips("round trips", there)?;
        for (name, share) in [("UDP round trip, p50", 0.5), ("UDP round trip, p99", 0.99)] {
            self.note_figure(name, trips.percentile(share), "µs", Some(bare_trips.percentile(share)));
        }
        let added = trips.percentile(0.5) - bare_trips.percentile(0.5);
        self.note_figure("UDP round trip added, p50", added, "µs", None);
        let memory = self.lab.hosts().iter().filter_map(|host| host.daemon()?.memory()).max();
        if let Some(bytes) = memory {
            self.note_figure("memory of the larger daemon", bytes as f64 / f64::from(1 << 20), "MiB", None);
        }
        Ok(())
    }

    fn measure_with_iperf3(&mut self) -> Result<(), LabError> {
        let Some(version) = iperf::version() else {
            self.notes.push("iperf3 is not installed: there are only figures of the built-in generator".to_owned());
            return Ok(());
        };
        self.notes.push(format!("figures of iperf3 are from {version}"));
        let (bare, there) = (self.bare(), self.overlay((1, 1), (2, 1)));
        let measure = self.spec.measure;
        for (name, unit, arguments) in [
            ("iperf3 TCP, 1 stream", "Gbit/s", &[][..]),
            ("iperf3 UDP, 64 bytes", "kpps", &["-u", "-b", "0", "-l", "64"][..]),
        ] {
            let mut figure = |path: Path<'_>| {
                (self.progress)(name);
                self.stop.check()?;
                iperf::run(path.0, path.1, path.2.ip(), measure, arguments)
            };
            let (through_bare, through_weft) = (figure(bare)?, figure(there)?);
            let of = |figure: &iperf::Figure| if unit == "kpps" { figure.kpps } else { figure.gbps };
            self.note_figure(name, of(&through_weft), unit, Some(of(&through_bare)));
        }
        Ok(())
    }

    fn tcp(&mut self, what: &str, path: Path<'_>, streams: usize) -> Result<Bulk, LabError> {
        (self.progress)(what);
        Ok(generator::bulk_tcp(path.0, path.1, path.2, streams, self.spec.measure, self.stop)?)
    }

    /// Delivered and offered, in 1000 a second.
    fn flood(&mut self, what: &str, path: Path<'_>) -> Result<(f64, f64), LabError> {
        (self.progress)(what);
        let flood = datagrams::flood(path.0, path.1, path.2, SMALL, self.spec.measure, self.stop)?;
        Ok((flood.delivered_kpps(), flood.offered_kpps()))
    }

    fn round_trips(&mut self, what: &str, path: Path<'_>) -> Result<datagrams::RoundTrips, LabError> {
        (self.progress)(what);
        Ok(datagrams::ping_pong(path.0, path.1, path.2, SMALL, self.spec.measure, self.stop)?)
    }

    /// User and system time of both daemons so far.
    fn cpu_time(&self) -> Option<Duration> {
        self.lab.hosts().iter().map(|host| host.daemon()?.cpu_time()).sum()
    }

    fn note_figure(&mut self, name: &str, value: f64, unit: &'static str, bare: Option<f64>) {
        let percent_of_bare = bare.filter(|&bare| bare > 0.0).map(|bare| rounded(value / bare * 100.0));
        let (value, bare) = (rounded(value), bare.map(rounded));
        self.figures.push(Figure { name: name.to_owned(), value, unit, bare, percent_of_bare });
    }
}

fn rounded(figure: f64) -> f64 {
    (figure * 100.0).round() / 100.0
}
