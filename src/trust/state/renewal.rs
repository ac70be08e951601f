//! Renewal of this member's certificate: in its last third, after a rotation, and when it is to have more slices.

use super::{LEDGER_FIRST, Output, TrustState};
use crate::trust::certificate::Certificate;
use crate::trust::message::Message;
use crate::trust::record::{Blob, Record};
use crate::wire::cidr::Cidr;
use crate::wire::key::{AuthorityKey, PublicKey};
use std::time::Duration;

/// How long to wait for an answer to a renewal before another is asked.
const RENEW_PAUSE: Duration = Duration::from_secs(30);
/// After a rotation all members renew: spread over these seconds, by their keys.
pub(super) const RENEW_SPREAD: u64 = 20;
/// How long to wait before a wish for slices is told again, at first. Nobody is in the way while a wish is open but those who
/// want an address of this member.
const WISH_PAUSE: Duration = Duration::from_secs(5);
/// And at most, after it was told in vain again and again.
const MAX_WISH_PAUSE: Duration = Duration::from_secs(600);

/// Slices that this member lacks.
#[derive(Debug, Default)]
pub(super) struct Wishes {
    /// The subnets in which it wants one more.
    wants: Vec<Cidr>,
    next: Duration,
    pause: Duration,
    /// Why the issuer did not give them.
    trouble: Option<String>,
}

impl TrustState {
    /// The slices of this member's certificate, if it counts, and if they were not reclaimed.
    pub fn slices(&self, unix: Duration) -> Vec<Cidr> {
        self.own_certificate(unix).map_or_else(Vec::new, |own| own.slices)
    }

    /// Says which subnets this member gives slices of, as an issuer (`None`: another one does), which slices other members say they
    /// have, and in which subnets this member itself wants one more.
    pub fn set_slices(&mut self, plan: Option<Vec<Cidr>>, said: Vec<(PublicKey, Cidr)>, wants: Vec<Cidr>) {
        if let Some(issuer) = &mut self.issuer {
            issuer.set_slices(plan, said);
        }
        if self.wishes.wants != wants {
            self.wishes = Wishes { wants, ..Wishes::default() };
        }
    }

    /// Why the issuer did not give what this member lacks.
    pub fn slice_trouble(&self) -> Option<&str> {
        self.wishes.trouble.as_deref()
    }

    /// Whether the slices of a member were taken from it since its certificates of then.
    pub fn has_reclaimed(&self, key: &PublicKey) -> bool {
        self.policy.ledger().is_some_and(|ledger| ledger.reclaimed.iter().any(|reclaim| reclaim.key == *key))
    }

    /// The certificate of this member, if it counts.
    pub(super) fn own_certificate(&self, unix: Duration) -> Option<Certificate> {
        self.policy.certificate(unix, &self.key, self.own.as_ref()?).ok()
    }

    /// Keeps this issuer's own certificate as it should be.
    pub(super) fn certify_itself(&mut self, unix: Duration) {
        let own = self.own_certificate(unix);
        let (Some(issuer), policy) = (&mut self.issuer, &self.policy) else { return };
        let leading: AuthorityKey = issuer.key();
        let is_current = |own: &Certificate| {
            !own.wants_renewal(unix, Some(&leading))
                && own.tunnel_address == self.tunnel_address
                && own.name == self.name
        };
        let is_enough = |own: &Certificate| {
            is_current(own) || unix < self.rotated_until && self.rotated_until.saturating_sub(unix) <= LEDGER_FIRST
        };
        let slices = match &own {
            None => issuer.first_slices(unix, policy, &self.key, Vec::new()),
            Some(own) => {
                let (slices, trouble) =
                    issuer.with_more(unix, policy, &self.key, own.slices.clone(), &self.wishes.wants);
                self.wishes.trouble = trouble;
                slices
            }
        };
        if own.as_ref().is_some_and(|own| is_enough(own) && own.slices == slices) {
            return;
        }
        match issuer.certify(unix, policy, &self.name, self.key, self.tunnel_address, slices) {
            Ok(granted) => {
                self.issuer_trouble = None;
                self.wishes = Wishes::default();
                self.save(granted.records);
                self.take_certificate(granted.certificate);
            }
            Err(error) => self.issuer_trouble = Some(format!("this member cannot certify itself: {error}")),
        }
    }

    /// Asks an issuer, when it is time.
    pub(super) fn ask_for_renewal(&mut self, now: Duration, unix: Duration) {
        let Some(own) = self.own_certificate(unix) else { return };
        if own.wants_renewal(unix, self.policy.leading().as_ref()) {
            let spread = LEDGER_FIRST + Duration::from_secs(u64::from(self.key.0[0]) % RENEW_SPREAD);
            if now < *self.next_renewal.get_or_insert(now + spread) {
                return;
            }
            self.next_renewal = Some(now + RENEW_PAUSE);
        } else {
            self.next_renewal = None;
            let wishes = &mut self.wishes;
            if wishes.wants.is_empty() || now < wishes.next {
                return;
            }
            wishes.pause = (wishes.pause * 2).clamp(WISH_PAUSE, MAX_WISH_PAUSE);
            wishes.next = now + wishes.pause;
        }
        let known: Vec<_> = self.helpers().collect();
        if let Some(&to) = known.get(self.renewals % known.len().max(1)) {
            self.renewals += 1;
            let payload = Message::Renew(self.own.clone().unwrap_or_default(), self.wishes.wants.clone()).bytes();
            self.outputs.push_back(Output::Send { to, payload });
        }
    }

    /// The answer, and why it is not all that was wanted.
    pub(super) fn renewed(&mut self, unix: Duration, certificate: Vec<u8>, remark: Option<String>) {
        let (own, next) = (self.own_certificate(unix), self.policy.certificate(unix, &self.key, &certificate));
        match (own, next) {
            // Nobody can make us go by another name, or go back.
            (Some(own), Ok(next)) if next.serial > own.serial && next.name == own.name => {
                // What is lacking still is said anew.
                self.wishes = Wishes { trouble: remark, ..Wishes::default() };
                self.take_certificate(certificate);
            }
            (Some(own), Ok(next)) if next.serial == own.serial && remark.is_some() => self.wishes.trouble = remark,
            _ => self.counters.malformed += 1,
        }
    }

    /// This member's certificate is another.
    pub(super) fn take_certificate(&mut self, certificate: Vec<u8>) {
        self.outputs.push_back(Output::Save(Record::Certificate(Blob(certificate.clone()))));
        self.own = Some(certificate.clone());
        self.refused = None;
        self.next_renewal = None;
        self.outputs.push_back(Output::Certificate(certificate));
    }
}
