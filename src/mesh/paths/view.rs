//! What an operator is told about the ways to a peer.

use super::candidate::Candidate;
use super::{Kind, Paths, Source};
use crate::mesh::path::Basis;
use std::net::SocketAddr;
use std::time::Duration;

/// How often the share of lost packets is taken from the counters.
const WINDOW: Duration = Duration::from_secs(5);

/// Probes of which a share is worth telling.
const ENOUGH: u32 = 8;

/// Whether a way works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathState {
    /// It was not probed in this session, or not for long enough.
    Untested,
    /// It answers, since then.
    Live(Duration),
    /// It does not answer, since then.
    Silent(Duration),
}

/// One way to a peer.
#[derive(Debug, Clone, PartialEq)]
pub struct PathView {
    /// The way.
    pub way: SocketAddr,
    /// Its kind.
    pub kind: Kind,
    /// How it became known.
    pub source: Source,
    /// Whether the tunnel uses it, and since when.
    pub chosen: Option<Duration>,
    /// Whether it works.
    pub state: PathState,
    /// Smoothed round-trip time, once measured in this session.
    pub round_trip: Option<Duration>,
    /// The share of lost probes, there and back; of the chosen way, the share of lost packets if there were many.
    pub loss: Option<f32>,
    /// The share of packets that overtook others on their way to us; only of the chosen way, and if there were many.
    pub reordering: Option<f32>,
    /// The MTU of the underlay; of a relayed way or a stream, that of an underlay that would carry as much.
    pub path_mtu: u16,
    /// Where that comes from.
    pub basis: Basis,
    /// Members between us.
    pub hops: u8,
}

/// Counters of a peer's data, and shares of the latest of it.
#[derive(Debug, Default)]
pub(super) struct Reception {
    counted: Option<(Duration, [u64; 3])>,
    lost: Option<f32>,
    reordered: Option<f32>,
}

impl Reception {
    pub(super) fn note(&mut self, now: Duration, received: u64, lost: u64, reordered: u64) {
        let counts = [received, lost, reordered];
        let Some((since, before)) = self.counted else {
            self.counted = Some((now, counts));
            return;
        };
        if now.saturating_sub(since) < WINDOW {
            return;
        }
        self.counted = Some((now, counts));
        // Another session counts from zero.
        let [received, lost, reordered] = [0, 1, 2].map(|n| counts[n].saturating_sub(before[n]) as f32);
        let all = received + lost;
        let enough = all >= 100.0;
        self.lost = enough.then(|| lost / all);
        self.reordered = enough.then(|| reordered / all);
    }
}

impl Paths {
    /// All ways, the chosen one first, then the others as they would be tried.
    pub(in crate::mesh) fn views(&self) -> Vec<PathView> {
        let mut ordered: Vec<&Candidate> = self.candidates.iter().collect();
        let chosen = |candidate: &Candidate| Some(candidate.number) == self.current;
        ordered.sort_by(|a, b| chosen(b).cmp(&chosen(a)).then(a.rank().cmp(&b.rank())).then(a.urgency(b)));
        ordered.into_iter().map(|candidate| self.view(candidate)).collect()
    }

    fn view(&self, candidate: &Candidate) -> PathView {
        let chosen = Some(candidate.number) == self.current;
        let pulse = &candidate.pulse;
        PathView {
            way: candidate.way,
            kind: candidate.kind,
            source: candidate.source(),
            chosen: chosen.then_some(self.since),
            state: match (pulse.live, pulse.silent) {
                (_, Some(since)) => PathState::Silent(since),
                (Some(since), None) => PathState::Live(since),
                (None, None) => PathState::Untested,
            },
            round_trip: pulse.round_trip(),
            loss: self.reception.lost.filter(|_| chosen).or_else(|| pulse.loss(ENOUGH)),
            reordering: self.reception.reordered.filter(|_| chosen),
            path_mtu: candidate.path_mtu(),
            basis: candidate.basis(),
            hops: candidate.route.map_or(0, |route| route.hops),
        }
    }

    /// Why no better way is used, in words; nothing if the way is direct, or there is none.
    pub(in crate::mesh) fn why_not_better(&self, now: Duration) -> Option<String> {
        let current = self.current()?;
        if current.kind == Kind::Direct {
            return None;
        }
        let ago = |then: Duration| format!("{} s", now.saturating_sub(then).as_secs());
        let mut direct: Vec<&Candidate> =
            self.candidates.iter().filter(|candidate| candidate.kind == Kind::Direct).collect();
        direct.sort_by(|a, b| a.urgency(b));
        let direct = match direct.first() {
            None => "no underlay address of the peer is known".to_owned(),
            Some(first) => {
                let more = match direct.len() - 1 {
                    0 => String::new(),
                    more => format!(" and {more} more"),
                };
                let verb = if more.is_empty() { "does" } else { "do" };
                match (first.pulse.silent, first.pulse.is_live()) {
                    (Some(since), _) => format!("direct {}{more} {verb} not answer since {}", first.way, ago(since)),
                    (None, true) => format!("direct {} answers, and is being compared", first.way),
                    (None, false) if first.pulse.asked.is_some() => {
                        format!("direct {}{more} {verb} not answer", first.way)
                    }
                    (None, false) => format!("direct {}{more} not tried while the tunnel is idle", first.way),
                }
            }
        };
        let relay = self.candidates.iter().find(|candidate| candidate.kind == Kind::Relayed);
        Some(match (current.kind, relay) {
            (Kind::Stream, None) => format!("{direct}; no member relays to it"),
            (Kind::Stream, Some(relay)) if relay.pulse.silent.is_some() => {
                format!("{direct}; the relayed way does not answer")
            }
            _ => direct,
        })
    }
}
