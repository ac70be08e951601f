//! Frames out of a fuzzer's bytes: most random bytes are no frame at all, so a draft may also continue the frame before
//! it and have its lengths and checksums put right.
//!
//! ```text
//!  how (1)   what follows
//!  bits 0-1  0: length (2), that many bytes       1: the frame before, continued     2: the frame before, again
//!            3: length (2), n (1), n bytes, then a pattern until the length is reached
//!  bit 5     length of the payload (2)
//!  bit 4     place (2), a byte to flip it by (1)
//!  bit 2     lengths and checksums are put right    bit 3  ... the L4 checksum left partial
//!  bit 6     gso_type (1), gso_size (2)
//!  bit 7     a whole virtio-net header (10)
//! ```

use super::input::{Input, get, get_word, put_word};
use weft::wire::ethernet::{self, Frame};
use weft::wire::vnet::{self, PartialChecksum, VnetHeader};

/// The largest frame a TAP can be read for.
const MAX: usize = weft::wire::MAX_SUPER_FRAME;

/// A frame and its virtio-net header.
#[derive(Debug, Clone, Default)]
pub struct Draft {
    pub header: VnetHeader,
    pub frame: Vec<u8>,
}

/// Where TCP or UDP begins in a frame of plain IP.
#[derive(Debug, Clone, Copy)]
pub struct L4 {
    pub l3: usize,
    pub start: usize,
    pub v6: bool,
    pub udp: bool,
}

impl L4 {
    /// Finds it, without looking at lengths.
    pub fn find(frame: &[u8]) -> Option<Self> {
        let view = Frame::parse(frame).ok()?;
        let l3 = view.payload_offset();
        let (v6, start, protocol) = match view.ethertype() {
            ethernet::IPV4 => (false, l3 + usize::from(get(frame, l3) & 15) * 4, get(frame, l3 + 9)),
            ethernet::IPV6 => (true, l3 + 40, get(frame, l3 + 6)),
            _ => return None,
        };
        let enough = start + 8 <= frame.len() && start >= l3 + 20;
        (enough && matches!(protocol, 6 | 17)).then_some(Self { l3, start, v6, udp: protocol == 17 })
    }

    /// Its checksum, as a partial one.
    pub fn partial(&self) -> PartialChecksum {
        PartialChecksum { start: self.start as u16, offset: if self.udp { 6 } else { 16 } }
    }

    /// Offset of the payload.
    pub fn payload(&self, frame: &[u8]) -> usize {
        self.start + if self.udp { 8 } else { usize::from(get(frame, self.start + 12) >> 4) * 4 }
    }
}

/// The next frame, or the end. `before` is the frame before, to be continued.
pub fn next(input: &mut Input<'_>, before: &Draft) -> Option<Draft> {
    let how = input.byte()?;
    let mut draft = match how & 3 {
        0 => {
            let length = input.word()?;
            Draft { header: VnetHeader::default(), frame: input.bytes(usize::from(length)).to_vec() }
        }
        1 => continued(before),
        2 => before.clone(),
        _ => {
            let (length, n) = (usize::from(input.word()?), usize::from(input.byte()?));
            let mut frame = input.bytes(n).to_vec();
            frame.extend((frame.len()..length).map(|i| i as u8));
            Draft { header: VnetHeader::default(), frame }
        }
    };
    if how & 0x20 != 0 {
        let length = usize::from(input.word()?);
        if let Some(l4) = L4::find(&draft.frame) {
            draft.frame.resize(l4.payload(&draft.frame) + length, 0x5a);
        }
    }
    if how & 0x10 != 0 {
        let (at, by) = (usize::from(input.word()?), input.byte()?);
        if let Some(byte) = draft.frame.get_mut(at) {
            *byte ^= by;
        }
    }
    draft.frame.truncate(MAX);
    if how & 4 != 0 {
        put_right(&mut draft, how & 8 != 0);
    }
    if how & 0x40 != 0 {
        (draft.header.gso_type, draft.header.gso_size) = (input.byte()?, input.word()?);
    }
    if how & 0x80 != 0
        && let Ok(header) = input.bytes(vnet::LEN).try_into()
    {
        draft.header = VnetHeader::parse(header);
    }
    Some(draft)
}

/// The frame that follows in the same flow: the next identification, the next sequence number.
fn continued(before: &Draft) -> Draft {
    let mut draft = before.clone();
    let Some(l4) = L4::find(&draft.frame) else { return draft };
    let frame = &mut draft.frame;
    if !l4.v6 {
        let id = get_word(frame, l4.l3 + 4).wrapping_add(1);
        put_word(frame, l4.l3 + 4, id);
    }
    if !l4.udp {
        let payload = frame.len().saturating_sub(l4.payload(frame)) as u32;
        let seq = u32::from(get_word(frame, l4.start + 4)) << 16 | u32::from(get_word(frame, l4.start + 6));
        let seq = seq.wrapping_add(payload);
        put_word(frame, l4.start + 4, (seq >> 16) as u16);
        put_word(frame, l4.start + 6, seq as u16);
    }
    draft
}

/// Makes lengths and checksums what the rest of the frame says they are.
fn put_right(draft: &mut Draft, partial: bool) {
    let Some(l4) = L4::find(&draft.frame) else { return };
    let (frame, l3) = (&mut draft.frame, l4.l3);
    let length = frame.len() - l4.start;
    let addresses = if l4.v6 {
        put_word(frame, l3 + 4, length as u16);
        l3 + 8..l3 + 40
    } else {
        let total = frame.len() - l3;
        put_word(frame, l3 + 2, total as u16);
        put_word(frame, l3 + 10, 0);
        let sum = !sum(0, &frame[l3..l4.start]);
        put_word(frame, l3 + 10, sum);
        l3 + 12..l3 + 20
    };
    if l4.udp {
        put_word(frame, l4.start + 4, length as u16);
    }
    let at = l4.start + usize::from(l4.partial().offset);
    let pseudo = sum(length as u64 + if l4.udp { 17 } else { 6 }, &frame[addresses]);
    put_word(frame, at, pseudo);
    draft.header = VnetHeader::single(partial.then_some(l4.partial()));
    if !partial {
        put_word(frame, at, 0);
        let complete = !sum(u64::from(pseudo), &frame[l4.start..]);
        put_word(frame, at, if complete == 0 && l4.udp { 0xffff } else { complete });
    }
}

/// The sum of RFC 1071 as it is written down.
pub fn sum(initial: u64, bytes: &[u8]) -> u16 {
    let mut sum = initial;
    for word in bytes.chunks(2) {
        sum += u64::from(get_word(word, 0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}
