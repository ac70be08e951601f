//! From any thread's outbox to the thread of the connections: a bounded queue with a bell.

use crate::io::bell::Bell;
use crate::wire::stream::{MAX_DATAGRAM, framed};
use crossbeam::channel::{Receiver, Sender, bounded};
use mio::Waker;
use std::sync::Arc;

/// Datagrams that wait for the thread: those of twenty super-frames.
const QUEUE: usize = 1024;

/// A connection's number and a framed datagram for it.
pub(super) type Addressed = (u32, Vec<u8>);

/// Why a datagram was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::io) enum Refused {
    /// There was none.
    Nothing,
    /// It is larger than a connection carries.
    TooBig,
    /// The queue is full.
    Full,
}

/// A way into the connections.
#[derive(Clone)]
pub struct StreamQueue {
    sender: Sender<Addressed>,
    bell: Arc<Bell>,
}

impl StreamQueue {
    pub(super) fn new(waker: Waker) -> (Self, Receiver<Addressed>, Arc<Bell>) {
        let (sender, receiver) = bounded(QUEUE);
        let bell = Arc::new(Bell::new(waker));
        (Self { sender, bell: bell.clone() }, receiver, bell)
    }

    /// Queues what `fill` makes of `room` bytes for the connection of this number. Never waits.
    pub(in crate::io) fn push(
        &self,
        number: u32,
        room: usize,
        fill: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) -> Result<(), Refused> {
        let framed = framed(room, fill).ok_or(Refused::Nothing)?;
        if framed.len() > MAX_DATAGRAM + 2 {
            return Err(Refused::TooBig);
        }
        self.sender.try_send((number, framed)).map_err(|_| Refused::Full)?;
        self.bell.ring();
        Ok(())
    }
}
