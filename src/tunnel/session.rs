//! A session's two halves: what seals and what opens data messages (WireGuard paper §5.4.6).
//!
//! ```text
//!  type (1) 0 0 0 | receiver index (4) | counter (8) | sealed packet and tag (16 more than the packet)
//! ```
//!
//! Both are used by several workers at once and without the tunnel's mutex: a [`Sealer`] gives every packet a counter of
//! its own, an [`Opener`] locks its replay window for a moment after the packet proved authentic. They know nothing of
//! time: which session is used, and until when, is the tunnel's to say.

use super::window::{Reception, Window};
use super::{DATA, Refusal};
use crate::aead::{Engine, Key};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use zeroize::Zeroizing;

/// Bytes in front of the sealed packet.
const HEADER: usize = 16;
/// Bytes of the tag behind it.
const TAG: usize = crate::aead::TAG_LEN;
/// Bytes that sealing adds.
pub const OVERHEAD: usize = HEADER + TAG;
const _: () = assert!(OVERHEAD == crate::wire::WIREGUARD_OVERHEAD);

/// REKEY_AFTER_MESSAGES of the paper §6.1.
const REKEY_AFTER_MESSAGES: u64 = 1 << 60;
/// REJECT_AFTER_MESSAGES of the paper §6.1: the counter that no message may have, nor any above it.
const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);

/// The keys that a handshake gives.
pub(super) struct Keys {
    pub(super) send: Zeroizing<[u8; 32]>,
    pub(super) receive: Zeroizing<[u8; 32]>,
}

/// Seals packets for the peer.
pub struct Sealer {
    key: Key,
    /// The peer's index for the session.
    receiver: u32,
    counter: AtomicU64,
}

impl Sealer {
    pub(super) fn new(keys: &Keys, receiver: u32, engine: Engine) -> Self {
        Self { key: Key::new(&keys.send, engine), receiver, counter: AtomicU64::new(0) }
    }

    /// Seals `packet` into the front of `datagram` and returns the datagram's length, [`OVERHEAD`] more than the packet's.
    /// `None` when there is no room, or the session has used up its counters.
    pub fn seal(&self, packet: &[u8], datagram: &mut [u8]) -> Option<usize> {
        let length = packet.len() + OVERHEAD;
        let (header, sealed) = datagram.get_mut(..length)?.split_at_mut(HEADER);
        let counter = self.counter.fetch_add(1, Relaxed);
        if counter >= REJECT_AFTER_MESSAGES {
            // However often it is tried: the counter does not come round to zero.
            self.counter.store(REJECT_AFTER_MESSAGES, Relaxed);
            return None;
        }
        header[..4].copy_from_slice(&[DATA, 0, 0, 0]);
        header[4..8].copy_from_slice(&self.receiver.to_le_bytes());
        header[8..].copy_from_slice(&counter.to_le_bytes());
        self.key.seal(counter, packet, sealed);
        Some(length)
    }

    /// As if so much had been sealed.
    #[cfg(test)]
    pub(super) fn spend(&self, counter: u64) {
        self.counter.store(counter, Relaxed);
    }

    /// Whether so much was sealed that the session should be renewed.
    pub(super) fn is_worn(&self) -> bool {
        self.counter.load(Relaxed) >= REKEY_AFTER_MESSAGES
    }

    /// Whether no packet can be sealed any more.
    pub(super) fn is_exhausted(&self) -> bool {
        self.counter.load(Relaxed) >= REJECT_AFTER_MESSAGES
    }
}

/// Opens the peer's packets.
pub struct Opener {
    key: Key,
    /// Our index for the session.
    index: u32,
    window: Mutex<Window>,
}

impl Opener {
    pub(super) fn new(keys: &Keys, index: u32, engine: Engine) -> Self {
        Self { key: Key::new(&keys.receive, engine), index, window: Mutex::new(Window::new()) }
    }

    /// Our index for the session, by which the peer's datagrams name it.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// What became of the peer's data messages in this session.
    pub(super) fn reception(&self) -> Reception {
        self.window.lock().unwrap_or_else(PoisonError::into_inner).reception()
    }

    /// Opens a data message of this session into the front of `packet` and returns the packet's length, padding included;
    /// 0 is a keepalive. `packet` needs [`OVERHEAD`] bytes less than the datagram.
    ///
    /// # Errors
    /// The reason to count; what `packet` holds is then of no use.
    pub fn open(&self, datagram: &[u8], packet: &mut [u8]) -> Result<usize, Refusal> {
        let (header, sealed) = datagram.split_at_checked(HEADER).ok_or(Refusal::Malformed)?;
        let length = sealed.len().checked_sub(TAG).ok_or(Refusal::Malformed)?;
        let packet = packet.get_mut(..length).ok_or(Refusal::Malformed)?;
        let (_, counter) = header.split_last_chunk().ok_or(Refusal::Malformed)?;
        let counter = u64::from_le_bytes(*counter);
        if counter >= REJECT_AFTER_MESSAGES {
            return Err(Refusal::Replay);
        }
        self.key.open(counter, sealed, packet).map_err(|_| Refusal::NotAuthentic)?;
        // A window whose holder panicked is still a window.
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if window.accept(counter) { Ok(length) } else { Err(Refusal::Replay) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::BTreeSet;

    fn pair() -> (Sealer, Opener) {
        let keys = Keys { send: Zeroizing::new([1; 32]), receive: Zeroizing::new([1; 32]) };
        (Sealer::new(&keys, 0x0102_0304, Engine::Ring), Opener::new(&keys, 0x0102_0304, Engine::Ring))
    }

    fn sealed(sealer: &Sealer, packet: &[u8]) -> Vec<u8> {
        let mut datagram = vec![0xee; packet.len() + OVERHEAD];
        assert_eq!(sealer.seal(packet, &mut datagram), Some(datagram.len()));
        datagram
    }

    #[test]
    fn packets_of_every_length_come_through() {
        let (sealer, opener) = pair();
        for length in (0..300).chain([1420, 8940, 9216, 65_000]) {
            let packet: Vec<u8> = (0..length).map(|i| i as u8).collect();
            let datagram = sealed(&sealer, &packet);
            let mut opened = vec![0; length];
            assert_eq!(opener.open(&datagram, &mut opened), Ok(length));
            assert_eq!(opened, packet);
            assert_eq!(opener.open(&datagram, &mut opened), Err(Refusal::Replay));
        }
    }

    #[test]
    fn the_header_is_the_paper_s() {
        let (sealer, _) = pair();
        sealed(&sealer, b"");
        let datagram = sealed(&sealer, b"");
        assert_eq!(datagram[..HEADER], [4, 0, 0, 0, 4, 3, 2, 1, 1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(datagram.len(), 32);
    }

    #[test]
    fn every_bit_counts_except_those_that_found_the_session() {
        let (sealer, opener) = pair();
        let genuine = sealed(&sealer, b"what was said");
        for at in 8..genuine.len() {
            let mut datagram = genuine.clone();
            datagram[at] ^= 0x10;
            let refused = opener.open(&datagram, &mut [0; 64]);
            assert!(refused.is_err(), "byte {at}");
        }
        assert_eq!(opener.open(&genuine, &mut [0; 64]), Ok(13));
    }

    #[test]
    fn a_session_ends_before_its_counter_does() {
        let (sealer, opener) = pair();
        sealer.spend(REKEY_AFTER_MESSAGES - 1);
        assert!(!sealer.is_worn());
        let _ = sealed(&sealer, b"a");
        assert!(sealer.is_worn() && !sealer.is_exhausted());
        sealer.spend(REJECT_AFTER_MESSAGES - 1);
        let last = sealed(&sealer, b"the last");
        assert_eq!(opener.open(&last, &mut [0; 64]), Ok(8));
        for _ in 0..20_000 {
            assert_eq!(sealer.seal(b"one too many", &mut [0; 64]), None);
        }
        assert!(sealer.is_exhausted());
        // Nor is one taken from a peer that does not count.
        let mut datagram = vec![0; 48];
        let counter = REJECT_AFTER_MESSAGES;
        datagram[8..16].copy_from_slice(&counter.to_le_bytes());
        opener.key.seal(counter, &[7; 16], &mut datagram[16..]);
        assert_eq!(opener.open(&datagram, &mut [0; 64]), Err(Refusal::Replay));
    }

    #[test]
    fn workers_that_seal_and_open_at_once_lose_and_repeat_nothing() {
        let (sealer, opener) = pair();
        let each = |worker: u8| {
            let (sealer, opener) = (&sealer, &opener);
            move || {
                let mut counters = Vec::new();
                for _ in 0..1000 {
                    let datagram = sealed(sealer, &[worker; 40]);
                    assert_eq!(opener.open(&datagram, &mut [0; 64]), Ok(40));
                    counters.push(u64::from_le_bytes(datagram[8..16].try_into().unwrap()));
                }
                counters
            }
        };
        let all: BTreeSet<u64> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..4).map(|worker| scope.spawn(each(worker))).collect();
            workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
        });
        assert_eq!(all, (0..4000).collect());
    }
}
