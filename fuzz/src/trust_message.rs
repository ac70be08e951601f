//! Messages about trust, to a host that joins and to a member that issues. Nobody becomes a member, is renewed or renames
//! anyone by what a fuzzer can say: it holds no secret and no authority's key.
//!
//! Input: records of who (1: bit 0 to whom, bit 1 whether the sender is a member, the rest who sends), length (1), payload.

use std::net::Ipv4Addr;
use std::time::Duration;
use weft::trust::message::{Message, is_trust};
use weft::trust::record::Record;
use weft::trust::state::{Output, Settings};
use weft::trust::token::{Introducer, InviteId, InviteSecret};
use weft::trust::{Authority, Policy, Token, TrustState};
use weft::wire::key::{PublicKey, Secret};

const UNIX: Duration = Duration::from_secs(1_795_219_200);

/// The target.
pub fn run(mut data: &[u8]) {
    let mut states = [state(true), state(false)];
    let certificates: Vec<_> = states.iter().map(|state| state.certificate().map(<[u8]>::to_vec)).collect();
    let mut now = Duration::ZERO;
    while let [who, length, rest @ ..] = data {
        let (payload, rest) = rest.split_at(rest.len().min(usize::from(*length)));
        data = rest;
        if let Ok(message) = Message::parse(payload) {
            let bytes = message.bytes();
            assert!(is_trust(&bytes));
            assert_eq!(Message::parse(&bytes), Ok(message));
        }
        let state = &mut states[usize::from(who & 1)];
        now += Duration::from_millis(100);
        state.input(now, UNIX + now, PublicKey([who >> 2; 32]), who & 2 != 0, payload);
        state.tick(now, UNIX + now);
        while let Some(output) = state.poll_output() {
            let harmless = match &output {
                Output::Send { payload, .. } => payload.len() < 9000,
                // The issuer itself may say that the token is no good.
                Output::JoinFailed(_) | Output::Stranger(..) => true,
                Output::Forget(slot) => slot == "token",
                _ => false,
            };
            assert!(harmless, "{output:?}");
        }
    }
    let after: Vec<_> = states.iter().map(|state| state.certificate().map(<[u8]>::to_vec)).collect();
    assert_eq!(after, certificates);
}

fn state(is_issuer: bool) -> TrustState {
    let authority = Authority::new(&Secret::shared([1; 32]));
    let mut policy = Policy::default();
    policy.set_authorities([authority.key()]);
    let introducer = |n| Introducer {
        key: PublicKey([n; 32]),
        tunnel_address: Ipv4Addr::new(100, 64, 0, n),
        endpoints: Vec::new(),
    };
    let token = Token {
        authority: authority.key(),
        id: InviteId(1),
        secret: InviteSecret::new([7; 16]),
        name: "beta".to_owned(),
        expires: UNIX + Duration::from_secs(3600),
        introducers: vec![introducer(1), introducer(2)],
        networks: Vec::new(),
    };
    let n = if is_issuer { 1 } else { 9 };
    let records = if is_issuer { Vec::new() } else { vec![Record::Token(token.to_string())] };
    let mut state = TrustState::new(Settings {
        key: PublicKey([n; 32]),
        name: "alpha".to_owned(),
        tunnel_address: Ipv4Addr::new(100, 64, 0, n),
        policy,
        authority: is_issuer.then_some(authority),
        records,
    });
    state.tick(Duration::ZERO, UNIX);
    while state.poll_output().is_some() {}
    state
}
