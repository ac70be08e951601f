//! What neighbours say of members: every message of the membership, as a neighbour that is a member and lies, and as a stranger.
//!
//! ```text
//!  how (1): bit 0 from the stranger, bits 1-2 what, bits 3-7 pause (64 ms each)
//!   0  length (2), bytes                       a payload as it is
//!   1  type (1), length (2), bytes             the body of a message of this type
//!   2  place (2), a byte to flip it by (1)     the neighbour's own document, damaged
//!   3                                          the neighbour's own document
//! ```
//!
//! What must hold: nobody's document is held but those of members, and none that its owner did not sign; what is held and what is sent is within
//! its bounds; no message is larger than a tunnel carries; the next deadline is not in the past for ever.

use super::input::Input;
use std::sync::OnceLock;
use std::time::Duration;
use weft::mesh::document::{Archive, Document, paginate};
use weft::mesh::facts::{Facts, records};
use weft::mesh::gossip::{Message, Part};
use weft::mesh::membership::{Membership, Output, Settings};
use weft::trust::Policy;
use weft::trust::sign::Signer;
use weft::wire::key::{PublicKey, Secret};

/// One input's worth of messages is no better for being longer.
const MAX_RECORDS: usize = 32;
/// The largest UDP payload of a packet that a tunnel reassembles.
const MAX_PAYLOAD: usize = 9216 - 28;
/// What we answer to a byte said: a short question may be answered by all that we know, which is little here.
const MOST_SENT: usize = 64 << 10;

const UNIX: Duration = Duration::from_secs(1_700_000_000);

fn key(n: u8) -> PublicKey {
    static KEYS: OnceLock<[PublicKey; 3]> = OnceLock::new();
    KEYS.get_or_init(|| [1, 2, 3].map(|n| Secret::private([n; 32]).public_key()))[usize::from(n) - 1]
}

/// The neighbour's document.
pub fn document() -> &'static Document {
    static DOCUMENT: OnceLock<Document> = OnceLock::new();
    DOCUMENT.get_or_init(|| {
        let facts = Facts { name: "beta".to_owned(), networks: (1..9).collect(), ..Facts::default() };
        let (pages, _) = paginate(&records(&facts), 1);
        Document::sign(&Signer::new(&Secret::private([2; 32])), 5, 1_700_000_000_000, pages)
    })
}

/// The message that carries it.
pub fn pushed() -> Vec<u8> {
    let document = document();
    let pages = document.pages.iter().map(|page| Part::Page(page));
    let parts = [Part::Head(&document.head.bytes)].into_iter().chain(pages).collect();
    Message::Documents { is_pushed: true, parts }.write()
}

/// The target.
pub fn run(data: &[u8]) {
    let mut policy = Policy::default();
    policy.pin([key(1), key(2)]);
    let signer = Signer::new(&Secret::private([1; 32]));
    let settings = Settings { signer, incarnation: 1, seed: 1, unix: UNIX, policy, archive: Archive::default() };
    let mut us = Membership::new(Duration::ZERO, settings);
    let mut now = Duration::from_secs(1);
    for n in [2, 3] {
        us.link_up(now, key(n));
    }
    us.input(now, key(2), &pushed());
    assert!(us.member(&key(2)).is_some());
    drain(&mut us);
    let mut input = Input::new(data);
    for _ in 0..MAX_RECORDS {
        let Some((how, payload)) = record(&mut input) else { break };
        now += Duration::from_millis(64) * u32::from(how >> 3);
        us.tick(now);
        drain(&mut us);
        us.input(now, key(2 + (how & 1)), &payload);
        drain(&mut us);
        for document in us.replicas() {
            assert!(document.head.owner != key(3) && document.head.verify(), "not to be held");
        }
        assert!(us.document_bytes() <= 2 * (300 << 10));
        let mut turns = 0;
        while us.next_deadline(now) <= now {
            us.tick(now);
            drain(&mut us);
            turns += 1;
            assert!(turns < 100, "it never rests");
        }
    }
}

fn record(input: &mut Input<'_>) -> Option<(u8, Vec<u8>)> {
    let how = input.byte()?;
    let payload = match how >> 1 & 3 {
        0 => {
            let length = input.word()?;
            input.bytes(length.into()).to_vec()
        }
        1 => {
            let (kind, length) = (input.byte()?, input.word()?);
            [&[b'W', 1, kind, 0][..], input.bytes(length.into())].concat()
        }
        2 => {
            let (place, flip) = (usize::from(input.word()?), input.byte()?);
            let mut payload = pushed();
            payload.iter_mut().skip(place).take(1).for_each(|byte| *byte ^= flip);
            payload
        }
        _ => pushed(),
    };
    Some((how, payload))
}

/// Takes what is to be sent and looks at its size.
fn drain(us: &mut Membership) {
    let mut sent = 0;
    while let Some(output) = us.poll_output() {
        match output {
            Output::Send { payload, .. } => {
                assert!(payload.len() <= MAX_PAYLOAD && Message::parse(&payload).is_ok());
                sent += payload.len();
            }
            Output::Ledger(bytes) => assert!(bytes.len() <= 8 << 10),
            Output::Warning(warning) => assert!(!warning.contains(|c: char| c.is_control())),
            Output::Changed(_) | Output::Answered(_) | Output::Left(_) | Output::Neighbours => {}
        }
    }
    assert!(sent <= MOST_SENT, "{sent} bytes at one moment");
}
