//! Messages about trust, between a member and who wants to be one: types 32 to 39 of the mesh's messages.
//!
//! ```text
//!  header: 'W' 1 type 0, then fields until the end or a field 0: type (1), length (2), value
//!  type         fields
//!  32 Join      1 invitation (8), 2 proof (32), 3 tunnel address (4)
//!  33 Joined    4 certificate, 5 ledger (may be absent), 6 introducers (repeats)
//!  34 Refused   7 reason
//!  35 Renew     4 certificate, 10 subnets in which a further slice is wanted (may be absent)
//!  36 Renewed   4 certificate, 7 why what was wanted is not in it (may be absent)
//!  37 Forward   8 key (32), 9 a message 32 or 35 of whoever has that key, for the issuer
//!  38 Answer    8 key (32), 9 a message 33, 34 or 36 for whoever has that key
//!  39 Show      4 certificate, 5 ledger (may be absent): what is shown to be let in, and by what it counts
//! ```
//!
//! A session has proved who sends them. Only a [`Message::Forward`] speaks for another, and what it carries proves itself.

use super::authority::{exactly, field, once};
use super::certificate::{MAX_CERTIFICATE, parse_slices, written_slices};
use super::ledger::MAX_LEDGER;
use super::token::{Introducer, InviteId, MAX_INTRODUCERS, PROOF_LEN, parse_introducer, written_introducer};
use crate::wire::Malformed;
use crate::wire::bytes::{Reader, Writer};
use crate::wire::cidr::Cidr;
use crate::wire::key::PublicKey;
use std::net::Ipv4Addr;

/// The longest reason of a refusal.
pub const MAX_REASON: usize = 300;
const MAGIC: [u8; 2] = [b'W', 1];

/// The first type that is about trust.
pub const FIRST: u8 = 32;
/// The last.
pub const LAST: u8 = 39;
const JOIN: u8 = 32;
const JOINED: u8 = 33;
const REFUSED: u8 = 34;
const RENEW: u8 = 35;
const RENEWED: u8 = 36;
const FORWARD: u8 = 37;
const ANSWER: u8 = 38;
const SHOW: u8 = 39;

const END: u8 = 0;
const INVITATION: u8 = 1;
const PROOF: u8 = 2;
const ADDRESS: u8 = 3;
const CERTIFICATE: u8 = 4;
const LEDGER: u8 = 5;
const INTRODUCER: u8 = 6;
const REASON: u8 = 7;
const KEY: u8 = 8;
const INNER: u8 = 9;
const WANTS: u8 = 10;

/// A wish to become a member by an invitation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Join {
    /// Which invitation.
    pub id: InviteId,
    /// [`super::token::proof`].
    pub proof: [u8; PROOF_LEN],
    /// The tunnel address it uses.
    pub tunnel_address: Ipv4Addr,
}

/// What a new member is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// Its certificate.
    pub certificate: Vec<u8>,
    /// The ledger, if there is one.
    pub ledger: Option<Vec<u8>>,
    /// Members it can speak to.
    pub introducers: Vec<Introducer>,
}

/// A message about trust.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// A stranger wants to be a member.
    Join(Join),
    /// It is one.
    Joined(Joined),
    /// What was asked for is refused, and why.
    Refused(String),
    /// A member wants its certificate renewed, with a further slice of each of these subnets.
    Renew(Vec<u8>, Vec<Cidr>),
    /// The renewed certificate, and why it has not all that was wanted.
    Renewed(Vec<u8>, Option<String>),
    /// What somebody wants of the issuer.
    Forward(PublicKey, Vec<u8>),
    /// What the issuer answers somebody.
    Answer(PublicKey, Vec<u8>),
    /// The certificate of whoever sends this, and the ledger it holds to: a member that was away hears of a rotation by it.
    Show(Vec<u8>, Option<Vec<u8>>),
}

/// Whether a payload of the mesh's port is a message about trust.
pub fn is_trust(payload: &[u8]) -> bool {
    payload.starts_with(&MAGIC) && payload.get(2).is_some_and(|kind| (FIRST..=LAST).contains(kind))
}

impl Message {
    /// Reads a message for which [`is_trust`] holds.
    ///
    /// # Errors
    /// A field is missing, cut short, too long, or there twice.
    pub fn parse(payload: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader(payload);
        if reader.array()? != MAGIC {
            return Err(Malformed);
        }
        let (kind, _reserved) = (reader.u8()?, reader.u8()?);
        let fields = Fields::parse(reader)?;
        Ok(match kind {
            JOIN => Self::Join(Join {
                id: fields.id.ok_or(Malformed)?,
                proof: fields.proof.ok_or(Malformed)?,
                tunnel_address: fields.address.ok_or(Malformed)?,
            }),
            JOINED => Self::Joined(Joined {
                certificate: fields.certificate.ok_or(Malformed)?,
                ledger: fields.ledger,
                introducers: fields.introducers,
            }),
            REFUSED => Self::Refused(fields.reason.ok_or(Malformed)?),
            RENEW => Self::Renew(fields.certificate.ok_or(Malformed)?, fields.wants),
            RENEWED => Self::Renewed(fields.certificate.ok_or(Malformed)?, fields.reason),
            FORWARD => Self::Forward(fields.key.ok_or(Malformed)?, fields.inner.ok_or(Malformed)?),
            ANSWER => Self::Answer(fields.key.ok_or(Malformed)?, fields.inner.ok_or(Malformed)?),
            SHOW => Self::Show(fields.certificate.ok_or(Malformed)?, fields.ledger),
            _ => return Err(Malformed),
        })
    }

    /// The payload.
    pub fn bytes(&self) -> Vec<u8> {
        let mut to = Writer::default();
        let mut begin = |kind: u8| {
            to.bytes(&MAGIC).u8(kind).u8(0);
        };
        begin(match self {
            Self::Join(_) => JOIN,
            Self::Joined(_) => JOINED,
            Self::Refused(_) => REFUSED,
            Self::Renew(..) => RENEW,
            Self::Renewed(..) => RENEWED,
            Self::Forward(..) => FORWARD,
            Self::Answer(..) => ANSWER,
            Self::Show(..) => SHOW,
        });
        match self {
            Self::Join(join) => {
                field(&mut to, INVITATION, &join.id.0.to_be_bytes());
                field(&mut to, PROOF, &join.proof);
                field(&mut to, ADDRESS, &join.tunnel_address.octets());
            }
            Self::Joined(joined) => {
                field(&mut to, CERTIFICATE, &joined.certificate);
                joined.ledger.iter().for_each(|ledger| field(&mut to, LEDGER, ledger));
                for introducer in joined.introducers.iter().take(MAX_INTRODUCERS) {
                    field(&mut to, INTRODUCER, &written_introducer(introducer));
                }
            }
            Self::Refused(reason) => field(&mut to, REASON, shortened(reason).as_bytes()),
            Self::Renew(certificate, wants) => {
                field(&mut to, CERTIFICATE, certificate);
                if !wants.is_empty() {
                    field(&mut to, WANTS, &written_slices(wants));
                }
            }
            Self::Renewed(certificate, reason) => {
                field(&mut to, CERTIFICATE, certificate);
                reason.iter().for_each(|reason| field(&mut to, REASON, shortened(reason).as_bytes()));
            }
            Self::Show(certificate, ledger) => {
                field(&mut to, CERTIFICATE, certificate);
                ledger.iter().for_each(|ledger| field(&mut to, LEDGER, ledger));
            }
            Self::Forward(key, inner) | Self::Answer(key, inner) => {
                field(&mut to, KEY, &key.0);
                field(&mut to, INNER, inner);
            }
        }
        to.0
    }
}

fn shortened(reason: &str) -> &str {
    &reason[..reason.floor_char_boundary(MAX_REASON)]
}

#[derive(Default)]
struct Fields {
    id: Option<InviteId>,
    proof: Option<[u8; PROOF_LEN]>,
    address: Option<Ipv4Addr>,
    certificate: Option<Vec<u8>>,
    ledger: Option<Vec<u8>>,
    introducers: Vec<Introducer>,
    reason: Option<String>,
    key: Option<PublicKey>,
    inner: Option<Vec<u8>>,
    wants: Vec<Cidr>,
}

impl Fields {
    fn parse(mut reader: Reader<'_>) -> Result<Self, Malformed> {
        let mut fields = Self::default();
        while !reader.is_empty() {
            let kind = reader.u8()?;
            if kind == END {
                break;
            }
            let value = reader.prefixed()?;
            match kind {
                INVITATION => once(&mut fields.id, InviteId(u64::from_be_bytes(exactly(value)?)))?,
                PROOF => once(&mut fields.proof, exactly(value)?)?,
                ADDRESS => once(&mut fields.address, Ipv4Addr::from(exactly::<4>(value)?))?,
                CERTIFICATE => once(&mut fields.certificate, at_most(value, MAX_CERTIFICATE)?)?,
                LEDGER => once(&mut fields.ledger, at_most(value, MAX_LEDGER)?)?,
                INTRODUCER if fields.introducers.len() == MAX_INTRODUCERS => return Err(Malformed),
                INTRODUCER => fields.introducers.push(parse_introducer(value)?),
                REASON => once(&mut fields.reason, reason(value)?)?,
                KEY => once(&mut fields.key, PublicKey(exactly(value)?))?,
                WANTS if fields.wants.is_empty() => fields.wants = parse_slices(value)?,
                WANTS => return Err(Malformed),
                INNER => once(&mut fields.inner, value.to_vec())?,
                _ => {}
            }
        }
        Ok(fields)
    }
}

fn at_most(value: &[u8], most: usize) -> Result<Vec<u8>, Malformed> {
    if value.len() <= most { Ok(value.to_vec()) } else { Err(Malformed) }
}

/// Somebody else's sentence, on its way to a terminal or a log.
fn reason(value: &[u8]) -> Result<String, Malformed> {
    let text = std::str::from_utf8(value).map_err(|_| Malformed)?;
    let is_plain = text.len() <= MAX_REASON && !text.contains(char::is_control);
    if is_plain { Ok(text.to_owned()) } else { Err(Malformed) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_message_is_read_as_it_was_written_and_may_be_padded() {
        let introducer = Introducer {
            key: PublicKey([1; 32]),
            tunnel_address: Ipv4Addr::new(100, 64, 0, 1),
            endpoints: vec!["192.0.2.1:51820".into()],
        };
        let (certificate, key) = (vec![3; MAX_CERTIFICATE], PublicKey([2; 32]));
        let join = Join { id: InviteId(1), proof: [2; 32], tunnel_address: Ipv4Addr::new(100, 64, 0, 2) };
        let ledger = Some(vec![4; MAX_LEDGER]);
        let joined = Joined { certificate: certificate.clone(), ledger, introducers: vec![introducer; 4] };
        for message in [
            Message::Forward(key, Message::Join(join.clone()).bytes()),
            Message::Join(join),
            Message::Answer(key, Message::Joined(joined.clone()).bytes()),
            Message::Joined(joined),
            Message::Refused("no".into()),
            Message::Renew(certificate.clone(), Vec::new()),
            Message::Renew(certificate.clone(), vec!["10.0.0.0/8".parse().unwrap(), "fd00::/64".parse().unwrap()]),
            Message::Renewed(certificate.clone(), None),
            Message::Renewed(certificate.clone(), Some("none is left".into())),
            Message::Show(certificate.clone(), Some(vec![4; MAX_LEDGER])),
        ] {
            let bytes = message.bytes();
            assert!(is_trust(&bytes) && bytes.len() <= 9216 - 28, "{} bytes", bytes.len());
            assert_eq!(Message::parse(&[bytes, vec![0; 9]].concat()), Ok(message));
        }
    }

    #[test]
    fn what_is_too_long_or_unprintable_is_refused() {
        let too_long = Message::Show(vec![0; MAX_CERTIFICATE + 1], None).bytes();
        assert_eq!(Message::parse(&too_long), Err(Malformed));
        assert_eq!(Message::parse(&Message::Refused("a\x1b[2J".into()).bytes()), Err(Malformed));
        let long = Message::Refused("ä".repeat(MAX_REASON)).bytes();
        assert!(matches!(Message::parse(&long), Ok(Message::Refused(reason)) if reason.len() == MAX_REASON));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(kind in 30u8..41, body in proptest::collection::vec(0u8..10, 0..80)) {
            let _ = Message::parse(&[&[b'W', 1, kind, 0], body.as_slice()].concat());
            let _ = Message::parse(&body);
        }
    }
}
