//! Stations: met, moved, pinned, forgotten.

use super::{Party, attach_line, dropped, edit, entry, lab_with, mac, settles_at, status};
use crate::common::{SOON, cli, eventually, place};
use crate::frames::{frame, stranger};
use std::time::{Duration, Instant};
use weft::control::request::FdbEntry;
use weft::io::netns::Netns;
use weft::lab::ping::Pinger;
use weft::wire::ethernet::Mac;

#[test]
fn an_unknown_station_is_flooded_until_it_speaks_and_then_only_it_hears_its_frames() {
    if !place::usable() {
        return;
    }
    let lab = place::lab(place::unguarded(2, 2));
    let mut party = Party::of(&lab.containers_of("lab"));
    let (near, far) = (lab.host(1), lab.host(2));
    let station = stranger(1);

    let unknown = party.from(0, station, "to whom it may concern");
    assert_eq!(party.send(0, &unknown, b"whom it may"), [0, 1, 1, 1]);
    assert_eq!(entry(near, station), None, "nothing is learned from a destination");

    let hello = frame(Mac::BROADCAST, station, b"the station is here");
    assert_eq!(party.send(3, &hello, b"station is here"), [1, 1, 1, 0]);
    settles_at(far, station, "port c2");
    let FdbEntry { kind, age_s, .. } = settles_at(near, station, "peer h2");
    assert_eq!((kind.as_str(), age_s.is_some()), ("dynamic", true));

    let known = party.from(0, station, "between us two, far");
    assert_eq!(party.send(0, &known, b"us two, far"), [0, 0, 0, 1]);
    let known = party.from(2, station, "between us two, near");
    assert_eq!(party.send(2, &known, b"us two, near"), [0, 0, 0, 1]);

    // Behind the port it came from there is nobody to forward it to.
    let before = dropped(far, "same_port");
    let own = party.from(3, station, "to my own side");
    assert_eq!(party.send(3, &own, b"my own side"), [0; 4]);
    assert_eq!(dropped(far, "same_port"), before + 1);
    let (shown, table) = (near.files.socket(), format!("{station}  peer h2"));
    assert!(cli::weft(&shown, "fdb --network lab").done().contains(&table));
}

#[test]
fn a_station_that_moves_is_at_its_other_place_at_once_everywhere() {
    if !place::usable() {
        return;
    }
    let lab = place::lab(place::unguarded(3, 1));
    let mut party = Party::of(&lab.containers_of("lab"));
    let station = stranger(2);
    let moves = |host: usize| status(lab.host(host)).fdb.moved;
    let before = moves(3);
    for (round, at) in [0, 1, 0, 2, 1].into_iter().enumerate() {
        let text = format!("round {round}: I am here");
        party.send(at, &frame(Mac::BROADCAST, station, text.as_bytes()), text.as_bytes());
        for h in 1..=3 {
            let place = if h == at + 1 { "port c1".to_owned() } else { format!("peer h{}", at + 1) };
            settles_at(lab.host(h), station, &place);
        }
        for from in (0..3).filter(|from| *from != at) {
            let text = format!("round {round}, {from} to the station");
            let question = party.from(from, station, &text);
            let mut expected = [0; 3];
            expected[at] = 1;
            assert_eq!(party.send(from, &question, text.as_bytes()), expected, "{text}");
        }
    }
    assert_eq!(moves(3), before + 4);
}

#[test]
fn a_container_that_moves_with_its_address_is_reached_as_soon_as_it_is_attached() {
    if !place::usable() {
        return;
    }
    let lab = place::lab(place::spec(3, 1));
    let container = lab.container(1, 1);
    let (station, address) = (mac(container), container.v4);
    let asker = lab.container(3, 1);
    asker.ping(address.into(), 56, SOON).unwrap();
    settles_at(lab.host(3), station, "peer h1");

    let home = Netns::create().unwrap();
    cli::weft(&lab.host(1).files.socket(), "detach c1").done();
    let more = format!("--name moved --mac {station} --ip {address}/16");
    cli::weft(&lab.host(2).files.socket(), &attach_line(&home, "lab", "eth1", &more)).done();
    // Its neighbours have it in their ARP caches: only the FDBs have to follow.
    let begun = Instant::now();
    asker.ping(address.into(), 56, SOON).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(2), "it took {:?}", begun.elapsed());
    settles_at(lab.host(3), station, "peer h2");
    settles_at(lab.host(1), station, "peer h2");
    assert_eq!(entry(lab.host(2), station).unwrap().kind, "static");
    let mut back = Pinger::open(&home, asker.v4.into(), None).unwrap();
    back.until(10_000, SOON).unwrap();
}

#[test]
fn nobody_speaks_as_a_container_that_is_attached_elsewhere() {
    if !place::usable() {
        return;
    }
    let lab = place::lab(place::unguarded(2, 2));
    let mut party = Party::of(&lab.containers_of("lab"));
    let victim = party.macs[0];
    // From a port of the same host: refused at once.
    let before = dropped(lab.host(1), "spoofed_source");
    let lie = frame(Mac::BROADCAST, victim, b"a lie from next door");
    assert_eq!(party.send(1, &lie, b"lie from next"), [0; 4]);
    assert_eq!(dropped(lab.host(1), "spoofed_source"), before + 1);
    // From another host: its own switch learns it, the victim's does not.
    let lie = frame(Mac::BROADCAST, victim, b"a lie from afar");
    assert_eq!(party.send(3, &lie, b"lie from afar"), [0, 0, 1, 0]);
    assert_eq!(dropped(lab.host(1), "spoofed_source"), before + 2);
    assert_eq!(entry(lab.host(1), victim).unwrap().at, "port c1");
    // The next thing the victim says puts that right.
    party.barrier(0);
    settles_at(lab.host(2), victim, "peer h1");
}

#[test]
fn a_static_entry_of_the_file_holds_against_whoever_claims_the_address() {
    if !place::usable() {
        return;
    }
    let lab = place::lab(place::unguarded(3, 1));
    let mut party = Party::of(&lab.containers_of("lab"));
    let (near, station) = (lab.host(1), stranger(3));
    party.send(2, &frame(Mac::BROADCAST, station, b"I was first"), b"I was first");
    settles_at(near, station, "peer h3");
    // What is known of it elsewhere is not this test's concern.
    party.send(1, &frame(Mac::BROADCAST, station, b"no, I was"), b"no, I was");
    settles_at(near, station, "peer h2");

    let lines = format!("\n[[network.static]]\nmac = \"{station}\"\npeer = \"h2\"\n");
    edit(near, |text| text + &lines);
    cli::weft(&near.files.socket(), "reload").done();
    assert_eq!(entry(near, station).unwrap().kind, "static");

    let before = dropped(near, "spoofed_source");
    let claim = frame(Mac::BROADCAST, station, b"h3 claims it");
    assert_eq!(party.send(2, &claim, b"h3 claims it"), [0, 1, 0]);
    assert_eq!(dropped(near, "spoofed_source"), before + 1);
    assert_eq!(entry(near, station).unwrap().at, "peer h2");
    party.send(1, &frame(Mac::BROADCAST, station, b"h2 has it"), b"h2 has it");
    let question = party.from(0, station, "to the pinned one");
    assert_eq!(party.send(0, &question, b"the pinned one"), [0, 1, 0]);

    // Taken out of the file, it is learned like any other.
    edit(near, |text| text.replace(&lines, ""));
    cli::weft(&near.files.socket(), "reload").done();
    party.send(2, &frame(Mac::BROADCAST, station, b"h3 has it now"), b"h3 has it now");
    assert_eq!(settles_at(near, station, "peer h3").kind, "dynamic");
}

#[test]
fn a_silent_station_is_forgotten_after_the_ageing_time_and_flooded_again() {
    if !place::usable() {
        return;
    }
    let lab = lab_with(place::unguarded(2, 1), |_, text| text.replace("vni = 100\n", "vni = 100\nageing = 10\n"));
    let mut party = Party::of(&lab.containers_of("lab"));
    let (near, far, station) = (lab.host(1), lab.host(2), stranger(4));
    party.send(1, &frame(Mac::BROADCAST, station, b"my last words"), b"my last words");
    let spoken = Instant::now();
    settles_at(near, station, "peer h2");
    let expired = status(near).fdb.expired;
    for host in [near, far] {
        eventually("the station is forgotten", || entry(host, station).is_none().then_some(()));
    }
    assert!(spoken.elapsed() > Duration::from_secs(9), "after {:?}", spoken.elapsed());
    eventually("it was counted", || (status(near).fdb.expired > expired).then_some(()));
    let question = party.from(0, station, "are you there?");
    assert_eq!(party.send(0, &question, b"are you there?"), [0, 1]);
    // Containers that are attached do not age.
    assert_eq!(entry(near, party.macs[0]).unwrap().kind, "static");
}
