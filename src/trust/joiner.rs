//! A host that was invited, until it has its certificate.
//!
//! It asks all its introducers again and again: answers may be lost, and some of them may be down. An answer is believed
//! for what it is: a certificate by the authority of the token, for this key and name. A refusal by the issuer itself
//! ends it; one that an introducer brings may be the introducer's own invention, so the others are asked on until the token ends.

use super::certificate::Certificate;
use super::date::{date, span};
use super::message::{Join, Joined, Message};
use super::policy::{Policy, Stranger};
use super::token::{Token, proof};
use crate::wire::key::PublicKey;
use std::net::Ipv4Addr;
use std::time::Duration;

/// The first pause between two rounds of asking; each is half as long again as the one before.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What an answer came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// This host is a member.
    Joined(Joined),
    /// It will not be one by this token; why.
    Failed(String),
    /// Somebody said no, or something that does not count; others are asked on.
    Doubt(String),
}

/// The asking side of a join.
#[derive(Debug)]
pub struct Joiner {
    token: Token,
    key: PublicKey,
    tunnel_address: Ipv4Addr,
    next: Option<Duration>,
    pause: Duration,
}

impl Joiner {
    /// Redeems `token` for this key and tunnel address.
    pub fn new(token: Token, key: PublicKey, tunnel_address: Ipv4Addr) -> Self {
        Self { token, key, tunnel_address, next: None, pause: FIRST_PAUSE }
    }

    /// The invitation.
    pub fn token(&self) -> &Token {
        &self.token
    }

    /// Whom to ask what at the time `now`, on a clock that does not jump; nothing while it is too early.
    pub fn ask(&mut self, now: Duration) -> Vec<(PublicKey, Vec<u8>)> {
        if self.next.is_some_and(|next| now < next) {
            return Vec::new();
        }
        self.next = Some(now + self.pause);
        self.pause = (self.pause * 3 / 2).min(LONGEST_PAUSE);
        let Token { id, secret, .. } = &self.token;
        let join = Join {
            id: *id,
            proof: proof(secret, *id, &self.key, self.tunnel_address),
            tunnel_address: self.tunnel_address,
        };
        let join = Message::Join(join).bytes();
        self.token.introducers.iter().map(|introducer| (introducer.key, join.clone())).collect()
    }

    /// Takes an answer.
    pub fn input(&self, unix: Duration, from: &PublicKey, message: Message) -> Option<Step> {
        let position = self.token.introducers.iter().position(|introducer| introducer.key == *from)?;
        match message {
            Message::Refused(reason) if position == 0 => Some(Step::Failed(reason)),
            Message::Refused(reason) => Some(Step::Doubt(format!("{from} says: {reason}"))),
            Message::Joined(joined) => Some(match self.check(unix, &joined) {
                Ok(()) => Step::Joined(joined),
                Err(reason) => Step::Doubt(format!("the answer of {from} does not count: {reason}")),
            }),
            _ => None,
        }
    }

    /// A time that does not fit is no reason to throw a fresh certificate away: [`clock_trouble`] tells of it.
    fn check(&self, unix: Duration, joined: &Joined) -> Result<(), String> {
        let mut policy = Policy::default();
        policy.set_authorities([self.token.authority]);
        if let Some(ledger) = &joined.ledger {
            policy.adopt(ledger).map_err(|error| format!("the ledger with it: {error}"))?;
        }
        let certificate = match policy.certificate(unix, &self.key, &joined.certificate) {
            Ok(certificate) => certificate,
            Err(Stranger::NotYet { .. } | Stranger::Expired { .. }) => {
                Certificate::open(&joined.certificate, |_| true).map_err(|error| error.to_string())?
            }
            Err(error) => return Err(error.to_string()),
        };
        if certificate.name != self.token.name {
            return Err(format!("it names this host '{}', not '{}'", certificate.name, self.token.name));
        }
        Ok(())
    }
}

/// What is wrong with this host's clock, or with its own certificate, at the time `unix`.
pub fn clock_trouble(policy: &Policy, unix: Duration, key: &PublicKey, own: &[u8]) -> Option<String> {
    let error = policy.certificate(unix, key, own).err()?;
    Some(match error {
        Stranger::NotYet { not_before, clock, .. } => format!(
            "this host's clock is wrong: it says {}, which is {} before this member's certificate was made ({}); set the \
             clock, or other members will not let this one in, nor this one others",
            date(clock),
            span(not_before.saturating_sub(clock)),
            date(not_before)
        ),
        Stranger::Expired { expires, clock, .. } => format!(
            "this member's certificate expired on {}, {} ago by this host's clock ({}): if the clock is right, have it \
             invited again; else set the clock",
            date(expires),
            span(clock.saturating_sub(expires)),
            date(clock)
        ),
        other => format!("this member's own certificate does not count: {other}"),
    })
}
