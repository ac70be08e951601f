//! Fragments of a hostile peer's packets, over time.
//!
//! ```text
//!  how (1), time (1, in 4 ms)
//!   bits 0-1 identification   bit 2 more fragments   bit 3 another protocol
//!   bit 7 clear: offset (2, in 8 bytes), length (2), seed of the content (1)
//!   bit 7 set: length (2), a whole packet of that many bytes
//!   bit 6: what is overdue expires first
//! ```
//!
//! What must hold: a packet that comes out has the length its last fragment said, every byte of it was in a fragment of
//! the same packet that arrived lately, its header is right, and it is no fragment itself. The content of a fragment
//! depends on its offset, so that misplaced bytes are seen.

use super::draft;
use super::input::{Input, put_word};
use std::collections::HashMap;
use std::time::{Duration, Instant};
use weft::wire::fragment::{MAX_PACKET, Outcome, Reassembler, SLOTS, TIMEOUT, pieces};
use weft::wire::vxlan::{self, Payload};

/// Where fragments of one packet were put, and when.
type Seen = HashMap<[u8; 11], Vec<(Instant, usize, Vec<u8>)>>;

/// The target.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (mut now, mut reassembler, mut seen) = (Instant::now(), Reassembler::default(), Seen::new());
    let (mut begun, mut ended, mut abandoned) = (0, 0, 0);
    while let Some((how, pause)) = input.byte().zip(input.byte()) {
        now += Duration::from_millis(4) * u32::from(pause);
        if how & 0x40 != 0 {
            reassembler.expire(now);
        }
        let Some(packet) = packet(how, &mut input) else { break };
        if let Some((key, at)) = placed(&packet) {
            seen.entry(key).or_default().push((now, at, packet[20..].to_vec()));
        }
        match reassembler.insert(now, &packet) {
            Outcome::Waiting => begun += 1,
            Outcome::Bad => ended += 1,
            Outcome::Whole(whole) => {
                ended += 1;
                assert!(whole.len() <= MAX_PACKET);
                let parsed = vxlan::parse(whole);
                assert!(!matches!(parsed, Ok(parsed) if parsed.payload == Payload::Fragment));
                let (key, at) = placed(whole).expect("a packet has a header");
                assert_eq!((at, &whole[6..8]), (0, &[0, 0][..]), "a whole packet is no fragment");
                let fragments = seen.get(&key).expect("it came in fragments");
                let mut known = vec![false; whole.len() - 20];
                for (since, at, payload) in fragments {
                    let lately = now.saturating_duration_since(*since) < TIMEOUT;
                    for (i, byte) in payload.iter().enumerate().filter(|_| lately) {
                        if let Some(known) = known.get_mut(at + i) {
                            *known |= whole[20 + at + i] == *byte;
                        }
                    }
                }
                assert!(known.iter().all(|&known| known), "a byte that nobody sent");
            }
        }
        abandoned += reassembler.take_abandoned();
    }
    reassembler.expire(now + TIMEOUT);
    let left = reassembler.take_abandoned();
    assert!(left <= SLOTS as u64, "{left} packets in progress");
    assert!(abandoned + left <= begun, "{ended} ended, of {begun} begun");
    let sizes = Input::new(data).word().zip(Input::new(data.get(2..).unwrap_or_default()).word());
    let (length, limit) = sizes.unwrap_or_default();
    cut(usize::from(length), usize::from(limit));
}

fn packet(how: u8, input: &mut Input<'_>) -> Option<Vec<u8>> {
    if how & 0x80 != 0 {
        let length = input.word()?;
        return Some(input.bytes(usize::from(length)).to_vec());
    }
    let (offset, length, seed) = (input.word()?, usize::from(input.word()?), input.byte()?);
    let mut packet = vec![0; 20];
    packet[0] = 0x45;
    put_word(&mut packet, 2, (20 + length).min(65_535) as u16);
    packet[5] = how & 3;
    put_word(&mut packet, 6, offset & 0x1fff | u16::from(how & 4) << 11);
    packet[8..10].copy_from_slice(&[64, if how & 8 != 0 { 6 } else { 17 }]);
    packet[12..20].copy_from_slice(&[100, 64, 0, 1, 100, 64, 0, 2]);
    let checksum = !draft::sum(0, &packet);
    put_word(&mut packet, 10, checksum);
    let at = usize::from(offset & 0x1fff) * 8;
    packet.extend((at..at + length.min(65_515)).map(|at| seed ^ at as u8 ^ (at >> 8) as u8));
    Some(packet)
}

/// What makes it one packet's, and where its payload belongs in that.
fn placed(packet: &[u8]) -> Option<([u8; 11], usize)> {
    let header: &[u8; 20] = packet.first_chunk()?;
    let [_, _, _, _, a, b, c, d, _, e, _, _, rest @ ..] = *header;
    let mut key = [0; 11];
    key[..3].copy_from_slice(&[a, b, e]);
    key[3..].copy_from_slice(&rest);
    Some((key, usize::from(u16::from_be_bytes([c, d]) & 0x1fff) * 8))
}

/// What is cut can be put together, whatever the limit.
fn cut(length: usize, limit: usize) {
    let length = length.min(MAX_PACKET);
    let mut at = 20;
    let count = pieces(length, limit).count();
    for (i, piece) in pieces(length, limit).enumerate() {
        assert_eq!((piece.payload.start, piece.more), (at, i + 1 < count));
        assert!(20 + piece.payload.len() <= limit.max(28) && !piece.payload.is_empty());
        assert!(piece.payload.len().is_multiple_of(8) || !piece.more);
        at = piece.payload.end;
    }
    assert!(at == length || length <= 20);
}
