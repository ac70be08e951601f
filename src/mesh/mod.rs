//! What members tell each other: who they are, which networks they have, and how large a packet crosses between them.
//!
//! [`Mesh`] is a value that the control plane drives: sessions going up and down, messages that came out of tunnels
//! and the time go in; packets for tunnels, news and a deadline come out. Messages travel inside the tunnels, so
//! their sender is authentic; it may still be hostile, and everything it says is bounded in size and rate.
//!
//! *Hello* carries a member's capabilities, its networks and its incarnation, a number made up at each start. It is
//! sent when a session comes up and when the networks change, then wants an answer and is repeated until one comes;
//! and every [`HELLO_EVERY`] as a reminder. A peer that never sent one is not weft (a stock WireGuard host) or has
//! not spoken yet. *Probe* and *probe ack* find the path's MTU and round-trip time ([`path`]).
//!
//! What a peer said outlives its session: a session that comes back a second later continues where it was. It does
//! not outlive [`GREETING_LASTS`] of silence in a session: whoever has the peer's key by then may be no weft, and would
//! get frames with checksums left to it that it does not finish.
//!
//! `P` is whatever the caller names peers by. Time is what has passed since the daemon started.

pub mod path;
#[cfg(test)]
mod tests;

use crate::wire::message::{self, Message};
use crate::wire::vxlan::{IPV4_LEN, UDP_LEN};
use crate::wire::{UNDERLAY_OVERHEAD_V4, UNDERLAY_OVERHEAD_V6, WIREGUARD_OVERHEAD};
use path::{Basis, PathMtu};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv4Addr;
use std::time::Duration;

/// How often a member says hello while a session is up. It also keeps a NAT's mapping open (RFC 4787 REQ-5: 2 min).
pub const HELLO_EVERY: Duration = Duration::from_secs(15);
/// How long a greeting holds without another hello in a session: three reminders and their way may be lost.
pub const GREETING_LASTS: Duration = Duration::from_secs(50);
/// When a hello that wants an answer is first repeated; the pause doubles …
const FIRST_HELLO_PAUSE: Duration = Duration::from_secs(1);
/// … up to this, for a peer that never said hello.
const LAST_HELLO_PAUSE: Duration = Duration::from_secs(60);
/// Messages heeded per peer and second. The busiest second of an honest peer, its search for the path's MTU over a
/// fast link, has about twenty.
pub const MAX_MESSAGES_PER_SECOND: u32 = 64;
/// Messages that wait to be taken; more are lost, as the network may lose them. Enough for a hello and a probe to
/// each of two thousand peers at once.
const MAX_QUEUED: usize = 4096;

/// The largest inner packet whose datagram fits `path_mtu`.
pub fn inner_limit(path_mtu: u16, underlay_v6: bool) -> usize {
    let underlay = if underlay_v6 { UNDERLAY_OVERHEAD_V6 } else { UNDERLAY_OVERHEAD_V4 };
    usize::from(path_mtu).saturating_sub(underlay + WIREGUARD_OVERHEAD)
}

/// What the control plane knows of the way to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Our tunnel address.
    pub ours: Ipv4Addr,
    /// The peer's.
    pub theirs: Ipv4Addr,
    /// The MTU of the underlay path, where the configuration has it.
    pub path_mtu: Option<u16>,
    /// Whether the peer's endpoint is an IPv6 address.
    pub underlay_v6: bool,
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
    },
    /// A peer's greeting or path MTU is another: publish [`Mesh::peer`].
    Changed {
        /// Which.
        peer: P,
    },
}

/// See the head of this file.
#[derive(Debug)]
pub struct Mesh<P> {
    us: Greeting,
    peers: BTreeMap<P, Peer>,
    changed: BTreeSet<P>,
    /// Messages to be sent, with the size of the inner packet where that matters.
    queue: VecDeque<(P, Message, Option<usize>)>,
}

#[derive(Debug)]
struct Peer {
    link: Link,
    up: bool,
    greeting: Option<Greeting>,
    /// When it last said hello, or had the first chance to.
    greeted: Duration,
    path: PathMtu,
    hello: Hello,
    /// The second in which messages are being counted, and their number.
    heeded: (u64, u32),
}

/// When the next hello is sent.
#[derive(Debug, Clone, Copy)]
struct Hello {
    due: Duration,
    /// `Some` while the last one wants an answer: how long to wait for it.
    unanswered: Option<Duration>,
}

impl<P: Copy + Ord> Mesh<P> {
    /// A member without peers and networks. `incarnation` is random.
    pub fn new(incarnation: u64, capabilities: u32) -> Self {
        Self {
            us: Greeting { capabilities, networks: Vec::new(), incarnation },
            peers: BTreeMap::new(),
            changed: BTreeSet::new(),
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

    /// Adds a peer, without a session yet; one that is there begins anew.
    pub fn add_peer(&mut self, id: P, link: Link) {
        let path = PathMtu::new(link.path_mtu);
        let hello = Hello::wanting_an_answer(Duration::ZERO);
        let greeted = Duration::ZERO;
        self.peers.insert(id, Peer { link, up: false, greeting: None, greeted, path, hello, heeded: (0, 0) });
    }

    /// Removes a peer and everything known of it.
    pub fn remove_peer(&mut self, id: P) {
        self.peers.remove(&id);
        self.changed.remove(&id);
    }

    /// A session with a peer was made. Not for renewals of a session that is up.
    pub fn session_up(&mut self, now: Duration, id: P) {
        self.with_peer(now, id, |peer| {
            if !peer.up {
                peer.up = true;
                peer.greeted = now;
                peer.path.start(now);
                peer.hello = Hello::wanting_an_answer(now);
            }
        });
    }

    /// A peer's session has ended.
    pub fn session_down(&mut self, id: P) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.up = false;
            peer.path.stop();
        }
    }

    /// A peer's endpoint is another one: nothing is known of the path there.
    pub fn rerouted(&mut self, now: Duration, id: P, underlay_v6: bool) {
        let before = self.peers.get(&id).map(|peer| peer.link.underlay_v6);
        self.with_peer(now, id, |peer| {
            peer.link.underlay_v6 = underlay_v6;
            if peer.up {
                peer.path.start(now);
            }
        });
        if before.is_some_and(|before| before != underlay_v6) {
            self.changed.insert(id);
        }
    }

    /// The tunnel carried frames since this was last said. The path is watched more closely then ([`path`]).
    pub fn used(&mut self, now: Duration, id: P) {
        self.with_peer(now, id, |peer| peer.path.used(now));
    }

    /// The kernel refused a datagram because its underlay packet, of `size` bytes with all headers, was too large.
    pub fn too_big(&mut self, now: Duration, id: P, size: u16) {
        self.with_peer(now, id, |peer| peer.path.too_big(now, size));
    }

    /// Takes in a message: the UDP payload of a packet to [`crate::wire::MESH_PORT`] out of a peer's tunnel. One
    /// that is malformed, too much, or from nobody we know has no effect. One may come before
    /// [`Mesh::session_up`].
    pub fn input(&mut self, now: Duration, id: P, payload: &[u8]) {
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
                    self.queue(id, self.us.hello(false), None);
                }
            }
            Ok(Message::Probe { token }) => {
                let size = u16::try_from(payload.len() + IPV4_LEN + UDP_LEN).unwrap_or(u16::MAX);
                self.queue(id, Message::ProbeAck { token, size }, None);
            }
            Ok(Message::ProbeAck { token, .. }) => self.with_peer(now, id, |peer| {
                peer.path.acked(now, token);
            }),
            Ok(Message::Unknown) | Err(_) => {}
        }
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Duration) {
        let due: Vec<P> = self.peers.iter().filter(|(_, peer)| peer.is_due(now)).map(|(id, _)| *id).collect();
        for id in due {
            self.with_peer(now, id, |peer| {
                if peer.greeting_ends().is_some_and(|end| end <= now) {
                    peer.greeting = None;
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
        loop {
            let (id, message, size) = self.queue.pop_front()?;
            if let Some(Peer { link, up: true, .. }) = self.peers.get(&id) {
                let packet = message::packet(&message, link.ours, link.theirs, size);
                return Some(Output::Send { peer: id, packet, whole: size.is_some() });
            }
        }
    }

    /// What is known of a peer.
    pub fn peer(&self, id: P) -> Option<PeerView<'_>> {
        let Peer { link, greeting, path, .. } = self.peers.get(&id)?;
        Some(PeerView {
            greeting: greeting.as_ref(),
            path_mtu: path.mtu(),
            basis: path.basis(),
            inner_limit: inner_limit(path.mtu(), link.underlay_v6),
            expected_limit: inner_limit(path.expected(), link.underlay_v6),
            round_trip: path.round_trip(),
        })
    }

    /// Changes a peer, then sends what became due and notes whether there is news of it.
    fn with_peer(&mut self, now: Duration, id: P, change: impl FnOnce(&mut Peer)) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let state = |peer: &Peer| (peer.path.mtu(), peer.path.expected(), peer.greeting.is_some());
        let before = state(peer);
        change(peer);
        let mut messages = Vec::new();
        if peer.up && now >= peer.hello.due {
            messages.push((self.us.hello(peer.hello.unanswered.is_some()), None));
            peer.hello.sent(now, peer.greeting.is_some());
        }
        while let Some(probe) = peer.path.poll(now) {
            let size = inner_limit(probe.size, peer.link.underlay_v6);
            messages.push((Message::Probe { token: probe.token }, Some(size)));
        }
        if state(peer) != before {
            self.changed.insert(id);
        }
        for (message, size) in messages {
            self.queue(id, message, size);
        }
    }

    fn queue(&mut self, id: P, message: Message, size: Option<usize>) {
        if self.queue.len() < MAX_QUEUED {
            self.queue.push_back((id, message, size));
        }
    }
}

impl Peer {
    /// Whether one more message may be heeded in this second.
    fn heeds(&mut self, now: Duration) -> bool {
        if self.heeded.0 != now.as_secs() {
            self.heeded = (now.as_secs(), 0);
        }
        self.heeded.1 += 1;
        self.heeded.1 <= MAX_MESSAGES_PER_SECOND
    }

    fn next_deadline(&self) -> Option<Duration> {
        let hello = self.up.then_some(self.hello.due);
        [hello, self.greeting_ends(), self.path.next_deadline()].into_iter().flatten().min()
    }

    fn greeting_ends(&self) -> Option<Duration> {
        (self.up && self.greeting.is_some()).then_some(self.greeted + GREETING_LASTS)
    }

    fn is_due(&self, now: Duration) -> bool {
        self.next_deadline().is_some_and(|due| due <= now)
    }
}

impl Hello {
    fn wanting_an_answer(now: Duration) -> Self {
        Self { due: now, unanswered: Some(FIRST_HELLO_PAUSE) }
    }

    fn sent(&mut self, now: Duration, is_weft: bool) {
        self.due = now + self.unanswered.unwrap_or(HELLO_EVERY);
        let longest = if is_weft { HELLO_EVERY } else { LAST_HELLO_PAUSE };
        self.unanswered = self.unanswered.map(|pause| (pause * 2).min(longest));
    }

    fn answered(&mut self, now: Duration) {
        if self.unanswered.take().is_some() {
            self.due = now + HELLO_EVERY;
        }
    }
}

impl Greeting {
    fn hello(&self, reply_wanted: bool) -> Message {
        Message::Hello {
            capabilities: self.capabilities,
            vnis: self.networks.clone(),
            incarnation: self.incarnation,
            reply_wanted,
        }
    }
}

fn ascending(vnis: impl IntoIterator<Item = u32>) -> Vec<u32> {
    vnis.into_iter().collect::<BTreeSet<u32>>().into_iter().collect()
}
