//! Bytes that a tunnel must survive: buffers of the wrong size, reordering, replays, rubbish; and what it may keep.

use super::talk::{MS, S, Talk};
use crate::world::endpoint;
use proptest::prelude::*;
use std::cell::RefCell;
use weft::switch::counters::Drop;
use weft::tunnel::{Gate, OVERHEAD, REPLAY_WINDOW, Refusal};

#[test]
fn a_buffer_too_small_is_an_error_and_not_a_panic() {
    let mut talk = Talk::with_session();
    let genuine = talk.sealed(0, 1).remove(0);
    let (opener, (sealer, _)) = (talk.opener(1, &genuine), talk.tunnel(1).outgoing(talk.world.instant()).unwrap());
    for length in 0..genuine.len() - OVERHEAD {
        let mut packet = vec![0; length];
        assert_eq!(opener.open(&genuine, &mut packet), Err(Refusal::Malformed), "{length}");
        assert_eq!(sealer.seal(&[0x45; 100], &mut packet[..length.min(100 + OVERHEAD - 1)]), None, "{length}");
    }
    for length in 0..OVERHEAD {
        assert_eq!(opener.open(&genuine[..length], &mut [0; 2000]), Err(Refusal::Malformed), "{length}");
    }
    assert_eq!(opener.open(&genuine, &mut vec![0; genuine.len() - OVERHEAD]), Ok(genuine.len() - OVERHEAD));
}

#[test]
fn datagrams_of_every_length_that_name_a_live_session_do_not_panic() {
    let mut talk = Talk::with_session();
    let head = talk.sealed(0, 1).remove(0)[..8].to_vec();
    for length in (0..2000).chain([9000, 65_507, 65_535, 100_000]) {
        let mut datagram = head.clone();
        datagram.resize(length, 0xa5);
        talk.world.underlay_input(1, endpoint(0), &datagram, length);
    }
    // A train is cut into strides, whatever they are.
    for stride in [0, 1, 31, 32, 33, 1000] {
        talk.world.underlay_input(1, endpoint(0), &vec![4; 5000], stride);
    }
    talk.say(0);
    assert!(talk.is_heard_within(0, S));
}

#[test]
fn reordering_by_the_whole_window_is_accepted_and_every_replay_refused() {
    let mut talk = Talk::with_session();
    let mut datagrams = talk.sealed(0, REPLAY_WINDOW + 1);
    datagrams.reverse();
    let opener = talk.opener(1, &datagrams[0]);
    let open = |datagram: &[u8]| opener.open(datagram, &mut [0; 2000]);
    assert!(datagrams.iter().all(|datagram| open(datagram).is_ok()));
    assert!(datagrams.iter().all(|datagram| open(datagram) == Err(Refusal::Replay)));
}

#[test]
fn what_is_older_than_the_window_is_refused_as_a_replay() {
    let mut talk = Talk::with_session();
    let datagrams = talk.sealed(0, REPLAY_WINDOW + 2);
    let opener = talk.opener(1, &datagrams[0]);
    let open = |datagram: &[u8]| opener.open(datagram, &mut [0; 2000]);
    assert!(open(&datagrams[datagrams.len() - 1]).is_ok());
    assert_eq!(open(&datagrams[0]), Err(Refusal::Replay));
    assert!(open(&datagrams[1]).is_ok());
}

#[test]
fn a_datagram_for_a_session_that_is_over_is_of_an_unknown_session() {
    let mut talk = Talk::with_session();
    let datagram = talk.sealed(0, 1).remove(0);
    talk.run(181 * S);
    let before = talk.world.hosts[1].dropped(Drop::UnknownSession);
    talk.world.underlay_input(1, endpoint(66), &datagram, datagram.len());
    assert_eq!(talk.world.hosts[1].dropped(Drop::UnknownSession), before + 1);
    assert_eq!(talk.tunnel(1).endpoint(), Some(endpoint(0)));
}

#[test]
fn packets_that_wait_are_bounded_in_number_bytes_and_age_and_the_oldest_gives_way() {
    let talk = Talk::new();
    let now = talk.world.instant();
    let mut tunnel = talk.tunnel(0);
    let dropped: u64 = (0..100u8).map(|i| tunnel.hold(now, &[i; 100])).sum();
    assert_eq!((tunnel.waiting(), dropped), (32, 68));
    // Eight of 9,000 bytes are more than 64 KiB: seven stay.
    let dropped: u64 = (0..8u8).map(|_| tunnel.hold(now, &[0; 9000])).sum();
    assert_eq!((tunnel.waiting(), dropped), (7, 33));
    assert_eq!(tunnel.next_waiting(), None, "there is no session yet");
    let _ = tunnel.hold(now + 3 * S, &[1; 100]);
    assert_eq!(tunnel.expire_waiting(now + 6 * S - MS), 0);
    assert_eq!(tunnel.expire_waiting(now + 6 * S), 7);
    assert_eq!(tunnel.expire_waiting(now + 9 * S), 1);
    assert_eq!(tunnel.waiting(), 0);
}

#[test]
fn packets_that_wait_for_a_peer_that_is_removed_are_counted() {
    let mut talk = Talk::new();
    talk.cut(true);
    (0..3).for_each(|_| talk.say(0));
    talk.world.part(0, 1);
    assert_eq!(talk.world.hosts[0].dropped(Drop::TunnelQueueExpired), 3);
}

#[test]
fn packets_that_wait_for_a_peer_that_never_answers_do_not_pile_up() {
    let mut talk = Talk::new();
    talk.cut(true);
    talk.talk(600 * S, [Some(20 * MS), Some(20 * MS)]);
    for n in 0..2 {
        assert!(talk.tunnel(n).waiting() <= 32);
        let host = &talk.world.hosts[n];
        let gone = host.dropped(Drop::TunnelQueueFull) + host.dropped(Drop::TunnelQueueExpired);
        assert_eq!(gone + talk.tunnel(n).waiting() as u64, 30_000);
    }
    talk.run(10 * S);
    assert_eq!((talk.tunnel(0).waiting(), talk.tunnel(1).waiting()), (0, 0));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Types and indexes are likely ones, so that everything behind them is reached.
    #[test]
    fn rubbish_never_panics_and_moves_nothing(
        kind in 0u8..6, live_index: bool, counter in 0u64..5, body in proptest::collection::vec(any::<u8>(), 0..300),
        exact: bool, cut_at in 0usize..400,
    ) {
        thread_local! {
            static TALK: RefCell<Talk> = RefCell::new(Talk::with_session());
        }
        TALK.with_borrow_mut(|talk| {
            let genuine = talk.sealed(0, 1).remove(0);
            let mut datagram = vec![kind, 0, 0, 0];
            let index = if live_index { genuine[4..8].to_vec() } else { body.iter().take(4).copied().collect() };
            match kind {
                2 => datagram.extend([&[9, 9, 9, 9], &index[..]].concat()),
                4 => datagram.extend([&index[..], &counter.to_le_bytes()].concat()),
                _ => datagram.extend(index),
            }
            datagram.extend(&body);
            match kind {
                1 if exact => datagram.resize(148, 0x11),
                2 if exact => datagram.resize(92, 0x22),
                3 if exact => datagram.resize(64, 0x33),
                _ => datagram.truncate(cut_at),
            }
            let from = endpoint(66);
            let _ = Gate::claim(&datagram);
            let dropped = talk.world.hosts[1].switch.counters.dropped_in_all();
            talk.world.underlay_input(1, from, &datagram, datagram.len());
            let dropped = talk.world.hosts[1].switch.counters.dropped_in_all() - dropped;
            assert_eq!(dropped, 1, "each is counted once: {datagram:?}");
            assert_eq!(talk.tunnel(1).endpoint(), Some(endpoint(0)));
            assert!(talk.tunnel(1).is_live());
            talk.run(MS);
        });
    }
}
