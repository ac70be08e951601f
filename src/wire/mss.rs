//! The maximum segment size of TCP (RFC 9293 §3.7.1), lowered in a SYN on its way into a tunnel.
//!
//! A port's MTU does not depend on the path, so a container's TCP fills segments that the tunnel has to cut to what the
//! path carries. On a clean path nobody notices. Where packets are lost, a sender that counts in segments of 1,448
//! bytes learns from selective acknowledgements of a hole of 1,338, rounds it to whole segments and sends up to
//! twice of what was lost. With the right size agreed on from the beginning, what is cut is what it counts.

use super::ethernet::{self, Frame};

const TCP: u8 = 6;
const SYN: u8 = 0x02;
const TCP_HEADER: usize = 20;
/// Kinds of TCP options (RFC 9293 §3.2).
const END: u8 = 0;
const NO_OPERATION: u8 = 1;
const MSS: u8 = 2;

/// What [`lower`] changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lowered {
    option: (usize, [u8; 2]),
    checksum: (usize, [u8; 2]),
}

impl Lowered {
    /// Puts the frame back as it was.
    pub fn undo(self, frame: &mut [u8]) {
        for (at, bytes) in [self.option, self.checksum] {
            frame[at..at + 2].copy_from_slice(&bytes);
        }
    }
}

/// If `frame` is a TCP SYN that asks for segments which would not fit into frames of `limit` bytes (Ethernet header
/// included), has it ask for ones that do. The checksum is adjusted (RFC 1624) unless it is `partial`: that one does
/// not cover the options. Whatever is not quite a SYN is left alone.
pub fn lower(frame: &mut [u8], limit: usize, partial: bool) -> Option<Lowered> {
    let (tcp, headers) = tcp(frame)?;
    let segment = frame.get(tcp..)?;
    let fixed = segment.first_chunk::<TCP_HEADER>()?;
    if fixed[13] & SYN == 0 {
        return None;
    }
    let options = segment.get(TCP_HEADER..usize::from(fixed[12] >> 4) * 4)?;
    let option = tcp + TCP_HEADER + find(options)?;
    let fits = u16::try_from(limit.checked_sub(headers + TCP_HEADER)?).unwrap_or(u16::MAX);
    let asked = word(frame, option);
    if asked <= fits {
        return None;
    }
    let checksum = tcp + 16;
    let lowered = Lowered {
        option: (option, asked.to_be_bytes()),
        checksum: (checksum, [frame[checksum], frame[checksum + 1]]),
    };
    frame[option..option + 2].copy_from_slice(&fits.to_be_bytes());
    if !partial {
        // A value at an odd offset is added with its bytes swapped (RFC 1071 §2).
        let swap = |value: u16| if (option - tcp) % 2 == 1 { value.swap_bytes() } else { value };
        let sum = u32::from(!word(frame, checksum)) + u32::from(!swap(asked)) + u32::from(swap(fits));
        let folded = !super::checksum::fold(u64::from(sum));
        frame[checksum..checksum + 2].copy_from_slice(&folded.to_be_bytes());
    }
    Some(lowered)
}

/// Where the TCP header of `frame` is, if it has one, and how much lies in front of it in a frame without IP options:
/// those, like TCP's own, are the sender's to subtract (RFC 9293 §3.7.1). A SYN is no fragment and has no extension
/// headers.
fn tcp(frame: &[u8]) -> Option<(usize, usize)> {
    let view = Frame::parse(frame).ok()?;
    let (l3, ip) = (view.payload_offset(), view.payload());
    match view.ethertype() {
        ethernet::IPV4 => {
            let header = ip.first_chunk::<20>()?;
            let whole = u16::from_be_bytes([header[6], header[7]]) & 0x3fff == 0;
            let length = usize::from(header[0] & 0x0f) * 4;
            let is_tcp = header[0] >> 4 == 4 && length >= 20 && header[9] == TCP && whole;
            is_tcp.then_some((l3 + length, l3 + 20))
        }
        ethernet::IPV6 => {
            let header = ip.first_chunk::<40>()?;
            (header[0] >> 4 == 6 && header[6] == TCP).then_some((l3 + 40, l3 + 40))
        }
        _ => None,
    }
}

/// Where the value of the MSS option lies in `options`.
fn find(options: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match *options.get(at)? {
            END => return None,
            NO_OPERATION => at += 1,
            kind => {
                let length = usize::from(*options.get(at + 1)?);
                if kind == MSS {
                    return (length == 4 && options.len() >= at + 4).then_some(at + 2);
                }
                // A length below that of kind and length themselves would never end.
                at += if length >= 2 { length } else { return None };
            }
        }
    }
}

fn word(frame: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([frame[at], frame[at + 1]])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::testing::naive_sum;
    use super::*;
    use proptest::prelude::*;

    /// A SYN with these options behind an Ethernet header and tags, its checksum complete.
    fn syn(v6: bool, tags: usize, options: &[u8]) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        (0..tags).for_each(|_| frame.extend([0x81, 0, 0, 7]));
        let mut options = options.to_vec();
        options.resize(options.len().next_multiple_of(4), END);
        let mut tcp = vec![0x12, 0x34, 0, 80, 1, 2, 3, 4, 0, 0, 0, 0];
        tcp.extend([(((TCP_HEADER + options.len()) / 4) << 4) as u8, SYN, 0xff, 0xff, 0, 0, 0, 0]);
        tcp.extend(options);
        let (addresses, length) = if v6 { (32, tcp.len() as u16) } else { (8, (20 + tcp.len()) as u16) };
        if v6 {
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, (length >> 8) as u8, length as u8, TCP, 64]);
        } else {
            frame.extend([8, 0, 0x45, 0, (length >> 8) as u8, length as u8, 0, 1, 0x40, 0, 64, TCP, 0, 0]);
        }
        frame.extend((0..addresses).map(|i| i as u8 + 10));
        frame.extend(&tcp);
        let at = frame.len() - tcp.len();
        let sum = !naive_sum(pseudo(&frame, at), &frame[at..]);
        frame[at + 16..at + 18].copy_from_slice(&sum.to_be_bytes());
        frame
    }

    fn pseudo(frame: &[u8], tcp: usize) -> u64 {
        let addresses = if frame[tcp - 20] >> 4 == 4 { 8 } else { 32 };
        u64::from(naive_sum(u64::from(TCP) + (frame.len() - tcp) as u64, &frame[tcp - addresses..tcp]))
    }

    fn checksum_holds(frame: &[u8], tcp: usize) -> bool {
        naive_sum(pseudo(frame, tcp), &frame[tcp..]) == 0xffff
    }

    const LINUX: [u8; 20] = [2, 4, 0x05, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 10];

    #[test]
    fn a_syn_asks_for_what_fits() {
        // 1404 bytes of frame: 14 of Ethernet, 4 a tag, 20 or 40 of IP, 20 of TCP.
        for (v6, tags, fits) in [(false, 0, 1350u16), (false, 1, 1346), (true, 0, 1330), (true, 2, 1322)] {
            let before = syn(v6, tags, &LINUX);
            let tcp = before.len() - TCP_HEADER - LINUX.len();
            assert!(checksum_holds(&before, tcp));
            let mut frame = before.clone();
            let lowered = lower(&mut frame, 1404, false).unwrap();
            assert_eq!(word(&frame, tcp + TCP_HEADER + 2), fits);
            assert!(checksum_holds(&frame, tcp), "v6 {v6}, {tags} tags");
            assert_eq!(lower(&mut frame.clone(), 1404, false), None, "it fits");
            lowered.undo(&mut frame);
            assert_eq!(frame, before);
        }
    }

    #[test]
    fn a_partial_checksum_stays_as_it_is() {
        let mut frame = syn(false, 0, &LINUX);
        let tcp = frame.len() - TCP_HEADER - LINUX.len();
        let before = word(&frame, tcp + 16);
        assert!(lower(&mut frame, 1404, true).is_some());
        assert_eq!(word(&frame, tcp + 16), before);
    }

    #[test]
    fn what_asks_for_nothing_or_is_no_syn_stays() {
        let broken: [&[u8]; 5] = [&[], &[1, 1, 1, 0, 2, 4, 5, 0xb4], &[3, 0, 2, 4], &[2, 3, 9], &[1, 1, 1, 2]];
        for options in broken {
            assert_eq!(lower(&mut syn(false, 0, options), 600, false), None, "{options:?}");
        }
        let mut acknowledgement = syn(true, 0, &LINUX);
        let tcp = acknowledgement.len() - TCP_HEADER - LINUX.len();
        acknowledgement[tcp + 13] = 0x10;
        assert_eq!(lower(&mut acknowledgement, 600, false), None);
        let mut fragment = syn(false, 0, &LINUX);
        fragment[20] = 0x20;
        assert_eq!(lower(&mut fragment, 600, false), None);
    }

    proptest! {
        #[test]
        fn the_checksum_holds_wherever_the_option_lies(
            v6: bool, before in 0usize..8, asked: u16, limit in 0usize..3000,
        ) {
            let [high, low] = asked.to_be_bytes();
            let mut options = vec![NO_OPERATION; before];
            options.extend([2, 4, high, low]);
            let mut frame = syn(v6, 0, &options);
            let tcp = frame.len() - TCP_HEADER - options.len().next_multiple_of(4);
            let fits = limit.saturating_sub(if v6 { 74 } else { 54 });
            let lowered = lower(&mut frame, limit, false);
            prop_assert_eq!(lowered.is_some(), limit >= if v6 { 74 } else { 54 } && usize::from(asked) > fits);
            prop_assert!(checksum_holds(&frame, tcp));
            if lowered.is_some() {
                prop_assert_eq!(usize::from(word(&frame, tcp + TCP_HEADER + before + 2)), fits);
            }
        }

        #[test]
        fn foreign_bytes_neither_panic_nor_change_anything_but_the_option_and_the_checksum(
            v6: bool, changes in proptest::collection::vec((0usize..90, any::<u8>()), 0..6), cut in 0usize..100,
        ) {
            let mut frame = syn(v6, 0, &LINUX);
            let len = frame.len();
            changes.into_iter().for_each(|(at, byte)| frame[at % len] = byte);
            frame.truncate(cut);
            let before = frame.clone();
            if let Some(lowered) = lower(&mut frame, 700, false) {
                let changed = frame.iter().zip(&before).filter(|(a, b)| a != b).count();
                prop_assert!(changed <= 4);
                lowered.undo(&mut frame);
            }
            prop_assert_eq!(frame, before);
        }
    }
}
