//! WireGuard datagrams over TCP, where UDP does not get through: the thread that has the connections.
//!
//! It is a worker for streams. What it reads it hands to the switch as coming from [`crate::wire::way::stream`] with the connection's
//! number; what anyone sends there comes to it through a [`StreamQueue`]. The format is in [`crate::wire::stream`].
//!
//! ```text
//!  workers, control ── StreamQueue ──► weft-stream ──► switch.underlay_input ──► its own outbox
//!                                       ▲      │
//!            control ── connect, close ─┘      └─ Notice::Stream, Notice::StreamClosed ──► control
//! ```
//!
//! Nobody waits for a slow connection: what it cannot take beyond a bound is dropped, and TCP's own retransmissions
//! are hidden from nobody inside the tunnels, who see a way that is slow and loses.
//!
//! # Strangers
//!
//! Anyone can connect. Until something authentic came a connection is *unproven*: it has [`Limits::prove`] to change
//! that, there are few of one source, and when there are too many in all the oldest of them gives way. So however many
//! connect, a member that comes gets through: it proves itself in one round trip.

mod connection;
mod queue;
#[cfg(test)]
mod tests;
mod thread;

pub(super) use queue::Refused;
pub use queue::StreamQueue;

use super::bell::Bell;
use super::outbox::{Notice, Outbox};
use super::worker::{STAGING_BYTES, spawn};
use crate::switch::Switch;
use crate::switch::staging::{Merge, Staging};
use crate::wire::key::PublicKey;
use crate::wire::stream::PreambleKey;
use crossbeam::channel::{Receiver, Sender, bounded};
use mio::net::TcpListener;
use mio::{Interest, Poll, Token, Waker};
use queue::Addressed;
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use thread::Thread;

const WAKE: Token = Token(0);
const FIRST_LISTENER: usize = 1;
/// Callers in the kernel's queue: a wave of strangers that is longer costs members that come then a second.
const BACKLOG: i32 = 1024;
/// Requests of control that wait for the thread: as many as it may have connections.
const COMMANDS: usize = 64;
/// What one read brings at most.
const READ_BYTES: usize = 64 * 1024;

/// How many connections there may be, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections of callers in all: with their buffers, they may take some 70 MiB at the very worst.
    pub callers: usize,
    /// Unproven connections of one source: an IPv4 address or an IPv6 /64. Those that are proven are members.
    pub of_source: usize,
    /// Connections that we began.
    pub called: usize,
    /// How long somebody we call may take to answer.
    pub connect: Duration,
    /// How long a connection may take until something authentic comes: two handshakes' time.
    pub prove: Duration,
    /// How long nothing authentic may come: members that have something to say to each other do so every 15 s.
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            callers: 256,
            of_source: 8,
            called: 64,
            connect: Duration::from_secs(5),
            prove: Duration::from_secs(10),
            idle: Duration::from_secs(60),
        }
    }
}

/// What control asks of the thread.
enum Command {
    Connect(PublicKey, SocketAddr),
    Close(u32),
}

/// The parts of the thread before it runs: its queue is needed to start the workers, whose switch it needs.
pub struct Prepared {
    poll: Poll,
    queue: StreamQueue,
    datagrams: Receiver<Addressed>,
    bell: Arc<Bell>,
    listeners: Vec<TcpListener>,
}

impl Prepared {
    /// A thread that listens nowhere yet.
    ///
    /// # Errors
    /// The kernel refused a poll.
    pub fn new() -> io::Result<Self> {
        let poll = Poll::new()?;
        let (queue, datagrams, bell) = StreamQueue::new(Waker::new(poll.registry(), WAKE)?);
        Ok(Self { poll, queue, datagrams, bell, listeners: Vec::new() })
    }

    /// Where datagrams for connections go.
    pub fn queue(&self) -> StreamQueue {
        self.queue.clone()
    }

    /// Listens on this TCP port, on every local address of both families; returns the port, which 0 lets the system choose.
    ///
    /// # Errors
    /// The port is taken, or the host has neither IPv4 nor IPv6.
    pub fn listen(&mut self, port: u16) -> io::Result<u16> {
        let mut found = port;
        let before = self.listeners.len();
        for (domain, any) in
            [(Domain::IPV4, Ipv4Addr::UNSPECIFIED.into()), (Domain::IPV6, Ipv6Addr::UNSPECIFIED.into())]
        {
            if let Some(mut listener) = listener(domain, SocketAddr::new(any, found))? {
                found = listener.local_addr()?.port();
                let token = Token(FIRST_LISTENER + self.listeners.len());
                self.poll.registry().register(&mut listener, token, Interest::READABLE)?;
                self.listeners.push(listener);
            }
        }
        if self.listeners.len() == before {
            return Err(io::Error::new(ErrorKind::Unsupported, "this host has neither IPv4 nor IPv6"));
        }
        Ok(found)
    }

    /// Starts the thread. Callers must know our public `key`; `outbox` is to be the thread's own.
    ///
    /// # Errors
    /// The kernel refused a thread.
    pub fn start(
        self,
        key: &PublicKey,
        limits: Limits,
        switch: Arc<Switch>,
        outbox: Outbox,
        notices: Sender<Notice>,
        merge: Merge,
    ) -> io::Result<Streams> {
        let (sender, commands) = bounded(COMMANDS);
        let stop = Arc::new(AtomicBool::new(false));
        let bell = self.bell.clone();
        let thread = Thread {
            limits,
            key: PreambleKey::of(key),
            switch,
            outbox,
            staging: Staging::new(STAGING_BYTES, merge),
            poll: self.poll,
            listeners: self.listeners,
            datagrams: self.datagrams,
            bell: self.bell,
            commands,
            notices: notices.clone(),
            untold: VecDeque::new(),
            connections: BTreeMap::new(),
            next: 0,
            ready: VecDeque::new(),
            queued: HashSet::new(),
            touched: BTreeSet::new(),
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            next_sweep: Instant::now(),
            stop: stop.clone(),
        };
        let thread = spawn("weft-stream".to_owned(), move || thread.run())?;
        Ok(Streams { commands: sender, notices, bell, stop, thread: Some(thread) })
    }
}

/// A listening socket, where the host has that family.
fn listener(domain: Domain, address: SocketAddr) -> io::Result<Option<TcpListener>> {
    let socket = match Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP)) {
        Ok(socket) => socket,
        Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => return Ok(None),
        Err(error) => return Err(error),
    };
    if domain == Domain::IPV6 {
        socket.set_only_v6(true)?;
    }
    // The connections of a daemon that was just stopped linger in the kernel.
    socket.set_reuse_address(true)?;
    match socket.bind(&address.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => return Ok(None),
        Err(error) => return Err(error),
    }
    socket.listen(BACKLOG)?;
    Ok(Some(TcpListener::from_std(socket.into())))
}

/// What control keeps of the running thread.
pub struct Streams {
    commands: Sender<Command>,
    notices: Sender<Notice>,
    bell: Arc<Bell>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Streams {
    /// Connects to the member `to` at `address`. What becomes of it is told by [`Notice::Stream`], and when it has become
    /// something, its end by [`Notice::StreamClosed`].
    pub fn connect(&self, to: PublicKey, address: SocketAddr) {
        if self.commands.try_send(Command::Connect(to, address)).is_err() {
            let number = Err("too many connections are being made".to_owned());
            // Control's own queue is full, too: it will ask again.
            let _ = self.notices.try_send(Notice::Stream { to, address, number });
        }
        self.bell.ring();
    }

    /// Closes a connection; one that is not there is no error. What waits in it is lost.
    pub fn close(&self, number: u32) {
        // When that many wait, this one ends by its own deadline.
        let _ = self.commands.try_send(Command::Close(number));
        self.bell.ring();
    }
}

impl Drop for Streams {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        self.bell.ring();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
