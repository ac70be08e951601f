//! Documents that somebody has and we lack: who is asked, and when again.
//!
//! The one that lacks something asks for it, one source at a time, and no more than [`WINDOW`] at once; so a member that
//! has been away is served as fast as it can take it, and once. A source that does not deliver is followed by the next;
//! what nobody delivers is given up after [`MOST_TRIES`], until somebody claims again to have it.
//!
//! All bounds are each source's own: one that claims to have what does not exist keeps nobody from asking the others.

use super::gossip::{FULL, Want};
use super::store::{MAX_MEMBERS, Store};
use crate::wire::key::PublicKey;
use std::collections::BTreeMap;
use std::time::Duration;

/// Documents asked of one source at once: about 100 kB.
const WINDOW: usize = 64;
/// How long an answer is waited for, beyond twice the round trip.
const ANSWER_TAKES: Duration = Duration::from_millis(200);
/// Documents come one after the other; the next are asked for together, after so long.
const ROOM_WAITS: Duration = Duration::from_millis(5);
/// How often a document is asked for.
const MOST_TRIES: u32 = 10;
/// Sources remembered of one document.
const MOST_SOURCES: usize = 4;

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Fetches {
    wanted: BTreeMap<PublicKey, Fetch>,
    /// How many of them each source was the first to tell of.
    told: BTreeMap<PublicKey, usize>,
    due: Option<Duration>,
}

#[derive(Debug)]
struct Fetch {
    version: u64,
    /// Who told of it first.
    teller: PublicKey,
    sources: Vec<PublicKey>,
    /// Who was asked last.
    asked: Option<PublicKey>,
    due: Duration,
    tries: u32,
}

impl Fetches {
    /// `from` has this version, which is news to us; it may yet come by itself until `due`.
    pub fn add(&mut self, due: Duration, owner: PublicKey, version: u64, from: PublicKey) {
        if !self.wanted.contains_key(&owner) {
            let told = self.told.entry(from).or_default();
            if *told >= MAX_MEMBERS {
                return;
            }
            *told += 1;
        }
        let new = Fetch { version, teller: from, sources: Vec::new(), asked: None, due, tries: 0 };
        let fetch = self.wanted.entry(owner).or_insert(new);
        fetch.version = fetch.version.max(version);
        if !fetch.sources.contains(&from) && fetch.sources.len() < MOST_SOURCES {
            fetch.sources.push(from);
        }
        if fetch.tries == 0 {
            fetch.due = fetch.due.min(due);
        }
        self.due = Some(self.due.map_or(fetch.due, |before| before.min(fetch.due)));
    }

    /// There is no need to ask for this version of an owner's document, or an older one.
    pub fn done(&mut self, now: Duration, owner: &PublicKey, version: u64) {
        if self.wanted.get(owner).is_some_and(|fetch| fetch.version <= version)
            && let Some(fetch) = self.wanted.remove(owner)
        {
            untell(&mut self.told, &fetch.teller);
            if self.wanted.is_empty() {
                self.due = None;
            } else if fetch.asked.is_some() {
                // There is room in the window, and soon for more.
                let due = now + ROOM_WAITS;
                self.due = Some(self.due.map_or(due, |before| before.min(due)));
            }
        }
    }

    /// Whether an owner's document is being asked for.
    pub fn contains(&self, owner: &PublicKey) -> bool {
        self.wanted.contains_key(owner)
    }

    /// When there is somebody to ask.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.due
    }

    /// Whom to ask for what. `round_trip` is that to a source that can be asked.
    pub fn poll(
        &mut self,
        now: Duration,
        store: &Store,
        round_trip: impl Fn(&PublicKey) -> Option<Duration>,
    ) -> Vec<(PublicKey, Vec<Want>)> {
        if self.due.is_none_or(|due| now < due) {
            return Vec::new();
        }
        let mut asked: BTreeMap<PublicKey, usize> = BTreeMap::new();
        for fetch in self.wanted.values().filter(|fetch| fetch.due > now) {
            fetch.asked.into_iter().for_each(|source| *asked.entry(source).or_default() += 1);
        }
        let mut questions: BTreeMap<PublicKey, Vec<Want>> = BTreeMap::new();
        let told = &mut self.told;
        self.wanted.retain(|owner, fetch| {
            if fetch.due > now {
                return true;
            }
            fetch.sources.retain(|source| round_trip(source).is_some());
            if fetch.sources.is_empty() || fetch.tries >= MOST_TRIES {
                untell(told, &fetch.teller);
                return false;
            }
            let turn = fetch.tries as usize % fetch.sources.len();
            let mut turns = fetch.sources[turn..].iter().chain(&fetch.sources[..turn]);
            let Some(&source) = turns.find(|source| asked.get(source).is_none_or(|count| *count < WINDOW)) else {
                return true;
            };
            let held = || store.get(owner).map_or(0, |replica| replica.document.head.version);
            let (version, mask) = store.missing(owner).unwrap_or_else(|| (held(), 0));
            questions.entry(source).or_default().push(Want { owner: *owner, version, mask });
            fetch.tries += 1;
            fetch.due = now + round_trip(&source).unwrap_or_default() * 2 + ANSWER_TAKES;
            fetch.asked = Some(source);
            *asked.entry(source).or_default() += 1;
            true
        });
        // Those that are due still wait for one of these.
        self.due = self.wanted.values().map(|fetch| fetch.due).filter(|due| *due > now).min();
        // A want is 56 bytes.
        let messages = questions.into_iter().flat_map(|(source, wants)| {
            let parts: Vec<_> = wants.chunks(FULL / 56).map(|some| (source, some.to_vec())).collect();
            parts
        });
        messages.collect()
    }
}

fn untell(told: &mut BTreeMap<PublicKey, usize>, teller: &PublicKey) {
    if let Some(count) = told.get_mut(teller) {
        *count -= 1;
        if *count == 0 {
            told.remove(teller);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::document::Archive;

    #[test]
    fn who_tells_of_what_does_not_exist_keeps_nobody_from_asking_others() {
        let (liar, honest, owner) = (PublicKey([1; 32]), PublicKey([2; 32]), PublicKey([255; 32]));
        let store = Store::new(PublicKey([9; 32]), Archive::default());
        let mut fetches = Fetches::default();
        let made_up = |n: u32| PublicKey([&n.to_be_bytes()[..], &[0; 28]].concat().try_into().unwrap_or([0; 32]));
        let (mut now, mut asked) = (Duration::ZERO, Vec::new());
        for turn in 0..10 {
            // As many as there may be, and again, all before the honest one in the order of keys.
            (0..5000).for_each(|n| fetches.add(now, made_up(turn * 5000 + n), 1, liar));
            if turn == 1 {
                fetches.add(now, owner, 1, honest);
            }
            asked.extend(fetches.poll(now, &store, |_| Some(Duration::from_millis(1))));
            now += Duration::from_millis(10);
        }
        let wants = |source| asked.iter().filter(move |(to, _)| *to == source).map(|(_, wants)| wants.len());
        assert_eq!((wants(liar).sum::<usize>(), wants(honest).sum::<usize>()), (WINDOW, 1));
        assert_eq!(fetches.wanted.len(), MAX_MEMBERS + 1);
        // What nobody delivers is given up, and nothing is left of it.
        while let Some(due) = fetches.next_deadline() {
            fetches.poll(due, &store, |_| Some(Duration::from_millis(1)));
        }
        assert!(fetches.wanted.is_empty() && fetches.told.is_empty());
    }
}
