//! What a service address is to those who send to it: a value that is given frames and the time, and gives frames.
//!
//! Questions by UDP are handed back to the caller, who has the answers; whole questions by TCP wait in [`Stack::take_queries`].
//! What else a host answers is answered here.

use super::host::{self, Host};
use super::packet::{self, Asker, Content};
use super::tcp::Connections;
use crate::switch::ids::PortId;
use crate::switch::service::ip_destination;
use crate::switch::topology::Network;
use crate::wire::ethernet::{HEADER_LEN, Mac};
use crate::wire::vnet::VnetHeader;
use std::slice::Chunks;
use std::time::Duration;

/// A frame for the service MAC.
#[derive(Debug, Clone, Copy)]
pub struct Heard<'a> {
    /// The port it came from.
    pub port: PortId,
    /// What its kernel left undone.
    pub header: VnetHeader,
    /// The frame.
    pub frame: &'a [u8],
}

/// What became of a frame.
#[derive(Debug)]
pub enum Outcome<'a> {
    /// Questions for names, to be answered with [`Asker::datagram`].
    Queries(Asker, Chunks<'a, u8>),
    /// It was taken in.
    Taken,
    /// It was for the service address, and nothing that is answered there.
    Refused,
}

/// See the head of this file.
pub struct Stack {
    host: Host,
    connections: Connections,
    frames: Vec<(PortId, Vec<u8>)>,
}

impl Stack {
    /// A stack without connections. `random` makes the numbers of their first bytes hard to guess.
    pub fn new(now: Duration, random: u64) -> Self {
        Self { host: Host::new(now, random), connections: Connections::default(), frames: Vec::new() }
    }

    /// A port of this network sent a frame to its service address, or one that found no way out.
    pub fn input<'a>(&mut self, now: Duration, network: &Network, heard: Heard<'a>, random: u64) -> Outcome<'a> {
        let Heard { port, header, frame } = heard;
        let mac = frame.get(6..).and_then(|rest| rest.first_chunk()).map_or(Mac([0; 6]), |octets| Mac(*octets));
        let packet = frame.get(HEADER_LEN..).unwrap_or_default();
        let Some((source, destination, content)) = packet::read(port, network.vni, header, frame) else {
            // One on its way out that is no whole packet was counted where it found none.
            let is_here = ip_destination(frame).is_none_or(|destination| network.service.has(destination));
            return if is_here { Outcome::Refused } else { Outcome::Taken };
        };
        if !network.service.has(destination) {
            if let Some(answer) = host::unreachable(network.service, source, packet) {
                let mut frame = Vec::new();
                packet::begin(&mut frame, mac, network.vni, source.is_ipv4(), answer.len()).copy_from_slice(&answer);
                self.frames.push((port, frame));
            }
            // That it was not delivered was counted where that was found.
            return Outcome::Taken;
        }
        match content {
            Content::Queries(asker, queries) => return Outcome::Queries(asker, queries),
            Content::Segment(asker, begins) => {
                if self.connections.input(now, asker, network.mtu, packet, begins, random) {
                    return Outcome::Taken;
                }
            }
            Content::Other => {}
        }
        let before = self.frames.len();
        let answers = self.host.input(now, (network.vni, mac), destination, packet);
        self.frames.extend(answers.map(|frame| (port, frame)));
        if self.frames.len() > before { Outcome::Taken } else { Outcome::Refused }
    }

    /// The questions by TCP that came whole: who asked, by which connection, what.
    pub fn take_queries(&mut self) -> Vec<(Asker, u64, Vec<u8>)> {
        self.connections.take_queries()
    }

    /// The answer to a question by TCP; nothing, if there is none. It is lost if the connection has ended meanwhile.
    pub fn answer(&mut self, now: Duration, asker: Asker, connection: u64, answer: &[u8]) {
        self.connections.answer(now, asker, connection, answer);
    }

    /// The frames to be sent, and where.
    pub fn take_frames(&mut self) -> impl Iterator<Item = (PortId, Vec<u8>)> {
        self.frames.extend(self.connections.take_frames());
        self.frames.drain(..)
    }

    /// Time passed.
    pub fn tick(&mut self, now: Duration) {
        self.connections.tick(now);
    }

    /// When [`Self::tick`] has something to do.
    pub fn next_deadline(&mut self, now: Duration) -> Option<Duration> {
        self.connections.next_deadline(now)
    }

    /// Connections by TCP.
    pub fn connections(&self) -> usize {
        self.connections.len()
    }
}

impl Asker {
    /// Makes the frame that brings `answer` by UDP.
    pub fn datagram(&self, answer: &[u8], frame: &mut Vec<u8>) {
        packet::datagram(self, answer, frame);
    }
}
