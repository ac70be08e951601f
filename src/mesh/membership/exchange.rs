//! What comes from neighbours, and what goes to them.

use super::{Life, Membership, Output, Session};
use crate::mesh::document::{Document, Head};
use crate::mesh::gossip::{FULL, Heard, Heartbeat, Message, Part, Want};
use crate::mesh::outbox::{FORWARD_WAITS, Outbox, Packer};
use crate::mesh::store::{BUCKETS, Outcome, Verdict};
use crate::wire::key::PublicKey;
use std::collections::BTreeSet;
use std::time::Duration;

/// A document that is named in a heartbeat may come by itself: it is asked for after this.
const NEWS_WAITS: Duration = Duration::from_millis(250);
/// Pages may come in the message after their head's.
const PAGES_WAIT: Duration = Duration::from_millis(20);
/// How often digests that differ are looked into, while they differ otherwise than before …
const COMPARE_EVERY: Duration = Duration::from_secs(1);
/// … and at last, while it stays the same difference: one of us does not trust an owner, or lies.
const COMPARE_SELDOM: Duration = Duration::from_secs(64);
/// While documents come, digests differ by what is under way. They are looked into after so long without a change …
const SETTLED: Duration = Duration::from_millis(700);
/// … or when they have differed for this long.
const DIFFERED: Duration = Duration::from_secs(8);
/// Bytes of a neighbour heeded: 1 MiB a second, after 4 MiB at once. To learn all of a mesh of 1,000 is 2 MiB.
const INPUT: (u64, u64) = (1 << 20, 4 << 20);
/// Bytes sent to a neighbour because it asked: the same.
const ANSWERS: (u64, u64) = (1 << 20, 4 << 20);
/// Heads, of which each may cost a signature's verification, in bytes of input: 512 a second after 2,048 at once.
const HEAD_COSTS: usize = 2 << 10;

/// When the digests are compared with a neighbour's.
#[derive(Debug, Default)]
pub(super) struct Compare {
    difference: u64,
    pause: Duration,
    due: Duration,
    /// Since when they differ, after they were once the same.
    since: Option<Duration>,
    were_same: bool,
    summary_heard: Option<Duration>,
}

/// How much a neighbour may still say and ask.
#[derive(Debug)]
pub(super) struct Budget {
    input: u64,
    answers: u64,
    filled: Duration,
}

impl Compare {
    /// The next difference is looked into at once.
    pub(super) fn forget(&mut self, now: Duration) {
        *self = Self { due: now, ..Self::default() };
    }

    /// Whether to look into a difference. Ours changed last at the time `changed`.
    fn is_due(&mut self, now: Duration, difference: u64, changed: Duration) -> bool {
        if difference == 0 {
            (self.since, self.were_same) = (None, true);
            return false;
        }
        let since = *self.since.get_or_insert(now);
        if self.were_same && now < changed + SETTLED && now < since + DIFFERED {
            return false;
        }
        if difference == 0
            || now < self.due && difference == self.difference
            || now < self.due.min(self.due_of_news())
        {
            return false;
        }
        let is_old = difference == self.difference;
        self.pause = if is_old { (self.pause * 2).clamp(COMPARE_EVERY, COMPARE_SELDOM) } else { COMPARE_EVERY };
        self.difference = difference;
        self.due = now + self.pause;
        true
    }

    /// When a difference that is another one may be looked into.
    fn due_of_news(&self) -> Duration {
        (self.due + COMPARE_EVERY).saturating_sub(self.pause)
    }
}

impl Budget {
    pub(super) fn new(now: Duration) -> Self {
        Self { input: INPUT.1, answers: ANSWERS.1, filled: now }
    }

    fn fill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.filled).min(Duration::from_secs(60)).as_millis() as u64;
        if passed > 0 {
            self.filled = now;
            self.input = (self.input + passed * INPUT.0 / 1000).min(INPUT.1);
            self.answers = (self.answers + passed * ANSWERS.0 / 1000).min(ANSWERS.1);
        }
    }

    fn hears(&mut self, bytes: usize) -> bool {
        let left = self.input.checked_sub(bytes as u64);
        self.input = left.unwrap_or(self.input);
        left.is_some()
    }

    fn answers(&mut self, bytes: usize) -> bool {
        let left = self.answers.checked_sub(bytes as u64);
        self.answers = left.unwrap_or(self.answers);
        left.is_some()
    }
}

impl Membership {
    /// Takes in a message of types [`crate::mesh::gossip::TYPES`]: the UDP payload of a packet to the mesh port out of the tunnel
    /// with `from`. One without a session, or that is malformed, or too much, has no effect.
    pub fn input(&mut self, now: Duration, from: PublicKey, payload: &[u8]) {
        let Some(session) = self.sessions.get_mut(&from) else { return };
        session.budget.fill(now);
        if !session.budget.hears(payload.len() + 64) {
            self.store.counters.flooded += 1;
            return;
        }
        let Ok(message) = Message::parse(payload) else {
            self.store.counters.malformed += 1;
            return;
        };
        session.pulse.heard(now);
        let is_member = self.store.get(&from).is_some();
        match message {
            Message::Heartbeat(beat) => self.beat(now, from, is_member, &beat),
            Message::Documents { is_pushed, parts } => self.documents(now, from, is_member, is_pushed, &parts),
            Message::Heard(heard) => self.heard(from, &heard),
            Message::Want(wants) => self.wanted(from, is_member, &wants),
            Message::Summary(digests) if is_member => self.summary(now, from, &digests),
            Message::Offer { is_answer, buckets } if is_member => self.offer(now, from, is_answer, buckets),
            Message::Ledger(piece) => {
                if let Some(session) = self.sessions.get_mut(&from) {
                    let (answer, whole) = session.ledger.piece(&self.ledger, &piece);
                    self.send(from, answer.write());
                    whole.into_iter().for_each(|bytes| self.output(Output::Ledger(bytes)));
                }
            }
            Message::LedgerHeard { version, hash, mask } => {
                if let Some(session) = self.sessions.get_mut(&from) {
                    session.ledger.heard(&self.ledger, version, hash, mask);
                }
            }
            Message::Summary(_) | Message::Offer { .. } | Message::Unknown => {}
        }
        self.tick(now);
    }

    fn beat(&mut self, now: Duration, from: PublicKey, is_member: bool, beat: &Heartbeat) {
        let Some(session) = self.sessions.get_mut(&from) else { return };
        let is_answer = session.pulse.beat(now, beat);
        session.ledger.beat(now, &self.ledger, beat);
        if is_answer {
            self.outputs.push_back(Output::Answered(from));
        }
        if !is_member {
            return;
        }
        for (owner, version) in &beat.news {
            if self.store.is_news(owner, *version) {
                self.fetches.add(now + NEWS_WAITS, *owner, *version, from);
            } else if let Some(replica) = self.store.get(owner) {
                session.outbox.is_known(owner, *version, replica.document.head.version);
            }
        }
        let is_link = session.pulse.is_wanted(now);
        if is_link && session.compare.is_due(now, self.store.digest() ^ beat.digest, self.changed) {
            let summary = Message::Summary(Box::new(*self.store.digests())).write();
            self.send(from, summary);
        }
    }

    fn documents(&mut self, now: Duration, from: PublicKey, is_member: bool, is_pushed: bool, parts: &[Part<'_>]) {
        let mut named = None;
        let mut touched = BTreeSet::new();
        for part in parts {
            match part {
                Part::Owner(owner) => named = Some(*owner),
                Part::Page(bytes) => {
                    if let Some(owner) = named.filter(|owner| self.store.page(owner, bytes)) {
                        touched.insert(owner);
                    }
                }
                Part::Head(bytes) => {
                    named = None;
                    let Ok(head) = Head::parse(bytes) else {
                        self.store.counters.malformed += 1;
                        continue;
                    };
                    if !is_member && head.owner != from && head.owner != self.us {
                        self.store.counters.strangers += 1;
                        continue;
                    }
                    if !self.sessions.get_mut(&from).is_some_and(|session| session.budget.hears(HEAD_COSTS)) {
                        self.store.counters.flooded += 1;
                        continue;
                    }
                    named = Some(head.owner);
                    touched.insert(head.owner);
                    self.head(now, from, is_pushed, head);
                }
            }
        }
        touched.iter().for_each(|owner| self.settle(now, *owner, from));
    }

    fn head(&mut self, now: Duration, from: PublicKey, is_pushed: bool, head: Head) {
        let (owner, version) = (head.owner, head.version);
        let verdict = self.store.head(now, head, from);
        let Some(session) = self.sessions.get_mut(&from) else { return };
        let mut heard = Heard { owner, version, is_duplicate: false };
        match verdict {
            Verdict::Newer => {
                self.origins.insert(owner, from);
            }
            Verdict::Same => {
                session.outbox.is_known(&owner, version, version);
                // An owner tells all its neighbours, whatever the tree; and what is repeated since our answer was lost is no
                // duplicate.
                let first = self.origins.get(&owner).filter(|first| **first != from && **first != owner);
                if is_pushed && owner != from && owner != self.us && first.is_some() {
                    heard.is_duplicate = true;
                    session.is_eager = false;
                }
            }
            Verdict::Older(newest) => {
                heard.version = newest.version;
                session.outbox.push_unless_sent(now, owner, version);
            }
            Verdict::Ours(head) => self.met_ourselves(now, &head, from),
            Verdict::Refused => {}
        }
        if is_pushed && let Some(session) = self.sessions.get_mut(&from) {
            session.outbox.acknowledge(now, heard);
        }
    }

    /// Sees whether an owner's document is complete, and asks for what it lacks.
    fn settle(&mut self, now: Duration, owner: PublicKey, from: PublicKey) {
        let before = self.store.get(&owner).map(|replica| replica.document.clone());
        let unix = self.unix(now);
        match self.store.complete(&self.policy, unix, &owner) {
            Outcome::Nothing => {
                if let Some((version, _)) = self.store.missing(&owner) {
                    self.fetches.add(now + PAGES_WAIT, owner, version, from);
                }
                return;
            }
            Outcome::Declined { was } => {
                self.fetches.done(now, &owner, u64::MAX);
                if was {
                    self.left(now, owner);
                }
                return;
            }
            Outcome::Merged => {}
        }
        let Some(document) = self.store.get(&owner).map(|replica| replica.document.clone()) else { return };
        self.fetches.done(now, &owner, document.head.version);
        self.changed = now;
        let life = Life { alive: false, since: now, was_ever_alive: false, route: None };
        self.lives.entry(owner).or_insert(life);
        let above = before.as_ref().map_or(0, |before| before.head.version);
        let life = |document: &Document| document.head.incarnation;
        let is_reborn = before.as_deref().is_some_and(|before| life(before) != life(&document));
        for (key, session) in &mut self.sessions {
            if *key == owner && (before.is_none() || is_reborn) {
                // A stranger is a member: the next heartbeat begins to tell it everything.
                session.compare.forget(now);
            }
            if *key == owner && is_reborn {
                // It restarted before the session was missed. To it we are the stranger, and all that was told it is forgotten.
                session.is_eager = true;
                session.outbox = Outbox::default();
                session.outbox.push(now, self.us, u64::MAX);
            }
            let is_to_be_told = *key != from && *key != owner && session.was_up && self.store.get(key).is_some();
            // The owner tells its own neighbours.
            let has_owner = document.facts.links.binary_search_by(|link| link.neighbour.cmp(key)).is_ok();
            if is_to_be_told && session.is_eager && !has_owner {
                session.outbox.push(now + FORWARD_WAITS, owner, above);
            } else if is_to_be_told {
                session.outbox.announce(owner, document.head.version);
            }
        }
        let same_links = before.as_ref().is_some_and(|before| {
            let (before, facts) = (&before.facts, &document.facts);
            before.links == facts.links && before.relay == facts.relay
        });
        let same_names = before.as_ref().is_some_and(|before| {
            before.facts.name == document.facts.name && before.facts.tunnel_address == document.facts.tunnel_address
        });
        if !same_links {
            self.graph_changed(now);
        }
        if !same_names {
            self.choice.are_names_due = true;
            self.graph_changed(now);
        }
        self.output(Output::Changed(owner));
    }

    fn heard(&mut self, from: PublicKey, heard: &[Heard]) {
        let Some(session) = self.sessions.get_mut(&from) else { return };
        for Heard { owner, version, is_duplicate } in heard {
            if let Some(replica) = self.store.get(owner) {
                session.outbox.is_known(owner, *version, replica.document.head.version);
            }
            if *is_duplicate && *owner != self.us {
                session.is_eager = false;
            }
        }
    }

    /// Sends what a neighbour lacks. A stranger may want nobody's but ours.
    fn wanted(&mut self, from: PublicKey, is_member: bool, wants: &[Want]) {
        let (mut packer, mut refused) = (Packer::new(false), 0);
        let Some(session) = self.sessions.get_mut(&from) else { return };
        for Want { owner, version, mask } in wants {
            if !is_member && *owner != self.us {
                continue;
            }
            let Some(replica) = self.store.get(owner) else { continue };
            // It is no news to the neighbour's neighbours either: the tree of pushes leads through here.
            session.is_eager |= is_member && *mask == 0;
            if !session.budget.answers(replica.document.size()) {
                refused += 1;
                continue;
            }
            let head = &replica.document.head;
            if *mask != 0 && *version == head.version {
                packer.add_pages(&replica.document, *mask);
            } else {
                // For a version in between only the head is sure to be useful; pages are asked for by it.
                packer.add(replica, if *mask == 0 { *version } else { head.version });
            }
        }
        let payloads = packer.finish();
        self.store.counters.flooded += refused;
        for payload in payloads {
            self.send(from, payload);
        }
    }

    fn summary(&mut self, now: Duration, from: PublicKey, theirs: &[u64; BUCKETS]) {
        let Some(session) = self.sessions.get_mut(&from) else { return };
        let is_soon = session.compare.summary_heard.is_some_and(|heard| now < heard + COMPARE_EVERY / 2);
        if is_soon {
            return;
        }
        session.compare.summary_heard = Some(now);
        let differ = (0..BUCKETS).filter(|&n| theirs[n] != self.store.digests()[n]);
        self.send_offers(from, false, differ.map(|n| n as u8).collect());
    }

    fn offer(&mut self, now: Duration, from: PublicKey, is_answer: bool, buckets: Vec<(u8, Vec<(PublicKey, u64)>)>) {
        let mut answer = Vec::new();
        for (bucket, theirs) in buckets {
            for (owner, version) in &theirs {
                if self.store.is_news(owner, *version) {
                    self.fetches.add(now, *owner, *version, from);
                }
            }
            let theirs: BTreeSet<_> = theirs.into_iter().collect();
            let has_more = |(owner, version): (PublicKey, u64)| {
                theirs.range((owner, 0)..=(owner, u64::MAX)).all(|(_, known)| *known < version)
            };
            if self.store.bucket(bucket.into()).any(has_more) {
                answer.push(bucket);
            }
        }
        if !is_answer {
            self.send_offers(from, true, answer);
        }
    }

    fn send_offers(&mut self, to: PublicKey, is_answer: bool, buckets: Vec<u8>) {
        let mut messages: Vec<Vec<(u8, Vec<_>)>> = vec![Vec::new()];
        let mut length = 0;
        for bucket in buckets {
            let entries: Vec<_> = self.store.bucket(bucket.into()).collect();
            let more = 3 + entries.len() * 40;
            if length + more + 5 > FULL && length > 0 {
                messages.push(Vec::new());
                length = 0;
            }
            length += more;
            messages.last_mut().into_iter().for_each(|message| message.push((bucket, entries.clone())));
        }
        for buckets in messages.into_iter().filter(|buckets| !buckets.is_empty()) {
            let payload = Message::Offer { is_answer, buckets }.write();
            let is_allowed = self.sessions.get_mut(&to).is_some_and(|session| session.budget.answers(payload.len()));
            if is_allowed {
                self.send(to, payload);
            }
        }
    }

    /// Sends everything that is due.
    pub(super) fn speak(&mut self, now: Duration) {
        let questions = self.fetches.poll(now, &self.store, |source| {
            let session = self.sessions.get(source)?;
            Some(session.pulse.round_trip().unwrap_or(Duration::from_millis(100)))
        });
        for (to, wants) in questions {
            if let Some(session) = self.sessions.get_mut(&to) {
                session.is_eager |= wants.iter().any(|want| want.mask == 0);
            }
            self.send(to, Message::Want(wants).write());
        }
        let mut sends = Vec::new();
        for (key, session) in &mut self.sessions {
            let Session { pulse, outbox, ledger, .. } = session;
            if let Some(mut beat) = pulse.poll(now, self.chance.next()) {
                beat.digest = self.store.digest();
                beat.ledger = self.ledger.version;
                // Strangers are told of nobody.
                if self.store.get(key).is_some() {
                    beat.news = outbox.take_news();
                }
                sends.push((*key, Message::Heartbeat(beat).write()));
            }
            sends
                .extend(outbox.poll(now, pulse.round_trip(), &self.store).into_iter().map(|payload| (*key, payload)));
            let pieces = ledger.poll(now, pulse.round_trip(), &self.ledger);
            sends.extend(pieces.into_iter().map(|payload| (*key, payload)));
        }
        for (to, payload) in sends {
            self.send(to, payload);
        }
    }

    fn send(&mut self, to: PublicKey, payload: Vec<u8>) {
        self.output(Output::Send { to, payload });
    }
}
