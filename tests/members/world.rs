//! Hosts that run the real membership over a network of the imagination, in virtual time.
//!
//! The world is what control and tunnels are to a member: it makes the sessions that members ask for, carries their messages with
//! delay and loss, cuts and crashes. It counts what goes over the wire.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;
use weft::mesh::document::{Archive, Hash};
use weft::mesh::facts::{Attachment, Facts};
use weft::mesh::gossip::{Message, Part};
use weft::mesh::membership::{Membership, Output, Settings};
use weft::mesh::ring::{self, Chance};
use weft::trust::Policy;
use weft::trust::sign::Signer;
use weft::wire::ethernet::Mac;
use weft::wire::key::{PublicKey, Secret};

/// Bytes around each message on the wire: inner IPv4 and UDP, WireGuard, outer IPv4 and UDP, and something to spare.
pub(crate) const OVERHEAD: usize = 96;
/// A handshake's two messages.
const HANDSHAKE: usize = 148 + 92 + 2 * 28;
/// When a handshake is tried again.
const HANDSHAKE_AGAIN: Duration = Duration::from_secs(1);
/// A tunnel without an answer ends its session.
const SESSION_ENDS: Duration = Duration::from_secs(20);
/// A session that nobody wants is let go.
const IDLE_CHECK: Duration = Duration::from_secs(5);
/// 14 November 2023, as good as any.
const UNIX: Duration = Duration::from_secs(1_700_000_000);

pub(crate) struct Host {
    pub(crate) key: PublicKey,
    pub(crate) private: Secret,
    pub(crate) membership: Option<Membership>,
    pub(crate) facts: Facts,
    pub(crate) life: u64,
    /// How wrong its clock is, in seconds.
    pub(crate) clock: i64,
    pub(crate) group: u8,
    pub(crate) bytes: u64,
    pub(crate) warnings: Vec<String>,
    pub(crate) left: Vec<PublicKey>,
    pub(crate) ledgers: Vec<Vec<u8>>,
    /// Sends nothing of its own accord and what the test says.
    pub(crate) is_hostile: bool,
    pub(crate) inbox: Vec<(PublicKey, Vec<u8>)>,
    started: Duration,
    wake: Duration,
}

enum Event {
    Deliver {
        from: usize,
        to: usize,
        payload: Vec<u8>,
    },
    Wake(usize),
    /// Both ends of a pair get a session.
    Session(usize, usize),
    /// A pair that could not talk for long loses its session.
    Silence(usize, usize),
    Handshakes(usize),
    Idle,
}

pub(crate) struct World {
    pub(crate) now: Duration,
    pub(crate) hosts: Vec<Host>,
    pub(crate) places: BTreeMap<PublicKey, usize>,
    /// Per cent of messages.
    pub(crate) loss: usize,
    pub(crate) delay: Duration,
    pub(crate) jitter: Duration,
    pub(crate) archive: Archive,
    pub(crate) chance: Chance,
    pub(crate) sent: u64,
    /// Only heartbeats arrive.
    is_mute: bool,
    sessions: BTreeSet<(usize, usize)>,
    queue: BinaryHeap<Reverse<(Duration, u64)>>,
    events: BTreeMap<u64, Event>,
    counter: u64,
    /// Heads that were verified by the test itself.
    signed: BTreeSet<Hash>,
}

impl World {
    pub(crate) fn new(count: usize, attachments: usize, seed: u64) -> Self {
        let mut chance = Chance(seed);
        let hosts: Vec<Host> = (0..count).map(|n| host(n, attachments, &mut chance)).collect();
        let places = hosts.iter().enumerate().map(|(n, host)| (host.key, n)).collect();
        let mut world = Self {
            now: Duration::ZERO,
            hosts,
            places,
            loss: 0,
            delay: Duration::from_millis(5),
            jitter: Duration::from_millis(20),
            archive: Archive::default(),
            chance,
            sent: 0,
            is_mute: false,
            sessions: BTreeSet::new(),
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            counter: 0,
            signed: BTreeSet::new(),
        };
        world.at(IDLE_CHECK, Event::Idle);
        world
    }

    /// Starts a host that knows these others.
    pub(crate) fn start(&mut self, n: usize, contacts: &[usize]) {
        let mut policy = Policy::default();
        policy.pin(self.hosts.iter().map(|host| host.key));
        let host = &mut self.hosts[n];
        host.life += 1;
        host.started = self.now;
        let unix = (UNIX + self.now).as_secs() as i64 + host.clock;
        let settings = Settings {
            signer: Signer::new(&host.private),
            incarnation: (n as u64) << 32 | host.life,
            seed: self.chance.next(),
            unix: Duration::from_secs(unix as u64),
            policy,
            archive: self.archive.clone(),
        };
        let mut membership = Membership::new(Duration::ZERO, settings);
        membership.set_facts(Duration::ZERO, host.facts.clone());
        host.membership = Some(membership);
        let contacts = contacts.iter().map(|&n| self.hosts[n].key).collect::<Vec<_>>();
        self.with(n, |membership, now| membership.set_contacts(now, contacts));
        self.at(self.now, Event::Handshakes(n));
    }

    /// Starts all hosts as they are long after they met: with sessions as the ring wants them, and with everybody's document.
    // Only the bench has so many.
    #[allow(dead_code)]
    pub(crate) fn start_acquainted(&mut self) {
        let count = self.hosts.len();
        let keys: Vec<PublicKey> = self.places.keys().copied().collect();
        (0..count).for_each(|n| self.start(n, &[]));
        let near: Vec<BTreeSet<PublicKey>> = (0..count)
            .map(|n| {
                let others: Vec<PublicKey> = keys.iter().filter(|key| **key != self.hosts[n].key).copied().collect();
                ring::neighbours(&self.hosts[n].key, &others)
            })
            .collect();
        let pairs = near.iter().enumerate().flat_map(|(n, near)| near.iter().map(move |key| (n, key)));
        let pairs: BTreeSet<_> = pairs.map(|(n, key)| pair(n, self.places[key])).collect();
        pairs.iter().for_each(|&(a, b)| self.at(self.now, Event::Session(a, b)));
        // Links come up, are signed for, and what was pushed over them is given up. Their round trips stay the same for now, so that
        // nobody tells of them again.
        let jitter = std::mem::take(&mut self.jitter);
        self.is_mute = true;
        self.run(Duration::from_secs(10));
        let documents: Vec<_> =
            self.hosts.iter().filter_map(|host| host.membership.as_ref()?.own_document().cloned()).collect();
        for n in 0..count {
            let is_near = |other: &usize| pairs.contains(&pair(n, *other));
            let (near, far): (Vec<usize>, Vec<usize>) = (0..count).filter(|other| *other != n).partition(is_near);
            // What is known of those that are no neighbours is nothing to push on; what one tells is bounded.
            for some in far.chunks(400) {
                let teller = self.hosts[some[0]].key;
                let near = if some.contains(&far[far.len() - 1]) { &near[..] } else { &[] };
                self.with(n, |membership, now| {
                    membership.link_up(now, teller);
                    for document in some.iter().chain(near).map(|&other| &documents[other]) {
                        let pages = document.pages.iter().map(|page| Part::Page(page));
                        let parts = std::iter::once(Part::Head(&document.head.bytes)).chain(pages).collect();
                        membership.input(now, teller, &Message::Documents { is_pushed: false, parts }.write());
                    }
                    membership.link_down(now, teller);
                });
            }
        }
        self.is_mute = false;
        self.jitter = jitter;
    }

    /// A host dies without a word.
    pub(crate) fn crash(&mut self, n: usize) {
        self.hosts[n].membership = None;
        self.silence(n);
    }

    /// Puts a host on one side of a partition.
    pub(crate) fn cut(&mut self, n: usize, group: u8) {
        self.hosts[n].group = group;
        self.silence(n);
    }

    fn silence(&mut self, n: usize) {
        let pairs: Vec<_> = self.sessions.iter().filter(|(a, b)| *a == n || *b == n).copied().collect();
        for (a, b) in pairs {
            if self.hosts[n].membership.is_none() {
                // The other end keeps its session for now; a new life of this one has none.
                self.at(self.now + SESSION_ENDS, Event::Silence(a, b));
            } else if !self.can_talk(a, b) {
                self.at(self.now + SESSION_ENDS, Event::Silence(a, b));
            }
        }
    }

    pub(crate) fn can_talk(&self, a: usize, b: usize) -> bool {
        let (a, b) = (&self.hosts[a], &self.hosts[b]);
        a.membership.is_some() && b.membership.is_some() && a.group == b.group
    }

    /// Changes what a host says of itself.
    pub(crate) fn change(&mut self, n: usize, change: impl FnOnce(&mut Facts)) {
        change(&mut self.hosts[n].facts);
        let facts = self.hosts[n].facts.clone();
        self.with(n, |membership, now| membership.set_facts(now, facts));
    }

    /// Does something with a membership, and what follows from it.
    pub(crate) fn with(&mut self, n: usize, act: impl FnOnce(&mut Membership, Duration)) {
        let host = &mut self.hosts[n];
        let now = self.now - host.started;
        let Some(membership) = &mut host.membership else { return };
        act(membership, now);
        let mut outputs = Vec::new();
        while let Some(output) = membership.poll_output() {
            outputs.push(output);
        }
        let wake = host.started + membership.next_deadline(now).max(now);
        if wake < host.wake || host.wake <= self.now {
            host.wake = wake;
            self.at(wake, Event::Wake(n));
        }
        for output in outputs {
            match output {
                Output::Send { to, payload } => self.send(n, to, payload),
                Output::Neighbours => self.at(self.now, Event::Handshakes(n)),
                Output::Warning(warning) => self.hosts[n].warnings.push(warning),
                Output::Left(key) => self.hosts[n].left.push(key),
                Output::Ledger(bytes) => self.hosts[n].ledgers.push(bytes),
                Output::Changed(_) | Output::Answered(_) => {}
            }
        }
    }

    /// Sends as host `n`, whatever it is.
    pub(crate) fn send(&mut self, n: usize, to: PublicKey, payload: Vec<u8>) {
        let Some(&to) = self.places.get(&to) else { return };
        assert!(payload.len() <= 9216 - 28, "a message of {} bytes does not fit a packet", payload.len());
        self.sent += 1;
        self.hosts[n].bytes += (payload.len() + OVERHEAD) as u64;
        if !self.sessions.contains(&pair(n, to)) || !self.can_talk(n, to) || self.chance.below(100) < self.loss {
            return;
        }
        if self.is_mute && !matches!(Message::parse(&payload), Ok(Message::Heartbeat(_))) {
            return;
        }
        let delay = self.delay + self.jitter * self.chance.below(1000) as u32 / 1000;
        self.at(self.now + delay, Event::Deliver { from: n, to, payload });
    }

    /// Runs for some time.
    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.step(end) {}
        self.now = end;
    }

    /// Runs until something holds; returns how long that took.
    pub(crate) fn run_until(&mut self, most: Duration, mut holds: impl FnMut(&mut Self) -> bool) -> Option<Duration> {
        let began = self.now;
        while self.now < began + most {
            self.run(Duration::from_millis(50));
            if holds(self) {
                return Some(self.now - began);
            }
        }
        None
    }

    fn step(&mut self, end: Duration) -> bool {
        let Some(Reverse((at, number))) = self.queue.peek().copied() else { return false };
        if at > end {
            return false;
        }
        self.queue.pop();
        self.now = self.now.max(at);
        match self.events.remove(&number) {
            Some(Event::Deliver { from, to, payload }) => {
                let key = self.hosts[from].key;
                if self.hosts[to].is_hostile {
                    self.hosts[to].inbox.push((key, payload.clone()));
                }
                if self.can_talk(from, to) {
                    self.with(to, |membership, now| membership.input(now, key, &payload));
                }
            }
            Some(Event::Wake(n)) => {
                if self.hosts[n].wake <= self.now {
                    self.with(n, Membership::tick);
                }
            }
            Some(Event::Session(a, b)) if self.can_talk(a, b) => {
                self.sessions.insert(pair(a, b));
                for (a, b) in [(a, b), (b, a)] {
                    let key = self.hosts[b].key;
                    self.with(a, |membership, now| membership.link_up(now, key));
                }
            }
            Some(Event::Silence(a, b)) if !self.can_talk(a, b) => self.end_session(a, b),
            Some(Event::Handshakes(n)) => self.handshakes(n),
            Some(Event::Idle) => {
                self.at(self.now + IDLE_CHECK, Event::Idle);
                for (a, b) in self.sessions.clone() {
                    let is_wanted = |a: usize, b: usize| {
                        let membership = self.hosts[a].membership.as_ref();
                        membership.is_some_and(|membership| membership.neighbours().contains(&self.hosts[b].key))
                    };
                    if self.can_talk(a, b) && !is_wanted(a, b) && !is_wanted(b, a) {
                        self.end_session(a, b);
                    }
                }
            }
            Some(Event::Session(..) | Event::Silence(..)) | None => {}
        }
        true
    }

    fn end_session(&mut self, a: usize, b: usize) {
        self.sessions.remove(&pair(a, b));
        for (a, b) in [(a, b), (b, a)] {
            let key = self.hosts[b].key;
            self.with(a, |membership, now| membership.link_down(now, key));
        }
    }

    /// What control does for its neighbours: has a session with each.
    fn handshakes(&mut self, n: usize) {
        let Some(membership) = &self.hosts[n].membership else { return };
        let places = membership.neighbours().iter().filter_map(|key| self.places.get(key)).copied();
        let without: Vec<usize> = places.filter(|&other| !self.has_session(n, other)).collect();
        for &other in &without {
            self.hosts[n].bytes += HANDSHAKE as u64;
            let is_lost = self.chance.below(100) < self.loss || self.chance.below(100) < self.loss;
            if self.can_talk(n, other) && !is_lost {
                let delay = self.delay * 2 + self.jitter;
                self.at(self.now + delay, Event::Session(n, other));
            }
        }
        if !without.is_empty() {
            self.at(self.now + HANDSHAKE_AGAIN, Event::Handshakes(n));
        }
    }

    /// Whether there is a session, and this life of `a` knows of it.
    fn has_session(&self, a: usize, b: usize) -> bool {
        let knows = |a: usize, b: usize| {
            self.hosts[a].membership.as_ref().is_some_and(|membership| membership.has_session(&self.hosts[b].key))
        };
        self.sessions.contains(&pair(a, b)) && knows(a, b)
    }

    pub(crate) fn sessions_of(&self, n: usize) -> usize {
        self.sessions.iter().filter(|(a, b)| *a == n || *b == n).count()
    }

    fn at(&mut self, at: Duration, event: Event) {
        self.counter += 1;
        self.events.insert(self.counter, event);
        self.queue.push(Reverse((at, self.counter)));
    }

    /// Why the members do not agree yet, if they don't: those that can talk see each other, the others not, and have the same of all.
    pub(crate) fn disagreement(&self) -> Option<String> {
        for (n, host) in self.hosts.iter().enumerate() {
            let Some(membership) = host.membership.as_ref().filter(|_| !host.is_hostile) else { continue };
            for (other, there) in self.hosts.iter().enumerate().filter(|(other, _)| *other != n) {
                let view = membership.member(&there.key);
                let is_alive = view.is_some_and(|view| view.alive);
                if is_alive != self.can_talk(n, other) {
                    return Some(format!("host {n} says alive = {is_alive} of {other}"));
                }
                let mine = there
                    .membership
                    .as_ref()
                    .filter(|_| is_alive && !there.is_hostile)
                    .map(|there| there.own_document());
                if let (Some(view), Some(mine)) = (view, mine)
                    && mine.is_none_or(|mine| mine.facts != *view.facts)
                {
                    return Some(format!("host {n} has other facts of {other} than {other} itself"));
                }
                if is_alive && view.and_then(|view| view.route).is_none() {
                    return Some(format!("host {n} has no route to {other}"));
                }
            }
        }
        None
    }

    /// Runs until all agree.
    pub(crate) fn agree_within(&mut self, most: Duration, when: &str) -> Duration {
        match self.run_until(most, |world| world.disagreement().is_none()) {
            Some(time) => time,
            None => panic!("{when}: {}", self.disagreement().unwrap_or_default()),
        }
    }

    /// Nothing was accepted that its owner did not sign.
    pub(crate) fn check_signatures(&mut self) {
        for membership in self.hosts.iter().filter_map(|host| host.membership.as_ref()) {
            for document in membership.replicas() {
                if self.signed.insert(document.head.hash) {
                    assert!(document.head.verify(), "a document of {} that it did not sign", document.head.owner);
                }
            }
        }
    }

    /// Bytes that all hosts sent so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.hosts.iter().map(|host| host.bytes).sum()
    }
}

fn pair(a: usize, b: usize) -> (usize, usize) {
    (a.min(b), a.max(b))
}

fn host(n: usize, attachments: usize, chance: &mut Chance) -> Host {
    let mut random = [0; 32];
    random.iter_mut().for_each(|byte| *byte = chance.next() as u8);
    let private = Secret::private(random);
    let key = private.public_key();
    let mut facts = Facts {
        name: format!("host-{n}"),
        tunnel_address: Ipv4Addr::from(0x6440_0000 + n as u32 + 1),
        program: "weft 1.0".to_owned(),
        networks: vec![7],
        ..Facts::default()
    };
    facts.attachments = (0..attachments).map(|at| attachment(n, at)).collect();
    Host {
        key,
        private,
        membership: None,
        facts,
        life: 0,
        clock: 0,
        group: 0,
        bytes: 0,
        warnings: Vec::new(),
        left: Vec::new(),
        ledgers: Vec::new(),
        is_hostile: false,
        inbox: Vec::new(),
        started: Duration::ZERO,
        wake: Duration::ZERO,
    }
}

/// The container `at` of host `n`.
pub(crate) fn attachment(n: usize, at: usize) -> Attachment {
    let number = (n as u32) << 10 | at as u32;
    let [_, a, b, c] = number.to_be_bytes();
    let address = IpAddr::from([10, a, b, c]);
    let name = format!("web-{n}-{at}");
    Attachment { vni: 7, mac: Mac([2, 0, 0, a, b, c]), addresses: vec![address], sequence: 0, name }
}
