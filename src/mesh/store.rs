//! Replicas of everybody's documents, and what makes them agree: per owner the newest document wins.
//!
//! A newer head is taken in at once, its pages as they come; the document is seen only when it is complete, and until then
//! the one before stays. Whether its owner is a member is judged by what the complete document shows ([`Policy`]). Since
//! "newest" is a total order ([`Head::rank`]) merging is commutative, associative and idempotent: who has heard the same has the same.
//!
//! Nothing is ever marked as deleted. What is not in an owner's newest document is not; an owner that is gone is
//! *retired*: its pages are dropped, its head is kept so that a neighbour that still has it does not bring it back,
//! and so that the owner, should it come back with a clock from the past, is told from where to count.
//!
//! The *digest* is the exclusive or of the hashes of all heads held, in [`BUCKETS`] parts by owner. Two members whose digests differ by
//! the same value as before differ in the same documents as before, whatever both have learned since.
//!
//! Everything is bounded: owners, pages, bytes in all, strangers that are being looked at, and how often an owner
//! may change ([`Counters`] says what was hit).

use super::document::{Archive, Document, Hash, Head, MAX_PAGE, Page, hash};
use crate::trust::{Policy, Standing};
use crate::wire::key::PublicKey;
use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Members, as many as a file may have peers.
pub const MAX_MEMBERS: usize = 4096;
/// Bytes of all documents: three times what a thousand members with twenty attachments each need.
pub const MAX_BYTES: usize = 32 << 20;
/// Owners that are no members and whose documents, from one neighbour, are looked at, to see whether they are: as many joins
/// at one moment.
pub const MAX_STRANGERS: usize = 64;
/// Bytes of pages whose documents are not complete.
pub const MAX_PENDING: usize = 8 << 20;
/// Owners remembered as no members, or as gone. The one that was heard longest ago gives way.
pub const MAX_REMEMBERED: usize = 1024;
/// Parts of the digest.
pub const BUCKETS: usize = 64;
/// An owner's documents heeded: eight a second …
const CHANGE_EVERY: Duration = Duration::from_millis(125);
/// … after forty at once. A member says less than half of that of itself.
const CHANGE_BURST: Duration = Duration::from_secs(5);

/// What was refused, and how often.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Heads that their owners did not sign.
    pub forged: u64,
    /// Heads older than what is held: replayed, or late.
    pub outdated: u64,
    /// Pages larger than a page may be.
    pub oversized: u64,
    /// Pages that no head asks for.
    pub unasked: u64,
    /// Documents of owners that are no members.
    pub strangers: u64,
    /// Two documents of one version by one owner.
    pub equivocations: u64,
    /// Heads of an owner that changes too often.
    pub hasty: u64,
    /// Heads for which there is no room.
    pub crowded: u64,
    /// Records that were malformed or beyond the limits.
    pub skipped_records: u64,
    /// Messages that could not be read.
    pub malformed: u64,
    /// Messages beyond the rate of a neighbour.
    pub flooded: u64,
}

impl Counters {
    /// Name → count, also of what never happened.
    pub fn named(&self) -> BTreeMap<String, u64> {
        let Self { forged, outdated, oversized, unasked, strangers, equivocations, .. } = *self;
        let Self { hasty, crowded, skipped_records, malformed, flooded, .. } = *self;
        let all = [
            ("forged", forged),
            ("outdated", outdated),
            ("oversized", oversized),
            ("unasked", unasked),
            ("strangers", strangers),
            ("equivocations", equivocations),
            ("hasty", hasty),
            ("crowded", crowded),
            ("skipped_records", skipped_records),
            ("malformed", malformed),
            ("flooded", flooded),
        ];
        all.into_iter().map(|(name, count)| (name.to_owned(), count)).collect()
    }
}

/// What became of a head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is newer than what was held: [`Store::missing`] says which pages are needed, [`Store::complete`] what it became.
    Newer,
    /// It is what is held already.
    Same,
    /// Something newer is held: this.
    Older(Arc<Head>),
    /// It is of our own making, in this or an earlier life, or somebody's who has our key.
    Ours(Arc<Head>),
    /// It is not heeded.
    Refused,
}

/// What became of a document that is complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Pages are missing, or nothing is expected.
    Nothing,
    /// It is held and seen.
    Merged,
    /// Its owner is no member, or is none any more; `was` says whether it was one before.
    Declined {
        /// Whether its owner was a member before.
        was: bool,
    },
}

/// A member's replica.
#[derive(Debug)]
pub struct Replica {
    /// The newest complete document.
    pub document: Arc<Document>,
    /// What its owner may call itself.
    pub standing: Standing,
    /// For each page the version in which it came.
    pub since: Vec<u64>,
}

#[derive(Debug)]
struct Pending {
    head: Arc<Head>,
    /// Who brought it.
    from: PublicKey,
    pages: Vec<Option<Page>>,
}

impl Pending {
    fn bytes(&self) -> usize {
        self.pages.iter().flatten().map(|page| page.len()).sum()
    }
}

/// See the head of this file.
#[derive(Debug)]
pub struct Store {
    us: PublicKey,
    archive: Archive,
    replicas: BTreeMap<PublicKey, Replica>,
    pending: BTreeMap<PublicKey, Pending>,
    /// When an owner's next head may come at the earliest, for those that were in a hurry.
    paced: BTreeMap<PublicKey, Duration>,
    retired: BTreeMap<PublicKey, Arc<Head>>,
    declined: BTreeMap<PublicKey, (u64, Hash)>,
    digest: [u64; BUCKETS],
    bytes: usize,
    pending_bytes: usize,
    /// What was refused.
    pub counters: Counters,
}

impl Store {
    /// Holds nothing yet, for the member `us`.
    pub fn new(us: PublicKey, archive: Archive) -> Self {
        Self {
            us,
            archive,
            replicas: BTreeMap::new(),
            pending: BTreeMap::new(),
            paced: BTreeMap::new(),
            retired: BTreeMap::new(),
            declined: BTreeMap::new(),
            digest: [0; BUCKETS],
            bytes: 0,
            pending_bytes: 0,
            counters: Counters::default(),
        }
    }

    /// Replaces our own document.
    pub fn publish(&mut self, document: Arc<Document>) {
        self.hold(document, Standing::default());
    }

    /// Takes in a head that came from `from`.
    pub fn head(&mut self, now: Duration, head: Head, from: PublicKey) -> Verdict {
        let owner = head.owner;
        let newest = self.newest(&owner);
        if let Some(newest) = newest {
            match head.age(newest) {
                // One that was forgotten and says the same again is there again.
                Ordering::Equal if owner == from && self.is_retired(&owner) => {}
                Ordering::Equal => return Verdict::Same,
                Ordering::Less if owner != self.us => {
                    let newest = newest.clone();
                    self.counters.equivocations += u64::from(head.version == newest.version);
                    self.counters.outdated += 1;
                    return Verdict::Older(newest);
                }
                _ => {}
            }
            self.counters.equivocations += u64::from(head.version == newest.version && head.hash != newest.hash);
        }
        let rank = head.rank();
        if self.declined.get(&owner).is_some_and(|declined| rank <= *declined) {
            self.counters.strangers += 1;
            return Verdict::Refused;
        }
        if !self.has_room(&head, &from) {
            self.counters.crowded += 1;
            return Verdict::Refused;
        }
        if !self.is_paced(now, owner) {
            self.counters.hasty += 1;
            return Verdict::Refused;
        }
        let Some(head) = self.archive.head(head) else {
            self.counters.forged += 1;
            return Verdict::Refused;
        };
        if owner == self.us {
            return Verdict::Ours(head);
        }
        self.pace(now, owner);
        let before = self.take_pending(&owner);
        let held = self.replicas.get(&owner).map(|replica| &replica.document);
        let pages = head.pages.iter().enumerate().map(|(n, wanted)| {
            let held = held.filter(|held| held.head.pages.get(n) == Some(wanted)).map(|held| held.pages[n].clone());
            let came = || before.as_ref().filter(|before| before.head.pages.get(n) == Some(wanted))?.pages[n].clone();
            held.or_else(came)
        });
        let pending = Pending { pages: pages.collect(), head, from };
        self.pending_bytes += pending.bytes();
        self.pending.insert(owner, pending);
        Verdict::Newer
    }

    /// Takes in a page of an owner's newest head. Returns whether it was needed.
    pub fn page(&mut self, owner: &PublicKey, bytes: &[u8]) -> bool {
        if bytes.len() > MAX_PAGE {
            self.counters.oversized += 1;
            return false;
        }
        let Some(Pending { head, pages, .. }) = self.pending.get_mut(owner) else { return false };
        let found = hash(bytes);
        let page: Page = bytes.into();
        let mut is_needed = false;
        for (wanted, place) in head.pages.iter().zip(pages) {
            if *wanted == found && place.is_none() {
                if self.pending_bytes >= MAX_PENDING {
                    self.counters.crowded += 1;
                    return false;
                }
                self.pending_bytes += page.len();
                *place = Some(page.clone());
                is_needed = true;
            }
        }
        self.counters.unasked += u64::from(!is_needed);
        is_needed
    }

    /// The version of the head that waits for pages of this owner, and a bit for each of the pages.
    pub fn missing(&self, owner: &PublicKey) -> Option<(u64, u128)> {
        let Pending { head, pages, .. } = self.pending.get(owner)?;
        let mask =
            pages.iter().enumerate().filter(|(_, page)| page.is_none()).fold(0, |mask, (n, _)| mask | 1u128 << n);
        Some((head.version, mask))
    }

    /// Makes a document seen whose pages are all there, if its owner is a member.
    pub fn complete(&mut self, policy: &Policy, unix: Duration, owner: &PublicKey) -> Outcome {
        if !self.pending.get(owner).is_some_and(|pending| pending.pages.iter().all(Option::is_some)) {
            return Outcome::Nothing;
        }
        let Some(Pending { head, pages, .. }) = self.take_pending(owner) else { return Outcome::Nothing };
        let document = self.archive.document(&head, pages.into_iter().flatten().collect());
        self.counters.skipped_records += document.skipped as u64;
        match policy.judge(unix, owner, document.facts.certificate.as_deref()) {
            Ok(standing) => {
                self.declined.remove(owner);
                self.retired.remove(owner);
                self.hold(document, standing);
                Outcome::Merged
            }
            Err(_) => {
                self.counters.strangers += 1;
                let was = self.remove(owner).is_some();
                remember(&mut self.declined, *owner, head.rank(), |rank| *rank);
                Outcome::Declined { was }
            }
        }
    }

    /// Judges all members again, and those that were none. Returns those whose standing is another, with whether they
    /// are still members.
    pub fn rejudge(&mut self, policy: &Policy, unix: Duration) -> Vec<(PublicKey, bool)> {
        self.declined.clear();
        let mut changed = Vec::new();
        for (owner, replica) in self.replicas.iter_mut().filter(|(owner, _)| **owner != self.us) {
            let certificate = replica.document.facts.certificate.as_deref();
            match policy.judge(unix, owner, certificate) {
                Ok(standing) if standing == replica.standing => {}
                Ok(standing) => {
                    replica.standing = standing;
                    changed.push((*owner, true));
                }
                Err(_) => changed.push((*owner, false)),
            }
        }
        for (owner, _) in changed.iter().filter(|(_, is_member)| !is_member) {
            if let Some(replica) = self.remove(owner) {
                remember(&mut self.declined, *owner, replica.document.head.rank(), |rank| *rank);
            }
        }
        changed
    }

    /// Forgets a member that is gone, but for its head.
    pub fn retire(&mut self, owner: &PublicKey) {
        if let Some(replica) = self.remove(owner) {
            remember(&mut self.retired, *owner, replica.document.head.clone(), |head| head.rank());
        }
    }

    /// Forgets a retired member's head too.
    pub fn unretire(&mut self, owner: &PublicKey) {
        self.retired.remove(owner);
    }

    /// A member's replica, or our own.
    pub fn get(&self, owner: &PublicKey) -> Option<&Replica> {
        self.replicas.get(owner)
    }

    /// Everybody's replicas, ours too, by key.
    pub fn replicas(&self) -> impl Iterator<Item = (&PublicKey, &Replica)> {
        self.replicas.iter()
    }

    /// Whether a document of this version would be newer than what is known, complete or not.
    pub fn is_news(&self, owner: &PublicKey, version: u64) -> bool {
        let declined = self.declined.get(owner).map(|(version, _)| *version);
        let known = self.replicas.get(owner).map(|replica| replica.document.head.version);
        let retired = self.retired.get(owner).map(|head| head.version);
        *owner != self.us && [declined, known, retired].into_iter().flatten().all(|known| version > known)
    }

    /// The digest in its parts.
    pub fn digests(&self) -> &[u64; BUCKETS] {
        &self.digest
    }

    /// The digest of everything held.
    pub fn digest(&self) -> u64 {
        self.digest.iter().fold(0, |all, part| all ^ part)
    }

    /// Owners and versions of one part of the digest.
    pub fn bucket(&self, bucket: usize) -> impl Iterator<Item = (PublicKey, u64)> {
        // Keys of a bucket are neighbours in the order of keys.
        let first =
            PublicKey([&[(bucket * 256 / BUCKETS) as u8][..], &[0; 31]].concat().try_into().unwrap_or([0; 32]));
        let replicas = self.replicas.range(first..).take_while(move |(owner, _)| bucket_of(owner) == bucket);
        replicas.map(|(owner, replica)| (*owner, replica.document.head.version))
    }

    /// Bytes of all documents held, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn newest(&self, owner: &PublicKey) -> Option<&Arc<Head>> {
        let pending = self.pending.get(owner).map(|pending| &pending.head);
        let held = self.replicas.get(owner).map(|replica| &replica.document.head);
        pending.or(held).or_else(|| self.retired.get(owner))
    }

    fn is_retired(&self, owner: &PublicKey) -> bool {
        self.retired.contains_key(owner) && !self.pending.contains_key(owner)
    }

    fn has_room(&self, head: &Head, from: &PublicKey) -> bool {
        if self.replicas.contains_key(&head.owner) || self.pending.contains_key(&head.owner) {
            return self.bytes < MAX_BYTES || head.owner == self.us;
        }
        let theirs = self.pending.iter().filter(|(_, pending)| pending.from == *from);
        let strangers = theirs.filter(|(owner, _)| !self.replicas.contains_key(owner)).count();
        self.replicas.len() < MAX_MEMBERS && strangers < MAX_STRANGERS && self.bytes < MAX_BYTES
    }

    fn is_paced(&self, now: Duration, owner: PublicKey) -> bool {
        self.paced.get(&owner).is_none_or(|free| *free <= now + CHANGE_BURST)
    }

    fn pace(&mut self, now: Duration, owner: PublicKey) {
        if self.paced.len() >= MAX_MEMBERS {
            self.paced.retain(|_, free| *free > now);
        }
        let free = self.paced.entry(owner).or_insert(now);
        *free = (*free).max(now) + CHANGE_EVERY;
    }

    fn hold(&mut self, document: Arc<Document>, standing: Standing) {
        let (owner, version) = (document.head.owner, document.head.version);
        let before = self.remove(&owner);
        let since = document.head.pages.iter().enumerate().map(|(n, page)| {
            let before = before.as_ref().filter(|before| before.document.head.pages.len() == document.pages.len());
            before.filter(|b| b.document.head.pages[n] == *page).map_or(version, |before| before.since[n])
        });
        let since = since.collect();
        self.digest[bucket_of(&owner)] ^= short(&document.head);
        self.bytes += document.size();
        self.replicas.insert(owner, Replica { document, standing, since });
    }

    fn remove(&mut self, owner: &PublicKey) -> Option<Replica> {
        let replica = self.replicas.remove(owner)?;
        self.digest[bucket_of(owner)] ^= short(&replica.document.head);
        self.bytes -= replica.document.size();
        Some(replica)
    }

    /// Gives up documents whose pages nobody asks for any longer.
    pub fn forget_pending(&mut self, is_wanted: impl Fn(&PublicKey) -> bool) {
        let unwanted: Vec<PublicKey> = self.pending.keys().filter(|owner| !is_wanted(owner)).copied().collect();
        unwanted.iter().for_each(|owner| {
            self.take_pending(owner);
        });
    }

    fn take_pending(&mut self, owner: &PublicKey) -> Option<Pending> {
        let pending = self.pending.remove(owner)?;
        self.pending_bytes -= pending.bytes();
        Some(pending)
    }
}

/// Which part of the digest an owner belongs to.
pub fn bucket_of(owner: &PublicKey) -> usize {
    usize::from(owner.0[0]) * BUCKETS / 256
}

fn short(head: &Head) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = head.hash;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// Inserts; where there are too many, the one with the lowest rank gives way.
fn remember<T, R: Ord>(memory: &mut BTreeMap<PublicKey, T>, owner: PublicKey, what: T, rank: impl Fn(&T) -> R) {
    memory.insert(owner, what);
    if memory.len() > MAX_REMEMBERED
        && let Some(oldest) = memory.iter().min_by_key(|(_, what)| rank(what)).map(|(owner, _)| *owner)
    {
        memory.remove(&oldest);
    }
}

#[cfg(test)]
mod tests;
