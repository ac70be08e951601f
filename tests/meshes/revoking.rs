//! `weft revoke`: everywhere, within seconds, for good.

use super::{CUT, Hosts};
use crate::common::place::usable;
use crate::support::traffic::Pings;
use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_millis(20);
/// For this long nothing is answered, once a cut has been made.
const SILENCE: Duration = Duration::from_secs(2);

/// Pings between the containers of pairs of hosts.
fn pings(mesh: &Hosts, pairs: &[(usize, usize)]) -> Vec<Pings> {
    let ping = |&(from, to): &(usize, usize)| {
        Pings::start(&mesh.container(from).netns, mesh.container(to).v4.into(), 56, EVERY)
    };
    pairs.iter().map(ping).collect()
}

/// From [`CUT`] after `moment` none of these is answered.
#[track_caller]
fn silent_after(moment: Instant, pings: &[Pings]) {
    let (begin, end) = (moment + CUT, moment + CUT + SILENCE);
    // This long, not until something happens.
    std::thread::sleep(end.saturating_duration_since(Instant::now()));
    for (number, pings) in pings.iter().enumerate() {
        let (answered, sent) = pings.between(begin, end);
        assert!(sent > 0 && answered == 0, "{answered} of {sent} were answered of {number}");
    }
}

#[test]
fn a_member_that_is_revoked_is_cut_off_everywhere_and_stays_so() {
    if !usable() {
        return;
    }
    let mut mesh = Hosts::joined(4);
    mesh.down(4, libc::SIGTERM);
    let others = pings(&mesh, &[(1, 2), (3, 2), (2, 3), (2, 1)]);
    for pings in &others {
        pings.answered_after(Instant::now());
    }
    let told = mesh.weft(1, "revoke h2").done();
    let revoked = Instant::now();
    assert!(told.contains("h2"), "{told}");
    silent_after(revoked, &others);
    mesh.reach(1, 3);

    // It comes again, and so does one that was away: whom that one meets tells it.
    mesh.restart(2, libc::SIGKILL);
    mesh.up(4);
    mesh.all_reach([1, 3, 4]);
    let all = pings(&mesh, &[(1, 2), (3, 2), (4, 2), (2, 1), (2, 3), (2, 4)]);
    silent_after(Instant::now(), &all);
    for h in [1, 3, 4] {
        assert!(mesh.peer(h, "h2").is_none_or(|peer| peer.state != "up"), "h2 at h{h}: {:?}", mesh.peer(h, "h2"));
    }
    drop((others, all));

    // Another line is a fresh start.
    mesh.down(2, libc::SIGTERM);
    let token = mesh.invite("h2");
    mesh.join(2, &token);
    mesh.all_reach(1..=4);
}
