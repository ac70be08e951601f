//! A certificate: bytes as they come, and fields that an authority signed without looking. What is read is signed again
//! to the same meaning, and is believed by nobody who does not believe its authority.

use weft::trust::certificate::{MAX_CERTIFICATE, PURPOSE, from_text, to_text};
use weft::trust::{Authority, Certificate, Policy};
use weft::wire::key::Secret;

/// The target.
pub fn run(data: &[u8]) {
    let authority = Authority::new(&Secret::shared([1; 32]));
    let _ = Certificate::open(data, |_| true);
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = from_text(text);
    }
    assert_eq!(from_text(&to_text(data)).as_deref(), Ok(data));
    let signed = authority.seal(PURPOSE, data);
    assert!(Certificate::open(&signed, |_| false).is_err());
    let Ok(certificate) = Certificate::open(&signed, |by| *by == authority.key()) else { return };
    assert!(signed.len() <= MAX_CERTIFICATE);
    if let Some(again) = certificate.sign(&authority) {
        assert_eq!(Certificate::open(&again, |_| true), Ok(certificate.clone()));
    }
    let mut policy = Policy::default();
    assert!(policy.judge(certificate.not_before, &certificate.key, Some(&signed)).is_err());
    policy.set_authorities([authority.key()]);
    let in_time = certificate.not_before <= certificate.expires;
    let judged = policy.judge(certificate.not_before, &certificate.key, Some(&signed));
    assert!(judged.is_ok() || !in_time, "{judged:?}");
}
