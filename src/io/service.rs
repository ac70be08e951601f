//! What answers for the service addresses of networks: ping, and names by UDP and TCP.
//!
//! ```text
//!  workers ──► Quick ──────────────────────────────────────────► the port that asked
//!     │          └── names::Directory (control writes)                    ▲
//!     │                └────┐                                             │
//!     └── ServiceQueue ──► weft-service ──► its own outbox ───────────────┘
//!                             ▲    └── UDP, TCP ──► resolvers elsewhere
//!                             └──────────────────── what they say
//! ```
//!
//! Short answers to single questions a worker gives itself. For all else there is one thread for all networks. It keeps nothing of a
//! network: what is there is read in the topology for each frame, so networks come and go without its being told. What it keeps are
//! TCP connections and questions that were passed on, both bounded. The switch decides what gets here ([`crate::switch::service`]), the directory what a name means.

mod host;
mod packet;
mod queue;
mod quick;
mod resolvers;
pub mod stack;
mod tcp;
#[cfg(test)]
mod tests;
mod thread;
mod upstream;
mod wire;

pub use packet::Asker;
pub use queue::ServiceQueue;
pub(super) use quick::Quick;

use super::fill_random;
use super::outbox::Outbox;
use super::worker::spawn;
use crate::names::Directory;
use crate::switch::Switch;
use mio::{Poll, Token, Waker};
use queue::Incoming;
use resolvers::HostResolvers;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use thread::Thread;

const WAKE: Token = Token(0);
/// Where the host says whom it asks.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// The parts of the thread before it runs: its queue is needed to start the workers.
pub struct Prepared {
    poll: Poll,
    queue: ServiceQueue,
    incoming: Incoming,
}

impl Prepared {
    /// A thread that answers nobody yet.
    ///
    /// # Errors
    /// The kernel refused a poll.
    pub fn new() -> io::Result<Self> {
        let poll = Poll::new()?;
        let (queue, incoming) = ServiceQueue::new(Waker::new(poll.registry(), WAKE)?);
        Ok(Self { poll, queue, incoming })
    }

    /// Where frames for service addresses go.
    pub fn queue(&self) -> ServiceQueue {
        self.queue.clone()
    }

    /// Starts the thread; `outbox` is to be its own.
    ///
    /// # Errors
    /// The kernel refused a thread.
    pub fn start(self, switch: Arc<Switch>, outbox: Outbox, directory: Arc<Directory>) -> io::Result<Services> {
        let stop = Arc::new(AtomicBool::new(false));
        let resolvers = HostResolvers::new(PathBuf::from(RESOLV_CONF));
        let mut seed = [0; 32];
        fill_random(&mut seed);
        let thread = Thread::new(switch, outbox, directory, stop.clone(), self.poll, self.incoming, resolvers, seed)?;
        let thread = spawn("weft-service".to_owned(), move || thread.run())?;
        Ok(Services { stop, queue: self.queue, thread: Some(thread) })
    }
}

/// The running thread: ends with this.
pub struct Services {
    stop: Arc<AtomicBool>,
    queue: ServiceQueue,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Services {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        self.queue.ring();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
