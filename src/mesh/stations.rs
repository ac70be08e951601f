//! Stations: which member has which attachment, out of what all members say of theirs (RFC 7432 §7.7, §10, §15).
//!
//! Each member says what is attached to it: a MAC address, IP addresses, and a *sequence number*. From all of that follows,
//! for each MAC and each IP address of a network, who has it:
//!
//! ```text
//!   claims on one subject        the higher sequence number wins, of equal ones the lower key
//!   alpha: 02:..:05, seq 3   ─┐
//!   beta:  02:..:05, seq 4   ─┴►  beta, until beta withdraws; then alpha at once
//! ```
//!
//! Nothing else matters: not the order in which claims came, not who was first. So members that know the same claims have the
//! same tables. A container that moves gets a sequence number one higher at its new place ([`Stations::next_sequence`]), and is
//! there as soon as that is heard, whether or not its old place has let go of it.
//!
//! # When two do not let go
//!
//! A subject that several claim for [`PATIENCE`] is no move but a duplicate: both owners are named in a warning, once, and its
//! end is told too. If the winner changes [`STORM_MOVES`] times in [`STORM_TIME`] while the losers go on claiming, two
//! hosts are outbidding each other; every change would tear down what works. Then the subject stays where it is for [`FREEZE`]
//! (RFC 7432 §15.1), unless that place gives it up, and a warning says so. Once quiet, all members agree again.
//!
//! # Neighbours' memories
//!
//! A container that moved may have another MAC address than before, and its neighbours remember the old one. So each address
//! says whether others may remember it differently: then they must be told ([`Output::Address`]). For that, what was
//! withdrawn is remembered a while, [`FORMER`] of them; the same memory keeps sequence numbers going up across a gap.
//!
//! Of an address that is heard of for the first time, containers may know more than we do: they found it by asking, and it moved
//! on before news of it came. So it counts as remembered differently too, but no faster than one each [`TELL_EVERY`]: a
//! container hears each of these frames. Of those beyond, neighbours find out by themselves in half a minute (RFC 1122 §2.3.2.1).

mod former;
#[cfg(test)]
mod tests;

use super::facts::Attachment;
use crate::wire::ethernet::Mac;
use crate::wire::key::PublicKey;
pub use former::FORMER;
use former::Former;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

/// How long several may claim one subject before it counts as a duplicate: five times what news takes to spread.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// So many contested changes within this time are a storm (RFC 7432 §15.1: N = 5, M = 180 s).
pub const STORM_MOVES: usize = 5;
/// See [`STORM_MOVES`].
pub const STORM_TIME: Duration = Duration::from_secs(180);
/// How long a storm's subject stays where it is. Long enough to be noticed, short enough to heal by itself.
pub const FREEZE: Duration = Duration::from_secs(60);
/// Claims in all, MAC and IP addresses counted apart: 65,536 attachments with three addresses each. It takes some 64 MiB, and
/// only members that we trust can fill it. Those beyond it are not known here, which is counted.
pub const MAX_CLAIMS: usize = 4 * 65_536;

/// How often neighbours are told of an address that was never heard of before, in the mean: a frame to every port of its network.
pub const TELL_EVERY: Duration = Duration::from_micros(15_625);
/// So much of that at once: 128 addresses, as those of an engine that starts all its containers.
pub const TELL_BURST: Duration = Duration::from_secs(2);

/// What somebody can have, in one network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A MAC address.
    Mac(Mac),
    /// An IP address.
    Address(IpAddr),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mac(mac) => write!(f, "MAC address {mac}"),
            Self::Address(address) => write!(f, "address {address}"),
        }
    }
}

/// What has to be done. In this order, so that what is applied is never further from the truth than it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// A station is at this member now, which may be ourselves, wherever it was.
    Station {
        /// The network.
        vni: u32,
        /// The station.
        mac: Mac,
        /// Where it is.
        member: PublicKey,
        /// By which claim.
        sequence: u32,
    },
    /// A station is no longer at this member.
    NoStation {
        /// The network.
        vni: u32,
        /// The station.
        mac: Mac,
        /// Where it was.
        member: PublicKey,
    },
    /// An IP address is at this MAC address now.
    Address {
        /// The network.
        vni: u32,
        /// The address.
        address: IpAddr,
        /// Whose it is.
        mac: Mac,
        /// It was at another before, or may have been: neighbours here may remember that and must be told.
        tell: bool,
    },
    /// Nobody has this IP address any more.
    NoAddress {
        /// The network.
        vni: u32,
        /// The address.
        address: IpAddr,
    },
    /// Something in this network needs a person's attention, or does no longer.
    Warning {
        /// The network.
        vni: u32,
        /// What is wrong, with the names of who is involved.
        text: String,
        /// It began; otherwise it is over.
        begun: bool,
    },
}

/// Somebody says that he has a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    sequence: u32,
    /// Of equals the lower wins: so it ranks higher.
    member: Reverse<PublicKey>,
    mac: Reverse<Mac>,
}

type Key = (u32, Subject);

/// All claims on one subject, of which there is at least one.
#[derive(Debug, Default)]
struct Contest {
    claims: Vec<Claim>,
    /// What was put out.
    shown: Option<Claim>,
    /// Only while several claim it.
    trouble: Option<Box<Trouble>>,
}

#[derive(Debug)]
struct Trouble {
    since: Duration,
    /// The warning that was given.
    warning: Option<String>,
    /// When who lost it and went on claiming it.
    losses: VecDeque<(Duration, Reverse<PublicKey>)>,
    frozen_until: Option<Duration>,
}

#[derive(Debug, Default)]
struct Member {
    name: String,
    attachments: Vec<Attachment>,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Stations {
    us: PublicKey,
    members: BTreeMap<PublicKey, Member>,
    contests: BTreeMap<Key, Contest>,
    claims: usize,
    /// Subjects in trouble: what time has to be watched for.
    troubled: BTreeSet<Key>,
    former: Former,
    outputs: VecDeque<Output>,
    refused: u64,
    /// Until when [`TELL_EVERY`] is spent.
    told_until: Duration,
}

impl Stations {
    /// Nobody has anything; `us` is our own key.
    pub fn new(us: PublicKey) -> Self {
        Self {
            us,
            members: BTreeMap::new(),
            contests: BTreeMap::new(),
            claims: 0,
            troubled: BTreeSet::new(),
            former: Former::default(),
            outputs: VecDeque::new(),
            refused: 0,
            told_until: Duration::ZERO,
        }
    }

    /// A member has these attachments and no others. Its name is for people.
    pub fn set(&mut self, now: Duration, key: PublicKey, name: &str, attachments: &[Attachment]) {
        let member = self.members.entry(key).or_default();
        name.clone_into(&mut member.name);
        let before = claims(key, &member.attachments);
        let after = claims(key, attachments);
        attachments.clone_into(&mut member.attachments);
        if attachments.is_empty() {
            self.members.remove(&key);
        }
        self.change(now, &before, &after);
    }

    /// We have this attachment, in the place of one with the same MAC address in its network. Ours come and go one by one: there
    /// may be thousands of them.
    pub fn attach(&mut self, now: Duration, name: &str, attachment: Attachment) {
        let member = self.members.entry(self.us).or_default();
        name.clone_into(&mut member.name);
        let after = claims(self.us, std::slice::from_ref(&attachment));
        let before = match member.find(attachment.vni, attachment.mac) {
            Some(at) => claims(self.us, &[std::mem::replace(&mut member.attachments[at], attachment)]),
            None => {
                member.attachments.push(attachment);
                BTreeSet::new()
            }
        };
        self.change(now, &before, &after);
    }

    /// We no longer have the attachment with this MAC address.
    pub fn detach(&mut self, now: Duration, vni: u32, mac: Mac) {
        let Some(member) = self.members.get_mut(&self.us) else { return };
        let Some(at) = member.find(vni, mac) else { return };
        let before = claims(self.us, &[member.attachments.swap_remove(at)]);
        self.change(now, &before, &BTreeSet::new());
    }

    /// A member is gone, and so is all it has.
    pub fn forget(&mut self, now: Duration, member: PublicKey) {
        self.set(now, member, "", &[]);
    }

    /// The sequence number with which an attachment of ours is where its addresses are from now on.
    pub fn next_sequence(&self, vni: u32, mac: Mac, addresses: &[IpAddr]) -> u32 {
        let subjects = addresses.iter().map(|&address| Subject::Address(address)).chain([Subject::Mac(mac)]);
        let known = subjects.flat_map(|subject| {
            let live = self.contests.get(&(vni, subject)).into_iter().flat_map(|contest| &contest.claims);
            let others = live.filter(|claim| claim.member.0 != self.us).map(|claim| claim.sequence);
            others.chain(self.former.get(&(vni, subject)).map(|claim| claim.sequence))
        });
        known.max().map_or(0, |sequence| sequence.saturating_add(1))
    }

    /// Time passed: see [`Self::next_deadline`].
    pub fn tick(&mut self, now: Duration) {
        for subject in self.troubled.clone() {
            self.decide(now, subject);
        }
    }

    /// When [`Self::tick`] has something to do.
    pub fn next_deadline(&self) -> Option<Duration> {
        let of = |key| self.contests.get(key).and_then(|contest: &Contest| contest.trouble.as_deref());
        let due = |trouble: &Trouble| {
            let report = trouble.warning.is_none().then_some(trouble.since + PATIENCE);
            report.into_iter().chain(trouble.frozen_until).min()
        };
        self.troubled.iter().filter_map(of).filter_map(due).min()
    }

    /// What has to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Where all stations are: network, station, member and sequence number.
    pub fn stations(&self) -> impl Iterator<Item = (u32, Mac, PublicKey, u32)> {
        self.shown().filter_map(|(vni, subject, claim)| match subject {
            Subject::Mac(mac) => Some((vni, mac, claim.member.0, claim.sequence)),
            Subject::Address(_) => None,
        })
    }

    /// Whose all IP addresses are: network, address and MAC address.
    pub fn addresses(&self) -> impl Iterator<Item = (u32, IpAddr, Mac)> {
        self.shown().filter_map(|(vni, subject, claim)| match subject {
            Subject::Address(address) => Some((vni, address, claim.mac.0)),
            Subject::Mac(_) => None,
        })
    }

    /// What needs a person's attention now, by network.
    pub fn warnings(&self) -> impl Iterator<Item = (u32, &str)> {
        let of = |key: &Key| Some((key.0, self.contests.get(key)?.trouble.as_ref()?.warning.as_deref()?));
        self.troubled.iter().filter_map(of)
    }

    /// Claims that were not taken because of [`MAX_CLAIMS`].
    pub fn refused(&self) -> u64 {
        self.refused
    }

    /// What a member claims changes from `before` to `after`.
    fn change(&mut self, now: Duration, before: &BTreeSet<(Key, Claim)>, after: &BTreeSet<(Key, Claim)>) {
        let mut touched = BTreeSet::new();
        for &(subject, claim) in before.difference(after) {
            self.withdraw(subject, claim);
            touched.insert(subject);
        }
        for &(subject, claim) in after.difference(before) {
            self.claim(subject, claim);
            touched.insert(subject);
        }
        for subject in touched {
            self.decide(now, subject);
        }
    }

    fn shown(&self) -> impl Iterator<Item = (u32, Subject, Claim)> {
        self.contests.iter().filter_map(|(&(vni, subject), contest)| Some((vni, subject, contest.shown?)))
    }

    fn withdraw(&mut self, key: Key, claim: Claim) {
        let Some(contest) = self.contests.get_mut(&key) else { return };
        let before = contest.claims.len();
        contest.claims.retain(|known| *known != claim);
        self.claims -= before - contest.claims.len();
    }

    fn claim(&mut self, key: Key, claim: Claim) {
        // What is ours is bounded by our ports.
        if self.claims >= MAX_CLAIMS && claim.member.0 != self.us {
            self.refused += 1;
            return;
        }
        self.claims += 1;
        let claims = &mut self.contests.entry(key).or_default().claims;
        // Nearly all have one for all their life.
        claims.reserve_exact(1);
        claims.push(claim);
    }

    /// Finds out who has a subject, after its claims changed or time passed.
    fn decide(&mut self, now: Duration, key: Key) {
        let Some(contest) = self.contests.get_mut(&key) else { return };
        let before = contest.shown;
        let disputed = contest.claims.len() > 1;
        if disputed && contest.trouble.is_none() {
            let losses = VecDeque::new();
            contest.trouble = Some(Box::new(Trouble { since: now, warning: None, losses, frozen_until: None }));
            self.troubled.insert(key);
        }
        let held = contest.trouble.as_deref_mut().and_then(|trouble| trouble.hold(now, &contest.claims, before));
        contest.shown = held.or_else(|| contest.claims.iter().max().copied());
        let after = contest.shown;
        if let (Some(trouble), Some(old), Some(new)) = (&mut contest.trouble, before, after)
            && !old.is_same(&new)
            && contest.claims.iter().any(|claim| claim.is_same(&old))
        {
            trouble.lost(now, old.member);
        }
        let over = match disputed {
            true => None,
            false => contest.trouble.take(),
        };
        if let Some(trouble) = over {
            self.troubled.remove(&key);
            self.outputs.extend(trouble.warning.map(|text| Output::Warning { vni: key.0, text, begun: false }));
        }
        if after.is_none() {
            self.contests.remove(&key);
        }
        self.put_out(now, key, before, after);
        self.warn(now, key);
    }

    /// Says what follows from a change.
    fn put_out(&mut self, now: Duration, (vni, subject): Key, before: Option<Claim>, after: Option<Claim>) {
        if before == after {
            return;
        }
        let former = match after {
            Some(_) => self.former.take(&(vni, subject)),
            None => None,
        };
        if let (Some(claim), None) = (before, after) {
            self.former.keep((vni, subject), claim);
        }
        match subject {
            Subject::Mac(mac) => {
                // What has a higher number must go first.
                let goes =
                    before.filter(|old| after.is_none_or(|new| !old.is_same(&new) && new.sequence < old.sequence));
                self.outputs.extend(goes.map(|old| Output::NoStation { vni, mac, member: old.member.0 }));
                let station = |new: Claim| Output::Station { vni, mac, member: new.member.0, sequence: new.sequence };
                self.outputs.extend(after.map(station));
            }
            Subject::Address(address) => match after {
                None => self.outputs.push_back(Output::NoAddress { vni, address }),
                Some(new) if before.is_none_or(|old| old.mac != new.mac) => {
                    let tell = match before.or(former) {
                        Some(old) => old.mac != new.mac,
                        // What is ours our port announces itself.
                        None => new.member.0 != self.us && self.may_tell(now),
                    };
                    self.outputs.push_back(Output::Address { vni, address, mac: new.mac.0, tell });
                }
                Some(_) => {}
            },
        }
    }

    /// Whether neighbours are told of an address that was never heard of before: see [`TELL_EVERY`].
    fn may_tell(&mut self, now: Duration) -> bool {
        let until = self.told_until.max(now) + TELL_EVERY;
        let may = until <= now + TELL_BURST;
        if may {
            self.told_until = until;
        }
        may
    }

    /// Warns of a duplicate or a storm that was not warned of.
    fn warn(&mut self, now: Duration, key: Key) {
        let (vni, subject) = key;
        let Some(contest) = self.contests.get(&key) else { return };
        let (Some(trouble), Some(shown)) = (&contest.trouble, contest.shown) else { return };
        let frozen = trouble.frozen_until.is_some();
        if trouble.warning.is_some() || !(frozen || now >= trouble.since + PATIENCE) {
            return;
        }
        let owners: Vec<String> = contest.claims.iter().map(|claim| self.owner(vni, claim)).collect();
        let (owners, place) = (owners.join(" and "), self.owner(vni, &shown));
        let text = match frozen {
            true => format!("{subject} keeps changing between {owners}: for {FREEZE:?} it stays with {place}"),
            false => format!("{subject} is used twice, by {owners}: frames for it go to {place}"),
        };
        self.outputs.push_back(Output::Warning { vni, text: text.clone(), begun: true });
        if let Some(trouble) = self.contests.get_mut(&key).and_then(|contest| contest.trouble.as_mut()) {
            trouble.warning = Some(text);
        }
    }

    /// `port web of alpha`.
    fn owner(&self, vni: u32, claim: &Claim) -> String {
        let Some(member) = self.members.get(&claim.member.0) else { return claim.member.0.to_string() };
        match member.find(vni, claim.mac.0) {
            Some(at) => format!("port {} of {}", member.attachments[at].name, member.name),
            None => member.name.clone(),
        }
    }
}

impl Member {
    fn find(&self, vni: u32, mac: Mac) -> Option<usize> {
        self.attachments.iter().position(|known| (known.vni, known.mac) == (vni, mac))
    }
}

impl Claim {
    /// Whether both are the same place's.
    fn is_same(&self, other: &Self) -> bool {
        (self.member, self.mac) == (other.member, other.mac)
    }
}

impl Trouble {
    /// The claim that a storm holds to, as it is now.
    fn hold(&mut self, now: Duration, claims: &[Claim], shown: Option<Claim>) -> Option<Claim> {
        // Who let go lost nothing: it was a move.
        self.losses.retain(|(at, loser)| {
            now.saturating_sub(*at) < STORM_TIME && claims.iter().any(|claim| claim.member == *loser)
        });
        let until = self.frozen_until?;
        if now >= until {
            self.frozen_until = None;
            return None;
        }
        claims.iter().filter(|claim| shown.is_some_and(|shown| claim.is_same(&shown))).max().copied()
    }

    fn lost(&mut self, now: Duration, loser: Reverse<PublicKey>) {
        self.losses.push_back((now, loser));
        if self.losses.len() >= STORM_MOVES {
            self.losses.clear();
            self.frozen_until = Some(now + FREEZE);
            // It deserves a warning of its own.
            self.warning = None;
        }
    }
}

/// What a member claims with these attachments. One that names a MAC address twice claims it with the higher number.
fn claims(member: PublicKey, attachments: &[Attachment]) -> BTreeSet<(Key, Claim)> {
    let mut newest: BTreeMap<(u32, Mac), &Attachment> = BTreeMap::new();
    for attachment in attachments {
        let known = newest.entry((attachment.vni, attachment.mac)).or_insert(attachment);
        if known.sequence < attachment.sequence {
            *known = attachment;
        }
    }
    let mut claims = BTreeSet::new();
    for Attachment { vni, mac, addresses, sequence, .. } in newest.into_values() {
        let claim = Claim { sequence: *sequence, member: Reverse(member), mac: Reverse(*mac) };
        claims.insert(((*vni, Subject::Mac(*mac)), claim));
        claims.extend(addresses.iter().map(|&address| ((*vni, Subject::Address(address)), claim)));
    }
    claims
}
