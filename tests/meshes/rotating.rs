//! `weft authority rotate`: all members renew their certificates, and no container notices.

use super::{Hosts, Unbroken, within};
use crate::common::place::usable;
use std::time::Duration;

#[test]
fn an_authority_is_handed_on_and_certificates_are_renewed_without_losing_a_ping() {
    if !usable() {
        return;
    }
    let mut mesh = Hosts::joined(3);
    let key = |mesh: &Hosts| std::fs::read(mesh.dir(1).join("authority.key")).unwrap();
    let before = key(&mesh);
    let pings = [(1, 2), (2, 3), (3, 1)]
        .map(|(from, to)| Unbroken::start(&mesh.container(from).netns, mesh.container(to).v4.into()));
    mesh.weft(1, "authority rotate --overlap 1h").done();
    assert_ne!(key(&mesh), before, "the old key is gone");
    // A spread of twenty seconds, ten until everybody has heard, and thirty more if an answer is lost.
    within(Duration::from_secs(90), "both others have renewed", || {
        (mesh.status(1).trust["renewed"] >= 2).then_some(())
    });
    pings.into_iter().for_each(|pings| pings.finish(100));

    // The file of h2 has the first key alone: it is told.
    let warnings = mesh.status(2).warnings;
    assert!(warnings.iter().any(|text| text.contains("authority")), "{warnings:?}");
    for h in 1..=3 {
        mesh.restart(h, libc::SIGTERM);
    }
    mesh.all_reach(1..=3);
}
