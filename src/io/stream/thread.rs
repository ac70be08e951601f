//! The thread of the connections: accepts, reads, writes, and ends what lasts too long.

use super::connection::{Connection, End, Phase, source};
use super::queue::Addressed;
use super::{Command, FIRST_LISTENER, Limits, WAKE};
use crate::io::bell::Bell;
use crate::io::fill_random;
use crate::io::outbox::{Notice, Outbox};
use crate::switch::Switch;
use crate::switch::counters::Drop;
use crate::switch::staging::Staging;
use crate::wire::key::PublicKey;
use crate::wire::stream::{NONCE_LEN, PreambleKey};
use crate::wire::way;
use crossbeam::channel::{Receiver, Sender, TrySendError};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// A connection's token is its number behind this; there are fewer listeners.
const FIRST_CONNECTION: usize = 64;
/// Callers taken before the connections get their turn.
const ACCEPT_BUDGET: usize = 64;
/// How often deadlines are looked at while there are connections.
const SWEEP: Duration = Duration::from_millis(250);

pub(super) struct Thread {
    pub(super) limits: Limits,
    pub(super) key: PreambleKey,
    pub(super) switch: Arc<Switch>,
    pub(super) outbox: Outbox,
    pub(super) staging: Staging,
    pub(super) poll: Poll,
    pub(super) listeners: Vec<TcpListener>,
    pub(super) datagrams: Receiver<Addressed>,
    pub(super) bell: Arc<Bell>,
    pub(super) commands: Receiver<Command>,
    pub(super) notices: Sender<Notice>,
    /// What control had no room for. It is told later, since it counts on it: at most a beginning and an end of each
    /// connection and command.
    pub(super) untold: VecDeque<Notice>,
    pub(super) connections: BTreeMap<u32, Connection>,
    /// The number of the next connection.
    pub(super) next: u32,
    /// Listeners and connections that may have something to read.
    pub(super) ready: VecDeque<Token>,
    pub(super) queued: HashSet<Token>,
    /// Connections that may have something to write.
    pub(super) touched: BTreeSet<u32>,
    pub(super) buffer: Box<[u8]>,
    pub(super) next_sweep: Instant,
    pub(super) stop: Arc<AtomicBool>,
}

impl Thread {
    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(256);
        while !self.stop.load(Relaxed) {
            let patience = self.patience();
            if let Err(error) = self.poll.poll(&mut events, patience)
                && error.kind() != ErrorKind::Interrupted
            {
                // Only a closed or foreign descriptor makes epoll fail: a bug of ours, not the world's.
                panic!("waiting for connections failed: {error}");
            }
            let now = Instant::now();
            self.outbox.refresh();
            for event in &events {
                self.happened(now, event.token(), event.is_writable() || event.is_error());
            }
            for _ in 0..self.ready.len() {
                let Some(token) = self.ready.pop_front() else { break };
                let more = match token.0.checked_sub(FIRST_CONNECTION) {
                    Some(number) => self.read(now, number as u32),
                    None => self.accept(now, token.0 - FIRST_LISTENER),
                };
                if more {
                    self.ready.push_back(token);
                } else {
                    self.queued.remove(&token);
                }
            }
            self.outbox.flush();
            self.bell.answer();
            self.take_commands(now);
            self.take_datagrams();
            self.write();
            if now >= self.next_sweep {
                self.next_sweep = now + SWEEP;
                self.sweep(now);
            }
            self.tell_again();
        }
    }

    /// How long nothing needs to happen.
    fn patience(&self) -> Option<Duration> {
        match (self.ready.is_empty(), self.connections.is_empty() && self.untold.is_empty()) {
            (false, _) => Some(Duration::ZERO),
            (true, false) => Some(self.next_sweep.saturating_duration_since(Instant::now())),
            (true, true) => None,
        }
    }

    fn happened(&mut self, now: Instant, token: Token, writable: bool) {
        if token == WAKE {
            return;
        }
        if let Some(number) = token.0.checked_sub(FIRST_CONNECTION).map(|number| number as u32) {
            if self.connections.get(&number).is_some_and(|connection| connection.phase == Phase::Connecting) {
                self.answered(now, number);
            }
            if writable {
                self.touched.insert(number);
            }
        }
        if self.queued.insert(token) {
            self.ready.push_back(token);
        }
    }

    /// A connection that we began may stand.
    fn answered(&mut self, now: Instant, number: u32) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        match connection.answered(now) {
            Ok(false) => {}
            Ok(true) => {
                let address = connection.address;
                if let Some(to) = connection.to {
                    self.tell(Notice::Stream { to, address, number: Ok(number) });
                }
            }
            Err(error) => self.end(number, &error.to_string()),
        }
    }

    /// Takes callers; says whether more may wait.
    fn accept(&mut self, now: Instant, listener: usize) -> bool {
        for _ in 0..ACCEPT_BUDGET {
            let Some(listener) = self.listeners.get(listener) else { return false };
            match listener.accept() {
                Ok((stream, address)) => self.welcome(now, stream, address),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                // That caller is gone already; or we are out of descriptors, and the next sweep may find some.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }

    fn welcome(&mut self, now: Instant, stream: TcpStream, address: SocketAddr) {
        let from = source(&address);
        let callers = || self.connections.iter().filter(|(_, connection)| connection.to.is_none());
        let unproven = || callers().filter(|(_, connection)| connection.phase == Phase::Unproven);
        if unproven().filter(|(_, connection)| source(&connection.address) == from).count() >= self.limits.of_source {
            return self.outbox.count(Drop::StreamRefused, 1);
        }
        if callers().count() >= self.limits.callers {
            let oldest = unproven().min_by_key(|(_, connection)| connection.since()).map(|(&number, _)| number);
            match oldest {
                Some(number) => self.refuse(number),
                None => return self.outbox.count(Drop::StreamRefused, 1),
            }
        }
        let number = self.unused();
        let connection = Connection::of_caller(now, stream, address, self.key.clone());
        if self.enter(number, connection).is_err() {
            self.outbox.count(Drop::StreamRefused, 1);
        }
    }

    /// A number that no connection has. They come again after four thousand million others.
    fn unused(&mut self) -> u32 {
        loop {
            let number = self.next;
            self.next = self.next.wrapping_add(1);
            if !self.connections.contains_key(&number) {
                return number;
            }
        }
    }

    fn enter(&mut self, number: u32, mut connection: Connection) -> io::Result<()> {
        let token = Token(FIRST_CONNECTION + number as usize);
        let both = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut connection.stream, token, both)?;
        if self.connections.is_empty() {
            self.next_sweep = Instant::now() + SWEEP;
        }
        self.connections.insert(number, connection);
        Ok(())
    }

    /// Reads a connection; says whether more may wait.
    fn read(&mut self, now: Instant, number: u32) -> bool {
        let Self { connections, switch, staging, outbox, buffer, .. } = self;
        let Some(connection) = connections.get_mut(&number) else { return false };
        let from = way::stream(number);
        let mut authentic = false;
        let result = connection.read(buffer, |datagram| {
            authentic |= switch.underlay_input(now, from, datagram, datagram.len(), staging, outbox) > 0;
        });
        staging.flush(outbox);
        if authentic {
            connection.prove(now);
        }
        match result {
            Ok(more) => return more,
            Err(End::Gone) => self.end(number, "it was closed at the other end"),
            Err(End::Foreign) => self.refuse(number),
        }
        false
    }

    fn take_commands(&mut self, now: Instant) {
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Connect(to, address) => {
                    if let Err(reason) = self.connect(now, to, address) {
                        self.tell(Notice::Stream { to, address, number: Err(reason) });
                    }
                }
                Command::Close(number) => drop(self.connections.remove(&number)),
            }
        }
    }

    fn connect(&mut self, now: Instant, to: PublicKey, address: SocketAddr) -> Result<(), String> {
        let called = self.connections.values().filter(|connection| connection.to.is_some()).count();
        if called >= self.limits.called {
            return Err(format!("there are {called} connections already"));
        }
        let mut nonce = [0; NONCE_LEN];
        fill_random(&mut nonce);
        let preamble = PreambleKey::of(&to).preamble(nonce);
        let stream = TcpStream::connect(address).map_err(|error| error.to_string())?;
        let number = self.unused();
        let connection = Connection::of_called(now, stream, address, to, &preamble);
        self.enter(number, connection).map_err(|error| error.to_string())
    }

    /// Hands the queued datagrams to their connections.
    fn take_datagrams(&mut self) {
        while let Ok((number, framed)) = self.datagrams.try_recv() {
            match self.connections.get_mut(&number).map(|connection| connection.push(&framed)) {
                Some(true) => {
                    self.touched.insert(number);
                    self.switch.counters.datagrams_tx.add(1);
                }
                Some(false) => self.outbox.count(Drop::StreamFull, 1),
                None => self.outbox.count(Drop::StreamGone, 1),
            }
        }
    }

    fn write(&mut self) {
        while let Some(number) = self.touched.pop_first() {
            let Some(connection) = self.connections.get_mut(&number) else { continue };
            if connection.write().is_err() {
                self.end(number, "it was closed at the other end");
            }
        }
    }

    /// Ends what has lasted too long, and looks for callers again where none could be taken.
    fn sweep(&mut self, now: Instant) {
        let late = |(&number, connection): (&u32, &Connection)| {
            (now >= connection.deadline(&self.limits)).then_some((number, connection.phase))
        };
        let late: Vec<_> = self.connections.iter().filter_map(late).collect();
        for (number, phase) in late {
            match phase {
                Phase::Connecting => self.end(number, "there is no answer"),
                Phase::Unproven => self.refuse(number),
                Phase::Proven => self.end(number, "it was idle"),
            }
        }
        for listener in 0..self.listeners.len() {
            let token = Token(FIRST_LISTENER + listener);
            if self.queued.insert(token) {
                self.ready.push_back(token);
            }
        }
    }

    /// Ends a connection on which nothing of ours came.
    fn refuse(&mut self, number: u32) {
        self.outbox.count(Drop::StreamRefused, 1);
        self.end(number, "no session answers on it");
    }

    /// Ends a connection, and tells control where it knows of it.
    fn end(&mut self, number: u32, reason: &str) {
        let Some(connection) = self.connections.remove(&number) else { return };
        let address = connection.address;
        match (connection.to, connection.phase) {
            (Some(to), Phase::Connecting) => {
                self.tell(Notice::Stream { to, address, number: Err(reason.to_owned()) });
            }
            // A stranger's beginning was not told either.
            (None, Phase::Unproven) => {}
            _ => {
                tracing::debug!("the TCP connection with {address} has ended: {reason}");
                self.tell(Notice::StreamClosed(number));
            }
        }
    }

    fn tell(&mut self, notice: Notice) {
        self.untold.push_back(notice);
        self.tell_again();
    }

    fn tell_again(&mut self) {
        while let Some(notice) = self.untold.pop_front() {
            if let Err(TrySendError::Full(notice)) = self.notices.try_send(notice) {
                self.untold.push_front(notice);
                return;
            }
        }
    }
}
