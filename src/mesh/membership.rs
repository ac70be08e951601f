//! Who the members are and what they say of themselves, the same for all of them within seconds.
//!
//! [`Membership`] is a value that the control plane drives. Sessions that come and go, messages out of tunnels, our own facts and
//! the time go in; messages, news of members and wishes for sessions come out. What it is made of, from below:
//!
//! ```text
//!  facts      what a member says of itself, as records
//!  document   records in pages under one signed head
//!  store      everybody's newest document; who is no member is declined
//!  gossip     the messages      outbox  pushes to one neighbour      fetch  what we lack, from whom      ledger  the authority's bytes
//!  pulse      heartbeats: does a session live, how good is it
//!  graph      links that both ends tell of: who is alive, over whom      ring  whom to keep a session with
//! ```
//!
//! *A change* is pushed by its owner to all its neighbours, and by each that learns of it to those of its neighbours through which
//! it is the first to bring news: a neighbour that answers "I have heard" is not pushed to again, until it asks. So pushes follow a tree
//! that grows where it is needed (as in Plumtree, Leitão et al. 2007), and the rest is told the versions with the next heartbeat.
//! *What was missed* shows in the digests of heartbeats: then the parts of the digest are compared, then the versions, and the one that lacks
//! something asks for it.
//!
//! *A stranger*, a session with somebody who is no member yet, hears our own document and may show its own; it hears of nobody else. Its
//! document is judged by the [`Policy`] as any other, and with that it is a member.
//!
//! Tell of a session only when its datagrams go to the other end themselves, not through members: routes are made of links, and a link
//! made of routes would lead in circles.
//!
//! Time is what has passed since the daemon started. Only certificates need the date; clocks may differ and jump.

mod choice;
mod exchange;

use super::document::{Archive, Document, Head, MAX_VERSION, paginate};
use super::facts::{Facts, records};
use super::fetch::Fetches;
use super::graph::{self, Route};
use super::ledger::{self, Ledger};
use super::outbox::Outbox;
use super::pulse::Pulse;
use super::ring::Chance;
use super::store::{Counters, Replica, Store};
use crate::trust::sign::Signer;
use crate::trust::{Policy, Standing};
use crate::wire::key::PublicKey;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

/// How long a member that is gone is remembered, so that it need not tell everything when it comes back.
pub const GRACE: Duration = Duration::from_secs(24 * 3600);
/// The same for one that was never seen alive: somebody else remembers it. Shorter than [`RETIRED_LASTS`], or two members
/// could remind each other for ever.
pub const GRACE_UNSEEN: Duration = Duration::from_secs(600);
/// How long a forgotten member's head is kept, so that nobody brings it back who forgets it a little later.
pub const RETIRED_LASTS: Duration = Duration::from_secs(3600);
/// Our own changes: four a second …
const CHANGE_EVERY: Duration = Duration::from_millis(250);
/// … after sixteen at once.
const CHANGE_BURST: Duration = Duration::from_secs(4);
/// Links that come up together are told of together …
const LINKS_SETTLE: Duration = Duration::from_millis(100);
/// … and in a large mesh that comes together, this long for each member passes between two tellings, so that all
/// of them make no more than a thousand documents a second, of which each is sent to everyone. A link that went down is told of without delay.
const LINKS_PAUSE: Duration = Duration::from_millis(1);
/// The longest such pause.
const LONGEST_LINKS_PAUSE: Duration = Duration::from_secs(1);
/// How often round trips and losses are told again, if they are others; in a mesh of more than thirty less often, by its size.
const LINKS_MEASURED: Duration = Duration::from_secs(30);
/// Jumps over another's version of our own document until somebody else must have our key: a restart takes one, and one
/// more where old documents come in late.
const JUMPS_TO_WARN: u32 = 3;
/// The longest pause between two such jumps; it doubles from a second, so that two who fight over a key do not flood the mesh.
const LONGEST_JUMP: Duration = Duration::from_secs(64);
/// After so long without a jump the fight is over.
const PEACE: Duration = Duration::from_secs(600);
/// What waits to be taken. Sends beyond it are lost, as on the way.
const MAX_OUTPUTS: usize = 1 << 16;

/// What a member is made from.
pub struct Settings {
    /// Signs as us.
    pub signer: Signer,
    /// Another number at each start.
    pub incarnation: u64,
    /// Random.
    pub seed: u64,
    /// The time since 1970. It may be wrong.
    pub unix: Duration,
    /// Who is let in.
    pub policy: Policy,
    /// What was checked: an empty one, or one shared by members in one process.
    pub archive: Archive,
}

/// What the control plane has to do or to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send a message to the mesh port of a member with which there is a session.
    Send {
        /// Whom to.
        to: PublicKey,
        /// The UDP payload.
        payload: Vec<u8>,
    },
    /// A member came, or its facts, its standing, its aliveness or the route to it are others.
    Changed(PublicKey),
    /// A member was forgotten, or is none any more.
    Left(PublicKey),
    /// What we sent to this neighbour arrived there.
    Answered(PublicKey),
    /// [`Membership::neighbours`] are others: have sessions with those.
    Neighbours,
    /// A ledger came that is newer than ours, if it is one: verify it, then [`Membership::set_ledger`].
    Ledger(Vec<u8>),
    /// Something that people should know.
    Warning(String),
}

/// What is known of a member.
#[derive(Debug, Clone, Copy)]
pub struct MemberView<'a> {
    /// Its key.
    pub key: PublicKey,
    /// What it says of itself. Of one that is not alive only what does not change by itself is worth something.
    pub facts: &'a Facts,
    /// What it may call itself.
    pub standing: &'a Standing,
    /// Whether links lead to it.
    pub alive: bool,
    /// Whether links ever led to it: what is known of one to which none did is what somebody remembers, or has just come.
    pub was_alive: bool,
    /// Since when that is so.
    pub since: Duration,
    /// How it is reached over members.
    pub route: Option<Route>,
}

impl<'a> MemberView<'a> {
    /// Its name: the certified one before its own.
    pub fn name(&self) -> &'a str {
        self.standing.name.as_deref().unwrap_or(&self.facts.name)
    }

    /// Its tunnel address: the certified one before its own.
    pub fn tunnel_address(&self) -> Ipv4Addr {
        self.standing.tunnel_address.unwrap_or(self.facts.tunnel_address)
    }
}

/// See the head of this file.
pub struct Membership {
    us: PublicKey,
    signer: Signer,
    policy: Policy,
    /// What the date was when.
    date: (Duration, Duration),
    chance: Chance,
    store: Store,
    ours: Ours,
    sessions: BTreeMap<PublicKey, Session>,
    fetches: Fetches,
    /// The neighbour that first told of an owner's newest document.
    origins: BTreeMap<PublicKey, PublicKey>,
    lives: BTreeMap<PublicKey, Life>,
    ledger: Ledger,
    choice: choice::Choice,
    /// When the graph is looked at again, because it changed.
    graph_due: Option<Duration>,
    graph_seen: Duration,
    /// When somebody's document was last another.
    changed: Duration,
    outputs: VecDeque<Output>,
    outputs_lost: u64,
}

/// Our own document and when it is signed again.
#[derive(Debug)]
struct Ours {
    facts: Facts,
    left_out: Option<String>,
    incarnation: u64,
    version: u64,
    due: Option<Duration>,
    /// A version is due although nothing changed.
    is_stale: bool,
    /// Pays for changes: see [`CHANGE_EVERY`].
    paid: Duration,
    /// When links were last told of.
    links_told: Duration,
    /// When links are told of again.
    links_measured: Duration,
    jumps: u32,
    jumped: Duration,
}

/// A session with a neighbour, or with a stranger.
#[derive(Debug)]
struct Session {
    pulse: Pulse,
    outbox: Outbox,
    ledger: ledger::Exchange,
    /// Documents are pushed to it, not only named.
    is_eager: bool,
    was_up: bool,
    /// When it was no longer chosen by the ring.
    released: Option<Duration>,
    compare: exchange::Compare,
    budget: exchange::Budget,
}

/// What we think of a member.
#[derive(Debug, Clone, Copy)]
struct Life {
    alive: bool,
    since: Duration,
    was_ever_alive: bool,
    route: Option<Route>,
}

impl Membership {
    /// A member that knows only itself.
    pub fn new(now: Duration, settings: Settings) -> Self {
        let Settings { signer, incarnation, seed, unix, policy, archive } = settings;
        let us = signer.public_key();
        // A clock that is beyond half of what versions can be is not believed.
        let version = u64::try_from(unix.as_millis()).unwrap_or(u64::MAX).min(MAX_VERSION / 2);
        let ours = Ours {
            left_out: None,
            facts: Facts { incarnation, ..Facts::default() },
            incarnation,
            version,
            due: None,
            is_stale: false,
            paid: Duration::ZERO,
            links_told: Duration::ZERO,
            links_measured: now + LINKS_MEASURED,
            jumps: 0,
            jumped: Duration::ZERO,
        };
        let mut membership = Self {
            us,
            signer,
            policy,
            date: (now, unix),
            chance: Chance(seed),
            store: Store::new(us, archive),
            ours,
            sessions: BTreeMap::new(),
            fetches: Fetches::default(),
            origins: BTreeMap::new(),
            lives: BTreeMap::new(),
            ledger: Ledger::default(),
            choice: choice::Choice::default(),
            graph_due: None,
            graph_seen: Duration::ZERO,
            changed: Duration::ZERO,
            outputs: VecDeque::new(),
            outputs_lost: 0,
        };
        membership.sign(now);
        membership
    }

    /// Says what we say of ourselves; neighbours hear of a change at once. Links and incarnation are filled in here.
    pub fn set_facts(&mut self, now: Duration, facts: Facts) {
        let mut facts = Facts { incarnation: self.ours.incarnation, links: Vec::new(), ..facts };
        self.ours.left_out = facts.tidy();
        if facts != self.ours.facts {
            self.ours.facts = facts;
            self.sign_at(now);
            self.tick(now);
        }
    }

    /// What of the facts given last is more than a member may say, and is not told.
    pub fn left_out(&self) -> Option<&str> {
        self.ours.left_out.as_deref()
    }

    /// The rules; after a change [`Membership::rejudge`] applies them.
    pub fn policy_mut(&mut self) -> &mut Policy {
        &mut self.policy
    }

    /// Judges everybody by the rules as they are, at the time `unix` since 1970, which is also what the time is.
    pub fn rejudge(&mut self, now: Duration, unix: Duration) {
        self.date = (now, unix);
        for (key, is_member) in self.store.rejudge(&self.policy, unix) {
            if is_member {
                self.output(Output::Changed(key));
            } else {
                self.left(now, key);
            }
        }
        // Whoever was declined may be let in.
        self.sessions.values_mut().for_each(|session| session.compare.forget(now));
        let strangers: Vec<PublicKey> = self.sessions.keys().copied().collect();
        for key in strangers.into_iter().filter(|key| self.store.get(key).is_none()) {
            self.fetches.add(now, key, u64::MAX, key);
        }
        self.tick(now);
    }

    /// Members to look for though nobody told of them: those of the file, and those known before a restart.
    pub fn set_contacts(&mut self, now: Duration, contacts: impl IntoIterator<Item = PublicKey>) {
        self.choice.contacts = contacts.into_iter().filter(|key| *key != self.us).collect();
        self.choice.due = now;
        self.tick(now);
    }

    /// A session with `key` was made, directly. Not for renewals of one that lives.
    pub fn link_up(&mut self, now: Duration, key: PublicKey) {
        if key == self.us || self.sessions.contains_key(&key) {
            return;
        }
        let session = Session {
            pulse: Pulse::new(now, self.chance.next()),
            outbox: Outbox::default(),
            ledger: ledger::Exchange::default(),
            is_eager: true,
            was_up: false,
            released: None,
            compare: exchange::Compare::default(),
            budget: exchange::Budget::new(now),
        };
        self.sessions.insert(key, session);
        self.choose(now);
        self.tick(now);
    }

    /// The session with `key` has ended, or is no longer direct.
    pub fn link_down(&mut self, now: Duration, key: PublicKey) {
        if self.sessions.remove(&key).is_some_and(|session| session.was_up) {
            self.sign_at(now);
        }
        self.tick(now);
    }

    /// Says which ledger is in force here; neighbours hear of it.
    pub fn set_ledger(&mut self, now: Duration, version: u64, bytes: &[u8]) {
        match Ledger::new(version, bytes) {
            Some(ledger) => self.ledger = ledger,
            None => self.warn("the ledger of the authority is larger than 8 KiB and is not passed on".to_owned()),
        }
        self.sessions.values_mut().for_each(|session| session.ledger.tell(now));
        self.tick(now);
    }

    /// Does what is due.
    pub fn tick(&mut self, now: Duration) {
        self.watch_links(now);
        if self.ours.due.is_some_and(|due| due <= now) {
            self.sign(now);
        }
        if self.graph_due.is_some_and(|due| due <= now) {
            self.look(now);
        }
        if self.choice.due <= now {
            self.choose(now);
        }
        self.speak(now);
    }

    /// When [`Membership::tick`] has something to do.
    pub fn next_deadline(&self, now: Duration) -> Duration {
        let sessions = self.sessions.values().flat_map(|session| {
            let ends = session.was_up.then(|| session.pulse.ends()).flatten();
            [ends, session.pulse.next_deadline(now), session.outbox.next_deadline(), session.ledger.next_deadline()]
        });
        let ours = [self.ours.due, self.graph_due, self.fetches.next_deadline()];
        sessions.chain(ours).flatten().fold(self.choice.due, Duration::min)
    }

    /// What the control plane has to do next. To be called until there is nothing, after every other call.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The other members, by key.
    pub fn members(&self) -> impl Iterator<Item = MemberView<'_>> {
        self.store.replicas().filter_map(|(key, replica)| self.view(key, replica))
    }

    /// One other member.
    pub fn member(&self, key: &PublicKey) -> Option<MemberView<'_>> {
        self.view(key, self.store.get(key)?)
    }

    /// The way to a member through others, whether or not there is a link with it.
    pub fn detour(&self, key: &PublicKey) -> Option<Route> {
        let members = self.store.replicas().map(|(key, replica)| (key, &replica.document.facts));
        graph::detour(&self.us, key, members)
    }

    /// With whom to have a session: neighbours, and members that are not alive but may be again.
    pub fn neighbours(&self) -> &BTreeSet<PublicKey> {
        &self.choice.neighbours
    }

    /// Whether [`Membership::link_up`] was said of `key`, and not the opposite since.
    pub fn has_session(&self, key: &PublicKey) -> bool {
        self.sessions.contains_key(key)
    }

    /// What we say of ourselves, signed.
    pub fn own_document(&self) -> Option<&Arc<Document>> {
        self.store.get(&self.us).map(|replica| &replica.document)
    }

    /// Whether the session with `key` is a link of the mesh that lives.
    pub fn is_linked(&self, now: Duration, key: &PublicKey) -> bool {
        self.sessions.get(key).is_some_and(|session| session.pulse.is_up(now))
    }

    /// What was refused.
    pub fn counters(&self) -> Counters {
        self.store.counters
    }

    /// Outputs that nobody took in time.
    pub fn outputs_lost(&self) -> u64 {
        self.outputs_lost
    }

    /// Everybody's documents, ours too.
    pub fn replicas(&self) -> impl Iterator<Item = &Arc<Document>> {
        self.store.replicas().map(|(_, replica)| &replica.document)
    }

    /// Bytes that the documents of all members take, about.
    pub fn document_bytes(&self) -> usize {
        self.store.bytes()
    }

    /// The version of the ledger in force here.
    pub fn ledger_version(&self) -> u64 {
        self.ledger.version
    }

    fn view<'a>(&'a self, key: &PublicKey, replica: &'a Replica) -> Option<MemberView<'a>> {
        let Life { alive, since, route, was_ever_alive: was_alive } = *self.lives.get(key)?;
        let Replica { document, standing, .. } = replica;
        Some(MemberView { key: *key, facts: &document.facts, standing, alive, was_alive, since, route })
    }

    fn unix(&self, now: Duration) -> Duration {
        self.date.1 + now.saturating_sub(self.date.0)
    }

    fn output(&mut self, output: Output) {
        let is_send = matches!(output, Output::Send { .. });
        if is_send && self.outputs.len() >= MAX_OUTPUTS {
            self.outputs_lost += 1;
        } else if is_send || !self.outputs.iter().rev().take(8).any(|waiting| *waiting == output) {
            self.outputs.push_back(output);
        }
    }

    fn warn(&mut self, warning: String) {
        self.output(Output::Warning(warning));
    }

    /// Our document is to be signed again, as soon as the rate of our changes allows.
    fn sign_at(&mut self, due: Duration) {
        let due = due.max(self.ours.paid.saturating_sub(CHANGE_BURST));
        self.ours.due = Some(self.ours.due.map_or(due, |before| before.min(due)));
    }

    /// Writes our document; where it is another, signs it and tells the neighbours.
    fn sign(&mut self, now: Duration) {
        self.ours.due = None;
        let mut facts = self.ours.facts.clone();
        for (key, session) in self.sessions.iter_mut().filter(|(_, session)| session.was_up) {
            facts.links.push(session.pulse.tell(*key));
        }
        facts.tidy();
        let before = self.store.get(&self.us).map(|replica| replica.document.clone());
        let (pages, left_out) = paginate(&records(&facts), before.as_ref().map_or(1, |before| before.pages.len()));
        if !self.ours.is_stale && before.as_ref().is_some_and(|before| *before.pages == *pages) {
            return;
        }
        if left_out > 0 {
            self.warn(format!("this member has more to say than a member may: {left_out} records are left out"));
        }
        self.ours.is_stale = false;
        self.ours.paid = self.ours.paid.max(now) + CHANGE_EVERY;
        self.ours.links_told = now;
        self.ours.version = (self.ours.version + 1).min(MAX_VERSION);
        let document = Document::sign(&self.signer, self.ours.incarnation, self.ours.version, pages);
        self.store.publish(Arc::new(document));
        self.changed = now;
        let above = before.map_or(0, |before| before.head.version);
        for session in self.sessions.values_mut().filter(|session| session.was_up) {
            session.outbox.push(now, self.us, above);
        }
        self.graph_changed(now);
    }

    /// Somebody has a document of ours that we did not make in this life, or one that is older.
    fn met_ourselves(&mut self, now: Duration, head: &Head, from: PublicKey) {
        let Some(ours) = self.store.get(&self.us).map(|replica| replica.document.head.clone()) else { return };
        if head.rank() < ours.rank() {
            if let Some(session) = self.sessions.get_mut(&from) {
                session.outbox.push(now, self.us, head.version);
            }
            return;
        }
        if now > self.ours.jumped + PEACE {
            self.ours.jumps = 0;
        }
        if head.incarnation != self.ours.incarnation {
            self.ours.jumps += 1;
        }
        self.ours.jumped = now;
        self.ours.version = self.ours.version.max(head.version);
        self.ours.is_stale = true;
        let pause = match self.ours.jumps.checked_sub(JUMPS_TO_WARN) {
            None => Duration::ZERO,
            Some(more) => (Duration::from_secs(1) * 2u32.pow(more.min(6))).min(LONGEST_JUMP),
        };
        if self.ours.jumps >= JUMPS_TO_WARN && self.ours.jumps.is_power_of_two() || self.ours.jumps == JUMPS_TO_WARN {
            self.warn(format!(
                "another host uses this member's key {}: it calls itself incarnation {:016x}, this one is {:016x}; \
                 give one of them a key of its own",
                self.us, head.incarnation, self.ours.incarnation
            ));
        }
        if pause.is_zero() {
            self.sign_at(now);
        } else if self.ours.due.is_none() {
            self.sign_at(now + pause);
        }
    }

    /// A member was forgotten, or is none any more.
    fn left(&mut self, now: Duration, key: PublicKey) {
        if self.lives.remove(&key).is_some() {
            self.output(Output::Left(key));
            self.graph_changed(now);
        }
        self.origins.remove(&key);
    }
}

impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Membership").field("us", &self.us).field("lives", &self.lives).finish_non_exhaustive()
    }
}
