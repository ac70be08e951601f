//! Slices that an issuer gives with certificates, and takes back from members that are gone.
//!
//! One member of a mesh gives them, and it is the one who knows all that were given: they stand in its records of issued
//! certificates, which are on the disk before a certificate leaves. A slice is given to one member until its certificate was
//! revoked, until its slices were reclaimed, or until it ended so long ago that no clock can be in doubt of it.

use super::{Invite, Issued, Issuer, Refusal, is_live};
use crate::ipam::slices::lowest_free;
use crate::trust::certificate::{Certificate, MAX_SLICES};
use crate::trust::ledger::{Ledger, Revocation};
use crate::trust::policy::Policy;
use crate::trust::record::Record;
use crate::wire::cidr::Cidr;
use crate::wire::key::PublicKey;
use std::time::Duration;

/// What was reclaimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reclaimed {
    /// Its name, as far as it is known.
    pub name: String,
    /// The slices that are free once the ledger is in force.
    pub slices: Vec<Cidr>,
    /// The next ledger.
    pub ledger: Ledger,
    /// To be saved behind it: before it is, the slices must not be given again.
    pub record: Option<Record>,
}

impl Issuer {
    /// Gives slices of these subnets, or none; and heeds the slices that members say they have.
    pub fn set_slices(&mut self, plan: Option<Vec<Cidr>>, said: Vec<(PublicKey, Cidr)>) {
        (self.plan, self.said) = (plan, said);
    }

    /// What a new member is given besides `slices`: one of each subnet of which those have none.
    pub fn first_slices(&self, unix: Duration, policy: &Policy, key: &PublicKey, slices: Vec<Cidr>) -> Vec<Cidr> {
        let plan = self.plan.iter().flatten().copied();
        let wants: Vec<_> = plan.filter(|subnet| !slices.iter().any(|slice| slice.overlaps(subnet))).collect();
        self.with_more(unix, policy, key, slices, &wants).0
    }

    /// `slices`, and the lowest free slice of each subnet of which one more is wanted; and why one is not there.
    pub fn with_more(
        &self,
        unix: Duration,
        policy: &Policy,
        key: &PublicKey,
        mut slices: Vec<Cidr>,
        wants: &[Cidr],
    ) -> (Vec<Cidr>, Option<String>) {
        let Some(plan) = self.plan.as_ref().filter(|_| !wants.is_empty()) else {
            let why = "it gives no slices: set gives_slices in [trust] of the one host that is to give them";
            return (slices, (!wants.is_empty()).then(|| why.to_owned()));
        };
        let mut remark = None;
        for want in wants {
            let mut refuse = |why: String| remark = Some(why);
            if !plan.contains(want) {
                refuse(format!("it has no network with the subnet {want}: add it to its file"));
                continue;
            }
            if slices.len() >= MAX_SLICES {
                refuse(format!("a certificate has at most {MAX_SLICES} slices"));
                break;
            }
            let taken = self.taken(unix, policy, key);
            match lowest_free(want, taken.into_iter().chain(slices.iter().copied())) {
                Some(slice) => slices.push(slice),
                None => refuse(format!("no slice of {want} is free")),
            }
        }
        (slices, remark)
    }

    /// What is not for the holder of `key`.
    fn taken(&self, unix: Duration, policy: &Policy, key: &PublicKey) -> Vec<Cidr> {
        let others = self.issued.values().filter(|issued| issued.key != *key && !issued.revoked);
        let counted = others.filter(|issued| !is_reclaimed(policy, issued));
        let issued = counted.flat_map(|issued| &issued.slices);
        let is_open = |invite: &&Invite| invite.used_by.is_none() && Duration::from_secs(invite.expires) > unix;
        let invites = self.invites.values().filter(is_open);
        let said = self.said.iter().filter(|(owner, _)| owner != key).map(|(_, slice)| slice);
        issued.chain(invites.flat_map(|invite| &invite.slices)).chain(said).copied().collect()
    }

    /// The slices of a member that shows a certificate: those of the last one it was given, as far as that is known here.
    pub(super) fn slices_of(&self, policy: &Policy, key: &PublicKey, shown: &Certificate) -> Vec<Cidr> {
        match self.issued.get(key) {
            Some(issued) if !issued.revoked && issued.serial >= shown.serial => match is_reclaimed(policy, issued) {
                true => Vec::new(),
                false => issued.slices.clone(),
            },
            _ => shown.slices.clone(),
        }
    }

    /// Takes the slices of `whom`, a name or a public key, from it; it stays a member.
    ///
    /// # Errors
    /// [`Refusal`].
    pub fn reclaim(&mut self, unix: Duration, policy: &Policy, whom: &str) -> Result<Reclaimed, Refusal> {
        let named = |issued: &&Issued| issued.name == whom && is_live(issued, unix);
        let known = match whom.parse::<PublicKey>() {
            Ok(key) => self.issued.get(&key),
            Err(_) => self.issued.values().find(named),
        };
        let known = known.ok_or_else(|| Refusal::Nobody(whom.to_owned()))?;
        let (key, name) = (known.key, known.name.clone());
        if known.slices.is_empty() || is_reclaimed(policy, known) {
            return Err(Refusal::NoSlices(name));
        }
        // No certificate that it has can be later than this.
        let (serial, until) = (self.next_serial(unix), Duration::from_secs(known.expires));
        let ledger = self.next_ledger(unix, policy, &[], &[Revocation { key, serial, until }])?;
        let mut slices = Vec::new();
        let record = self.issued.get_mut(&key).map(|issued| {
            slices = std::mem::take(&mut issued.slices);
            (issued.serial, issued.reclaimed) = (serial, Some((serial, until.as_secs())));
            Record::Issued(issued.clone())
        });
        Ok(Reclaimed { name, slices, ledger, record })
    }
}

fn is_reclaimed(policy: &Policy, issued: &Issued) -> bool {
    policy.ledger().is_some_and(|ledger| ledger.reclaims(&issued.key, issued.serial))
}
