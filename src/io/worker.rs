//! A worker: one thread of the data plane, running to completion over its TAPs and its sockets.
//!
//! Read, switch, write. A worker has no state of its own but buffers: ports come and go by themselves in the
//! published [`PortTable`], and their TAPs are registered with the worker's poll by control. mio is edge-triggered, so
//! what was not read to its end within the budget stays on the ready list; no TAP and no socket can starve another.

use super::outbox::{Notice, Outbox, PortTable};
use super::udp::{ReceiveBatch, UdpSockets};
use crate::switch::counters::Drop as DropReason;
use crate::switch::ids::PortId;
use crate::switch::staging::{Merge, Staging};
use crate::switch::{HEADROOM, Switch};
use crate::wire::MAX_SUPER_FRAME;
use crate::wire::vnet::{self, VnetHeader};
use crate::wire::way;
use arc_swap::ArcSwap;
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Registry, Token, Waker};
use std::collections::{HashSet, VecDeque};
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Tokens of the sockets and the waker; a port's token is its id behind them.
const V4: Token = Token(0);
const V6: Token = Token(1);
const WAKE: Token = Token(2);
const FIRST_PORT: usize = 3;
/// Frames read from one TAP before the others get their turn: a run of small ones fills a UDP_SEGMENT send.
const TAP_BUDGET: usize = 64;
/// Bytes read from one TAP before the others get their turn: about 150 µs of sealing and sending, so that a small frame
/// of one container does not wait for the bulk of another. The last frame may exceed it.
const TAP_BUDGET_BYTES: usize = 256 * 1024;
/// What is opened before a flush: a receive batch of full trains, and what reassembly adds.
pub(super) const STAGING_BYTES: usize = 640 * 1024;

/// How long a worker with nothing to do looks on before it sleeps, yielding to whoever has. Waking a thread whose core has
/// halted takes longer than this, and an answer often comes sooner; an idle host pays nothing, as only traffic wakes it.
const BUSY_POLL: Duration = Duration::from_micros(20);

/// The token under which a port's TAP is registered.
pub fn port_token(id: PortId) -> Token {
    Token(id.0 as usize + FIRST_PORT)
}

/// Starts a thread of the data plane.
pub(super) fn spawn(name: String, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let run = move || {
        // A daemon without its data plane would look alive and forward nothing: end it, to be started again.
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err() {
            std::process::abort();
        }
    };
    std::thread::Builder::new().name(name).spawn(run)
}

/// What control keeps of a running worker.
pub struct WorkerHandle {
    /// To register TAPs with.
    pub registry: Registry,
    waker: Arc<Waker>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl WorkerHandle {
    /// Makes the worker look at the ports as they are, also when it has nothing to do: until then it holds those that
    /// are gone, with their TAPs and the namespaces these keep alive.
    pub fn wake(&self) {
        let _ = self.waker.wake();
    }
}

impl Drop for WorkerHandle {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        self.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// A worker's parts before it runs.
pub struct Worker {
    switch: Arc<Switch>,
    sockets: Arc<UdpSockets>,
    table: Arc<ArcSwap<PortTable>>,
    poll: Poll,
    outbox: Outbox,
    staging: Staging,
    receive: ReceiveBatch,
    frame: Box<[u8]>,
    ready: VecDeque<Token>,
    queued: HashSet<Token>,
    stop: Arc<AtomicBool>,
}

impl Worker {
    /// Starts worker `number`; `outbox` is to be its own.
    ///
    /// # Errors
    /// The kernel refused a poll or a thread.
    pub fn start(
        number: usize,
        switch: Arc<Switch>,
        sockets: Arc<UdpSockets>,
        table: Arc<ArcSwap<PortTable>>,
        outbox: Outbox,
        merge: Merge,
    ) -> io::Result<WorkerHandle> {
        let poll = Poll::new()?;
        let registry = poll.registry().try_clone()?;
        let waker = Arc::new(Waker::new(&registry, WAKE)?);
        for (socket, token) in [(&sockets.v4, V4), (&sockets.v6, V6)] {
            if let Some(socket) = socket {
                registry.register(&mut SourceFd(&socket.as_raw_fd()), token, Interest::READABLE)?;
            }
        }
        let stop = Arc::new(AtomicBool::new(false));
        let worker = Self {
            switch,
            sockets,
            table,
            poll,
            outbox,
            staging: Staging::new(STAGING_BYTES, merge),
            receive: ReceiveBatch::default(),
            frame: vec![0; HEADROOM + vnet::LEN + MAX_SUPER_FRAME].into_boxed_slice(),
            ready: VecDeque::new(),
            queued: HashSet::new(),
            stop: stop.clone(),
        };
        let name = format!("weft-data-{number}");
        let thread = spawn(name, || worker.run())?;
        Ok(WorkerHandle { registry, waker, stop, thread: Some(thread) })
    }

    fn run(mut self) {
        let mut events = Events::with_capacity(256);
        while !self.stop.load(Relaxed) {
            self.wait(&mut events);
            for event in &events {
                if event.token() != WAKE && self.queued.insert(event.token()) {
                    self.ready.push_back(event.token());
                }
            }
            // One clock read for everything that was ready.
            let now = Instant::now();
            self.outbox.refresh();
            for _ in 0..self.ready.len() {
                let Some(token) = self.ready.pop_front() else { break };
                let more = match token {
                    V4 | V6 => self.read_socket(now, token),
                    _ => self.read_tap(now, PortId((token.0 - FIRST_PORT) as u32)),
                };
                self.outbox.flush();
                if more {
                    self.ready.push_back(token);
                } else {
                    self.queued.remove(&token);
                }
            }
        }
    }

    /// Waits until something is ready; not at all while something still is.
    fn wait(&mut self, events: &mut Events) {
        let asleep_at = Instant::now() + BUSY_POLL;
        loop {
            let busy = !self.ready.is_empty();
            let looks_on = busy || Instant::now() < asleep_at;
            if let Err(error) = self.poll.poll(events, looks_on.then_some(Duration::ZERO))
                && error.kind() != io::ErrorKind::Interrupted
            {
                // Only a closed or foreign descriptor makes epoll fail: a bug of ours, not the world's.
                panic!("waiting for frames failed: {error}");
            }
            if busy || !looks_on || !events.is_empty() {
                return;
            }
            std::thread::yield_now();
        }
    }

    /// Takes one batch of datagrams; returns whether more may wait.
    fn read_socket(&mut self, now: Instant, token: Token) -> bool {
        let socket = if token == V4 { &self.sockets.v4 } else { &self.sockets.v6 };
        let Some(socket) = socket else { return false };
        // An error is that of an earlier datagram, told once; those that arrived may lie behind it.
        let more = match self.receive.receive(socket).or_else(|_| self.receive.receive(socket)) {
            Ok(more) => more,
            Err(error) => {
                tracing::warn!("receiving from the underlay failed: {error}");
                return false;
            }
        };
        for train in self.receive.trains() {
            // Port 0 is what names the other ways; a sender that forges it is after one of them.
            if !way::is_underlay(&train.from) {
                self.outbox.count(DropReason::ForgedSource, 1);
                continue;
            }
            let (staging, out) = (&mut self.staging, &mut self.outbox);
            self.switch.underlay_input(now, train.from, train.bytes, train.stride, staging, out);
        }
        self.staging.flush(&mut self.outbox);
        more
    }

    /// Reads frames of one port; returns whether more may wait.
    fn read_tap(&mut self, now: Instant, id: PortId) -> bool {
        let table = self.table.load();
        let Some(entry) = table.get(&id) else { return false };
        let mut bytes = 0;
        for _ in 0..TAP_BUDGET {
            if bytes >= TAP_BUDGET_BYTES {
                break;
            }
            let length = match entry.tap.read(&mut self.frame[HEADROOM..]) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => {
                    // The interface is gone with its namespace (EBADFD), or down; control finds out which.
                    self.outbox.notice(Notice::PortFailed(id));
                    return false;
                }
            };
            bytes += length;
            let Some((header, _)) = self.frame[HEADROOM..HEADROOM + length].split_first_chunk::<{ vnet::LEN }>()
            else {
                continue;
            };
            let header = VnetHeader::parse(header);
            let at = HEADROOM + vnet::LEN;
            let buffer = &mut self.frame[..HEADROOM + length];
            self.switch.port_input(now, &entry.port, header, buffer, at, &mut self.outbox);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::io::udp::UdpOffload;
    use crate::switch::fdb::Limits;
    use crate::switch::topology::Topology;
    use crate::tunnel::Engine;
    use crate::tunnel::Gate;
    use crate::wire::key::Secret;
    use std::net::Ipv4Addr;

    #[test]
    fn a_worker_with_nothing_to_do_lets_go_of_ports_that_are_gone() {
        let limits = Limits { max_entries: 1, max_per_port: 1, max_per_peer: 1 };
        let topology = Topology::new(Ipv4Addr::LOCALHOST, Vec::new(), &[]);
        let switch = Switch::new(
            Gate::new(&Secret::private([1; 32]), crate::io::gate_settings(Engine::Ring)),
            topology,
            limits,
            1,
            Instant::now(),
        );
        let sockets = UdpSockets::bind(0, 1, UdpOffload { segment: false, gro: false }).unwrap().remove(0);
        let ports = Arc::new(PortTable::default());
        let before = Arc::downgrade(&ports);
        let table = Arc::new(ArcSwap::new(ports));
        let (notices, _) = crossbeam::channel::bounded(1);
        let (switch, sockets) = (Arc::new(switch), Arc::new(sockets));
        let outbox = Outbox::new(switch.clone(), sockets.clone(), table.clone(), None, notices);
        let worker = Worker::start(0, switch, sockets, table.clone(), outbox, Merge::Nothing).unwrap();
        table.store(Arc::new(PortTable::default()));
        worker.wake();
        let deadline = Instant::now() + Duration::from_secs(10);
        while before.strong_count() > 0 {
            assert!(Instant::now() < deadline, "the worker holds on to them");
            std::thread::yield_now();
        }
    }
}
