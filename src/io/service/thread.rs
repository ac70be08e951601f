//! The thread that answers for service addresses.

use super::WAKE;
use super::packet::Asker;
use super::queue::{Asked, Incoming};
use super::resolvers::HostResolvers;
use super::stack::{Heard, Outcome, Stack};
use super::upstream::Upstream;
use crate::io::outbox::Outbox;
use crate::names::forward::{Counters, Forwarder, Output};
use crate::names::{Directory, Effort, Settings, Transport, Verdict, answer};
use crate::switch::Switch;
use crate::switch::counters::Drop;
use mio::{Events, Poll};
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Frames answered before sockets and timers get their turn.
const BUDGET: usize = 256;
/// How often the host's resolvers are looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Who waits for an answer of a resolver elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Waiting {
    Datagram(Asker),
    Connection(Asker, u64),
}

pub(super) struct Thread {
    switch: Arc<Switch>,
    outbox: Outbox,
    directory: Arc<Directory>,
    stop: Arc<AtomicBool>,
    poll: Poll,
    incoming: Incoming,
    started: Instant,
    stack: Stack,
    forwarder: Forwarder<Waiting>,
    upstream: Upstream,
    host_resolvers: HostResolvers,
    /// What the directory was told of what became of questions.
    told: Counters,
    /// The settings by which resolvers were chosen.
    settings: Option<Arc<Settings>>,
    next_look: Duration,
    random: u64,
    /// Where answers and frames are made.
    answer: Vec<u8>,
    frame: Vec<u8>,
}

impl Thread {
    #[expect(clippy::too_many_arguments, reason = "the parts of the thread")]
    pub(super) fn new(
        switch: Arc<Switch>,
        outbox: Outbox,
        directory: Arc<Directory>,
        stop: Arc<AtomicBool>,
        poll: Poll,
        incoming: Incoming,
        host_resolvers: HostResolvers,
        seed: [u8; 32],
    ) -> std::io::Result<Self> {
        let random = seed.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        Ok(Self {
            upstream: Upstream::new(poll.registry().try_clone()?),
            switch,
            outbox,
            directory,
            stop,
            poll,
            incoming,
            started: Instant::now(),
            stack: Stack::new(Duration::ZERO, random),
            forwarder: Forwarder::new(seed),
            host_resolvers,
            told: Counters::default(),
            settings: None,
            next_look: Duration::ZERO,
            random,
            answer: Vec::new(),
            frame: Vec::new(),
        })
    }

    pub(super) fn run(mut self) {
        let mut events = Events::with_capacity(64);
        while !self.stop.load(Relaxed) {
            let patience = self.patience();
            if let Err(error) = self.poll.poll(&mut events, patience)
                && error.kind() != ErrorKind::Interrupted
            {
                // Only a closed or foreign descriptor makes epoll fail: a bug of ours, not the world's.
                panic!("waiting for questions failed: {error}");
            }
            self.incoming.answer_bell();
            self.outbox.refresh();
            let now = self.started.elapsed();
            // Before any question: the first one after a start, a reload or a quiet time is asked of the right ones too.
            self.look(now);
            for event in events.iter().filter(|event| event.token() != WAKE) {
                self.upstream.happened(now, event.token(), &mut self.forwarder);
            }
            self.upstream.read(now, &mut self.forwarder);
            for _ in 0..BUDGET {
                let Some(asked) = self.incoming.take() else { break };
                self.asked(now, &asked);
            }
            self.stack.tick(now);
            self.forwarder.tick(now);
            self.settle(now);
            let counters = self.forwarder.counters();
            if counters != self.told {
                self.told = counters;
                self.directory.set_forwarded(counters);
            }
        }
    }

    /// How long nothing needs to happen.
    fn patience(&mut self) -> Option<Duration> {
        if !self.incoming.is_empty() || self.upstream.is_ready() {
            return Some(Duration::ZERO);
        }
        let now = self.started.elapsed();
        let timers = [self.stack.next_deadline(now), self.forwarder.next_deadline()];
        let timer = timers.into_iter().flatten().min();
        // Nobody waits for a look: the next question may.
        let look = (!self.upstream.is_empty()).then_some(self.next_look);
        timer.into_iter().chain(look).min().map(|at| at.saturating_sub(now))
    }

    /// A frame came out of a port.
    fn asked(&mut self, now: Duration, asked: &Asked) {
        let topology = Arc::clone(&self.switch.topology());
        let Some(network) = topology.network(asked.vni) else {
            return self.switch.counters.drop(Drop::UnknownNetwork);
        };
        let heard = Heard { port: asked.port, header: asked.header, frame: &asked.frame };
        let random = self.random();
        match self.stack.input(now, network, heard, random) {
            Outcome::Queries(asker, queries) => queries.for_each(|query| self.query(now, asker, query)),
            Outcome::Taken => {}
            Outcome::Refused => self.switch.counters.drop(Drop::ServiceRefused),
        }
    }

    /// A question for a name, in a datagram.
    fn query(&mut self, now: Duration, asker: Asker, query: &[u8]) {
        let random = self.random();
        match answer(&self.directory, asker.vni, Transport::Udp, Effort::Whole, query, random, &mut self.answer) {
            Verdict::Answer => {
                asker.datagram(&self.answer, &mut self.frame);
                self.switch.reply(asker.port, &self.frame, &mut self.outbox);
            }
            Verdict::Forward => {
                self.forwarder.ask(now, Waiting::Datagram(asker), asker.vni, Transport::Udp, query);
            }
            Verdict::Silent | Verdict::Later => {}
        }
    }

    /// Does what follows from what came, until nothing does.
    fn settle(&mut self, now: Duration) {
        loop {
            let mut more = false;
            for (asker, number, query) in self.stack.take_queries() {
                more = true;
                let random = self.random();
                match answer(
                    &self.directory,
                    asker.vni,
                    Transport::Tcp,
                    Effort::Whole,
                    &query,
                    random,
                    &mut self.answer,
                ) {
                    Verdict::Answer => self.stack.answer(now, asker, number, &self.answer),
                    Verdict::Forward => {
                        let waiting = Waiting::Connection(asker, number);
                        self.forwarder.ask(now, waiting, asker.vni, Transport::Tcp, &query);
                    }
                    Verdict::Silent | Verdict::Later => self.stack.answer(now, asker, number, &[]),
                }
            }
            while let Some(output) = self.forwarder.poll_output() {
                more = true;
                match output {
                    Output::Datagram { exchange, to, bytes } => {
                        let random = self.random();
                        match self.upstream.send(now, to, &bytes, random) {
                            Some(by) => self.forwarder.sent(exchange, by),
                            None => self.forwarder.unsent(now, exchange),
                        }
                    }
                    Output::Stream { exchange, to, bytes } => {
                        self.upstream.connect(now, exchange, to, &bytes, &mut self.forwarder);
                    }
                    Output::Close { exchange } => self.upstream.close(exchange),
                    Output::Answer { token: Waiting::Datagram(asker), bytes } => {
                        asker.datagram(&bytes, &mut self.frame);
                        self.switch.reply(asker.port, &self.frame, &mut self.outbox);
                    }
                    Output::Answer { token: Waiting::Connection(asker, number), bytes } => {
                        self.stack.answer(now, asker, number, &bytes);
                    }
                }
            }
            for (port, frame) in self.stack.take_frames() {
                self.switch.reply(port, &frame, &mut self.outbox);
            }
            if !more {
                return;
            }
        }
    }

    /// Looks whom to ask for other names: at the settings each time, since they cost nothing, at the host's file now and then.
    fn look(&mut self, now: Duration) {
        let mut changed = false;
        if now >= self.next_look {
            self.next_look = now + LOOK_AGAIN;
            self.upstream.tick(now);
            changed = self.host_resolvers.look();
        }
        let settings = self.directory.settings();
        if !changed && self.settings.as_ref().is_some_and(|known| Arc::ptr_eq(known, &settings)) {
            return;
        }
        let resolvers = match settings.resolvers.as_slice() {
            [] => self.host_resolvers.servers(),
            own => own,
        };
        // A service address that asks itself would never end.
        let is_ours = |ip: IpAddr| settings.zones().iter().any(|zone| zone.service.contains(&ip));
        let resolvers: Vec<SocketAddr> = resolvers.iter().copied().filter(|to| !is_ours(to.ip())).collect();
        self.forwarder.set_resolvers(resolvers);
        self.settings = Some(settings);
    }

    /// Numbers that nobody needs to be unable to guess: SplitMix64.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
