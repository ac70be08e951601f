//! Every way a frame or packet can end without being delivered, and how often each happened.
//!
//! The data plane has no error type: what cannot be delivered is counted under exactly one [`Drop`], and this list
//! *is* the documentation of why frames die. `weft status` shows all of them.
//!
//! Every frame is counted, by all workers. Two cores that write one cache line hand it back and forth, at some 50 to 100 ns
//! a time; so a [`Counter`] is a sum of [`SHARDS`], each on a line of its own, and each thread adds to one of them. Which one
//! never shows: adding up all is what reading is.

use crossbeam::utils::CachePadded;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Threads that count without meeting on a cache line. More of them share, which is slower and not wrong.
const SHARDS: usize = 32;

/// The calling thread's shard: threads are numbered in the order in which they first count something.
fn shard() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static SHARD: usize = THREADS.fetch_add(1, Relaxed) % SHARDS);
    SHARD.with(|&shard| shard)
}

/// A number that all workers add to at once. See the head of this file.
#[derive(Debug, Default)]
pub struct Counter([CachePadded<AtomicU64>; SHARDS]);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0[shard()].fetch_add(n, Relaxed);
    }

    /// What was added so far.
    pub fn get(&self) -> u64 {
        self.0.iter().map(|shard| shard.load(Relaxed)).sum()
    }
}

macro_rules! drops {
    ($($(#[doc = $doc:expr])+ $name:ident = $text:literal,)+) => {
        /// Why a frame, packet or datagram was not delivered.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Drop { $($(#[doc = $doc])+ $name,)+ }

        impl Drop {
            /// All reasons, in the order they are shown.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The stable name shown to people and programs.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }

            /// What happened, in the words of the documentation.
            pub fn explanation(self) -> &'static str {
                match self { $(Self::$name => concat!($($doc),+).trim_ascii(),)+ }
            }
        }
    };
}

drops! {
    /// A frame from a port was shorter than its headers, or its virtio-net header contradicted it.
    MalformedFrame = "malformed_frame",
    /// A frame from a port was larger than the network's MTU allows.
    OversizedFrame = "oversized_frame",
    /// A frame's source address was a group address or zero.
    InvalidSource = "invalid_source",
    /// A frame's source address is pinned to another port or peer.
    SpoofedSource = "spoofed_source",
    /// A frame's source address is not the one of its port, which may use no other.
    ForeignMac = "foreign_mac",
    /// An IP packet's source, or the sender that ARP or neighbour discovery tells, is not its port's.
    SpoofedAddress = "spoofed_address",
    /// A port that may not do so answered DHCP clients.
    RogueDhcp = "rogue_dhcp",
    /// A port that may not do so said that it is a router, or where a better one is.
    RogueRouter = "rogue_router",
    /// A frame under a guard or an allow-list could not be read to where it decides.
    Unreadable = "unreadable",
    /// Two ports of an isolated network, of which neither is promiscuous.
    Isolated = "isolated",
    /// Nothing in the network's allow-list lets the packet pass.
    NotAllowed = "not_allowed",
    /// A port sent more than its rate.
    RateOut = "rate_out",
    /// A port would have got more than its rate.
    RateIn = "rate_in",
    /// A frame to 01-80-C2-00-00-00..0F, which a bridge must not forward.
    ReservedDestination = "reserved_destination",
    /// A frame's destination is behind the port it came from.
    SamePort = "same_port",
    /// A frame came from a peer for a station behind a peer (split horizon).
    SplitHorizon = "split_horizon",
    /// A flooded frame had nowhere to go.
    NoReceiver = "no_receiver",
    /// A multicast frame was for a group that nobody else in the network listens to.
    NoListener = "no_listener",
    /// A frame pretended to come from its network's service address, where every member answers itself.
    ServiceClaimed = "service_claimed",
    /// A frame to its network's service address was nothing that is answered there, or came from a peer, which has it at home.
    ServiceRefused = "service_refused",
    /// More frames for service addresses came than could be answered at once.
    ServiceQueueFull = "service_queue_full",
    /// A packet was for outside its network, and there is no way out of it on this member.
    NoEgress = "no_egress",
    /// The port's TAP refused the frame: its queue is full or its interface is down.
    PortBlocked = "port_blocked",
    /// The port vanished while the frame was on its way.
    PortGone = "port_gone",
    /// No session with the peer yet and its queue of waiting packets is full.
    TunnelQueueFull = "tunnel_queue_full",
    /// A packet waited for a session that was not made in time, or whose peer was removed.
    TunnelQueueExpired = "tunnel_queue_expired",
    /// A message that had to take a certain way found no session with its peer.
    NoSession = "no_session",
    /// A flooded frame was not sent to a peer that does not answer handshakes.
    PeerSilent = "peer_silent",
    /// The underlay socket's send buffer is full.
    SocketFull = "socket_full",
    /// A datagram was larger than the outgoing interface takes. Probes that look for a larger path MTU end here too.
    PathTooSmall = "path_too_small",
    /// The kernel refused to send a datagram for another reason.
    SendFailed = "send_failed",
    /// A TCP connection, or the queue for all of them, was full.
    StreamFull = "stream_full",
    /// The TCP connection that a datagram was for has ended.
    StreamGone = "stream_gone",
    /// A TCP connection was refused or closed, with whatever came on it: it spoke another language, no session answered on
    /// it in time, or too many were open.
    StreamRefused = "stream_refused",
    /// The underlay socket's receive buffer was full when a datagram arrived. Datagrams that a sender's UDP_SEGMENT kept
    /// together count as one.
    ReceiveBufferFull = "receive_buffer_full",
    /// A datagram came from port 0, where nothing can be sent.
    ForgedSource = "forged_source",
    /// A datagram was not a WireGuard message.
    NotWireguard = "not_wireguard",
    /// A WireGuard message named no session of ours.
    UnknownSession = "unknown_session",
    /// A handshake message was not made with our public key, or came from nobody we know.
    HandshakeRefused = "handshake_refused",
    /// A frame or a relayed packet came from, or was for, a peer that has not shown yet that it may be a member.
    NotAdmitted = "not_admitted",
    /// A packet for another member was not passed on: this member does not relay, or the packet is none that is relayed.
    NotRelayed = "not_relayed",
    /// A packet for another member found no way: its next hop is not known, has no session, is itself reached through others,
    /// or is where the packet came from.
    NoRoute = "no_route",
    /// A packet for another member was passed on too often.
    TtlExpired = "ttl_expired",
    /// A handshake message was answered with a cookie, or dropped although it had one, because too many arrive.
    HandshakeLimited = "handshake_limited",
    /// A data message was not authentic.
    NotAuthentic = "not_authentic",
    /// A data message was a replay, or older than the replay window.
    Replay = "replay",
    /// A decrypted packet was not the IPv4 that belongs in a tunnel.
    MalformedPacket = "malformed_packet",
    /// A decrypted packet's source is not its peer's tunnel address, or its destination is not ours.
    SpoofedTunnelAddress = "spoofed_tunnel_address",
    /// A decrypted packet was neither VXLAN nor a message of the mesh.
    UnknownProtocol = "unknown_protocol",
    /// A frame's VNI is none of our networks, or none its peer may use.
    UnknownNetwork = "unknown_network",
    /// A frame out of a tunnel was shorter than its headers.
    MalformedInnerFrame = "malformed_inner_frame",
    /// A fragment overlapped another, was too large, or did not fit the others.
    BadFragment = "bad_fragment",
    /// A packet's fragments did not all arrive in time, or gave way to newer ones.
    Unreassembled = "unreassembled",
    /// The control plane's queue was full, or the share that a peer or port has of it was used up.
    ControlQueueFull = "control_queue_full",
}

/// A count per reason.
#[derive(Debug)]
struct Drops([AtomicU64; Drop::ALL.len()]);

impl Default for Drops {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::default()))
    }
}

/// Counts per [`Drop`], and the traffic totals. Written by all workers, read by `weft status`.
#[derive(Debug, Default)]
pub struct Counters {
    drops: [CachePadded<Drops>; SHARDS],
    /// Frames read from ports.
    pub port_rx_frames: Counter,
    /// Frames handed to ports.
    pub port_tx_frames: Counter,
    /// Frames for tunnels: sealed, or kept until there is a session.
    pub tunnel_tx_frames: Counter,
    /// Frames that came out of tunnels.
    pub tunnel_rx_frames: Counter,
    /// Frames that were flooded.
    pub flooded_frames: Counter,
    /// Frames that we made ourselves and handed to ports: answers, queries, announcements.
    pub told_frames: Counter,
    /// ARP requests and neighbour solicitations that were answered here and went nowhere else.
    pub suppressed_frames: Counter,
    /// IGMP and MLD messages of ports that control took in. Where routers or peers want them they go on.
    pub snooped_frames: Counter,
    /// Packets passed on between other members, and their bytes.
    pub relayed_packets: Counter,
    /// See [`Self::relayed_packets`].
    pub relayed_bytes: Counter,
    /// UDP datagrams handed to the kernel.
    pub datagrams_tx: Counter,
    /// UDP datagrams received.
    pub datagrams_rx: Counter,
}

impl Counters {
    /// Counts one drop.
    pub fn drop(&self, reason: Drop) {
        self.drop_many(reason, 1);
    }

    /// Counts `n` drops of one reason.
    pub fn drop_many(&self, reason: Drop, n: u64) {
        self.drops[shard()].0[reason as usize].fetch_add(n, Relaxed);
    }

    /// How often `reason` happened.
    pub fn dropped(&self, reason: Drop) -> u64 {
        self.drops.iter().map(|shard| shard.0[reason as usize].load(Relaxed)).sum()
    }

    /// All drops together.
    pub fn dropped_in_all(&self) -> u64 {
        Drop::ALL.iter().map(|&reason| self.dropped(reason)).sum()
    }
}

/// Traffic of one port or peer. A port is read by one worker and written to by all, so that the two directions are on
/// cache lines of their own, and so are neighbouring ports.
#[derive(Debug, Default)]
pub struct Flow {
    /// What was received from it.
    pub rx: CachePadded<Tally>,
    /// What was sent to it.
    pub tx: CachePadded<Tally>,
}

/// Traffic in one direction.
#[derive(Debug, Default)]
pub struct Tally {
    /// Frames or packets.
    pub frames: AtomicU64,
    /// Their bytes.
    pub bytes: AtomicU64,
    /// Frames that were dropped.
    pub drops: AtomicU64,
}

impl Flow {
    /// Counts one frame or packet received from it.
    pub fn received(&self, bytes: usize) {
        self.rx.add(1, bytes);
    }

    /// Counts `n` frames or packets sent to it, of `bytes` together.
    pub fn sent(&self, n: u64, bytes: usize) {
        self.tx.add(n, bytes);
    }
}

impl Tally {
    fn add(&self, n: u64, bytes: usize) {
        self.frames.fetch_add(n, Relaxed);
        self.bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// Counts `n` frames that were dropped.
    pub fn drop(&self, n: u64) {
        self.drops.fetch_add(n, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_several_threads_count_at_once_is_all_there() {
        let counters = Counters::default();
        crossbeam::thread::scope(|scope| {
            for _ in 0..SHARDS + 8 {
                scope.spawn(|_| {
                    for _ in 0..1000 {
                        counters.port_rx_frames.add(2);
                        counters.drop(Drop::NoReceiver);
                        counters.drop_many(Drop::SamePort, 3);
                    }
                });
            }
        })
        .unwrap();
        let frames = 1000 * (SHARDS as u64 + 8);
        assert_eq!(counters.port_rx_frames.get(), 2 * frames);
        assert_eq!([Drop::NoReceiver, Drop::SamePort].map(|reason| counters.dropped(reason)), [frames, 3 * frames]);
        assert_eq!(counters.dropped_in_all(), 4 * frames);
    }
}
