//! The ways to one peer, and which of them its tunnel uses.
//!
//! A peer may be reached at many underlay addresses, through other members, and over a TCP connection
//! ([`crate::wire::way`]). Each is a *candidate*. Small probes inside the existing session go out over a candidate and
//! are answered where they came from; what was answered works in both directions ([`pulse`]). Of those that work, one
//! is *chosen*: direct ways before relayed ones before a stream, and among equals the shorter round trip
//! ([`candidate`]). Each side chooses for itself what it sends over.
//!
//! ```text
//!   used, or a neighbour        nothing answered for 1 s          3 probes lost (more on a lossy way)
//!  idle ────────────► chosen ───────────────────► doubted ────────────────────────► silent: the best that answers,
//!   nothing is sent     │ ▲                        │ its probes, then all others'     else a relay, is chosen
//!                       │ └────────────────────────┘ an answer
//!                       └─ another beats it three answers in a row: that one is chosen, at most once in 5 s
//! ```
//!
//! *Who is probed.* Nobody, as long as the tunnel is idle. While it carries frames the chosen way is probed once a second
//! (direct ones by [`PathMtu`]) and the others every [`LOOK_AROUND`]; with a neighbour that is idle, every
//! [`LOOK_AROUND_IDLE`]. When the chosen way is doubted everything is probed every [`BEAT`].
//!
//! *NATs and firewalls* let in what answers something that went out. While no direct way works both sides therefore probe
//! all addresses of the other at the same moment, which they agree on by a *punch* message over the way that works:
//! every [`PUNCH_EVERY`] while in use. A probe that arrives from an address that was not known makes that a candidate,
//! which is probed in turn; so it is enough if one side's NAT is a friendly one.
//!
//! *Stock WireGuard* answers no probes. Until a peer has said hello its tunnel roams as WireGuard's do, and this here only
//! looks for the MTU of the way it is on.
//!
//! Everything is bounded: candidates ([`MAX_DIRECT`]), probes (8 in a beat), and what a peer tells
//! (addresses that a probe may go to, nothing else).

mod candidate;
mod choice;
mod known;
mod pulse;
mod schedule;
mod view;

pub use candidate::{Kind, RelayRoute, STREAM_LIMIT, Source};
pub use schedule::{BEAT, LOOK_AROUND, LOOK_AROUND_IDLE, PUNCH_EVERY};
pub use view::{PathState, PathView};

use super::path::{Basis, MAX_TOKEN, PathMtu};
use candidate::Candidate;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use view::Reception;

/// Direct ways to one peer: what four sources know.
pub const MAX_DIRECT: usize = 32;
/// Ways that one source knows: a handful of interfaces of both families.
pub const MAX_OF_SOURCE: usize = 8;
/// Endpoints one initiation is sent to at most.
pub const MAX_HANDSHAKES: usize = 8;

/// What there is to do for a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Act {
    /// Send a probe, in an underlay packet of `size` bytes if it matters, over `via` or where the tunnel leads.
    Probe { token: u64, size: Option<(u16, bool)>, via: Option<SocketAddr> },
    /// Tell the peer our addresses, over the chosen way.
    Punch { reply_wanted: bool },
    /// The tunnel uses this way.
    Choose(SocketAddr),
    /// Nobody chooses for the tunnel.
    Release,
    /// A TCP connection is needed.
    WantStream,
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Paths {
    theirs: Ipv4Addr,
    configured: Option<u16>,
    candidates: Vec<Candidate>,
    next_number: u32,
    /// The number of the candidate that the tunnel uses.
    current: Option<u32>,
    /// Since when.
    since: Duration,
    /// When it was last changed though it worked.
    moved: Option<Duration>,
    /// What is known of the MTU while there is no way.
    nowhere: PathMtu,
    up: bool,
    /// When the session began.
    began: Duration,
    /// We choose: the peer is weft.
    held: bool,
    /// It is a neighbour, or wanted at hand for another reason.
    kept: bool,
    /// When the tunnel last carried frames.
    used: Option<Duration>,
    /// Whether ways, and the path MTU, are looked after, as of the last tick.
    awake: bool,
    watching: bool,
    /// When the next beat is due.
    beat: Duration,
    doubted: Option<Duration>,
    burst: Option<Duration>,
    /// Since when there is no direct way, or nothing better than a stream.
    indirect: Option<Duration>,
    stranded: Option<Duration>,
    punch_due: Duration,
    stream_due: Duration,
    reception: Reception,
    acts: Vec<Act>,
}

impl Paths {
    pub(super) fn new(theirs: Ipv4Addr, configured: Option<u16>) -> Self {
        Self {
            theirs,
            configured,
            candidates: Vec::new(),
            next_number: 1,
            current: None,
            since: Duration::ZERO,
            moved: None,
            nowhere: PathMtu::new(configured),
            up: false,
            began: Duration::ZERO,
            held: false,
            kept: false,
            used: None,
            awake: false,
            watching: false,
            beat: Duration::ZERO,
            doubted: None,
            burst: None,
            indirect: None,
            stranded: None,
            punch_due: Duration::ZERO,
            stream_due: Duration::ZERO,
            reception: Reception::default(),
            acts: Vec::new(),
        }
    }

    // ---- candidates -----------------------------------------------------------------------------------------------

    fn find(&self, way: SocketAddr) -> Option<&Candidate> {
        self.candidates.iter().find(|candidate| candidate.way == way)
    }

    fn numbered_mut(&mut self, number: u32) -> Option<&mut Candidate> {
        self.candidates.iter_mut().find(|candidate| candidate.number == number)
    }

    fn current(&self) -> Option<&Candidate> {
        self.candidates.iter().find(|candidate| Some(candidate.number) == self.current)
    }

    fn current_mut(&mut self) -> Option<&mut Candidate> {
        self.candidates.iter_mut().find(|candidate| Some(candidate.number) == self.current)
    }

    // ---- what happens ---------------------------------------------------------------------------------------------

    /// There is a session.
    pub(super) fn session_up(&mut self, now: Duration) {
        if self.up {
            return;
        }
        self.up = true;
        self.candidates.iter_mut().for_each(|candidate| candidate.pulse.restart());
        (self.indirect, self.stranded, self.doubted, self.burst) = (None, None, None, None);
        (self.began, self.since, self.beat, self.moved) = (now, now, now, None);
        (self.punch_due, self.stream_due) = (now, now);
        if let Some(current) = self.current_mut().filter(|current| current.is_measured()) {
            current.mtu.start(now);
        }
        if self.held {
            self.hold(now);
        }
    }

    /// There is none.
    pub(super) fn session_down(&mut self) {
        if self.up {
            self.up = false;
            (self.awake, self.watching) = (false, false);
            self.stranded = None;
            self.candidates.iter_mut().for_each(|candidate| candidate.mtu.stop());
        }
    }

    /// The peer said hello: its tunnel stays on the way it is on until another one is chosen.
    pub(super) fn hold(&mut self, now: Duration) {
        self.held = true;
        self.beat = now;
        match self.current() {
            Some(current) => self.acts.push(Act::Choose(current.way)),
            None if self.up => self.leave(now),
            None => {}
        }
    }

    /// The peer is not known to be weft.
    pub(super) fn release(&mut self) {
        if self.held {
            self.held = false;
            self.acts.push(Act::Release);
        }
    }

    /// The tunnel is on this way, whoever led it there. Where we choose, that was the peer's frames, which come over
    /// another way than ours because it chose so, or because it noticed first that ours is dead.
    pub(super) fn rerouted(&mut self, now: Duration, endpoint: Option<SocketAddr>) {
        if self.way() == endpoint {
            return;
        }
        let works = self.current().is_some_and(|current| current.pulse.is_live());
        if self.held && self.up && works && self.doubted.is_none() {
            return self.acts.extend(self.way().map(Act::Choose));
        }
        self.stop_mtu();
        self.current = None;
        if let Some(way) = endpoint
            && let Some(number) = self.add(now, way, Source::Heard).or_else(|| self.squeeze(now, way))
        {
            self.adopt(now, number);
        }
    }

    /// The tunnel carried frames of ours.
    pub(super) fn used(&mut self, now: Duration) {
        self.used = Some(now);
        if let Some(current) = self.current_mut() {
            current.mtu.used(now);
        }
    }

    /// Whether it is a neighbour, whose ways are looked after even when it is idle.
    pub(super) fn set_keep(&mut self, kept: bool) {
        self.kept = kept;
    }

    /// A datagram over `way` was larger than the interface carries.
    pub(super) fn too_big(&mut self, now: Duration, way: SocketAddr, size: u16) {
        if let Some(candidate) = self.candidates.iter_mut().find(|candidate| candidate.way == way) {
            candidate.mtu.too_big(now, size);
        }
    }

    /// A probe came over `way`: what it came over may be a way, and the peer is awake.
    pub(super) fn probed(&mut self, now: Duration, way: SocketAddr) {
        self.heard(now, way, false);
        let live = self.find(way).is_some_and(|candidate| candidate.pulse.is_live());
        if !live && self.held && self.up {
            self.triggered(now, way);
        }
    }

    /// A probe was answered. Returns over which way it went, if such a probe is out.
    pub(super) fn acked(&mut self, now: Duration, token: u64) -> Option<SocketAddr> {
        let number = (token >> 32) as u32;
        let candidate = self.candidates.iter_mut().find(|candidate| candidate.number == number)?;
        let way = candidate.way;
        if token & PULSE != 0 {
            if !candidate.pulse.answer(now, (token & MAX_TOKEN) as u32) {
                return None;
            }
            if Some(number) == self.current && candidate.is_measured() {
                candidate.mtu.wake(now);
            }
        } else {
            let round_trip = candidate.mtu.acked(now, token & MAX_TOKEN)?;
            candidate.pulse.measured(now, round_trip);
        }
        if self.held && self.up {
            self.weigh(now, number);
        }
        Some(way)
    }

    /// The peer asks for simultaneous probes and may be reached there.
    pub(super) fn punched(&mut self, now: Duration, addresses: &[SocketAddr], reply_wanted: bool) {
        if !self.held || !self.up {
            return;
        }
        self.set_candidates(now, Source::Told, addresses);
        if self.burst.is_none_or(|begun| now.saturating_sub(begun) >= schedule::BURST_AGAIN) {
            self.burst(now);
            if reply_wanted {
                self.acts.push(Act::Punch { reply_wanted: false });
            }
        }
    }

    /// What the peer's data counters say of the way in: packets received, lost and out of order since the session began.
    pub(super) fn reception(&mut self, now: Duration, received: u64, lost: u64, reordered: u64) {
        self.reception.note(now, received, lost, reordered);
    }

    // ---- what is --------------------------------------------------------------------------------------------------

    /// What is to be done.
    pub(super) fn take_acts(&mut self) -> Vec<Act> {
        std::mem::take(&mut self.acts)
    }

    /// The way the tunnel uses.
    pub(super) fn way(&self) -> Option<SocketAddr> {
        self.current().map(|current| current.way)
    }

    /// Where messages to the peer go: over the chosen way, or wherever the tunnel leads.
    pub(super) fn via(&self) -> Option<SocketAddr> {
        self.way().filter(|_| self.held)
    }

    /// MTU of the underlay, where it comes from, the largest inner packet, and what that will probably be.
    pub(super) fn mtu(&self) -> (u16, Basis, usize, usize) {
        match self.current() {
            Some(current) => {
                let (limit, expected) = current.limits();
                (current.path_mtu(), current.basis(), limit, expected)
            }
            None => {
                let limit = |mtu: u16| super::inner_limit(mtu, false);
                let nowhere = &self.nowhere;
                (nowhere.mtu(), nowhere.basis(), limit(nowhere.mtu()), limit(nowhere.expected()))
            }
        }
    }

    /// Whether it is ours to choose the way.
    pub(super) fn is_held(&self) -> bool {
        self.held
    }

    /// The smoothed round-trip time of the chosen way.
    pub(super) fn round_trip(&self) -> Option<Duration> {
        self.current()?.pulse.round_trip()
    }

    /// Where initiations go, the likeliest first. With those that are neither relayed nor streams, the best of these.
    pub(super) fn handshake_candidates(&self) -> Vec<SocketAddr> {
        let mut ordered: Vec<&Candidate> = self.candidates.iter().collect();
        ordered.sort_by(|a, b| a.urgency(b));
        let (direct, mut detours): (Vec<&Candidate>, Vec<&Candidate>) =
            ordered.into_iter().partition(|candidate| candidate.kind == Kind::Direct);
        detours.sort_by_key(|candidate| candidate.rank());
        detours.truncate(2);
        let room = MAX_HANDSHAKES - detours.len();
        direct.into_iter().take(room).chain(detours).map(|candidate| candidate.way).collect()
    }
}

/// The bit of a token that tells a pulse's from a path MTU's.
const PULSE: u64 = 1 << 31;

fn token(number: u32, sequence: u64, pulse: bool) -> u64 {
    u64::from(number) << 32 | if pulse { PULSE } else { 0 } | sequence & MAX_TOKEN
}
