#![allow(clippy::unwrap_used)]
use super::*;
use crate::trust::joiner::{Joiner, Step};
use crate::trust::message::{Joined, Message};
use crate::trust::token::{Introducer, Token};
use crate::wire::key::Secret;
use proptest::prelude::*;

const NOW: Duration = Duration::ZERO;
const HOUR: Duration = Duration::from_secs(3600);
const ISSUER: PublicKey = PublicKey([100; 32]);

fn unix(days: u64) -> Duration {
    Duration::from_secs(1_795_219_200 + days * DAY)
}

fn authority(n: u8) -> Authority {
    Authority::new(&Secret::shared([n; 32]))
}

/// An issuer, and the policy of its member.
fn issuer() -> (Issuer, Policy) {
    let mut policy = Policy::default();
    policy.set_authorities([authority(1).key()]);
    (Issuer::new(authority(1), []), policy)
}

fn key(n: u8) -> PublicKey {
    PublicKey([n; 32])
}

fn joiner(invite: &Invite, n: u8) -> Joiner {
    let introducer = |key| Introducer { key, tunnel_address: Ipv4Addr::new(100, 64, 1, 1), endpoints: Vec::new() };
    let token = Token {
        authority: authority(1).key(),
        id: invite.id,
        secret: invite.secret.clone(),
        name: invite.name.clone(),
        expires: Duration::from_secs(invite.expires),
        introducers: vec![introducer(ISSUER), introducer(key(101))],
        networks: Vec::new(),
    };
    Joiner::new(token, key(n), Ipv4Addr::new(100, 64, 0, n))
}

fn ask(joiner: &mut Joiner) -> Join {
    let asked = joiner.ask(NOW);
    assert_eq!(asked.len(), 2);
    let Ok(Message::Join(join)) = Message::parse(&asked[0].1) else { panic!("a join") };
    join
}

fn invited(issuer: &mut Issuer, policy: &Policy, name: &str, n: u8) -> Invite {
    issuer.invite(unix(0), policy, name, Vec::new(), HOUR, [n; 24]).unwrap()
}

fn joined(issuer: &mut Issuer, policy: &Policy, name: &str, n: u8) -> Vec<u8> {
    let invite = invited(issuer, policy, name, n);
    issuer.join(NOW, unix(0), policy, key(n), key(n), &ask(&mut joiner(&invite, n))).unwrap().certificate
}

#[test]
fn an_invited_host_gets_a_certificate_and_the_same_one_when_it_asks_again() {
    let (mut issuer, policy) = issuer();
    let slice: Cidr = "10.32.5.0/24".parse().unwrap();
    let invite = issuer.invite(unix(0), &policy, "beta", vec![slice], HOUR, [7; 24]).unwrap();
    let mut joiner = joiner(&invite, 2);
    let join = ask(&mut joiner);
    let granted = issuer.join(NOW, unix(0), &policy, key(2), key(2), &join).unwrap();
    assert!(
        matches!(granted.records.as_slice(), [Record::Invite(used), Record::Issued(_)] if used.used_by == Some(key(2)))
    );
    let again = issuer.join(NOW, unix(0) + 2 * HOUR, &policy, key(2), key(2), &join).unwrap();
    assert_eq!(again, granted);

    let answer = Joined { certificate: granted.certificate.clone(), ledger: None, introducers: Vec::new() };
    let step = joiner.input(unix(0), &ISSUER, Message::Joined(answer.clone()));
    assert_eq!(step, Some(Step::Joined(answer.clone())));
    // With a clock that is off by a year it is a member all the same, and is told.
    assert_eq!(
        joiner.input(unix(0) - Duration::from_secs(365 * DAY), &ISSUER, Message::Joined(answer.clone())),
        step
    );
    assert_eq!(joiner.input(unix(0), &key(55), Message::Joined(answer)), None, "nobody asked this one");
    let standing = policy.judge(unix(1), &key(2), Some(&granted.certificate)).unwrap();
    assert_eq!((standing.name.as_deref(), standing.slices), (Some("beta"), vec![slice]));
}

#[test]
fn after_a_restart_the_issuer_knows_what_it_did() {
    let (mut issuer, policy) = issuer();
    let invite = invited(&mut issuer, &policy, "beta", 2);
    let join = ask(&mut joiner(&invite, 2));
    let granted = issuer.join(NOW, unix(0), &policy, key(2), key(2), &join).unwrap();
    let json = serde_json::to_string(&granted.records).unwrap();
    let mut issuer = Issuer::new(authority(1), serde_json::from_str::<Vec<Record>>(&json).unwrap());
    assert_eq!(issuer.join(NOW, unix(0), &policy, key(2), key(2), &join).unwrap().certificate, granted.certificate);
    let other = ask(&mut joiner(&invite, 3));
    assert_eq!(issuer.join(NOW, unix(0), &policy, key(3), key(3), &other), Err(Refusal::Used("beta".into())));
}

#[test]
fn an_expired_or_foreign_token_is_refused_with_a_sentence() {
    let (mut issuer, policy) = issuer();
    let invite = invited(&mut issuer, &policy, "beta", 2);
    let join = ask(&mut joiner(&invite, 2));
    let late = issuer.join(NOW, unix(0) + 2 * HOUR, &policy, key(2), key(2), &join).unwrap_err().to_string();
    assert_eq!(late, "the invitation for 'beta' expired on 2026-11-21 01:00 UTC: ask for another");
    let elsewhere = Invite { id: InviteId(999), ..invite.clone() };
    let foreign = ask(&mut joiner(&elsewhere, 2));
    assert_eq!(issuer.join(NOW, unix(0), &policy, key(2), key(2), &foreign), Err(Refusal::Unknown));
    // Whoever carries a join cannot use it for a key of its own.
    assert_eq!(issuer.join(NOW, unix(0), &policy, key(3), key(3), &join), Err(Refusal::Unknown));
    assert!(issuer.forget_old(unix(7)).is_empty());
    assert_eq!(issuer.forget_old(unix(8)), [invite.id]);
}

#[test]
fn a_guesser_is_soon_not_heard_and_others_are() {
    let (mut issuer, policy) = issuer();
    let invite = invited(&mut issuer, &policy, "beta", 2);
    let wrong = Join { proof: [0; 32], ..ask(&mut joiner(&invite, 9)) };
    for _ in 0..MAX_WRONG {
        assert_eq!(issuer.join(NOW, unix(0), &policy, key(9), key(9), &wrong), Err(Refusal::Unknown));
    }
    let right = ask(&mut joiner(&invite, 9));
    assert_eq!(issuer.join(NOW, unix(0), &policy, key(9), key(9), &right), Err(Refusal::Deaf));
    // What a member carries counts against the member, and silences nobody else.
    for _ in 0..=MAX_WRONG {
        let _ = issuer.join(NOW, unix(0), &policy, key(200), key(7), &wrong);
    }
    assert_eq!(issuer.join(NOW, unix(0), &policy, key(200), key(7), &wrong), Err(Refusal::Deaf));
    assert_eq!(issuer.join(NOW, unix(0), &policy, key(7), key(7), &wrong), Err(Refusal::Unknown));
    for n in 0..=255 {
        let _ = issuer.join(NOW + DEAF, unix(0), &policy, key(n), key(n), &wrong);
    }
    assert!(issuer.wrong.len() <= MAX_WATCHED);
    assert!(issuer.join(NOW + 2 * DEAF, unix(0), &policy, key(9), key(9), &right).is_ok());
}

#[test]
fn names_addresses_and_slices_belong_to_one_member() {
    let (mut issuer, policy) = issuer();
    joined(&mut issuer, &policy, "beta", 2);
    let taken = issuer.invite(unix(0), &policy, "beta", Vec::new(), HOUR, [5; 24]).unwrap_err().to_string();
    assert!(taken.contains("'weft revoke beta' frees it"), "{taken}");
    let invite = invited(&mut issuer, &policy, "gamma", 3);
    let mut join = ask(&mut joiner(&invite, 3));
    join.tunnel_address = Ipv4Addr::new(100, 64, 0, 2);
    join.proof = crate::trust::token::proof(&invite.secret, invite.id, &key(3), join.tunnel_address);
    let taken = issuer.join(NOW, unix(0), &policy, key(3), key(3), &join).unwrap_err();
    assert_eq!(taken, Refusal::AddressTaken(Ipv4Addr::new(100, 64, 0, 2), "beta".into()));
    let mut sliced = |name: &str, slice: &str, n| {
        issuer.invite(unix(0), &policy, name, vec![slice.parse().unwrap()], HOUR, [n; 24])
    };
    assert!(sliced("delta", "10.32.0.0/24", 8).is_ok());
    assert!(matches!(sliced("epsilon", "10.32.0.128/25", 9), Err(Refusal::SliceTaken(..))));
    assert!(matches!(sliced("a b", "10.33.0.0/24", 9), Err(Refusal::NotAName(_))));
}

#[test]
fn a_renewed_certificate_is_later_and_a_lost_answer_is_repeated() {
    let (mut issuer, policy) = issuer();
    let first = joined(&mut issuer, &policy, "beta", 2);
    let renewed = issuer.renew(unix(61), &policy, key(2), &first, &[]).unwrap();
    let (old, new) =
        (policy.certificate(unix(61), &key(2), &first), policy.certificate(unix(61), &key(2), &renewed.certificate));
    let (old, new) = (old.unwrap(), new.unwrap());
    assert!(new.serial > old.serial && new.expires == unix(61) + LIFETIME && new.name == "beta");
    assert_eq!(issuer.renew(unix(61), &policy, key(2), &first, &[]).unwrap().certificate, renewed.certificate);
    let late = issuer.renew(unix(200), &policy, key(2), &first, &[]).unwrap_err().to_string();
    assert!(late.contains("expired on"), "{late}");
    assert!(matches!(issuer.renew(unix(61), &policy, key(3), &first, &[]), Err(Refusal::Stranger(_))));
}

#[test]
fn who_is_revoked_is_out_stays_out_and_may_be_invited_again() {
    let (mut issuer, mut policy) = issuer();
    let paper = joined(&mut issuer, &policy, "beta", 2);
    let pending = invited(&mut issuer, &policy, "gamma", 3);
    let revoked = issuer.revoke(unix(1), &policy, "beta").unwrap();
    policy.adopt(revoked.ledger.unwrap().bytes()).unwrap();
    assert!(policy.judge(unix(1), &key(2), Some(&paper)).unwrap_err().to_string().contains("was revoked"));
    assert!(issuer.renew(unix(1), &policy, key(2), &paper, &[]).is_err());
    // The same key, by another invitation.
    let invite = issuer.invite(unix(2), &policy, "beta", Vec::new(), HOUR, [9; 24]).unwrap();
    let granted = issuer.join(NOW, unix(2), &policy, key(2), key(2), &ask(&mut joiner(&invite, 2))).unwrap();
    assert!(policy.judge(unix(2), &key(2), Some(&granted.certificate)).is_ok());
    assert!(policy.judge(unix(2), &key(2), Some(&paper)).is_err());
    // An invitation is withdrawn, a key that this host does not know is revoked, and a name it does not know is asked about.
    assert_eq!(issuer.revoke(unix(2), &policy, "gamma").unwrap().withdrawn, [pending.id]);
    let by_key = issuer.revoke(unix(2), &policy, &key(77).to_string()).unwrap();
    assert!(by_key.ledger.unwrap().revokes(&key(77), 1));
    assert_eq!(issuer.revoke(unix(2), &policy, "zeta"), Err(Refusal::Nobody("zeta".into())));
    issuer.revoke(unix(2), &policy, "beta").unwrap();
    assert_eq!(issuer.revoke(unix(2), &policy, "beta"), Err(Refusal::RevokedAlready("beta".into())));
}

#[test]
fn two_issuers_do_not_lose_each_others_revocations() {
    let ((mut one, mut policy), (mut two, _)) = (issuer(), issuer());
    joined(&mut one, &policy, "beta", 2);
    joined(&mut two, &policy, "gamma", 3);
    let a = one.revoke(unix(1), &policy, "beta").unwrap().ledger.unwrap();
    let b = two.revoke(unix(1), &policy, "gamma").unwrap().ledger.unwrap();
    policy.adopt(a.bytes()).unwrap();
    policy.adopt(b.bytes()).unwrap();
    for _ in 0..3 {
        for issuer in [&one, &two] {
            if let Some(ledger) = issuer.missing(unix(1), &policy) {
                policy.adopt(ledger.bytes()).unwrap();
            }
        }
    }
    let held = policy.ledger().unwrap();
    assert!(held.revokes(&key(2), 1) && held.revokes(&key(3), 1));
    assert!(one.missing(unix(1), &policy).is_none() && two.missing(unix(1), &policy).is_none());
}

#[test]
fn a_rotation_is_followed_by_renewals_and_an_old_key_issues_nothing() {
    let (mut issuer, mut policy) = issuer();
    let paper = joined(&mut issuer, &policy, "beta", 2);
    let ledger = issuer.rotate(unix(1), &policy, authority(2), Duration::from_secs(7 * DAY)).unwrap();
    policy.adopt(ledger.bytes()).unwrap();
    assert_eq!(policy.leading(), Some(authority(2).key()));
    let certificate = policy.certificate(unix(2), &key(2), &paper).unwrap();
    assert!(certificate.wants_renewal(unix(2), policy.leading().as_ref()));
    let renewed = issuer.renew(unix(2), &policy, key(2), &paper, &[]).unwrap().certificate;
    assert!(policy.judge(unix(10), &key(2), Some(&renewed)).is_ok());
    assert!(policy.judge(unix(10), &key(2), Some(&paper)).is_err());
    let mut left_behind = Issuer::new(authority(1), []);
    let refused = left_behind.invite(unix(2), &policy, "gamma", Vec::new(), HOUR, [1; 24]);
    assert_eq!(refused, Err(Refusal::NotLeading(authority(2).key())));
}

proptest! {
    #[test]
    fn a_token_is_redeemed_by_at_most_one_key(
        attempts in proptest::collection::vec((0u8..6, 0u64..8, any::<bool>()), 1..40), restart_at in 0usize..40,
    ) {
        let (mut issuer, policy) = issuer();
        let invite = invited(&mut issuer, &policy, "beta", 2);
        let mut records = vec![Record::Invite(invite.clone())];
        let mut redeemed: Option<(PublicKey, Vec<u8>)> = None;
        for (number, (n, quarter, right)) in attempts.into_iter().enumerate() {
            if number == restart_at {
                issuer = Issuer::new(authority(1), records.clone());
            }
            let mut join = ask(&mut joiner(&invite, n));
            if !right {
                join.proof[3] ^= 4;
            }
            let time = unix(0) + HOUR * quarter as u32 / 4;
            if let Ok(granted) = issuer.join(NOW + HOUR * number as u32, time, &policy, key(n), key(n), &join) {
                records.extend(granted.records);
                let first = redeemed.get_or_insert_with(|| (key(n), granted.certificate.clone()));
                prop_assert!(right);
                prop_assert_eq!(&*first, &(key(n), granted.certificate));
            }
        }
    }
}
