//! WireGuard keys, as text and as the tunnel address that follows from them.
//!
//! A key is 32 bytes, written in base64 exactly as `wg` writes it, so a stock WireGuard host can be given ours.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use blake2::digest::{Update, VariableOutput};
use serde::{Deserialize, Serialize};
use std::cmp::Ordering;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// The text is not a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a WireGuard key: it must be 32 bytes in base64, 44 characters ending in '='")]
pub struct NotAKey;

fn decode(text: &str) -> Result<[u8; 32], NotAKey> {
    let mut bytes = STANDARD.decode(text.trim()).map_err(|_| NotAKey)?;
    let key = bytes.as_slice().try_into().map_err(|_| NotAKey);
    bytes.zeroize();
    key
}

/// A member's X25519 public key: its identity in the mesh.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey(pub [u8; 32]);

impl Ord for PublicKey {
    /// By bytes. Keys are random, so the first eight nearly always tell, as one number: the mesh looks up keys all the time.
    fn cmp(&self, other: &Self) -> Ordering {
        self.first().cmp(&other.first()).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for PublicKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PublicKey {
    /// Its first eight bytes, as a number: in the order of keys.
    pub fn first(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }

    /// The tunnel address a member has unless the file says otherwise: the first 22 bits of BLAKE2s with a digest of
    /// four bytes, of `"weft tunnel address v1" ‖ key`, put inside 100.64.0.0/10 (RFC 6598). Two keys collide with a chance of
    /// one in four million; configuration refuses such a pair, it never picks a winner.
    pub fn tunnel_address(&self) -> Ipv4Addr {
        let mut digest = [0u8; 4];
        if let Ok(mut hash) = blake2::Blake2sVar::new(digest.len()) {
            hash.update(b"weft tunnel address v1");
            hash.update(&self.0);
            // The length is the one the hash was made with, so this cannot fail.
            let _ = hash.finalize_variable(&mut digest);
        }
        let mut host = u32::from_be_bytes(digest) >> 10;
        // 100.64.0.0 and 100.127.255.255 look like a network and a broadcast address: step aside.
        if host == 0 || host == (1 << 22) - 1 {
            host = 1;
        }
        Ipv4Addr::from(0x6440_0000 | host)
    }
}

/// An authority's Ed25519 public key: it signs the certificates of a network's members.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AuthorityKey(pub [u8; 32]);

/// Public keys are base64 wherever they are text.
macro_rules! written_in_base64 {
    ($key:ident) => {
        impl fmt::Display for $key {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&STANDARD.encode(self.0))
            }
        }

        impl fmt::Debug for $key {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $key {
            type Err = NotAKey;
            fn from_str(text: &str) -> Result<Self, NotAKey> {
                decode(text).map(Self)
            }
        }

        impl TryFrom<String> for $key {
            type Error = NotAKey;
            fn try_from(text: String) -> Result<Self, NotAKey> {
                text.parse()
            }
        }

        impl From<$key> for String {
            fn from(key: $key) -> Self {
                key.to_string()
            }
        }
    };
}
written_in_base64!(PublicKey);
written_in_base64!(AuthorityKey);

/// A secret of 32 bytes: a private key or a pre-shared key. Wiped from memory when dropped, never printed.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Secret([u8; 32]);

impl Secret {
    /// An X25519 private key from random bytes, clamped as RFC 7748 §5 asks, so that its text equals `wg genkey`'s.
    pub fn private(mut random: [u8; 32]) -> Self {
        random[0] &= 248;
        random[31] = (random[31] & 127) | 64;
        Self(random)
    }

    /// A pre-shared key from random bytes.
    pub fn shared(random: [u8; 32]) -> Self {
        Self(random)
    }

    /// The bytes, for the one who computes with them.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// The text to write into a key file.
    pub fn to_base64(&self) -> String {
        STANDARD.encode(self.0)
    }

    /// The public key that belongs to this private key.
    pub fn public_key(&self) -> PublicKey {
        let secret = x25519_dalek::StaticSecret::from(self.0);
        PublicKey(x25519_dalek::PublicKey::from(&secret).to_bytes())
    }
}

impl FromStr for Secret {
    type Err = NotAKey;
    fn from_str(text: &str) -> Result<Self, NotAKey> {
        decode(text).map(Self)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_public_key_is_the_one_rfc_7748_gives() {
        // RFC 7748 §6.1, Alice.
        let private = Secret([
            0x77, 0x07, 0x6d, 0x0a, 0x73, 0x18, 0xa5, 0x7d, 0x3c, 0x16, 0xc1, 0x72, 0x51, 0xb2, 0x66, 0x45, 0xdf,
            0x4c, 0x2f, 0x87, 0xeb, 0xc0, 0x99, 0x2a, 0xb1, 0x77, 0xfb, 0xa5, 0x1d, 0xb9, 0x2c, 0x2a,
        ]);
        assert_eq!(private.public_key().to_string(), "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=");
    }

    #[test]
    fn a_tunnel_address_lies_in_the_shared_space_and_does_not_change() {
        let key = PublicKey([7; 32]);
        let address = key.tunnel_address();
        assert_eq!(u32::from(address) >> 22, 0x6440_0000 >> 22);
        // As any implementation of BLAKE2s has it: hashlib.blake2s(b"weft tunnel address v1" + key, digest_size=4).
        assert_eq!(address, Ipv4Addr::new(100, 98, 187, 217));
        assert_ne!(address, PublicKey([8; 32]).tunnel_address());
    }

    #[test]
    fn text_that_is_not_a_key_is_refused() {
        for wrong in ["", "abc", "AAAA", "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo"] {
            assert!(wrong.parse::<PublicKey>().is_err(), "{wrong}");
        }
    }
}
