#![allow(clippy::unwrap_used)]
use super::*;
use crate::trust::authority::Authority;
use crate::trust::ledger::{Revocation, Succession};
use crate::wire::key::Secret;
use proptest::prelude::*;

/// 2026-11-21.
const T0: u64 = 1_795_219_200;

fn at(days: i64) -> Duration {
    Duration::from_secs(T0.saturating_add_signed(days * DAY as i64))
}

fn authority(n: u8) -> Authority {
    Authority::new(&Secret::shared([n; 32]))
}

fn key(n: u8) -> PublicKey {
    PublicKey([n; 32])
}

/// Key `n`, `beta`, from day 0 to day 90.
fn certificate(by: u8, n: u8, serial: u64) -> Vec<u8> {
    let certificate = Certificate {
        by: authority(by).key(),
        name: "beta".into(),
        key: key(n),
        tunnel_address: Ipv4Addr::new(100, 64, 0, n),
        slices: Vec::new(),
        serial,
        not_before: at(0),
        expires: at(90),
        unknown: Vec::new(),
    };
    certificate.sign(&authority(by)).unwrap()
}

fn policy(authorities: &[u8]) -> Policy {
    let mut policy = Policy::default();
    policy.set_authorities(authorities.iter().map(|&n| authority(n).key()));
    policy
}

fn refused(policy: &Policy, unix: Duration, n: u8, certificate: &[u8]) -> String {
    policy.judge(unix, &key(n), Some(certificate)).unwrap_err().to_string()
}

#[test]
fn a_pinned_key_needs_no_paper_and_a_certified_one_no_pin() {
    let mut policy = policy(&[1]);
    policy.pin([key(9)]);
    assert_eq!(policy.judge(at(0), &key(9), None), Ok(Standing::default()));
    assert_eq!(policy.judge(at(0), &key(2), None), Err(Stranger::Unknown));
    let standing = policy.judge(at(1), &key(2), Some(&certificate(1, 2, 1))).unwrap();
    assert_eq!((standing.name.as_deref(), standing.expires), (Some("beta"), Some(at(90))));
    assert_eq!(standing.tunnel_address, Some(Ipv4Addr::new(100, 64, 0, 2)));
    assert_eq!(Policy::default().judge(at(0), &key(2), Some(&certificate(1, 2, 1))), Err(Stranger::NoAuthority));
}

#[test]
fn every_refusal_says_why() {
    let mut policy = policy(&[1]);
    let paper = certificate(1, 2, 1);
    assert!(refused(&policy, at(1), 3, &paper).contains("of another member, 'beta'"));
    assert!(refused(&policy, at(1), 2, &certificate(5, 2, 1)).contains("another authority"));
    assert!(refused(&policy, at(1), 2, b"no paper").contains("later weft"));
    policy.set_names(None, vec!["beta".into()]);
    assert!(refused(&policy, at(1), 2, &paper).contains("'beta' is in 'deny'"));
    policy.set_names(Some(vec!["gamma".into()]), Vec::new());
    assert!(refused(&policy, at(1), 2, &paper).contains("'beta' is not in 'allow'"));
    policy.set_names(Some(vec!["beta".into()]), Vec::new());
    assert!(policy.judge(at(1), &key(2), Some(&paper)).is_ok());
}

#[test]
fn clocks_may_differ_a_little_and_one_that_is_off_by_a_year_is_asked_about() {
    let policy = policy(&[1]);
    let paper = certificate(1, 2, 1);
    for near in [at(0) - CLOCK_TOLERANCE, at(90) + CLOCK_TOLERANCE] {
        assert!(policy.judge(near, &key(2), Some(&paper)).is_ok());
    }
    assert_eq!(
        refused(&policy, at(-365), 2, &paper),
        "the certificate of 'beta' is not valid before 2026-11-21 00:00 UTC, and this host's clock says \
         2025-11-21 00:00 UTC: is a clock wrong, here or at the authority?"
    );
    assert_eq!(
        refused(&policy, at(365), 2, &paper),
        "the certificate of 'beta' expired on 2027-02-19 00:00 UTC, 275 days ago by this host's clock \
         (2027-11-21 00:00 UTC): set the clock if that is wrong, else invite it again"
    );
    assert!(refused(&policy, at(91), 2, &paper).contains("has not been able to renew it"));
}

fn revoking(by: u8, version: u64, keys: &[u8], successions: Vec<Succession>) -> Vec<u8> {
    let revocation = |&n: &u8| Revocation { key: key(n), serial: 10, until: at(90) };
    let revoked = keys.iter().map(revocation).collect();
    Ledger::sign(&authority(by), version, successions, revoked, Vec::new(), Vec::new()).unwrap().bytes().to_vec()
}

#[test]
fn a_revoked_key_comes_back_only_with_a_later_certificate() {
    let mut policy = policy(&[1]);
    assert_eq!(policy.adopt(&revoking(1, 2, &[2], Vec::new())), Ok(true));
    assert_eq!(refused(&policy, at(1), 2, &certificate(1, 2, 10)), "the certificate of 'beta' was revoked");
    assert!(policy.judge(at(1), &key(2), Some(&certificate(1, 2, 11))).is_ok());
    // An older edition takes nothing back.
    assert_eq!(policy.adopt(&revoking(1, 1, &[], Vec::new())), Ok(false));
    assert!(policy.judge(at(1), &key(2), Some(&certificate(1, 2, 10))).is_err());
}

#[test]
fn after_a_rotation_both_authorities_count_for_a_while_and_then_one() {
    let mut policy = policy(&[1]);
    let succession = Succession::new(&authority(1), authority(2).key(), at(7));
    assert_eq!(policy.adopt(&revoking(2, 5, &[], vec![succession])), Ok(true));
    assert_eq!(policy.leading(), Some(authority(2).key()));
    assert_eq!(policy.succeeded().count(), 1);
    for by in [1, 2] {
        assert!(policy.judge(at(6), &key(2), Some(&certificate(by, 2, 1))).is_ok());
    }
    assert!(policy.judge(at(8), &key(2), Some(&certificate(2, 2, 1))).is_ok());
    assert!(refused(&policy, at(8), 2, &certificate(1, 2, 1)).contains("by an authority that was replaced"));
}

#[test]
fn an_authority_that_stepped_down_cannot_undo_it() {
    let mut policy = policy(&[1]);
    policy.adopt(&revoking(2, 5, &[], vec![Succession::new(&authority(1), authority(2).key(), at(7))])).unwrap();
    let held = policy.ledger().cloned();
    // With the old key: a plain edition, and one that names another successor.
    assert_eq!(policy.adopt(&revoking(1, 99, &[], Vec::new())), Ok(false));
    let other = Succession::new(&authority(1), authority(66).key(), at(7));
    assert!(policy.adopt(&revoking(66, 99, &[], vec![other])).is_err());
    assert_eq!(policy.ledger().cloned(), held);
    // A member whose file names the next authority already holds to it as well.
    policy.set_authorities([authority(2).key()]);
    assert_eq!(policy.ledger().cloned(), held);
    policy.set_authorities([authority(5).key()]);
    assert_eq!(policy.ledger(), None);
}

proptest! {
    #[test]
    fn the_order_of_ledgers_does_not_matter(
        order in Just((0..8usize).collect::<Vec<_>>()).prop_shuffle(), again in proptest::collection::vec(0..8usize, 0..6),
    ) {
        let first = Succession::new(&authority(1), authority(2).key(), at(7));
        let second = Succession::new(&authority(2), authority(3).key(), at(14));
        let editions = [
            revoking(1, 1, &[], Vec::new()), revoking(1, 2, &[2], Vec::new()), revoking(1, 2, &[3], Vec::new()),
            revoking(2, 3, &[2], vec![first]), revoking(2, 4, &[2, 3], vec![first]),
            revoking(3, 5, &[2, 3], vec![first, second]), revoking(3, 6, &[3, 4], vec![first, second]),
            revoking(3, 6, &[4, 5], vec![first, second]),
        ];
        let mut policy = policy(&[1]);
        for edition in order.iter().chain(&again) {
            let _ = policy.adopt(&editions[*edition]);
        }
        let newest = editions[6..].iter().max().unwrap();
        prop_assert_eq!(policy.ledger().map(Ledger::bytes), Some(newest.as_slice()));
    }
}
