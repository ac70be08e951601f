//! When which way is probed, when NATs are punched, and when a TCP connection is asked for.

use super::candidate::Candidate;
use super::{Act, Kind, Paths, token};
use std::net::SocketAddr;
use std::time::Duration;

/// How often something is done at most, and how often a way in doubt is probed.
pub const BEAT: Duration = Duration::from_millis(250);
/// How long after the last frame a tunnel counts as in use.
const IN_USE: Duration = Duration::from_secs(10);
/// Silence on the chosen way after which it is doubted: while in use …
const SILENCE: Duration = Duration::from_secs(1);
/// … though something is heard, since that proves only one direction …
const UNANSWERED: Duration = Duration::from_millis(1500);
/// … and with an idle neighbour. The members' heartbeats come every two seconds.
const SILENCE_IDLE: Duration = Duration::from_secs(3);
const UNANSWERED_IDLE: Duration = Duration::from_secs(20);
/// Silence on a chosen way that answers, after which the tunnel is told again that it is the right one.
const AFFIRM: Duration = Duration::from_millis(500);
/// Lost probes on the doubted way after which the others are probed as well.
const SECOND_OPINION: u32 = 2;
/// How long doubt lasts before probing slows down, and to which pause; and again.
const LONG_DOUBT: Duration = Duration::from_secs(5);
const LONG_DOUBT_PAUSE: Duration = Duration::from_secs(1);
const HOPELESS: Duration = Duration::from_secs(60);
const HOPELESS_PAUSE: Duration = Duration::from_secs(5);
/// How often a relayed way or a stream is probed while it is chosen and in use, and any while it is an idle neighbour's.
const WATCH: Duration = Duration::from_secs(1);
const WATCH_IDLE: Duration = Duration::from_secs(15);
/// How often ways are looked at that may be better than the chosen one, while in use.
pub const LOOK_AROUND: Duration = Duration::from_secs(5);
/// The same for those that are worse and only kept in mind, and those that have not answered for a minute: bursts find them
/// if a direct way is needed.
const LOOK_BACK: Duration = Duration::from_secs(15);
/// The same for all of an idle neighbour.
pub const LOOK_AROUND_IDLE: Duration = Duration::from_secs(120);
/// How often both sides probe all addresses at once while no direct way works …
pub const PUNCH_EVERY: Duration = Duration::from_secs(5);
/// … when that went on for [`PUNCH_LONG`] …
const PUNCH_EVERY_LATER: Duration = Duration::from_secs(8);
const PUNCH_LONG: Duration = Duration::from_secs(120);
/// … and with an idle neighbour.
const PUNCH_EVERY_IDLE: Duration = Duration::from_secs(30);
/// How long a burst lasts: three beats.
const BURST: Duration = Duration::from_millis(600);
/// A peer can make us begin a burst this often, to whatever addresses it tells.
pub(super) const BURST_AGAIN: Duration = Duration::from_secs(2);
/// Candidates that are probed in one beat at most.
const MAX_BURST: usize = 8;
/// How long nothing better than a stream may work, the way in use being doubted, before a TCP connection is asked for, and how
/// often. To make one takes a round trip or two; a way that is dead is to be left within three seconds of its death.
const STRANDED: Duration = Duration::from_millis(500);
const STREAM_AGAIN: Duration = Duration::from_secs(10);

/// What is going on with the chosen way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Doubt {
    None,
    /// It is asked more often.
    Chosen,
    /// All are.
    All,
}

impl Paths {
    /// Does what is due.
    pub(in crate::mesh) fn tick(&mut self, now: Duration) {
        (self.watching, self.awake) = (self.watches_mtu(now), self.is_awake(now));
        if self.watching {
            self.probe_mtu(now);
        }
        if !self.awake || now < self.beat {
            return;
        }
        self.beat = now + BEAT;
        self.candidates.iter_mut().for_each(|candidate| candidate.pulse.expire(now));
        let doubt = self.doubt(now);
        match doubt {
            Doubt::All => self.leave(now),
            Doubt::Chosen => {}
            Doubt::None => self.affirm(now),
        }
        self.punch(now);
        self.want_stream(now);
        self.probe_ways(now, doubt);
    }

    /// When [`Paths::tick`] has something to do.
    pub(in crate::mesh) fn next_deadline(&self) -> Option<Duration> {
        let current = self.current().filter(|current| self.watching && current.is_measured());
        let mtu = current.and_then(|current| current.mtu.next_deadline());
        [mtu, self.awake.then_some(self.beat)].into_iter().flatten().min()
    }

    /// There is no session, and somebody waits for one.
    pub(in crate::mesh) fn trying(&mut self, now: Duration) {
        if !self.up {
            self.ask_for_stream(now);
        }
    }

    /// Whether the tunnel carries frames.
    pub(in crate::mesh) fn is_in_use(&self, now: Duration) -> bool {
        self.used.is_some_and(|used| now.saturating_sub(used) < IN_USE)
    }

    fn is_awake(&self, now: Duration) -> bool {
        self.up && self.held && (self.kept || self.is_in_use(now) || self.is_bursting(now))
    }

    /// Whether the path MTU is of interest: also when a session has just begun, for the first frames.
    fn watches_mtu(&self, now: Duration) -> bool {
        self.up && (self.kept || self.is_in_use(now) || now.saturating_sub(self.began) < IN_USE)
    }

    fn is_bursting(&self, now: Duration) -> bool {
        self.burst.is_some_and(|begun| now.saturating_sub(begun) < BURST)
    }

    fn probe_mtu(&mut self, now: Duration) {
        let held = self.held;
        let Some(current) = self.current_mut().filter(|current| current.is_measured()) else { return };
        let (number, via, v6) = (current.number, held.then_some(current.way), current.way.is_ipv6());
        let mut acts = Vec::new();
        current.mtu.set_probes(current.pulse.needed());
        while let Some(probe) = current.mtu.poll(now) {
            let size = Some((probe.size, v6));
            acts.push(Act::Probe { token: token(number, probe.token, false), size, via });
        }
        self.acts.append(&mut acts);
    }

    fn doubt(&mut self, now: Duration) -> Doubt {
        let in_use = self.is_in_use(now);
        let (silence, unanswered) = if in_use { (SILENCE, UNANSWERED) } else { (SILENCE_IDLE, UNANSWERED_IDLE) };
        let Some(current) = self.current() else {
            self.doubted.get_or_insert(now);
            return Doubt::All;
        };
        let pulse = &current.pulse;
        let answered = pulse.answered.unwrap_or_default().max(self.since);
        let heard = pulse.heard.unwrap_or_default().max(answered);
        let ago = |then: Duration| now.saturating_sub(then);
        if pulse.silent.is_none() && ago(heard) < silence && ago(answered) < unanswered {
            self.doubted = None;
            return Doubt::None;
        }
        let all = pulse.silent.is_some() || pulse.missing(now) >= SECOND_OPINION;
        self.doubted.get_or_insert(now);
        if all { Doubt::All } else { Doubt::Chosen }
    }

    /// A tunnel follows its peer's frames when it heard nothing for a second where it sends to. The peer may have chosen
    /// otherwise, or speak from another address than it is spoken to at; but what answers probes is right for us.
    fn affirm(&mut self, now: Duration) {
        let unheard = |current: &&Candidate| current.pulse.heard.is_none_or(|at| now.saturating_sub(at) >= AFFIRM);
        if let Some(way) = self.current().filter(|_| self.is_in_use(now)).filter(unheard).map(|current| current.way) {
            self.acts.push(Act::Choose(way));
        }
    }

    fn probe_ways(&mut self, now: Duration, doubt: Doubt) {
        let mut due: Vec<&Candidate> =
            self.candidates.iter().filter(|candidate| self.is_due(now, candidate, doubt)).collect();
        due.sort_by(|a, b| {
            (Some(a.number) != self.current).cmp(&(Some(b.number) != self.current)).then(a.urgency(b))
        });
        due.truncate(MAX_BURST);
        let many = |candidate: &Candidate| {
            let doubted = doubt != Doubt::None && Some(candidate.number) == self.current;
            if doubted && self.doubted_for(now) < LONG_DOUBT { candidate.pulse.at_once() } else { 1 }
        };
        let numbers: Vec<(u32, u32)> = due.into_iter().map(|candidate| (candidate.number, many(candidate))).collect();
        for (number, many) in numbers {
            (0..many).for_each(|_| self.probe(now, number));
        }
    }

    fn doubted_for(&self, now: Duration) -> Duration {
        self.doubted.map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }

    fn is_due(&self, now: Duration, candidate: &Candidate, doubt: Doubt) -> bool {
        let Some(pause) = self.pause(now, candidate, doubt) else { return false };
        // Answers to probes of the path MTU are as good.
        let asked = candidate.pulse.asked.max(candidate.pulse.answered);
        asked.is_none_or(|asked| now.saturating_sub(asked) + BEAT / 10 >= pause)
    }

    /// How long after one probe over `candidate` the next is due, if ever.
    fn pause(&self, now: Duration, candidate: &Candidate, doubt: Doubt) -> Option<Duration> {
        let chosen = Some(candidate.number) == self.current;
        let in_use = self.is_in_use(now);
        let doubted = match doubt {
            Doubt::None => None,
            Doubt::Chosen if !chosen => None,
            _ => Some(match self.doubted_for(now) {
                long if long >= HOPELESS => HOPELESS_PAUSE,
                long if long >= LONG_DOUBT => LONG_DOUBT_PAUSE,
                _ => BEAT,
            }),
        };
        let burst = (candidate.kind == Kind::Direct && self.is_bursting(now)).then_some(BEAT);
        let trial = |other: &Candidate| other.wins > 0 && now < other.trial;
        let trial = (trial(candidate) || chosen && self.candidates.iter().any(trial)).then_some(BEAT);
        let steady = if chosen {
            match (candidate.is_measured(), in_use) {
                (true, true) => None,
                (false, true) => Some(WATCH),
                (_, false) => self.kept.then_some(WATCH_IDLE),
            }
        } else {
            let worse = self.current().is_some_and(|current| candidate.rank() > current.rank());
            let hopeless = candidate.pulse.silent.is_some_and(|since| now.saturating_sub(since) >= HOPELESS);
            match (in_use, worse || hopeless) {
                (true, false) => Some(LOOK_AROUND),
                (true, true) => Some(LOOK_BACK),
                (false, _) => self.kept.then_some(LOOK_AROUND_IDLE),
            }
        };
        [doubted, burst, trial, steady].into_iter().flatten().min()
    }

    fn probe(&mut self, now: Duration, number: u32) {
        if let Some(candidate) = self.numbered_mut(number) {
            let sequence = candidate.pulse.ask(now).into();
            let probe = Act::Probe { token: token(number, sequence, true), size: None, via: Some(candidate.way) };
            self.acts.push(probe);
        }
    }

    /// Probes a way at once because something came over it, unless that was done a moment ago.
    pub(super) fn triggered(&mut self, now: Duration, way: SocketAddr) {
        let recent = |candidate: &Candidate| candidate.pulse.asked.is_some_and(|at| now.saturating_sub(at) < BEAT);
        if let Some(number) =
            self.find(way).filter(|candidate| self.up && !recent(candidate)).map(|candidate| candidate.number)
        {
            self.probe(now, number);
        }
    }

    /// All direct ways are probed, from this moment on.
    pub(super) fn burst(&mut self, now: Duration) {
        self.burst = Some(now);
        self.beat = now;
    }

    fn punch(&mut self, now: Duration) {
        let working = self.current().filter(|current| current.pulse.silent.is_none()).map(|current| current.kind);
        if working == Some(Kind::Direct) {
            self.indirect = None;
            return;
        }
        let since = *self.indirect.get_or_insert(now);
        if now < self.punch_due {
            return;
        }
        let pause = match self.is_in_use(now) {
            false => PUNCH_EVERY_IDLE,
            true if now.saturating_sub(since) < PUNCH_LONG => PUNCH_EVERY,
            true => PUNCH_EVERY_LATER,
        };
        self.punch_due = now + pause;
        if working.is_some() {
            self.acts.push(Act::Punch { reply_wanted: true });
        }
        self.burst(now);
        self.beat = now + BEAT;
    }

    fn want_stream(&mut self, now: Duration) {
        let good = |candidate: &Candidate| {
            let current = Some(candidate.number) == self.current;
            let works = if current { self.doubted.is_none() } else { candidate.pulse.is_live() };
            works && candidate.pulse.silent.is_none() && candidate.rank() <= 2
        };
        if self.candidates.iter().any(good) {
            self.stranded = None;
        } else {
            self.ask_for_stream(now);
        }
    }

    fn ask_for_stream(&mut self, now: Duration) {
        let since = *self.stranded.get_or_insert(now);
        if now.saturating_sub(since) >= STRANDED && now >= self.stream_due {
            self.stream_due = now + STREAM_AGAIN;
            self.acts.push(Act::WantStream);
        }
    }
}
