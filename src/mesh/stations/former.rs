//! What nobody has any more, and who had it last: so that sequence numbers go on from there, and neighbours are told who remember
//! it. The latest of them, in the order in which they went.

use super::{Claim, Key};
use std::collections::BTreeMap;

/// Withdrawn subjects that are remembered, the latest. Some 2 MiB.
pub const FORMER: usize = 16_384;

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Former {
    claims: BTreeMap<Key, (u64, Claim)>,
    order: BTreeMap<u64, Key>,
    next: u64,
}

impl Former {
    /// The last that had this.
    pub(super) fn get(&self, key: &Key) -> Option<&Claim> {
        self.claims.get(key).map(|(_, claim)| claim)
    }

    /// Nobody has this any more, and this claim had it.
    pub(super) fn keep(&mut self, key: Key, claim: Claim) {
        self.take(&key);
        self.claims.insert(key, (self.next, claim));
        self.order.insert(self.next, key);
        self.next += 1;
        if self.order.len() > FORMER
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.claims.remove(&oldest);
        }
    }

    /// Somebody has this again.
    pub(super) fn take(&mut self, key: &Key) -> Option<Claim> {
        let (order, claim) = self.claims.remove(key)?;
        self.order.remove(&order);
        Some(claim)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> (usize, usize) {
        (self.claims.len(), self.order.len())
    }
}
