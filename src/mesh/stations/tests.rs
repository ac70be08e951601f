//! Stations against the same rules written the slow, obvious way, and what the rules are for.

#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;

const NET: u32 = 7;
const ALPHA: PublicKey = PublicKey([1; 32]);
const BETA: PublicKey = PublicKey([2; 32]);
const GAMMA: PublicKey = PublicKey([3; 32]);
const START: Duration = Duration::from_secs(100);
const SECOND: Duration = Duration::from_secs(1);

fn mac(n: u8) -> Mac {
    Mac([2, 0, 0, 0, 0, n])
}

fn ip(n: u8) -> IpAddr {
    IpAddr::from([10, 32, 0, n])
}

fn attachment(station: u8, address: u8, sequence: u32) -> Attachment {
    Attachment { vni: NET, mac: mac(station), addresses: vec![ip(address)], sequence, name: format!("c{station}") }
}

fn drain(stations: &mut Stations) -> Vec<Output> {
    std::iter::from_fn(|| stations.poll_output()).collect()
}

/// Where a station and an address are.
fn at(stations: &Stations, station: u8, address: u8) -> (Option<PublicKey>, Option<Mac>) {
    let member = stations.stations().find(|(_, known, ..)| *known == mac(station)).map(|(_, _, member, _)| member);
    let of = stations.addresses().find(|(_, known, _)| *known == ip(address)).map(|(_, _, mac)| mac);
    (member, of)
}

#[test]
fn an_attachment_is_at_its_member_until_that_says_otherwise() {
    let mut stations = Stations::new(GAMMA);
    stations.set(START, ALPHA, "alpha", &[attachment(1, 1, 0)]);
    let vni = NET;
    assert_eq!(
        drain(&mut stations),
        [
            Output::Station { vni, mac: mac(1), member: ALPHA, sequence: 0 },
            Output::Address { vni, address: ip(1), mac: mac(1), tell: true },
        ]
    );
    stations.set(START, ALPHA, "alpha", &[attachment(1, 1, 0)]);
    assert_eq!(drain(&mut stations), []);
    stations.forget(START, ALPHA);
    assert_eq!(
        drain(&mut stations),
        [Output::NoStation { vni, mac: mac(1), member: ALPHA }, Output::NoAddress { vni, address: ip(1) }]
    );
    assert_eq!((stations.next_deadline(), stations.claims, stations.contests.len()), (None, 0, 0));
}

#[test]
fn a_container_that_moves_is_there_at_once_in_whatever_order_that_is_heard() {
    for new_first in [true, false] {
        let mut stations = Stations::new(GAMMA);
        let (mut places, mut sequence) = ([ALPHA, BETA], 0);
        stations.set(START, ALPHA, "alpha", &[attachment(1, 1, 0)]);
        for round in 0..200 {
            let [from, to] = places;
            let now = START + SECOND * round;
            if !new_first {
                stations.forget(now, from);
                assert_eq!(at(&stations, 1, 1), (None, None));
            }
            let next = stations.next_sequence(NET, mac(1), &[ip(1)]);
            assert!(next > sequence || round == 0 && next == 1, "{next} after {sequence}");
            sequence = next;
            stations.set(now, to, "it", &[attachment(1, 1, sequence)]);
            assert_eq!(at(&stations, 1, 1), (Some(to), Some(mac(1))), "round {round}");
            if new_first {
                stations.forget(now + SECOND / 2, from);
            }
            places = [to, from];
        }
        let warned = drain(&mut stations).iter().any(|output| matches!(output, Output::Warning { .. }));
        assert!(!warned && stations.warnings().next().is_none(), "moves are nobody's fault");
    }
}

#[test]
fn what_is_gone_at_one_member_is_at_the_other_that_has_it_and_the_fdb_is_told_in_an_order_it_accepts() {
    let mut stations = Stations::new(GAMMA);
    stations.set(START, ALPHA, "alpha", &[attachment(1, 1, 5)]);
    stations.set(START, BETA, "beta", &[attachment(1, 1, 2)]);
    drain(&mut stations);
    stations.forget(START, ALPHA);
    let vni = NET;
    assert_eq!(
        drain(&mut stations),
        [
            Output::NoStation { vni, mac: mac(1), member: ALPHA },
            Output::Station { vni, mac: mac(1), member: BETA, sequence: 2 },
        ]
    );
}

#[test]
fn neighbours_are_told_when_an_address_gets_another_mac_address_also_after_a_gap() {
    let told =
        |outputs: Vec<Output>| outputs.iter().any(|output| matches!(output, Output::Address { tell: true, .. }));
    let mut stations = Stations::new(GAMMA);
    stations.set(START, ALPHA, "alpha", &[attachment(1, 1, 0)]);
    assert!(told(drain(&mut stations)), "it may have been elsewhere before anybody heard of it");
    stations.set(START, BETA, "beta", &[attachment(2, 1, 1)]);
    assert!(told(drain(&mut stations)));
    stations.forget(START, ALPHA);
    assert!(!told(drain(&mut stations)));
    stations.forget(START, BETA);
    stations.set(START, BETA, "beta", &[attachment(2, 1, 2)]);
    assert!(!told(drain(&mut stations)), "the same as before");
    stations.forget(START, BETA);
    assert_eq!(stations.next_sequence(NET, mac(3), &[ip(1)]), 3);
    stations.set(START, ALPHA, "alpha", &[attachment(3, 1, 3)]);
    assert!(told(drain(&mut stations)));
}

#[test]
fn of_many_addresses_at_once_neighbours_are_told_of_a_few_and_of_all_that_moved() {
    let told = |stations: &mut Stations| {
        drain(stations).iter().filter(|output| matches!(output, Output::Address { tell: true, .. })).count()
    };
    let burst = usize::try_from(TELL_BURST.as_micros() / TELL_EVERY.as_micros()).unwrap();
    let mut stations = Stations::new(GAMMA);
    let at = |sequence, first: u8| -> Vec<Attachment> {
        let one = |number: u8| {
            let mut one = attachment(first + number % 100, number, sequence);
            one.mac.0[1] = number / 100;
            one
        };
        (0..200).map(one).collect()
    };
    stations.set(START, ALPHA, "alpha", &at(0, 0));
    assert_eq!(told(&mut stations), burst);
    stations.set(START, BETA, "beta", &at(1, 100));
    assert_eq!(told(&mut stations), 200, "whoever remembers them is wrong for certain");
    let later = START + SECOND;
    stations.set(later, ALPHA, "alpha", &[attachment(7, 250, 0)]);
    stations.set(later, ALPHA, "alpha", &[attachment(7, 250, 0), attachment(8, 251, 0)]);
    assert_eq!(told(&mut stations), 2, "some time has passed");
}

#[test]
fn a_duplicate_is_reported_once_by_the_names_of_both_owners_and_so_is_its_end() {
    let mut stations = Stations::new(GAMMA);
    stations.set(START, ALPHA, "alpha", &[attachment(1, 9, 0)]);
    stations.set(START, BETA, "beta", &[attachment(2, 9, 0)]);
    assert_eq!(at(&stations, 1, 9).1, Some(mac(1)), "the lower key");
    drain(&mut stations);
    stations.tick(START + PATIENCE - SECOND);
    assert_eq!(drain(&mut stations), []);
    assert_eq!(stations.next_deadline(), Some(START + PATIENCE));
    stations.tick(START + PATIENCE);
    let text = "address 10.32.0.9 is used twice, by port c1 of alpha and port c2 of beta: \
                frames for it go to port c1 of alpha";
    let warning = |begun| Output::Warning { vni: NET, text: text.to_owned(), begun };
    assert_eq!(drain(&mut stations), [warning(true)]);
    assert_eq!(stations.warnings().collect::<Vec<_>>(), [(NET, text)]);
    stations.tick(START + PATIENCE * 10);
    assert_eq!((drain(&mut stations), stations.next_deadline()), (vec![], None));
    stations.set(START + PATIENCE * 11, BETA, "beta", &[attachment(2, 8, 0)]);
    assert!(drain(&mut stations).contains(&warning(false)));
    assert_eq!(stations.warnings().count(), 0);
}

#[test]
fn two_that_outbid_each_other_are_stopped_and_it_heals() {
    let mut stations = Stations::new(GAMMA);
    let mut now = START;
    let mut bid = |stations: &mut Stations, sequence: u32| {
        now += SECOND / 10;
        let (key, name) = if sequence.is_multiple_of(2) { (ALPHA, "alpha") } else { (BETA, "beta") };
        stations.set(now, key, name, &[attachment(1, 1, sequence)]);
        now
    };
    for sequence in 0..100 {
        bid(&mut stations, sequence);
    }
    let outputs = drain(&mut stations);
    let moves = outputs.iter().filter(|output| matches!(output, Output::Station { .. })).count();
    // Its place may still change its own sequence number: that moves nothing.
    let at_alpha = outputs.iter().rev().find_map(|output| match output {
        Output::Station { member, .. } => Some(*member),
        _ => None,
    });
    assert_eq!(at_alpha, Some(BETA), "the fifth change but the first claim");
    assert!(moves < 60, "{moves}");
    let warnings: Vec<&str> = stations.warnings().map(|(_, text)| text).collect();
    assert_eq!(warnings.len(), 2, "its MAC and its IP address");
    assert!(
        warnings[0].contains("keeps changing between") && warnings[0].contains("port c1 of beta"),
        "{warnings:?}"
    );
    // It is over: the higher number wins, as everywhere.
    let last = bid(&mut stations, 100);
    stations.tick(last + FREEZE);
    assert_eq!(at(&stations, 1, 1).0, Some(ALPHA));
    // Who gives up during a storm is left at once.
    for sequence in 101..120 {
        bid(&mut stations, sequence);
    }
    let frozen = at(&stations, 1, 1).0.unwrap();
    stations.forget(last + FREEZE, frozen);
    assert_ne!(at(&stations, 1, 1).0, Some(frozen));
    assert!(at(&stations, 1, 1).0.is_some());
}

#[test]
fn a_number_at_the_end_of_its_range_stays_there() {
    let mut stations = Stations::new(GAMMA);
    stations.set(START, BETA, "beta", &[attachment(1, 1, u32::MAX)]);
    assert_eq!(stations.next_sequence(NET, mac(1), &[]), u32::MAX);
    assert_eq!(stations.next_sequence(NET, mac(2), &[ip(1)]), u32::MAX);
    assert_eq!(stations.next_sequence(NET + 1, mac(1), &[ip(1)]), 0, "another network");
    // One's own claims do not drive one's own numbers up.
    stations.attach(START, "gamma", attachment(4, 4, 9));
    assert_eq!(stations.next_sequence(NET, mac(4), &[ip(4)]), 0);
}

#[test]
fn what_is_ours_comes_and_goes_one_by_one() {
    let (mut ours, mut all) = (Stations::new(GAMMA), Stations::new(GAMMA));
    let lists = [vec![(1, 1, 0)], vec![(1, 1, 0), (2, 2, 3)], vec![(1, 5, 1), (2, 2, 3)], vec![(2, 2, 3)], vec![]];
    ours.attach(START, "gamma", attachment(1, 1, 0));
    for (step, list) in lists.into_iter().enumerate() {
        match step {
            1 => ours.attach(START, "gamma", attachment(2, 2, 3)),
            2 => ours.attach(START, "gamma", attachment(1, 5, 1)),
            3 => ours.detach(START, NET, mac(1)),
            4 => ours.detach(START, NET, mac(2)),
            _ => {}
        }
        ours.detach(START, NET, mac(9));
        let list: Vec<Attachment> = list.into_iter().map(|(s, a, q)| attachment(s, a, q)).collect();
        all.set(START, GAMMA, "gamma", &list);
        assert!(ours.stations().eq(all.stations()) && ours.addresses().eq(all.addresses()), "step {step}");
        assert_eq!(drain(&mut ours), drain(&mut all), "step {step}");
    }
}

#[test]
fn what_is_remembered_of_the_gone_is_bounded() {
    let mut stations = Stations::new(GAMMA);
    for n in 0..FORMER as u32 + 10 {
        let [_, a, b, c] = n.to_be_bytes();
        let one = Attachment { mac: Mac([2, 0, 0, a, b, c]), addresses: Vec::new(), ..attachment(0, 0, 1) };
        stations.set(START, ALPHA, "alpha", &[one]);
    }
    stations.forget(START, ALPHA);
    assert_eq!(stations.former.len(), (FORMER, FORMER));
}

fn attachments() -> impl Strategy<Value = Vec<Attachment>> {
    let one = (1u32..3, 0u8..5, proptest::collection::vec(0u8..5, 0..3), 0u32..4);
    let attachment = one.prop_map(|(vni, station, addresses, sequence)| {
        let addresses = addresses.into_iter().map(ip).collect();
        Attachment { vni, mac: mac(station), addresses, sequence, name: format!("c{station}") }
    });
    proptest::collection::vec(attachment, 0..5)
}

type Tables = (Vec<(u32, Mac, PublicKey, u32)>, Vec<(u32, IpAddr, Mac)>);

/// Who has what, by looking at all there is for each question.
fn model(members: &BTreeMap<PublicKey, Vec<Attachment>>) -> Tables {
    let newest = |attachments: &[Attachment], one: &Attachment| {
        let same = attachments.iter().filter(|other| (other.vni, other.mac) == (one.vni, one.mac));
        same.max_by_key(|other| other.sequence).map(|other| other.sequence) == Some(one.sequence)
    };
    let claims: Vec<(u32, Reverse<PublicKey>, &Attachment)> = members
        .iter()
        .flat_map(|(&key, list)| {
            // Of several with one number, the first one named counts.
            let first = |at: usize| {
                !list[..at]
                    .iter()
                    .any(|b| (b.vni, b.mac, b.sequence) == (list[at].vni, list[at].mac, list[at].sequence))
            };
            let of = list.iter().enumerate().filter(move |(at, one)| newest(list, one) && first(*at));
            of.map(move |(_, one)| (one.sequence, Reverse(key), one))
        })
        .collect();
    let (mut stations, mut addresses) = (Vec::new(), Vec::new());
    for vni in 1..3 {
        for n in 0..5 {
            let of_mac = claims.iter().filter(|(.., one)| one.vni == vni && one.mac == mac(n));
            stations.extend(of_mac.max_by_key(|c| (c.0, c.1)).map(|c| (vni, mac(n), c.1.0, c.0)));
            let of_ip = claims.iter().filter(|(.., one)| one.vni == vni && one.addresses.contains(&ip(n)));
            addresses.extend(of_ip.max_by_key(|c| (c.0, c.1, Reverse(c.2.mac))).map(|c| (vni, ip(n), c.2.mac)));
        }
    }
    (stations, addresses)
}

proptest! {
    /// Whatever was heard, in whatever order, and whatever storms it was: once quiet, everybody has what follows from the
    /// last that each member said, and so do the tables that followed the outputs.
    #[test]
    fn any_order_of_updates_gives_the_same_tables_as_the_model_has(
        updates in proptest::collection::vec((1u8..5, attachments(), 0u64..3), 1..40), us in 1u8..5, order: u64,
    ) {
        let mut members = BTreeMap::new();
        let mut one = Stations::new(PublicKey([us; 32]));
        let (mut places, mut macs) = (BTreeMap::new(), BTreeMap::new());
        let mut now = START;
        let mut follow = |one: &mut Stations| {
            for output in drain(one) {
                match output {
                    Output::Station { vni, mac, member, sequence } => {
                        let before = places.insert((vni, mac), (member, sequence));
                        // As the FDB judges.
                        let stands = before.is_some_and(|(place, higher)| place != member && higher > sequence);
                        // Storms hold to a claim; its end may go down.
                        assert!(!stands, "an entry of a higher number was to be replaced");
                    }
                    Output::NoStation { vni, mac, member } => {
                        assert_eq!(places.remove(&(vni, mac)).map(|(place, _)| place), Some(member));
                    }
                    Output::Address { vni, address, mac, .. } => {
                        assert_ne!(macs.insert((vni, address), mac), Some(mac));
                    }
                    Output::NoAddress { vni, address } => assert!(macs.remove(&(vni, address)).is_some()),
                    Output::Warning { .. } => {}
                }
            }
        };
        for (member, list, pause) in &updates {
            now += SECOND * *pause as u32;
            let key = PublicKey([*member; 32]);
            members.insert(key, list.clone());
            one.set(now, key, "it", list);
            one.tick(now);
            follow(&mut one);
        }
        one.tick(now + FREEZE);
        follow(&mut one);
        let expected = model(&members);
        prop_assert_eq!((one.stations().collect::<Vec<_>>(), one.addresses().collect::<Vec<_>>()), expected.clone());
        let followed = places.iter().map(|(&(vni, mac), &(member, sequence))| (vni, mac, member, sequence));
        prop_assert_eq!(followed.collect::<Vec<_>>(), expected.0.clone());
        prop_assert_eq!(macs.iter().map(|(&(vni, ip), &mac)| (vni, ip, mac)).collect::<Vec<_>>(), expected.1.clone());

        // Another member hears the members in another order, and only the last of what each said.
        let mut other = Stations::new(ALPHA);
        let mut heard: Vec<_> = members.iter().collect();
        heard.sort_by_key(|(key, _)| u64::from(key.0[0]).wrapping_mul(order | 1) ^ order);
        heard.into_iter().for_each(|(&key, list)| other.set(START, key, "it", list));
        prop_assert_eq!((other.stations().collect::<Vec<_>>(), other.addresses().collect::<Vec<_>>()), expected);
        members.keys().for_each(|&key| other.forget(START, key));
        prop_assert_eq!((other.claims, other.contests.len(), other.troubled.len()), (0, 0, 0));
    }
}
