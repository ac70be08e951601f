//! Strangers: who begins a session without being a peer, and may yet show that it is a member.
//!
//! Where an authority decides, a member that we have not heard of has our key from somebody we know, and begins a
//! session. It gets one in which only messages of the mesh pass: it shows its certificate, or asks to join with a token. Until then it
//! is told of nobody but us. The gate bounds how many handshakes there are; here it is bounded how many strangers are waited
//! for, and for how long.

use super::peers::PeerOrigin;
use super::{Control, Host};
use crate::config;
use crate::switch::ids::PeerId;
use crate::wire::key::PublicKey;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Strangers at once: several times what the gate lets in within a second.
const MAX_STRANGERS: usize = 64;
/// How long a stranger has to show who it is: a few round trips, and a few losses.
const PATIENCE: Duration = Duration::from_secs(20);

impl<H: Host> Control<H> {
    /// Somebody who is no peer wants to begin a session; `datagram` is its initiation.
    pub fn stranger(&mut self, now: Instant, key: PublicKey, from: SocketAddr, datagram: &[u8]) {
        if self.id_of(&key).is_none() {
            if !self.trusts_an_authority() {
                return tracing::debug!("{key} at {from} is no peer of the file and was not answered");
            }
            if key == self.identity.key {
                return tracing::debug!("{from} claims to be us and was not answered");
            }
            if self.strangers().count() >= MAX_STRANGERS && !self.drop_silent_stranger(now) {
                return tracing::debug!("{key} at {from} was not answered: {MAX_STRANGERS} strangers wait already");
            }
            let short: String = key.to_string().chars().take(8).collect();
            let peer = config::Peer::of_member(format!("stranger {short}"), key, key.tunnel_address());
            self.add_peer(now, &peer, PeerOrigin::Stranger(now + PATIENCE));
            self.publish();
        }
        self.switch.handshake_input(now, from, datagram, self.host.out());
    }

    /// Forgets strangers that had their time.
    pub(super) fn drop_strangers(&mut self, now: Instant) {
        let late: Vec<PeerId> = self.strangers().filter(|(_, until)| *until <= now).map(|(id, _)| id).collect();
        self.lose_peers(now, late);
    }

    /// Forgets the stranger that has been without a session for the longest: it may only be a name in an initiation that
    /// somebody made up.
    fn drop_silent_stranger(&mut self, now: Instant) -> bool {
        let is_silent = |(id, _): &(PeerId, Instant)| self.peers.get(id).is_some_and(|e| !e.peer.tunnel().is_live());
        let Some((id, _)) = self.strangers().filter(is_silent).min_by_key(|(_, until)| *until) else { return false };
        self.remove_peer(now, id);
        true
    }

    fn strangers(&self) -> impl Iterator<Item = (PeerId, Instant)> {
        self.peers.iter().filter_map(|(&id, entry)| match entry.origin {
            PeerOrigin::Stranger(until) => Some((id, until)),
            _ => None,
        })
    }
}
