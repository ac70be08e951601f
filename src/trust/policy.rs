//! Who may be a member: the peers that the file pins by key, and those whose certificate an authority signed.

use crate::wire::key::PublicKey;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::Duration;

/// What a member that is let in may call itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standing {
    /// The name its certificate gives it; `None` where the file pins it.
    pub name: Option<String>,
    /// The tunnel address its certificate gives it; `None` where the file pins it.
    pub tunnel_address: Option<Ipv4Addr>,
    /// When its certificate ends, since 1970.
    pub expires: Option<Duration>,
}

/// Why a key is not let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Stranger {
    /// Neither pinned nor certified.
    #[error("it is in no [[peer]] of this member's file and shows no certificate")]
    Unknown,
}

/// The rules of one member.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    pinned: BTreeSet<PublicKey>,
}

impl Policy {
    /// Pins these keys, and no others.
    pub fn pin(&mut self, keys: impl IntoIterator<Item = PublicKey>) {
        self.pinned = keys.into_iter().collect();
    }

    /// Whether the holder of `key`, which shows this `certificate`, may be a member at the time `unix` since 1970.
    ///
    /// # Errors
    /// Why not.
    pub fn judge(&self, _unix: Duration, key: &PublicKey, _certificate: Option<&[u8]>) -> Result<Standing, Stranger> {
        if self.pinned.contains(key) { Ok(Standing::default()) } else { Err(Stranger::Unknown) }
    }
}
