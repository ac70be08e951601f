//! The outbox: where the switch's consequences become syscalls.
//!
//! Frames for ports are written to their TAPs at once, datagrams collect in a send batch until it is full or the caller
//! flushes, and what control should know goes into its bounded queue. Each worker and the control thread own one.

use super::tap::Tap;
use super::udp::{SendBatch, UdpSockets};
use crate::switch::counters::Drop;
use crate::switch::ids::{IdMap, PeerId, PortId};
use crate::switch::topology::Port;
use crate::switch::{Egress, Event, Switch};
use arc_swap::ArcSwap;
use crossbeam::channel::Sender;
use std::io::IoSlice;
use std::net::SocketAddr;
use std::sync::Arc;

/// The ports that exist: what a worker needs to read and write them.
pub type PortTable = IdMap<PortId, Arc<PortEntry>>;

/// One port's TAP.
#[derive(Debug)]
pub struct PortEntry {
    /// The port as the switch knows it.
    pub port: Arc<Port>,
    /// Its TAP. The descriptor closes when the last user lets go.
    pub tap: Tap,
}

/// What the data plane tells control.
#[derive(Debug)]
pub enum Notice {
    /// A message of the mesh from this peer.
    Message(PeerId, Box<[u8]>),
    /// A session came to life.
    SessionUp(PeerId),
    /// A UDP payload of this size was too large for the interface towards this endpoint.
    TooBig(SocketAddr, usize),
    /// A TAP could not be read.
    PortFailed(PortId),
}

/// One thread's way out.
pub struct Outbox {
    switch: Arc<Switch>,
    sockets: Arc<UdpSockets>,
    shared: Arc<ArcSwap<PortTable>>,
    table: Arc<PortTable>,
    batch: SendBatch,
    notices: Sender<Notice>,
}

impl Outbox {
    /// An outbox that sends on `sockets`.
    pub fn new(
        switch: Arc<Switch>,
        sockets: Arc<UdpSockets>,
        shared: Arc<ArcSwap<PortTable>>,
        notices: Sender<Notice>,
    ) -> Self {
        let table = shared.load_full();
        Self { switch, sockets, shared, table, batch: SendBatch::default(), notices }
    }

    /// Looks at the ports as they are: once per round of the owner's loop.
    pub fn refresh(&mut self) {
        let current = self.shared.load();
        if !Arc::ptr_eq(&current, &self.table) {
            self.table = Arc::clone(&current);
        }
    }

    /// Sends what has collected.
    pub fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let sent = self.batch.flush(&self.sockets);
        let counters = &self.switch.counters;
        counters.datagrams_tx.add(sent.datagrams);
        counters.drop_many(Drop::SocketFull, sent.full);
        counters.drop_many(Drop::SendFailed, sent.failed);
        counters.drop_many(Drop::PathTooSmall, sent.too_big);
        if let Some((to, bytes)) = sent.largest {
            self.notice(Notice::TooBig(to, bytes));
        }
    }

    /// Counts drops that happened outside the switch.
    pub fn count(&self, reason: Drop, n: u64) {
        self.switch.counters.drop_many(reason, n);
    }

    /// Tells control, unless its queue is full.
    pub fn notice(&self, notice: Notice) {
        if self.notices.try_send(notice).is_err() {
            self.switch.counters.drop(Drop::ControlQueueFull);
        }
    }
}

impl Egress for Outbox {
    fn deliver(&mut self, port: PortId, pieces: &[IoSlice<'_>]) {
        let counters = &self.switch.counters;
        let frames = pieces.len() as u64 - 1;
        let Some(entry) = self.table.get(&port) else { return counters.drop_many(Drop::PortGone, frames) };
        let bytes = pieces[1..].iter().map(|piece| piece.len()).sum();
        if entry.tap.write_vectored(pieces).is_ok() {
            counters.port_tx_frames.add(frames);
            entry.port.flow.sent(frames, bytes);
        } else {
            counters.drop_many(Drop::PortBlocked, frames);
            entry.port.flow.tx.drop(frames);
        }
    }

    fn transmit(&mut self, to: SocketAddr, room: usize, fill: impl FnOnce(&mut [u8]) -> Option<usize>) {
        if self.batch.is_full() {
            self.flush();
        }
        self.batch.push(to, room, fill);
    }

    fn notify(&mut self, event: Event<'_>) {
        self.notice(match event {
            Event::Message(peer, payload) => Notice::Message(peer, payload.into()),
            Event::SessionUp(peer) => Notice::SessionUp(peer),
        });
    }
}
