//! What ports say, what they are asked, and what is known of them.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::wire::checksum::{fold, sum};
use proptest::prelude::*;

const NET: u32 = 7;
const S: Duration = Duration::from_secs(1);
const V4: IpAddr = FAMILIES[0];
const V6: IpAddr = FAMILIES[1];

fn group(n: u8) -> IpAddr {
    IpAddr::from([239, 1, 2, n])
}

/// A frame with an IGMP message of eight bytes.
fn igmp(source: [u8; 4], kind: u8, group: IpAddr) -> Vec<u8> {
    let IpAddr::V4(group) = group else { panic!("not IPv4") };
    let mut frame = vec![0x01, 0, 0x5e, 1, 2, 3, 2, 0, 0, 0, 0, 1, 8, 0];
    frame.extend([0x45, 0, 0, 28, 0, 0, 0, 0, 1, 2, 0, 0]);
    frame.extend(source);
    frame.extend(group.octets());
    let mut message = [&[kind, 0, 0, 0][..], &group.octets()].concat();
    let check = !fold(sum(0, &message));
    message[2..4].copy_from_slice(&check.to_be_bytes());
    frame.extend(message);
    frame
}

fn join(n: u8) -> Vec<u8> {
    igmp([10, 0, 0, 1], 0x16, group(n))
}

fn leave(n: u8) -> Vec<u8> {
    igmp([10, 0, 0, 1], 0x17, group(n))
}

/// Who is asked for what, and whether something changed.
fn drain(listeners: &mut Listeners<u32>) -> (Vec<(Option<u32>, IpAddr)>, bool) {
    let (mut asked, mut changed) = (Vec::new(), false);
    while let Some(output) = listeners.poll_output() {
        match output {
            Output::Changed(NET) => changed = true,
            Output::Query { vni: NET, port, frame } if frame[12] == 8 => {
                asked.push((port, Ipv4Addr::from(*frame[42..].first_chunk::<4>().unwrap()).into()));
            }
            Output::Query { vni: NET, port, frame } => {
                asked.push((port, Ipv6Addr::from(*frame[70..].first_chunk::<16>().unwrap()).into()));
            }
            other => panic!("{other:?}"),
        }
    }
    (asked, changed)
}

fn listening(listeners: &Listeners<u32>) -> Vec<(u32, IpAddr)> {
    listeners.of_network(NET).collect()
}

#[test]
fn a_port_listens_from_its_report_until_it_is_silent_for_too_long() {
    let mut listeners = Listeners::default();
    listeners.port_up(S, NET, 1, false);
    assert_eq!(drain(&mut listeners), (vec![], true));
    listeners.heard(S, 1, &join(1));
    assert_eq!((drain(&mut listeners), listening(&listeners)), ((vec![], true), vec![(1, group(1))]));
    assert_eq!(listeners.groups(), BTreeSet::from([(NET, group(1))]));
    listeners.heard(S * 2, 1, &join(1));
    assert_eq!(drain(&mut listeners), (vec![], false), "nothing changed");
    listeners.tick(S * 2 + MEMBERSHIP - S);
    assert_eq!(listening(&listeners), [(1, group(1))]);
    drain(&mut listeners);
    listeners.tick(S * 2 + MEMBERSHIP);
    assert_eq!((drain(&mut listeners), listening(&listeners)), ((vec![], true), vec![]));
    assert!(listeners.groups().is_empty());
}

#[test]
fn all_ports_of_a_network_are_asked_every_125_seconds_while_there_are_any() {
    let mut listeners = Listeners::default();
    listeners.port_up(S, NET, 1, false);
    listeners.port_up(S * 9, NET, 2, false);
    drain(&mut listeners);
    for round in 1..4 {
        let at = S + QUERY_EVERY * round;
        assert_eq!(listeners.next_deadline(), Some(at));
        listeners.tick(at - S);
        assert_eq!(drain(&mut listeners).0, []);
        listeners.tick(at);
        assert_eq!(drain(&mut listeners).0, [(None, V4), (None, V6)]);
    }
    listeners.port_down(1);
    listeners.port_down(2);
    assert_eq!(listeners.next_deadline(), None);
}

#[test]
fn who_leaves_is_asked_twice_whether_somebody_stays() {
    let mut listeners = Listeners::default();
    listeners.port_up(S, NET, 1, false);
    listeners.heard(S, 1, &join(1));
    listeners.heard(S, 1, &leave(2));
    drain(&mut listeners);
    for stays in [true, false] {
        let at = S * if stays { 10 } else { 20 };
        listeners.heard(at, 1, &leave(1));
        assert_eq!(drain(&mut listeners), (vec![(Some(1), group(1))], false));
        listeners.heard(at + S / 2, 1, &leave(1));
        listeners.tick(at + S / 2);
        assert_eq!(drain(&mut listeners), (vec![], false), "it was asked already");
        listeners.tick(at + S);
        assert_eq!(drain(&mut listeners), (vec![(Some(1), group(1))], false));
        if stays {
            listeners.heard(at + S * 3 / 2, 1, &join(1));
        }
        listeners.tick(at + S * 2);
        assert_eq!(drain(&mut listeners), (vec![], !stays));
        assert_eq!(listening(&listeners).len(), usize::from(stays));
    }
}

#[test]
fn a_port_that_was_there_before_us_gets_everything_until_it_could_answer() {
    let mut listeners = Listeners::default();
    listeners.port_up(S, NET, 1, true);
    assert_eq!(drain(&mut listeners), (vec![(Some(1), V4), (Some(1), V6)], true));
    listeners.heard(S + S / 2, 1, &join(1));
    assert_eq!(listening(&listeners), [(1, V4), (1, group(1)), (1, V6)]);
    assert_eq!(listeners.groups(), BTreeSet::from([(NET, V4), (NET, V6)]), "all includes each");
    drain(&mut listeners);
    listeners.tick(S * 2);
    assert_eq!(drain(&mut listeners), (vec![(Some(1), V4), (Some(1), V6)], false));
    listeners.tick(S + FRESH);
    assert_eq!((drain(&mut listeners), listening(&listeners)), ((vec![], true), vec![(1, group(1))]));
}

#[test]
fn a_router_gets_everything_of_its_family_and_a_switch_that_asks_is_none() {
    let mut listeners = Listeners::default();
    listeners.port_up(S, NET, 1, false);
    listeners.heard(S, 1, &igmp([0; 4], 0x11, V4));
    listeners.heard(S, 1, &igmp::query(None, S));
    listeners.heard(S, 1, &mld::query(None, S));
    assert_eq!(listening(&listeners), []);
    listeners.heard(S, 1, &igmp([10, 0, 0, 1], 0x11, V4));
    assert_eq!(listening(&listeners), [(1, V4)]);
    listeners.tick(S + MEMBERSHIP);
    assert_eq!(listening(&listeners), []);
}

#[test]
fn groups_of_one_port_are_bounded_and_counted_and_what_is_no_message_too() {
    let mut listeners = Listeners::default();
    listeners.port_up(S, NET, 1, false);
    listeners.port_up(S, NET, 2, false);
    for n in 0..MAX_GROUPS + 44 {
        let [a, b] = (n as u16).to_be_bytes();
        listeners.heard(S, 1, &igmp([10, 0, 0, 1], 0x16, IpAddr::from([239, 2, a, b])));
    }
    listeners.heard(S, 2, &join(1));
    assert_eq!((listening(&listeners).len(), listeners.refused()), (MAX_GROUPS + 1, 44));
    let mut damaged = join(1);
    damaged[40] ^= 1;
    listeners.heard(S, 1, &damaged);
    assert_eq!(listeners.malformed(), 1);
    // Others are told of so many, and otherwise of all.
    for port in 3..6 {
        listeners.port_up(S, NET, port, false);
        for n in 0..MAX_GROUPS {
            listeners.heard(S, port, &igmp([10, 0, 0, 1], 0x16, IpAddr::from([239, 10 + port as u8, 0, n as u8])));
        }
        let groups = listeners.groups();
        let told = if port < 5 { (port as usize - 1) * MAX_GROUPS + 1 } else { 1 };
        assert_eq!((groups.len(), groups.contains(&(NET, V4))), (told, port == 5));
    }
    (3..6).for_each(|port| listeners.port_down(port));
    // A port that is not there any more says nothing.
    listeners.port_down(2);
    listeners.heard(S, 2, &join(1));
    assert_eq!(listening(&listeners).len(), MAX_GROUPS);
}

proptest! {
    /// Who reported last within the time of a membership and did not leave for good listens, nobody else does.
    #[test]
    fn it_follows_what_each_port_last_said(
        steps in proptest::collection::vec((0u32..3, 0u8..4, any::<bool>(), 0u32..40), 1..60),
    ) {
        let mut listeners = Listeners::default();
        (0..3).for_each(|port| listeners.port_up(S, NET, port, false));
        let mut last = BTreeMap::new();
        let mut now = S;
        for (port, n, joins, pause) in steps {
            now += S * pause;
            listeners.tick(now);
            listeners.heard(now, port, &if joins { join(n) } else { leave(n) });
            last.insert((port, group(n)), (now, joins));
            drain(&mut listeners);
            // After the answers to all questions.
            let mut later = now;
            while let Some(at) = listeners.next_deadline().filter(|&at| at <= now + LAST_MEMBER) {
                later = at;
                listeners.tick(at);
            }
            now = later.max(now);
            let expected = last.iter().filter(|(_, (at, joins))| *joins && now < *at + MEMBERSHIP).map(|(&key, _)| key);
            prop_assert_eq!(listening(&listeners), expected.collect::<Vec<_>>());
        }
    }
}
