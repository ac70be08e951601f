//! Names by TCP (RFC 7766): the connections of containers with the service address.
//!
//! Each connection is a stack of its own with one socket, so that nothing of one is another's: not its port, not its station, not
//! its network. It has one query at a time; the next is read when the answer has left.
//!
//! Anybody can open connections, so their number is bounded, for a port and in all. At the bound of a port its own oldest
//! gives way; at that of all, the oldest of the port that has most.

use super::packet::{Asker, DNS};
use super::wire::{Wire, instant, interface, set_address};
use crate::switch::ids::PortId;
use smoltcp::iface::{Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::wire::IpAddress;
use std::collections::HashMap;
use std::time::Duration;

/// Connections of one port: a resolver that asks in parallel opens a few.
pub(super) const OF_PORT: usize = 16;
/// Connections in all: with their buffers some 20 MiB at the very worst.
pub(super) const IN_ALL: usize = 256;
/// A query is a few hundred bytes; one that is longer is no question.
const LONGEST_QUERY: usize = 4096;
/// What waits to be taken by the other side; an answer that is longer follows as this empties.
const SEND_BUFFER: usize = 16 * 1024;
/// How long a connection may say nothing (RFC 7766 §6.2.3: seconds), and how long it may then take to end.
const IDLE: Duration = Duration::from_secs(10);
const ENDING: Duration = Duration::from_secs(5);

struct Connection {
    interface: Interface,
    sockets: SocketSet<'static>,
    socket: SocketHandle,
    wire: Wire,
    number: u64,
    /// When it last said something.
    heard: Duration,
    /// The part of a query that has come.
    query: Vec<u8>,
    /// A query is with whoever answers it.
    asks: bool,
    /// An answer, and how much of it is with the stack.
    answer: Vec<u8>,
    sent: usize,
}

/// See the head of this file.
#[derive(Default)]
pub(super) struct Connections {
    all: HashMap<Asker, Connection>,
    next: u64,
    queries: Vec<(Asker, u64, Vec<u8>)>,
    frames: Vec<(PortId, Vec<u8>)>,
}

impl Connections {
    /// A segment came; `begins` if it is a SYN. Returns whether it belongs to a connection: if not, somebody else refuses it.
    pub(super) fn input(
        &mut self,
        now: Duration,
        asker: Asker,
        mtu: u16,
        packet: &[u8],
        begins: bool,
        random: u64,
    ) -> bool {
        if !self.all.contains_key(&asker) {
            if !begins {
                return false;
            }
            self.make_room(asker.port);
            self.next += 1;
            self.all.insert(asker, Connection::listen(now, &asker, mtu, self.next, random));
        }
        if let Some(connection) = self.all.get_mut(&asker) {
            connection.wire.put(packet);
            self.run(now, asker);
        }
        true
    }

    /// The queries that came whole: who asked, by which connection, what.
    pub(super) fn take_queries(&mut self) -> Vec<(Asker, u64, Vec<u8>)> {
        std::mem::take(&mut self.queries)
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// The frames to be sent.
    pub(super) fn take_frames(&mut self) -> std::vec::Drain<'_, (PortId, Vec<u8>)> {
        self.frames.drain(..)
    }

    /// The answer to a query; nothing, if there is none. It is lost if the connection has ended meanwhile.
    pub(super) fn answer(&mut self, now: Duration, asker: Asker, number: u64, answer: &[u8]) {
        let Some(connection) = self.all.get_mut(&asker).filter(|known| known.number == number && known.asks) else {
            return;
        };
        connection.asks = false;
        match u16::try_from(answer.len()) {
            Ok(len) if len > 0 => {
                connection.answer.clear();
                connection.answer.extend(len.to_be_bytes());
                connection.answer.extend_from_slice(answer);
                connection.sent = 0;
            }
            _ => connection.stack().close(),
        }
        self.run(now, asker);
    }

    /// Time passed.
    pub(super) fn tick(&mut self, now: Duration) {
        let due = |connection: &mut Connection| connection.deadline(now).is_some_and(|deadline| deadline <= now);
        let due: Vec<Asker> = self.all.iter_mut().filter_map(|(&asker, known)| due(known).then_some(asker)).collect();
        due.into_iter().for_each(|asker| self.run(now, asker));
    }

    /// When [`Self::tick`] has something to do.
    pub(super) fn next_deadline(&mut self, now: Duration) -> Option<Duration> {
        self.all.values_mut().filter_map(|connection| connection.deadline(now)).min()
    }

    fn run(&mut self, now: Duration, asker: Asker) {
        let Some(connection) = self.all.get_mut(&asker) else { return };
        let query = connection.run(now);
        self.frames.extend(connection.wire.take().map(|frame| (asker.port, frame)));
        if let Some(query) = query {
            self.queries.push((asker, connection.number, query));
        }
        if connection.is_over(now) {
            self.all.remove(&asker);
        }
    }

    /// Lets one go if there are too many.
    fn make_room(&mut self, port: PortId) {
        let mut of_port: HashMap<PortId, usize> = HashMap::new();
        self.all.keys().for_each(|asker| *of_port.entry(asker.port).or_default() += 1);
        let from = if of_port.get(&port).is_some_and(|&count| count >= OF_PORT) {
            Some(port)
        } else if self.all.len() >= IN_ALL {
            of_port.into_iter().max_by_key(|&(_, count)| count).map(|(port, _)| port)
        } else {
            None
        };
        let of_it = self.all.iter().filter(|(asker, _)| Some(asker.port) == from);
        let oldest = of_it.min_by_key(|(_, connection)| connection.number).map(|(&asker, _)| asker);
        if let Some(oldest) = oldest {
            self.all.remove(&oldest);
        }
    }
}

impl Connection {
    fn listen(now: Duration, asker: &Asker, mtu: u16, number: u64, random: u64) -> Self {
        let mut wire = Wire::new(mtu);
        wire.is_of(asker.vni, asker.mac);
        let mut interface = interface(now, random, &mut wire);
        set_address(&mut interface, asker.service);
        let buffer = |size| SocketBuffer::new(vec![0; size]);
        let mut socket = Socket::new(buffer(LONGEST_QUERY + 2), buffer(SEND_BUFFER));
        socket.set_timeout(Some((IDLE + ENDING).into()));
        // Who asks waits for nothing but the answer.
        socket.set_ack_delay(None);
        socket.set_nagle_enabled(false);
        // Fails for port 0 and for a socket in use, and this is neither.
        let _ = socket.listen((IpAddress::from(asker.service), DNS));
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let socket = sockets.add(socket);
        let (query, answer) = (Vec::new(), Vec::new());
        Self { interface, sockets, socket, wire, number, heard: now, query, asks: false, answer, sent: 0 }
    }

    fn stack(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.socket)
    }

    /// Lets the stack work; returns a query that is whole.
    fn run(&mut self, now: Duration) -> Option<Vec<u8>> {
        let mut query = None;
        loop {
            self.interface.poll(instant(now), &mut self.wire, &mut self.sockets);
            let socket = self.sockets.get_mut::<Socket<'static>>(self.socket);
            let mut moved = false;
            if self.sent < self.answer.len() && socket.can_send() {
                self.sent += socket.send_slice(&self.answer[self.sent..]).unwrap_or(0);
                moved = true;
            }
            let is_free = !self.asks && self.sent == self.answer.len();
            if is_free && socket.can_recv() {
                let wanted = match self.query.first_chunk::<2>() {
                    Some(length) => usize::from(u16::from_be_bytes(*length)) + 2 - self.query.len(),
                    None => 2 - self.query.len(),
                };
                let taken = socket.recv(|bytes| {
                    let taken = &bytes[..wanted.min(bytes.len())];
                    self.query.extend_from_slice(taken);
                    (taken.len(), taken.len())
                });
                moved = taken.is_ok_and(|taken| taken > 0);
                self.heard = now;
                let length = self.query.first_chunk::<2>().map(|length| usize::from(u16::from_be_bytes(*length)));
                match length {
                    Some(length) if length > LONGEST_QUERY || length == 0 => socket.abort(),
                    Some(length) if self.query.len() == length + 2 => {
                        query = Some(self.query.split_off(2));
                        self.query.clear();
                        self.asks = true;
                    }
                    _ => {}
                }
            } else if is_free && socket.state() == State::CloseWait
                || socket.may_send() && !self.asks && now >= self.heard + IDLE
            {
                // It has said all it wanted, or nothing for too long.
                moved = true;
                socket.close();
            }
            if !moved {
                return query;
            }
        }
    }

    fn is_over(&mut self, now: Duration) -> bool {
        let given_up = now >= self.heard + IDLE + ENDING;
        given_up || matches!(self.stack().state(), State::Closed | State::Listen | State::TimeWait)
    }

    fn deadline(&mut self, now: Duration) -> Option<Duration> {
        let timer = self.interface.poll_at(instant(now), &self.sockets);
        let timer = timer.map(|at| Duration::from_micros(at.total_micros().try_into().unwrap_or(0)));
        let is_idle = !self.asks && self.stack().may_send();
        let end = self.heard + if is_idle { IDLE } else { IDLE + ENDING };
        Some(timer.map_or(end, |timer| timer.min(end)))
    }
}
