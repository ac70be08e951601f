#![allow(clippy::unwrap_used)]
use super::*;

#[path = "tests/slices.rs"]
mod slices;

use crate::trust::date::DAY;
use crate::wire::key::Secret;
use std::collections::BTreeMap;

const HOUR: Duration = Duration::from_secs(3600);

fn authority(n: u8) -> Authority {
    Authority::new(&Secret::shared([n; 32]))
}

fn key(n: u8) -> PublicKey {
    PublicKey([n; 32])
}

/// Members that hear each other's messages at once, and what each has on its disk.
struct Mesh {
    now: Duration,
    unix: Duration,
    members: BTreeMap<PublicKey, TrustState>,
    disks: BTreeMap<PublicKey, BTreeMap<String, Record>>,
    heard: Vec<(PublicKey, Output)>,
    /// Pairs that cannot speak to each other.
    cut: Vec<(PublicKey, PublicKey)>,
}

impl Mesh {
    /// One issuer, key 1.
    fn new() -> Self {
        let unix = Duration::from_secs(1_795_219_200);
        let (members, disks) = (BTreeMap::new(), BTreeMap::new());
        let mut mesh = Self { now: Duration::ZERO, unix, members, disks, heard: Vec::new(), cut: Vec::new() };
        mesh.start(1, "alpha", Some(authority(1)));
        mesh.pass(Duration::from_secs(1));
        mesh
    }

    /// Starts a member, or starts it again.
    fn start(&mut self, n: u8, name: &str, authority_: Option<Authority>) {
        let mut policy = Policy::default();
        policy.set_authorities([authority(1).key()]);
        let records = self.disks.entry(key(n)).or_default().values().cloned().collect();
        let tunnel_address = Ipv4Addr::new(100, 64, 0, n);
        let settings =
            Settings { key: key(n), name: name.into(), tunnel_address, policy, authority: authority_, records };
        self.members.insert(key(n), TrustState::new(settings));
    }

    /// A host with a token on its disk.
    fn host(&mut self, n: u8, token: &Token) {
        let record = Record::Token(token.to_string());
        self.disks.entry(key(n)).or_default().insert(record.slot(), record);
        self.start(n, &format!("host{n}"), None);
    }

    fn invite(&mut self, name: &str, introducers: &[u8]) -> Token {
        let introducer =
            |&n: &u8| Introducer { key: key(n), tunnel_address: Ipv4Addr::new(100, 64, 0, n), endpoints: Vec::new() };
        let introducers = introducers.iter().map(introducer).collect();
        let unix = self.unix;
        let random = [name.len() as u8 ^ name.as_bytes()[0]; 24];
        let token = self.member(1).invite(unix, name, Vec::new(), HOUR, introducers, Vec::new(), random).unwrap();
        self.run();
        token
    }

    fn member(&mut self, n: u8) -> &mut TrustState {
        self.members.get_mut(&key(n)).unwrap()
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += Duration::from_secs(1);
            self.unix += Duration::from_secs(1);
            for member in self.members.values_mut() {
                member.tick(self.now, self.unix);
            }
            self.run();
        }
    }

    fn run(&mut self) {
        let keys: Vec<_> = self.members.keys().copied().collect();
        let mut quiet = false;
        while !quiet {
            quiet = true;
            for &from in &keys {
                while let Some(output) = self.members.get_mut(&from).unwrap().poll_output() {
                    quiet = false;
                    self.done(from, output);
                }
            }
        }
    }

    fn done(&mut self, from: PublicKey, output: Output) {
        match &output {
            Output::Save(record) => {
                drop(self.disks.entry(from).or_default().insert(record.slot(), record.clone()));
            }
            Output::Forget(slot) => drop(self.disks.entry(from).or_default().remove(slot)),
            Output::Send { to, payload } => {
                let is_cut = self.cut.contains(&(from, *to)) || self.cut.contains(&(*to, from));
                let unix = self.unix;
                let certificate = self.members[&from].certificate().map(<[u8]>::to_vec);
                if let Some(member) = self.members.get_mut(to).filter(|_| !is_cut) {
                    let is_member = member.policy().judge(unix, &from, certificate.as_deref()).is_ok();
                    member.input(self.now, unix, from, is_member, payload);
                }
            }
            Output::Ledger { bytes, .. } => {
                for (_, member) in self.members.iter_mut().filter(|(key, _)| **key != from) {
                    member.ledger_input(self.unix, bytes);
                }
            }
            _ => {}
        }
        self.heard.push((from, output));
    }

    fn joined(&self, n: u8) -> Option<&str> {
        self.heard.iter().find_map(|(from, output)| match output {
            Output::Joined(name) if *from == key(n) => Some(name.as_str()),
            _ => None,
        })
    }

    fn failure(&self, n: u8) -> Option<&str> {
        self.heard.iter().find_map(|(from, output)| match output {
            Output::JoinFailed(reason) if *from == key(n) => Some(reason.as_str()),
            _ => None,
        })
    }

    fn trusts(&self, n: u8, other: u8) -> bool {
        let certificate = self.members[&key(other)].certificate();
        self.members[&key(n)].policy().judge(self.unix, &key(other), certificate).is_ok()
    }
}

#[test]
fn a_host_joins_by_one_line_and_both_sides_trust_each_other_also_after_restarts() {
    let mut mesh = Mesh::new();
    let token = mesh.invite("beta", &[1]);
    mesh.host(2, &token);
    mesh.pass(Duration::from_secs(1));
    assert_eq!(mesh.joined(2), Some("beta"));
    assert!(mesh.trusts(1, 2) && mesh.trusts(2, 1));
    mesh.start(1, "alpha", Some(authority(1)));
    mesh.start(2, "beta", None);
    assert!(mesh.trusts(1, 2) && mesh.trusts(2, 1) && mesh.member(2).joining().is_none());
    assert_eq!(mesh.member(2).introducers()[0].key, key(1));
    // Another host with the same token.
    mesh.host(3, &token);
    mesh.pass(Duration::from_secs(2));
    assert_eq!(mesh.failure(3), Some("the invitation for 'beta' was used already by another host: ask for another"));
}

#[test]
fn a_host_that_reaches_only_another_member_joins_through_it_and_renews_through_it() {
    let mut mesh = Mesh::new();
    let token = mesh.invite("beta", &[1]);
    mesh.host(2, &token);
    mesh.pass(Duration::from_secs(1));
    let token = mesh.invite("gamma", &[1, 2]);
    mesh.cut = vec![(key(1), key(3))];
    mesh.host(3, &token);
    mesh.pass(Duration::from_secs(2));
    assert_eq!(mesh.joined(3), Some("gamma"));
    assert!(mesh.trusts(1, 3) && mesh.trusts(3, 2));
    assert!(mesh.member(2).counters().forwarded >= 2);

    let first = mesh.member(3).certificate().unwrap().to_vec();
    mesh.unix += Duration::from_secs(61 * DAY);
    mesh.pass(Duration::from_secs(120));
    assert_ne!(mesh.member(3).certificate().unwrap(), first);
    mesh.unix += Duration::from_secs(60 * DAY);
    mesh.pass(Duration::from_secs(120));
    assert!(mesh.trusts(1, 3) && mesh.trusts(3, 1) && mesh.trusts(2, 3), "121 days later");
}

#[test]
fn who_is_revoked_is_told_why_and_everybody_knows() {
    let mut mesh = Mesh::new();
    for (n, name) in [(2, "beta"), (3, "gamma")] {
        let token = mesh.invite(name, &[1]);
        mesh.host(n, &token);
        mesh.pass(Duration::from_secs(1));
    }
    assert!(mesh.trusts(3, 2));
    let unix = mesh.unix;
    assert_eq!(mesh.member(1).revoke(unix, "beta").unwrap(), ["'beta' is revoked; all members are told"]);
    mesh.run();
    assert!(!mesh.trusts(1, 2) && !mesh.trusts(3, 2) && mesh.trusts(3, 1));
    assert_eq!(
        mesh.member(2).warnings(unix),
        ["this member's own certificate does not count: the certificate of 'beta' was revoked"]
    );
    // Also by one that was away and comes back.
    mesh.start(3, "gamma", None);
    assert!(!mesh.trusts(3, 2));
    mesh.member(2).session_up(key(3));
    mesh.run();
    let told = |(from, output): &(PublicKey, Output)| *from == key(3) && matches!(output, Output::Stranger(_, _));
    assert!(mesh.heard.iter().any(told));
    assert!(mesh.member(1).revoke(unix, "alpha").is_err() && mesh.member(3).revoke(unix, "beta").is_err());
}

#[test]
fn who_was_revoked_joins_again_by_another_invitation_with_what_it_still_has() {
    let mut mesh = Mesh::new();
    let token = mesh.invite("beta", &[1]);
    mesh.host(2, &token);
    mesh.pass(Duration::from_secs(1));
    let unix = mesh.unix;
    mesh.member(1).revoke(unix, "beta").unwrap();
    mesh.run();
    mesh.heard.clear();
    let again =
        mesh.member(1).invite(unix, "beta", Vec::new(), HOUR, token.introducers, Vec::new(), [99; 24]).unwrap();
    mesh.run();
    mesh.host(2, &again);
    mesh.member(2).session_up(key(1));
    mesh.run();
    mesh.pass(Duration::from_secs(1));
    assert_eq!((mesh.joined(2), mesh.failure(2)), (Some("beta"), None));
    assert!(mesh.trusts(1, 2));
}

#[test]
fn after_a_rotation_everybody_has_a_new_certificate_before_the_old_ones_end() {
    let mut mesh = Mesh::new();
    let token = mesh.invite("beta", &[1]);
    mesh.host(2, &token);
    mesh.pass(Duration::from_secs(1));
    let unix = mesh.unix;
    mesh.member(1).rotate(unix, authority(2), Duration::from_secs(7 * DAY)).unwrap();
    mesh.run();
    assert!(mesh.trusts(1, 2) && mesh.trusts(2, 1), "during the overlap");
    mesh.pass(LEDGER_FIRST + Duration::from_secs(renewal::RENEW_SPREAD + 2));
    mesh.unix += Duration::from_secs(8 * DAY);
    assert!(mesh.trusts(1, 2) && mesh.trusts(2, 1), "after it");
    // A host that is invited by the authority that leads.
    let token = mesh.invite("gamma", &[1]);
    assert_eq!(token.authority, authority(2).key());
    mesh.start(1, "alpha", Some(authority(2)));
    mesh.host(3, &token);
    mesh.pass(Duration::from_secs(1));
    assert_eq!(mesh.joined(3), Some("gamma"));
    let unix = mesh.unix;
    assert!(mesh.member(1).warnings(unix)[0].contains("was succeeded by"));
}

#[test]
fn a_member_that_was_away_during_a_rotation_hears_of_it_from_whoever_it_meets() {
    let mut mesh = Mesh::new();
    for (n, name) in [(2, "beta"), (3, "gamma")] {
        let token = mesh.invite(name, &[1]);
        mesh.host(n, &token);
        mesh.pass(Duration::from_secs(1));
    }
    let away = mesh.members.remove(&key(3)).unwrap();
    let unix = mesh.unix;
    mesh.member(1).rotate(unix, authority(2), Duration::from_secs(7 * DAY)).unwrap();
    mesh.pass(Duration::from_secs(60));
    mesh.members.insert(key(3), away);
    assert!(!mesh.trusts(3, 2), "it does not know the next authority");
    mesh.member(2).session_up(key(3));
    mesh.pass(Duration::from_secs(60));
    mesh.unix += Duration::from_secs(8 * DAY);
    assert!(mesh.trusts(3, 2) && mesh.trusts(2, 3) && mesh.trusts(1, 3));
}

#[test]
fn clocks_that_are_off_by_a_year_are_named_and_a_join_succeeds_all_the_same() {
    let mut mesh = Mesh::new();
    let token = mesh.invite("beta", &[1]);
    mesh.host(2, &token);
    mesh.pass(Duration::from_secs(1));
    let unix = mesh.unix;
    let year = Duration::from_secs(365 * DAY);
    let behind = mesh.member(2).warnings(unix - year);
    assert!(behind[0].starts_with("this host's clock is wrong: it says 2025-11-21"), "{behind:?}");
    let ahead = mesh.member(2).warnings(unix + year);
    assert!(ahead[0].contains("expired on 2027-02-19") && ahead[0].contains("set the clock"), "{ahead:?}");
    assert!(mesh.member(2).warnings(unix).is_empty());
}

#[test]
fn a_token_that_expired_on_the_way_fails_with_a_sentence() {
    let mut mesh = Mesh::new();
    let token = mesh.invite("beta", &[1]);
    mesh.unix += 2 * HOUR;
    mesh.host(2, &token);
    mesh.pass(Duration::from_secs(2));
    assert!(mesh.failure(2).unwrap().starts_with("the invitation for 'beta' expired on"), "{:?}", mesh.failure(2));
    assert!(mesh.disks[&key(2)].is_empty());
}

#[test]
fn forged_certificates_and_ledgers_are_refused_and_counted() {
    let mut mesh = Mesh::new();
    let (now, unix) = (mesh.now, mesh.unix);
    let forged =
        crate::trust::Ledger::sign(&authority(66), 99, Vec::new(), Vec::new(), Vec::new(), Vec::new()).unwrap();
    let alpha = mesh.member(1);
    assert!(!alpha.ledger_input(unix, forged.bytes()));
    assert_eq!(alpha.counters().ledgers_refused, 1);
    for payload in
        [vec![b'W', 1, 33, 0], Message::Answer(key(5), vec![1, 2]).bytes(), Message::Renewed(vec![1], None).bytes()]
    {
        alpha.input(now, unix, key(9), true, &payload);
    }
    assert_eq!(alpha.counters().malformed, 3);
    // Who is no member speaks for nobody.
    let join = Message::Forward(key(5), Message::Renew(vec![1], Vec::new()).bytes()).bytes();
    alpha.input(now, unix, key(9), false, &join);
    assert_eq!((alpha.counters().malformed, alpha.counters().refused), (4, 0));
    for _ in 0..100 {
        alpha.input(now, unix, key(9), true, &Message::Answer(key(5), Message::Refused("x".into()).bytes()).bytes());
    }
    assert_eq!(alpha.counters().forwarded, u64::from(FORWARDS_A_SECOND));
}

#[test]
fn whoever_is_refused_says_so_until_it_is_over() {
    let mut mesh = Mesh::new();
    let (now, unix) = (mesh.now, mesh.unix);
    let us = mesh.members.get_mut(&key(1)).unwrap();
    let refused = Message::Refused("the certificate of 'alpha' was revoked".into()).bytes();
    let tells = |us: &TrustState, unix| us.warnings(unix).iter().any(|text| text.contains("was revoked"));
    us.input(now, unix, key(2), false, &refused);
    assert!(!tells(us, unix), "anybody could say so");
    us.input(now, unix, key(2), true, &refused);
    assert!(tells(us, unix));
    assert!(!tells(us, unix + HOUR));
}
