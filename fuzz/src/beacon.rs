//! Datagrams to the multicast group of a LAN, for a member that knows one other.
//!
//! ```text
//!  how (1): bit 0 what, bits 1-7 seconds until the next
//!   0  length (1), bytes                        as they are
//!   1  hour (2), place (1), by (1)              the other's beacon of that hour, one byte flipped; 0x8000 is ours
//! ```
//!
//! What must hold: only the other is ever found, where the datagram came from, and not by a beacon whose tag is damaged;
//! nothing makes us speak more often than once a second.

use super::input::Input;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use weft::mesh::beacon::Beacons;
use weft::wire::key::PublicKey;

const OWN: PublicKey = PublicKey([1; 32]);
const OTHER: PublicKey = PublicKey([2; 32]);
/// Where the hour and the tag begin.
const HOUR: usize = 8;

/// The target.
pub fn run(data: &[u8]) {
    let begin = Instant::now();
    let mut now = begin;
    let unix = |now: Instant| Duration::from_secs(1_800_000_000) + now.duration_since(begin);
    let mut beacons = Beacons::new(now, OWN, 1);
    beacons.set_known(now, vec![OTHER]);
    let mut input = Input::new(data);
    let mut spoken: Option<Instant> = None;
    while let Some(how) = input.byte() {
        now += Duration::from_secs(u64::from(how >> 1));
        let from = SocketAddr::from(([192, 0, 2, how], 9338));
        if how & 1 == 0 {
            let length = usize::from(input.byte().unwrap_or(0));
            // A tag of 16 bytes is not guessed, but what a fuzzer was given as a seed is.
            let found = beacons.input(now, unix(now), from, input.bytes(length));
            assert!(found.is_none_or(|(key, address)| key == OTHER && address.ip() == from.ip()));
        } else {
            let (Some(hour), Some(at), Some(by)) = (input.word(), input.byte(), input.byte()) else { return };
            let their_unix = Duration::from_secs((500_000 - 0x8000 + u64::from(hour)) * 3600);
            let beacon = Beacons::new(now, OTHER, 51820).due(now, their_unix, 0);
            let mut beacon = beacon.expect("the first is due at once");
            let at = usize::from(at) % beacon.len();
            beacon[at] ^= by;
            let found = beacons.input(now, unix(now), from, &beacon);
            if at >= HOUR && by != 0 {
                assert_eq!(found, None, "byte {at} flipped by {by}");
            }
            assert!(found.is_none_or(|(key, address)| key == OTHER && address.ip() == from.ip()));
        }
        if beacons.due(now, unix(now), u64::from(how) << 56).is_some() {
            // The first ones come three quarters of a second apart and later.
            let since = spoken.map(|spoken| now.duration_since(spoken));
            assert!(since.is_none_or(|since| since >= Duration::from_millis(750)), "{since:?}");
            spoken = Some(now);
        }
    }
}
