//! The outbox: where the switch's consequences become syscalls.
//!
//! Frames for ports are written to their TAPs at once, datagrams collect in a send batch until it is full or the caller
//! flushes, and what control should know goes into its bounded queue. Each worker and the control thread own one.

use super::random;
use super::service::stack::Heard;
use super::service::{Quick, ServiceQueue};
use super::stream::{Refused, StreamQueue};
use super::tap::Tap;
use super::udp::{SendBatch, UdpSockets};
use crate::names::Directory;
use crate::switch::counters::Drop;
use crate::switch::ids::{IdMap, PeerId, PortId};
use crate::switch::topology::Port;
use crate::switch::{Egress, Event, Switch};
use crate::wire::key::PublicKey;
use crate::wire::vnet::VnetHeader;
use crate::wire::way;
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
    /// A message of the mesh from this peer, over this way.
    Message(PeerId, SocketAddr, Box<[u8]>),
    /// A session came to life.
    SessionUp(PeerId),
    /// Somebody who is no peer wants to begin a session; see [`Event::Stranger`].
    Stranger {
        /// Who it claims to be.
        key: PublicKey,
        /// Where it came from.
        from: SocketAddr,
        /// Its initiation.
        datagram: Box<[u8]>,
    },
    /// A port's frame that says who listens to which multicast groups.
    Snooped(PortId, Box<[u8]>),
    /// A UDP payload of this size was too large for the interface towards this endpoint.
    TooBig(SocketAddr, usize),
    /// A TAP could not be read.
    PortFailed(PortId),
    /// What became of a TCP connection that control asked for.
    Stream {
        /// Who was called.
        to: PublicKey,
        /// Where.
        address: SocketAddr,
        /// The connection's number, or why there is none.
        number: Result<u32, String>,
    },
    /// A TCP connection has ended: one that we made, or one on which something authentic had come.
    StreamClosed(u32),
    /// A member said on our LAN, unauthenticated, where it is.
    Seen {
        /// Who.
        key: PublicKey,
        /// Where.
        address: SocketAddr,
    },
}

/// One thread's way out.
pub struct Outbox {
    switch: Arc<Switch>,
    sockets: Arc<UdpSockets>,
    shared: Arc<ArcSwap<PortTable>>,
    table: Arc<PortTable>,
    batch: SendBatch,
    streams: Option<StreamQueue>,
    service: Option<(Quick, ServiceQueue)>,
    notices: Sender<Notice>,
}

impl Outbox {
    /// An outbox that sends on `sockets`, and to TCP connections where there may be any. Nobody answers for service addresses.
    pub fn new(
        switch: Arc<Switch>,
        sockets: Arc<UdpSockets>,
        shared: Arc<ArcSwap<PortTable>>,
        streams: Option<StreamQueue>,
        notices: Sender<Notice>,
    ) -> Self {
        let table = shared.load_full();
        Self { switch, sockets, shared, table, batch: SendBatch::default(), streams, service: None, notices }
    }

    /// The same where somebody answers for service addresses: short answers are given at once, out of `directory`.
    #[must_use]
    pub fn with_service(self, directory: Arc<Directory>, queue: ServiceQueue) -> Self {
        Self { service: Some((Quick::new(directory, random()), queue)), ..self }
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

    /// Hands a datagram to the thread that has the TCP connection `number`.
    fn transmit_to_stream(&mut self, number: u32, room: usize, fill: impl FnOnce(&mut [u8]) -> Option<usize>) {
        let result = self.streams.as_ref().map(|streams| streams.push(number, room, fill));
        match result {
            Some(Ok(()) | Err(Refused::Nothing)) => {}
            Some(Err(Refused::Full)) => self.count(Drop::StreamFull, 1),
            Some(Err(Refused::TooBig)) => self.count(Drop::PathTooSmall, 1),
            None => self.count(Drop::StreamGone, 1),
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
        if let Some(number) = way::stream_of(&to) {
            return self.transmit_to_stream(number, room, fill);
        }
        if self.batch.is_full() {
            self.flush();
        }
        self.batch.push(to, room, fill);
    }

    fn serve(&mut self, port: &Port, header: VnetHeader, frame: &[u8]) -> bool {
        // Taken out while its answer goes through us.
        let Some((mut quick, queue)) = self.service.take() else { return false };
        let switch = Arc::clone(&self.switch);
        let heard = Heard { port: port.id, header, frame };
        let answer = switch.topology().network(port.vni).and_then(|network| quick.answer(network, heard));
        let is_taken = match answer {
            Some(answer) => {
                switch.reply(port.id, answer, self);
                true
            }
            None => queue.push(port, header, frame),
        };
        self.service = Some((quick, queue));
        is_taken
    }

    fn notify(&mut self, event: Event<'_>) {
        self.notice(match event {
            Event::Message(peer, from, payload) => Notice::Message(peer, from, payload.into()),
            Event::SessionUp(peer) => Notice::SessionUp(peer),
            Event::Stranger { key, from, datagram } => Notice::Stranger { key, from, datagram: datagram.into() },
            Event::Snooped(port, frame) => Notice::Snooped(port, frame.into()),
        });
    }
}
