//! Ledgers, one after the other, by authorities that sign anything, of which one is believed. The version of the ledger in
//! force never falls, and what is refused changes nothing.
//!
//! Input: records of authority (1), length (1), fields.

use weft::trust::ledger::PURPOSE;
use weft::trust::{Authority, Policy};
use weft::wire::key::Secret;

/// The target.
pub fn run(mut data: &[u8]) {
    let authorities = [1, 2, 3].map(|n| Authority::new(&Secret::shared([n; 32])));
    let mut policy = Policy::default();
    policy.set_authorities([authorities[0].key()]);
    let _ = policy.adopt(data);
    while let [by, length, rest @ ..] = data {
        let (fields, rest) = rest.split_at(rest.len().min(usize::from(*length) * 4));
        data = rest;
        let before = policy.ledger().cloned();
        let adopted = policy.adopt(&authorities[usize::from(*by) % 3].seal(PURPOSE, fields));
        match (before, policy.ledger()) {
            (None, after) => assert_eq!(after.is_some(), adopted == Ok(true)),
            (Some(before), Some(after)) => {
                assert!(after.version >= before.version);
                assert_eq!(after.supersedes(&before), adopted == Ok(true));
            }
            (Some(_), None) => panic!("a ledger was lost"),
        }
    }
}
