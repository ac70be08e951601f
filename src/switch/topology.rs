//! The topology: which networks, ports and peers exist. An immutable snapshot that control publishes and workers read.
//!
//! A change is a fresh snapshot; the parts that live on (a port's counters, a peer's tunnel) are shared by `Arc`.

use super::allowance::Allowance;
use super::counters::Flow;
use super::ids::{IdMap, PeerId, PortId};
use super::policy::Policy;
use super::service::Service;
use crate::tunnel::{Gate, Reception, Tunnel, TunnelSettings};
use crate::wire::ethernet::Mac;
use crate::wire::fragment::Reassembler;
use crate::wire::key::PublicKey;
use crate::wire::{MIN_PATH_MTU, UNDERLAY_OVERHEAD_V6, WIREGUARD_OVERHEAD};
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Messages of one peer that reach control in a second: those of a neighbour that tells a newcomer of a thousand members.
/// The queue to control is shared; no member can fill it so that another is not heard.
const MESSAGES_PER_SECOND: u32 = 512;

/// IGMP and MLD messages of one port that reach control in a second: a kernel that joins all the groups it may (20, see
/// `igmp_max_memberships`) says each twice.
const REPORTS_PER_SECOND: u32 = 64;

/// Seconds a peer may leave a handshake unanswered before frames are no longer flooded to it: as long as a packet waits for a
/// session, and one more initiation than may get lost.
const SILENT_AFTER: u32 = 6;
/// A second that never comes.
const NEVER: u32 = u32::MAX;

/// A local port: a TAP in one network.
#[derive(Debug)]
pub struct Port {
    /// Its identity in this run.
    pub id: PortId,
    /// The network it is in.
    pub vni: u32,
    /// The MAC address of its container.
    pub mac: Mac,
    /// Its traffic; `rx` is what the container sent.
    pub flow: Flow,
    /// What it says to control.
    pub spoken: Allowance,
}

impl Port {
    /// Whether control should get one more message of it in this second.
    pub fn may_speak(&self, second: u32) -> bool {
        self.spoken.take(second, REPORTS_PER_SECOND)
    }
}

/// Another member, as the data plane needs it.
pub struct Peer {
    /// Its identity in this run.
    pub id: PeerId,
    /// Its public key.
    pub key: PublicKey,
    /// Its tunnel address.
    pub address: Ipv4Addr,
    /// The 24 bits that name its tunnel in datagrams.
    pub index: u32,
    /// Inner packets with frames exchanged with it; messages of the mesh do not count.
    pub flow: Flow,
    tunnel: Mutex<Tunnel>,
    reassembler: Mutex<Reassembler>,
    identification: AtomicU16,
    inner_limit: AtomicUsize,
    expected_limit: AtomicUsize,
    takes_partial: AtomicBool,
    /// Its messages.
    spoken: Allowance,
    /// Whether it has not shown yet that it may be a member.
    stranger: AtomicBool,
    /// Whether it hears from the mesh where stations are.
    meshed: AtomicBool,
    /// The second from which on it counts as silent.
    silent_from: AtomicU32,
    /// A flooded frame passed it by.
    passed_by: AtomicBool,
}

impl Peer {
    /// A peer without a session, reached by the smallest packets until its path is known.
    pub fn new(id: PeerId, address: Ipv4Addr, gate: &Gate, settings: &TunnelSettings, now: Instant) -> Self {
        let smallest = usize::from(MIN_PATH_MTU) - UNDERLAY_OVERHEAD_V6 - WIREGUARD_OVERHEAD;
        Self {
            id,
            key: settings.peer,
            address,
            index: settings.index & 0x00ff_ffff,
            flow: Flow::default(),
            tunnel: Mutex::new(Tunnel::new(gate, settings, now)),
            reassembler: Mutex::default(),
            identification: AtomicU16::new(1),
            inner_limit: AtomicUsize::new(smallest),
            expected_limit: AtomicUsize::new(smallest),
            takes_partial: AtomicBool::new(false),
            spoken: Allowance::default(),
            stranger: AtomicBool::new(false),
            meshed: AtomicBool::new(false),
            silent_from: AtomicU32::new(NEVER),
            passed_by: AtomicBool::new(false),
        }
    }

    /// Its tunnel. Lock order: a tunnel's is taken last but for its sessions' windows, and never two at once: whoever sends
    /// through a relay lets go of the one before asking for the other.
    pub fn tunnel(&self) -> MutexGuard<'_, Tunnel> {
        // A panic meanwhile would leave a session that at worst fails to authenticate: carry on.
        self.tunnel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What became of its datagrams.
    pub fn reception(&self) -> Reception {
        self.tunnel().reception()
    }

    /// What puts fragments of its packets together.
    pub fn reassembler(&self) -> MutexGuard<'_, Reassembler> {
        // A panic meanwhile would leave a packet that at worst is abandoned.
        self.reassembler.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The identification of the next packet to it that may be fragmented (RFC 791).
    pub fn next_identification(&self) -> u16 {
        self.identification.fetch_add(1, Relaxed)
    }

    /// The largest inner packet its path carries whole, in bytes.
    pub fn inner_limit(&self) -> usize {
        self.inner_limit.load(Relaxed)
    }

    /// What [`Self::inner_limit`] will be once the path is known: connections that begin are prepared for it.
    pub fn expected_limit(&self) -> usize {
        self.expected_limit.load(Relaxed)
    }

    /// Sets the largest inner packet its path carries whole, and what that is expected to become.
    pub fn set_limits(&self, inner: usize, expected: usize) {
        self.inner_limit.store(inner, Relaxed);
        self.expected_limit.store(expected, Relaxed);
    }

    /// Whether it understands frames whose L4 checksum is left to it.
    pub fn takes_partial(&self) -> bool {
        self.takes_partial.load(Relaxed)
    }

    /// Whether control should get one more message of it in this second.
    pub fn may_speak(&self, second: u32) -> bool {
        self.spoken.take(second, MESSAGES_PER_SECOND)
    }

    /// Whether nothing but messages of the mesh is taken from it and sent to it: it has a session, and has still to show that
    /// it may be a member.
    pub fn is_stranger(&self) -> bool {
        self.stranger.load(Relaxed)
    }

    /// Sets whether it may be a member; a peer is taken for one until control says otherwise.
    pub fn set_admitted(&self, admitted: bool) {
        self.stranger.store(!admitted, Relaxed);
    }

    /// Whether it hears from the mesh where stations are: then they need not be announced to it frame by frame.
    pub fn is_meshed(&self) -> bool {
        self.meshed.load(Relaxed)
    }

    /// Sets whether it hears from the mesh where stations are.
    pub fn set_meshed(&self, meshed: bool) {
        self.meshed.store(meshed, Relaxed);
    }

    /// Whether a frame to everybody should pass it by: it has not answered for some time, so the frame would be copied,
    /// wait and expire. A hundred broadcasts a second to a thousand peers that are off would do nothing else.
    pub fn is_silent(&self, second: u32) -> bool {
        let silent = self.silent_from.load(Relaxed) <= second;
        if silent && !self.passed_by.load(Relaxed) {
            self.passed_by.store(true, Relaxed);
        }
        silent
    }

    /// Notes whether it is being called in vain. Returns whether it should be called again: its handshake was given up, and
    /// there was something to say.
    pub(super) fn watch(&self, second: u32, is_live: bool, is_called: bool) -> bool {
        let known = self.silent_from.load(Relaxed);
        match (is_live, is_called) {
            (true, _) => self.answered(),
            (false, true) if known == NEVER => {
                self.silent_from.store(second.saturating_add(SILENT_AFTER), Relaxed);
            }
            _ => {}
        }
        !is_live && !is_called && self.passed_by.swap(false, Relaxed)
    }

    /// There is a session with it.
    pub(super) fn answered(&self) {
        self.silent_from.store(NEVER, Relaxed);
        self.passed_by.store(false, Relaxed);
    }

    /// Sets whether it understands partial checksums.
    pub fn set_takes_partial(&self, takes: bool) {
        self.takes_partial.store(takes, Relaxed);
    }
}

/// One broadcast domain on this member.
#[derive(Default)]
pub struct Network {
    /// Its VNI.
    pub vni: u32,
    /// MTU of its ports; a frame may have Ethernet and two VLAN tags more.
    pub mtu: u16,
    /// Its local ports.
    pub ports: Vec<Arc<Port>>,
    /// The peers that have it: where BUM is replicated to.
    pub peers: Vec<Arc<Peer>>,
    /// The peers whose frames are let in; `None` is all of them.
    pub admits: Option<Vec<PeerId>>,
    /// Requests for the MAC addresses of known attachments are answered here ([`super::neighbours`]).
    pub suppress: bool,
    /// Multicast goes only to who listens ([`super::groups`]).
    pub snooping: bool,
    /// What frames may do; `None` is everything.
    pub policy: Option<Arc<Policy>>,
    /// Where this member answers for the network itself ([`super::service`]).
    pub service: Service,
    /// The port that leads out of the network: what is for elsewhere and sent to the service address goes there.
    pub egress: Option<PortId>,
}

/// Everything a frame can meet.
pub struct Topology {
    /// Our tunnel address.
    pub address: Ipv4Addr,
    /// What those take for ours that know nothing of us but the key: another only where the file sets ours.
    pub alias: Ipv4Addr,
    /// Whether we pass packets on between others.
    pub relays: bool,
    /// The next hop to the members with these tunnel addresses, as bits: a peer with a way of its own, the member itself
    /// where it has one.
    pub routes: IdMap<u32, PeerId>,
    /// The same for what goes through others to members with a way of their own, from us: also while that way is there, or
    /// it could not be known whether the other works.
    pub detours: IdMap<u32, PeerId>,
    networks: IdMap<u32, Network>,
    /// The egress ports of the networks that have one.
    exits: IdMap<u32, Arc<Port>>,
    peers: IdMap<PeerId, Arc<Peer>>,
    by_index: IdMap<u32, Arc<Peer>>,
    by_key: HashMap<PublicKey, Arc<Peer>>,
}

impl Topology {
    /// A snapshot of these networks and peers.
    pub fn new(address: Ipv4Addr, networks: Vec<Network>, peers: &[Arc<Peer>]) -> Self {
        let exit = |network: &Network| {
            let id = network.egress?;
            Some((network.vni, network.ports.iter().find(|port| port.id == id)?.clone()))
        };
        Self {
            exits: networks.iter().filter_map(exit).collect(),
            address,
            alias: address,
            relays: false,
            routes: IdMap::default(),
            detours: IdMap::default(),
            networks: networks.into_iter().map(|network| (network.vni, network)).collect(),
            peers: peers.iter().map(|peer| (peer.id, peer.clone())).collect(),
            by_index: peers.iter().map(|peer| (peer.index, peer.clone())).collect(),
            by_key: peers.iter().map(|peer| (peer.key, peer.clone())).collect(),
        }
    }

    /// With what others take for our tunnel address.
    pub fn with_alias(self, alias: Ipv4Addr) -> Self {
        Self { alias, ..self }
    }

    /// Whether a packet to this tunnel address is for us.
    pub fn is_ours(&self, destination: Ipv4Addr) -> bool {
        destination == self.address || destination == self.alias
    }

    /// The same with these [`Self::routes`], as a member that `relays` or not.
    #[must_use]
    pub fn with_routes(self, relays: bool, routes: IdMap<u32, PeerId>) -> Self {
        Self { relays, routes, ..self }
    }

    /// The same with these [`Self::detours`].
    #[must_use]
    pub fn with_detours(self, detours: IdMap<u32, PeerId>) -> Self {
        Self { detours, ..self }
    }

    /// The network with this VNI.
    pub fn network(&self, vni: u32) -> Option<&Network> {
        self.networks.get(&vni)
    }

    /// The port that leads out of the network with this VNI.
    pub fn exit(&self, vni: u32) -> Option<&Arc<Port>> {
        self.exits.get(&vni)
    }

    /// The peer with this id.
    pub fn peer(&self, id: PeerId) -> Option<&Arc<Peer>> {
        self.peers.get(&id)
    }

    /// The peer whose tunnel has this index.
    pub fn peer_by_index(&self, index: u32) -> Option<&Arc<Peer>> {
        self.by_index.get(&index)
    }

    /// The peer with this public key.
    pub fn peer_by_key(&self, key: &PublicKey) -> Option<&Arc<Peer>> {
        self.by_key.get(key)
    }

    /// All peers.
    pub fn peers(&self) -> impl Iterator<Item = &Arc<Peer>> {
        self.peers.values()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::tunnel::Engine;
    use crate::tunnel::GateSettings;
    use crate::wire::key::Secret;
    use std::time::Duration;

    #[test]
    fn a_peer_speaks_to_control_only_so_often_and_again_in_the_next_second() {
        let [ours, theirs] = [1, 2].map(|n| Secret::private([n; 32]));
        let (peer, index) = (theirs.public_key(), 7);
        let settings = TunnelSettings { peer, preshared_key: None, keepalive: None, index, endpoints: Vec::new() };
        let settings_of_gate = GateSettings {
            engine: Engine::Ring,
            random: |bytes| bytes.fill(1),
            now: Instant::now(),
            unix_time: Duration::ZERO,
        };
        let gate = Gate::new(&ours, settings_of_gate);
        let peer = Peer::new(PeerId(0), Ipv4Addr::LOCALHOST, &gate, &settings, Instant::now());
        for second in [0, 1, 5] {
            let heard = (0..10_000).filter(|_| peer.may_speak(second)).count();
            assert_eq!(heard, MESSAGES_PER_SECOND as usize);
        }
    }
}
