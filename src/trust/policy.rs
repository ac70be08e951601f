//! Who may be a member: the peers that the file pins by key, and those whose certificate an authority signed.
//!
//! A pinned key is the word of this host's operator and needs nothing else. Anyone else shows a certificate, and it
//! counts if it is for the very key that the tunnel proved, by an authority in force, at this time, not revoked, and its
//! name is allowed. The authorities in force are those of the file and their lawful successors by the [`Ledger`].
//!
//! Clocks are compared with [`CLOCK_TOLERANCE`]. Beyond it a refusal says both times, since one of the clocks may be off.

use super::authority::Unbelieved;
use super::certificate::Certificate;
use super::date::{DAY, date, span};
use super::ledger::Ledger;
use crate::wire::cidr::Cidr;
use crate::wire::key::{AuthorityKey, PublicKey};
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

/// How far two members' clocks may be apart: what a host without NTP drifts in some months.
pub const CLOCK_TOLERANCE: Duration = Duration::from_secs(300);
/// Beyond this a refusal asks whether a clock is wrong.
const ODD: Duration = Duration::from_secs(7 * DAY);

/// What a member that is let in may call itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standing {
    /// The name its certificate gives it; `None` where the file pins it.
    pub name: Option<String>,
    /// The tunnel address its certificate gives it; `None` where the file pins it.
    pub tunnel_address: Option<Ipv4Addr>,
    /// When its certificate ends, since 1970.
    pub expires: Option<Duration>,
    /// The slices its certificate gives it.
    pub slices: Vec<Cidr>,
}

/// Why a key is not let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stranger {
    /// Neither pinned nor certified.
    #[error("it is in no [[peer]] of this member's file and shows no certificate")]
    Unknown,
    /// This member's file has no authority.
    #[error("it is in no [[peer]] of this member's file, which names no authority that could certify it")]
    NoAuthority,
    /// By an authority we do not know, damaged, or false.
    #[error("its certificate does not count: {0}")]
    Unbelieved(#[from] Unbelieved),
    /// It shows somebody else's certificate.
    #[error("it shows the certificate of another member, '{name}'")]
    Borrowed {
        /// Whose.
        name: String,
    },
    /// Before its time.
    #[error(
        "the certificate of '{name}' is not valid before {}, and this host's clock says {}: is a clock wrong, here or \
         at the authority?", date(*.not_before), date(*.clock)
    )]
    NotYet {
        /// Whose.
        name: String,
        /// When it begins.
        not_before: Duration,
        /// What it is here.
        clock: Duration,
    },
    /// After its time.
    #[error("the certificate of '{name}' expired on {}, {} ago{}", date(*.expires),
        span(.clock.saturating_sub(*.expires)), remedy_of_age(*.clock, *.expires))]
    Expired {
        /// Whose.
        name: String,
        /// When it ended.
        expires: Duration,
        /// What it is here.
        clock: Duration,
    },
    /// Its authority stepped down, and the overlap is over.
    #[error(
        "the certificate of '{name}' is by an authority that was replaced, and ended with it on {}: invite it again",
        date(*.ended)
    )]
    Retired {
        /// Whose.
        name: String,
        /// When.
        ended: Duration,
    },
    /// Taken back.
    #[error("the certificate of '{name}' was revoked")]
    Revoked {
        /// Whose.
        name: String,
    },
    /// Not wanted by this member.
    #[error("'{name}' is in 'deny' of this member's file")]
    Denied {
        /// Whose.
        name: String,
    },
    /// Not wanted by this member.
    #[error("'{name}' is not in 'allow' of this member's file")]
    NotAllowed {
        /// Whose.
        name: String,
    },
}

fn remedy_of_age(clock: Duration, expires: Duration) -> String {
    if clock.saturating_sub(expires) < ODD {
        return ": it has not been able to renew it; invite it again".to_owned();
    }
    format!(" by this host's clock ({}): set the clock if that is wrong, else invite it again", date(clock))
}

/// The rules of one member.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    pinned: BTreeSet<PublicKey>,
    authorities: BTreeSet<AuthorityKey>,
    allow: Option<BTreeSet<String>>,
    deny: BTreeSet<String>,
    ledger: Option<Ledger>,
}

impl Policy {
    /// Pins these keys, and no others.
    pub fn pin(&mut self, keys: impl IntoIterator<Item = PublicKey>) {
        self.pinned = keys.into_iter().collect();
    }

    /// Believes these authorities, and no others but their successors. A ledger that none of them stands behind is forgotten.
    pub fn set_authorities(&mut self, authorities: impl IntoIterator<Item = AuthorityKey>) {
        self.authorities = authorities.into_iter().collect();
        if let Some(ledger) = self.ledger.take() {
            self.ledger = Ledger::open(ledger.bytes(), &self.authorities).ok();
        }
    }

    /// Lets in only certified members of these names, or of any; and none of those.
    pub fn set_names(&mut self, allow: Option<Vec<String>>, deny: Vec<String>) {
        self.allow = allow.map(|names| names.into_iter().collect());
        self.deny = deny.into_iter().collect();
    }

    /// Whether any authority is believed.
    pub fn has_authorities(&self) -> bool {
        !self.authorities.is_empty() || self.ledger.is_some()
    }

    /// The ledger in force.
    pub fn ledger(&self) -> Option<&Ledger> {
        self.ledger.as_ref()
    }

    /// The authority that leads: the last successor by the ledger, or the only one of the file.
    pub fn leading(&self) -> Option<AuthorityKey> {
        let only = || self.authorities.first().copied().filter(|_| self.authorities.len() == 1);
        self.ledger.as_ref().map(|ledger| ledger.by).or_else(only)
    }

    /// The authorities of the file that have stepped down: the file is to be brought up to date.
    pub fn succeeded(&self) -> impl Iterator<Item = &AuthorityKey> {
        self.authorities.iter().filter(|key| self.ledger.as_ref().is_some_and(|ledger| ledger.end_of(key).is_some()))
    }

    /// Takes a ledger over if it supersedes the one in force; whether it did.
    ///
    /// # Errors
    /// Nobody that is believed stands behind it.
    pub fn adopt(&mut self, bytes: &[u8]) -> Result<bool, Unbelieved> {
        let mut believed = self.authorities.clone();
        if let Some(ledger) = &self.ledger {
            if ledger.bytes() == bytes {
                return Ok(false);
            }
            // Whoever stepped down has no say in what follows.
            believed.retain(|key| ledger.end_of(key).is_none());
            believed.insert(ledger.by);
        }
        let next = match Ledger::open(bytes, &believed) {
            Ok(next) => next,
            // An edition from before a rotation is old, not false.
            Err(Unbelieved::Other(by)) if self.ledger.as_ref().is_some_and(|ledger| ledger.end_of(&by).is_some()) => {
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        let supersedes = self.ledger.as_ref().is_none_or(|ledger| next.supersedes(ledger));
        if supersedes {
            self.ledger = Some(next);
        }
        Ok(supersedes)
    }

    /// Whether certificates by this authority may count, if only for a while.
    fn believes(&self, authority: &AuthorityKey) -> bool {
        let by_ledger = |ledger: &Ledger| ledger.by == *authority || ledger.end_of(authority).is_some();
        self.authorities.contains(authority) || self.ledger.as_ref().is_some_and(by_ledger)
    }

    /// Whether the holder of `key`, which shows this `certificate`, may be a member at the time `unix` since 1970.
    ///
    /// # Errors
    /// Why not.
    pub fn judge(&self, unix: Duration, key: &PublicKey, certificate: Option<&[u8]>) -> Result<Standing, Stranger> {
        if self.pinned.contains(key) {
            return Ok(Standing::default());
        }
        if self.authorities.is_empty() {
            return Err(Stranger::NoAuthority);
        }
        let certificate = self.certificate(unix, key, certificate.ok_or(Stranger::Unknown)?)?;
        let name = certificate.name;
        if self.deny.contains(&name) {
            return Err(Stranger::Denied { name });
        }
        if self.allow.as_ref().is_some_and(|allowed| !allowed.contains(&name)) {
            return Err(Stranger::NotAllowed { name });
        }
        Ok(Standing {
            name: Some(name),
            tunnel_address: Some(certificate.tunnel_address),
            expires: Some(certificate.expires),
            slices: certificate.slices,
        })
    }

    /// The certificate in these bytes, if it is one of `key` and counts at this time, whatever `allow` and `deny` say; with no slices
    /// where they were reclaimed.
    ///
    /// # Errors
    /// Why it does not count.
    pub fn certificate(&self, unix: Duration, key: &PublicKey, bytes: &[u8]) -> Result<Certificate, Stranger> {
        let mut certificate = Certificate::open(bytes, |by| self.believes(by))?;
        let name = certificate.name.clone();
        if certificate.key != *key {
            return Err(Stranger::Borrowed { name });
        }
        if let Some(ledger) = &self.ledger {
            if ledger.revokes(key, certificate.serial) {
                return Err(Stranger::Revoked { name });
            }
            if ledger.reclaims(key, certificate.serial) {
                certificate.slices.clear();
            }
            if let Some(ended) = ledger.end_of(&certificate.by)
                && unix > ended.saturating_add(CLOCK_TOLERANCE)
            {
                return Err(Stranger::Retired { name, ended });
            }
        }
        let (not_before, expires, clock) = (certificate.not_before, certificate.expires, unix);
        if clock.saturating_add(CLOCK_TOLERANCE) < not_before {
            return Err(Stranger::NotYet { name, not_before, clock });
        }
        if clock > expires.saturating_add(CLOCK_TOLERANCE) {
            return Err(Stranger::Expired { name, expires, clock });
        }
        Ok(certificate)
    }
}

#[cfg(test)]
#[path = "policy/tests.rs"]
mod tests;
