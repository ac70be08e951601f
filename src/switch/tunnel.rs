//! A tunnel: the WireGuard state with one peer. The only file that names boringtun.
//!
//! A [`Tunnel`] turns inner packets into datagrams and back, makes and renews sessions, remembers where the peer
//! was last authentically heard from, and keeps a few packets while no session exists. The [`Gate`] stands before
//! all tunnels: it reads what a datagram claims to be and lets handshakes in at a bounded rate.
//!
//! Nothing here does I/O. `now` is an argument; boringtun reads the same monotonic clock by itself.
//!
//! # What boringtun 0.7.1 gets wrong, and what stands in front of it
//!
//! * It panics when the output is smaller than the datagram, before authentication: [`Tunnel::open`] checks.
//! * It queues 256 packets of any size per peer and drops the newest: a packet only reaches it while a session is
//!   live; before that, packets wait in our own queue, bounded in packets, bytes and age, oldest dropped first.
//! * It rekeys when the first packet after a silence is not answered within a tick: [`Tunnel::holds_timers`] gives
//!   the peer the 15 seconds that the WireGuard paper §6.5 means.
//! * Its times are those of its last tick, so it cannot tell an answer from a question of the same tick, and then
//!   owes the peer a keepalive that it never sends: [`Tunnel::tick`] sends it.
//! * It calls a session current that the peer may not have: an initiation makes one in the next of eight slots, and
//!   the eighth unconfirmed one lands where the current one is looked for. Here a session is live only after the peer
//!   answered an initiation or used it, so different pre-shared keys never look like a session.
//! * When both sides initiate at once both stay initiators and renew twice for ever: the one with the larger
//!   public key lets the other go first ([`TIE_BREAK`]).
//! * Once expired (90 s without an answer, or 9 minutes of silence) it stays so: [`Tunnel::tick`] begins anew when
//!   there is something to send, and an incoming handshake is always welcome.
//! * Session indexes are sequential: the 24 bits that name the peer are drawn at random by the caller.
//! * Its handshake limiter is global: a flood puts all handshakes in cookie mode, in which a real peer needs one
//!   more round trip and a flooder with a forged address gets nowhere. Each accepted initiation is verified twice and
//!   counts twice, so the limit given to it is twice [`HANDSHAKES_PER_SECOND`].
//! * It refuses datagrams more than 1,024 behind the newest. One worker's leave in the order they were sealed. A second
//!   one could send thousands while the first is kept from running between sealing and sending: while workers share
//!   a tunnel, each sends what it sealed before it lets go of it ([`Tunnel::takes_turns`]).
//!
//! Not guarded: retries carry no jitter beyond that of our ticks; a session is not closed after 2^60 messages, which
//! at ten million a second takes 3,600 years of the 180 seconds it lives.

use super::counters::Drop;
use crate::wire::fragment::Reassembler;
use crate::wire::key::{PublicKey, Secret};
use boringtun::noise::errors::WireGuardError;
use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Packet, Tunn, TunnResult};
use boringtun::x25519;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The largest handshake message, an initiation (148), rounded up: room for any reply that is not data.
pub const HANDSHAKE_ROOM: usize = 160;
/// Handshakes taken without asking for a cookie. A restart of a hundred peers passes at once; a flood, of which each
/// initiation counts once, costs at most twice as many Diffie-Hellman computations (about 150 µs each) a second: 3 %
/// of a core.
pub const HANDSHAKES_PER_SECOND: u64 = 100;
/// Packets that wait for a session: a burst of neighbour discovery and a first TCP flight.
const WAITING_PACKETS: usize = 32;
/// Bytes that wait for a session: what [`WAITING_PACKETS`] of a default MTU need. A hundred unreachable peers hold
/// 6 MiB.
const WAITING_BYTES: usize = 64 * 1024;
/// How long a packet waits: longer than one lost initiation (5 s), shorter than its sender's patience.
const WAITING_TIME: Duration = Duration::from_secs(6);
/// KEEPALIVE_TIMEOUT + REKEY_TIMEOUT of the WireGuard paper §6.1: silence after which a peer counts as deaf.
const DEAF_AFTER: Duration = Duration::from_secs(15);
/// KEEPALIVE_TIMEOUT of the WireGuard paper §6.1: how long the peer's data may stay without an answer.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(10);
/// REKEY_AFTER_TIME of the WireGuard paper §6.1.
const REKEY_AFTER: Duration = Duration::from_secs(120);
/// How long the member with the larger key waits for the other's renewal before it renews itself.
const TIE_BREAK: Duration = Duration::from_secs(2);
/// boringtun reads its clock a little after us: its timers are held that much earlier than they would fire.
const CLOCK_SKEW: Duration = Duration::from_secs(1);
/// Unanswered initiations after which all known endpoints are tried, not just the last good one.
const PATIENCE: u32 = 2;

/// How long workers take turns after two of them used one tunnel.
const SHARED_FOR: Duration = Duration::from_secs(1);

/// Message types (WireGuard paper §5.4).
const INITIATION: u8 = 1;
const COOKIE_REPLY: u8 = 3;

/// What a datagram claims to be; nothing of it is authenticated yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Wants to begin a session.
    Initiation,
    /// Answers an initiation, or sends a cookie, to the tunnel with this index.
    Reply(u32),
    /// Carries a packet to the tunnel with this index.
    Data(u32),
}

/// What became of an initiation at the [`Gate`].
#[derive(Debug)]
pub enum Admission {
    /// It was made by the holder of this key, or is a copy of one that was.
    From(PublicKey),
    /// Too many arrive: answer with this many bytes of cookie.
    Cookie(usize),
    /// It was not made for us.
    Refused,
}

/// What every handshake passes before any tunnel spends time on it.
pub struct Gate {
    secret: x25519::StaticSecret,
    public: x25519::PublicKey,
    limiter: Arc<RateLimiter>,
}

impl Gate {
    /// A gate for the member with this private key.
    pub fn new(private: &Secret) -> Self {
        let secret = x25519::StaticSecret::from(*private.expose());
        let public = x25519::PublicKey::from(&secret);
        let limiter = Arc::new(RateLimiter::new(&public, 2 * HANDSHAKES_PER_SECOND));
        Self { secret, public, limiter }
    }

    /// Reads a datagram's message type and index.
    pub fn claim(datagram: &[u8]) -> Option<Claim> {
        // Only the 24 bits that name the peer count here; the low 8 name one of its sessions.
        match Tunn::parse_incoming_packet(datagram).ok()? {
            Packet::HandshakeInit(_) => Some(Claim::Initiation),
            Packet::HandshakeResponse(p) => Some(Claim::Reply(p.receiver_idx >> 8)),
            Packet::PacketCookieReply(p) => Some(Claim::Reply(p.receiver_idx >> 8)),
            Packet::PacketData(p) => Some(Claim::Data(p.receiver_idx >> 8)),
        }
    }

    /// Checks an initiation's MACs, the rate, and who made it. `reply` takes a cookie.
    pub fn admit(&self, from: SocketAddr, datagram: &[u8], reply: &mut [u8; HANDSHAKE_ROOM]) -> Admission {
        match self.limiter.verify_packet(Some(from.ip()), datagram, reply) {
            Ok(Packet::HandshakeInit(init)) => match parse_handshake_anon(&self.secret, &self.public, &init) {
                Ok(half) => Admission::From(PublicKey(half.peer_static_public)),
                Err(_) => Admission::Refused,
            },
            Err(TunnResult::WriteToNetwork(cookie)) => Admission::Cookie(cookie.len()),
            _ => Admission::Refused,
        }
    }

    /// Opens the gate for the next second's handshakes. Called at least once a second.
    pub fn tick(&self) {
        self.limiter.reset_count();
    }
}

/// How to make a tunnel.
#[derive(Debug, Clone)]
pub struct TunnelSettings {
    /// The peer's identity.
    pub peer: PublicKey,
    /// A secret both sides share besides their keys.
    pub preshared_key: Option<Secret>,
    /// Seconds between keepalives.
    pub keepalive: Option<u16>,
    /// 24 random bits, unique on this member, by which datagrams find the tunnel.
    pub index: u32,
    /// Where the peer may be reached.
    pub endpoints: Vec<SocketAddr>,
}

/// What came out of a handshake message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HandshakeOutcome {
    /// Bytes of `reply` to send back to where the message came from; 0 is none.
    pub reply: usize,
    /// A session became usable by this message: send what waits.
    pub session_up: bool,
    /// Too many handshakes arrive: the reply is a cookie and nothing else happened.
    pub limited: bool,
}

/// The WireGuard state with one peer, and what waits for it. Owned by the peer, behind its mutex.
pub struct Tunnel {
    tunn: Tunn,
    endpoint: Option<SocketAddr>,
    candidates: Vec<SocketAddr>,
    keepalive: Option<u16>,
    defers: bool,
    unanswered_initiations: u32,
    /// When the live session was made; `None` when none is live.
    established: Option<Instant>,
    /// boringtun's clock: when its timers last ran. What it takes for the time of an event is this.
    ticked: Instant,
    /// When boringtun thinks that the newest session was made.
    renewed: Instant,
    /// When boringtun thinks that the peer was last heard.
    heard: Instant,
    /// When we first sent data after the peer was last heard.
    unanswered_since: Option<Instant>,
    /// When we first heard data after we last sent anything.
    owing_since: Option<Instant>,
    waiting: VecDeque<(Instant, Vec<u8>)>,
    waiting_bytes: usize,
    identification: u16,
    /// Which worker's batch sealed last, and until when others are expected.
    lane: usize,
    shared_until: Option<Instant>,
    /// Puts fragments of this peer's packets together.
    pub reassembler: Reassembler,
}

impl Tunnel {
    /// A tunnel without a session.
    pub fn new(gate: &Gate, settings: &TunnelSettings, now: Instant) -> Self {
        let peer = x25519::PublicKey::from(settings.peer.0);
        let preshared = settings.preshared_key.as_ref().map(|key| *key.expose());
        let limiter = Some(gate.limiter.clone());
        let index = settings.index & 0x00ff_ffff;
        Self {
            tunn: Tunn::new(gate.secret.clone(), peer, preshared, settings.keepalive, index, limiter),
            endpoint: None,
            candidates: settings.endpoints.clone(),
            keepalive: settings.keepalive,
            defers: gate.public.as_bytes() > &settings.peer.0,
            unanswered_initiations: 0,
            established: None,
            ticked: now,
            renewed: now,
            heard: now,
            unanswered_since: None,
            owing_since: None,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            identification: 0,
            lane: 0,
            shared_until: None,
            reassembler: Reassembler::default(),
        }
    }

    /// Whether packets can be sealed: there is a session, and the peer proved that it has it.
    pub fn is_live(&self) -> bool {
        self.established.is_some()
    }

    /// Whether a handshake is on its way without an answer yet.
    pub fn is_trying(&self) -> bool {
        self.unanswered_initiations > 0 && !self.tunn.is_expired()
    }

    /// When the live session was made.
    pub fn established(&self) -> Option<Instant> {
        self.established
    }

    /// Where the peer was last authentically heard from.
    pub fn endpoint(&self) -> Option<SocketAddr> {
        self.endpoint
    }

    /// Replaces the endpoints of the file, after a reload or a change in DNS.
    pub fn set_endpoints(&mut self, endpoints: Vec<SocketAddr>) {
        self.candidates = endpoints;
    }

    /// The endpoints handshakes go to: the last good one while it answers, else every one that is known. The same
    /// initiation may go to several; the peer answers the first and takes the rest for replays.
    pub fn handshake_endpoints(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        let all = !self.is_live() || self.unanswered_initiations > PATIENCE || self.endpoint.is_none();
        let rest = self.candidates.iter().copied().filter(move |&c| all && Some(c) != self.endpoint);
        self.endpoint.into_iter().chain(rest)
    }

    /// The identification of the next packet that may be fragmented (RFC 791).
    pub fn next_identification(&mut self) -> u16 {
        self.identification = self.identification.wrapping_add(1);
        self.identification
    }

    /// Seals `packet` into `datagram`, which must have 32 bytes more than it. `None` when no session is live.
    pub fn seal(&mut self, now: Instant, packet: &[u8], datagram: &mut [u8]) -> Option<usize> {
        if !self.is_live() || datagram.len() < (packet.len() + 32).max(HANDSHAKE_ROOM) {
            return None;
        }
        self.unanswered_since.get_or_insert(now);
        self.owing_since = None;
        match self.tunn.encapsulate(packet, datagram) {
            TunnResult::WriteToNetwork(sealed) => Some(sealed.len()),
            _ => None,
        }
    }

    /// Opens a data message from `from` into `packet` and returns the packet's length; 0 is a keepalive. Only what is
    /// authentic moves the endpoint.
    ///
    /// # Errors
    /// The reason to count; the tunnel is as before.
    pub fn open(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &[u8],
        packet: &mut [u8],
    ) -> Result<usize, Drop> {
        if packet.len() < datagram.len().max(HANDSHAKE_ROOM) {
            return Err(Drop::MalformedPacket);
        }
        let length = match self.tunn.decapsulate(Some(from.ip()), datagram, packet) {
            // boringtun cuts a packet to the length that its header gives, also to none.
            TunnResult::WriteToTunnelV4([], _) => return Err(Drop::MalformedPacket),
            TunnResult::WriteToTunnelV4(packet, _) => packet.len(),
            // Authentic, but not the IPv4 we carry: refused above us by its version.
            TunnResult::WriteToTunnelV6(packet, _) => packet.len(),
            TunnResult::Done => 0,
            TunnResult::WriteToNetwork(_) => return Err(Drop::UnknownSession),
            TunnResult::Err(error) => {
                return Err(match error {
                    WireGuardError::InvalidCounter | WireGuardError::DuplicateCounter => Drop::Replay,
                    WireGuardError::NoCurrentSession | WireGuardError::WrongIndex => Drop::UnknownSession,
                    WireGuardError::InvalidPacket => Drop::MalformedPacket,
                    _ => Drop::NotAuthentic,
                });
            }
        };
        self.heard_from(from);
        self.established.get_or_insert(now);
        if length > 0 {
            self.owing_since.get_or_insert(now);
        }
        Ok(length)
    }

    /// Takes a handshake message of whichever kind. Only an authentic one moves the endpoint; a cookie does not, since
    /// anyone on the path could have sent it back.
    ///
    /// # Errors
    /// The reason to count; the tunnel is as before.
    pub fn handshake(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &[u8],
        reply: &mut [u8; HANDSHAKE_ROOM],
    ) -> Result<HandshakeOutcome, Drop> {
        let (is_response, is_cookie) = match Tunn::parse_incoming_packet(datagram) {
            Ok(Packet::HandshakeResponse(_)) => (true, false),
            Ok(Packet::PacketCookieReply(_)) => (false, true),
            _ => (false, false),
        };
        let was_live = self.is_live();
        let reply = match self.tunn.decapsulate(Some(from.ip()), datagram, reply) {
            TunnResult::Done => 0,
            TunnResult::WriteToNetwork(bytes) if bytes.first() == Some(&COOKIE_REPLY) => {
                return Ok(HandshakeOutcome { reply: bytes.len(), session_up: false, limited: true });
            }
            TunnResult::WriteToNetwork(bytes) => bytes.len(),
            _ => return Err(Drop::HandshakeRefused),
        };
        if !is_cookie {
            self.unanswered_initiations = 0;
            self.renewed = self.ticked;
            self.heard_from(from);
            // The session that an initiation makes is not live until the peer uses it.
            if is_response || was_live {
                self.established = Some(now);
            }
        }
        Ok(HandshakeOutcome { reply, session_up: self.is_live() && !was_live, limited: false })
    }

    fn heard_from(&mut self, from: SocketAddr) {
        self.heard = self.ticked;
        self.unanswered_since = None;
        self.endpoint = Some(from);
    }

    /// Begins a handshake unless one is on its way; returns the initiation's length.
    pub fn initiate(&mut self, datagram: &mut [u8; HANDSHAKE_ROOM]) -> Option<usize> {
        match self.tunn.format_handshake_initiation(datagram, false) {
            TunnResult::WriteToNetwork(bytes) => {
                self.unanswered_initiations = self.unanswered_initiations.saturating_add(1);
                Some(bytes.len())
            }
            _ => None,
        }
    }

    /// Time passed: renews, retries, keeps alive. Returns the length of what is to be sent: an initiation (148 bytes)
    /// to [`Self::handshake_endpoints`], or a keepalive to [`Self::endpoint`]. Called about four times a second.
    pub fn tick(&mut self, now: Instant, datagram: &mut [u8; HANDSHAKE_ROOM]) -> Option<usize> {
        if self.is_live() && self.owing_since.is_some_and(|at| now.saturating_duration_since(at) >= KEEPALIVE_AFTER) {
            self.owing_since = None;
            return match self.tunn.encapsulate(&[], datagram) {
                TunnResult::WriteToNetwork(bytes) => Some(bytes.len()),
                _ => None,
            };
        }
        if self.holds_timers(now) {
            return None;
        }
        self.ticked = now;
        let sent = match self.tunn.update_timers(datagram) {
            TunnResult::WriteToNetwork(bytes) if bytes.first() == Some(&INITIATION) => {
                self.unanswered_initiations = self.unanswered_initiations.saturating_add(1);
                Some(bytes.len())
            }
            TunnResult::WriteToNetwork(bytes) => {
                self.owing_since = None;
                Some(bytes.len())
            }
            _ => None,
        };
        if self.tunn.time_since_last_handshake().is_none() {
            self.established = None;
        }
        if sent.is_none() && self.tunn.is_expired() && (self.keepalive.is_some() || !self.waiting.is_empty()) {
            return self.initiate(datagram);
        }
        sent
    }

    /// Whether boringtun's timers must not run yet: see the file's header on spurious and double renewals. A session
    /// near its end is never held.
    fn holds_timers(&self, now: Instant) -> bool {
        if !self.is_live() {
            return false;
        }
        let since = |at: Instant| now.saturating_duration_since(at);
        let age = since(self.renewed);
        let waits_for_other = self.defers && age >= REKEY_AFTER - CLOCK_SKEW && age < REKEY_AFTER + TIE_BREAK;
        let silent = since(self.heard) >= DEAF_AFTER - CLOCK_SKEW;
        let asked_lately = self.unanswered_since.is_some_and(|at| since(at) < DEAF_AFTER);
        waits_for_other || (silent && asked_lately && age < REKEY_AFTER)
    }

    /// Whether the worker that sends with the batch `lane` must send before it lets go of this tunnel, because another
    /// one used it lately.
    pub fn takes_turns(&mut self, now: Instant, lane: usize) -> bool {
        if lane != self.lane {
            self.lane = lane;
            self.shared_until = Some(now + SHARED_FOR);
        }
        self.shared_until.is_some_and(|until| now < until)
    }

    /// Keeps a packet until a session is live. Returns how many packets, oldest first, gave way.
    pub fn hold(&mut self, now: Instant, packet: &[u8]) -> u64 {
        let mut dropped = 0;
        while self.waiting.len() >= WAITING_PACKETS || self.waiting_bytes + packet.len() > WAITING_BYTES {
            let Some((_, old)) = self.waiting.pop_front() else { break };
            self.waiting_bytes -= old.len();
            dropped += 1;
        }
        self.waiting_bytes += packet.len();
        self.waiting.push_back((now, packet.to_vec()));
        dropped
    }

    /// How many packets wait for a session.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The oldest packet that waits, once a session is live.
    pub fn next_waiting(&mut self) -> Option<Vec<u8>> {
        let (_, packet) = if self.is_live() { self.waiting.pop_front()? } else { return None };
        self.waiting_bytes -= packet.len();
        Some(packet)
    }

    /// Drops packets that waited too long; returns how many.
    pub fn expire_waiting(&mut self, now: Instant) -> u64 {
        let mut expired = 0;
        while let Some((since, packet)) = self.waiting.front()
            && now.saturating_duration_since(*since) >= WAITING_TIME
        {
            self.waiting_bytes -= packet.len();
            self.waiting.pop_front();
            expired += 1;
        }
        expired
    }
}
