//! The directory against a plain list of who says what.
#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

type Said = BTreeMap<(u8, u32, String, Kind), Vec<IpAddr>>;

fn member(n: u8) -> PublicKey {
    PublicKey([n; 32])
}

fn say(directory: &Directory, said: &Said, of: u8) {
    let entries = said
        .iter()
        .filter(|((member, ..), _)| *member == of)
        .map(|((_, vni, name, kind), addresses)| Entry { vni: *vni, name, kind: *kind, addresses, services: &[] });
    directory.set_member(member(of), of == 0, entries);
}

fn check(directory: &Directory, said: &Said) {
    for vni in 1..3 {
        let mut names: BTreeMap<&str, BTreeSet<(IpAddr, bool)>> = BTreeMap::new();
        let mut pointers: BTreeMap<IpAddr, BTreeSet<&str>> = BTreeMap::new();
        for ((member, of, name, _), addresses) in said.iter().filter(|((_, of, ..), _)| *of == vni) {
            assert_eq!(*of, vni);
            let known = names.entry(name).or_default();
            known.extend(addresses.iter().map(|address| (*address, *member == 0)));
            for address in addresses {
                pointers.entry(*address).or_default().insert(name);
            }
        }
        for name in ["a", "b", "a.b", "c.a.b", "x"] {
            let mut wanted = names.get(name).map(|known| known.iter().copied().collect::<Vec<_>>());
            if let Some(wanted) = &mut wanted {
                // Where one here and one elsewhere say the same, it is here.
                wanted.sort_by_key(|&(address, is_local)| (address, !is_local));
                wanted.dedup_by_key(|(address, _)| *address);
            }
            assert_eq!(directory.addresses_of(vni, name), wanted, "{name}");
            directory.in_network(vni, |book| {
                let is_there = book.is_some_and(|book| book.name(name).is_some());
                let ends = names.keys().any(|known| *known == name || known.ends_with(&format!(".{name}")));
                assert_eq!(is_there, ends, "{name}");
            });
        }
        for last in 0..6 {
            let address = IpAddr::from([10, 0, 0, last]);
            directory.in_network(vni, |book| {
                let told: BTreeSet<&str> =
                    book.map_or(&[][..], |book| book.names_of(address)).iter().map(|n| &**n).collect();
                assert_eq!(told, pointers.get(&address).cloned().unwrap_or_default());
            });
        }
    }
}

proptest! {
    #[test]
    fn what_is_found_is_what_members_say(
        steps in proptest::collection::vec((0..3u8, 1..3u32, 0..4usize, any::<bool>(), proptest::collection::vec(0..6u8, 0..4), any::<bool>()), 1..40),
    ) {
        let directory = Directory::default();
        let mut said = Said::new();
        for (member, vni, name, is_added, mut addresses, comes) in steps {
            let name = ["a", "b", "a.b", "c.a.b"][name].to_owned();
            let kind = if is_added { Kind::Added } else { Kind::Attachment };
            addresses.sort_unstable();
            addresses.dedup();
            let key = (member, vni, name, kind);
            if comes {
                said.insert(key, addresses.iter().map(|last| IpAddr::from([10, 0, 0, *last])).collect());
            } else if addresses.is_empty() {
                said.retain(|(of, ..), _| *of != member);
            } else {
                said.remove(&key);
            }
            say(&directory, &said, member);
            check(&directory, &said);
        }
        (0..3).for_each(|of| say(&directory, &Said::new(), of));
        prop_assert!(directory.books.read().unwrap().is_empty());
        let left = directory.said.lock().unwrap();
        prop_assert!(left.members.is_empty() && left.rows == 0);
    }
}

#[test]
fn there_is_an_end_to_what_is_known_and_what_goes_makes_room() {
    let directory = Directory::default();
    let names: Vec<String> = (0..MAX_ROWS / 4).map(|n| format!("n{n}")).collect();
    let addresses: Vec<[IpAddr; 1]> =
        (0..names.len() as u32).map(|n| [IpAddr::from((n | 0x0a00_0000).to_be_bytes())]).collect();
    let all = || {
        let both = names.iter().zip(&addresses);
        both.map(|(name, addresses)| Entry { vni: 1, name, kind: Kind::Attachment, addresses, services: &[] })
    };
    for of in 0..3 {
        // Two rows each: the third finds no room.
        directory.set_member(member(of), false, all());
    }
    assert_eq!(directory.refused(), names.len());
    directory.set_member(member(0), false, []);
    directory.set_member(member(2), false, all());
    assert_eq!(directory.refused(), 0);
    let before = directory.version();
    directory.set_member(member(2), false, all());
    assert_eq!(directory.version(), before, "nothing changed");
}

#[test]
fn who_may_not_wait_hears_nothing_while_names_change() {
    let directory = Directory::default();
    assert_eq!(directory.try_in_network(1, |book| book.is_some()), Some(false));
    let _changing = directory.books.write().unwrap();
    assert_eq!(directory.try_in_network(1, |book| book.is_some()), None);
}
