//! The member that holds the authority's key: it invites, certifies, renews, revokes and hands the authority on.
//!
//! An invitation is redeemed by at most one key: the record that says by which is to be on the disk before the
//! certificate leaves ([`Granted::records`] come first). The same key that asks again is given the same certificate,
//! since the first answer may have been lost. Whoever is wrong too often is not heard for a while; the proof of 128 bits
//! is what keeps a guesser out, the limit keeps it cheap.
//!
//! Several members may hold the key. Each builds on the ledger in force and says again what it has revoked itself, so
//! that two revocations made at once do not lose each other.

use super::authority::Authority;
use super::certificate::Certificate;
use super::date::{DAY, date};
use super::ledger::{Ledger, MAX_REVOKED, MAX_SUCCESSIONS, Revocation, Succession};
use super::message::Join;
use super::policy::Policy;
use super::record::{Blob, Invite, Issued, Record};
use super::token::{InviteId, InviteSecret, is_proof};
use crate::wire::cidr::Cidr;
use crate::wire::key::{AuthorityKey, PublicKey};
use crate::wire::name::is_name;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

/// How long a certificate holds. A third of it, a month, is the time an issuer may be away before members fall out.
pub const LIFETIME: Duration = Duration::from_secs(90 * DAY);
/// The longest an invitation may live: what is not used within a month is forgotten somewhere.
pub const MAX_INVITE_LIFE: Duration = Duration::from_secs(30 * DAY);
/// How long after its end an invitation is still known, to say "expired" or "used" and not "unknown".
const REMEMBERED: Duration = Duration::from_secs(7 * DAY);
/// The most invitations at a time: a day's work of a script that rolls hosts out.
pub const MAX_INVITES: usize = 1024;
/// The most keys with a certificate: four times the members a mesh is made for, since expired ones are remembered a month.
pub const MAX_ISSUED: usize = 4096;
/// How long an expired certificate, or a revocation of one, is remembered: as long as a clock may plausibly be off.
const GRACE: Duration = Duration::from_secs(30 * DAY);
/// Wrong attempts that one key brings before it is not heard. Those that a member carries count against the member, so
/// that none can silence others.
const MAX_WRONG: u32 = 5;
/// For how long it is not heard.
const DEAF: Duration = Duration::from_secs(60);
/// Keys whose wrong attempts are counted: each costs its owner a handshake, and those are limited.
const MAX_WATCHED: usize = 256;

/// Why the issuer refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No such invitation, or the proof is wrong: which of the two is nobody's business.
    #[error("the issuer knows no such invitation: it was withdrawn, ended long ago, or is of another network")]
    Unknown,
    /// Too many wrong attempts: no answer at all.
    #[error("too many wrong attempts")]
    Deaf,
    /// By another key.
    #[error("the invitation for '{0}' was used already by another host: ask for another")]
    Used(String),
    /// Its time is over.
    #[error("the invitation for '{0}' expired on {when}: ask for another", when = date(*.1))]
    Expired(String, Duration),
    /// Taken back since.
    #[error("'{0}' was revoked after it joined: ask for another invitation")]
    Revoked(String),
    /// Somebody has it.
    #[error("the name '{0}' belongs to {1} until {when}: 'weft revoke {0}' frees it", when = date(*.2))]
    NameTaken(String, PublicKey, Duration),
    /// Somebody has it.
    #[error(
        "the tunnel address {0} belongs to '{1}': set tunnel_address in [node] of the joining host to another one"
    )]
    AddressTaken(Ipv4Addr, String),
    /// Somebody has it, or a part.
    #[error("slice {0} overlaps {1} of '{2}': choose another")]
    SliceTaken(Cidr, Cidr, String),
    /// Not a name.
    #[error("'{0}' cannot name a member: a name has 1 to 64 letters, digits, '.', '_' or '-'")]
    NotAName(String),
    /// The time asked for.
    #[error("an invitation lives from one second to 30 days")]
    Life,
    /// At a bound.
    #[error("there are {0} {1} already, and no more are allowed")]
    Full(usize, &'static str),
    /// More than a certificate can say.
    #[error("this is more than fits into a certificate: give it fewer slices")]
    TooMuch,
    /// Another host has rotated.
    #[error(
        "the authority was handed on to {0}, whose key this host does not hold: bring the file of authority_key_file \
         from the host that rotated it"
    )]
    NotLeading(AuthorityKey),
    /// What it shows does not count.
    #[error(transparent)]
    Stranger(#[from] super::policy::Stranger),
    /// Revoked before.
    #[error("'{0}' is revoked already, and has no invitation")]
    RevokedAlready(String),
    /// Nothing to reclaim.
    #[error("'{0}' has no slice that could be reclaimed")]
    NoSlices(String),
    /// Nobody to revoke.
    #[error("no certificate was issued to '{0}' by this host: give the member's public key instead of its name")]
    Nobody(String),
}

/// A certificate that was granted, and what to remember before it leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// The certificate.
    pub certificate: Vec<u8>,
    /// To be saved first.
    pub records: Vec<Record>,
    /// Why it has not all the slices that were wanted.
    pub remark: Option<String>,
}

/// What was revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revoked {
    /// The next ledger; `None` where only invitations were withdrawn.
    pub ledger: Option<Ledger>,
    /// To be saved first.
    pub records: Vec<Record>,
    /// Invitations that are withdrawn, to be forgotten.
    pub withdrawn: Vec<InviteId>,
}

/// The holder of an authority's key.
#[derive(Debug)]
pub struct Issuer {
    authority: Authority,
    invites: BTreeMap<InviteId, Invite>,
    issued: BTreeMap<PublicKey, Issued>,
    /// Wrong attempts that a key brought, and when the last was.
    wrong: BTreeMap<PublicKey, (u32, Duration)>,
    /// What to give slices of; `None` where another member does.
    plan: Option<Vec<Cidr>>,
    /// Slices that members say they have.
    said: Vec<(PublicKey, Cidr)>,
}

impl Issuer {
    /// An issuer that remembers these records.
    pub fn new(authority: Authority, records: impl IntoIterator<Item = Record>) -> Self {
        let mut issuer = Self {
            authority,
            invites: BTreeMap::new(),
            issued: BTreeMap::new(),
            wrong: BTreeMap::new(),
            plan: None,
            said: Vec::new(),
        };
        for record in records {
            match record {
                Record::Invite(invite) => drop(issuer.invites.insert(invite.id, invite)),
                Record::Issued(issued) => drop(issuer.issued.insert(issued.key, issued)),
                _ => {}
            }
        }
        issuer
    }

    /// The authority whose key this is.
    pub fn key(&self) -> AuthorityKey {
        self.authority.key()
    }

    /// Invites a host that will be called `name`; `random` makes the invitation's id and secret.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn invite(
        &mut self,
        unix: Duration,
        policy: &Policy,
        name: &str,
        slices: Vec<Cidr>,
        life: Duration,
        random: [u8; 24],
    ) -> Result<Invite, Refusal> {
        self.check_leading(policy)?;
        if !is_name(name) {
            return Err(Refusal::NotAName(name.to_owned()));
        }
        if life < Duration::from_secs(1) || life > MAX_INVITE_LIFE {
            return Err(Refusal::Life);
        }
        if self.invites.len() >= MAX_INVITES {
            return Err(Refusal::Full(MAX_INVITES, "invitations"));
        }
        self.check_name(unix, name, None)?;
        for slice in &slices {
            self.check_slice(unix, slice, name)?;
        }
        let (mut id, mut secret) = ([0; 8], [0; 16]);
        id.copy_from_slice(&random[..8]);
        secret.copy_from_slice(&random[8..]);
        let id = InviteId(u64::from_be_bytes(id));
        let expires = unix.saturating_add(life).as_secs();
        let secret = InviteSecret::new(secret);
        let invite = Invite { id, secret, name: name.to_owned(), slices, expires, used_by: None };
        self.invites.insert(id, invite.clone());
        Ok(invite)
    }

    /// Invitations that ended long ago: they are forgotten, here and on the disk.
    pub fn forget_old(&mut self, unix: Duration) -> Vec<InviteId> {
        let is_old = |invite: &&Invite| unix > Duration::from_secs(invite.expires).saturating_add(REMEMBERED);
        let old: Vec<_> = self.invites.values().filter(is_old).map(|invite| invite.id).collect();
        old.iter().for_each(|id| drop(self.invites.remove(id)));
        old
    }

    /// The holder of `key` wants to join; `from`, itself or a member that carries it, brings the wish. `now` is any clock
    /// that does not jump.
    ///
    /// # Errors
    /// [`Refusal`]; [`Refusal::Deaf`] is not to be answered.
    pub fn join(
        &mut self,
        now: Duration,
        unix: Duration,
        policy: &Policy,
        from: PublicKey,
        key: PublicKey,
        join: &Join,
    ) -> Result<Granted, Refusal> {
        self.check_heard(now, &from)?;
        let right = |invite: &&Invite| is_proof(&invite.secret, invite.id, &key, join.tunnel_address, &join.proof);
        let Some(invite) = self.invites.get(&join.id).filter(right).cloned() else {
            self.count_wrong(now, from);
            return Err(Refusal::Unknown);
        };
        let name = invite.name.clone();
        if let Some(user) = invite.used_by {
            let issued = self.issued.get(&key).filter(|_| user == key).ok_or(Refusal::Used(name))?;
            if issued.revoked {
                return Err(Refusal::Revoked(invite.name));
            }
            // Perhaps it was asked again because the records could not be saved.
            let records = vec![Record::Invite(invite), Record::Issued(issued.clone())];
            return Ok(Granted { certificate: issued.certificate.0.clone(), records, remark: None });
        }
        let expires = Duration::from_secs(invite.expires);
        if unix > expires {
            return Err(Refusal::Expired(name, expires));
        }
        self.check_name(unix, &name, Some(&key))?;
        let slices = self.first_slices(unix, policy, &key, invite.slices.clone());
        let mut granted = self.certify(unix, policy, &name, key, join.tunnel_address, slices)?;
        let used = Invite { used_by: Some(key), ..invite };
        self.invites.insert(used.id, used.clone());
        granted.records.insert(0, Record::Invite(used));
        Ok(granted)
    }

    /// Certifies a key without an invitation: this member's own.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn certify(
        &mut self,
        unix: Duration,
        policy: &Policy,
        name: &str,
        key: PublicKey,
        tunnel_address: Ipv4Addr,
        slices: Vec<Cidr>,
    ) -> Result<Granted, Refusal> {
        let certificate = Certificate {
            by: self.key(),
            name: name.to_owned(),
            key,
            tunnel_address,
            slices,
            serial: self.next_serial(unix),
            // So that a member whose clock is a little behind believes it at once.
            not_before: unix.saturating_sub(super::policy::CLOCK_TOLERANCE),
            expires: unix.saturating_add(LIFETIME),
            unknown: Vec::new(),
        };
        self.issue(unix, policy, &certificate)
    }

    /// Renews the certificate that the holder of `key` shows, with a further slice of each subnet that it `wants` one of. It gets
    /// the one it has when that is good for long and no slice can be given.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn renew(
        &mut self,
        unix: Duration,
        policy: &Policy,
        key: PublicKey,
        bytes: &[u8],
        wants: &[Cidr],
    ) -> Result<Granted, Refusal> {
        let shown = policy.certificate(unix, &key, bytes)?;
        self.check_name(unix, &shown.name, Some(&key))?;
        // A lost answer is given again.
        if let Some(issued) = self.issued.get(&key)
            && !issued.revoked
            && let Ok(last) = policy.certificate(unix, &key, &issued.certificate.0)
            && last.serial > shown.serial
            && !policy.ledger().is_some_and(|ledger| ledger.reclaims(&key, last.serial))
            && !last.wants_renewal(unix, Some(&self.key()))
        {
            let records = vec![Record::Issued(issued.clone())];
            return Ok(Granted { certificate: issued.certificate.0.clone(), records, remark: None });
        }
        let had = self.slices_of(policy, &key, &shown);
        let (slices, remark) = self.with_more(unix, policy, &key, had, wants);
        if !wants.is_empty() && slices == shown.slices && !shown.wants_renewal(unix, Some(&self.key())) {
            return Ok(Granted { certificate: bytes.to_vec(), records: Vec::new(), remark });
        }
        let next = Certificate {
            slices,
            by: self.key(),
            serial: self.next_serial(unix).max(shown.serial.saturating_add(1)),
            not_before: unix.saturating_sub(super::policy::CLOCK_TOLERANCE),
            expires: unix.saturating_add(LIFETIME),
            ..shown
        };
        self.issue(unix, policy, &next).map(|granted| Granted { remark, ..granted })
    }

    /// Takes back what was issued to `whom`, a name or a public key, and withdraws the invitations for that name.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn revoke(&mut self, unix: Duration, policy: &Policy, whom: &str) -> Result<Revoked, Refusal> {
        let keys: Vec<PublicKey> = match whom.parse() {
            Ok(key) => vec![key],
            Err(_) => self.issued.values().filter(|i| i.name == whom && !i.revoked).map(|i| i.key).collect(),
        };
        let names: Vec<&str> = keys.iter().filter_map(|key| self.issued.get(key)).map(|i| i.name.as_str()).collect();
        let open = |invite: &&Invite| names.contains(&invite.name.as_str()) || invite.name == whom;
        let withdrawn: Vec<_> =
            self.invites.values().filter(|invite| invite.used_by.is_none()).filter(open).map(|i| i.id).collect();
        if keys.is_empty() && withdrawn.is_empty() {
            if self.issued.values().any(|issued| issued.name == whom) {
                return Err(Refusal::RevokedAlready(whom.to_owned()));
            }
            return Err(Refusal::Nobody(whom.to_owned()));
        }
        // Of what this host does not know, no certificate can be later than this.
        let (serial, until) = (self.next_serial(unix), unix.saturating_add(LIFETIME));
        let revoke = |&key: &PublicKey| Revocation { key, serial, until };
        let revoked: Vec<_> = keys.iter().map(revoke).collect();
        let ledger = (!keys.is_empty()).then(|| self.next_ledger(unix, policy, &revoked, &[])).transpose()?;
        let mut records = Vec::new();
        for Revocation { key, serial, .. } in revoked {
            if let Some(issued) = self.issued.get_mut(&key) {
                (issued.revoked, issued.serial) = (true, serial);
                records.push(Record::Issued(issued.clone()));
            }
        }
        withdrawn.iter().for_each(|id| drop(self.invites.remove(id)));
        Ok(Revoked { ledger, records, withdrawn })
    }

    /// Hands the authority on to `next`, whose key is on the disk already; certificates of the old one hold for `overlap`.
    ///
    /// # Errors
    /// [`Refusal`]; the authority is as before.
    pub fn rotate(
        &mut self,
        unix: Duration,
        policy: &Policy,
        next: Authority,
        overlap: Duration,
    ) -> Result<Ledger, Refusal> {
        self.check_leading(policy)?;
        let succession = Succession::new(&self.authority, next.key(), unix.saturating_add(overlap));
        let mut successions = policy.ledger().map_or_else(Vec::new, |ledger| ledger.successions.clone());
        successions.push(succession);
        let too_many = successions.len().saturating_sub(MAX_SUCCESSIONS);
        successions.drain(..too_many);
        let old = std::mem::replace(&mut self.authority, next);
        let ledger = self.signed_ledger(unix, policy, &[], &[], successions);
        if ledger.is_err() {
            self.authority = old;
        }
        ledger
    }

    /// The ledger that is missing when the one in force, which another issuer made, lacks what this one has revoked.
    pub fn missing(&self, unix: Duration, policy: &Policy) -> Option<Ledger> {
        let ledger = policy.ledger()?;
        let lives = |until: u64| Duration::from_secs(until) > unix;
        let is_lost = |issued: &Issued| {
            let reclaimed = issued.reclaimed.filter(|(_, until)| lives(*until));
            issued.revoked && lives(issued.expires) && !ledger.revokes(&issued.key, issued.serial)
                || reclaimed.is_some_and(|(serial, _)| !ledger.reclaims(&issued.key, serial))
        };
        self.issued.values().any(is_lost).then(|| self.next_ledger(unix, policy, &[], &[]).ok()).flatten()
    }

    fn next_ledger(
        &self,
        unix: Duration,
        policy: &Policy,
        revoked: &[Revocation],
        reclaimed: &[Revocation],
    ) -> Result<Ledger, Refusal> {
        self.check_leading(policy)?;
        let successions = policy.ledger().map_or_else(Vec::new, |ledger| ledger.successions.clone());
        self.signed_ledger(unix, policy, revoked, reclaimed, successions)
    }

    fn signed_ledger(
        &self,
        unix: Duration,
        policy: &Policy,
        revoked: &[Revocation],
        reclaimed: &[Revocation],
        successions: Vec<Succession>,
    ) -> Result<Ledger, Refusal> {
        let before = policy.ledger();
        let of = |issued: &Issued, serial: u64, until: u64| Revocation {
            key: issued.key,
            serial,
            until: Duration::from_secs(until),
        };
        let mine = self.issued.values().filter(|issued| issued.revoked);
        let mine = mine.map(|issued| of(issued, issued.serial, issued.expires));
        let known = before.iter().flat_map(|ledger| &ledger.revoked).copied();
        let mut revoked = merged(known.chain(mine).chain(revoked.iter().copied()));
        let mine = self.issued.values();
        let mine = mine.filter_map(|issued| issued.reclaimed.map(|(serial, until)| of(issued, serial, until)));
        let known = before.iter().flat_map(|ledger| &ledger.reclaimed).copied();
        let mut reclaimed = merged(known.chain(mine).chain(reclaimed.iter().copied()));
        for list in [&mut revoked, &mut reclaimed] {
            list.retain(|revocation| revocation.until.saturating_add(GRACE) > unix);
        }
        if revoked.len() + reclaimed.len() > MAX_REVOKED {
            for list in [&mut revoked, &mut reclaimed] {
                list.retain(|revocation| revocation.until > unix);
            }
        }
        // Versions grow also after the issuer's state was restored from a backup.
        let version = before.map_or(0, |ledger| ledger.version.saturating_add(1)).max(millis(unix));
        let unknown = before.map_or_else(Vec::new, |ledger| ledger.unknown().to_vec());
        let ledger = Ledger::sign(&self.authority, version, successions, revoked, reclaimed, unknown);
        ledger.ok_or(Refusal::Full(MAX_REVOKED, "revocations in force; 'weft authority rotate' clears them"))
    }

    fn issue(&mut self, unix: Duration, policy: &Policy, certificate: &Certificate) -> Result<Granted, Refusal> {
        self.check_leading(policy)?;
        let taken = |issued: &&Issued| {
            issued.tunnel_address == certificate.tunnel_address
                && issued.key != certificate.key
                && is_live(issued, unix)
        };
        if let Some(other) = self.issued.values().find(taken) {
            return Err(Refusal::AddressTaken(certificate.tunnel_address, other.name.clone()));
        }
        self.issued.retain(|_, issued| unix < Duration::from_secs(issued.expires).saturating_add(GRACE));
        if self.issued.len() >= MAX_ISSUED && !self.issued.contains_key(&certificate.key) {
            return Err(Refusal::Full(MAX_ISSUED, "certificates"));
        }
        let bytes = certificate.sign(&self.authority).ok_or(Refusal::TooMuch)?;
        let issued = Issued {
            key: certificate.key,
            name: certificate.name.clone(),
            tunnel_address: certificate.tunnel_address,
            slices: certificate.slices.clone(),
            serial: certificate.serial,
            expires: certificate.expires.as_secs(),
            revoked: false,
            reclaimed: self.issued.get(&certificate.key).and_then(|before| before.reclaimed),
            certificate: Blob(bytes.clone()),
        };
        self.issued.insert(issued.key, issued.clone());
        Ok(Granted { certificate: bytes, records: vec![Record::Issued(issued)], remark: None })
    }

    /// Larger than every serial before, also after the issuer's state was restored from a backup.
    fn next_serial(&self, unix: Duration) -> u64 {
        let last = self.issued.values().map(|issued| issued.serial).max().unwrap_or(0);
        last.saturating_add(1).max(millis(unix))
    }

    fn check_leading(&self, policy: &Policy) -> Result<(), Refusal> {
        match policy.ledger() {
            Some(ledger) if ledger.by != self.key() => Err(Refusal::NotLeading(ledger.by)),
            _ => Ok(()),
        }
    }

    fn check_name(&self, unix: Duration, name: &str, key: Option<&PublicKey>) -> Result<(), Refusal> {
        let other = |issued: &&Issued| issued.name == name && key != Some(&issued.key) && is_live(issued, unix);
        match self.issued.values().find(other) {
            Some(other) => Err(Refusal::NameTaken(name.to_owned(), other.key, Duration::from_secs(other.expires))),
            None => Ok(()),
        }
    }

    fn check_slice(&self, unix: Duration, slice: &Cidr, name: &str) -> Result<(), Refusal> {
        let issued = self.issued.values().filter(|issued| is_live(issued, unix)).map(|i| (&i.name, &i.slices));
        let open = self.invites.values().filter(|i| i.used_by.is_none() && Duration::from_secs(i.expires) > unix);
        let all = issued.chain(open.map(|invite| (&invite.name, &invite.slices)));
        for (other, slices) in all.filter(|(other, _)| *other != name) {
            if let Some(taken) = slices.iter().find(|taken| taken.overlaps(slice)) {
                return Err(Refusal::SliceTaken(*slice, *taken, other.clone()));
            }
        }
        Ok(())
    }

    fn check_heard(&mut self, now: Duration, key: &PublicKey) -> Result<(), Refusal> {
        match self.wrong.get(key) {
            Some((_, last)) if now.saturating_sub(*last) >= DEAF => drop(self.wrong.remove(key)),
            Some((count, _)) if *count >= MAX_WRONG => return Err(Refusal::Deaf),
            _ => {}
        }
        Ok(())
    }

    fn count_wrong(&mut self, now: Duration, key: PublicKey) {
        if self.wrong.len() >= MAX_WATCHED
            && !self.wrong.contains_key(&key)
            && let Some(oldest) = self.wrong.iter().min_by_key(|(_, (_, last))| *last).map(|(key, _)| *key)
        {
            self.wrong.remove(&oldest);
        }
        let (count, last) = self.wrong.entry(key).or_default();
        (*count, *last) = (*count + 1, now);
    }
}

/// One for each key: of several the furthest.
fn merged(revocations: impl Iterator<Item = Revocation>) -> Vec<Revocation> {
    let mut by_key: BTreeMap<PublicKey, Revocation> = BTreeMap::new();
    for revocation in revocations {
        let known = by_key.entry(revocation.key).or_insert(revocation);
        known.serial = known.serial.max(revocation.serial);
        known.until = known.until.max(revocation.until);
    }
    by_key.into_values().collect()
}

fn is_live(issued: &Issued, unix: Duration) -> bool {
    !issued.revoked && Duration::from_secs(issued.expires) > unix
}

fn millis(unix: Duration) -> u64 {
    u64::try_from(unix.as_millis()).unwrap_or(u64::MAX)
}

#[path = "issuer/slices.rs"]
mod slices;

#[cfg(test)]
#[path = "issuer/tests.rs"]
mod tests;
