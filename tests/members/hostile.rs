//! A member that lies: it holds a key that is let in, and says whatever it likes to its neighbours.

use crate::world::{World, attachment};
use crate::{PROMISED, SECOND, mesh};
use std::sync::Arc;
use std::time::Duration;
use weft::mesh::document::{Document, MAX_VERSION, Page};
use weft::mesh::facts::{Facts, records};
use weft::mesh::gossip::{Heard, Heartbeat, Message, Part, Want};
use weft::trust::sign::Signer;

/// Everything there is to say that is wrong, in random order.
fn lie(world: &mut World, liar: usize, recorded: &[Arc<Document>]) {
    let victim = world.chance.below(recorded.len());
    let document = recorded[victim].clone();
    let to = world.hosts[world.chance.below(world.hosts.len())].key;
    let (owner, version) = (document.head.owner, document.head.version);
    let mut head = document.head.bytes.to_vec();
    let mut page = document.pages[0].to_vec();
    let count = recorded.len();
    let message = match world.chance.below(10) {
        // Old documents of others, and parts of them.
        0 => Message::Documents { is_pushed: true, parts: vec![Part::Head(&head), Part::Page(&page)] },
        1 => {
            let at = world.chance.below(head.len());
            head[at] ^= 1 << world.chance.below(8);
            Message::Documents { is_pushed: true, parts: vec![Part::Head(&head)] }
        }
        2 => {
            let at = world.chance.below(page.len());
            page[at] ^= 1;
            Message::Documents { is_pushed: false, parts: vec![Part::Owner(owner), Part::Page(&page)] }
        }
        // Digests and versions out of thin air.
        3 => {
            let digest = world.chance.next();
            let news = vec![(owner, version + 1), (world.hosts[liar].key, u64::MAX)];
            Message::Heartbeat(Heartbeat { is_chosen: true, is_urgent: true, digest, news, ..Heartbeat::default() })
        }
        4 => Message::Summary(Box::new([world.chance.next(); 64])),
        5 => Message::Offer { is_answer: false, buckets: vec![(1, vec![(owner, u64::MAX)]), (2, Vec::new())] },
        // It heard everything, even what is not there yet.
        6 => Message::Heard(vec![Heard { owner, version: u64::MAX, is_duplicate: true }; count]),
        7 => Message::Want(vec![Want { owner, version: 0, mask: u128::MAX }; count]),
        8 => Message::LedgerHeard { version: u64::MAX, hash: [1; 16], mask: u32::MAX },
        _ => {
            let bytes: Vec<u8> = (0..world.chance.below(300)).map(|_| world.chance.next() as u8).collect();
            let kind = 16 + world.chance.below(8) as u8;
            world.send(liar, to, [&[b'W', 1, kind, 0][..], &bytes].concat());
            return;
        }
    };
    let payload = message.write();
    for _ in 0..=world.chance.below(2) {
        world.send(liar, to, payload.clone());
    }
}

#[test]
fn a_member_that_lies_lies_only_about_itself() {
    for seed in crate::seeds(2) {
        let mut world = mesh(10, seed);
        let liar = 9;
        let recorded: Vec<_> = world.hosts[liar].membership.as_ref().unwrap().replicas().cloned().collect();
        world.hosts[liar].is_hostile = true;
        for round in 0..20 {
            for _ in 0..100 {
                lie(&mut world, liar, &recorded);
                world.run(Duration::from_millis(3));
            }
            world.change(round % 9, |facts| facts.attachments[0].sequence += 1);
            world.check_signatures();
        }
        world.agree_within(PROMISED, "beside a liar");
        let before = world.bytes();
        world.run(20 * SECOND);
        let each = (world.bytes() - before) / 20 / 10;
        assert!(each < 2000, "seed {seed}: {each} bytes a second of each, after the lies");
        let counters = world.hosts[0].membership.as_ref().unwrap().counters();
        assert!(counters.forged > 0 && counters.outdated > 0 && counters.malformed > 0, "{counters:?}");
    }
}

#[test]
fn a_member_that_says_two_things_at_once_leaves_all_with_the_same() {
    let mut world = mesh(8, 3);
    let liar = 7;
    world.hosts[liar].is_hostile = true;
    let signer = Signer::new(&world.hosts[liar].private);
    let version = world.hosts[liar].membership.as_ref().unwrap().own_document().unwrap().head.version + 10;
    for other in 0..7 {
        let facts = Facts { name: "liar".to_owned(), attachments: vec![attachment(1, other)], ..Facts::default() };
        let pages: Vec<Page> = vec![records(&facts).into_iter().flat_map(|record| record.bytes).collect()];
        let document = Document::sign(&signer, 9, version, pages);
        let parts = vec![Part::Head(&document.head.bytes), Part::Page(&document.pages[0])];
        let payload = Message::Documents { is_pushed: true, parts }.write();
        let to = world.hosts[other].key;
        world.send(liar, to, payload);
    }
    world.run(20 * SECOND);
    let key = world.hosts[liar].key;
    let seen: Vec<_> =
        (0..7).map(|n| world.hosts[n].membership.as_ref().unwrap().member(&key).unwrap().facts.clone()).collect();
    assert!(seen.iter().all(|facts| *facts == seen[0]));
    let counted: u64 = (0..7).map(|n| world.hosts[n].membership.as_ref().unwrap().counters().equivocations).sum();
    assert!(counted > 0);
}

#[test]
fn nobody_is_driven_to_the_end_of_the_versions() {
    let mut world = mesh(4, 5);
    // A broken life of host 3 signed with an absurd clock; somebody recorded it and plays it back.
    let signer = Signer::new(&world.hosts[3].private);
    for version in [MAX_VERSION + 1, u64::MAX, MAX_VERSION / 2 + 5] {
        let document = Document::sign(&signer, 1, version, vec![[].into()]);
        let payload =
            Message::Documents { is_pushed: true, parts: vec![Part::Head(&document.head.bytes), Part::Page(&[])] };
        let payload = payload.write();
        for other in 0..2 {
            let to = world.hosts[other].key;
            world.send(2, to, payload.clone());
        }
        world.run(SECOND);
        world.change(3, |facts| facts.attachments[0].sequence += 1);
        world.agree_within(PROMISED, "after an absurd version");
    }
    let version = world.hosts[3].membership.as_ref().unwrap().own_document().unwrap().head.version;
    assert!((MAX_VERSION / 2..MAX_VERSION / 2 + 100).contains(&version));
}
