//! An invitation as one line of text: everything a new host needs to become a member, once.
//!
//! ```text
//!  weft1: and base64url of: fields, then the first 8 bytes of BLAKE2s of everything before them
//!  fields: type (1), length (2), value; 6 and 7 repeat, unknown types are skipped
//!  1 authority (32)   2 invitation (8)   3 secret (16)   4 name   5 expires (8, seconds since 1970)
//!  6 introducer: key (32), tunnel address (4), endpoints, each behind its length (2); the issuer is the first
//!  7 network: VNI (4), name behind its length (2), subnets, each behind its length (2)
//! ```
//!
//! The checksum finds a slip of the pen or of the clipboard before anything is made; it is no protection, and needs to be none:
//! what the secret opens is decided by the issuer's own record of the invitation. The secret never travels. What does is a
//! [`proof`] that is good for one key, so who carries it to the issuer can neither use it nor learn from it.

use super::authority::{Fields, exactly, field, name, once};
use super::date::date;
use crate::wire::Malformed;
use crate::wire::bytes::{Reader, Writer};
use crate::wire::key::{AuthorityKey, PublicKey};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use blake2::digest::{Mac, Update, VariableOutput};
use blake2::{Blake2sMac256, Blake2sVar};
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;
use std::time::Duration;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// The most introducers: some hosts may be down while a token lives.
pub const MAX_INTRODUCERS: usize = 4;
/// The most endpoints of an introducer: as many as a peer of the file has.
pub const MAX_ENDPOINTS: usize = 8;
/// The most networks a token tells of: more are for the file.
pub const MAX_NETWORKS: usize = 8;
/// The longest token: all of the above, and still a line that can be pasted.
pub const MAX_TOKEN: usize = 4096;
const MARK: &str = "weft1:";
const CHECKSUM_LEN: usize = 8;

const AUTHORITY: u8 = 1;
const INVITATION: u8 = 2;
const SECRET: u8 = 3;
const NAME: u8 = 4;
const EXPIRES: u8 = 5;
const INTRODUCER: u8 = 6;
const NETWORK: u8 = 7;

/// Names an invitation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct InviteId(pub u64);

/// What only the two ends of an invitation know: 128 bits. Wiped when dropped, never printed.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InviteSecret([u8; 16]);

impl InviteSecret {
    /// A secret from random bits.
    pub fn new(random: [u8; 16]) -> Self {
        Self(random)
    }
}

impl std::fmt::Debug for InviteSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("InviteSecret(…)")
    }
}

impl From<InviteSecret> for String {
    fn from(secret: InviteSecret) -> Self {
        STANDARD.encode(secret.0)
    }
}

impl TryFrom<String> for InviteSecret {
    type Error = &'static str;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        let bytes = STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or("an invitation's secret is 16 bytes in base64")
    }
}

/// A member that a new host can speak to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Introducer {
    /// Who it is.
    pub key: PublicKey,
    /// Its address inside the tunnels.
    pub tunnel_address: Ipv4Addr,
    /// Where it may be reached, written as endpoints of the file are.
    pub endpoints: Vec<String>,
}

/// A network that a new host is to take part in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkHint {
    /// Its VNI.
    pub vni: u32,
    /// Its name.
    pub name: String,
    /// Its subnets.
    pub subnets: Vec<String>,
}

/// An invitation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Whose word counts in the network.
    pub authority: AuthorityKey,
    /// Which invitation.
    pub id: InviteId,
    /// What proves that it was received.
    pub secret: InviteSecret,
    /// What the new member will be called.
    pub name: String,
    /// When it ends, since 1970.
    pub expires: Duration,
    /// Who can be spoken to; the issuer is the first.
    pub introducers: Vec<Introducer>,
    /// What to take part in.
    pub networks: Vec<NetworkHint>,
}

/// Why a text is no invitation that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAToken {
    /// Something else.
    #[error("this is no invitation: one is a line that begins with {MARK}, as 'weft invite' prints it")]
    Foreign,
    /// Not as it was printed.
    #[error("the invitation is damaged: a part is missing or was altered; copy the whole line again")]
    Altered,
    /// Of another weft.
    #[error("the invitation was made by a later weft: upgrade this host")]
    Later,
    /// Too late.
    #[error(
        "the invitation for '{name}' expired on {}, and this host's clock says {}: ask for another, or set the clock if \
         that is wrong", date(*.expires), date(*.clock)
    )]
    Expired {
        /// Who was invited.
        name: String,
        /// When it ended.
        expires: Duration,
        /// What it is here.
        clock: Duration,
    },
}

impl From<Malformed> for NotAToken {
    fn from(_: Malformed) -> Self {
        Self::Later
    }
}

impl Token {
    /// Reads a line that `weft invite` printed.
    ///
    /// # Errors
    /// [`NotAToken`], except that the time is not looked at.
    pub fn parse(text: &str) -> Result<Self, NotAToken> {
        let text = text.trim();
        let body = text.strip_prefix(MARK).ok_or_else(|| {
            let version = text.strip_prefix("weft").and_then(|rest| rest.split_once(':')).map(|(version, _)| version);
            let is_later = version.is_some_and(|version| version.parse::<u32>().is_ok_and(|version| version > 1));
            if is_later { NotAToken::Later } else { NotAToken::Foreign }
        })?;
        if body.len() > MAX_TOKEN {
            return Err(NotAToken::Altered);
        }
        let bytes = URL_SAFE_NO_PAD.decode(body).map_err(|_| NotAToken::Altered)?;
        let (fields, checksum) = bytes.split_last_chunk::<CHECKSUM_LEN>().ok_or(NotAToken::Altered)?;
        if *checksum != checksum_of(fields) {
            return Err(NotAToken::Altered);
        }
        // What is whole and still not understood was written by rules that we do not know.
        Ok(Self::fields(fields)?)
    }

    /// Whether it can still be used at the time `unix` since 1970, as far as this host's clock can tell.
    ///
    /// # Errors
    /// [`NotAToken::Expired`].
    pub fn check_time(&self, unix: Duration) -> Result<(), NotAToken> {
        let (name, expires) = (self.name.clone(), self.expires);
        let is_over = unix > expires.saturating_add(super::policy::CLOCK_TOLERANCE);
        if is_over { Err(NotAToken::Expired { name, expires, clock: unix }) } else { Ok(()) }
    }

    fn fields(bytes: &[u8]) -> Result<Self, Malformed> {
        let (mut authority, mut id, mut secret, mut name_, mut expires) = (None, None, None, None, None);
        let (mut introducers, mut networks) = (Vec::new(), Vec::new());
        let mut fields = Fields(Reader(bytes));
        while let Some((kind, value)) = fields.next()? {
            match kind {
                AUTHORITY => once(&mut authority, AuthorityKey(exactly(value)?))?,
                INVITATION => once(&mut id, InviteId(u64::from_be_bytes(exactly(value)?)))?,
                SECRET => once(&mut secret, InviteSecret(exactly(value)?))?,
                NAME => once(&mut name_, name(value)?)?,
                EXPIRES => once(&mut expires, u64::from_be_bytes(exactly(value)?))?,
                INTRODUCER => introducers.push(parse_introducer(value)?),
                NETWORK => networks.push(parse_network(value)?),
                _ => {}
            }
        }
        if introducers.is_empty() || introducers.len() > MAX_INTRODUCERS || networks.len() > MAX_NETWORKS {
            return Err(Malformed);
        }
        Ok(Self {
            authority: authority.ok_or(Malformed)?,
            id: id.ok_or(Malformed)?,
            secret: secret.ok_or(Malformed)?,
            name: name_.ok_or(Malformed)?,
            expires: Duration::from_secs(expires.ok_or(Malformed)?),
            introducers,
            networks,
        })
    }
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut fields = Writer::default();
        field(&mut fields, AUTHORITY, &self.authority.0);
        field(&mut fields, INVITATION, &self.id.0.to_be_bytes());
        field(&mut fields, SECRET, &self.secret.0);
        field(&mut fields, NAME, self.name.as_bytes());
        field(&mut fields, EXPIRES, &self.expires.as_secs().to_be_bytes());
        for introducer in self.introducers.iter().take(MAX_INTRODUCERS) {
            field(&mut fields, INTRODUCER, &written_introducer(introducer));
        }
        for network in self.networks.iter().take(MAX_NETWORKS) {
            let mut value = Writer::default();
            value.u32(network.vni).prefixed(network.name.as_bytes());
            for subnet in &network.subnets {
                value.prefixed(subnet.as_bytes());
            }
            field(&mut fields, NETWORK, &value.0);
        }
        let checksum = checksum_of(&fields.0);
        fields.bytes(&checksum);
        write!(f, "{MARK}{}", URL_SAFE_NO_PAD.encode(&fields.0))
    }
}

/// An introducer as it travels.
pub(super) fn written_introducer(introducer: &Introducer) -> Vec<u8> {
    let mut value = Writer::default();
    value.bytes(&introducer.key.0).bytes(&introducer.tunnel_address.octets());
    for endpoint in introducer.endpoints.iter().take(MAX_ENDPOINTS) {
        value.prefixed(endpoint.as_bytes());
    }
    value.0
}

/// An introducer as it came; whether its endpoints can be used is the caller's to find out.
pub(super) fn parse_introducer(value: &[u8]) -> Result<Introducer, Malformed> {
    let mut reader = Reader(value);
    let (key, tunnel_address) = (PublicKey(reader.array()?), Ipv4Addr::from(reader.array::<4>()?));
    let mut endpoints = Vec::new();
    while !reader.is_empty() {
        if endpoints.len() == MAX_ENDPOINTS {
            return Err(Malformed);
        }
        endpoints.push(printable(reader.prefixed()?)?);
    }
    Ok(Introducer { key, tunnel_address, endpoints })
}

fn parse_network(value: &[u8]) -> Result<NetworkHint, Malformed> {
    let mut reader = Reader(value);
    let (vni, name) = (reader.u32()?, name(reader.prefixed()?)?);
    if !(1..1 << 24).contains(&vni) {
        return Err(Malformed);
    }
    let mut subnets = Vec::new();
    while !reader.is_empty() {
        subnets.push(printable(reader.prefixed()?)?);
    }
    Ok(NetworkHint { vni, name, subnets })
}

/// A text without anything that could break out of a line or a quote.
fn printable(value: &[u8]) -> Result<String, Malformed> {
    let text = std::str::from_utf8(value).map_err(|_| Malformed)?;
    let is_plain = |b: u8| b.is_ascii_graphic() && !b"\"'\\`$".contains(&b);
    if text.len() <= 255 && text.bytes().all(is_plain) { Ok(text.to_owned()) } else { Err(Malformed) }
}

fn checksum_of(fields: &[u8]) -> [u8; CHECKSUM_LEN] {
    let mut checksum = [0; CHECKSUM_LEN];
    if let Ok(mut hash) = Blake2sVar::new(CHECKSUM_LEN) {
        hash.update(b"weft invitation v1");
        hash.update(fields);
        // The length is the one the hash was made with, so this cannot fail.
        let _ = hash.finalize_variable(&mut checksum);
    }
    checksum
}

/// Bytes of a proof.
pub const PROOF_LEN: usize = 32;

/// That whoever holds `key` was given the secret of an invitation, and wants to be a member with this tunnel address.
pub fn proof(secret: &InviteSecret, id: InviteId, key: &PublicKey, address: Ipv4Addr) -> [u8; PROOF_LEN] {
    mac(secret, id, key, address).finalize().into_bytes().into()
}

/// Whether a proof is right, in a time that does not tell how much of it is.
pub fn is_proof(
    secret: &InviteSecret,
    id: InviteId,
    key: &PublicKey,
    address: Ipv4Addr,
    shown: &[u8; PROOF_LEN],
) -> bool {
    mac(secret, id, key, address).verify(shown.into()).is_ok()
}

fn mac(secret: &InviteSecret, id: InviteId, key: &PublicKey, address: Ipv4Addr) -> Blake2sMac256 {
    let mut padded = zeroize::Zeroizing::new([0; 32]);
    padded[..16].copy_from_slice(&secret.0);
    Blake2sMac256::new((&*padded).into())
        .chain_update(b"weft join proof v1")
        .chain_update(id.0.to_be_bytes())
        .chain_update(key.0)
        .chain_update(address.octets())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn token() -> Token {
        let introducer = |n: u8, endpoints: &[&str]| Introducer {
            key: PublicKey([n; 32]),
            tunnel_address: Ipv4Addr::new(100, 64, 0, n),
            endpoints: endpoints.iter().map(|&endpoint| endpoint.to_owned()).collect(),
        };
        Token {
            authority: AuthorityKey([1; 32]),
            id: InviteId(0x0102_0304_0506_0708),
            secret: InviteSecret::new([9; 16]),
            name: "beta".into(),
            expires: Duration::from_secs(10_000),
            introducers: vec![introducer(7, &["192.0.2.1:51820", "[2001:db8::1]:51820"]), introducer(8, &[])],
            networks: vec![NetworkHint { vni: 100, name: "blue".into(), subnets: vec!["10.32.0.0/16".into()] }],
        }
    }

    #[test]
    fn a_token_is_one_line_that_is_read_as_it_was_written() {
        let line = token().to_string();
        assert!(line.starts_with("weft1:") && line.len() < 400 && !line.contains(char::is_whitespace), "{line}");
        assert_eq!(Token::parse(&format!("  {line}\n")), Ok(token()));
    }

    #[test]
    fn what_is_no_token_is_told_apart() {
        assert_eq!(Token::parse(""), Err(NotAToken::Foreign));
        assert_eq!(Token::parse("K10abc::server:123"), Err(NotAToken::Foreign));
        assert_eq!(Token::parse("weft2:AAAA"), Err(NotAToken::Later));
        assert_eq!(Token::parse("weft1:"), Err(NotAToken::Altered));
        assert_eq!(Token::parse(&format!("weft1:{}", "A".repeat(100_000))), Err(NotAToken::Altered));
    }

    #[test]
    fn no_single_altered_character_passes() {
        let line = token().to_string();
        for at in MARK.len()..line.len() {
            for other in ['A', 'B', '_', '!', 'é'] {
                let altered: String = line.char_indices().map(|(n, c)| if n == at { other } else { c }).collect();
                if altered != line {
                    assert_eq!(Token::parse(&altered), Err(NotAToken::Altered), "{altered}");
                }
            }
            assert_eq!(Token::parse(&line[..at]), Err(NotAToken::Altered));
        }
    }

    #[test]
    fn an_expired_token_says_so_with_both_times() {
        let token = token();
        assert!(token.check_time(Duration::from_secs(10_300)).is_ok());
        let error = token.check_time(Duration::from_secs(10_301)).unwrap_err().to_string();
        assert!(error.contains("'beta' expired on 1970-01-01 02:46 UTC, and this host's clock says"), "{error}");
    }

    #[test]
    fn a_proof_is_good_for_one_key_one_address_and_one_invitation() {
        let (secret, id, key) = (InviteSecret::new([1; 16]), InviteId(2), PublicKey([3; 32]));
        let address = Ipv4Addr::new(100, 64, 0, 3);
        let mut shown = proof(&secret, id, &key, address);
        assert!(is_proof(&secret, id, &key, address, &shown));
        assert!(!is_proof(&secret, id, &PublicKey([4; 32]), address, &shown));
        assert!(!is_proof(&secret, InviteId(3), &key, address, &shown));
        assert!(!is_proof(&secret, id, &key, Ipv4Addr::new(100, 64, 0, 4), &shown));
        assert!(!is_proof(&InviteSecret::new([2; 16]), id, &key, address, &shown));
        shown[31] ^= 1;
        assert!(!is_proof(&secret, id, &key, address, &shown));
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(body in proptest::collection::vec(0u8..9, 0..200)) {
            let sum = checksum_of(&body);
            let whole = format!("{MARK}{}", URL_SAFE_NO_PAD.encode([&body[..], &sum].concat()));
            if let Ok(token) = Token::parse(&whole) {
                prop_assert_eq!(Token::parse(&token.to_string()), Ok(token));
            }
        }
    }
}
