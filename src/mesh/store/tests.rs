//! The store against a slow and obvious one: whatever comes in which order and how often, the newest document of each owner is
//! what is held.

#![allow(clippy::unwrap_used)]
use super::*;
use crate::mesh::document::paginate;
use crate::mesh::facts::{Facts, records};
use crate::trust::sign::Signer;
use crate::wire::key::Secret;
use proptest::prelude::*;
use std::sync::LazyLock;

const OWNERS: u8 = 3;
const UNIX: Duration = Duration::from_secs(1_700_000_000);

/// Documents of some owners and versions, two of each version by one owner. Owner 2 is no member.
static DOCUMENTS: LazyLock<Vec<Document>> = LazyLock::new(|| {
    let mut documents = Vec::new();
    for (owner, version, other) in (0..OWNERS).flat_map(|o| (1..5).flat_map(move |v| [(o, v, false), (o, v, true)])) {
        let name = format!("{owner} {version} {other}");
        let facts = Facts { name, networks: (1..400).collect(), ..Facts::default() };
        let (pages, _) = paginate(&records(&facts), 1);
        documents.push(Document::sign(&Signer::new(&Secret::private([owner + 1; 32])), 0, version, pages));
    }
    documents
});

fn policy() -> Policy {
    let mut policy = Policy::default();
    policy.pin([1, 2].map(|n| Secret::private([n; 32]).public_key()));
    policy
}

fn store() -> Store {
    Store::new(PublicKey([9; 32]), Archive::default())
}

fn give(store: &mut Store, now: Duration, document: &Document, pages: u32) {
    let owner = document.head.owner;
    store.head(now, (*document.head).clone(), PublicKey([8; 32]));
    for (_, page) in document.pages.iter().enumerate().filter(|(n, _)| pages >> n & 1 == 1) {
        store.page(&owner, page);
    }
    store.complete(&policy(), UNIX, &owner);
}

fn held(store: &Store) -> Vec<(PublicKey, (u64, Hash))> {
    store.replicas().map(|(owner, replica)| (*owner, replica.document.head.rank())).collect()
}

/// What should be held: of each owner that is let in the document of the highest rank.
fn model(given: &[usize]) -> Vec<(PublicKey, (u64, Hash))> {
    let mut newest: BTreeMap<PublicKey, (u64, Hash)> = BTreeMap::new();
    for head in given.iter().map(|&n| &DOCUMENTS[n].head) {
        if policy().judge(UNIX, &head.owner, None).is_ok() {
            let rank = newest.entry(head.owner).or_insert_with(|| head.rank());
            *rank = head.rank().max(*rank);
        }
    }
    newest.into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_order_and_any_repetition_give_the_same(
        given in proptest::collection::vec(0..DOCUMENTS.len(), 0..24), seed: u64,
    ) {
        let (mut one, mut other) = (store(), store());
        let mut shuffled = given.clone();
        let mut chance = crate::mesh::ring::Chance(seed);
        for n in (1..shuffled.len()).rev() {
            shuffled.swap(n, chance.below(n + 1));
        }
        for (turn, &n) in given.iter().enumerate() {
            give(&mut one, Duration::from_secs(turn as u64), &DOCUMENTS[n], u32::MAX);
        }
        for (turn, &n) in shuffled.iter().chain(&given).enumerate() {
            // Parts of it first; what is missing comes later.
            give(&mut other, Duration::from_secs(turn as u64), &DOCUMENTS[n], chance.next() as u32);
            give(&mut other, Duration::from_secs(turn as u64), &DOCUMENTS[n], u32::MAX);
        }
        prop_assert_eq!(held(&one), model(&given));
        prop_assert_eq!(held(&other), model(&given));
        prop_assert_eq!(one.digests(), other.digests());
        let pages = |store: &Store| store.replicas().map(|(_, r)| r.document.pages.clone()).collect::<Vec<_>>();
        prop_assert_eq!(pages(&one), pages(&other));
    }
}

#[test]
fn a_document_is_seen_when_it_is_whole_and_not_before() {
    let (mut store, document) = (store(), &DOCUMENTS[0]);
    let owner = document.head.owner;
    assert!(document.pages.len() >= 4);
    give(&mut store, UNIX, document, 0b1011);
    assert_eq!(held(&store), []);
    let (version, mask) = store.missing(&owner).unwrap();
    assert_eq!((version, mask & 0b1111), (1, 0b0100));
    assert!(!store.page(&owner, b"something else"));
    assert!(!store.page(&owner, &[0; MAX_PAGE + 1]));
    assert_eq!((store.counters.unasked, store.counters.oversized), (1, 1));
    give(&mut store, UNIX, document, u32::MAX);
    assert_eq!(held(&store), model(&[0]));
    assert_eq!(store.missing(&owner), None);
}

#[test]
fn an_owner_in_a_hurry_is_slowed_down_and_no_other() {
    let (mut store, signer) = (store(), Signer::new(&Secret::private([1; 32])));
    let mut taken = 0;
    for version in 0..100 {
        let document = Document::sign(&signer, 0, version, vec![[].into()]);
        give(&mut store, UNIX, &document, 1);
        taken = store.replicas().next().unwrap().1.document.head.version;
    }
    assert!((39..=41).contains(&taken) && store.counters.hasty >= 58, "{taken}, {:?}", store.counters);
    give(&mut store, UNIX, &DOCUMENTS[8], u32::MAX);
    assert_eq!(held(&store).len(), 2);
}

#[test]
fn what_was_retired_does_not_come_back_by_others() {
    let (mut store, document) = (store(), &DOCUMENTS[0]);
    let owner = document.head.owner;
    give(&mut store, UNIX, document, u32::MAX);
    store.retire(&owner);
    assert_eq!((held(&store), store.digest(), store.bytes()), (vec![], 0, 0));
    give(&mut store, UNIX, document, u32::MAX);
    assert_eq!(held(&store), []);
    assert!(!store.is_news(&owner, 1));
    // But by itself, though it has nothing else to say.
    assert_eq!(store.head(UNIX, (*document.head).clone(), owner), Verdict::Newer);
}
