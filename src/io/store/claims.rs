//! What other members have in our slices.

use super::{Records, Store, StoreError};
use crate::ipam::Claim;
use redb::TableDefinition;

/// `KEY VNI/ADDRESS` → [`Claim`].
pub(super) const CLAIMS: Records = TableDefinition::new("claims");

impl Store {
    /// The claims that were kept when the store was opened.
    pub fn take_claims(&mut self) -> Vec<Claim> {
        std::mem::take(&mut self.claims)
    }

    /// Saves claims and forgets others. All of it is on the disk when this returns.
    ///
    /// # Errors
    /// [`StoreError::NotSaved`]: nothing changed.
    pub fn change_claims(&self, keep: &[Claim], forget: &[Claim]) -> Result<(), StoreError> {
        let kept = keep.iter().map(|claim| Ok((slot(claim), self.json(CLAIMS, claim)?)));
        let kept: Vec<_> = kept.collect::<Result<_, StoreError>>()?;
        self.change(CLAIMS, |table| {
            for claim in forget {
                table.remove(slot(claim).as_str())?;
            }
            for (slot, json) in &kept {
                table.insert(slot.as_str(), json.as_slice())?;
            }
            Ok(())
        })
    }
}

fn slot(claim: &Claim) -> String {
    format!("{} {}/{}", claim.member, claim.vni, claim.address)
}
