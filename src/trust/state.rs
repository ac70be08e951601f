//! The trust of one member, all of it: its rules, its certificate, and what it does as a joiner, as an issuer, or as one who
//! carries messages between the two.
//!
//! ```text
//!  stranger ── Join ──► any member ── Forward ──► issuer        with the session's key as the asker's
//!  stranger ◄─ Joined ── that member ◄─ Answer ── issuer        or Refused
//!  member ── Renew ──► an issuer, or through a member           in the last third of a certificate, and after a rotation
//!  anyone ── Show ──► whoever it has a fresh session with       its certificate, and the ledger
//! ```
//!
//! Messages go in, [`Output`]s come out, in order: what is to be saved stands before what may leave because of it.
//! `now` is a clock that does not jump, `unix` the time since 1970.

use super::authority::Authority;
use super::certificate::Certificate;
use super::issuer::{Granted, Issuer, Refusal};
use super::joiner::{Joiner, Step, clock_trouble};
use super::message::{Joined, Message};
use super::policy::{Policy, Standing};
use super::record::{Blob, Record, TOKEN_SLOT, invite_slot};
use super::token::{Introducer, MAX_INTRODUCERS, Token};
use crate::wire::key::{AuthorityKey, PublicKey};
use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv4Addr;
use std::time::Duration;

/// But not before the ledger that tells of the rotation has reached everybody: without it a certificate by the next
/// authority counts for nothing.
const LEDGER_FIRST: Duration = Duration::from_secs(10);
/// Messages carried to the issuer and back, a second: a rollout of hosts, not a flood. More wait for their next attempt.
const FORWARDS_A_SECOND: u32 = 20;
/// For how long `weft status` tells that a member does not let us in: a stranger's session lasts 20 s, and is tried again.
const REFUSED_LATELY: Duration = Duration::from_secs(120);

/// What a member is, for its trust.
pub struct Settings {
    /// Its key.
    pub key: PublicKey,
    /// Its name by the file.
    pub name: String,
    /// Its tunnel address.
    pub tunnel_address: Ipv4Addr,
    /// Its rules by the file.
    pub policy: Policy,
    /// The authority whose key it holds.
    pub authority: Option<Authority>,
    /// What it remembers.
    pub records: Vec<Record>,
}

/// What follows from an input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// To be on the disk before anything behind it is done; if that fails, the rest of the outputs must not happen.
    Save(Record),
    /// To be gone from the disk: a slot.
    Forget(String),
    /// A message for a peer.
    Send {
        /// Whom.
        to: PublicKey,
        /// The payload on the mesh's port.
        payload: Vec<u8>,
    },
    /// This member's own certificate is another: it is to be announced.
    Certificate(Vec<u8>),
    /// The ledger in force is another: it is to be spread, and everybody judged again.
    Ledger {
        /// Its version.
        version: u64,
        /// Its bytes.
        bytes: Vec<u8>,
    },
    /// A peer has shown that it is a member, or was made one here.
    Admitted {
        /// Which.
        key: PublicKey,
        /// What it may call itself.
        standing: Standing,
        /// Its certificate.
        certificate: Vec<u8>,
    },
    /// A peer has shown that it is none: why.
    Stranger(PublicKey, String),
    /// This host has joined, by this name.
    Joined(String),
    /// This host's join has failed for good: why.
    JoinFailed(String),
    /// Something an operator should read.
    Warning(String),
}

/// How often what happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Invitations redeemed here.
    pub joined: u64,
    /// Certificates renewed here.
    pub renewed: u64,
    /// Joins and renewals refused here.
    pub refused: u64,
    /// Attempts that were not even answered.
    pub unanswered: u64,
    /// Messages carried for others.
    pub forwarded: u64,
    /// Messages not carried, being too many, or for nobody known.
    pub not_forwarded: u64,
    /// Messages that could not be read, or that made no sense.
    pub malformed: u64,
    /// Ledgers that nobody we believe stands behind.
    pub ledgers_refused: u64,
}

impl Counters {
    /// Name → count, also of what never happened.
    pub fn named(&self) -> BTreeMap<String, u64> {
        let Self { joined, renewed, refused, unanswered, forwarded, not_forwarded, malformed, ledgers_refused } =
            *self;
        let all = [
            ("joined", joined),
            ("renewed", renewed),
            ("refused", refused),
            ("unanswered", unanswered),
            ("forwarded", forwarded),
            ("not_forwarded", not_forwarded),
            ("malformed", malformed),
            ("ledgers_refused", ledgers_refused),
        ];
        all.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
    }
}

/// The trust of one member.
pub struct TrustState {
    key: PublicKey,
    name: String,
    tunnel_address: Ipv4Addr,
    policy: Policy,
    own: Option<Vec<u8>>,
    issuer: Option<Issuer>,
    joiner: Option<Joiner>,
    introducers: Vec<Introducer>,
    /// Members that are known to issue.
    issuers: Vec<PublicKey>,
    /// Members that whoever joins here is told of.
    known: Vec<Introducer>,
    next_renewal: Option<Duration>,
    wishes: renewal::Wishes,
    /// Until when, since 1970, this issuer goes on with its certificate by the authority before.
    rotated_until: Duration,
    renewals: usize,
    forwards: (u64, u32),
    outputs: VecDeque<Output>,
    counters: Counters,
    doubt: Option<String>,
    /// When a member did not let us in, and why.
    refused: Option<(Duration, String)>,
    issuer_trouble: Option<String>,
}

impl TrustState {
    /// A member that remembers its records. A certificate by an authority the file no longer names is kept: it may come
    /// back into force with the file.
    pub fn new(settings: Settings) -> Self {
        let Settings { key, name, tunnel_address, policy, authority, records } = settings;
        let mut state = Self {
            key,
            name,
            tunnel_address,
            policy,
            own: None,
            issuer: None,
            joiner: None,
            introducers: Vec::new(),
            issuers: Vec::new(),
            known: Vec::new(),
            next_renewal: None,
            wishes: renewal::Wishes::default(),
            rotated_until: Duration::ZERO,
            renewals: 0,
            forwards: (0, 0),
            outputs: VecDeque::new(),
            counters: Counters::default(),
            doubt: None,
            refused: None,
            issuer_trouble: None,
        };
        for record in &records {
            match record {
                Record::Ledger(ledger) => drop(state.policy.adopt(&ledger.0)),
                Record::Certificate(certificate) => state.prefer(certificate.0.clone()),
                Record::Introducers(introducers) => state.introducers.clone_from(introducers),
                Record::Token(line) => match Token::parse(line) {
                    Ok(token) => state.joiner = Some(Joiner::new(token, key, tunnel_address)),
                    Err(error) => state.outputs.push_back(Output::Warning(error.to_string())),
                },
                Record::Invite(_) | Record::Issued(_) => {}
            }
        }
        state.issuer = authority.map(|authority| Issuer::new(authority, records));
        state
    }

    /// Takes a certificate of this member from a file, unless a later one is known.
    pub fn prefer(&mut self, certificate: Vec<u8>) {
        let serial = |bytes: &[u8]| Certificate::open(bytes, |_| true).map_or(0, |certificate| certificate.serial);
        if self.own.as_ref().is_none_or(|own| serial(own) < serial(&certificate)) {
            self.own = Some(certificate);
        }
    }

    /// The rules in force.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Changes what of the rules the file says: authorities, names and pinned keys.
    pub fn change_rules(&mut self, change: impl FnOnce(&mut Policy)) {
        change(&mut self.policy);
    }

    /// This member's certificate.
    pub fn certificate(&self) -> Option<&[u8]> {
        self.own.as_deref()
    }

    /// The invitation that is being redeemed.
    pub fn joining(&self) -> Option<&Token> {
        self.joiner.as_ref().map(Joiner::token)
    }

    /// The members to call while joining, and those this one came in through.
    pub fn introducers(&self) -> &[Introducer] {
        self.joining().map_or(&self.introducers, |token| &token.introducers)
    }

    /// Whether this member issues certificates.
    pub fn is_issuer(&self) -> bool {
        self.issuer.is_some()
    }

    /// The authority whose key this member holds.
    pub fn authority(&self) -> Option<AuthorityKey> {
        self.issuer.as_ref().map(Issuer::key)
    }

    /// Who else issues, as members say of themselves.
    pub fn set_issuers(&mut self, issuers: Vec<PublicKey>) {
        self.issuers = issuers;
    }

    /// Which members, besides this one, whoever joins here is told of: the first few.
    pub fn set_known(&mut self, known: Vec<Introducer>) {
        self.known = known;
        self.known.truncate(MAX_INTRODUCERS);
    }

    /// How often what happened.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// What comes next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// What an operator should know.
    pub fn warnings(&self, unix: Duration) -> Vec<String> {
        let mut warnings = Vec::new();
        if let Some(token) = self.joining() {
            let why = self.doubt.as_ref().map_or_else(|| "no introducer has answered yet".to_owned(), Clone::clone);
            warnings.push(format!("joining as '{}': {why}", token.name));
        } else if let Some(own) = &self.own {
            warnings.extend(clock_trouble(&self.policy, unix, &self.key, own));
        }
        // It is said again with each session that is refused, and is over when it is not.
        let lately = |(at, _): &&(Duration, String)| unix.saturating_sub(*at) < REFUSED_LATELY;
        if let Some((_, reason)) = self.refused.as_ref().filter(lately) {
            warnings.push(format!("a member does not let this host in: {reason}"));
        }
        warnings.extend(self.issuer_trouble.clone());
        if let Some(leading) = self.policy.leading() {
            let told = |old: &AuthorityKey| {
                format!(
                    "authority {old} of the file was succeeded by {leading}: write that into 'authority' of [trust]"
                )
            };
            warnings.extend(self.policy.succeeded().map(told));
        }
        warnings
    }

    /// A session with a peer began: it is shown who we are.
    pub fn session_up(&mut self, key: PublicKey) {
        // A certificate that an invitation is to replace is not worth a refusal.
        if let Some(own) = self.own.as_ref().filter(|_| self.joiner.is_none()) {
            let ledger = self.policy.ledger().map(|ledger| ledger.bytes().to_vec());
            let payload = Message::Show(own.clone(), ledger).bytes();
            self.outputs.push_back(Output::Send { to: key, payload });
        }
    }

    /// A message about trust of the peer `from`, which is a member or not.
    pub fn input(&mut self, now: Duration, unix: Duration, from: PublicKey, is_member: bool, payload: &[u8]) {
        let Ok(message) = Message::parse(payload) else {
            self.counters.malformed += 1;
            return;
        };
        match message {
            Message::Join(_) | Message::Renew(..) if self.issuer.is_some() => {
                if let Some(answer) = self.grant(now, unix, from, from, message) {
                    self.send(from, &answer);
                }
            }
            Message::Join(_) | Message::Renew(..) => self.carry(now, from, payload),
            Message::Forward(asker, inner) if is_member && self.issuer.is_some() => {
                let Ok(message @ (Message::Join(_) | Message::Renew(..))) = Message::parse(&inner) else {
                    self.counters.malformed += 1;
                    return;
                };
                if let Some(answer) = self.grant(now, unix, from, asker, message) {
                    self.send(from, &Message::Answer(asker, answer.bytes()));
                }
            }
            Message::Answer(asker, inner) if is_member => match Message::parse(&inner) {
                Ok(Message::Joined(_) | Message::Refused(_) | Message::Renewed(..)) if self.may_carry(now) => {
                    self.counters.forwarded += 1;
                    self.outputs.push_back(Output::Send { to: asker, payload: inner });
                }
                Ok(Message::Joined(_) | Message::Refused(_) | Message::Renewed(..)) => {
                    self.counters.not_forwarded += 1;
                }
                _ => self.counters.malformed += 1,
            },
            Message::Joined(_) | Message::Refused(_) if self.joiner.is_some() => self.joined(unix, &from, message),
            Message::Renewed(certificate, remark) => self.renewed(unix, certificate, remark.filter(|_| is_member)),
            Message::Show(certificate, ledger) => {
                if let Some(ledger) = ledger {
                    self.ledger_input(unix, &ledger);
                }
                match self.policy.judge(unix, &from, Some(&certificate)) {
                    Ok(standing) => self.outputs.push_back(Output::Admitted { key: from, standing, certificate }),
                    Err(error) => {
                        let reason = error.to_string();
                        self.send(from, &Message::Refused(reason.clone()));
                        self.outputs.push_back(Output::Stranger(from, reason));
                    }
                }
            }
            Message::Refused(reason) if is_member => self.refused = Some((unix, reason)),
            Message::Refused(_) => {}
            Message::Forward(..) | Message::Joined(_) | Message::Answer(..) => self.counters.malformed += 1,
        }
    }

    /// Time passed. Called about once a second.
    pub fn tick(&mut self, now: Duration, unix: Duration) {
        if let Some(joiner) = &mut self.joiner {
            match joiner.token().check_time(unix) {
                // The clock here may be wrong; the issuer's word counts. But it is not asked for ever.
                Err(error) if self.doubt.is_some() => {
                    self.joiner = None;
                    self.outputs.push_back(Output::Forget(TOKEN_SLOT.to_owned()));
                    self.outputs.push_back(Output::JoinFailed(error.to_string()));
                }
                _ => {
                    let asked = joiner.ask(now).into_iter();
                    self.outputs.extend(asked.map(|(to, payload)| Output::Send { to, payload }));
                }
            }
        }
        if let Some(issuer) = &mut self.issuer {
            let old = issuer.forget_old(unix).into_iter().map(|id| Output::Forget(invite_slot(id)));
            self.outputs.extend(old);
            self.certify_itself(unix);
        } else {
            self.ask_for_renewal(now, unix);
        }
    }

    /// Those who issue, and those who may know who does.
    fn helpers(&self) -> impl Iterator<Item = PublicKey> {
        let introducers = self.introducers.iter().map(|introducer| introducer.key);
        let mut all: Vec<_> =
            self.issuers.iter().copied().chain(introducers).filter(|key| *key != self.key).collect();
        let mut seen = std::collections::BTreeSet::new();
        all.retain(|key| seen.insert(*key));
        all.into_iter()
    }

    /// What the issuer answers; nothing to one who was wrong too often.
    fn grant(
        &mut self,
        now: Duration,
        unix: Duration,
        from: PublicKey,
        asker: PublicKey,
        message: Message,
    ) -> Option<Message> {
        let (Some(issuer), policy) = (&mut self.issuer, &self.policy) else { return None };
        let (granted, is_join) = match message {
            Message::Join(join) => (issuer.join(now, unix, policy, from, asker, &join), true),
            Message::Renew(shown, wants) => (issuer.renew(unix, policy, asker, &shown, &wants), false),
            _ => return None,
        };
        match granted {
            Ok(Granted { certificate, records, remark }) => {
                if is_join {
                    self.counters.joined += 1;
                } else {
                    self.counters.renewed += 1;
                }
                self.save(records);
                if !is_join {
                    return Some(Message::Renewed(certificate, remark));
                }
                if let Ok(standing) = self.policy.judge(unix, &asker, Some(&certificate)) {
                    let certificate = certificate.clone();
                    self.outputs.push_back(Output::Admitted { key: asker, standing, certificate });
                }
                let ledger = self.policy.ledger().map(|ledger| ledger.bytes().to_vec());
                Some(Message::Joined(Joined { certificate, ledger, introducers: self.known.clone() }))
            }
            Err(Refusal::Deaf) => {
                self.counters.unanswered += 1;
                None
            }
            Err(refusal) => {
                self.counters.refused += 1;
                Some(Message::Refused(refusal.to_string()))
            }
        }
    }

    /// Carries a join or a renewal to a member that issues.
    fn carry(&mut self, now: Duration, asker: PublicKey, payload: &[u8]) {
        let issuer = self.helpers().find(|key| *key != asker);
        match issuer.filter(|_| self.may_carry(now)) {
            Some(issuer) => {
                self.counters.forwarded += 1;
                self.send(issuer, &Message::Forward(asker, payload.to_vec()));
            }
            None => self.counters.not_forwarded += 1,
        }
    }

    fn may_carry(&mut self, now: Duration) -> bool {
        let (second, count) = &mut self.forwards;
        if *second != now.as_secs() {
            (*second, *count) = (now.as_secs(), 0);
        }
        *count += 1;
        *count <= FORWARDS_A_SECOND
    }

    fn joined(&mut self, unix: Duration, from: &PublicKey, message: Message) {
        let Some(joiner) = &self.joiner else { return };
        match joiner.input(unix, from, message) {
            None => {}
            Some(Step::Doubt(reason)) => self.doubt = Some(reason),
            Some(Step::Failed(reason)) => {
                self.joiner = None;
                self.outputs.push_back(Output::Forget(TOKEN_SLOT.to_owned()));
                self.outputs.push_back(Output::JoinFailed(reason));
            }
            Some(Step::Joined(joined)) => {
                let token = joiner.token().clone();
                self.joiner = None;
                self.doubt = None;
                self.introducers = token.introducers;
                let known: Vec<_> = self.introducers.iter().map(|introducer| introducer.key).collect();
                let more =
                    joined.introducers.into_iter().filter(|more| !known.contains(&more.key) && more.key != self.key);
                self.introducers.extend(more);
                self.introducers.truncate(MAX_INTRODUCERS);
                self.outputs.push_back(Output::Save(Record::Introducers(self.introducers.clone())));
                if let Some(ledger) = joined.ledger {
                    self.ledger_input(unix, &ledger);
                }
                self.take_certificate(joined.certificate);
                self.outputs.push_back(Output::Forget(TOKEN_SLOT.to_owned()));
                self.outputs.push_back(Output::Joined(token.name));
            }
        }
    }

    /// A ledger that somebody brought; whether it took the place of the one in force.
    pub fn ledger_input(&mut self, unix: Duration, bytes: &[u8]) -> bool {
        match self.policy.adopt(bytes) {
            Ok(true) => {
                self.spread_ledger();
                let missing = self.issuer.as_ref().and_then(|issuer| issuer.missing(unix, &self.policy));
                if missing.is_some_and(|ledger| self.policy.adopt(ledger.bytes()) == Ok(true)) {
                    self.spread_ledger();
                }
                true
            }
            Ok(false) => false,
            Err(_) => {
                self.counters.ledgers_refused += 1;
                false
            }
        }
    }

    fn spread_ledger(&mut self) {
        if let Some(ledger) = self.policy.ledger() {
            let (version, bytes) = (ledger.version, ledger.bytes().to_vec());
            self.outputs.push_back(Output::Save(Record::Ledger(Blob(bytes.clone()))));
            self.outputs.push_back(Output::Ledger { version, bytes });
        }
    }

    fn save(&mut self, records: Vec<Record>) {
        self.outputs.extend(records.into_iter().map(Output::Save));
    }

    fn send(&mut self, to: PublicKey, message: &Message) {
        self.outputs.push_back(Output::Send { to, payload: message.bytes() });
    }
}

#[path = "state/operator.rs"]
mod operator;
#[path = "state/renewal.rs"]
mod renewal;

#[cfg(test)]
#[path = "state/tests.rs"]
mod tests;
