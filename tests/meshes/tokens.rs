//! Lines that are no good: each refusal says why, and leaves a host that a good line makes a member.

use super::Hosts;
use crate::common::cli::Said;
use crate::common::eventually;
use crate::common::place::usable;
use std::time::{SystemTime, UNIX_EPOCH};
use weft::trust::Token;

/// It ended with code 1, and says why at last.
#[track_caller]
fn refused(said: Said) -> String {
    assert_eq!(said.code, Some(1), "{said:?}");
    said.err.lines().last().unwrap_or_default().to_owned()
}

impl Hosts {
    fn try_to_join(&self, h: usize, token: &str) -> Said {
        self.weft(h, &format!("join {token} {}", self.places(h)))
    }
}

#[test]
fn a_line_that_was_used_makes_nobody_else_a_member_and_does_not_stand_in_the_way() {
    if !usable() {
        return;
    }
    let mut mesh = Hosts::lay(3);
    mesh.begin(1);
    let token = mesh.invite("h2");
    mesh.join(2, &token);
    let why = refused(mesh.try_to_join(3, &token));
    assert!(why.contains("the invitation for 'h2' was used already by another host: ask for another"), "{why}");
    let why = refused(mesh.try_to_join(3, &token));
    assert!(why.contains("was used already"), "a second time: {why}");
    let good = mesh.invite("h3");
    mesh.join(3, &good);
    for h in 1..=3 {
        mesh.attach(h);
    }
    mesh.all_reach(1..=3);
}

#[test]
fn a_line_that_expired_is_refused_with_its_date_and_another_is_good() {
    if !usable() {
        return;
    }
    let mut mesh = Hosts::lay(2);
    mesh.begin(1);
    let late = mesh.weft(1, "invite h2 --expires 1s").done().trim().to_owned();
    let ends = Token::parse(&late).unwrap().expires;
    eventually("the line has expired", || {
        (SystemTime::now().duration_since(UNIX_EPOCH).unwrap() > ends).then_some(())
    });
    let why = refused(mesh.try_to_join(2, &late));
    assert!(why.contains("the invitation for 'h2' expired on ") && why.contains("ask for another"), "{why}");
    let good = mesh.invite("h2");
    mesh.join(2, &good);
    mesh.attach(1);
    mesh.attach(2);
    mesh.reach(1, 2);
}

#[test]
fn a_line_that_was_altered_or_is_none_makes_nothing() {
    if !usable() {
        return;
    }
    let mut mesh = Hosts::lay(2);
    mesh.begin(1);
    let token = mesh.invite("h2");
    let middle = token.len() / 2;
    let other = if token.as_bytes()[middle] == b'A' { "B" } else { "A" };
    let altered = format!("{}{other}{}", &token[..middle], &token[middle + 1..]);
    for damaged in [altered.as_str(), &token[..middle], &token[..token.len() - 1]] {
        let why = refused(mesh.try_to_join(2, damaged));
        assert!(why.contains("the invitation is damaged") && why.contains("copy the whole line again"), "{why}");
        assert!(!mesh.dir(2).exists(), "something was made");
    }
    let why = refused(mesh.try_to_join(2, "K10::server:secret"));
    assert!(why.contains("this is no invitation") && !mesh.dir(2).exists(), "{why}");
    mesh.join(2, &token);
}

#[test]
fn a_line_of_another_network_does_not_take_a_host_out_of_its_own() {
    if !usable() {
        return;
    }
    let mut mesh = Hosts::joined(2);
    let mut elsewhere = Hosts::lay(1);
    elsewhere.begin(1);
    let foreign = elsewhere.invite("h2");
    let before = mesh.text(2);
    let why = refused(mesh.try_to_join(2, &foreign));
    assert!(why.contains("the invitation is of another network: its authority is "), "{why}");
    assert_eq!(mesh.text(2), before);
    mesh.restart(2, libc::SIGTERM);
    mesh.reach(1, 2);
}

#[test]
fn a_line_whose_network_does_not_know_it_is_refused() {
    if !usable() {
        return;
    }
    let mut mesh = Hosts::lay(2);
    mesh.begin(1);
    let token = mesh.invite("h2");
    // Whoever would like to have a longer life writes another line, which is whole.
    let mut forged = Token::parse(&token).unwrap();
    forged.secret = weft::trust::token::InviteSecret::new([7; 16]);
    let why = refused(mesh.try_to_join(2, &forged.to_string()));
    assert!(why.contains("the issuer knows no such invitation"), "{why}");
    // What was withdrawn is as unknown.
    mesh.weft(1, "revoke h2").done();
    let why = refused(mesh.try_to_join(2, &token));
    assert!(why.contains("the issuer knows no such invitation"), "{why}");
    let good = mesh.invite("h2");
    mesh.join(2, &good);
}
