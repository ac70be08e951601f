//! The FDB against the same rules written the slow, obvious way, and what the rules are for.

#![allow(clippy::unwrap_used)]

use super::table::SECOND_CHANCES;
use super::*;
use crate::switch::ids::{PeerId, PortId};
use proptest::prelude::*;
use std::collections::HashMap;
use std::sync::atomic::AtomicBool;

const ROOMY: Limits = Limits { max_entries: 1000, max_per_port: 1000, max_per_peer: 1000 };
const NET: u32 = 7;
const NOBODY: Mac = Mac([2, 0xff, 0, 0, 0, 0]);

fn mac(n: u32) -> Mac {
    let [a, b, c, d] = n.to_be_bytes();
    Mac([2, 0, a, b, c, d])
}

fn port(n: u32) -> Place {
    Place::Port(PortId(n))
}

fn peer(n: u32) -> Place {
    Place::Peer(PeerId(n))
}

fn hear(fdb: &Fdb, now: u32, station: u32, from: Place) -> Source {
    fdb.observe(now, NET, mac(station), from, NOBODY).source
}

#[test]
fn a_station_is_learned_found_moved_and_forgotten_when_silent() {
    let fdb = Fdb::new(ROOMY, 1);
    assert_eq!(hear(&fdb, 0, 1, port(1)), Source::Learned);
    assert_eq!(hear(&fdb, 10, 1, port(1)), Source::Known);
    let seen = fdb.observe(11, NET, mac(2), port(2), mac(1));
    assert_eq!(seen, Observed { destination: Some(port(1)), source: Source::Learned });
    assert_eq!(hear(&fdb, 12, 1, peer(1)), Source::Moved);
    assert_eq!(fdb.lookup(12, NET, mac(1)), Some(peer(1)));
    assert_eq!(fdb.lookup(12 + DEFAULT_AGEING - 1, NET, mac(1)), Some(peer(1)));
    assert_eq!(fdb.lookup(12 + DEFAULT_AGEING, NET, mac(1)), None);
    assert_eq!(fdb.lookup(12, NET + 1, mac(1)), None, "another network's station");
    assert_eq!(fdb.counts(), FdbCounts { learned: 2, moved: 1, expired: 0, evicted: 0 });
    fdb.sweep(12 + DEFAULT_AGEING);
    assert!(fdb.is_empty());
    assert_eq!(fdb.counts().expired, 2);
}

#[test]
fn a_static_entry_stands_against_frames_time_and_late_removals() {
    let fdb = Fdb::new(ROOMY, 1);
    hear(&fdb, 0, 1, port(9));
    fdb.insert_static(NET, mac(1), port(1));
    assert_eq!(hear(&fdb, 0, 1, port(1)), Source::Known);
    assert_eq!(hear(&fdb, 0, 1, peer(1)), Source::Pinned);
    fdb.flush_dynamic(None);
    fdb.sweep(u32::MAX);
    fdb.remove_static(NET, mac(1), port(2));
    assert_eq!(fdb.lookup(u32::MAX, NET, mac(1)), Some(port(1)));
    fdb.remove_static(NET, mac(1), port(1));
    assert_eq!(fdb.lookup(0, NET, mac(1)), None);
}

#[test]
fn a_mesh_entry_moves_by_sequence_and_by_nothing_else() {
    let fdb = Fdb::new(ROOMY, 1);
    hear(&fdb, 0, 1, port(9));
    assert!(fdb.insert_mesh(NET, mac(1), peer(1), 4));
    assert_eq!(hear(&fdb, 0, 1, peer(1)), Source::Known);
    assert_eq!([port(9), peer(2)].map(|place| hear(&fdb, 0, 1, place)), [Source::Pinned; 2]);
    fdb.flush_dynamic(None);
    fdb.sweep(u32::MAX);
    assert!(!fdb.insert_mesh(NET, mac(1), peer(2), 3), "an older claim");
    assert!(fdb.insert_mesh(NET, mac(1), port(1), 5));
    fdb.remove_mesh(NET, mac(1), peer(1));
    assert_eq!(fdb.lookup(u32::MAX, NET, mac(1)), Some(port(1)), "a late withdrawal");
    assert!(fdb.insert_mesh(NET, mac(1), port(1), 2), "its own place may say what it likes");
    fdb.insert_static(NET, mac(1), peer(3));
    assert!(!fdb.insert_mesh(NET, mac(1), port(1), u32::MAX), "the file knows better");
    fdb.remove_mesh(NET, mac(1), peer(3));
    assert_eq!(fdb.lookup(0, NET, mac(1)), Some(peer(3)));
}

#[test]
fn the_entry_that_gives_way_is_one_not_heard_lately() {
    let fdb = Fdb::new(Limits { max_per_port: 3, ..ROOMY }, 1);
    for station in 1..=3 {
        hear(&fdb, 0, station, port(1));
    }
    hear(&fdb, 5, 1, port(1));
    hear(&fdb, 5, 3, port(1));
    assert_eq!(hear(&fdb, 6, 4, port(1)), Source::Learned);
    let left: Vec<Mac> = fdb.snapshot(6).iter().map(|entry| entry.mac).collect();
    assert_eq!(left, [mac(1), mac(3), mac(4)]);
    assert_eq!(fdb.counts().evicted, 1);
}

#[test]
fn a_place_that_may_learn_nothing_changes_nothing() {
    let fdb = Fdb::new(Limits { max_per_peer: 0, ..ROOMY }, 1);
    hear(&fdb, 0, 1, port(1));
    assert_eq!(hear(&fdb, 0, 1, peer(1)), Source::Refused);
    assert_eq!(hear(&fdb, 0, 2, peer(1)), Source::Refused);
    assert_eq!((fdb.lookup(0, NET, mac(1)), fdb.len()), (Some(port(1)), 1));
}

#[test]
fn a_flooder_takes_nobodys_fair_share() {
    let limits = Limits { max_entries: 1000, max_per_port: 800, max_per_peer: 800 };
    let fdb = Fdb::new(limits, 1);
    // Nine ports with 100 stations each; a fair share among ten is 100. They are never heard again.
    for station in 0..900 {
        hear(&fdb, 0, station, port(station % 9));
    }
    for station in 0..100_000 {
        assert_eq!(hear(&fdb, 1 + station / 1000, 1_000_000 + station, port(99)), Source::Learned);
    }
    let entries = fdb.snapshot(101);
    for n in 0..9 {
        assert_eq!(entries.iter().filter(|entry| entry.place == port(n)).count(), 100, "port {n}");
    }
    assert_eq!(entries.iter().filter(|entry| entry.place == port(99)).count(), 100);
    // And whoever owns less than the flooder takes from the flooder.
    fdb.set_limits(Limits { max_entries: 5000, max_per_port: 4500, max_per_peer: 800 });
    for station in 0..5000 {
        hear(&fdb, 102, 2_000_000 + station, port(99));
    }
    for station in 0..300 {
        assert_eq!(hear(&fdb, 103, 3_000_000 + station, peer(1)), Source::Learned);
    }
    let entries = fdb.snapshot(103);
    assert_eq!(entries.iter().filter(|entry| entry.place == peer(1)).count(), 300);
    assert_eq!(entries.iter().filter(|entry| matches!(entry.place, Place::Port(PortId(0..9)))).count(), 900);
}

#[test]
fn one_sweep_looks_at_a_bounded_number_and_later_ones_at_the_rest() {
    let fdb = Fdb::new(Limits { max_entries: 10_000, max_per_port: 10_000, max_per_peer: 1 }, 1);
    for station in 0..10_000 {
        hear(&fdb, 0, station, port(1));
    }
    fdb.sweep(DEFAULT_AGEING);
    assert_eq!(fdb.len(), 10_000 - SWEEP_STEP);
    fdb.sweep(DEFAULT_AGEING);
    fdb.sweep(DEFAULT_AGEING);
    assert!(fdb.is_empty());
}

#[test]
fn workers_share_it_without_losing_an_entry_or_a_count() {
    let limits = Limits { max_entries: 300, max_per_port: 100, max_per_peer: 100 };
    let fdb = Fdb::new(limits, 1);
    fdb.insert_static(NET, mac(0), port(0));
    let done = AtomicBool::new(false);
    crossbeam::thread::scope(|scope| {
        let workers: Vec<_> = (1..=4)
            .map(|worker| {
                let fdb = &fdb;
                scope.spawn(move |_| {
                    for n in 0..20_000_u32 {
                        let place = if n % 3 == 0 { peer(worker) } else { port(worker) };
                        let seen = fdb.observe(n / 1000, NET, mac(1 + n * worker % 500), place, mac(0));
                        assert_eq!(seen.destination, Some(port(0)));
                    }
                })
            })
            .collect();
        scope.spawn(|_| {
            let mut now = 0;
            while !done.load(Relaxed) {
                fdb.sweep(now);
                fdb.flush_dynamic(Some(NET));
                now += 1;
            }
        });
        workers.into_iter().for_each(|worker| worker.join().unwrap());
        done.store(true, Relaxed);
    })
    .unwrap();
    let entries = fdb.snapshot(20);
    assert!(entries.len() <= 301);
    for place in (1..=4).flat_map(|n| [port(n), peer(n)]) {
        assert!(entries.iter().filter(|entry| entry.place == place).count() <= 100);
    }
    fdb.flush_dynamic(None);
    assert_eq!(fdb.len(), 1, "only the static entry is left");
}

/// The rules, written for the reader: one vector in the order in which entries were last queued.
struct Model {
    limits: Limits,
    ageing: HashMap<u32, u32>,
    rows: Vec<Row>,
    counts: FdbCounts,
}

#[derive(Clone)]
struct Row {
    vni: u32,
    mac: Mac,
    place: Place,
    kind: Kind,
    sequence: u32,
    heard: u32,
    queued: u32,
}

impl Model {
    fn expired(&self, now: u32, row: &Row) -> bool {
        row.kind == Kind::Dynamic
            && now.saturating_sub(row.heard) >= self.ageing.get(&row.vni).copied().unwrap_or(DEFAULT_AGEING)
    }

    fn position(&self, vni: u32, mac: Mac) -> Option<usize> {
        self.rows.iter().position(|row| (row.vni, row.mac) == (vni, mac))
    }

    fn lookup(&self, now: u32, vni: u32, mac: Mac) -> Option<Place> {
        let row = &self.rows[self.position(vni, mac)?];
        (!self.expired(now, row)).then_some(row.place)
    }

    fn owned(&self, place: Place) -> usize {
        self.rows.iter().filter(|row| row.kind == Kind::Dynamic && row.place == place).count()
    }

    fn dynamic(&self) -> usize {
        self.rows.iter().filter(|row| row.kind == Kind::Dynamic).count()
    }

    fn greediest(&self) -> Place {
        let places = self.rows.iter().filter(|row| row.kind == Kind::Dynamic).map(|row| row.place);
        places.max_by_key(|&place| (self.owned(place), place)).unwrap()
    }

    fn evict(&mut self, now: u32, place: Place) {
        for chances in 0.. {
            let oldest = self.rows.iter().position(|row| row.kind == Kind::Dynamic && row.place == place).unwrap();
            let mut row = self.rows.remove(oldest);
            if self.expired(now, &row) {
                self.counts.expired += 1;
                return;
            }
            if row.heard == row.queued || chances == SECOND_CHANCES {
                self.counts.evicted += 1;
                return;
            }
            row.queued = row.heard;
            self.rows.push(row);
        }
    }

    fn observe(&mut self, now: u32, vni: u32, mac: Mac, from: Place) -> Source {
        let mut outcome = Source::Learned;
        if let Some(at) = self.position(vni, mac) {
            let row = self.rows[at].clone();
            if row.kind != Kind::Dynamic {
                return if row.place == from { Source::Known } else { Source::Pinned };
            }
            if row.place == from && !self.expired(now, &row) {
                self.rows[at].heard = now;
                return Source::Known;
            }
            if self.limits.of(from) > 0 && self.limits.max_entries > 0 {
                self.rows.remove(at);
                if self.expired(now, &row) {
                    self.counts.expired += 1;
                } else {
                    outcome = Source::Moved;
                }
            }
        }
        if self.limits.of(from) == 0 || self.limits.max_entries == 0 {
            return Source::Refused;
        }
        if self.owned(from) == self.limits.of(from) {
            self.evict(now, from);
        }
        if self.dynamic() == self.limits.max_entries {
            let greediest = self.greediest();
            let fair = if self.owned(from) >= self.owned(greediest) { from } else { greediest };
            self.evict(now, fair);
        }
        if outcome == Source::Moved {
            self.counts.moved += 1;
        } else {
            self.counts.learned += 1;
        }
        self.rows.push(Row { vni, mac, place: from, kind: Kind::Dynamic, sequence: 0, heard: now, queued: now });
        outcome
    }

    fn sweep(&mut self, now: u32) {
        let (gone, left): (Vec<Row>, Vec<Row>) = self.rows.iter().cloned().partition(|row| self.expired(now, row));
        self.rows = left;
        self.counts.expired += gone.len() as u64;
    }

    fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        for place in self.rows.iter().map(|row| row.place).collect::<std::collections::BTreeSet<_>>() {
            while self.owned(place) > limits.of(place) {
                self.evict(0, place);
            }
        }
        while self.dynamic() > limits.max_entries {
            self.evict(0, self.greediest());
        }
    }

    fn snapshot(&self, now: u32) -> Vec<Entry> {
        let alive = self.rows.iter().filter(|row| !self.expired(now, row));
        let entry = |row: &Row| {
            let age = if row.kind == Kind::Dynamic { now - row.heard } else { 0 };
            Entry { vni: row.vni, mac: row.mac, place: row.place, kind: row.kind, age }
        };
        let mut entries: Vec<Entry> = alive.map(entry).collect();
        entries.sort_unstable();
        entries
    }
}

#[derive(Debug, Clone)]
enum Step {
    Observe(u32, Mac, Place, Mac),
    Wait(u32),
    Sweep,
    InsertStatic(u32, Mac, Place),
    RemoveStatic(u32, Mac, Place),
    InsertMesh(u32, Mac, Place, u32),
    RemoveMesh(u32, Mac, Place),
    ForgetPlace(Place),
    ForgetNetwork(u32),
    Flush(Option<u32>),
    SetLimits(Limits),
    SetAgeing(u32, u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let vni = || 1..4_u32;
    let station = || (0..40_u32).prop_map(mac);
    let place = || prop_oneof![(0..3_u32).prop_map(port), (0..3_u32).prop_map(peer)];
    let limits = (0..50_usize, 0..45_usize, 0..12_usize)
        .prop_map(|(max_entries, max_per_port, max_per_peer)| Limits { max_entries, max_per_port, max_per_peer });
    let step = prop_oneof![
        200 => (vni(), station(), place(), station()).prop_map(|(v, s, p, d)| Step::Observe(v, s, p, d)),
        20 => (1..40_u32).prop_map(Step::Wait),
        4 => Just(Step::Sweep),
        4 => (vni(), station(), place()).prop_map(|(v, m, p)| Step::InsertStatic(v, m, p)),
        4 => (vni(), station(), place()).prop_map(|(v, m, p)| Step::RemoveStatic(v, m, p)),
        4 => (vni(), station(), place(), 0..4_u32).prop_map(|(v, m, p, s)| Step::InsertMesh(v, m, p, s)),
        4 => (vni(), station(), place()).prop_map(|(v, m, p)| Step::RemoveMesh(v, m, p)),
        1 => place().prop_map(Step::ForgetPlace),
        1 => vni().prop_map(Step::ForgetNetwork),
        1 => proptest::option::of(vni()).prop_map(Step::Flush),
        2 => limits.prop_map(Step::SetLimits),
        2 => (vni(), 1..400_u32).prop_map(|(v, s)| Step::SetAgeing(v, s)),
    ];
    proptest::collection::vec(step, 1..400)
}

proptest! {
    #[test]
    fn it_follows_the_rules_as_the_model_has_them(steps in steps(), seed: u64) {
        let limits = Limits { max_entries: 45, max_per_port: 40, max_per_peer: 8 };
        let fdb = Fdb::new(limits, seed);
        let mut model = Model { limits, ageing: HashMap::new(), rows: Vec::new(), counts: FdbCounts::default() };
        let mut now = 0;
        for step in steps {
            match step {
                Step::Observe(vni, source, from, destination) => {
                    let expected = model.lookup(now, vni, destination);
                    let seen = fdb.observe(now, vni, source, from, destination);
                    prop_assert_eq!(seen.destination, expected);
                    prop_assert_eq!(seen.source, model.observe(now, vni, source, from));
                }
                Step::Wait(seconds) => now += seconds,
                Step::Sweep => {
                    fdb.sweep(now);
                    model.sweep(now);
                }
                Step::InsertStatic(vni, mac, place) => {
                    fdb.insert_static(vni, mac, place);
                    model.rows.retain(|row| (row.vni, row.mac) != (vni, mac));
                    model.rows.push(Row { vni, mac, place, kind: Kind::Static, sequence: 0, heard: 0, queued: 0 });
                }
                Step::RemoveStatic(vni, mac, place) => {
                    fdb.remove_static(vni, mac, place);
                    model.rows.retain(|r| !(r.kind == Kind::Static && (r.vni, r.mac, r.place) == (vni, mac, place)));
                }
                Step::InsertMesh(vni, mac, place, sequence) => {
                    let known = model.position(vni, mac).map(|at| model.rows[at].clone());
                    let stands = known.is_some_and(|row| match row.kind {
                        Kind::Static => true,
                        Kind::Mesh => row.place != place && row.sequence > sequence,
                        Kind::Dynamic => false,
                    });
                    prop_assert_eq!(fdb.insert_mesh(vni, mac, place, sequence), !stands);
                    if !stands {
                        model.rows.retain(|row| (row.vni, row.mac) != (vni, mac));
                        model.rows.push(Row { vni, mac, place, kind: Kind::Mesh, sequence, heard: 0, queued: 0 });
                    }
                }
                Step::RemoveMesh(vni, mac, place) => {
                    fdb.remove_mesh(vni, mac, place);
                    model.rows.retain(|r| !(r.kind == Kind::Mesh && (r.vni, r.mac, r.place) == (vni, mac, place)));
                }
                Step::ForgetPlace(place) => {
                    fdb.forget_place(place);
                    model.rows.retain(|row| row.place != place);
                }
                Step::ForgetNetwork(vni) => {
                    fdb.forget_network(vni);
                    model.rows.retain(|row| row.vni != vni);
                    model.ageing.remove(&vni);
                }
                Step::Flush(vni) => {
                    fdb.flush_dynamic(vni);
                    model.rows.retain(|row| row.kind != Kind::Dynamic || vni.is_some_and(|vni| vni != row.vni));
                }
                Step::SetLimits(limits) => {
                    fdb.set_limits(limits);
                    model.set_limits(limits);
                }
                Step::SetAgeing(vni, seconds) => {
                    fdb.set_ageing(vni, seconds);
                    model.ageing.insert(vni, seconds);
                }
            }
            prop_assert_eq!(fdb.snapshot(now), model.snapshot(now));
            prop_assert_eq!(fdb.counts(), model.counts);
            prop_assert_eq!(fdb.len(), model.rows.len());
            for vni in 1..4 {
                prop_assert_eq!(fdb.len_of(vni), model.rows.iter().filter(|row| row.vni == vni).count());
            }
            let limits = model.limits;
            prop_assert!(model.dynamic() <= limits.max_entries);
            prop_assert!(model.rows.iter().all(|row| model.owned(row.place) <= limits.of(row.place)));
        }
    }
}
