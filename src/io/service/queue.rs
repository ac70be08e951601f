//! From the workers to the thread that answers for service addresses what they do not answer themselves: a bounded queue with a bell.
//!
//! One container that asks without end must not be all that is answered: a port may have so many bytes in the queue, and there is
//! more room than one can take. Ports are told apart by their number modulo [`SHARES`]; those who meet share.

use crate::io::bell::Bell;
use crate::switch::ids::PortId;
use crate::switch::topology::Port;
use crate::wire::vnet::VnetHeader;
use crossbeam::channel::{Receiver, Sender, bounded};
use mio::Waker;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Frames that wait: some 20 ms of answers.
const QUEUE: usize = 4096;
/// Bytes of these that are a port's: 1,200 questions, those of 60 ms at 20,000 a second, for which the thread may not have been
/// let run on a host that is busy.
const OF_PORT: usize = 256 * 1024;
/// Ports that are told apart; so what waits takes 16 MiB at the very worst.
const SHARES: usize = 64;
/// What a frame costs besides its bytes.
const COST: usize = 128;
/// The longest frame that is taken: a ping at the largest MTU of a port, and more TCP at once than we let anybody send.
const LONGEST: usize = 16 * 1024;

/// A frame for a service address.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) port: PortId,
    pub(super) vni: u32,
    pub(super) header: VnetHeader,
    pub(super) frame: Vec<u8>,
}

type Shares = Arc<[AtomicUsize; SHARES]>;

/// A way to whoever answers for service addresses.
#[derive(Clone)]
pub struct ServiceQueue {
    sender: Sender<Asked>,
    shares: Shares,
    bell: Arc<Bell>,
}

/// The other end.
pub(super) struct Incoming {
    receiver: Receiver<Asked>,
    shares: Shares,
    bell: Arc<Bell>,
}

fn share(shares: &Shares, port: PortId) -> &AtomicUsize {
    &shares[port.0 as usize % SHARES]
}

impl ServiceQueue {
    pub(super) fn new(waker: Waker) -> (Self, Incoming) {
        let (sender, receiver) = bounded(QUEUE);
        let shares: Shares = Arc::new(std::array::from_fn(|_| AtomicUsize::new(0)));
        let bell = Arc::new(Bell::new(waker));
        (Self { sender, shares: shares.clone(), bell: bell.clone() }, Incoming { receiver, shares, bell })
    }

    /// Queues a frame of a port. Never waits; `false` if there is no room for it.
    pub(in crate::io) fn push(&self, port: &Port, header: VnetHeader, frame: &[u8]) -> bool {
        let share = share(&self.shares, port.id);
        let cost = frame.len() + COST;
        if frame.len() > LONGEST || share.load(Relaxed) + cost > OF_PORT {
            return false;
        }
        share.fetch_add(cost, Relaxed);
        let asked = Asked { port: port.id, vni: port.vni, header, frame: frame.to_vec() };
        let taken = self.sender.try_send(asked).is_ok();
        if !taken {
            share.fetch_sub(cost, Relaxed);
        }
        self.bell.ring();
        taken
    }

    /// Wakes the thread for another reason.
    pub(super) fn ring(&self) {
        self.bell.ring();
    }
}

impl Incoming {
    /// What is put down from here on rings the bell.
    pub(super) fn answer_bell(&self) {
        self.bell.answer();
    }

    /// Whether something waits.
    pub(super) fn is_empty(&self) -> bool {
        self.receiver.is_empty()
    }

    /// The next frame.
    pub(super) fn take(&self) -> Option<Asked> {
        let asked = self.receiver.try_recv().ok()?;
        share(&self.shares, asked.port).fetch_sub(asked.frame.len() + COST, Relaxed);
        Some(asked)
    }
}
