//! Two members joined in memory: what one seals, the other opens.
//!
//! ```text
//!   port 1 ─┐                                                  ┌─ port 1
//!   port 2 ─┤ VNI 1  A ══════════ tunnel, live ══════════ B  1 ├─ port 2
//!   port 3 ─┘ VNI 2                                          2 └─ port 3
//! ```
//!
//! Only VNI 1 spans both. Station [`LOCAL`] is known to be at A's port 2, station [`REMOTE`] at B's port 1. Making the
//! two costs a handshake, so they outlive a run; what one run leaves behind is cleared before the next, so that each
//! run does the same again when it is repeated.

use std::cell::{Cell, RefCell};
use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};
use weft::switch::allowance::Allowance;
use weft::switch::counters::{Drop, Flow};
use weft::switch::fdb::Limits;
use weft::switch::ids::{PeerId, Place, PortId};
use weft::switch::staging::{Merge, Staging};
use weft::switch::topology::{Network, Peer, Port, Topology};
use weft::switch::{Egress, Event, Switch};
use weft::tunnel::{Engine, Gate, GateSettings, OVERHEAD, TunnelSettings};
use weft::wire::ethernet::Mac;
use weft::wire::key::Secret;
use weft::wire::vnet::{self, VnetHeader};

/// The network both have.
pub const SHARED: u32 = 1;
/// The network only B's port 3 and A's port 3 have, apart from each other.
pub const PRIVATE: u32 = 2;
/// A station at A's port 2.
pub const LOCAL: Mac = Mac([2, 0, 0, 0, 0, 0x0a]);
/// A station at B's port 1.
pub const REMOTE: Mac = Mac([2, 0, 0, 0, 0, 0x0b]);
/// The tunnel address of a third member, which each of the two would reach through the other.
pub const THIRD: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 3);
/// MTU of both networks' ports.
pub const MTU: u16 = 1500;

/// What a member gave to its ports, its socket and its control plane.
#[derive(Debug, Default)]
pub struct Outbox {
    pub delivered: Vec<(PortId, VnetHeader, Vec<u8>)>,
    pub sent: Vec<(SocketAddr, Vec<u8>)>,
    pub messages: Vec<Vec<u8>>,
    pub snooped: Vec<Vec<u8>>,
}

impl Egress for Outbox {
    fn deliver(&mut self, port: PortId, pieces: &[IoSlice<'_>]) {
        let header: &[u8; vnet::LEN] = pieces[0][..].try_into().expect("the first piece is the header");
        let frame = pieces[1..].iter().flat_map(|piece| piece.iter().copied()).collect();
        self.delivered.push((port, VnetHeader::parse(header), frame));
    }

    fn transmit(&mut self, to: SocketAddr, room: usize, fill: impl FnOnce(&mut [u8]) -> Option<usize>) {
        let mut datagram = vec![0; room];
        if let Some(used) = fill(&mut datagram) {
            datagram.truncate(used);
            self.sent.push((to, datagram));
        }
    }

    fn serve(&mut self, _: &Port, _: VnetHeader, _: &[u8]) -> bool {
        true
    }

    fn notify(&mut self, event: Event<'_>) {
        match event {
            Event::Message(_, _, payload) => self.messages.push(payload.to_vec()),
            Event::Snooped(_, frame) => self.snooped.push(frame.to_vec()),
            Event::SessionUp(_) | Event::Stranger { .. } => {}
        }
    }
}

/// One of the two.
pub struct Member {
    pub switch: Switch,
    pub ports: [Arc<Port>; 3],
    /// The other.
    pub peer: Arc<Peer>,
    /// Our tunnel address.
    pub address: Ipv4Addr,
    /// Our address in the underlay.
    pub underlay: SocketAddr,
    pub staging: Staging,
    pub out: Outbox,
    private: Secret,
    seen: Vec<u64>,
}

impl Member {
    fn new(me: u8, other: u8, now: Instant) -> Self {
        let (secret, theirs) = (Secret::private([me; 32]), Secret::private([other; 32]));
        let gate = gate(&secret, now);
        let settings = TunnelSettings {
            peer: theirs.public_key(),
            preshared_key: None,
            keepalive: None,
            index: 0x00_1000 | u32::from(me),
            endpoints: vec![underlay(other)],
        };
        let (address, theirs) = (Ipv4Addr::new(100, 64, 0, me), Ipv4Addr::new(100, 64, 0, other));
        let peer = Arc::new(Peer::new(PeerId(1), theirs, &gate, &settings, now));
        let port = |id: u8, vni| {
            let mac = Mac([2, 0, 0, 0, me, id]);
            Arc::new(Port {
                id: PortId(u32::from(id)),
                vni,
                mac,
                flow: Flow::default(),
                spoken: Allowance::default(),
            })
        };
        let ports = [port(1, SHARED), port(2, SHARED), port(3, PRIVATE)];
        let shared = Network {
            vni: SHARED,
            mtu: MTU,
            ports: ports[..2].to_vec(),
            peers: vec![peer.clone()],
            admits: Some(vec![PeerId(1)]),
            suppress: true,
            snooping: true,
            ..Network::default()
        };
        let private = Network {
            vni: PRIVATE,
            mtu: MTU,
            ports: ports[2..].to_vec(),
            peers: Vec::new(),
            admits: Some(Vec::new()),
            ..Network::default()
        };
        let topology = Topology::new(address, vec![shared, private], std::slice::from_ref(&peer))
            .with_routes(true, [(u32::from(THIRD), PeerId(1))].into_iter().collect());
        let limits = Limits { max_entries: 1024, max_per_port: 256, max_per_peer: 256 };
        let switch = Switch::new(gate, topology, limits, 7, now);
        let (local, remote) = if me == 1 {
            (Place::Port(PortId(2)), Place::Peer(PeerId(1)))
        } else {
            (Place::Peer(PeerId(1)), Place::Port(PortId(1)))
        };
        switch.fdb.insert_static(SHARED, LOCAL, local);
        switch.fdb.insert_static(SHARED, REMOTE, remote);
        let staging = Staging::new(640 * 1024, Merge::TcpAndUdp);
        let out = Outbox::default();
        Self {
            switch,
            ports,
            peer,
            address,
            underlay: underlay(me),
            staging,
            out,
            private: secret,
            seen: vec![0; Drop::ALL.len()],
        }
    }

    /// Drops counted since this was last asked.
    pub fn drops(&mut self) -> Vec<(Drop, u64)> {
        let mut fresh = Vec::new();
        for (seen, &reason) in self.seen.iter_mut().zip(Drop::ALL) {
            let count = self.switch.counters.dropped(reason);
            if count != *seen {
                fresh.push((reason, count - *seen));
            }
            *seen = count;
        }
        fresh
    }

    /// How many drops were counted since this was last asked.
    pub fn dropped(&mut self) -> u64 {
        self.drops().iter().map(|(_, count)| count).sum()
    }

    /// A datagram with `packet` for the other member.
    pub fn seal(&self, now: Instant, packet: &[u8]) -> Vec<u8> {
        let mut datagram = vec![0; packet.len() + OVERHEAD];
        let (sealer, _) = self.peer.tunnel().outgoing(now).expect("the tunnel is live");
        assert_eq!(sealer.seal(packet, &mut datagram), Some(datagram.len()));
        datagram
    }

    /// Datagrams arrive.
    pub fn input(&mut self, now: Instant, from: SocketAddr, datagrams: &[u8], stride: usize) {
        self.switch.underlay_input(now, from, datagrams, stride, &mut self.staging, &mut self.out);
    }

    /// A receive batch ends.
    pub fn flush(&mut self) {
        self.staging.flush(&mut self.out);
    }

    /// Frames sent into the tunnel and come out of it since the switch was made.
    pub fn tunnel_frames(&self) -> (u64, u64) {
        let counters = &self.switch.counters;
        (counters.tunnel_tx_frames.get(), counters.tunnel_rx_frames.get())
    }

    fn clear(&mut self, now: Instant) {
        // Time stands still: the next run's handshakes would meet a gate that has admitted enough in this second.
        self.switch.gate = gate(&self.private, now);
        self.flush();
        self.out = Outbox::default();
        self.switch.fdb.flush_dynamic(None);
        self.switch.neighbours.forget_network(SHARED);
        self.switch.groups.set(SHARED, None);
        // Time stands still here, too: what was said in another second counts no more.
        for port in &self.ports {
            let _ = port.spoken.take(u32::MAX, 0);
        }
        *self.peer.reassembler() = weft::wire::fragment::Reassembler::default();
        self.peer.set_limits(1440, 1440);
        self.peer.set_takes_partial(false);
        self.drops();
    }
}

/// A gate whose tunnels do the same in every run.
pub fn gate(private: &Secret, now: Instant) -> Gate {
    thread_local! { static DRAWN: Cell<u8> = const { Cell::new(0) } }
    let random = |bytes: &mut [u8]| {
        bytes.iter_mut().for_each(|byte| {
            DRAWN.set(DRAWN.get().wrapping_mul(5).wrapping_add(77));
            *byte = DRAWN.get();
        });
    };
    let unix_time = Duration::from_secs(1_700_000_000);
    Gate::new(private, GateSettings { engine: Engine::fastest(), random, now, unix_time })
}

/// An address in the underlay.
pub fn underlay(number: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, number], 51820))
}

/// The two.
pub struct World {
    pub a: Member,
    pub b: Member,
    pub now: Instant,
    /// The messages of the handshake that made the session, in their order.
    pub recorded: Vec<Vec<u8>>,
}

impl World {
    fn new() -> Self {
        let now = Instant::now();
        let mut world = Self { a: Member::new(1, 2, now), b: Member::new(2, 1, now), now, recorded: Vec::new() };
        let Self { a, b, recorded, .. } = &mut world;
        a.switch.connect(now, &a.peer, &mut a.out);
        while !(a.out.sent.is_empty() && b.out.sent.is_empty()) {
            for (_, datagram) in std::mem::take(&mut a.out.sent) {
                b.input(now, a.underlay, &datagram, datagram.len());
                recorded.push(datagram);
            }
            for (_, datagram) in std::mem::take(&mut b.out.sent) {
                a.input(now, b.underlay, &datagram, datagram.len());
                recorded.push(datagram);
            }
        }
        let first = a.seal(now, &[]);
        b.input(now, a.underlay, &first, first.len());
        assert!(a.peer.tunnel().is_live() && b.peer.tunnel().is_live(), "no session");
        world
    }

    /// Runs `body` in this thread's world. One that panicked is not used again.
    pub fn with(body: impl FnOnce(&mut Self)) {
        thread_local! { static WORLD: RefCell<Option<World>> = const { RefCell::new(None) } }
        let mut world = WORLD.take().unwrap_or_else(Self::new);
        // B believes A to be where it last heard it, which a run may have moved.
        let keepalive = world.a.seal(world.now, &[]);
        world.b.input(world.now, world.a.underlay, &keepalive, keepalive.len());
        world.a.clear(world.now);
        world.b.clear(world.now);
        body(&mut world);
        WORLD.set(Some(world));
    }

    /// What A sent arrives at B, as one receive batch.
    pub fn carry(&mut self) {
        for (to, datagram) in std::mem::take(&mut self.a.out.sent) {
            assert_eq!(to, self.b.underlay);
            self.b.input(self.now, self.a.underlay, &datagram, datagram.len());
        }
        self.b.flush();
    }
}
