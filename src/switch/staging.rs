//! Staging: frames out of tunnels on their way to local ports.
//!
//! Inner packets are opened one behind the other into one arena. Their frames are staged as *items* in order of
//! arrival; a frame that continues an item's flow joins its run, so that a burst of segments leaves as one
//! super-frame, gathered from where the segments lie: no byte is copied. At the end of a receive batch everything is
//! flushed; nothing waits for a timer.
//!
//! Order within a flow is kept: what cannot join its flow's run closes it, what cannot be read closes all runs of its
//! port. Items of different flows may leave in the order of their first frames.

use super::Egress;
use super::ids::PortId;
use crate::wire::merge::{FlowKey, Inspection, Run, inspect};
use crate::wire::vnet::{PartialChecksum, VnetHeader};
use std::io::IoSlice;
use std::ops::Range;

/// Runs that are looked at for a frame to join: more flows than this in one batch leave with less merging.
const OPEN_RUNS: usize = 16;
/// Items before a flush: bounds what a batch of small frames makes us remember.
const ITEMS: usize = 1024;
/// Pieces of one gathered write: Linux's UIO_MAXIOV is 1024; a run is far shorter.
const PIECES: usize = 160;

struct Item {
    port: PortId,
    run: Option<Run>,
    header: Range<usize>,
    partial: Option<PartialChecksum>,
    pieces: Vec<Range<usize>>,
}

/// What is merged: what the receiving kernel takes as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merge {
    /// Every frame leaves by itself.
    Nothing,
    /// TCP only: a kernel before Linux 6.2 refuses UDP super-frames, and every frame in them would be lost.
    Tcp,
    /// TCP and UDP.
    TcpAndUdp,
}

/// Frames waiting for the end of a receive batch. Owned by one worker.
pub struct Staging {
    arena: Box<[u8]>,
    used: usize,
    items: Vec<Item>,
    filled: usize,
    open: Vec<usize>,
    merge: Merge,
}

impl Staging {
    /// A staging area of `bytes`.
    pub fn new(bytes: usize, merge: Merge) -> Self {
        let arena = vec![0; bytes].into_boxed_slice();
        Self { arena, used: 0, items: Vec::new(), filled: 0, open: Vec::with_capacity(OPEN_RUNS), merge }
    }

    /// Room for a packet of at most `bytes`; its frames may be staged by [`Self::stage`] with the range's start as
    /// their origin. `None` when it is time to flush.
    pub fn room(&mut self, bytes: usize) -> Option<Range<usize>> {
        let end = self.used.checked_add(bytes)?;
        (end <= self.arena.len() && self.filled < ITEMS).then_some(self.used..end)
    }

    /// The bytes of a range that [`Self::room`] gave.
    pub fn bytes(&mut self, range: Range<usize>) -> &mut [u8] {
        &mut self.arena[range]
    }

    /// Room for what is in the bytes in `range`, once opened: those bytes, and the range and bytes of the room. They may be
    /// moved, and what is staged leaves, if there is none otherwise. `None` when there never will be.
    pub fn beside(&mut self, range: Range<usize>, out: &mut impl Egress) -> Option<(&[u8], usize, &mut [u8])> {
        let mut source = range;
        if self.filled >= ITEMS || source.end.next_multiple_of(64) + source.len() > self.arena.len() {
            self.flush(out);
            self.arena.copy_within(source.clone(), 0);
            source = 0..source.len();
        }
        let start = source.end.next_multiple_of(64);
        let (before, room) = self.arena.split_at_mut_checked(start)?;
        Some((&before[source.clone()], start, room.get_mut(..source.len())?))
    }

    /// Keeps what was put up to `end`: a staged frame lies there.
    pub fn keep(&mut self, end: usize) {
        // Whole cache lines, so that the next packet's copy is aligned.
        self.used = end.next_multiple_of(64).min(self.arena.len());
    }

    /// Stages the frame in `range` for `port`. A frame for several ports must not be merged, since merging writes
    /// into its header.
    pub fn stage(&mut self, port: PortId, range: Range<usize>, partial: Option<PartialChecksum>, alone: bool) {
        if self.merge != Merge::Nothing {
            match inspect(&self.arena[range.clone()], partial) {
                Inspection::Mergeable(candidate) if !alone && self.takes(candidate.key()) => {
                    // The padding of a short frame is not part of its payload.
                    let payload = range.start + candidate.header_len();
                    let payload = payload..payload + candidate.payload_len();
                    if let Some(at) = self.open_run(port, candidate.key()) {
                        let item = &mut self.items[at];
                        if item.pieces.len() < PIECES && item.run.as_mut().is_some_and(|run| run.append(&candidate)) {
                            item.pieces.push(payload);
                            return;
                        }
                        self.close(at);
                    }
                    let (header, frame) = (range.start..payload.start, range.start..payload.end);
                    self.push(port, Some(Run::new(&candidate)), header, partial, frame);
                    if self.open.len() == OPEN_RUNS {
                        self.open.remove(0);
                    }
                    self.open.push(self.filled - 1);
                    return;
                }
                Inspection::Mergeable(candidate) => self.close_flow(port, candidate.key()),
                Inspection::Closes(key) => self.close_flow(port, &key),
                Inspection::Passes => {}
                Inspection::Opaque => {
                    let items = &self.items;
                    self.open.retain(|&at| items[at].port != port);
                }
            }
        }
        self.push(port, None, range.start..range.start, partial, range);
    }

    fn takes(&self, flow: &FlowKey) -> bool {
        self.merge == Merge::TcpAndUdp || !flow.is_udp()
    }

    fn push(
        &mut self,
        port: PortId,
        run: Option<Run>,
        header: Range<usize>,
        partial: Option<PartialChecksum>,
        frame: Range<usize>,
    ) {
        if let Some(item) = self.items.get_mut(self.filled) {
            item.pieces.clear();
            item.pieces.push(frame);
            (item.port, item.run, item.header, item.partial) = (port, run, header, partial);
        } else {
            self.items.push(Item { port, run, header, partial, pieces: vec![frame] });
        }
        self.filled += 1;
    }

    fn open_run(&self, port: PortId, key: &FlowKey) -> Option<usize> {
        self.open.iter().rev().copied().find(|&at| {
            let item = &self.items[at];
            item.port == port && item.run.as_ref().is_some_and(|run| run.key() == key)
        })
    }

    fn close_flow(&mut self, port: PortId, key: &FlowKey) {
        if let Some(at) = self.open_run(port, key) {
            self.close(at);
        }
    }

    fn close(&mut self, at: usize) {
        self.open.retain(|&open| open != at);
    }

    /// Delivers everything staged, in order, and starts over.
    pub fn flush(&mut self, out: &mut impl Egress) {
        for item in &self.items[..self.filled] {
            let header = match &item.run {
                Some(run) => run.finish(&mut self.arena[item.header.clone()]),
                None => VnetHeader::single(item.partial),
            };
            // Most items are one frame: only a super-frame pays for the long list.
            let header = header.to_bytes();
            if let [frame] = item.pieces.as_slice() {
                out.deliver(item.port, &[IoSlice::new(&header), IoSlice::new(&self.arena[frame.clone()])]);
                continue;
            }
            let mut pieces = [IoSlice::new(&header); PIECES + 1];
            for (slot, piece) in pieces[1..].iter_mut().zip(&item.pieces) {
                *slot = IoSlice::new(&self.arena[piece.clone()]);
            }
            out.deliver(item.port, &pieces[..=item.pieces.len()]);
        }
        self.filled = 0;
        self.used = 0;
        self.open.clear();
    }
}
