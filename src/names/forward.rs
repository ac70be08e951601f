//! Questions for names that are not ours, asked of resolvers elsewhere.
//!
//! A [`Forwarder`] is told what is asked and what arrives, and says what to send and whom to answer. It is polled: after each
//! call, take [`Forwarder::poll_output`] until there is none; call [`Forwarder::tick`] at [`Forwarder::next_deadline`].
//!
//! ```text
//!   ask ─► cache ─► being asked already? ─► Datagram to the first resolver that is not known to be silent
//!                                              │ no answer in 1.5 s, or a failure: to the next; three times in all
//!                                              │ truncated: Stream to the same
//!                                              ▼
//!                                   Answer to everybody who asked meanwhile
//! ```
//!
//! Three tries end before the 5 seconds after which a C library asks again. A resolver that was silent comes last for a while, so
//! that only the first to ask wait for it. Who asks what is asked already joins in: one question is never asked twice at a time, which is
//! also what makes guessing the number of a question as hard as it can be (RFC 5452 §5).

mod cache;
mod relay;
#[cfg(test)]
mod tests;

use super::Transport;
use super::query::{Asker, Query, error};
use blake2::digest::{Digest, consts::U8};
use cache::Cache;
use domain::base::Message;
use domain::base::iana::OptRcode;
use relay::{Key, Response};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

/// How long one resolver is waited for.
pub const PATIENCE: Duration = Duration::from_millis(1500);
/// How often somebody is asked.
pub const TRIES: u32 = 3;
/// Resolvers that are asked: as many as there are tries, as in resolv.conf(5).
pub const MAX_RESOLVERS: usize = 3;
/// How long one that was silent comes last.
pub const AVOIDED: Duration = Duration::from_secs(30);
/// Questions of one network that wait for an answer: with resolvers that take 20 ms, 12,000 a second.
pub const MAX_WAITING: usize = 256;
/// Those of all networks together.
pub const MAX_WAITING_IN_ALL: usize = 2048;

/// Streams at a time. Few answers are too long for a datagram.
pub const MAX_STREAMS: usize = 64;

/// What has to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output<T> {
    /// Send this datagram, from a port that is hard to guess, and tell [`Forwarder::sent`] by which, or [`Forwarder::unsent`]; what
    /// comes back goes to [`Forwarder::datagram`].
    Datagram {
        /// Which question.
        exchange: u64,
        /// The resolver.
        to: SocketAddr,
        /// The message.
        bytes: Vec<u8>,
    },
    /// Connect to this resolver by TCP and send this message behind its length; what comes back, or that nothing will, goes to
    /// [`Forwarder::stream`].
    Stream {
        /// Which conversation.
        exchange: u64,
        /// The resolver.
        to: SocketAddr,
        /// The message, without its length.
        bytes: Vec<u8>,
    },
    /// A conversation by TCP is over: close it.
    Close {
        /// Which.
        exchange: u64,
    },
    /// Give this answer to whoever asked with this token.
    Answer {
        /// As it was given to [`Forwarder::ask`].
        token: T,
        /// The message.
        bytes: Vec<u8>,
    },
}

/// What became of questions since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Questions that came.
    pub asked: u64,
    /// Those answered out of the cache.
    pub cached: u64,
    /// Those that no resolver answered.
    pub failed: u64,
    /// Those that came while too many waited.
    pub crowded: u64,
    /// Tries that a resolver let pass.
    pub silent: u64,
    /// Messages that answer nothing that was asked.
    pub foreign: u64,
}

impl Counters {
    /// With their names.
    pub fn named(&self) -> BTreeMap<String, u64> {
        let all = [
            ("asked", self.asked),
            ("cached", self.cached),
            ("failed", self.failed),
            ("crowded", self.crowded),
            ("silent", self.silent),
            ("foreign", self.foreign),
        ];
        all.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
    }
}

/// Somebody who waits.
#[derive(Debug)]
struct Waiter<T> {
    token: T,
    vni: u32,
    asker: Asker,
    query: Box<[u8]>,
}

/// A resolver that was asked by datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Try {
    to: SocketAddr,
    /// The socket that the question left by, if it did.
    by: Option<usize>,
}

/// A question that is being asked.
#[derive(Debug)]
struct Exchange<T> {
    key: Key,
    id: u16,
    /// What resolvers are sent.
    question: Vec<u8>,
    waiters: Vec<Waiter<T>>,
    /// Whom was asked, the last one being asked now.
    asked: Vec<Try>,
    by_stream: bool,
    deadline: Duration,
    /// The best that was heard, though no answer: truncated, or a failure.
    heard: Option<Vec<u8>>,
}

#[derive(Debug)]
struct Resolver {
    address: SocketAddr,
    avoided_until: Duration,
}

/// Asks resolvers. `T` names an asker: an address and port, a stream.
#[derive(Debug)]
pub struct Forwarder<T> {
    resolvers: Vec<Resolver>,
    exchanges: HashMap<u64, Exchange<T>>,
    by_key: HashMap<Key, u64>,
    by_id: HashMap<u16, u64>,
    deadlines: BTreeSet<(Duration, u64)>,
    /// How many wait, by network.
    waiting: HashMap<u32, usize>,
    waiting_in_all: usize,
    streams: usize,
    cache: Cache,
    outputs: VecDeque<Output<T>>,
    seed: [u8; 32],
    count: u64,
    counters: Counters,
}

impl<T> Forwarder<T> {
    /// One that asks nobody yet. `seed` is secret and random: what is sent out is hard to guess by it.
    pub fn new(seed: [u8; 32]) -> Self {
        Self {
            resolvers: Vec::new(),
            exchanges: HashMap::new(),
            by_key: HashMap::new(),
            by_id: HashMap::new(),
            deadlines: BTreeSet::new(),
            waiting: HashMap::new(),
            waiting_in_all: 0,
            streams: 0,
            cache: Cache::default(),
            outputs: VecDeque::new(),
            seed,
            count: 0,
            counters: Counters::default(),
        }
    }

    /// Asks these from now on, the first [`MAX_RESOLVERS`] of them, in this order. Others may know other things: what was kept is forgotten.
    pub fn set_resolvers(&mut self, mut resolvers: Vec<SocketAddr>) {
        resolvers.truncate(MAX_RESOLVERS);
        if !self.resolvers.iter().map(|resolver| resolver.address).eq(resolvers.iter().copied()) {
            let of = |address| Resolver { address, avoided_until: Duration::ZERO };
            self.resolvers = resolvers.into_iter().map(of).collect();
            self.cache.clear();
        }
    }

    /// What became of questions.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Somebody in a network asks: a message for which [`super::answer()`] said [`super::Verdict::Forward`].
    pub fn ask(&mut self, now: Duration, token: T, vni: u32, transport: Transport, query: &[u8]) {
        let Ok(read) = Query::read(query, transport) else { return };
        self.counters.asked += 1;
        let (key, asker) = (Key::of(&read), read.asker);
        if let Some((bytes, age)) = self.cache.get(now, &key)
            && let Some(bytes) = relay::answer(read.message, asker, bytes, age)
        {
            self.counters.cached += 1;
            self.outputs.push_back(Output::Answer { token, bytes });
            return;
        }
        let here = self.waiting.get(&vni).copied().unwrap_or_default();
        if here >= MAX_WAITING || self.waiting_in_all >= MAX_WAITING_IN_ALL {
            self.counters.crowded += 1;
            return self.fail(token, asker, query);
        }
        let waiter = Waiter { token, vni, asker, query: query.into() };
        if let Some(exchange) = self.by_key.get(&key).and_then(|number| self.exchanges.get_mut(number)) {
            exchange.waiters.push(waiter);
        } else {
            let id = self.free_id();
            let question = relay::question(&read, id).filter(|_| !self.resolvers.is_empty());
            let Some(question) = question else {
                self.counters.failed += 1;
                return self.fail(waiter.token, asker, query);
            };
            self.begin(
                now,
                Exchange {
                    key,
                    id,
                    question,
                    waiters: vec![waiter],
                    asked: Vec::new(),
                    by_stream: false,
                    deadline: now,
                    heard: None,
                },
            );
        }
        *self.waiting.entry(vni).or_default() += 1;
        self.waiting_in_all += 1;
    }

    /// The question that was to be sent last has left by this socket.
    pub fn sent(&mut self, exchange: u64, by: usize) {
        if let Some(last) = self.exchanges.get_mut(&exchange).and_then(|exchange| exchange.asked.last_mut()) {
            last.by = Some(by);
        }
    }

    /// The question that was to be sent last could not be: there is no way to its resolver. Another may be reachable.
    pub fn unsent(&mut self, now: Duration, exchange: u64) {
        let Some(asked) = self.exchanges.get(&exchange).and_then(|exchange| exchange.asked.last()) else { return };
        avoid(&mut self.resolvers, asked.to, now);
        self.failed(now, exchange, None);
    }

    /// A datagram arrived on this socket. It is an answer only if the question left by the same one (RFC 5452 §9.1).
    pub fn datagram(&mut self, now: Duration, from: SocketAddr, by: usize, bytes: &[u8]) {
        let id = bytes.first_chunk().map(|id| u16::from_be_bytes(*id));
        let number = id.and_then(|id| self.by_id.get(&id).copied());
        let heard = Try { to: from, by: Some(by) };
        let is_asked = |exchange: &&Exchange<T>| exchange.asked.contains(&heard) && !exchange.by_stream;
        let known = number.and_then(|number| self.exchanges.get(&number).filter(is_asked).map(|e| (number, e)));
        let Some((number, exchange)) = known else {
            self.counters.foreign += 1;
            return;
        };
        match relay::read(bytes, &exchange.question) {
            Response::Foreign => self.counters.foreign += 1,
            Response::Final(lasts) => self.finish(now, number, bytes.to_vec(), lasts),
            Response::Truncated => self.go_to_stream(now, number, from, bytes),
            // What somebody else says who was asked later is waited for.
            Response::Failure if exchange.asked.last() == Some(&heard) => self.failed(now, number, Some(bytes)),
            Response::Failure => {}
        }
    }

    /// A conversation by TCP brought a message, without its length; or an error, or its end before that.
    pub fn stream(&mut self, now: Duration, exchange: u64, bytes: Result<&[u8], ()>) {
        let Some(known) = self.exchanges.get_mut(&exchange).filter(|known| known.by_stream) else { return };
        known.by_stream = false;
        self.streams -= 1;
        self.outputs.push_back(Output::Close { exchange });
        match bytes.map(|bytes| (bytes, relay::read(bytes, &known.question))) {
            Ok((bytes, Response::Final(lasts))) => self.finish(now, exchange, bytes.to_vec(), lasts),
            Ok((bytes, Response::Failure)) => self.over_stream(now, exchange, Some(bytes)),
            // Truncated it must not be in a stream.
            Ok((_, Response::Foreign | Response::Truncated)) | Err(()) => self.over_stream(now, exchange, None),
        }
    }

    /// Time passed.
    pub fn tick(&mut self, now: Duration) {
        while let Some(&(deadline, number)) = self.deadlines.first().filter(|(deadline, _)| *deadline <= now) {
            self.deadlines.remove(&(deadline, number));
            let Some(exchange) = self.exchanges.get_mut(&number) else { continue };
            self.counters.silent += 1;
            if std::mem::take(&mut exchange.by_stream) {
                self.streams -= 1;
                self.outputs.push_back(Output::Close { exchange: number });
                self.over_stream(now, number, None);
                continue;
            }
            if let Some(silent) = exchange.asked.last() {
                avoid(&mut self.resolvers, silent.to, now);
            }
            self.try_next(now, number);
        }
    }

    /// When [`Forwarder::tick`] has something to do.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output<T>> {
        self.outputs.pop_front()
    }

    fn begin(&mut self, now: Duration, exchange: Exchange<T>) {
        self.count += 1;
        let number = self.count;
        self.by_key.insert(exchange.key.clone(), number);
        self.by_id.insert(exchange.id, number);
        self.exchanges.insert(number, exchange);
        self.try_next(now, number);
    }

    /// Asks whom it is the turn of, or gives up.
    fn try_next(&mut self, now: Duration, number: u64) {
        let Some(exchange) = self.exchanges.get_mut(&number) else { return };
        let times = |address| exchange.asked.iter().filter(|asked| asked.to == address).count();
        let order = |resolver: &&Resolver| (times(resolver.address), resolver.avoided_until > now);
        // Of equals the first.
        let next = self.resolvers.iter().min_by_key(order).map(|resolver| resolver.address);
        let tries = exchange.asked.len();
        let Some(to) = next.filter(|_| tries < TRIES as usize) else { return self.give_up(number) };
        exchange.asked.push(Try { to, by: None });
        let bytes = exchange.question.clone();
        self.set_deadline(number, now + PATIENCE);
        self.outputs.push_back(Output::Datagram { exchange: number, to, bytes });
    }

    /// A resolver could not answer. Another may, if there is one that was not asked; asking the same again is of no use.
    fn failed(&mut self, now: Duration, number: u64, heard: Option<&[u8]>) {
        let Some(exchange) = self.exchanges.get_mut(&number) else { return };
        if let Some(bytes) = heard.filter(|_| exchange.heard.is_none()) {
            exchange.heard = Some(bytes.to_vec());
        }
        let is_left =
            self.resolvers.iter().any(|resolver| exchange.asked.iter().all(|asked| asked.to != resolver.address));
        if is_left { self.try_next(now, number) } else { self.give_up(number) }
    }

    fn go_to_stream(&mut self, now: Duration, number: u64, to: SocketAddr, truncated: &[u8]) {
        let Some(exchange) = self.exchanges.get_mut(&number) else { return };
        exchange.heard = Some(truncated.to_vec());
        if self.streams >= MAX_STREAMS {
            return self.over_stream(now, number, None);
        }
        self.streams += 1;
        exchange.by_stream = true;
        let bytes = exchange.question.clone();
        self.set_deadline(number, now + 2 * PATIENCE);
        self.outputs.push_back(Output::Stream { exchange: number, to, bytes });
    }

    /// A stream brought nothing of use. What was truncated is still better than nothing.
    fn over_stream(&mut self, now: Duration, number: u64, heard: Option<&[u8]>) {
        let Some(exchange) = self.exchanges.get(&number) else { return };
        if exchange.waiters.iter().all(|waiter| waiter.asker.transport == Transport::Udp) {
            self.give_up(number);
        } else {
            self.failed(now, number, heard);
        }
    }

    fn set_deadline(&mut self, number: u64, deadline: Duration) {
        let Some(exchange) = self.exchanges.get_mut(&number) else { return };
        self.deadlines.remove(&(exchange.deadline, number));
        exchange.deadline = deadline;
        self.deadlines.insert((deadline, number));
    }

    fn finish(&mut self, now: Duration, number: u64, bytes: Vec<u8>, lasts: Duration) {
        let Some(exchange) = self.close(number) else { return };
        for waiter in exchange.waiters {
            self.give(waiter, Some(&bytes));
        }
        self.cache.put(now, exchange.key, bytes, lasts);
    }

    /// Nobody knows: everybody gets the best that was heard.
    fn give_up(&mut self, number: u64) {
        let Some(exchange) = self.close(number) else { return };
        for waiter in exchange.waiters {
            self.counters.failed += 1;
            self.give(waiter, exchange.heard.as_deref());
        }
    }

    fn close(&mut self, number: u64) -> Option<Exchange<T>> {
        let exchange = self.exchanges.remove(&number)?;
        self.by_key.remove(&exchange.key);
        self.by_id.remove(&exchange.id);
        self.deadlines.remove(&(exchange.deadline, number));
        for waiter in &exchange.waiters {
            self.waiting_in_all -= 1;
            if let Some(count) = self.waiting.get_mut(&waiter.vni) {
                *count -= 1;
                if *count == 0 {
                    self.waiting.remove(&waiter.vni);
                }
            }
        }
        Some(exchange)
    }

    fn give(&mut self, waiter: Waiter<T>, bytes: Option<&[u8]>) {
        // A stream has room for everything.
        let in_full = |bytes: &&[u8]| waiter.asker.transport == Transport::Udp || !relay::is_truncated(bytes);
        let (query, bytes) = (Message::from_slice(&waiter.query).ok(), bytes.filter(in_full));
        let answer =
            query.zip(bytes).and_then(|(query, bytes)| relay::answer(query, waiter.asker, bytes, Duration::ZERO));
        match answer {
            Some(bytes) => self.outputs.push_back(Output::Answer { token: waiter.token, bytes }),
            None => self.fail(waiter.token, waiter.asker, &waiter.query),
        }
    }

    fn fail(&mut self, token: T, asker: Asker, query: &[u8]) {
        let mut bytes = Vec::new();
        if let Ok(query) = Message::from_slice(query) {
            error(query, asker, OptRcode::SERVFAIL, &mut bytes);
        }
        self.outputs.push_back(Output::Answer { token, bytes });
    }

    /// A number that no question has, and that nobody can guess.
    fn free_id(&mut self) -> u16 {
        loop {
            self.count += 1;
            let mut hash = blake2::Blake2s::<U8>::new();
            hash.update(self.seed);
            hash.update(self.count.to_be_bytes());
            let digest = hash.finalize();
            let id = u16::from_be_bytes([digest[0], digest[1]]);
            // There are far fewer questions than numbers.
            if !self.by_id.contains_key(&id) {
                return id;
            }
        }
    }
}

/// A resolver comes last for a while.
fn avoid(resolvers: &mut [Resolver], address: SocketAddr, now: Duration) {
    for resolver in resolvers.iter_mut().filter(|resolver| resolver.address == address) {
        resolver.avoided_until = now + AVOIDED;
    }
}
