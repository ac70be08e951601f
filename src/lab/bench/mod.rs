//! The bench: weft beside everything else that could connect the same two hosts on this machine.
//!
//! A figure is that of a machine on a day. What stays true longer is how it compares: with the bare path between the
//! hosts, and with other overlays that did the same work on the same machine in the same minutes. So all
//! [contenders] are set up at once and measured in turn, several rounds over: a machine that
//! gets slower for a while does so for all of them. Of the rounds the median counts.
//!
//! What is not installed is named and passed over; so is what does not start or stops carrying traffic, with its
//! last words.

pub mod chart;
mod measure;
pub mod summary;

use super::contenders::pair::Pair;
use super::contenders::program::Found;
use super::contenders::{self, Contender, Setup};
use super::generator::{TrafficError, bulk_tcp};
use super::report::Machine;
use super::spec::{LabSpec, Underlay};
use super::{LabError, Stop};
use measure::Sample;
use std::time::Duration;
use summary::{Absent, Measured, Report};

/// How long each of several setups is tried before the fastest is kept.
const TRIAL: Duration = Duration::from_millis(500);

/// What to measure.
#[derive(Debug, Clone)]
pub struct BenchSpec {
    /// What each contender's hosts are built from; [`spec`] makes one that fits. Its name is the beginning of theirs.
    pub lab: LabSpec,
    /// Whom to measure: [`contenders::called`].
    pub contenders: Vec<&'static Contender>,
    /// How often each is measured; at least 1.
    pub rounds: usize,
    /// How long each measurement lasts.
    pub measure: Duration,
    /// How many TCP streams the measurement with several has.
    pub streams: usize,
}

/// Hosts to be measured: two, with two containers each.
pub fn spec(name: impl Into<String>) -> LabSpec {
    LabSpec::new(name, 2, 2)
}

/// Sets everything up and measures. `progress` is told what is done next.
///
/// # Errors
/// No right to make namespaces, or an interruption. A contender that fails is none: it is in the report.
pub fn run(spec: &BenchSpec, stop: &Stop, progress: &mut dyn FnMut(&str)) -> Result<Report, LabError> {
    let (mut lanes, mut absent) = (Vec::new(), Vec::new());
    for (number, &contender) in spec.contenders.iter().enumerate() {
        match find(contender) {
            Ok(found) => {
                progress(&format!("set up {}", contender.name));
                lanes.push(Lane::set_up(contender, number, found, spec, stop)?);
            }
            Err(missing) => absent.push(missing),
        }
    }
    for round in 1..=spec.rounds {
        for lane in &mut lanes {
            if lane.pair.is_some() {
                progress(&format!("round {round} of {}: {}", spec.rounds, lane.contender.name));
                lane.measure(spec, stop)?;
            }
        }
    }
    let settings = settings(&spec.lab);
    let measured = lanes.into_iter().map(Lane::measured).collect();
    let times = summary::Times { rounds: spec.rounds, seconds: spec.measure.as_secs_f64(), streams: spec.streams };
    Ok(Report::new(Machine::this(), settings, times, measured, absent))
}

fn settings(lab: &LabSpec) -> String {
    let port_mtu = lab.networks.first().map_or(0, |network| network.mtu);
    let family = if lab.ipv6_underlay { "IPv6 (weft's alone, the others' IPv4)" } else { "IPv4" };
    let mut text = format!("underlay {family}, MTU {}; MTU of weft's ports {port_mtu}", lab.underlay_mtu);
    if let Underlay::Impaired(link, seed) = &lab.underlay {
        text.push_str(&format!("; {link}, seed {seed}"));
    }
    if cfg!(debug_assertions) {
        text.push_str("; weft built without --release, which makes its figures too low");
    }
    if !lab.offload_off.is_empty() {
        text.push_str(&format!("; weft without {}", lab.offload_off.join(", ")));
    }
    text
}

/// The programs of a contender, or what to say of their absence.
fn find(contender: &Contender) -> Result<Vec<Found>, Absent> {
    let look = |program: &contenders::program::Program| {
        let reason = || format!("{} is not on this machine ({})", program.name, contender.source);
        program.find().ok_or_else(|| Absent { name: contender.name.to_owned(), reason: reason() })
    };
    contender.programs.iter().map(look).collect()
}

/// A contender, what it runs on as long as it works, and what was measured.
struct Lane {
    contender: &'static Contender,
    version: Option<String>,
    setup: &'static Setup,
    pair: Option<Pair>,
    samples: Vec<Sample>,
    fragmented: u64,
    failed: Option<String>,
}

impl Lane {
    /// Sets a contender up in the way that turns out to be the fastest.
    ///
    /// # Errors
    /// An interruption. That the contender does not work is kept in [`Lane::failed`].
    fn set_up(
        contender: &'static Contender,
        number: usize,
        found: Vec<Found>,
        spec: &BenchSpec,
        stop: &Stop,
    ) -> Result<Self, LabError> {
        let version = match found.first() {
            None if contender.name == contenders::WEFT => {
                Some(concat!("weft ", env!("CARGO_PKG_VERSION")).to_owned())
            }
            program => program.map(|program| program.version.clone()),
        };
        let (setup, samples) = (&contender.setups[0], Vec::new());
        let mut lane = Self { contender, version, setup, pair: None, samples, fragmented: 0, failed: None };
        let mut best = f64::NEG_INFINITY;
        for (way, setup) in contender.setups.iter().enumerate() {
            let lab = LabSpec { name: format!("{}-{number}-{way}", spec.lab.name), ..spec.lab.clone() };
            let mut pair = Pair::lay(lab, found.clone(), stop)?;
            match start(contender, setup, &mut pair, stop) {
                Ok(speed) if speed > best => {
                    best = speed;
                    (lane.setup, lane.pair, lane.failed) = (setup, Some(pair), None);
                }
                Ok(_) => {}
                Err(_) if stop.is_set() => return Err(LabError::Interrupted),
                Err(error) if lane.pair.is_none() => lane.failed = Some(pair.last_words(&error)),
                Err(_) => {}
            }
        }
        Ok(lane)
    }

    /// Measures everything once.
    ///
    /// # Errors
    /// An interruption.
    fn measure(&mut self, spec: &BenchSpec, stop: &Stop) -> Result<(), LabError> {
        let Some(pair) = &mut self.pair else { return Ok(()) };
        let outcome = measure::once(pair, spec, stop);
        self.fragmented = pair.fragmented();
        match outcome {
            Ok(sample) => self.samples.push(sample),
            Err(_) if stop.is_set() => return Err(LabError::Interrupted),
            Err(error) => {
                self.failed = Some(pair.last_words(&error));
                self.pair = None;
            }
        }
        Ok(())
    }

    fn measured(self) -> Measured {
        let Self { contender, version, setup, samples, fragmented, failed, .. } = self;
        Measured { contender, version, setup: setup.what, samples, fragmented, failed }
    }
}

/// Starts a contender, lets it settle, and returns how fast it was in the end, in Gbit/s, if there is a choice.
fn start(contender: &Contender, setup: &Setup, pair: &mut Pair, stop: &Stop) -> Result<f64, LabError> {
    (setup.start)(pair)?;
    let routes = pair.across.iter().chain(&pair.local);
    let mut speed = 0.0;
    for route in routes {
        route.until_it_carries()?;
        let load = |duration| -> Result<f64, TrafficError> {
            Ok(bulk_tcp(&route.from, &route.to, (route.there, 0).into(), 1, duration, stop)?.gbps())
        };
        load(contender.settles)?;
        if contender.setups.len() > 1 {
            speed += load(TRIAL)?;
        }
    }
    Ok(speed)
}
