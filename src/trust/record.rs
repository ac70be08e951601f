//! What trust must remember across restarts, as plain records. Each has a slot; a record takes the place of the one in its slot.

use super::token::{Introducer, InviteId, InviteSecret};
use crate::wire::cidr::Cidr;
use crate::wire::key::PublicKey;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;

/// Bytes that are base64 in a record.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Blob(pub Vec<u8>);

impl From<Blob> for String {
    fn from(blob: Blob) -> Self {
        STANDARD.encode(blob.0)
    }
}

impl TryFrom<String> for Blob {
    type Error = base64::DecodeError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        STANDARD.decode(text).map(Self)
    }
}

/// An invitation as its issuer remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invite {
    /// Which.
    pub id: InviteId,
    /// What its token holds.
    pub secret: InviteSecret,
    /// What the new member will be called.
    pub name: String,
    /// What it will allocate addresses from.
    pub slices: Vec<Cidr>,
    /// When it ends, in seconds since 1970.
    pub expires: u64,
    /// Who has used it.
    pub used_by: Option<PublicKey>,
}

/// The last certificate of a key as its issuer remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    /// Whose.
    pub key: PublicKey,
    /// Its name.
    pub name: String,
    /// Its tunnel address.
    pub tunnel_address: Ipv4Addr,
    /// What it allocates addresses from.
    pub slices: Vec<Cidr>,
    /// The certificate's serial.
    pub serial: u64,
    /// When it ends, in seconds since 1970.
    pub expires: u64,
    /// Whether it was taken back.
    pub revoked: bool,
    /// The last serial whose slices were reclaimed, and when the last certificate before it ends.
    #[serde(default)]
    pub reclaimed: Option<(u64, u64)>,
    /// The certificate.
    pub certificate: Blob,
}

/// Something to remember.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// The issuer's.
    Invite(Invite),
    /// The issuer's.
    Issued(Issued),
    /// The ledger in force.
    Ledger(Blob),
    /// This member's own certificate.
    Certificate(Blob),
    /// The members this one came in through.
    Introducers(Vec<Introducer>),
    /// The invitation that is still to be redeemed.
    Token(String),
}

/// The slot of [`Record::Token`].
pub const TOKEN_SLOT: &str = "token";

impl Record {
    /// Where it is kept.
    pub fn slot(&self) -> String {
        match self {
            Self::Invite(invite) => invite_slot(invite.id),
            Self::Issued(issued) => issued_slot(&issued.key),
            Self::Ledger(_) => "ledger".to_owned(),
            Self::Certificate(_) => "certificate".to_owned(),
            Self::Introducers(_) => "introducers".to_owned(),
            Self::Token(_) => TOKEN_SLOT.to_owned(),
        }
    }
}

/// The slot of an invitation.
pub fn invite_slot(id: InviteId) -> String {
    format!("invite/{:016x}", id.0)
}

/// The slot of what was issued to a key.
pub fn issued_slot(key: &PublicKey) -> String {
    format!("issued/{key}")
}
