//! The sockets by which names are asked of resolvers elsewhere, in the daemon's own network namespace.
//!
//! An answer is believed if it comes from the resolver to the port that asked, so the port must be hard to guess (RFC 5452
//! §9.2): questions leave by one of several sockets, on ports of the kernel's random choice, and after some use or time a
//! socket gives way to another. It is listened to a little longer, for what it asked last.

use crate::names::forward::Forwarder;
use mio::net::{TcpStream, UdpSocket};
use mio::{Interest, Registry, Token};
use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// Sockets of a family that questions leave by.
const SOCKETS: usize = 8;
/// Questions that leave by one socket, and for how long.
const USES: u32 = 256;
const LIFE: Duration = Duration::from_secs(60);
/// How long a socket is listened to after it gave way: longer than anybody waits for an answer.
const AFTERLIFE: Duration = Duration::from_secs(10);
/// TCP conversations with resolvers at once.
const STREAMS: usize = 64;
/// Datagrams read from one socket before something else gets its turn.
const READ_BUDGET: usize = 64;
/// The longest datagram of a resolver, and what a conversation reads at once.
const READ_BYTES: usize = 64 * 1024;
/// The first token of ours.
const FIRST: usize = 1;

struct Socket {
    socket: UdpSocket,
    is_v4: bool,
    uses: u32,
    until: Duration,
}

struct Stream {
    exchange: u64,
    stream: TcpStream,
    /// What is to be said, and how much of it was.
    question: Vec<u8>,
    said: usize,
    answer: Vec<u8>,
}

/// See the head of this file.
pub(super) struct Upstream {
    registry: Registry,
    sockets: HashMap<usize, Socket>,
    streams: HashMap<usize, Stream>,
    next: usize,
    buffer: Box<[u8]>,
    /// Sockets that may have more to read.
    ready: Vec<usize>,
}

impl Upstream {
    pub(super) fn new(registry: Registry) -> Self {
        let buffer = vec![0; READ_BYTES].into_boxed_slice();
        Self { registry, sockets: HashMap::new(), streams: HashMap::new(), next: FIRST, buffer, ready: Vec::new() }
    }

    /// Sends a question. That it cannot be is as if it were lost on the way.
    pub(super) fn send(&mut self, now: Duration, to: SocketAddr, question: &[u8], random: u64) {
        let is_v4 = to.is_ipv4();
        let usable = |socket: &Socket| socket.is_v4 == is_v4 && socket.uses < USES && now < socket.until;
        let mut tokens: Vec<usize> =
            self.sockets.iter().filter(|(_, s)| usable(s)).map(|(&token, _)| token).collect();
        tokens.sort_unstable();
        let chosen = random as usize % SOCKETS;
        let token = match tokens.get(chosen) {
            Some(&token) => token,
            // Each that is missing is made when it is its turn.
            None => match self.open(now, is_v4) {
                Ok(token) => token,
                Err(error) => return tracing::debug!("no socket to ask {to} by: {error}"),
            },
        };
        if let Some(socket) = self.sockets.get_mut(&token) {
            socket.uses += 1;
            if let Err(error) = socket.socket.send_to(question, to) {
                tracing::debug!("cannot ask {to}: {error}");
            }
        }
    }

    fn open(&mut self, now: Duration, is_v4: bool) -> io::Result<usize> {
        let any: SocketAddr =
            if is_v4 { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
        let mut socket = UdpSocket::bind(any)?;
        let token = self.next_token();
        self.registry.register(&mut socket, Token(token), Interest::READABLE)?;
        self.sockets.insert(token, Socket { socket, is_v4, uses: 0, until: now + LIFE });
        Ok(token)
    }

    fn next_token(&mut self) -> usize {
        self.next += 1;
        self.next
    }

    /// Begins a conversation by TCP.
    pub(super) fn connect<T>(
        &mut self,
        now: Duration,
        exchange: u64,
        to: SocketAddr,
        question: &[u8],
        forwarder: &mut Forwarder<T>,
    ) {
        if let Err(error) = self.try_connect(exchange, to, question) {
            tracing::debug!("cannot ask {to} by TCP: {error}");
            forwarder.stream(now, exchange, Err(()));
        }
    }

    fn try_connect(&mut self, exchange: u64, to: SocketAddr, question: &[u8]) -> io::Result<()> {
        if self.streams.len() >= STREAMS {
            return Err(io::Error::other("too many conversations"));
        }
        let length = u16::try_from(question.len()).map_err(io::Error::other)?;
        let mut stream = TcpStream::connect(to)?;
        let token = self.next_token();
        self.registry.register(&mut stream, Token(token), Interest::READABLE | Interest::WRITABLE)?;
        let question = [&length.to_be_bytes()[..], question].concat();
        self.streams.insert(token, Stream { exchange, stream, question, said: 0, answer: Vec::new() });
        Ok(())
    }

    /// Ends a conversation.
    pub(super) fn close(&mut self, exchange: u64) {
        self.streams.retain(|_, stream| stream.exchange != exchange);
    }

    /// Something happened at one of our sockets.
    pub(super) fn happened<T>(&mut self, now: Duration, token: Token, forwarder: &mut Forwarder<T>) {
        if self.sockets.contains_key(&token.0) && !self.ready.contains(&token.0) {
            self.ready.push(token.0);
        }
        let Some(stream) = self.streams.get_mut(&token.0) else { return };
        let answer = match stream.talk(&mut self.buffer) {
            Ok(false) => return,
            Ok(true) => Ok(stream.answer.get(2..).unwrap_or_default()),
            Err(_) => Err(()),
        };
        forwarder.stream(now, stream.exchange, answer);
        self.streams.remove(&token.0);
    }

    /// Whether something waits to be read.
    pub(super) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Reads what came.
    pub(super) fn read<T>(&mut self, now: Duration, forwarder: &mut Forwarder<T>) {
        let Self { ready, sockets, buffer, .. } = self;
        ready.retain(|token| {
            let Some(socket) = sockets.get(token) else { return false };
            for _ in 0..READ_BUDGET {
                match socket.socket.recv_from(buffer) {
                    Ok((length, from)) => forwarder.datagram(now, from, &buffer[..length]),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                    // That nobody listens where an earlier question went: its deadline tells.
                    Err(_) => {}
                }
            }
            true
        });
    }

    /// Lets sockets go whose time is over.
    pub(super) fn tick(&mut self, now: Duration) {
        self.sockets.retain(|_, socket| now < socket.until + AFTERLIFE);
        for socket in self.sockets.values_mut().filter(|socket| socket.uses >= USES) {
            socket.until = socket.until.min(now);
        }
    }

    /// Whether [`Self::tick`] has anything to do, some time.
    pub(super) fn is_empty(&self) -> bool {
        self.sockets.is_empty()
    }
}

impl Stream {
    /// Says and hears what it can; whether the answer is whole.
    fn talk(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        while self.said < self.question.len() {
            match self.stream.write(&self.question[self.said..]) {
                Ok(said) => self.said += said,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // It is not connected yet, or the buffer is full.
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) => {
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(length) => self.answer.extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
            if let Some(length) = self.answer.first_chunk::<2>() {
                let whole = usize::from(u16::from_be_bytes(*length)) + 2;
                if self.answer.len() >= whole {
                    self.answer.truncate(whole);
                    return Ok(true);
                }
            }
        }
    }
}
