//! Every way a frame or packet can end without being delivered, and how often each happened.
//!
//! The data plane has no error type: what cannot be delivered is counted under exactly one [`Drop`], and this list
//! *is* the documentation of why frames die. `weft status` shows all of them.

use crossbeam::utils::CachePadded;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

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
    /// A frame to 01-80-C2-00-00-00..0F, which a bridge must not forward.
    ReservedDestination = "reserved_destination",
    /// A frame's destination is behind the port it came from.
    SamePort = "same_port",
    /// A frame came from a peer for a station behind a peer (split horizon).
    SplitHorizon = "split_horizon",
    /// A flooded frame had nowhere to go.
    NoReceiver = "no_receiver",
    /// The port's TAP refused the frame: its queue is full or its interface is down.
    PortBlocked = "port_blocked",
    /// The port vanished while the frame was on its way.
    PortGone = "port_gone",
    /// No session with the peer yet and its queue of waiting packets is full.
    TunnelQueueFull = "tunnel_queue_full",
    /// A packet waited for a session that was not made in time.
    TunnelQueueExpired = "tunnel_queue_expired",
    /// The underlay socket's send buffer is full.
    SocketFull = "socket_full",
    /// A datagram was larger than the outgoing interface takes. Probes that look for a larger path MTU end here too.
    PathTooSmall = "path_too_small",
    /// The kernel refused to send a datagram for another reason.
    SendFailed = "send_failed",
    /// The underlay socket's receive buffer was full when a datagram arrived. Datagrams that a sender's UDP_SEGMENT kept
    /// together count as one.
    ReceiveBufferFull = "receive_buffer_full",
    /// A datagram was not a WireGuard message.
    NotWireguard = "not_wireguard",
    /// A WireGuard message named no session of ours.
    UnknownSession = "unknown_session",
    /// A handshake message was not made with our public key, or came from nobody we know.
    HandshakeRefused = "handshake_refused",
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
    /// The control plane's queue was full, or a peer's share of it was used up.
    ControlQueueFull = "control_queue_full",
}

/// Counts per [`Drop`], and the traffic totals. Written by all workers, read by `weft status`.
#[derive(Debug, Default)]
pub struct Counters {
    drops: CachePadded<[AtomicU64; Drop::ALL.len()]>,
    /// Frames read from ports.
    pub port_rx_frames: CachePadded<AtomicU64>,
    /// Frames handed to ports.
    pub port_tx_frames: CachePadded<AtomicU64>,
    /// Frames sealed into tunnels.
    pub tunnel_tx_frames: CachePadded<AtomicU64>,
    /// Frames that came out of tunnels.
    pub tunnel_rx_frames: CachePadded<AtomicU64>,
    /// Frames that were flooded.
    pub flooded_frames: CachePadded<AtomicU64>,
    /// UDP datagrams handed to the kernel.
    pub datagrams_tx: CachePadded<AtomicU64>,
    /// UDP datagrams received.
    pub datagrams_rx: CachePadded<AtomicU64>,
}

impl Counters {
    /// Counts one drop.
    pub fn drop(&self, reason: Drop) {
        self.drop_many(reason, 1);
    }

    /// Counts `n` drops of one reason.
    pub fn drop_many(&self, reason: Drop, n: u64) {
        self.drops[reason as usize].fetch_add(n, Relaxed);
    }

    /// How often `reason` happened.
    pub fn dropped(&self, reason: Drop) -> u64 {
        self.drops[reason as usize].load(Relaxed)
    }

    /// All drops together.
    pub fn dropped_in_all(&self) -> u64 {
        Drop::ALL.iter().map(|&reason| self.dropped(reason)).sum()
    }
}

/// Traffic of one port or peer.
#[derive(Debug, Default)]
pub struct Flow {
    /// Frames or packets received from it.
    pub rx: AtomicU64,
    /// Bytes received from it.
    pub rx_bytes: AtomicU64,
    /// Frames or packets sent to it.
    pub tx: AtomicU64,
    /// Bytes sent to it.
    pub tx_bytes: AtomicU64,
    /// Frames of it that were dropped.
    pub drops: AtomicU64,
}

impl Flow {
    /// Counts one frame or packet received from it.
    pub fn received(&self, bytes: usize) {
        self.rx.fetch_add(1, Relaxed);
        self.rx_bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// Counts `n` frames or packets sent to it, of `bytes` together.
    pub fn sent(&self, n: u64, bytes: usize) {
        self.tx.fetch_add(n, Relaxed);
        self.tx_bytes.fetch_add(bytes as u64, Relaxed);
    }
}
