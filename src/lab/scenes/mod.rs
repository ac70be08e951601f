//! Scenes: a topology, what is expected on it, and what happens then.
//!
//! A scene begins when the daemons run; each *act* changes one thing and says what must hold within which time. While
//! it is played a TCP connection between two containers goes on, which no act may break. What is expected is looked
//! at again and again until all of it holds at once, or time is up; then the table of pairs shows how each reaches
//! the other. Whatever happens, the lab is taken down.

mod catalogue;
mod pulse;

pub use catalogue::{ALL, find};

use super::report::human;
use super::spec::{Discovery, LabSpec};
use super::topology::Topology;
use super::tour::{Progress, Step};
use super::{Lab, LabError, Stop};
use crate::control::request::{PeerStatus, Request, Response};
use crate::wire::way;
use pulse::Pulse;
use serde::Serialize;
use std::fmt;
use std::time::{Duration, Instant};

/// How long a ping is tried before everything is looked at anew, and how long one that must fail: a few tries, of which
/// a bad line leaves one.
const PING: Duration = Duration::from_millis(1500);
/// Between two looks at what is expected.
const PAUSE: Duration = Duration::from_millis(50);
/// The first step: building, before which nothing can be expected.
const BUILD: &str = "hosts and daemons";
/// The last step.
const CLEAN_UP: &str = "clean-up";

/// A topology with what happens on it.
#[derive(Debug)]
pub struct Scene {
    /// What it is called: `weft lab --topology NAME`.
    pub name: &'static str,
    /// What it shows, in a sentence.
    pub about: &'static str,
    /// What it looks like, on lines of its own.
    pub picture: &'static str,
    /// Its topology.
    pub topology: fn() -> Topology,
    /// What the daemons' files say of the other hosts.
    pub discovery: Discovery,
    /// Hosts between whose first containers a TCP connection outlives all acts.
    pub pulse: Option<(usize, usize)>,
    /// What happens. The first changes nothing: it says what holds from the beginning.
    pub acts: &'static [Act],
}

/// One thing that happens.
#[derive(Debug)]
pub struct Act {
    /// What.
    pub what: &'static str,
    /// How.
    pub change: fn(&mut Lab, &Stop) -> Result<(), LabError>,
    /// What holds then, all at once.
    pub expect: &'static [Expect],
    /// After how long at most.
    pub within: Duration,
}

/// What is expected. Hosts are counted from 1; what is said of a pair holds both ways.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// The first containers of all hosts reach each other with pings of so many bytes.
    Everybody(usize),
    /// Those of these hosts do.
    Among(&'static [usize]),
    /// Those of two hosts do not.
    Parted(usize, usize),
    /// Two daemons speak by a path of this kind.
    By(usize, usize, Kind),
    /// The path between two daemons carries packets of so many bytes.
    PathMtu(usize, usize, u16),
}

/// What kind of path leads to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// None: there is no session.
    None,
    /// UDP to its own endpoint.
    Direct,
    /// Through other members.
    Relayed,
    /// A TCP connection.
    Stream,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "none",
            Self::Direct => "direct",
            Self::Relayed => "relayed",
            Self::Stream => "stream",
        })
    }
}

impl fmt::Display for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Everybody(size) => write!(f, "everybody reaches everybody with {size} bytes"),
            Self::Among(hosts) => {
                let hosts: Vec<String> = hosts.iter().map(|h| format!("h{h}")).collect();
                write!(f, "{} reach each other", hosts.join(", "))
            }
            Self::Parted(a, b) => write!(f, "h{a} and h{b} do not reach each other"),
            Self::By(a, b, kind) => write!(f, "h{a} and h{b} speak by a {kind} path"),
            Self::PathMtu(a, b, mtu) => write!(f, "the path between h{a} and h{b} carries {mtu} bytes"),
        }
    }
}

/// How one container reaches another.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pair {
    /// The one that pings.
    pub from: String,
    /// The one that is pinged.
    pub to: String,
    /// The round trip; `None` when nothing came back.
    pub rtt_ms: Option<f64>,
    /// The kind of path from daemon to daemon.
    pub kind: Kind,
    /// The path as the daemon describes it.
    pub path: String,
    /// What it carries.
    pub path_mtu: Option<u16>,
}

/// What became of one act.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Played {
    /// What happened, whether what was expected held, and after how long.
    #[serde(flatten)]
    pub step: Step,
    /// After how long everything expected held.
    pub took_ms: Option<u64>,
    /// The longest pause of the TCP connection.
    pub pause_ms: Option<u64>,
    /// How the containers reached each other then.
    pub pairs: Vec<Pair>,
}

/// What became of a scene.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Report {
    /// Its name.
    pub topology: String,
    /// Whether every act held.
    pub ok: bool,
    /// The acts, in their order; building and taking down around them.
    pub acts: Vec<Played>,
}

impl Scene {
    /// The lab it is played in, with one container on each host.
    pub fn spec(&self, name: impl Into<String>) -> LabSpec {
        LabSpec { discovery: self.discovery, ..LabSpec::routed(name, (self.topology)(), 1) }
    }

    /// What is reported of it where no lab can be had.
    pub fn impossible(&self, error: &LabError) -> Report {
        let step = Step { name: BUILD.to_owned(), ok: false, detail: error.to_string() };
        let acts = vec![Played { step, took_ms: None, pause_ms: None, pairs: Vec::new() }];
        Report { topology: self.name.to_owned(), ok: false, acts }
    }

    /// Builds the lab and plays all acts. After one that fails the others are still played.
    pub fn play(&self, spec: LabSpec, stop: &Stop, progress: &mut dyn FnMut(Progress<'_>)) -> Report {
        let mut play = Play { lab: None, pulse: None, stop, progress, played: Vec::new() };
        play.step(BUILD, |play| {
            let begun = Instant::now();
            let lab = Lab::build(spec, stop)?;
            let text = format!("{} hosts, ready in {}", lab.hosts().len(), human(begun.elapsed()));
            play.lab = Some(lab);
            Ok(Outcome { text, ..Outcome::default() })
        });
        if play.lab.is_some() {
            for act in self.acts {
                play.step(act.what, |play| play.act(self, act));
            }
        }
        play.step(CLEAN_UP, |play| {
            let begun = Instant::now();
            (play.pulse, play.lab) = (None, None);
            Ok(Outcome { text: format!("nothing left after {}", human(begun.elapsed())), ..Outcome::default() })
        });
        let ok = play.played.iter().all(|played| played.step.ok) && !stop.is_set();
        Report { topology: self.name.to_owned(), ok, acts: play.played }
    }
}

/// What an act came to.
#[derive(Debug, Default)]
struct Outcome {
    text: String,
    took: Option<Duration>,
    pause: Option<Duration>,
    pairs: Vec<Pair>,
}

struct Play<'a> {
    lab: Option<Lab>,
    pulse: Option<Pulse>,
    stop: &'a Stop,
    progress: &'a mut dyn FnMut(Progress<'_>),
    played: Vec<Played>,
}

impl Play<'_> {
    fn step(&mut self, name: &str, run: impl FnOnce(&mut Self) -> Result<Outcome, LabError>) {
        // Somebody wants us to end: there is nothing but the clean-up left to do.
        if self.stop.is_set() && name != CLEAN_UP {
            return;
        }
        (self.progress)(Progress::Begin(name));
        let (ok, outcome) = match run(self) {
            Ok(outcome) => (true, outcome),
            // How the others fare says more about a failure than the failure itself.
            Err(error) => {
                let pairs = self.lab.as_ref().map(pairs).unwrap_or_default();
                (false, Outcome { text: error.to_string(), pairs, ..Outcome::default() })
            }
        };
        let Outcome { text, took, pause, pairs } = outcome;
        let step = Step { name: name.to_owned(), ok, detail: text };
        (self.progress)(Progress::End(&step));
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.played.push(Played { step, took_ms: took.map(ms), pause_ms: pause.map(ms), pairs });
    }

    fn act(&mut self, scene: &Scene, act: &Act) -> Result<Outcome, LabError> {
        let stop = self.stop;
        let Some(lab) = &mut self.lab else { return Err(LabError::Refused("there is no lab".to_owned())) };
        (act.change)(lab, stop)?;
        let changed = Instant::now();
        while let Some(why) = missing(lab, act.expect)? {
            stop.check()?;
            if changed.elapsed() > act.within {
                return Err(LabError::Refused(format!("not within {}: {why}", human(act.within))));
            }
            std::thread::sleep(PAUSE);
        }
        let took = changed.elapsed();
        if took > act.within {
            return Err(LabError::Refused(format!("after {}, not within {}", human(took), human(act.within))));
        }
        let mut text = format!("{} after {}", list(act.expect), human(took));
        if let (Some((from, to)), None) = (scene.pulse, &self.pulse) {
            let (from, to) = (lab.container(from, 1), lab.container(to, 1));
            self.pulse = Some(Pulse::start(&from.netns, &to.netns, to.v4.into())?);
        }
        let pause = match &self.pulse {
            Some(pulse) => Some(moved(pulse, Instant::now(), act.within, stop)?),
            None => None,
        };
        if let Some(pause) = pause {
            text.push_str(&format!("; TCP paused for {} at most", human(pause)));
        }
        Ok(Outcome { text, took: Some(took), pause, pairs: pairs(lab) })
    }
}

/// Waits until the connection has moved after `since`, for twice `within`: TCP waits longer and longer between two tries.
fn moved(pulse: &Pulse, since: Instant, within: Duration, stop: &Stop) -> Result<Duration, LabError> {
    let deadline = Instant::now() + 2 * within;
    while !pulse.moved_since(since)? {
        stop.check()?;
        if Instant::now() > deadline {
            return Err(LabError::Refused("the TCP connection stands still".to_owned()));
        }
        std::thread::sleep(PAUSE);
    }
    Ok(pulse.longest_pause())
}

fn list(expect: &[Expect]) -> String {
    expect.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// The first of what is expected that does not hold.
fn missing(lab: &Lab, expect: &[Expect]) -> Result<Option<String>, LabError> {
    for expected in expect {
        let all: Vec<usize> = (1..=lab.hosts().len()).collect();
        let why = match *expected {
            Expect::Everybody(size) => unreached(lab, &all, size),
            Expect::Among(hosts) => unreached(lab, hosts, 56),
            Expect::Parted(a, b) => {
                let reached = unreached(lab, &[a, b], 56).is_none();
                reached.then(|| format!("h{a} and h{b} reach each other"))
            }
            Expect::By(a, b, kind) => both(lab, a, b, &expected.to_string(), |path| path.kind == kind),
            Expect::PathMtu(a, b, mtu) => both(lab, a, b, &expected.to_string(), |path| path.mtu == Some(mtu)),
        };
        if why.is_some() {
            return Ok(why);
        }
    }
    Ok(None)
}

/// The first of the hosts' containers that does not reach another; all are tried at once.
fn unreached(lab: &Lab, hosts: &[usize], size: usize) -> Option<String> {
    std::thread::scope(|scope| {
        let pairs = hosts.iter().flat_map(|&from| hosts.iter().map(move |&to| (from, to)));
        let pings: Vec<_> = pairs
            .filter(|(from, to)| from != to)
            .map(|(from, to)| scope.spawn(move || ping(lab, from, to, size)))
            .collect();
        let outcomes: Vec<_> = pings.into_iter().map(super::generator::joined).collect();
        outcomes.into_iter().find_map(|outcome| outcome.err().map(|error| error.to_string()))
    })
}

fn ping(lab: &Lab, from: usize, to: usize, size: usize) -> Result<Duration, LabError> {
    lab.container(from, 1).ping(lab.container(to, 1).v4.into(), size, PING)
}

/// Whether the paths between two daemons are as they should be, seen from both.
fn both(lab: &Lab, a: usize, b: usize, expected: &str, good: impl Fn(&Path) -> bool) -> Option<String> {
    [(a, b), (b, a)].into_iter().find_map(|(from, to)| {
        let path = path(lab, from, to);
        (!good(&path)).then(|| {
            let mtu = path.mtu.map_or_else(String::new, |mtu| format!(", {mtu} bytes"));
            format!("{expected}; h{from} has for h{to}: {} ({}{mtu})", path.kind, path.text)
        })
    })
}

/// How a daemon reaches a peer.
#[derive(Debug)]
struct Path {
    kind: Kind,
    text: String,
    mtu: Option<u16>,
}

/// How the daemon of host `from` reaches that of host `to`; a daemon that does not answer reaches nobody.
fn path(lab: &Lab, from: usize, to: usize) -> Path {
    let name = &lab.host(to).name;
    let none = |text: &str| Path { kind: Kind::None, text: text.to_owned(), mtu: None };
    match lab.host(from).control(&Request::Peers) {
        Ok(Response::Peers(peers)) => {
            peers.iter().find(|peer| peer.name == *name).map_or_else(|| none("unknown"), describe)
        }
        _ => none("no daemon"),
    }
}

/// A peer's endpoint says by which kind of way it is reached (see [`way`]).
fn describe(peer: &PeerStatus) -> Path {
    let mtu = Some(peer.path_mtu);
    match peer.endpoint {
        _ if peer.state != "up" => Path { kind: Kind::None, text: peer.state.clone(), mtu: None },
        None => Path { kind: Kind::None, text: "no endpoint".to_owned(), mtu: None },
        Some(endpoint) => {
            let kind = if way::stream_of(&endpoint).is_some() {
                Kind::Stream
            } else if endpoint.ip() == peer.tunnel_address {
                Kind::Relayed
            } else {
                Kind::Direct
            };
            Path { kind, text: endpoint.to_string(), mtu }
        }
    }
}

/// How each container reaches each other.
fn pairs(lab: &Lab) -> Vec<Pair> {
    let all = 1..=lab.hosts().len();
    let pairs: Vec<(usize, usize)> =
        all.clone().flat_map(|from| all.clone().map(move |to| (from, to))).filter(|(from, to)| from != to).collect();
    std::thread::scope(|scope| {
        let looks: Vec<_> = pairs.iter().map(|&(from, to)| scope.spawn(move || pair(lab, from, to))).collect();
        looks.into_iter().map(super::generator::joined).collect()
    })
}

fn pair(lab: &Lab, from: usize, to: usize) -> Pair {
    let rtt = ping(lab, from, to, 56).ok();
    let path = path(lab, from, to);
    Pair {
        from: lab.container(from, 1).name.clone(),
        to: lab.container(to, 1).name.clone(),
        rtt_ms: rtt.map(|rtt| (rtt.as_secs_f64() * 1e5).round() / 100.0),
        kind: path.kind,
        path: path.text,
        path_mtu: path.mtu,
    }
}
