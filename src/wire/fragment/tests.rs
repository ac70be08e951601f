//! Cutting and joining against a map of bytes, and the ways a packet can fail to arrive.

#![allow(clippy::unwrap_used)]
use super::*;
use crate::wire::vxlan::{self, Payload};
use proptest::prelude::*;
use proptest::sample::Index;
use std::collections::BTreeMap;

/// A VXLAN packet with a frame of `len` bytes that depend on `id`.
fn packet(id: u16, len: usize) -> Vec<u8> {
    let mut packet = vec![0; INNER_OVERHEAD];
    vxlan::emit(&mut packet, [100, 64, 0, 1].into(), [100, 64, 0, 2].into(), id, 7, 3, None, len);
    packet.extend((0..len).map(|i| (i as u16).wrapping_mul(31).wrapping_add(id) as u8));
    packet
}

fn cut(packet: &[u8], limit: usize) -> Vec<Vec<u8>> {
    let original = packet.first_chunk().unwrap();
    let cut_one = |piece: Piece| {
        let mut fragment = vec![0; IPV4_LEN];
        piece.stamp(original, &mut fragment);
        fragment.extend(&packet[piece.payload]);
        fragment
    };
    pieces(packet.len(), limit).map(cut_one).collect()
}

/// Reassembly by a map from byte position to byte, for valid fragments of one packet.
#[derive(Default)]
struct Naive {
    bytes: BTreeMap<usize, u8>,
    total: Option<usize>,
}

impl Naive {
    fn insert(&mut self, fragment: &[u8]) -> Option<Vec<u8>> {
        let flags = u16::from_be_bytes([fragment[6], fragment[7]]);
        let offset = usize::from(flags & 0x1fff) * 8;
        self.bytes.extend(fragment[20..].iter().enumerate().map(|(i, &byte)| (offset + i, byte)));
        if flags & 0x2000 == 0 {
            self.total = Some(offset + fragment.len() - 20);
        }
        (Some(self.bytes.len()) == self.total).then(|| self.bytes.values().copied().collect())
    }
}

fn at(now: Instant, millis: u64) -> Instant {
    now + Duration::from_millis(millis)
}

proptest! {
    #[test]
    fn pieces_fit_cover_the_packet_and_are_plain_ipv4(len in 1usize..9000, limit in 28usize..2000) {
        let whole = packet(9, len);
        let fragments = cut(&whole, limit);
        let mut payload: Vec<u8> = Vec::new();
        for (i, fragment) in fragments.iter().enumerate() {
            prop_assert!(fragment.len() <= limit);
            let ip = Ipv4Header::parse(fragment).unwrap();
            prop_assert_eq!(ip.fragment_offset, payload.len());
            prop_assert_eq!(ip.more_fragments, i + 1 < fragments.len());
            prop_assert_eq!(ip.identification, 9);
            payload.extend(&fragment[ip.payload]);
        }
        prop_assert_eq!(&payload, &whole[IPV4_LEN..]);
        prop_assert_eq!(fragments.len() == 1, whole.len() <= limit);
        if fragments.len() == 1 {
            prop_assert_eq!(&fragments[0], &whole);
        }
    }

    #[test]
    fn headers_may_be_stamped_over_the_piece_before(len in 1usize..9000, limit in 60usize..2000) {
        let mut whole = packet(9, len);
        let expected = cut(&whole, limit);
        let original = *whole.first_chunk().unwrap();
        for (piece, expected) in pieces(whole.len(), limit).zip(expected) {
            let start = piece.payload.start - IPV4_LEN;
            piece.stamp(&original, &mut whole[start..piece.payload.start]);
            prop_assert_eq!(&whole[start..piece.payload.end], &expected[..]);
        }
    }

    #[test]
    fn packets_come_together_exactly_when_all_their_bytes_are_there(
        sizes in proptest::collection::vec((500usize..9000, 600usize..1500), 1..20),
        moves in proptest::collection::vec((any::<Index>(), any::<Index>()), 0..60),
        losses in proptest::collection::vec(any::<Index>(), 0..6),
        duplicates in proptest::collection::vec((any::<Index>(), any::<Index>()), 0..6),
    ) {
        let packets: Vec<_> = sizes.iter().enumerate().map(|(id, &(len, _))| packet(id as u16, len)).collect();
        let mut fragments: Vec<(usize, Vec<u8>)> = packets.iter().zip(&sizes).enumerate()
            .flat_map(|(id, (packet, &(_, limit)))| cut(packet, limit).into_iter().map(move |f| (id, f)))
            .collect();
        for (from, to) in moves {
            let (from, to) = (from.index(fragments.len()), to.index(fragments.len()));
            fragments.swap(from, to);
        }
        for (from, to) in duplicates {
            let copy = fragments[from.index(fragments.len())].clone();
            fragments.insert(to.index(fragments.len()), copy);
        }
        for loss in losses {
            if fragments.len() > 1 {
                fragments.remove(loss.index(fragments.len()));
            }
        }
        let now = Instant::now();
        let mut reassembler = Reassembler::default();
        let mut naive: BTreeMap<usize, Naive> = BTreeMap::new();
        for (id, fragment) in fragments {
            let expected = naive.entry(id).or_default().insert(&fragment);
            match reassembler.insert(now, &fragment) {
                Outcome::Whole(whole) => {
                    prop_assert_eq!(Some(&whole[IPV4_LEN..]), expected.as_deref());
                    prop_assert_eq!(whole, &packets[id][..]);
                    naive.remove(&id);
                }
                Outcome::Waiting => prop_assert_eq!(expected, None),
                Outcome::Bad => prop_assert!(false, "a valid fragment was refused"),
            }
        }
        let waiting = naive.values().filter(|packet| !packet.bytes.is_empty()).count() as u64;
        prop_assert_eq!(reassembler.take_abandoned(), 0);
        reassembler.expire(now + TIMEOUT);
        prop_assert_eq!(reassembler.take_abandoned(), waiting);
    }

    #[test]
    fn arbitrary_fragments_never_panic_nor_grow(
        fragments in proptest::collection::vec((0u16..4, any::<u16>(), 0usize..1500, any::<bool>()), 1..100),
    ) {
        let now = Instant::now();
        let mut reassembler = Reassembler::default();
        for (i, (id, flags, len, small)) in fragments.into_iter().enumerate() {
            let mut fragment = packet(id, len);
            let flags = if small { flags & 0x2007 } else { flags };
            fragment[6..8].copy_from_slice(&flags.to_be_bytes());
            checksum::finish_ipv4(&mut fragment[..IPV4_LEN]);
            if let Outcome::Whole(whole) = reassembler.insert(at(now, i as u64 * 50), &fragment) {
                prop_assert!(!matches!(vxlan::parse(whole).map(|p| p.payload), Ok(Payload::Fragment)));
            }
            prop_assert!(reassembler.slots.len() <= SLOTS);
        }
    }

    #[test]
    fn arbitrary_bytes_are_bad(bytes in proptest::collection::vec(any::<u8>(), 0..19)) {
        let mut reassembler = Reassembler::default();
        prop_assert_eq!(reassembler.insert(Instant::now(), &bytes), Outcome::Bad);
        prop_assert!(reassembler.slots.is_empty());
    }
}

#[test]
fn fragments_as_linux_makes_them_come_together() {
    // Captured from Linux 6.18: a UDP datagram of 68 bytes of payload over a link with an MTU of 68.
    #[rustfmt::skip]
    let first = [
        0x45, 0x00, 0x00, 0x44, 0x3b, 0x60, 0x20, 0x00, 0x40, 0x11, 0x56, 0xc6, 100, 64, 0, 1, 100, 64, 0, 2,
        0xc0, 0x01, 0x12, 0xb5, 0x00, 0x4c, 0x00, 0x00, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x2a, 0x00,
        1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29,
        30, 31, 32,
    ];
    #[rustfmt::skip]
    let second = [
        0x45, 0x00, 0x00, 0x30, 0x3b, 0x60, 0x00, 0x06, 0x40, 0x11, 0x76, 0xd4, 100, 64, 0, 1, 100, 64, 0, 2,
        33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59,
        60,
    ];
    let mut reassembler = Reassembler::default();
    assert_eq!(reassembler.insert(Instant::now(), &second), Outcome::Waiting);
    let Outcome::Whole(whole) = reassembler.insert(Instant::now(), &first) else { panic!("not whole") };
    assert_eq!(whole[..12], [0x45, 0x00, 0x00, 0x60, 0x3b, 0x60, 0x00, 0x00, 0x40, 0x11, 0x76, 0xaa]);
    let payload = Payload::Frame { vni: 42, partial: None, range: 36..96 };
    assert_eq!(vxlan::parse(whole).unwrap().payload, payload);
    // And ours are the same bytes.
    assert_eq!(cut(whole, 68), [first.to_vec(), second.to_vec()]);
}

#[test]
fn contradicting_fragments_end_their_packet() {
    let now = Instant::now();
    let whole = packet(1, 100);
    let fragment = |from: usize, to: usize, more: bool| {
        let mut fragment = vec![0; IPV4_LEN];
        let piece = Piece { payload: IPV4_LEN + from..IPV4_LEN + to, more };
        piece.stamp(whole.first_chunk().unwrap(), &mut fragment);
        fragment.extend(&whole[piece.payload]);
        fragment
    };
    let corrupt = |mut fragment: Vec<u8>| {
        fragment[30] ^= 1;
        fragment
    };
    let after = |there: &[&Vec<u8>], next: Vec<u8>| {
        let mut reassembler = Reassembler::default();
        for fragment in there {
            assert_eq!(reassembler.insert(now, fragment), Outcome::Waiting);
        }
        let bad = reassembler.insert(now, &next) == Outcome::Bad;
        assert!(!bad || reassembler.slots.iter().all(|slot| slot.key.is_none()), "the slot stays");
        bad
    };
    let (middle, last) = (fragment(32, 64, true), fragment(64, 100, false));
    assert!(!after(&[&middle, &last], middle.clone()), "a duplicate");
    assert!(!after(&[&middle, &last], last.clone()), "a duplicate of the last");
    assert!(after(&[&middle], corrupt(middle.clone())), "other bytes at the same place");
    assert!(after(&[&middle], fragment(24, 40, true)), "an overlap at the front");
    assert!(after(&[&middle], fragment(40, 80, true)), "an overlap at the end");
    assert!(after(&[&middle], fragment(40, 48, true)), "a part of what is there");
    assert!(after(&[&middle], fragment(0, 100, false)), "all of what is there");
    assert!(after(&[&middle], fragment(32, 64, false)), "the same, as the last");
    assert!(after(&[&middle], fragment(0, 20, false)), "a last before what is there");
    assert!(after(&[&last], fragment(64, 96, false)), "another end");
    assert!(after(&[&last], fragment(96, 104, true)), "beyond the end");
    assert!(after(&[], fragment(0, 20, true)), "an odd length");
    assert!(after(&[], fragment(0, 0, true)), "nothing");
    let mut far = last.clone();
    far[6..8].copy_from_slice(&(MAX_PACKET as u16 / 8).to_be_bytes());
    checksum::finish_ipv4(&mut far[..IPV4_LEN]);
    assert!(after(&[], far), "too large");
    let mut small = cut(&packet(1, 1000), 28);
    small.truncate(MAX_FRAGMENTS + 1);
    let next = small.pop().unwrap();
    assert!(after(&small.iter().collect::<Vec<_>>(), next), "too many");
}

#[test]
fn pieces_that_are_cut_again_come_together() {
    for (first, second) in [(1400, 500), (900, 900), (600, 28), (1000, 996)] {
        let whole = packet(7, 2000);
        let twice: Vec<_> = cut(&whole, first).iter().flat_map(|piece| cut(piece, second)).collect();
        assert!(twice.iter().all(|piece| piece.len() <= second));
        if twice.len() > MAX_FRAGMENTS {
            continue;
        }
        let mut reassembler = Reassembler::default();
        let (last, before) = twice.split_last().unwrap();
        for piece in before {
            assert_eq!(reassembler.insert(Instant::now(), piece), Outcome::Waiting);
        }
        assert_eq!(reassembler.insert(Instant::now(), last), Outcome::Whole(&whole));
    }
}

#[test]
fn what_takes_too_long_is_abandoned() {
    let now = Instant::now();
    let fragments = cut(&packet(1, 2000), 1400);
    let mut reassembler = Reassembler::default();
    assert_eq!(reassembler.insert(now, &fragments[0]), Outcome::Waiting);
    reassembler.expire(at(now, 999));
    assert_eq!(reassembler.take_abandoned(), 0);
    // The same identification a second later is another packet's.
    assert_eq!(reassembler.insert(at(now, 1000), &fragments[1]), Outcome::Waiting);
    assert_eq!(reassembler.take_abandoned(), 1);
    reassembler.expire(at(now, 2000));
    assert_eq!(reassembler.take_abandoned(), 1);
    assert_eq!(reassembler.take_abandoned(), 0);
    assert_eq!(reassembler.slots.len(), 1);
    reassembler.expire(at(now, 12_000));
    assert_eq!(reassembler.slots.capacity(), 0, "memory is given back");
}

#[test]
fn what_too_many_overtook_is_abandoned() {
    let now = Instant::now();
    let old = cut(&packet(1, 2000), 1400);
    let mut reassembler = Reassembler::default();
    assert_eq!(reassembler.insert(now, &old[0]), Outcome::Waiting);
    for id in 0..OVERTAKEN as u16 / 2 {
        for fragment in cut(&packet(id + 2, 2000), 1400) {
            assert_ne!(reassembler.insert(now, &fragment), Outcome::Bad);
        }
    }
    // Its own last fragment is one too late: it may as well be that of the next packet with its identification.
    assert_eq!(reassembler.insert(now, &old[1]), Outcome::Waiting);
    assert_eq!(reassembler.take_abandoned(), 1);
}

#[test]
fn the_oldest_gives_way_when_all_slots_are_taken() {
    let now = Instant::now();
    let fragments: Vec<_> = (0..=SLOTS as u16).map(|id| cut(&packet(id, 2000), 1400)).collect();
    let mut reassembler = Reassembler::default();
    for fragment in &fragments {
        assert_eq!(reassembler.insert(now, &fragment[0]), Outcome::Waiting);
    }
    assert_eq!((reassembler.slots.len(), reassembler.take_abandoned()), (SLOTS, 1));
    for fragment in &fragments[1..] {
        assert!(matches!(reassembler.insert(now, &fragment[1]), Outcome::Whole(_)));
    }
    assert_eq!(reassembler.insert(now, &fragments[0][1]), Outcome::Waiting);
}
