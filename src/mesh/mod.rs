//! What members tell each other of themselves, and over which way they reach each other.
//!
//! [`Mesh`] is a value that the control plane drives: sessions going up and down, messages that came out of tunnels
//! and the time go in; packets for tunnels, news and a deadline come out. Messages travel inside the tunnels, so
//! their sender is authentic; it may still be hostile, and everything it says is bounded in size and rate.
//!
//! *Hello* carries a member's capabilities, its networks and its incarnation, a number made up at each start. It is
//! sent when a session comes up and when the networks change, then wants an answer and is repeated until one comes;
//! and every [`HELLO_EVERY`] as a reminder, as long as the tunnel carries frames or the peer is to be kept at hand: idle
//! tunnels are left to end. A peer that never sent one is not weft (a stock WireGuard host) or has not spoken yet.
//! *Probe* and *probe ack* find which ways to a peer work ([`paths`]) and how large a packet crosses ([`path`]); *punch*
//! opens NATs.
//!
//! What a peer said outlives its session: a session that comes back a second later continues where it was. It does
//! not outlive [`GREETING_LASTS`] of silence while the tunnel is used: whoever has the peer's key by then may be no weft, and
//! would get frames with checksums left to it that it does not finish.
//!
//! `P` is whatever the caller names peers by. Time is what has passed since the daemon started.

pub mod beacon;
pub mod document;
pub mod facts;
pub mod fetch;
pub mod gossip;
pub mod graph;
pub mod ledger;
pub mod listeners;
pub mod membership;
pub mod outbox;
pub mod path;
pub mod paths;
mod peer;
pub mod pulse;
mod reflexive;
pub mod ring;
pub mod stations;
pub mod store;
#[cfg(test)]
mod tests;

pub use reflexive::Nat;

use crate::wire::cidr::Cidr;
use crate::wire::message::{self, Message};
use crate::wire::vxlan::{IPV4_LEN, UDP_LEN};
use crate::wire::{UNDERLAY_OVERHEAD_V4, UNDERLAY_OVERHEAD_V6, WIREGUARD_OVERHEAD};
use path::Basis;
use paths::{Act, Kind, PathView, RelayRoute, Source};
use peer::{Hello, Peer};
use reflexive::Reflexive;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// How often a member says hello while a session is up. It also keeps a NAT's mapping open (RFC 4787 REQ-5: 2 min).
pub const HELLO_EVERY: Duration = Duration::from_secs(15);
/// How long a greeting holds without another hello in a session: three reminders and their way may be lost.
pub const GREETING_LASTS: Duration = Duration::from_secs(50);
/// Messages heeded per peer and second. The busiest second of an honest peer, in which it probes all ways since it
/// doubts the one it uses, and answers that we do the same, has about eighty.
pub const MAX_MESSAGES_PER_SECOND: u32 = 128;
/// Messages that wait to be taken; more are lost, as the network may lose them. Enough for a hello and a probe to
/// each of two thousand peers at once.
const MAX_QUEUED: usize = 4096;

/// The largest inner packet whose datagram fits `path_mtu`.
pub fn inner_limit(path_mtu: u16, underlay_v6: bool) -> usize {
    let underlay = if underlay_v6 { UNDERLAY_OVERHEAD_V6 } else { UNDERLAY_OVERHEAD_V4 };
    usize::from(path_mtu).saturating_sub(underlay + WIREGUARD_OVERHEAD)
}

/// What the control plane knows of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Our tunnel address.
    pub ours: Ipv4Addr,
    /// The peer's.
    pub theirs: Ipv4Addr,
    /// The MTU of the underlay path, where the configuration has it.
    pub path_mtu: Option<u16>,
    /// Where its tunnel leads, if anywhere.
    pub endpoint: Option<SocketAddr>,
}

/// What a peer said of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    /// What it can do, one bit each, like [`message::PARTIAL_CHECKSUM`].
    pub capabilities: u32,
    /// VNIs of its networks, ascending.
    pub networks: Vec<u32>,
    /// Another one means that it was restarted.
    pub incarnation: u64,
}

/// What is known of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerView<'a> {
    /// What it said of itself, if it ever did.
    pub greeting: Option<&'a Greeting>,
    /// The MTU of the underlay path.
    pub path_mtu: u16,
    /// Where that comes from.
    pub basis: Basis,
    /// The largest inner packet that crosses, in bytes.
    pub inner_limit: usize,
    /// What that will be if the search for the path MTU, which has only begun, finds what it nearly always finds.
    pub expected_limit: usize,
    /// Smoothed round-trip time, once measured.
    pub round_trip: Option<Duration>,
    /// The way its tunnel uses.
    pub way: Option<SocketAddr>,
}

/// What the control plane has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output<P> {
    /// Put a packet into the tunnel. If the kernel refuses it for its size, [`Mesh::too_big`] wants to know.
    Send {
        /// Whose tunnel.
        peer: P,
        /// The inner IPv4 packet.
        packet: Vec<u8>,
        /// It must not be fragmented, whatever [`PeerView::inner_limit`] says: a probe in pieces proves nothing.
        whole: bool,
        /// Over this way, without moving the tunnel's endpoint; otherwise wherever the tunnel leads.
        via: Option<SocketAddr>,
    },
    /// A peer's greeting, way or path MTU is another: publish [`Mesh::peer`].
    Changed {
        /// Which.
        peer: P,
    },
    /// The peer's tunnel uses this way until it is told otherwise. Comes again for the way in use while that answers but
    /// nothing else is heard over it: the peer's frames, which come over another, shall not move the tunnel there.
    Choose {
        /// Whose tunnel.
        peer: P,
        /// Which way.
        way: SocketAddr,
    },
    /// The peer's tunnel follows the peer, as WireGuard's do.
    Release {
        /// Whose tunnel.
        peer: P,
    },
    /// Nothing better than a stream reaches the peer: try to make a TCP connection with its host, and say
    /// [`Mesh::stream_up`] when there is one. Comes again every 10 seconds while that is so.
    WantStream {
        /// Which.
        peer: P,
    },
    /// A probe over this direct way was answered: whatever is next on it takes what we send (RFC 4861 §7.3.1).
    Answered {
        /// Which way.
        way: SocketAddr,
    },
    /// Others see us at other addresses than before: see [`Mesh::observed`].
    Observed,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Mesh<P> {
    us: Greeting,
    peers: BTreeMap<P, Peer>,
    changed: BTreeSet<P>,
    reflexive: Reflexive<P>,
    observed: bool,
    /// Whether punches are sent and heeded.
    punches: bool,
    /// Prefixes that tunnels lead to.
    inside: Vec<Cidr>,
    queue: VecDeque<Queued<P>>,
}

/// What is to be taken by [`Mesh::poll_output`].
#[derive(Debug)]
enum Queued<P> {
    /// A message, with the size of the inner packet where that matters.
    Message {
        peer: P,
        message: Message,
        size: Option<usize>,
        via: Option<SocketAddr>,
    },
    Output(Output<P>),
}

impl<P: Copy + Ord> Mesh<P> {
    /// A member without peers and networks. `incarnation` is random.
    pub fn new(incarnation: u64, capabilities: u32) -> Self {
        Self {
            us: Greeting { capabilities, networks: Vec::new(), incarnation },
            peers: BTreeMap::new(),
            changed: BTreeSet::new(),
            reflexive: Reflexive::new(),
            observed: false,
            punches: true,
            inside: Vec::new(),
            queue: VecDeque::new(),
        }
    }

    /// Says which networks we have, at most [`message::MAX_VNIS`]; peers with a session hear of a change at once.
    pub fn set_networks(&mut self, now: Duration, vnis: impl IntoIterator<Item = u32>) {
        let networks = ascending(vnis);
        if networks != self.us.networks {
            self.us.networks = networks;
            self.peers.values_mut().for_each(|peer| peer.hello = Hello::wanting_an_answer(now));
            self.tick(now);
        }
    }

    /// The prefixes of our networks: no way of the underlay leads there, whoever says so.
    pub fn set_inside(&mut self, prefixes: Vec<Cidr>) {
        self.inside = prefixes;
    }

    /// Adds a peer, without a session yet; one that is there begins anew.
    pub fn add_peer(&mut self, id: P, link: Link) {
        self.peers.insert(id, Peer::new(link));
    }

    /// Removes a peer and everything known of it.
    pub fn remove_peer(&mut self, id: P) {
        self.peers.remove(&id);
        self.changed.remove(&id);
        self.reflexive.forget(id);
    }

    /// Our own underlay addresses with our port, to be told to peers with which a NAT has to be opened.
    pub fn set_local(&mut self, addresses: &[SocketAddr]) {
        self.reflexive.set_local(addresses);
    }

    /// Tells no peer our addresses, and heeds none that a peer tells, to open a NAT.
    pub fn forgo_punching(&mut self) {
        self.punches = false;
    }

    /// The ways that `source` knows to a peer; what it knew before and does not name is forgotten.
    pub fn set_candidates(&mut self, now: Duration, id: P, source: Source, ways: &[SocketAddr]) {
        self.with_peer(now, id, |peer| peer.paths.set_candidates(now, source, ways));
    }

    /// The way to a peer through other members, if there is one.
    pub fn set_relay(&mut self, now: Duration, id: P, route: Option<RelayRoute>) {
        self.with_peer(now, id, |peer| peer.paths.set_relay(now, route));
    }

    /// There is a TCP connection with the peer's host, `way` of [`crate::wire::way::stream`].
    pub fn stream_up(&mut self, now: Duration, id: P, way: SocketAddr) {
        self.with_peer(now, id, |peer| peer.paths.stream_up(now, way));
    }

    /// It ended.
    pub fn stream_down(&mut self, now: Duration, id: P, way: SocketAddr) {
        self.with_peer(now, id, |peer| peer.paths.stream_down(now, way));
    }

    /// Whether a peer is to be kept at hand: its session is kept alive and its ways are looked after though it is idle.
    pub fn set_keep(&mut self, now: Duration, id: P, kept: bool) {
        self.with_peer(now, id, |peer| {
            peer.kept = kept;
            peer.paths.set_keep(kept);
        });
    }

    /// A session with a peer was made. Not for renewals of a session that is up.
    pub fn session_up(&mut self, now: Duration, id: P) {
        self.with_peer(now, id, |peer| peer.session_up(now));
    }

    /// A peer's session has ended.
    pub fn session_down(&mut self, id: P) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.up = false;
            peer.paths.session_down();
        }
    }

    /// There is no session with a peer, and somebody waits for one. To be said again as long as that is so.
    pub fn trying(&mut self, now: Duration, id: P) {
        self.with_peer(now, id, |peer| peer.paths.trying(now));
    }

    /// A peer's tunnel leads there, as it is when nobody chose it, or when the peer was heard from elsewhere after
    /// silence. Said of a way that was chosen it has no effect.
    pub fn rerouted(&mut self, now: Duration, id: P, endpoint: Option<SocketAddr>) {
        self.with_peer(now, id, |peer| peer.paths.rerouted(now, endpoint));
    }

    /// The tunnel carried frames of ours since this was last said.
    pub fn used(&mut self, now: Duration, id: P) {
        self.with_peer(now, id, |peer| peer.paths.used(now));
    }

    /// Something authentic came over `way` since this was last said; `frames` tells whether frames were among it.
    pub fn heard(&mut self, now: Duration, id: P, way: SocketAddr, frames: bool) {
        self.with_peer(now, id, |peer| peer.paths.heard(now, way, frames));
    }

    /// What the counters of a peer's data say since its session began: packets received, lost, and out of order.
    pub fn reception(&mut self, now: Duration, id: P, received: u64, lost: u64, reordered: u64) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.paths.reception(now, received, lost, reordered);
        }
    }

    /// The kernel refused a datagram over `way` because its underlay packet, of `size` bytes with all headers, was too
    /// large.
    pub fn too_big(&mut self, now: Duration, id: P, way: SocketAddr, size: u16) {
        self.with_peer(now, id, |peer| peer.paths.too_big(now, way, size));
    }

    /// Takes in a message: the UDP payload of a packet to [`crate::wire::MESH_PORT`] out of a peer's tunnel, and the way
    /// it came over. One that is malformed, too much, or from nobody we know has no effect. One may come before
    /// [`Mesh::session_up`].
    pub fn input(&mut self, now: Duration, id: P, from: SocketAddr, payload: &[u8]) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if !peer.heeds(now) {
            return;
        }
        match message::parse(payload) {
            Ok(Message::Hello { capabilities, vnis, incarnation, reply_wanted }) => {
                let greeting = Greeting { capabilities, networks: ascending(vnis), incarnation };
                peer.hello.answered(now);
                peer.greeted = now;
                if peer.greeting.as_ref() != Some(&greeting) {
                    peer.greeting = Some(greeting);
                    self.changed.insert(id);
                }
                if reply_wanted {
                    let via = peer.paths.via();
                    self.queue(id, self.us.hello(false), None, via);
                }
                self.with_peer(now, id, |peer| peer.greeted(now));
            }
            Ok(Message::Probe { token }) => {
                let size = u16::try_from(payload.len() + IPV4_LEN + UDP_LEN).unwrap_or(u16::MAX);
                let seen = (Kind::of(from, peer.link.theirs) == Kind::Direct).then_some(from);
                self.queue(id, Message::ProbeAck { token, size, seen }, None, Some(from));
                self.with_peer(now, id, |peer| peer.paths.probed(now, from));
            }
            Ok(Message::ProbeAck { token, seen, .. }) => {
                let mut way = None;
                let theirs = peer.link.theirs;
                self.with_peer(now, id, |peer| way = peer.paths.acked(now, token));
                let Some(way) = way.filter(|way| Kind::of(*way, theirs) == Kind::Direct) else { return };
                self.queue.push_back(Queued::Output(Output::Answered { way }));
                if let Some(seen) = seen {
                    self.reflexive.saw(now, id, seen);
                    self.observed |= self.reflexive.update(now);
                }
            }
            Ok(Message::Punch { mut addresses, reply_wanted }) if self.punches => {
                let is_inside = |ip| self.inside.iter().any(|prefix| prefix.contains(ip));
                addresses.retain(|address| !address.ip().is_loopback() && !is_inside(address.ip()));
                self.with_peer(now, id, |peer| peer.paths.punched(now, &addresses, reply_wanted));
            }
            Ok(Message::Punch { .. } | Message::Unknown) | Err(_) => {}
        }
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Duration) {
        let due: Vec<P> = self.peers.iter().filter(|(_, peer)| peer.is_due(now)).map(|(id, _)| *id).collect();
        for id in due {
            self.with_peer(now, id, |peer| {
                if peer.greeting_ends().is_some_and(|end| end <= now) {
                    peer.greeting = None;
                    peer.paths.release();
                    peer.hello = Hello::wanting_an_answer(now);
                }
            });
        }
    }

    /// When [`Mesh::tick`] has something to do.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.peers.values().filter_map(Peer::next_deadline).min()
    }

    /// What the control plane has to do next. To be called until there is nothing, after every other call.
    pub fn poll_output(&mut self) -> Option<Output<P>> {
        if let Some(peer) = self.changed.pop_first() {
            return Some(Output::Changed { peer });
        }
        if std::mem::take(&mut self.observed) {
            return Some(Output::Observed);
        }
        loop {
            match self.queue.pop_front()? {
                Queued::Output(output) => return Some(output),
                Queued::Message { peer, message, size, via } => {
                    if let Some(Peer { link, up: true, .. }) = self.peers.get(&peer) {
                        let packet = message::packet(&message, link.ours, link.theirs, size);
                        return Some(Output::Send { peer, packet, whole: size.is_some(), via });
                    }
                }
            }
        }
    }

    /// What is known of a peer.
    pub fn peer(&self, id: P) -> Option<PeerView<'_>> {
        let Peer { greeting, paths, .. } = self.peers.get(&id)?;
        let (path_mtu, basis, inner_limit, expected_limit) = paths.mtu();
        Some(PeerView {
            greeting: greeting.as_ref(),
            path_mtu,
            basis,
            inner_limit,
            expected_limit,
            round_trip: paths.round_trip(),
            way: paths.way(),
        })
    }

    /// All ways to a peer, the one in use first.
    pub fn paths(&self, id: P) -> Vec<PathView> {
        self.peers.get(&id).map(|peer| peer.paths.views()).unwrap_or_default()
    }

    /// Why a peer is not reached in a better way, in words; nothing if the way is direct, or there is none.
    pub fn why_not_better(&self, now: Duration, id: P) -> Option<String> {
        let why = self.peers.get(&id)?.paths.why_not_better(now)?;
        Some(match self.nat() {
            Nat::Dependent => format!("{why}; our NAT maps each destination to another port"),
            _ => why,
        })
    }

    /// Where a handshake with a peer is to be tried, the likeliest first.
    pub fn handshake_candidates(&self, id: P) -> Vec<SocketAddr> {
        self.peers.get(&id).map(|peer| peer.paths.handshake_candidates()).unwrap_or_default()
    }

    /// The addresses that peers see us at and that are not our own: to be announced.
    pub fn observed(&self) -> &[SocketAddr] {
        self.reflexive.told()
    }

    /// What stands between us and the underlay, as far as peers said what they see.
    pub fn nat(&self) -> Nat {
        self.reflexive.nat()
    }

    /// Changes a peer, then sends what became due and notes whether there is news of it.
    fn with_peer(&mut self, now: Duration, id: P, change: impl FnOnce(&mut Peer)) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let state = |peer: &Peer| (peer.paths.way(), peer.paths.mtu(), peer.greeting.is_some());
        let before = state(peer);
        change(peer);
        peer.wake_or_rest(now);
        peer.paths.tick(now);
        let via = peer.paths.via();
        let mut queued = Vec::new();
        let send = |message, size, via| Queued::Message { peer: id, message, size, via };
        let acts = peer.paths.take_acts();
        if peer.hello_due().is_some_and(|due| due <= now) {
            queued.push(send(self.us.hello(peer.hello.unanswered.is_some()), None, via));
            peer.hello.sent(now, peer.greeting.is_some());
        }
        for act in acts {
            queued.push(match act {
                Act::Probe { token, size, via } => {
                    send(Message::Probe { token }, size.map(|(size, v6)| inner_limit(size, v6)), via)
                }
                Act::Punch { .. } if !self.punches => continue,
                Act::Punch { reply_wanted } => {
                    let mut addresses: Vec<SocketAddr> = self.reflexive.told().to_vec();
                    addresses.extend(self.reflexive.local());
                    addresses.truncate(message::MAX_ADDRESSES);
                    send(Message::Punch { addresses, reply_wanted }, None, via)
                }
                Act::Choose(way) => Queued::Output(Output::Choose { peer: id, way }),
                Act::Release => Queued::Output(Output::Release { peer: id }),
                Act::WantStream => Queued::Output(Output::WantStream { peer: id }),
            });
        }
        if state(peer) != before {
            self.changed.insert(id);
        }
        for queued in queued {
            if self.queue.len() < MAX_QUEUED || matches!(queued, Queued::Output(_)) {
                self.queue.push_back(queued);
            }
        }
    }

    fn queue(&mut self, peer: P, message: Message, size: Option<usize>, via: Option<SocketAddr>) {
        if self.queue.len() < MAX_QUEUED {
            self.queue.push_back(Queued::Message { peer, message, size, via });
        }
    }
}

fn ascending(vnis: impl IntoIterator<Item = u32>) -> Vec<u32> {
    vnis.into_iter().collect::<BTreeSet<u32>>().into_iter().collect()
}
