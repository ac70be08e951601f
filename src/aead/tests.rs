//! Both engines under the same tests; ring's bytes are the expected ones.

use super::{Engine, Key, NotAuthentic, TAG_LEN};
use proptest::prelude::*;

const SECRET: [u8; 32] = [0x42; 32];
/// Counters whose halves carry, vanish or are full.
const COUNTERS: [u64; 6] = [0, 1, u32::MAX as u64, 1 << 32, (1 << 32) + 1, u64::MAX];

#[test]
fn rfc_8439_appendix_a5_without_its_associated_data() {
    // The key, nonce (its first four bytes are zero) and plaintext of RFC 8439 A.5. With no associated data only the tag
    // differs, so the ciphertext begins as the RFC's does.
    let key = *b"\x1c\x92\x40\xa5\xeb\x55\xd3\x8a\xf3\x33\x88\x86\x04\xf6\xb5\xf0\x47\x39\x17\xc1\x40\x2b\x80\x09\x9d\xca\x5c\xbc\x20\x70\x75\xc0";
    let counter = 0x0807_0605_0403_0201;
    let plaintext = b"Internet-Drafts are draft documents valid for a maximum of six months and may be updated, \
        replaced, or obsoleted by other documents at any time. It is inappropriate to use Internet-Drafts as reference material or to cite \
        them other than as /\xe2\x80\x9cwork in progress./\xe2\x80\x9d";
    let begins = *b"\x64\xa0\x86\x15\x75\x86\x1a\xf4\x60\xf0\x62\xc7\x9b\xe6\x43\xbd\x5e\x80\x5c\xfd\x34\x5c\xf3\x89\xf1\x08\x67\x0a\xc7\x6c\x8c\xb2";
    for engine in engines() {
        let sealed = seal(&Key::new(&key, engine), counter, plaintext);
        assert_eq!(sealed[..32], begins, "{engine:?}");
    }
}

#[test]
fn every_length_of_a_packet() {
    for engine in engines() {
        let (key, ring) = (Key::new(&SECRET, engine), Key::new(&SECRET, Engine::Ring));
        let plaintext = noise(2100);
        for length in 0..=plaintext.len() {
            let plaintext = &plaintext[..length];
            let counter = COUNTERS[length % COUNTERS.len()];
            let sealed = seal(&key, counter, plaintext);
            assert_eq!(sealed, seal(&ring, counter, plaintext), "{engine:?}, {length} bytes");
            assert_eq!(open(&key, counter, &sealed).as_deref(), Ok(plaintext), "{engine:?}, {length} bytes");
        }
    }
}

#[test]
fn no_bit_of_a_tag_may_change() {
    for engine in engines() {
        let key = Key::new(&SECRET, engine);
        for length in [0, 1, 64, 200, 1440] {
            let mut sealed = seal(&key, 7, &noise(length));
            for bit in 0..8 * TAG_LEN {
                sealed[length + bit / 8] ^= 1 << (bit % 8);
                assert_eq!(open(&key, 7, &sealed), Err(NotAuthentic), "{engine:?}, {length} bytes, bit {bit}");
                sealed[length + bit / 8] ^= 1 << (bit % 8);
            }
            assert!(open(&key, 7, &sealed).is_ok());
        }
    }
}

#[test]
fn no_bit_of_a_message_may_change() {
    for engine in engines() {
        let key = Key::new(&SECRET, engine);
        for length in [1, 16, 130, 700, 1440] {
            let mut sealed = seal(&key, 7, &noise(length));
            for bit in 0..8 * length {
                sealed[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(open(&key, 7, &sealed), Err(NotAuthentic), "{engine:?}, {length} bytes, bit {bit}");
                sealed[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }
}

#[test]
fn another_counter_or_key_is_not_authentic() {
    for engine in engines() {
        let key = Key::new(&SECRET, engine);
        for counter in COUNTERS {
            let sealed = seal(&key, counter, b"a frame");
            for other in COUNTERS.into_iter().filter(|other| *other != counter) {
                assert_eq!(open(&key, other, &sealed), Err(NotAuthentic), "{engine:?}");
            }
            assert_eq!(open(&Key::new(&[0x43; 32], engine), counter, &sealed), Err(NotAuthentic), "{engine:?}");
        }
    }
}

#[test]
fn impossible_lengths_are_not_authentic() {
    for engine in engines() {
        let key = Key::new(&SECRET, engine);
        for length in 0..TAG_LEN {
            assert_eq!(key.open(0, &[0; TAG_LEN][..length], &mut []), Err(NotAuthentic), "{engine:?}");
        }
        let sealed = seal(&key, 0, b"a frame");
        assert_eq!(key.open(0, &sealed, &mut [0; 6]), Err(NotAuthentic), "{engine:?}");
        assert_eq!(key.open(0, &sealed, &mut [0; 8]), Err(NotAuthentic), "{engine:?}");
    }
}

#[test]
fn nothing_is_written_past_the_message() {
    for engine in engines() {
        let key = Key::new(&SECRET, engine);
        for length in (0..600).chain([1023, 1024, 1025, 1440]) {
            for shift in [0, 1, 31, 63] {
                let mut around = vec![0xaa; shift + length + TAG_LEN + 64];
                let plaintext = noise(shift + length);
                key.seal(1, &plaintext[shift..], &mut around[shift..shift + length + TAG_LEN]);
                let sealed = around[shift..shift + length + TAG_LEN].to_vec();
                assert!(around[..shift].iter().chain(&around[shift + length + TAG_LEN..]).all(|b| *b == 0xaa));
                around.fill(0xaa);
                assert_eq!(key.open(1, &sealed, &mut around[shift..shift + length]), Ok(()), "{engine:?}");
                assert_eq!(
                    around[shift..shift + length],
                    plaintext[shift..],
                    "{engine:?}, {length} bytes at {shift}"
                );
                assert!(around[..shift].iter().chain(&around[shift + length..]).all(|b| *b == 0xaa));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_message_under_any_key(
        secret: [u8; 32],
        counter: u64,
        length in prop_oneof![0..2000usize, 0..70_000usize],
        seed: u8,
        flip: prop::sample::Index,
    ) {
        let plaintext: Vec<u8> = noise(length + usize::from(seed))[usize::from(seed)..].to_vec();
        let expected = seal(&Key::new(&secret, Engine::Ring), counter, &plaintext);
        for engine in engines() {
            let key = Key::new(&secret, engine);
            let mut sealed = seal(&key, counter, &plaintext);
            prop_assert!(sealed == expected, "{engine:?} seals {length} bytes differently");
            prop_assert!(open(&key, counter, &sealed).as_ref() == Ok(&plaintext), "{engine:?}, {length} bytes");
            let bit = flip.index(sealed.len() * 8);
            sealed[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(open(&key, counter, &sealed), Err(NotAuthentic));
        }
    }
}

/// The engines of this processor. It says which cannot be tested; no machine can be made to have them, so that is never a
/// failure.
#[allow(clippy::print_stdout)]
fn engines() -> impl Iterator<Item = Engine> {
    [Engine::Ring, Engine::Avx512].into_iter().filter(|engine| {
        if !engine.available() {
            println!("skipped: this processor cannot run {}", engine.name());
        }
        engine.available()
    })
}

fn seal(key: &Key, counter: u64, plaintext: &[u8]) -> Vec<u8> {
    let mut sealed = vec![0; plaintext.len() + TAG_LEN];
    key.seal(counter, plaintext, &mut sealed);
    sealed
}

fn open(key: &Key, counter: u64, sealed: &[u8]) -> Result<Vec<u8>, NotAuthentic> {
    let mut plaintext = vec![0; sealed.len() - TAG_LEN];
    key.open(counter, sealed, &mut plaintext).map(|()| plaintext)
}

/// Bytes without a pattern, always the same.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(|_| next()).collect()
}
