//! Two hosts that say numbered things to each other, and count what was not heard.

use crate::world::{Acquaintance, DATA, Datagram, INITIATION, World};
use std::collections::BTreeSet;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;
use weft::tunnel::{Claim, Gate, OVERHEAD, Opener, Tunnel};
use weft::wire::message::{self, Message};

pub(super) const MS: Duration = Duration::from_millis(1);
pub(super) const S: Duration = Duration::from_secs(1);
pub(super) const MIN: Duration = Duration::from_secs(60);
pub(super) const H: Duration = Duration::from_secs(3600);

pub(super) struct Talk {
    pub(super) world: World,
    /// By speaker.
    said: [u64; 2],
    heard: [BTreeSet<u64>; 2],
    forgiven: [u64; 2],
}

impl Talk {
    /// Hosts 0 and 1 know each other, have no session yet and no keepalive.
    pub(super) fn new() -> Self {
        Self::between(&Acquaintance::default(), &Acquaintance::default())
    }

    pub(super) fn between(a: &Acquaintance, b: &Acquaintance) -> Self {
        let mut world = World::new(7, 2);
        world.introduce(0, 1, a);
        world.introduce(1, 0, b);
        Self { world, said: [0; 2], heard: [BTreeSet::new(), BTreeSet::new()], forgiven: [0; 2] }
    }

    /// With a session that host 0 began.
    pub(super) fn with_session() -> Self {
        let mut talk = Self::new();
        talk.world.connect(0, 1);
        talk.run(S);
        assert!(talk.tunnel(0).is_live() && talk.tunnel(1).is_live());
        talk
    }

    pub(super) fn tunnel(&self, n: usize) -> MutexGuard<'_, Tunnel> {
        self.world.hosts[n].peers[&(1 - n)].tunnel()
    }

    /// Host `n` says something.
    pub(super) fn say(&mut self, n: usize) {
        self.said[n] += 1;
        let packet = self.packet(n, self.said[n]);
        self.world.send_packet(n, 1 - n, &packet);
    }

    /// An inner packet from host `n` to the other.
    pub(super) fn packet(&self, n: usize, token: u64) -> Vec<u8> {
        let (from, to) = (self.world.hosts[n].address, self.world.hosts[1 - n].address);
        message::packet(&Message::Probe { token }, from, to, Some(100))
    }

    /// What opens this datagram at host `n`.
    pub(super) fn opener(&self, n: usize, datagram: &[u8]) -> Arc<Opener> {
        let Some(Claim::Data(index)) = Gate::claim(datagram) else { panic!("not data: {datagram:?}") };
        self.tunnel(n).opener(self.world.instant(), index).expect("a live session")
    }

    /// Lets time pass in which each host says something every so often, or nothing.
    pub(super) fn talk(&mut self, span: Duration, every: [Option<Duration>; 2]) {
        let end = self.world.now + span;
        let mut next = every.map(|every| self.world.now + every.unwrap_or(Duration::MAX / 4));
        loop {
            let n = usize::from(next[1] < next[0]);
            if next[n] > end {
                break;
            }
            self.run(next[n].saturating_sub(self.world.now));
            self.say(n);
            next[n] += every[n].unwrap_or_default();
        }
        self.run(end.saturating_sub(self.world.now));
    }

    pub(super) fn run(&mut self, span: Duration) {
        let end = self.world.now + span;
        while self.world.next_event() <= end {
            self.world.step();
            self.listen();
        }
        self.world.run(end - self.world.now);
    }

    /// Runs until everything host `n` said was heard, for at most `limit`; returns whether that came true.
    pub(super) fn is_heard_within(&mut self, n: usize, limit: Duration) -> bool {
        let end = self.world.now + limit;
        while self.lost(n) > 0 && self.world.next_event() <= end {
            self.world.step();
            self.listen();
        }
        self.lost(n) == 0
    }

    /// Nothing is ever heard twice.
    fn listen(&mut self) {
        for n in 0..2 {
            for (_, payload) in std::mem::take(&mut self.world.hosts[n].out.messages) {
                let Ok(Message::Probe { token }) = message::parse(&payload) else { panic!("{payload:?}") };
                assert!(self.heard[1 - n].insert(token), "{token} was heard twice");
            }
        }
    }

    /// How much of what host `n` said was not heard (yet), and not forgiven.
    pub(super) fn lost(&self, n: usize) -> u64 {
        let forgiven = self.forgiven[n];
        self.said[n] - forgiven - self.heard[n].range(forgiven + 1..).count() as u64
    }

    /// What was lost until now is forgiven.
    pub(super) fn forgive(&mut self) {
        self.forgiven = self.said;
    }

    pub(super) fn initiations(&self) -> [usize; 2] {
        [0, 1].map(|n| self.world.hosts[n].sent[usize::from(INITIATION)])
    }

    /// Initiations since `before`.
    pub(super) fn initiations_since(&self, before: [usize; 2]) -> [usize; 2] {
        let now = self.initiations();
        [now[0] - before[0], now[1] - before[1]]
    }

    /// Nothing gets through from now on, or everything.
    pub(super) fn cut(&mut self, cut: bool) {
        self.world.cut.clear();
        if cut {
            self.world.cut.extend([(0, 1), (1, 0)]);
        }
    }

    /// The data messages that host `n` sends while it seals these packets; they are not sent.
    pub(super) fn sealed(&mut self, n: usize, packets: u64) -> Vec<Vec<u8>> {
        let packets: Vec<_> = (0..packets).map(|i| self.packet(n, 1_000_000 + i)).collect();
        let (sealer, _) = self.tunnel(n).outgoing(self.world.instant()).expect("a live session");
        let seal = |packet: Vec<u8>| {
            let mut datagram = vec![0; packet.len() + OVERHEAD];
            assert_eq!(sealer.seal(&packet, &mut datagram), Some(datagram.len()));
            datagram
        };
        packets.into_iter().map(seal).collect()
    }
}

/// Messages of one type among what was captured.
pub(super) fn of_type(capture: &[Datagram], kind: u8) -> Vec<Datagram> {
    capture.iter().filter(|datagram| datagram.bytes[0] == kind).cloned().collect()
}

#[test]
fn talk_is_heard_and_loss_is_noticed() {
    let mut talk = Talk::with_session();
    talk.talk(10 * S, [Some(100 * MS), Some(S)]);
    talk.run(S);
    assert_eq!((talk.lost(0), talk.lost(1), talk.said), (0, 0, [100, 10]));
    assert!(talk.world.hosts[0].sent[usize::from(DATA)] >= 100);
    talk.cut(true);
    talk.say(0);
    assert!(!talk.is_heard_within(0, S));
    assert_eq!(talk.lost(0), 1);
}
