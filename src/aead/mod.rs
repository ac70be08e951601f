//! ChaCha20-Poly1305 (RFC 8439) in the one form WireGuard's transport messages use it.
//!
//! The nonce is four zero bytes and the message counter, little-endian (WireGuard paper §5.4.6); nothing is
//! authenticated besides the message. What is sealed or opened goes from one buffer to another, so encryption is also the
//! copy that a packet needs anyway.
//!
//! Two [`Engine`]s compute the same bytes: ring's, which runs everywhere, and one of 512-bit vectors, which is faster where
//! the processor has them (`cargo bench --bench aead` says by how much) and is tested against the first.

#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod chacha20;
#[cfg(target_arch = "x86_64")]
mod poly1305;
mod ring;
#[cfg(test)]
mod tests;
#[cfg(target_arch = "x86_64")]
mod vector;

#[cfg(target_arch = "x86_64")]
use zeroize::Zeroizing;

/// How much longer a sealed message is than its plaintext: the Poly1305 tag, in bytes.
pub const TAG_LEN: usize = 16;

/// An implementation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// ring's assembly: AVX2 on x86-64, NEON on ARM, plain C elsewhere.
    Ring,
    /// Vectors of 512 bits, on x86-64 processors that have AVX-512 F, BW, DQ and IFMA, and BMI2.
    Avx512,
}

impl Engine {
    /// The fastest one that this processor can run.
    pub fn fastest() -> Self {
        if Self::Avx512.available() { Self::Avx512 } else { Self::Ring }
    }

    /// Whether this processor can run it.
    pub fn available(self) -> bool {
        match self {
            Self::Ring => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => avx512::available(),
            #[cfg(not(target_arch = "x86_64"))]
            Self::Avx512 => false,
        }
    }

    /// Its name, for logs and tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ring => "ring",
            Self::Avx512 => "avx512",
        }
    }
}

/// A sealed message is not what the owner of the key sealed under this counter: it was forged, damaged, or its length is
/// impossible. There is nothing to do with it but to count and drop it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not authentic")]
pub struct NotAuthentic;

/// The key of one direction of a session, and the engine that uses it. Wiped when dropped; what a computation leaves of it on
/// the stack is not.
///
/// A caller must never seal two messages under the same counter: that gives away both plaintexts and lets anyone forge.
pub struct Key {
    cipher: Cipher,
}

/// The key in the form that its engine wants. [`Key::new`] alone makes them.
enum Cipher {
    Ring(Box<ring::Cipher>),
    /// Only where this processor has been seen to have all that the engine is made of.
    #[cfg(target_arch = "x86_64")]
    Avx512(Zeroizing<[u8; 32]>),
}

impl Key {
    /// A key for `engine`, or for ring where this processor cannot run that one.
    pub fn new(key: &[u8; 32], engine: Engine) -> Self {
        let cipher = match engine {
            #[cfg(target_arch = "x86_64")]
            Engine::Avx512 if engine.available() => Cipher::Avx512(Zeroizing::new(*key)),
            _ => Cipher::Ring(Box::new(ring::Cipher::new(key))),
        };
        Self { cipher }
    }

    /// The engine in use.
    pub fn engine(&self) -> Engine {
        match self.cipher {
            Cipher::Ring(_) => Engine::Ring,
            #[cfg(target_arch = "x86_64")]
            Cipher::Avx512(_) => Engine::Avx512,
        }
    }

    /// Encrypts `plaintext` into `sealed` and appends the tag.
    ///
    /// `sealed` must be [`TAG_LEN`] longer than `plaintext`. Any other length is a mistake in the caller: `sealed` becomes all
    /// zeroes, which no receiver takes for authentic (a debug build panics). A message has less than 256 GiB (RFC 8439 §2.8).
    pub fn seal(&self, counter: u64, plaintext: &[u8], sealed: &mut [u8]) {
        if sealed.len().checked_sub(TAG_LEN) != Some(plaintext.len()) {
            debug_assert!(false, "{} bytes for a sealed message of {}", sealed.len(), plaintext.len());
            return sealed.fill(0);
        }
        let Some((ciphertext, tag)) = sealed.split_last_chunk_mut() else { return };
        match &self.cipher {
            // SAFETY: `new` has seen that this processor has all that this is made of.
            #[cfg(target_arch = "x86_64")]
            Cipher::Avx512(key) => unsafe { avx512::seal(key, counter, plaintext, ciphertext, tag) },
            Cipher::Ring(cipher) => cipher.seal(counter, plaintext, ciphertext, tag),
        }
    }

    /// Decrypts `sealed`, ciphertext and tag, into `plaintext` if it is authentic. Tags are compared in constant time.
    ///
    /// `plaintext` must be [`TAG_LEN`] shorter than `sealed`; other lengths are never authentic. After an error its content is
    /// arbitrary, must not be used, and may have been written.
    pub fn open(&self, counter: u64, sealed: &[u8], plaintext: &mut [u8]) -> Result<(), NotAuthentic> {
        let (ciphertext, tag) = sealed.split_last_chunk().ok_or(NotAuthentic)?;
        if ciphertext.len() != plaintext.len() {
            return Err(NotAuthentic);
        }
        let authentic = match &self.cipher {
            // SAFETY: `new` has seen that this processor has all that this is made of.
            #[cfg(target_arch = "x86_64")]
            Cipher::Avx512(key) => unsafe { avx512::open(key, counter, ciphertext, tag, plaintext) },
            Cipher::Ring(cipher) => cipher.open(counter, ciphertext, tag, plaintext),
        };
        if authentic { Ok(()) } else { Err(NotAuthentic) }
    }
}
