//! The bytes of a TCP connection, in whatever pieces they come.
//!
//! ```text
//!  how (1): bit 0 somebody called us, bit 1 with a good preamble in front
//!  size (1): of the pieces, 0 for all at once
//!  bytes
//! ```
//!
//! What must hold: what comes out is the same however the bytes are cut, in order, and framed again it is what went in.

use super::input::Input;
use weft::wire::key::PublicKey;
use weft::wire::stream::{Decoder, MAX_DATAGRAM, PREAMBLE_LEN, PreambleKey, framed};

/// Who is called.
pub const CALLED: PublicKey = PublicKey([7; 32]);

/// The target.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (Some(how), Some(size)) = (input.byte(), input.byte()) else { return };
    let key = PreambleKey::of(&CALLED);
    let mut bytes = match how & 3 {
        3 => key.preamble([1; 16]).to_vec(),
        _ => Vec::new(),
    };
    bytes.extend_from_slice(input.bytes(usize::MAX));
    let decoder = || match how & 1 {
        1 => Decoder::of_caller(key.clone()),
        _ => Decoder::of_called(),
    };
    let whole = decoded(decoder(), [&bytes[..]]);
    let size = if size == 0 { bytes.len().max(1) } else { usize::from(size) };
    assert_eq!(decoded(decoder(), bytes.chunks(size)), whole, "pieces of {size}");
    let (datagrams, _) = whole;
    if how & 3 == 1 && bytes.get(..PREAMBLE_LEN) != Some(&key.preamble([1; 16])[..]) {
        // A preamble with another nonce would have to be guessed.
        assert!(datagrams.is_empty());
    }
    let mut at = if how & 1 == 1 { PREAMBLE_LEN } else { 0 };
    for datagram in datagrams {
        assert!((1..=MAX_DATAGRAM).contains(&datagram.len()));
        let again = framed(datagram.len(), |room| {
            room.copy_from_slice(&datagram);
            Some(datagram.len())
        });
        let again = again.expect("it is short enough");
        assert_eq!(bytes[at..at + again.len()], again);
        at += again.len();
    }
}

/// What comes out, and whether the connection lives on.
fn decoded<'a>(mut decoder: Decoder, pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Vec<u8>>, bool) {
    let mut datagrams = Vec::new();
    let mut pieces = pieces.into_iter();
    let lives = pieces.all(|piece| decoder.input(piece, |datagram| datagrams.push(datagram.to_vec())).is_ok());
    (datagrams, lives)
}
