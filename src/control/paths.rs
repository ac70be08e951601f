//! How peers are reached, for people: `weft paths`, and the same in `weft peers`.

use super::peers::PeerEntry;
use super::request::{CandidateStatus, PathStatus};
use super::{Control, Host};
use crate::mesh::path::Basis;
use crate::mesh::paths::{Kind, PathState, PathView};
use std::time::{Duration, Instant};

impl<H: Host> Control<H> {
    /// How each peer is reached, or one.
    pub(super) fn path_statuses(&self, now: Instant, peer: Option<&str>) -> Vec<PathStatus> {
        let asked = |entry: &&PeerEntry| peer.is_none_or(|name| name == entry.config.name);
        self.peers.values().filter(asked).map(|entry| self.path_status(now, entry)).collect()
    }

    /// How one peer is reached.
    pub(super) fn path_status(&self, now: Instant, entry: &PeerEntry) -> PathStatus {
        let elapsed = self.elapsed(now);
        let id = entry.peer.id;
        let views = self.mesh.paths(id);
        let live = entry.peer.tunnel().is_live();
        let chosen = views.iter().find(|view| view.chosen.is_some()).filter(|_| live);
        let share = |share: Option<f32>| share.map(|share| f64::from(share) * 100.0);
        let view = self.mesh.peer(id);
        PathStatus {
            peer: entry.config.name.clone(),
            path: chosen.map_or("none", |view| name_of(view.kind)).to_owned(),
            via: chosen.map(|view| self.name_of_way(entry, view)),
            since_s: chosen.and_then(|view| view.chosen).map(|since| elapsed.saturating_sub(since).as_secs()),
            rtt_ms: chosen.and_then(|view| view.round_trip).map(milliseconds),
            loss_percent: chosen.and_then(|view| share(view.loss)),
            reordering_percent: chosen.and_then(|view| share(view.reordering)),
            path_mtu: view.map_or(crate::wire::MIN_PATH_MTU, |view| view.path_mtu),
            path_mtu_source: name_of_basis(view.map(|view| view.basis)).to_owned(),
            why: match chosen {
                Some(_) => self.mesh.why_not_better(elapsed, id).unwrap_or_default(),
                None => self.why_none(entry, &views),
            },
            candidates: views.iter().map(|view| self.candidate_status(elapsed, entry, view)).collect(),
        }
    }

    fn candidate_status(&self, elapsed: Duration, entry: &PeerEntry, view: &PathView) -> CandidateStatus {
        let ago = |since: Duration| elapsed.saturating_sub(since).as_secs();
        let state = match view.state {
            PathState::Untested => "not tried".to_owned(),
            PathState::Live(since) => format!("answers for {} s", ago(since)),
            PathState::Silent(since) => format!("silent for {} s", ago(since)),
        };
        CandidateStatus {
            way: self.name_of_way(entry, view),
            source: view.source.name().to_owned(),
            state: if view.chosen.is_some() { format!("in use, {state}") } else { state },
            rtt_ms: view.round_trip.map(milliseconds),
            loss_percent: view.loss.map(|share| f64::from(share) * 100.0),
        }
    }

    fn name_of_way(&self, entry: &PeerEntry, view: &PathView) -> String {
        match view.kind {
            Kind::Direct => view.way.to_string(),
            Kind::Stream => "TCP".to_owned(),
            Kind::Relayed => self.relay_of(&entry.config.public_key).unwrap_or_else(|| "other members".to_owned()),
        }
    }

    /// Why a peer is not reached at all.
    fn why_none(&self, entry: &PeerEntry, views: &[PathView]) -> String {
        let member = self.members.membership.member(&entry.config.public_key);
        match member {
            _ if entry.peer.tunnel().is_trying() => format!("nothing answers on {} ways", views.len()),
            Some(view) if !view.alive => "the member is gone".to_owned(),
            Some(_) => "not needed: a tunnel is made when there is something to send".to_owned(),
            None if views.is_empty() => "no address is known".to_owned(),
            None => "nothing was sent yet".to_owned(),
        }
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn name_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Direct => "direct",
        Kind::Relayed => "relayed",
        Kind::Stream => "tcp",
    }
}

/// Where a path MTU comes from, in a word.
pub(super) fn name_of_basis(basis: Option<Basis>) -> &'static str {
    match basis {
        Some(Basis::Probed) => "probed",
        Some(Basis::Configured) => "configured",
        Some(Basis::Given) => "given",
        Some(Basis::Assumed) | None => "assumed",
    }
}
