//! Seeds about trust: [`super::seeds`] includes them.

use std::net::Ipv4Addr;
use std::time::Duration;
use weft::trust::authority::ENVELOPE_LEN;
use weft::trust::ledger::{Revocation, Succession};
use weft::trust::message::{Join, Joined, Message};
use weft::trust::token::{Introducer, InviteId, InviteSecret, NetworkHint};
use weft::trust::{Authority, Certificate, Ledger, Token};
use weft::wire::cidr::Cidr;
use weft::wire::key::{AuthorityKey, PublicKey, Secret};

type Add<'a> = dyn FnMut(&'static str, &str, Vec<u8>) + 'a;

fn authority(n: u8) -> Authority {
    Authority::new(&Secret::shared([n; 32]))
}

/// Fields of certificates and whole ones, ledgers in a row, tokens, messages.
pub(super) fn add(add: &mut Add<'_>) {
    certificates(add);
    ledgers(add);
    tokens(add);
    messages(add);
}

fn certificate() -> Certificate {
    Certificate {
        by: authority(1).key(),
        name: "beta".to_owned(),
        key: PublicKey([2; 32]),
        tunnel_address: Ipv4Addr::new(100, 64, 0, 2),
        slices: ["10.32.1.0/24", "fd00:32::/64"].iter().filter_map(|slice| slice.parse().ok()).collect(),
        serial: 1,
        not_before: Duration::from_secs(1_795_219_200),
        expires: Duration::from_secs(1_795_219_200 + 7_776_000),
        unknown: Vec::new(),
    }
}

fn slice() -> Cidr {
    Cidr { address: Ipv4Addr::new(10, 32, 0, 0).into(), prefix: 16 }
}

fn certificates(add: &mut Add<'_>) {
    let whole = certificate().sign(&authority(1)).unwrap_or_default();
    let fields = whole[ENVELOPE_LEN..].to_vec();
    let bare = Certificate { slices: Vec::new(), ..certificate() };
    let bare = bare.sign(&authority(1)).unwrap_or_default()[ENVELOPE_LEN..].to_vec();
    add("certificate", "bare", bare.clone());
    add("certificate", "twice", [fields.clone(), fields.clone()].concat());
    add("certificate", "cut", fields[..fields.len() - 1].to_vec());
    add("certificate", "unknown-field", [&fields[..], &[200, 0, 3, 1, 2, 3]].concat());
    add("certificate", "bad-name", [&[1, 0, 3, b'a', b' ', b'b'][..], &bare[7..]].concat());
    add("certificate", "bad-slice", [&bare[..], &[4, 0, 6, 4, 33, 10, 0, 0, 0]].concat());
    add("certificate", "fields", fields);
    add("certificate", "whole", whole.clone());
    add("certificate", "later", [&[2][..], &whole[1..]].concat());
    add("certificate", "file", weft::trust::certificate::to_text(&whole).into_bytes());
    add("certificate", "empty", Vec::new());
}

fn ledgers(add: &mut Add<'_>) {
    let until = Duration::from_secs(1_795_219_200);
    let revoked = |n: u8| Revocation { key: PublicKey([n; 32]), serial: 4, until };
    let succession = |a: u8, b: u8| Succession::new(&authority(a), authority(b).key(), until);
    let record = |by: u8, version: u64, successions: &[Succession], revoked: &[Revocation]| {
        let ledger =
            Ledger::sign(&authority(by), version, successions.to_vec(), revoked.to_vec(), Vec::new(), Vec::new());
        let mut fields = ledger.map(|ledger| ledger.bytes()[ENVELOPE_LEN..].to_vec()).unwrap_or_default();
        // An unknown field fills the record to a length that its byte can tell.
        let pad = (4 - (fields.len() + 3) % 4) % 4;
        fields.extend([200, 0, pad as u8]);
        fields.resize(fields.len() + pad, 0);
        [&[by - 1, (fields.len() / 4) as u8][..], &fields].concat()
    };
    let first = record(1, 1, &[], &[revoked(5)]);
    let handed = record(2, 2, &[succession(1, 2)], &[revoked(5)]);
    let twice = record(3, 3, &[succession(1, 2), succession(2, 3)], &[]);
    let undo = record(1, 9, &[], &[]);
    add("ledger", "first", first.clone());
    add("ledger", "again", [first.clone(), first.clone()].concat());
    add("ledger", "stranger", record(2, 5, &[], &[]));
    add("ledger", "forged-succession", record(3, 5, &[succession(2, 3)], &[]));
    add("ledger", "handed", [first.clone(), handed.clone()].concat());
    add("ledger", "handed-twice", [twice.clone(), handed.clone(), first.clone()].concat());
    add("ledger", "undone", [handed.clone(), undo.clone()].concat());
    add("ledger", "backwards", [undo, handed, twice].concat());
    add("ledger", "many", record(1, 7, &[], &(0..15).map(revoked).collect::<Vec<_>>()));
    add("ledger", "no-version", vec![0, 1, 200, 0, 1, 0]);
    add("ledger", "cut", first[..first.len() / 2].to_vec());
}

fn token() -> Token {
    let introducer = |n: u8| Introducer {
        key: PublicKey([n; 32]),
        tunnel_address: Ipv4Addr::new(100, 64, 0, n),
        endpoints: vec!["192.0.2.1:51820".to_owned(), "alpha.example.net:51820".to_owned()],
    };
    Token {
        authority: authority(1).key(),
        id: InviteId(1),
        secret: InviteSecret::new([7; 16]),
        name: "beta".to_owned(),
        expires: Duration::from_secs(1_795_222_800),
        introducers: vec![introducer(1), introducer(2)],
        networks: vec![NetworkHint { vni: 100, name: "blue".to_owned(), subnets: vec!["10.32.0.0/16".to_owned()] }],
    }
}

fn tokens(add: &mut Add<'_>) {
    let mut token_of = |name: &str, token: Token| add("token", name, token.to_string().into_bytes());
    token_of("whole", token());
    token_of("no-networks", Token { networks: Vec::new(), ..token() });
    token_of("no-introducers", Token { introducers: Vec::new(), ..token() });
    token_of("bad-name", Token { name: "a b".to_owned(), ..token() });
    token_of("zero-key", Token { authority: AuthorityKey([0; 32]), ..token() });
    let bad = NetworkHint { vni: 0, name: "blue".to_owned(), subnets: Vec::new() };
    token_of("bad-vni", Token { networks: vec![bad], ..token() });
    let line = token().to_string();
    let mut text = |name: &str, text: &str| add("token", name, text.as_bytes().to_vec());
    text("cut", &line[..line.len() - 5]);
    text("altered", &line.replacen('A', "B", 1));
    text("blanks", &format!("  {line}\r\n"));
    text("later", "weft2:AAAA");
    text("foreign", "K10abcdef::server:1234");
    text("empty", "");
}

fn messages(add: &mut Add<'_>) {
    // Bit 0: to the joiner; bit 1: from a member; then who.
    let record = |who: u8, payload: &[u8]| [&[who, payload.len().min(255) as u8][..], payload].concat();
    let certificate = certificate().sign(&authority(66)).unwrap_or_default();
    let join = Message::Join(Join { id: InviteId(1), proof: [5; 32], tunnel_address: Ipv4Addr::new(100, 64, 0, 5) });
    let joined = |certificate: &[u8]| {
        Message::Joined(Joined { certificate: certificate.to_vec(), ledger: None, introducers: Vec::new() }).bytes()
    };
    let mut message = |name: &str, bytes: Vec<u8>| add("trust_message", name, bytes);
    message("join", record(20, &join.bytes()));
    message("joins", record(20, &join.bytes()).repeat(8));
    message("forwarded-join", record(22, &Message::Forward(PublicKey([5; 32]), join.bytes()).bytes()));
    message("renew", record(20, &Message::Renew(vec![1; 120], vec![slice()]).bytes()));
    message("joined-forged", record(5, &joined(&certificate[..150])));
    message("joined-by-the-issuer", record(5, &joined(&[1; 100])));
    message("refused-by-the-issuer", record(5, &Message::Refused("no".to_owned()).bytes()));
    message("refused-by-another", record(9, &Message::Refused("no".to_owned()).bytes()));
    message(
        "renewed",
        [
            record(4, &Message::Renewed(vec![1; 99], Some("none is left".into())).bytes()),
            record(5, &[b'W', 1, 36, 0]),
        ]
        .concat(),
    );
    message("answer", record(22, &Message::Answer(PublicKey([5; 32]), Message::Refused("x".into()).bytes()).bytes()));
    message("show", record(20, &Message::Show(vec![1; 99], Some(vec![1; 99])).bytes()));
    message("malformed", [record(20, &[b'W', 1, 32, 0, 1]), record(20, b"W"), record(21, &[b'W', 1, 99])].concat());
}
