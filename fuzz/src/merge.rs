//! Frames of a tunnel on their way to a TAP: merged into super-frames, which the receiving kernel will cut again.
//!
//! ```text
//!  port (1), then a draft (see `draft`); its virtio-net header says only whether its checksum is partial
//! ```
//!
//! What must hold: cutting what came out gives what went in, each flow in its order, nothing overtaken by what follows a
//! frame whose flow is unknown. Not compared is what means nothing: the identification of packets that may not be
//! fragmented, Ethernet padding of what was merged, and L4 checksums, which a partial one vouches for.

use super::draft::{self, Draft, L4};
use super::input::Input;
use super::world::Outbox;
use weft::switch::ids::PortId;
use weft::switch::staging::{Merge, Staging};
use weft::wire::merge::{FlowKey, Inspection, inspect};
use weft::wire::segment::Plan;
use weft::wire::vnet::{Gso, VnetHeader};
use weft::wire::{MAX_SUPER_FRAME, checksum};

const MAX_RECORDS: usize = 256;
/// Room for one batch: the sizes the daemon uses.
const STAGING_BYTES: usize = 640 * 1024;
/// The largest frame out of a tunnel.
const MAX_FRAME: usize = weft::wire::MAX_FRAME;

/// The target.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (mut staging, mut out) = (Staging::new(STAGING_BYTES, Merge::TcpAndUdp), Outbox::default());
    let (mut before, mut frames) = (Draft::default(), Vec::new());
    for _ in 0..MAX_RECORDS {
        let Some(to) = input.byte() else { break };
        let Some(draft) = draft::next(&mut input, &before) else { break };
        before = draft;
        let frame = &before.frame[..before.frame.len().min(MAX_FRAME)];
        let partial = before.header.partial();
        // What a peer says is partial lies within the frame: wire::vxlan refuses anything else.
        if frame.is_empty() || partial.is_some_and(|p| usize::from(p.start) + usize::from(p.offset) + 2 > frame.len())
        {
            continue;
        }
        let Some(room) = staging.room(frame.len()) else { break };
        staging.bytes(room.clone()).copy_from_slice(frame);
        staging.keep(room.end);
        let (port, alone) = (PortId(u32::from(to & 1)), to & 0x80 != 0);
        staging.stage(port, room, partial, alone);
        frames.push((port, partial, frame.to_vec()));
    }
    staging.flush(&mut out);
    for port in [PortId(0), PortId(1)] {
        let went_in: Vec<Vec<u8>> = frames
            .iter()
            .filter(|(to, ..)| *to == port)
            .flat_map(|(_, partial, frame)| {
                cut(&VnetHeader::single(*partial), frame, usize::MAX).into_iter().flatten()
            })
            .collect();
        let mine = out.delivered.iter().filter(|(to, ..)| *to == port);
        let came_out: Vec<Vec<u8>> = mine
            .flat_map(|(_, header, frame)| {
                check(header, frame);
                cut(header, frame, usize::MAX).into_iter().flatten()
            })
            .collect();
        same_flows(&went_in, &came_out);
    }
}

/// What is written to a TAP is consistent in itself, or the container's kernel would refuse it.
pub fn check(header: &VnetHeader, frame: &[u8]) {
    assert!(!frame.is_empty() && frame.len() <= MAX_SUPER_FRAME, "{} bytes", frame.len());
    if let Some(partial) = header.partial() {
        assert!(usize::from(partial.start) + usize::from(partial.offset) + 2 <= frame.len());
    }
    if header.gso().expect("a type that exists") != Gso::None {
        let plan = Plan::new(frame, header, usize::MAX).expect("a super-frame that can be cut");
        assert!(plan.count() > 1 && usize::from(header.hdr_len) == plan.header_len());
    }
}

/// The frames a wire would carry, L4 checksums left out. `None` for what is no valid super-frame.
pub fn cut(header: &VnetHeader, frame: &[u8], limit: usize) -> Option<Vec<Vec<u8>>> {
    let plan = match header.gso() {
        Ok(Gso::None) => header.partial().and_then(|partial| Plan::oversized_tcp(frame, partial, limit)),
        _ => Some(Plan::new(frame, header, limit).ok()?),
    };
    let Some(plan) = plan else { return Some(vec![plain(frame, header)]) };
    let header = VnetHeader::single(Some(plan.partial()));
    let segment = |i| {
        let mut segment = vec![0; plan.header_len()];
        plan.stamp(i, &mut segment);
        segment.extend_from_slice(&frame[plan.payload(i)]);
        plain(&segment, &header)
    };
    Some((0..plan.count()).map(segment).collect())
}

/// A frame without what is not compared.
fn plain(frame: &[u8], header: &VnetHeader) -> Vec<u8> {
    let mut plain = frame.to_vec();
    let partial = header.partial();
    if let Some(partial) = partial {
        let _ = checksum::finish(&mut plain, usize::from(partial.start), usize::from(partial.offset));
    }
    if let Inspection::Mergeable(candidate) = inspect(frame, partial) {
        plain.truncate(candidate.header_len() + candidate.payload_len());
    }
    if let Some(l4) = L4::find(&plain) {
        let at = l4.start + usize::from(l4.partial().offset);
        if let Some(field) = plain.get_mut(at..at + 2) {
            field.fill(0);
        }
        if !l4.v6 && plain[l4.l3 + 6] & 0x40 != 0 {
            plain[l4.l3 + 4..l4.l3 + 6].fill(0);
            plain[l4.l3 + 10..l4.l3 + 12].fill(0);
        }
    }
    plain
}

/// What tells where a frame may move to.
#[derive(PartialEq, Eq, Hash, Clone, Copy, Debug)]
enum Order {
    InItsFlow(FlowKey),
    Anywhere,
    Nowhere,
}

fn order(frame: &[u8]) -> Order {
    match inspect(frame, None) {
        Inspection::Mergeable(candidate) => Order::InItsFlow(*candidate.key()),
        Inspection::Closes(key) => Order::InItsFlow(key),
        Inspection::Passes => Order::Anywhere,
        Inspection::Opaque => Order::Nowhere,
    }
}

/// Both hold the same frames, each flow in the same order.
pub fn same_flows(went_in: &[Vec<u8>], came_out: &[Vec<u8>]) {
    assert_eq!(went_in.len(), came_out.len(), "frames were lost or multiplied");
    let orders: Vec<Order> = went_in.iter().map(|frame| order(frame)).collect();
    let of = |frames: &[Vec<u8>], wanted: Order| -> Vec<Vec<u8>> {
        frames.iter().filter(|frame| order(frame) == wanted).cloned().collect()
    };
    for (i, &wanted) in orders.iter().enumerate().filter(|(i, order)| !orders[..*i].contains(order)) {
        let (mut before, mut after) = (of(went_in, wanted), of(came_out, wanted));
        if wanted == Order::Anywhere {
            before.sort();
            after.sort();
        }
        assert!(before == after, "the flow of frame {i} is another: {before:02x?} became {after:02x?}");
    }
    for (i, _) in orders.iter().enumerate().filter(|(_, order)| **order == Order::Nowhere) {
        assert_eq!(went_in[i], came_out[i], "frame {i} was overtaken");
    }
}
