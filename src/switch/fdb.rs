//! The forwarding database: which station is behind which port or peer (IEEE 802.1Q §8.8).
//!
//! An entry says that a MAC address, in one network, is at one [`Place`]. *Static* entries are put there by the control
//! plane and stay until it takes them away. *Mesh* entries are put there for an attachment that a member told of; one with a
//! higher sequence number takes the place of one with a lower (RFC 7432 §15), and a static entry stands against both. *Dynamic*
//! entries are learned from source addresses; they age out when the station is silent for the network's ageing time, move
//! at once when it is heard elsewhere, and give way at the bounds. Frames never move a static or mesh entry, and neither is
//! aged, evicted or counted against a bound: as many exist as the file and the mesh's own bounds allow.
//!
//! # Who gives way
//!
//! Source addresses are chosen by strangers, so the number of dynamic entries is bounded per port, per peer and in
//! all ([`Limits`]). At the bound of a place, that place's own oldest entry gives way. At the bound of all, the oldest
//! entry of the place that would own the most gives way (Open vSwitch does the same per port): whoever floods
//! addresses hurts himself, and everybody else keeps at least an equal share. *Oldest* is by second chance: a queue
//! per place in the order of learning, where an entry heard since it was queued goes to the end once more.
//!
//! # Threads
//!
//! All workers share one table behind one [`ShardedLock`]: eight locks on cache lines of their own, of which a reader
//! takes the one of its thread and a writer all, so that readers on different cores do not write to one line. The normal
//! frame, from a known station, takes the read lock once for both of its addresses ([`Fdb::observe`]); when it was heard is an
//! atomic, written at most once a second. Only news (a station met or moved) takes the write lock. Nothing done per frame or per second walks the table;
//! what does ([`Fdb::forget_place`] and its like) is asked for by people and configuration.
//!
//! # Time
//!
//! Whole seconds since the switch started, always an argument. Workers may disagree by a second; an entry's time
//! never goes back.

mod hash;
mod index;
mod table;
#[cfg(test)]
mod tests;

use super::ids::Place;
use crate::wire::ethernet::Mac;
use crossbeam::sync::{ShardedLock, ShardedLockReadGuard, ShardedLockWriteGuard};
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use table::Table;

/// How long a silent station stays where nothing else is said, in seconds (IEEE 802.1Q table 8-6).
pub const DEFAULT_AGEING: u32 = 300;

/// How many entries one [`Fdb::sweep`] looks at: some 100 µs under the read lock, and each of 65,536 entries is
/// visited every 4 s. An expired entry that waits for its visit is invisible already.
pub const SWEEP_STEP: usize = 4096;

/// Bounds on dynamic entries. A bound of 0 means that nothing is learned there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// In all.
    pub max_entries: usize,
    /// Behind one local port.
    pub max_per_port: usize,
    /// Behind one peer.
    pub max_per_peer: usize,
}

impl Limits {
    fn of(&self, place: Place) -> usize {
        match place {
            Place::Port(_) => self.max_per_port,
            Place::Peer(_) => self.max_per_peer,
        }
    }
}

/// What the FDB knows about a frame's two addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Observed {
    /// Where the destination is; `None` floods.
    pub destination: Option<Place>,
    /// What became of the source.
    pub source: Source,
}

/// What became of a frame's source address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// It is where it was.
    Known,
    /// It has an entry it did not have.
    Learned,
    /// Its dynamic entry was elsewhere and is here.
    Moved,
    /// A static or mesh entry says it is elsewhere: the frame is spoofed. Nothing changed.
    Pinned,
    /// The place may have no dynamic entry at all, or nothing could give way. Nothing changed.
    Refused,
}

/// What happened to dynamic entries since the switch started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FdbCounts {
    /// Stations met for the first time, or again after they had expired.
    pub learned: u64,
    /// Stations that changed their place.
    pub moved: u64,
    /// Entries that aged out.
    pub expired: u64,
    /// Entries that gave way at a bound.
    pub evicted: u64,
}

/// Where an entry comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Learned from a source address.
    Dynamic,
    /// An attachment that a member told of.
    Mesh,
    /// Pinned by the configuration, or one of our own ports.
    Static,
}

/// One entry, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The network.
    pub vni: u32,
    /// The station.
    pub mac: Mac,
    /// Where it is.
    pub place: Place,
    /// Where it comes from.
    pub kind: Kind,
    /// Seconds since it was heard; 0 unless it is dynamic.
    pub age: u32,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Fdb {
    table: ShardedLock<Table>,
    /// Where the next sweep begins.
    cursor: AtomicU32,
}

impl Fdb {
    /// An empty FDB. `seed` is random and secret: it keys the hash of the tables.
    pub fn new(limits: Limits, seed: u64) -> Self {
        Self { table: ShardedLock::new(Table::new(limits, seed)), cursor: AtomicU32::new(0) }
    }

    /// Looks up a frame's destination and notes where its source is. The hot path: one read lock, unless the source
    /// is news. The caller has dropped frames with a group or zero source address, and asks only for networks it has.
    pub fn observe(&self, now: u32, vni: u32, source: Mac, from: Place, destination: Mac) -> Observed {
        let (destination, known) = self.read().observe(now, vni, source, from, destination);
        let source = known.unwrap_or_else(|| self.write().learn(now, vni, source, from));
        Observed { destination, source }
    }

    /// Where a station is, if that is known and not expired.
    pub fn lookup(&self, now: u32, vni: u32, mac: Mac) -> Option<Place> {
        self.read().lookup(now, vni, mac)
    }

    /// Sets after how many seconds of silence a network's dynamic entries expire; also those it has.
    pub fn set_ageing(&self, vni: u32, seconds: u32) {
        self.write().set_ageing(vni, seconds);
    }

    /// Pins a station to a place, whatever was known of it.
    pub fn insert_static(&self, vni: u32, mac: Mac, place: Place) {
        self.write().insert_static(vni, mac, place);
    }

    /// Takes a static entry away, if it is still the one for `place`: a late removal never undoes a newer insertion.
    pub fn remove_static(&self, vni: u32, mac: Mac, place: Place) {
        self.write().withdraw(Kind::Static, vni, mac, place);
    }

    /// Pins a station to where an attachment of the mesh says it is. Returns whether that is so now: a static entry stands,
    /// and so does a mesh entry for another place with a higher sequence number.
    pub fn insert_mesh(&self, vni: u32, mac: Mac, place: Place, sequence: u32) -> bool {
        self.write().insert_mesh(vni, mac, place, sequence)
    }

    /// Takes a mesh entry away, if it is still the one for `place`: a late removal never undoes a move.
    pub fn remove_mesh(&self, vni: u32, mac: Mac, place: Place) {
        self.write().withdraw(Kind::Mesh, vni, mac, place);
    }

    /// Forgets everything at a port or peer that is gone, static and mesh entries included.
    pub fn forget_place(&self, place: Place) {
        self.write().retain(|entry| entry.place != place);
    }

    /// Forgets a network that is gone, static and mesh entries and ageing time included.
    pub fn forget_network(&self, vni: u32) {
        self.write().forget_network(vni);
    }

    /// Forgets all dynamic entries, of one network or of all.
    pub fn flush_dynamic(&self, vni: Option<u32>) {
        self.write().retain(|entry| entry.kind != Kind::Dynamic || vni.is_some_and(|vni| vni != entry.vni));
    }

    /// Sets the bounds; what exceeds them gives way at once.
    pub fn set_limits(&self, limits: Limits) {
        self.write().set_limits(limits);
    }

    /// Removes expired entries among the next [`SWEEP_STEP`]. The control plane calls this four times a second.
    pub fn sweep(&self, now: u32) {
        let start = self.cursor.load(Relaxed);
        let (expired, next) = self.read().expired(now, start, SWEEP_STEP);
        self.cursor.store(next, Relaxed);
        if !expired.is_empty() {
            self.write().expire(now, &expired);
        }
    }

    /// What happened since the start.
    pub fn counts(&self) -> FdbCounts {
        self.read().counts()
    }

    /// Entries of all kinds; expired ones until they are swept.
    pub fn len(&self) -> usize {
        self.read().len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Entries of one network, counted as [`Fdb::len`] does.
    pub fn len_of(&self, vni: u32) -> usize {
        self.read().len_of(vni)
    }

    /// All entries that are not expired, ordered by network and address.
    pub fn snapshot(&self, now: u32) -> Vec<Entry> {
        let mut entries: Vec<Entry> = self.read().entries(now).collect();
        entries.sort_unstable();
        entries
    }

    /// A worker that panicked is a bug elsewhere; every change of the table is whole when its lock is released.
    fn read(&self) -> ShardedLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> ShardedLockWriteGuard<'_, Table> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }
}
