//! The table behind the lock: entries, who owns how many, and in which order they give way.
//!
//! ```text
//!   index:    (VNI, MAC) ─► slot                     stations: [ slot 0 | slot 1 | slot 2 | … ]
//!   networks: VNI ─► ageing time, length
//!   owners:   place ─► length, head ─► oldest slot ⇄ … ⇄ newest slot ◄─ tail
//!   sizes:    (length, place), ordered: the last owns the most
//! ```
//!
//! What stays true: every slot is either free or in the index once; a dynamic station is linked in
//! the queue of its place, any other in none; `sizes` holds every owner once, with its length, which is never 0.

use super::hash::Keyed;
use super::index::Index;
use super::{DEFAULT_AGEING, Entry, FdbCounts, Kind, Limits, Source};
use crate::switch::ids::{IdMap, PeerId, Place, PortId};
use crate::wire::ethernet::Mac;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// A position in `stations`.
pub(super) type Slot = u32;

/// No station: the end of a queue.
const NONE: Slot = Slot::MAX;

/// How many entries may get their second chance before one gives way regardless. It bounds the work of one eviction
/// where thousands of stations of one place are all being heard.
pub(super) const SECOND_CHANCES: u32 = 32;

#[derive(Debug)]
pub(super) struct Table {
    keyed: Keyed,
    limits: Limits,
    networks: IdMap<u32, Network>,
    index: Index,
    stations: Vec<Station>,
    free: Vec<Slot>,
    owners: BTreeMap<Place, Queue>,
    sizes: BTreeSet<(usize, Place)>,
    /// Dynamic entries in all.
    dynamic: usize,
    counts: FdbCounts,
}

/// One network. It comes into being when it is first spoken of; that is bounded because only configured networks are.
#[derive(Debug)]
struct Network {
    ageing: u32,
    len: usize,
}

/// 32 bytes that never lie across two cache lines.
#[derive(Debug)]
#[repr(align(32))]
struct Station {
    vni: u32,
    mac: Mac,
    kind: Kind,
    /// Its place, in two fields because an enum of the two would take eight bytes.
    site: Site,
    id: u32,
    /// When it was last heard.
    heard: AtomicU32,
    /// What `heard` was when it was put at the end of its queue; the sequence number of a mesh entry, which is in none.
    queued: u32,
    older: Slot,
    newer: Slot,
}

const _: () = assert!(size_of::<Station>() == 32);

/// What is in a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Site {
    Free,
    AtPort,
    AtPeer,
}

/// Dynamic entries of one place, oldest first.
#[derive(Debug, Clone, Copy)]
struct Queue {
    head: Slot,
    tail: Slot,
    len: usize,
}

impl Table {
    pub(super) fn new(limits: Limits, seed: u64) -> Self {
        let keyed = Keyed::new(seed);
        Self {
            keyed,
            limits,
            networks: IdMap::default(),
            index: Index::new(),
            stations: Vec::new(),
            free: Vec::new(),
            owners: BTreeMap::new(),
            sizes: BTreeSet::new(),
            dynamic: 0,
            counts: FdbCounts::default(),
        }
    }

    /// Where a destination is, and what can be said of a source without changing the table; no [`Source`] is news.
    pub(super) fn observe(
        &self,
        now: u32,
        vni: u32,
        source: Mac,
        from: Place,
        destination: Mac,
    ) -> (Option<Place>, Option<Source>) {
        let Some(network) = self.networks.get(&vni) else { return (None, None) };
        (self.lookup_in(network, now, vni, destination), self.judge_in(network, now, vni, source, from))
    }

    pub(super) fn lookup(&self, now: u32, vni: u32, mac: Mac) -> Option<Place> {
        self.lookup_in(self.networks.get(&vni)?, now, vni, mac)
    }

    fn lookup_in(&self, network: &Network, now: u32, vni: u32, mac: Mac) -> Option<Place> {
        let station = &self.stations[self.find(vni, mac)? as usize];
        (!station.is_expired(now, network.ageing)).then(|| station.place())
    }

    fn judge_in(&self, network: &Network, now: u32, vni: u32, mac: Mac, from: Place) -> Option<Source> {
        let station = &self.stations[self.find(vni, mac)? as usize];
        if station.kind != Kind::Dynamic {
            return Some(if station.place() == from { Source::Known } else { Source::Pinned });
        }
        if station.place() != from || station.is_expired(now, network.ageing) {
            return None;
        }
        if station.heard.load(Relaxed) < now {
            station.heard.fetch_max(now, Relaxed);
        }
        Some(Source::Known)
    }

    /// Takes a source in. Judges once more, because another worker may have been faster.
    pub(super) fn learn(&mut self, now: u32, vni: u32, mac: Mac, from: Place) -> Source {
        if let Some(source) = self.networks.get(&vni).and_then(|network| self.judge_in(network, now, vni, mac, from))
        {
            return source;
        }
        if self.limits.of(from) == 0 || self.limits.max_entries == 0 {
            return Source::Refused;
        }
        if let Some(slot) = self.find(vni, mac) {
            if !self.is_expired(now, slot) {
                self.make_room_at(now, from);
                self.unlink(slot);
                let station = &mut self.stations[slot as usize];
                station.move_to(from);
                station.heard.fetch_max(now, Relaxed);
                self.link(slot);
                self.counts.moved += 1;
                return Source::Moved;
            }
            self.remove(slot);
            self.counts.expired += 1;
        }
        self.make_room_at(now, from);
        self.make_room_in_all(now, from);
        let slot = self.insert(vni, mac, from, Kind::Dynamic, now);
        self.link(slot);
        self.counts.learned += 1;
        Source::Learned
    }

    pub(super) fn set_ageing(&mut self, vni: u32, seconds: u32) {
        self.network(vni).ageing = seconds;
    }

    pub(super) fn insert_static(&mut self, vni: u32, mac: Mac, place: Place) {
        if let Some(slot) = self.find(vni, mac) {
            self.remove(slot);
        }
        self.insert(vni, mac, place, Kind::Static, 0);
    }

    pub(super) fn insert_mesh(&mut self, vni: u32, mac: Mac, place: Place, sequence: u32) -> bool {
        if let Some(slot) = self.find(vni, mac) {
            let station = &self.stations[slot as usize];
            let stands = match station.kind {
                Kind::Static => true,
                Kind::Mesh => station.place() != place && station.queued > sequence,
                Kind::Dynamic => false,
            };
            if stands {
                return false;
            }
            self.remove(slot);
        }
        let slot = self.insert(vni, mac, place, Kind::Mesh, 0);
        self.stations[slot as usize].queued = sequence;
        true
    }

    /// Removes an entry if it is still of this kind and for this place.
    pub(super) fn withdraw(&mut self, kind: Kind, vni: u32, mac: Mac, place: Place) {
        if let Some(slot) = self.find(vni, mac) {
            let station = &self.stations[slot as usize];
            if station.kind == kind && station.place() == place {
                self.remove(slot);
            }
        }
    }

    /// Removes every entry of which `keep` is false. Walks the table.
    pub(super) fn retain(&mut self, keep: impl Fn(&Entry) -> bool) {
        for slot in 0..self.stations.len() {
            let station = &self.stations[slot];
            if station.is_in_use() && !keep(&station.entry(0)) {
                self.remove(slot as Slot);
            }
        }
    }

    pub(super) fn forget_network(&mut self, vni: u32) {
        self.retain(|entry| entry.vni != vni);
        self.networks.remove(&vni);
    }

    pub(super) fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        let places: Vec<Place> = self.owners.keys().copied().collect();
        for place in places {
            while self.owned_by(place) > limits.of(place) {
                self.evict_oldest(0, place);
            }
        }
        while self.dynamic > limits.max_entries
            && let Some(&(_, place)) = self.sizes.last()
        {
            self.evict_oldest(0, place);
        }
    }

    /// Expired entries among the `step` slots from `start` on, round the end, and where the next step begins.
    pub(super) fn expired(&self, now: u32, start: Slot, step: usize) -> (Vec<Slot>, Slot) {
        let all = self.stations.len();
        let round = |slot: usize| slot.checked_rem(all).unwrap_or(0) as Slot;
        let steps = (start as usize..).take(step.min(all)).map(round);
        (steps.filter(|&slot| self.is_expired(now, slot)).collect(), round(start as usize + step))
    }

    /// Removes those of `slots` that are (still) expired.
    pub(super) fn expire(&mut self, now: u32, slots: &[Slot]) {
        for &slot in slots {
            if self.is_expired(now, slot) {
                self.remove(slot);
                self.counts.expired += 1;
            }
        }
    }

    pub(super) fn counts(&self) -> FdbCounts {
        self.counts
    }

    pub(super) fn len(&self) -> usize {
        self.stations.len() - self.free.len()
    }

    pub(super) fn len_of(&self, vni: u32) -> usize {
        self.networks.get(&vni).map_or(0, |network| network.len)
    }

    pub(super) fn entries(&self, now: u32) -> impl Iterator<Item = Entry> {
        let seen = move |&slot: &Slot| self.stations[slot as usize].is_in_use() && !self.is_expired(now, slot);
        (0..self.stations.len() as Slot).filter(seen).map(move |slot| self.stations[slot as usize].entry(now))
    }

    // Bounds.

    fn owned_by(&self, place: Place) -> usize {
        self.owners.get(&place).map_or(0, |queue| queue.len)
    }

    fn make_room_at(&mut self, now: u32, place: Place) {
        if self.owned_by(place) >= self.limits.of(place) {
            self.evict_oldest(now, place);
        }
    }

    /// The place that would own the most gives way, the newcomer's own among equals.
    fn make_room_in_all(&mut self, now: u32, newcomer: Place) {
        if self.dynamic < self.limits.max_entries {
            return;
        }
        if let Some(&(most, place)) = self.sizes.last() {
            let victim = if self.owned_by(newcomer) >= most { newcomer } else { place };
            self.evict_oldest(now, victim);
        }
    }

    /// The oldest entry of `place` gives way: the first that has expired or was not heard since it was queued.
    fn evict_oldest(&mut self, now: u32, place: Place) {
        for chances in 0..=SECOND_CHANCES {
            let Some(&Queue { head, .. }) = self.owners.get(&place) else { return };
            let station = &self.stations[head as usize];
            if self.is_expired(now, head) {
                self.remove(head);
                self.counts.expired += 1;
                return;
            }
            if station.heard.load(Relaxed) == station.queued || chances == SECOND_CHANCES {
                self.remove(head);
                self.counts.evicted += 1;
                return;
            }
            self.unlink(head);
            self.link(head);
        }
    }

    // Slots and queues.

    fn find(&self, vni: u32, mac: Mac) -> Option<Slot> {
        let is_it = |slot: Slot| self.stations.get(slot as usize).is_some_and(|s| s.mac == mac && s.vni == vni);
        self.index.find(self.keyed.station(vni, mac), is_it)
    }

    fn is_expired(&self, now: u32, slot: Slot) -> bool {
        let Some(station) = self.stations.get(slot as usize).filter(|station| station.is_in_use()) else {
            return false;
        };
        self.networks.get(&station.vni).is_some_and(|network| station.is_expired(now, network.ageing))
    }

    fn network(&mut self, vni: u32) -> &mut Network {
        self.networks.entry(vni).or_insert(Network { ageing: DEFAULT_AGEING, len: 0 })
    }

    fn insert(&mut self, vni: u32, mac: Mac, place: Place, kind: Kind, now: u32) -> Slot {
        let heard = AtomicU32::new(now);
        let (site, id) = Site::of(place);
        let station = Station { vni, mac, kind, site, id, heard, queued: now, older: NONE, newer: NONE };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.stations[slot as usize] = station;
                slot
            }
            None => {
                self.stations.push(station);
                (self.stations.len() - 1) as Slot
            }
        };
        self.index.insert(self.keyed.station(vni, mac), slot);
        self.network(vni).len += 1;
        slot
    }

    fn remove(&mut self, slot: Slot) {
        if self.stations[slot as usize].kind == Kind::Dynamic {
            self.unlink(slot);
        }
        let station = &mut self.stations[slot as usize];
        station.site = Site::Free;
        let (vni, mac) = (station.vni, station.mac);
        self.index.remove(self.keyed.station(vni, mac), slot);
        self.network(vni).len -= 1;
        self.free.push(slot);
    }

    /// Puts a dynamic station at the end of its place's queue.
    fn link(&mut self, slot: Slot) {
        let place = self.stations[slot as usize].place();
        let queue = self.owners.entry(place).or_insert(Queue { head: NONE, tail: NONE, len: 0 });
        let station = &mut self.stations[slot as usize];
        station.queued = station.heard.load(Relaxed);
        (station.older, station.newer) = (queue.tail, NONE);
        match queue.tail {
            NONE => queue.head = slot,
            tail => self.stations[tail as usize].newer = slot,
        }
        queue.tail = slot;
        self.sizes.remove(&(queue.len, place));
        queue.len += 1;
        self.sizes.insert((queue.len, place));
        self.dynamic += 1;
    }

    /// Takes a dynamic station out of its place's queue.
    fn unlink(&mut self, slot: Slot) {
        let station = &self.stations[slot as usize];
        let (place, older, newer) = (station.place(), station.older, station.newer);
        let Some(queue) = self.owners.get_mut(&place) else { return };
        match older {
            NONE => queue.head = newer,
            older => self.stations[older as usize].newer = newer,
        }
        match newer {
            NONE => queue.tail = older,
            newer => self.stations[newer as usize].older = older,
        }
        self.sizes.remove(&(queue.len, place));
        queue.len -= 1;
        if queue.len == 0 {
            self.owners.remove(&place);
        } else {
            self.sizes.insert((queue.len, place));
        }
        self.dynamic -= 1;
    }
}

impl Site {
    fn of(place: Place) -> (Self, u32) {
        match place {
            Place::Port(PortId(id)) => (Self::AtPort, id),
            Place::Peer(PeerId(id)) => (Self::AtPeer, id),
        }
    }
}

impl Station {
    fn is_in_use(&self) -> bool {
        self.site != Site::Free
    }

    fn place(&self) -> Place {
        match self.site {
            Site::AtPeer => Place::Peer(PeerId(self.id)),
            Site::AtPort | Site::Free => Place::Port(PortId(self.id)),
        }
    }

    fn move_to(&mut self, place: Place) {
        (self.site, self.id) = Site::of(place);
    }

    fn is_expired(&self, now: u32, ageing: u32) -> bool {
        self.kind == Kind::Dynamic && self.age(now) >= ageing
    }

    fn age(&self, now: u32) -> u32 {
        now.saturating_sub(self.heard.load(Relaxed))
    }

    fn entry(&self, now: u32) -> Entry {
        let age = if self.kind == Kind::Dynamic { self.age(now) } else { 0 };
        Entry { vni: self.vni, mac: self.mac, place: self.place(), kind: self.kind, age }
    }
}
