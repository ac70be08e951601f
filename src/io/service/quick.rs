//! What a worker answers itself: a single plain question by UDP whose answer is known here and short.
//!
//! That is nearly every question for a name of the mesh. To wake the thread for it costs more than the answer, and on a busy host
//! the thread waits for a core while the worker has one. All else is the thread's, which begins anew: what takes longer must not keep
//! frames waiting.

use super::packet::{self, Content};
use super::stack::Heard;
use crate::names::{Directory, Effort, Transport, Verdict, answer};
use crate::switch::topology::Network;
use std::sync::Arc;

/// See the head of this file. Each owner of an [`crate::io::outbox::Outbox`] has one.
pub(in crate::io) struct Quick {
    directory: Arc<Directory>,
    random: u64,
    answer: Vec<u8>,
    frame: Vec<u8>,
}

impl Quick {
    /// One that answers out of `directory`; `random` begins what puts the instances of a name in order.
    pub(in crate::io) fn new(directory: Arc<Directory>, random: u64) -> Self {
        Self { directory, random: random | 1, answer: Vec::new(), frame: Vec::new() }
    }

    /// The frame that answers this one. `None`: it is for the thread.
    pub(in crate::io) fn answer(&mut self, network: &Network, heard: Heard<'_>) -> Option<&[u8]> {
        let (_, destination, content) = packet::read(heard.port, network.vni, heard.header, heard.frame)?;
        let Content::Queries(asker, mut queries) = content else { return None };
        if queries.len() != 1 || !network.service.has(destination) {
            return None;
        }
        // Weyl's sequence: instances are shuffled by what begins with it.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let (query, random) = (queries.next()?, self.random);
        let verdict =
            answer(&self.directory, asker.vni, Transport::Udp, Effort::Little, query, random, &mut self.answer);
        if verdict != Verdict::Answer {
            return None;
        }
        asker.datagram(&self.answer, &mut self.frame);
        Some(&self.frame)
    }
}
