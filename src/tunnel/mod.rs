//! A tunnel: the WireGuard state with one peer (the [paper](https://www.wireguard.com/papers/wireguard.pdf), whose
//! sections the files name).
//!
//! A [`Tunnel`] makes and renews sessions, remembers where the peer was last authentically heard from, and keeps a few
//! packets while no session exists. The [`Gate`] stands before all tunnels: it reads what a datagram claims to be and lets
//! handshakes in at a bounded rate. Nothing here does I/O: the time, randomness and bytes are arguments.
//!
//! ```text
//!             Gate ── who may cost us something ─► noise ── keys ─► keyring ── Sealer, Opener ─► the workers
//!            macs, cookies                      two messages        sessions   one packet each
//!                                                    ▲
//!                                    timers ── when to begin, retry, renew, keep alive
//! ```
//!
//! # Who holds what
//!
//! A tunnel has one owner at a time, its peer's mutex. A packet is sealed and opened without it: a worker takes the
//! [`Sealer`] and the endpoint once for a super-frame ([`Tunnel::outgoing`]), the [`Opener`] once for a train of datagrams
//! ([`Tunnel::opener`]), and tells the tunnel once that it heard the peer ([`Tunnel::heard`]).
//!
//! # Where it goes beyond the paper
//!
//! * A session is live only after the peer answered an initiation or used it, so that different pre-shared keys never look
//!   like a session.
//! * Sessions overlap by one more than the paper's three slots hold, so that nothing is lost when both sides initiate at
//!   once, and one of the two then renews for both ([`timers`], [`keyring`]).
//! * After 90 seconds without an answer it begins anew when there is something to send.
//! * An initiation may go to several endpoints; the peer answers the first copy and refuses the rest as replays.
//! * An initiation does not move the endpoint of a live session; the data that confirms the one it begins does.
//! * Control may choose the endpoint. The tunnel is then held there while the peer is heard there ([`Tunnel::choose`]).
//! * Of a session's index 24 bits name the tunnel, drawn at random by the owner, and eight are drawn for the session.
//! * Packets are not padded.

mod gate;
mod keyring;
mod macs;
mod noise;
mod session;
#[cfg(test)]
mod tests;
mod timers;
mod waiting;
mod window;

pub use crate::aead::Engine;
pub use gate::{Admission, Claim, Gate, GateSettings, HANDSHAKES_PER_SECOND, tunnel_of};
pub use noise::Called;
pub use session::{OVERHEAD, Opener, Sealer};
pub use window::{Reception, SIZE as REPLAY_WINDOW};

use crate::wire::key::{PublicKey, Secret};
use gate::Identity;
use keyring::{Keyring, Session};
use macs::{Mac, MacKeys};
use noise::{Calling, Parties, Timestamp};
use session::Keys;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use timers::{Due, Timers};
use waiting::Waiting;

/// The largest handshake message, an initiation (148), rounded up: room for any reply that is not data.
pub const HANDSHAKE_ROOM: usize = 160;
/// Unanswered initiations after which all known endpoints are tried, not just the last good one.
const PATIENCE: u32 = 2;
/// How long a cookie is used: until its secret changes, and not quite (paper §5.4.7).
const COOKIE_LIFE: Duration = Duration::from_secs(115);

/// How long a chosen way must be silent before the peer's frames move the tunnel elsewhere: the peer lost that way and
/// noticed first. Longer than packets of two ways overtake each other.
const HOLD: Duration = Duration::from_secs(1);

/// Message types (paper §5.4).
const INITIATION: u8 = 1;
const RESPONSE: u8 = 2;
const COOKIE_REPLY: u8 = 3;
const DATA: u8 = 4;
/// Lengths of the messages that have one.
const INITIATION_LEN: usize = 148;
const RESPONSE_LEN: usize = 92;
const COOKIE_REPLY_LEN: usize = 64;

/// Why a message was not taken. The tunnel is then as before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is shorter than its headers, or than the room for what is in it.
    #[error("malformed")]
    Malformed,
    /// It names no session, or one that is over.
    #[error("unknown session")]
    UnknownSession,
    /// It was not made with the session's key.
    #[error("not authentic")]
    NotAuthentic,
    /// It was seen before, or is older than the replay window.
    #[error("replay")]
    Replay,
    /// A handshake message that is not the peer's, not for us, or a copy.
    #[error("handshake refused")]
    Handshake,
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

/// What a response led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HandshakeOutcome {
    /// Bytes of `reply` to send back to where it came from.
    pub reply: usize,
    /// There was no session that seals before: send what waits.
    pub session_up: bool,
}

/// What an authentic data message had in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Nothing.
    Keepalive,
    /// A message of the mesh: control sends those over every way, to measure it.
    Message,
    /// Anything else: the peer prefers the way it came.
    Frame,
}

/// What time makes a tunnel send: so many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timely {
    /// To all [`Tunnel::handshake_endpoints`].
    Initiation(usize),
    /// To the [`Tunnel::endpoint`].
    Keepalive(usize),
}

/// The WireGuard state with one peer, and what waits for it. Owned by the peer, behind its mutex.
pub struct Tunnel {
    identity: Arc<Identity>,
    parties: Parties,
    macs: MacKeys,
    /// The upper 24 bits of all our session indexes.
    index: u32,
    keyring: Keyring,
    /// Our initiation that a response may answer, and its index.
    calling: Option<(u32, Calling)>,
    /// The timestamp of the newest initiation of the peer.
    called: Timestamp,
    /// The index and mac1 of our last handshake message: what a cookie reply answers.
    stamped: Option<(u32, Mac)>,
    cookie: Option<(Mac, Instant)>,
    timers: Timers,
    endpoint: Option<SocketAddr>,
    /// When control chose the endpoint; `None` while the peer's datagrams do.
    chosen: Option<Instant>,
    /// When a data message last came from the endpoint.
    heard_at: Option<Instant>,
    candidates: Vec<SocketAddr>,
    waiting: Waiting,
}

impl Tunnel {
    /// A tunnel without a session.
    pub fn new(gate: &Gate, settings: &TunnelSettings, now: Instant) -> Self {
        let identity = gate.identity.clone();
        let keepalive = settings.keepalive.map(|seconds| Duration::from_secs(seconds.into()));
        Self {
            parties: Parties::new(&identity.secret, settings.peer, settings.preshared_key.as_ref()),
            macs: MacKeys::of(&settings.peer),
            index: settings.index << 8,
            keyring: Keyring::default(),
            calling: None,
            called: [0; 12],
            stamped: None,
            cookie: None,
            timers: Timers::new(keepalive, identity.public.0 > settings.peer.0, now),
            endpoint: None,
            chosen: None,
            heard_at: None,
            candidates: settings.endpoints.clone(),
            waiting: Waiting::default(),
            identity,
        }
    }

    // ---- what is --------------------------------------------------------------------------------------------------

    /// Whether packets can be sealed: there is a session, and the peer proved that it has it.
    pub fn is_live(&self) -> bool {
        self.established().is_some()
    }

    /// Whether a handshake is on its way without an answer yet.
    pub fn is_trying(&self) -> bool {
        self.timers.is_trying()
    }

    /// When the live session was made.
    pub fn established(&self) -> Option<Instant> {
        self.keyring.established()
    }

    /// The way to the peer: where it was last authentically heard from, unless control chose another.
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
        let all = !self.is_live() || self.timers.unanswered_initiations > PATIENCE || self.endpoint.is_none();
        let rest = self.candidates.iter().copied().filter(move |&c| all && Some(c) != self.endpoint);
        self.endpoint.into_iter().chain(rest)
    }

    // ---- the way --------------------------------------------------------------------------------------------------

    /// From here on `endpoint` is the way to the peer. The tunnel is *held* there: messages of the mesh from elsewhere never
    /// move it, frames and keepalives only once nothing was heard on the chosen way for a second.
    pub fn choose(&mut self, now: Instant, endpoint: SocketAddr) {
        self.chosen = Some(now);
        self.settle(endpoint);
    }

    /// The tunnel follows its peer again wherever that is authentically heard from, as WireGuard does.
    pub fn release(&mut self) {
        self.chosen = None;
    }

    /// When a data message, or a keepalive, last came over the way to the peer; `None` when none did yet.
    pub fn heard_at(&self) -> Option<Instant> {
        self.heard_at
    }

    /// Moves to `endpoint`.
    fn settle(&mut self, endpoint: SocketAddr) {
        if self.endpoint != Some(endpoint) {
            (self.endpoint, self.heard_at) = (Some(endpoint), None);
        }
    }

    /// The peer was authentically heard `from` there. Follows it unless the tunnel is held.
    fn follow(&mut self, now: Instant, from: SocketAddr, content: Content) {
        if self.endpoint != Some(from) {
            let silent = |at: Instant| now.saturating_duration_since(at) >= HOLD;
            let held = self.chosen.is_some_and(|chosen| {
                content == Content::Message || !silent(self.heard_at.map_or(chosen, |heard| heard.max(chosen)))
            });
            if held && self.endpoint.is_some() {
                return;
            }
            self.chosen = self.chosen.map(|_| now);
            self.settle(from);
        }
        self.heard_at = Some(now);
    }

    // ---- data -----------------------------------------------------------------------------------------------------

    /// What seals data for the peer, and where to send it; `None` when no session is live. The caller is about to send.
    pub fn outgoing(&mut self, now: Instant) -> Option<(Arc<Sealer>, SocketAddr)> {
        let (sealer, endpoint) = (self.keyring.current(now)?.sealer.clone(), self.endpoint?);
        self.timers.sent(now, true);
        Some((sealer, endpoint))
    }

    /// What opens datagrams that name this index; `None` when it is no session's.
    pub fn opener(&self, now: Instant, index: u32) -> Option<Arc<Opener>> {
        self.keyring.opener(now, index).cloned()
    }

    /// An authentic datagram of the session with this index came `from` there, with this content. Returns whether a session
    /// came to life by it. To be told at once for the first of a train, and again for the first with other content.
    pub fn heard(&mut self, now: Instant, from: SocketAddr, index: u32, content: Content) -> bool {
        let could_seal = self.keyring.current(now).is_some();
        self.follow(now, from, content);
        self.timers.heard(now, content != Content::Keepalive);
        if self.keyring.confirm(index) {
            self.timers.established();
            self.calling = None;
        }
        !could_seal && self.keyring.current(now).is_some()
    }

    /// What became of the peer's data messages, in all sessions.
    pub fn reception(&self) -> Reception {
        self.keyring.reception()
    }

    // ---- handshakes -----------------------------------------------------------------------------------------------

    /// Begins a handshake unless one is on its way; returns the initiation's length. `None` also when nobody could be
    /// told.
    pub fn initiate(&mut self, now: Instant, datagram: &mut [u8; HANDSHAKE_ROOM]) -> Option<usize> {
        if !self.timers.may_initiate(now) || self.handshake_endpoints().next().is_none() {
            return None;
        }
        let (index, timestamp) = (self.unused_index(), self.identity.timestamp(now));
        let message = datagram.first_chunk_mut::<INITIATION_LEN>()?;
        let calling = Calling::initiate(&self.parties, index, &timestamp, self.identity.random(), message)?;
        self.stamp(now, index, message);
        self.calling = Some((index, calling));
        self.timers.initiated(now, u16::from_le_bytes(self.identity.random()));
        Some(INITIATION_LEN)
    }

    /// Answers an initiation that names this peer, see [`Gate::read`]; returns the length of the response, which is for
    /// where the initiation came from. The session that it makes is not live until the peer uses it. Until then a live
    /// one keeps its endpoint: a tunnel that the peer has not called yet takes an initiation of long ago for a fresh one,
    /// whoever sends it.
    ///
    /// # Errors
    /// [`Refusal::Handshake`] when it is not the peer's, or not later than the last one.
    pub fn answer(
        &mut self,
        now: Instant,
        from: SocketAddr,
        mut called: Called,
        reply: &mut [u8; HANDSHAKE_ROOM],
    ) -> Result<usize, Refusal> {
        let timestamp = called.authenticate(&self.parties).ok_or(Refusal::Handshake)?;
        if timestamp <= self.called {
            return Err(Refusal::Handshake);
        }
        let ours = self.unused_index();
        let message = reply.first_chunk_mut::<RESPONSE_LEN>().ok_or(Refusal::Handshake)?;
        let response = called.respond(&self.parties, ours, self.identity.random(), message);
        let (theirs, keys) = response.ok_or(Refusal::Handshake)?;
        self.called = timestamp;
        self.stamp(now, ours, message);
        self.add_session(now, &keys, ours, theirs, false);
        if self.keyring.current(now).is_none() {
            self.settle(from);
        }
        self.timers.shook();
        Ok(RESPONSE_LEN)
    }

    /// Takes the response to an initiation of ours. The reply is a keepalive, which tells the peer that the session is
    /// live.
    ///
    /// # Errors
    /// [`Refusal::UnknownSession`] when it answers nothing that we asked, [`Refusal::Handshake`] when it is not the peer's.
    pub fn take_response(
        &mut self,
        now: Instant,
        from: SocketAddr,
        response: &[u8],
        reply: &mut [u8; HANDSHAKE_ROOM],
    ) -> Result<HandshakeOutcome, Refusal> {
        let message = response.first_chunk::<RESPONSE_LEN>().ok_or(Refusal::Handshake)?;
        let (ours, calling) = self.calling.as_ref().ok_or(Refusal::UnknownSession)?;
        if message[8..12] != ours.to_le_bytes() {
            return Err(Refusal::UnknownSession);
        }
        let (theirs, keys) = calling.finish(&self.parties, message).ok_or(Refusal::Handshake)?;
        let (ours, could_seal) = (*ours, self.keyring.current(now).is_some());
        self.calling = None;
        self.add_session(now, &keys, ours, theirs, true);
        if !could_seal {
            self.settle(from);
        }
        self.follow(now, from, Content::Keepalive);
        self.timers.shook();
        self.timers.established();
        let reply = self.keepalive(now, reply).unwrap_or(0);
        Ok(HandshakeOutcome { reply, session_up: !could_seal })
    }

    /// Takes the cookie that the peer wants to see in the next handshake message. It does not move the endpoint: anyone on
    /// the path could have sent it back.
    ///
    /// # Errors
    /// [`Refusal::Handshake`] when it does not answer our last handshake message.
    pub fn take_cookie(&mut self, now: Instant, reply: &[u8]) -> Result<(), Refusal> {
        let reply = reply.first_chunk::<COOKIE_REPLY_LEN>().ok_or(Refusal::Handshake)?;
        let (index, mac1) = self.stamped.as_ref().ok_or(Refusal::Handshake)?;
        if reply[4..8] != index.to_le_bytes() {
            return Err(Refusal::Handshake);
        }
        self.cookie = Some((self.macs.cookie(reply, mac1).ok_or(Refusal::Handshake)?, now));
        // Another cookie for the same message would be a copy.
        self.stamped = None;
        Ok(())
    }

    fn add_session(&mut self, now: Instant, keys: &Keys, ours: u32, theirs: u32, initiator: bool) {
        let engine = self.identity.settings.engine;
        self.keyring.add(Session::new(keys, ours, theirs, initiator, engine, now));
    }

    /// Writes the MACs of a handshake message for the peer.
    fn stamp(&mut self, now: Instant, index: u32, message: &mut [u8]) {
        let fresh = |at: Instant| now.saturating_duration_since(at) < COOKIE_LIFE;
        let cookie = self.cookie.as_ref().filter(|(_, at)| fresh(*at)).map(|(cookie, _)| cookie);
        self.stamped = Some((index, self.macs.stamp(message, cookie)));
    }

    /// An index of ours that no session and no initiation has.
    fn unused_index(&self) -> u32 {
        let [start] = self.identity.random();
        let calling = self.calling.as_ref().map(|(index, _)| *index);
        let all = (0..=u8::MAX).map(|n| self.index | u32::from(start.wrapping_add(n)));
        // There are far fewer sessions than indexes.
        all.into_iter().find(|&index| Some(index) != calling && !self.keyring.has(index)).unwrap_or(self.index)
    }

    // ---- time -----------------------------------------------------------------------------------------------------

    /// Time passed: renews, retries, keeps alive. Called about four times a second.
    pub fn tick(&mut self, now: Instant, datagram: &mut [u8; HANDSHAKE_ROOM]) -> Option<Timely> {
        self.keyring.expire(now);
        let due = self.timers.due(now, self.keyring.current(now), self.waiting.len() > 0);
        if !self.timers.is_trying() {
            self.calling = None;
        }
        match due {
            Due::Nothing => None,
            Due::Initiation => self.initiate(now, datagram).map(Timely::Initiation),
            Due::Keepalive => self.keepalive(now, datagram).map(Timely::Keepalive),
        }
    }

    fn keepalive(&mut self, now: Instant, datagram: &mut [u8; HANDSHAKE_ROOM]) -> Option<usize> {
        let length = self.keyring.current(now)?.sealer.seal(&[], datagram)?;
        self.timers.sent(now, false);
        Some(length)
    }

    // ---- what waits -----------------------------------------------------------------------------------------------

    /// Keeps a packet until a session is live. Returns how many packets, oldest first, gave way.
    pub fn hold(&mut self, now: Instant, packet: &[u8]) -> u64 {
        self.waiting.push(now, packet)
    }

    /// How many packets wait for a session.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The oldest packet that waits, once a session is live.
    pub fn next_waiting(&mut self) -> Option<Vec<u8>> {
        if self.is_live() { self.waiting.pop() } else { None }
    }

    /// Drops packets that waited too long; returns how many.
    pub fn expire_waiting(&mut self, now: Instant) -> u64 {
        self.waiting.expire(now)
    }

    /// Drops all packets that wait, since the peer is gone; returns how many.
    pub fn abandon_waiting(&mut self) -> u64 {
        self.waiting.clear()
    }
}
