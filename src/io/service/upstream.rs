//! The sockets by which names are asked of resolvers elsewhere, in the daemon's own network namespace.
//!
//! An answer is believed if it comes from the resolver to the port that asked, so the port must be hard to guess (RFC 5452
//! §9): questions leave by one of several sockets, on ports of the kernel's random choice, and after some use or time a
//! socket gives way to another. It is listened to a little longer, for what it asked last; under load not even that long, so that
//! there are never more than [`MOST`].

use crate::names::forward::Forwarder;
use mio::net::{TcpStream, UdpSocket};
use mio::{Interest, Registry, Token};
use std::collections::{HashMap, VecDeque};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

/// Sockets of a family that questions leave by.
const SOCKETS: usize = 8;
/// Questions that leave by one socket, and for how long.
const USES: u32 = 256;
const LIFE: Duration = Duration::from_secs(60);
/// How long a socket is listened to after it gave way: longer than anybody waits for an answer.
const AFTERLIFE: Duration = Duration::from_secs(5);
/// Sockets in all. Those that gave way are then at least 16: what they asked last is 4,096 questions ago for the oldest, twice as
/// many as may wait.
const MOST: usize = 32;
/// TCP conversations with resolvers at once.
const STREAMS: usize = 64;
/// Datagrams read from one socket before something else gets its turn.
const READ_BUDGET: usize = 64;
/// The longest datagram of a resolver, and what a conversation reads at once.
const READ_BYTES: usize = 64 * 1024;
/// The first token of ours.
const FIRST: usize = 1;

struct Socket {
    token: usize,
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
    /// The oldest first.
    sockets: VecDeque<Socket>,
    streams: HashMap<usize, Stream>,
    next: usize,
    buffer: Box<[u8]>,
    /// Sockets that may have more to read.
    ready: Vec<usize>,
}

impl Upstream {
    pub(super) fn new(registry: Registry) -> Self {
        let buffer = vec![0; READ_BYTES].into_boxed_slice();
        Self { registry, sockets: VecDeque::new(), streams: HashMap::new(), next: FIRST, buffer, ready: Vec::new() }
    }

    /// Sends a question; returns the socket it left by, or nothing if there is no way there.
    pub(super) fn send(&mut self, now: Duration, to: SocketAddr, question: &[u8], random: u64) -> Option<usize> {
        let is_v4 = to.is_ipv4();
        let usable = |socket: &Socket| socket.is_v4 == is_v4 && now < socket.until;
        let chosen = random as usize % SOCKETS;
        let known = self.sockets.iter().enumerate().filter(|(_, socket)| usable(socket)).nth(chosen);
        // Each that is missing is made when it is its turn.
        let at = match known.map(|(at, _)| at).map_or_else(|| self.open(now, is_v4), Ok) {
            Ok(at) => at,
            Err(error) => {
                tracing::debug!("no socket to ask {to} by: {error}");
                return None;
            }
        };
        let socket = self.sockets.get_mut(at)?;
        socket.uses += 1;
        if socket.uses >= USES {
            socket.until = now;
        }
        match socket.socket.send_to(question, to) {
            Ok(_) => Some(socket.token),
            // The kernel has no room at the moment: as if it were lost on the way.
            Err(error) if error.kind() == ErrorKind::WouldBlock => Some(socket.token),
            Err(error) => {
                tracing::debug!("cannot ask {to}: {error}");
                None
            }
        }
    }

    /// Opens a socket; returns its place.
    fn open(&mut self, now: Duration, is_v4: bool) -> io::Result<usize> {
        if self.sockets.len() >= MOST {
            let oldest = self.sockets.iter().position(|socket| now >= socket.until).unwrap_or(0);
            self.sockets.remove(oldest);
        }
        let any: SocketAddr =
            if is_v4 { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
        let mut socket = UdpSocket::bind(any)?;
        let token = self.next_token();
        self.registry.register(&mut socket, Token(token), Interest::READABLE)?;
        self.sockets.push_back(Socket { token, socket, is_v4, uses: 0, until: now + LIFE });
        Ok(self.sockets.len() - 1)
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
        if self.sockets.iter().any(|socket| socket.token == token.0) && !self.ready.contains(&token.0) {
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
            let Some(socket) = sockets.iter().find(|socket| socket.token == *token) else { return false };
            for _ in 0..READ_BUDGET {
                match socket.socket.recv_from(buffer) {
                    Ok((length, from)) => forwarder.datagram(now, from, *token, &buffer[..length]),
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
        self.sockets.retain(|socket| now < socket.until + AFTERLIFE);
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::names::Transport;
    use crate::names::forward::Output;
    use mio::{Events, Poll};

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn there_are_few_sockets_however_much_is_asked() {
        let poll = Poll::new().unwrap();
        let mut upstream = Upstream::new(poll.registry().try_clone().unwrap());
        let resolver = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let to = resolver.local_addr().unwrap();
        let mut used = std::collections::BTreeSet::new();
        // Two seconds at 12,000 questions a second.
        for n in 0..24_000_u32 {
            let now = MS * (n / 12);
            used.insert(upstream.send(now, to, b"who?", u64::from(n)).unwrap());
            assert!(upstream.sockets.len() <= MOST, "{}", upstream.sockets.len());
            if n % 12_000 == 0 {
                upstream.tick(now);
            }
        }
        assert!(used.len() >= 24_000 / USES as usize, "{}", used.len());
        let last = MS * 2000;
        upstream.tick(last + AFTERLIFE);
        assert!(upstream.sockets.len() <= SOCKETS, "{}", upstream.sockets.len());
        upstream.tick(last + LIFE + AFTERLIFE);
        assert!(upstream.is_empty());
    }

    #[test]
    fn an_answer_is_taken_from_the_port_that_asked_and_from_no_other() {
        let mut poll = Poll::new().unwrap();
        let mut upstream = Upstream::new(poll.registry().try_clone().unwrap());
        let resolver = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let to = resolver.local_addr().unwrap();
        let mut forwarder: Forwarder<()> = Forwarder::new([1; 32]);
        forwarder.set_resolvers(vec![to]);
        let mut query = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        query.extend(b"\x07example\x03org\x00\x00\x01\x00\x01");
        // Another socket of ours, at which nothing is expected.
        upstream.send(MS, to, b"another question", 0).unwrap();
        forwarder.ask(MS, (), 1, Transport::Udp, &query);
        let Some(Output::Datagram { exchange, to, bytes }) = forwarder.poll_output() else { panic!() };
        let by = upstream.send(MS, to, &bytes, 1).unwrap();
        forwarder.sent(exchange, by);
        let mut buffer = [0; 512];
        let (_, other) = resolver.recv_from(&mut buffer).unwrap();
        let (length, asker) = resolver.recv_from(&mut buffer).unwrap();
        assert_ne!(other, asker);
        buffer[2..4].copy_from_slice(&[0x81, 0x83]);
        let mut events = Events::with_capacity(8);
        let mut say = |to| {
            resolver.send_to(&buffer[..length], to).unwrap();
            let before = forwarder.counters().foreign;
            loop {
                poll.poll(&mut events, Some(Duration::from_secs(10))).unwrap();
                assert!(!events.is_empty(), "it did not come");
                events.iter().for_each(|event| upstream.happened(MS, event.token(), &mut forwarder));
                upstream.read(MS, &mut forwarder);
                let answered = forwarder.poll_output().is_some();
                if answered || forwarder.counters().foreign > before {
                    return answered;
                }
            }
        };
        assert!(!say(other));
        assert!(say(asker));
    }
}
