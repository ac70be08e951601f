//! A certificate: an authority's word that a key is a member, by what name, and until when.
//!
//! ```text
//!  the envelope of an authority ([`super::authority`]), then fields: type (1), length (2), value
//!  1 name (1 to 64 bytes)      2 key (32)               3 tunnel address (4)
//!  4 slices: family (4 or 6), prefix length, address, and again
//!  5 serial (8)                6 not before (8)         7 expires (8), both in seconds since 1970
//! ```
//!
//! Fields of an unknown type are no error and are carried into a renewed certificate. In a file a certificate is the
//! line `weft-certificate:` and base64; lines that begin with `#` are for people.

use super::authority::{Authority, ENVELOPE_LEN, Envelope, Fields, Unbelieved, exactly, field, name, once};
use crate::wire::Malformed;
use crate::wire::bytes::{Reader, Writer};
use crate::wire::cidr::Cidr;
use crate::wire::key::{AuthorityKey, PublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// The longest certificate: it travels in one datagram beside other records.
pub const MAX_CERTIFICATE: usize = 1024;
/// The most slices of one member: one for each of the networks it can usefully allocate in.
pub const MAX_SLICES: usize = 16;
/// What its signature is for.
pub const PURPOSE: &str = "weft certificate";
/// In front of the base64 in a file.
const MARK: &str = "weft-certificate:";

const NAME: u8 = 1;
const KEY: u8 = 2;
const ADDRESS: u8 = 3;
const SLICES: u8 = 4;
const SERIAL: u8 = 5;
const NOT_BEFORE: u8 = 6;
const EXPIRES: u8 = 7;

/// What a certificate says, its signature checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Who says it.
    pub by: AuthorityKey,
    /// The member's name.
    pub name: String,
    /// The member.
    pub key: PublicKey,
    /// Its address inside the tunnels.
    pub tunnel_address: Ipv4Addr,
    /// The parts of networks' ranges that it allocates addresses from.
    pub slices: Vec<Cidr>,
    /// Larger in every later certificate of the authority: a revocation names the last one it covers.
    pub serial: u64,
    /// When it begins, since 1970.
    pub not_before: Duration,
    /// When it ends, since 1970.
    pub expires: Duration,
    /// Fields of types we do not know, as they stood.
    pub unknown: Vec<u8>,
}

impl Certificate {
    /// Reads a certificate by an authority that `believed` accepts, and checks its signature. Whether it is valid at this
    /// moment, and for whoever shows it, is [`super::Policy::judge`]'s to say.
    ///
    /// # Errors
    /// [`Unbelieved`].
    pub fn open(bytes: &[u8], believed: impl FnOnce(&AuthorityKey) -> bool) -> Result<Self, Unbelieved> {
        if bytes.len() > MAX_CERTIFICATE {
            return Err(Unbelieved::Malformed);
        }
        let envelope = Envelope::parse(bytes)?;
        if !believed(&envelope.by) {
            return Err(Unbelieved::Other(envelope.by));
        }
        envelope.verify(PURPOSE)?;
        Ok(Self::parse(envelope.by, envelope.fields)?)
    }

    fn parse(by: AuthorityKey, bytes: &[u8]) -> Result<Self, Malformed> {
        let (mut name_, mut key, mut address, mut slices) = (None, None, None, None);
        let (mut serial, mut not_before, mut expires) = (None, None, None);
        let mut unknown = Writer::default();
        let mut fields = Fields(Reader(bytes));
        while let Some((kind, value)) = fields.next()? {
            match kind {
                NAME => once(&mut name_, name(value)?)?,
                KEY => once(&mut key, PublicKey(exactly(value)?))?,
                ADDRESS => once(&mut address, Ipv4Addr::from(exactly::<4>(value)?))?,
                SLICES => once(&mut slices, parse_slices(value)?)?,
                SERIAL => once(&mut serial, u64::from_be_bytes(exactly(value)?))?,
                NOT_BEFORE => once(&mut not_before, u64::from_be_bytes(exactly(value)?))?,
                EXPIRES => once(&mut expires, u64::from_be_bytes(exactly(value)?))?,
                _ => field(&mut unknown, kind, value),
            }
        }
        Ok(Self {
            by,
            name: name_.ok_or(Malformed)?,
            key: key.ok_or(Malformed)?,
            tunnel_address: address.ok_or(Malformed)?,
            slices: slices.unwrap_or_default(),
            serial: serial.ok_or(Malformed)?,
            not_before: Duration::from_secs(not_before.ok_or(Malformed)?),
            expires: Duration::from_secs(expires.ok_or(Malformed)?),
            unknown: unknown.0,
        })
    }

    /// Has `authority` sign this, whoever [`Self::by`] was; `None` when it would be longer than [`MAX_CERTIFICATE`].
    pub fn sign(&self, authority: &Authority) -> Option<Vec<u8>> {
        let mut fields = Writer::default();
        field(&mut fields, NAME, self.name.as_bytes());
        field(&mut fields, KEY, &self.key.0);
        field(&mut fields, ADDRESS, &self.tunnel_address.octets());
        field(&mut fields, SLICES, &written_slices(&self.slices));
        field(&mut fields, SERIAL, &self.serial.to_be_bytes());
        field(&mut fields, NOT_BEFORE, &self.not_before.as_secs().to_be_bytes());
        field(&mut fields, EXPIRES, &self.expires.as_secs().to_be_bytes());
        fields.bytes(&self.unknown);
        let fits = self.slices.len() <= MAX_SLICES && ENVELOPE_LEN + fields.0.len() <= MAX_CERTIFICATE;
        fits.then(|| authority.seal(PURPOSE, &fields.0))
    }

    /// Whether it is in its last third, or by another authority than the one that leads: time to ask for the next.
    pub fn wants_renewal(&self, unix: Duration, leading: Option<&AuthorityKey>) -> bool {
        let third = self.expires.saturating_sub(self.not_before) / 3;
        unix >= self.expires.saturating_sub(third) || leading.is_some_and(|leading| *leading != self.by)
    }
}

/// A certificate as it stands in a file.
pub fn to_text(bytes: &[u8]) -> String {
    format!("{MARK}{}\n", STANDARD.encode(bytes))
}

/// The certificate in the text of a file; whether it is one is not looked at.
///
/// # Errors
/// There is no line with one.
pub fn from_text(text: &str) -> Result<Vec<u8>, Malformed> {
    let line = text.lines().find_map(|line| line.trim().strip_prefix(MARK)).ok_or(Malformed)?;
    STANDARD.decode(line.trim()).map_err(|_| Malformed)
}

/// Slices as they travel.
pub(super) fn written_slices(slices: &[Cidr]) -> Vec<u8> {
    let mut written = Writer::default();
    for slice in slices {
        match slice.address {
            IpAddr::V4(address) => written.u8(4).u8(slice.prefix).bytes(&address.octets()),
            IpAddr::V6(address) => written.u8(6).u8(slice.prefix).bytes(&address.octets()),
        };
    }
    written.0
}

/// Reads them; at most [`MAX_SLICES`].
pub(super) fn parse_slices(value: &[u8]) -> Result<Vec<Cidr>, Malformed> {
    let mut reader = Reader(value);
    let mut slices = Vec::new();
    while !reader.is_empty() {
        let (family, prefix) = (reader.u8()?, reader.u8()?);
        let (address, most) = match family {
            4 => (IpAddr::from(reader.array::<4>()?), 32),
            6 => (IpAddr::from(reader.array::<16>()?), 128),
            _ => return Err(Malformed),
        };
        if prefix > most || slices.len() == MAX_SLICES {
            return Err(Malformed);
        }
        slices.push(Cidr { address, prefix });
    }
    Ok(slices)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::wire::key::Secret;
    use proptest::prelude::*;

    fn authority() -> Authority {
        Authority::new(&Secret::shared([1; 32]))
    }

    fn certificate() -> Certificate {
        Certificate {
            by: authority().key(),
            name: "beta".into(),
            key: PublicKey([2; 32]),
            tunnel_address: Ipv4Addr::new(100, 64, 0, 2),
            slices: vec!["10.32.1.0/24".parse().unwrap(), "fd00:32::/64".parse().unwrap()],
            serial: 3,
            not_before: Duration::from_secs(1000),
            expires: Duration::from_secs(4000),
            unknown: vec![77, 0, 2, 1, 2],
        }
    }

    #[test]
    fn what_was_signed_is_read_unknown_fields_and_all() {
        let bytes = certificate().sign(&authority()).unwrap();
        assert_eq!(Certificate::open(&bytes, |_| true), Ok(certificate()));
        assert_eq!(from_text(&format!("# beta\n{}", to_text(&bytes))), Ok(bytes.clone()));
        assert_eq!(Certificate::open(&bytes, |_| false), Err(Unbelieved::Other(authority().key())));
        let later = [&[2], &bytes[1..]].concat();
        assert_eq!(Certificate::open(&later, |_| true), Err(Unbelieved::Later));
    }

    #[test]
    fn no_single_altered_bit_passes() {
        let bytes = certificate().sign(&authority()).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut altered = bytes.clone();
            altered[bit / 8] ^= 1 << (bit % 8);
            // Also one that changes the authority is believed by nobody who believes this one.
            assert!(Certificate::open(&altered, |by| *by == authority().key()).is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(Certificate::open(&bytes[..length], |_| true).is_err());
        }
    }

    #[test]
    fn a_certificate_has_its_bounds() {
        let slice: Cidr = "10.0.0.0/24".parse().unwrap();
        assert!(Certificate { slices: vec![slice; MAX_SLICES], ..certificate() }.sign(&authority()).is_some());
        assert!(Certificate { slices: vec![slice; MAX_SLICES + 1], ..certificate() }.sign(&authority()).is_none());
        assert!(Certificate { unknown: vec![0; MAX_CERTIFICATE], ..certificate() }.sign(&authority()).is_none());
        for name in ["", "a b", "a\n", &"a".repeat(65)] {
            let bytes = Certificate { name: name.into(), ..certificate() }.sign(&authority()).unwrap();
            assert_eq!(Certificate::open(&bytes, |_| true), Err(Unbelieved::Malformed), "{name:?}");
        }
    }

    #[test]
    fn renewal_is_asked_for_in_the_last_third_and_after_a_rotation() {
        let (certificate, other) = (certificate(), AuthorityKey([9; 32]));
        let at = Duration::from_secs;
        assert!(!certificate.wants_renewal(at(2999), Some(&authority().key())));
        assert!(certificate.wants_renewal(at(3000), None));
        assert!(certificate.wants_renewal(at(1000), Some(&other)));
    }

    proptest! {
        #[test]
        fn arbitrary_fields_never_panic(fields in proptest::collection::vec(0u8..9, 0..80)) {
            let bytes = authority().seal(PURPOSE, &fields);
            let _ = Certificate::open(&bytes, |_| true);
            let _ = Certificate::open(&fields, |_| true);
        }
    }
}
