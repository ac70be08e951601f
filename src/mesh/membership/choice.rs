//! Who is alive, whom to be neighbours with, whom to look for, and whom to forget.

use super::{
    GRACE, GRACE_UNSEEN, LINKS_MEASURED, LINKS_PAUSE, LINKS_SETTLE, LONGEST_LINKS_PAUSE, Life, Membership, Output,
    RETIRED_LASTS,
};
use crate::mesh::facts::Facts;
use crate::mesh::outbox::Outbox;
use crate::mesh::{graph, ring};
use crate::wire::key::PublicKey;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// The graph is looked at this often while it changes.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often the choice of neighbours is gone through.
const CHOOSE_EVERY: Duration = Duration::from_secs(1);
/// A neighbour of the ring that does not become a link in this time is replaced by another …
const FAILS_AFTER: Duration = Duration::from_secs(10);
/// … for so long.
const FAILS_FOR: Duration = Duration::from_secs(60);
/// A link that is no longer chosen stays for this time, so that the one in its place comes first.
const LINGERS: Duration = Duration::from_secs(10);
/// Links of our choice that must be up before others are let go.
const ENOUGH: usize = 2;
/// Members that are not alive and are looked for at a time.
const WISHES: usize = 4;
/// How many begin to look for one each second, all together.
const LOOKED_FOR: usize = 2;
/// How long each is looked for: two handshakes.
const WISH_LASTS: Duration = Duration::from_secs(4);
/// One that was just heard of comes alive by itself, when the links of others are known.
const MISSED_AFTER: Duration = Duration::from_secs(3);
/// Pairs with one name or address that were warned of. More than a few are one mistake.
const MAX_WARNED: usize = 256;

/// What was chosen, and what came of it.
#[derive(Debug, Default)]
pub(super) struct Choice {
    /// When it is gone through again.
    pub(super) due: Duration,
    /// Members to look for that we have no document of.
    pub(super) contacts: BTreeSet<PublicKey>,
    /// With whom to have a session.
    pub(super) neighbours: BTreeSet<PublicKey>,
    /// Names and addresses are to be compared.
    pub(super) are_names_due: bool,
    /// Neighbours by the ring.
    chosen: BTreeSet<PublicKey>,
    /// Since when those are without a link.
    missing: BTreeMap<PublicKey, Duration>,
    /// Those that are not to be chosen until then.
    failing: BTreeMap<PublicKey, Duration>,
    /// Who is looked for, until when.
    wishes: BTreeMap<PublicKey, Duration>,
    forgotten: BTreeMap<PublicKey, Duration>,
    warned: BTreeSet<(PublicKey, PublicKey, bool)>,
}

impl Membership {
    /// The graph is another: it will be looked at.
    pub(super) fn graph_changed(&mut self, now: Duration) {
        let due = now.max(self.graph_seen + LOOK_EVERY);
        self.graph_due = Some(self.graph_due.map_or(due, |before| before.min(due)));
    }

    /// Notes links that came up or went down.
    pub(super) fn watch_links(&mut self, now: Duration) {
        let (mut has_changed, mut has_lost) = (false, false);
        for session in self.sessions.values_mut() {
            let is_up = session.pulse.is_up(now);
            has_changed |= is_up != session.was_up;
            has_lost |= !is_up && session.was_up;
            if is_up && !session.was_up {
                session.is_eager = true;
                session.outbox.push(now, self.us, u64::MAX);
            } else if !is_up && session.was_up {
                // Nothing is told to the dead; digests will say what one that comes back has missed.
                session.outbox = Outbox::default();
                session.compare.forget(now);
            }
            session.was_up = is_up;
        }
        if has_changed {
            let pause = (LINKS_PAUSE * self.lives.len() as u32).min(LONGEST_LINKS_PAUSE);
            let earliest = if has_lost { now } else { self.ours.links_told + pause };
            self.sign_at(earliest.max(now + LINKS_SETTLE));
        } else if now >= self.ours.links_measured {
            // All members together make one document a second of this. Chance keeps them apart, from the first time on: a
            // thousand that started together would else all tell in one moment.
            self.ours.links_measured = now + LINKS_MEASURED * (750 + self.chance.below(500) as u32) / 1000;
            if self.chance.below(self.lives.len()) < LINKS_MEASURED.as_secs() as usize {
                self.sign_at(now);
            }
        }
    }

    /// Looks at the graph: who is alive, and by which route.
    pub(super) fn look(&mut self, now: Duration) {
        (self.graph_due, self.graph_seen) = (None, now);
        let reach = graph::reach(&self.us, facts(&self.store));
        let (mut changed, mut has_moved, mut is_reunion) = (Vec::new(), false, false);
        for (key, life) in &mut self.lives {
            let reached = reach.get(key);
            let route = reached.and_then(|reach| reach.route);
            let is_alive = reached.is_some();
            if (is_alive, route) == (life.alive, life.route) {
                continue;
            }
            if is_alive != life.alive {
                has_moved = true;
                is_reunion |= is_alive && now.saturating_sub(life.since) > GRACE / 2;
                is_reunion |= is_alive && self.choice.forgotten.remove(key).is_some();
                life.since = now;
            }
            *life = Life { alive: is_alive, route, was_ever_alive: life.was_ever_alive || is_alive, ..*life };
            changed.push(*key);
        }
        changed.into_iter().for_each(|key| self.output(Output::Changed(key)));
        if is_reunion {
            // They may have forgotten us, and take only what is newer than what they forgot.
            self.ours.is_stale = true;
            self.sign_at(now);
        }
        if std::mem::take(&mut self.choice.are_names_due) {
            self.compare_names();
        }
        if has_moved {
            self.choose(now);
        }
    }

    /// Goes through the choice of neighbours, what is looked for and what is forgotten.
    pub(super) fn choose(&mut self, now: Duration) {
        self.choice.due = now + CHOOSE_EVERY;
        self.forget(now);
        let choice = &mut self.choice;
        choice.failing.retain(|_, until| *until > now);
        let alive = self.lives.iter().filter(|(key, life)| life.alive && !choice.failing.contains_key(key));
        let alive: Vec<PublicKey> = alive.map(|(key, _)| *key).collect();
        choice.chosen = ring::neighbours(&self.us, &alive);
        choice.missing.retain(|key, _| choice.chosen.contains(key));
        for key in &choice.chosen {
            if self.sessions.get(key).is_some_and(|session| session.was_up) {
                choice.missing.remove(key);
            } else if *choice.missing.entry(*key).or_insert(now) + FAILS_AFTER <= now {
                choice.failing.insert(*key, now + FAILS_FOR);
            }
        }
        self.choose_links(now);
        self.wish(now);
        let choice = &mut self.choice;
        let wanted = self.sessions.iter().filter(|(_, session)| session.pulse.is_wanted(now)).map(|(key, _)| key);
        let neighbours = choice.chosen.iter().chain(choice.wishes.keys()).chain(wanted).copied().collect();
        if choice.neighbours != neighbours {
            choice.neighbours = neighbours;
            self.output(Output::Neighbours);
        }
    }

    /// Which sessions are to be links.
    fn choose_links(&mut self, now: Duration) {
        let choice = &self.choice;
        let up =
            choice.chosen.iter().filter(|key| self.sessions.get(key).is_some_and(|session| session.was_up)).count();
        let is_enough = up >= ENOUGH.min(choice.chosen.len());
        let mut released = Vec::new();
        for (key, session) in &mut self.sessions {
            // One that is not alive, or not known, is worth a link whoever it is.
            let is_alive = self.lives.get(key).is_some_and(|life| life.alive);
            if choice.chosen.contains(key) || !is_alive {
                session.released = None;
                session.pulse.choose(now, true);
            } else if session.pulse.is_chosen() {
                let since = *session.released.get_or_insert(now);
                if is_enough && now >= since + LINGERS {
                    released.push(*key);
                }
            }
        }
        // Where the ring is whole it holds everything together. Else one at a time: two that go together may be all there is
        // between two halves.
        if up < choice.chosen.len() {
            let first = released.into_iter().find(|key| !graph::is_bridge(&self.us, key, facts(&self.store)));
            released = first.into_iter().collect();
        }
        for key in released {
            if let Some(session) = self.sessions.get_mut(&key) {
                session.released = None;
                session.pulse.choose(now, false);
            }
        }
    }

    /// Looks for some of those that are not alive.
    fn wish(&mut self, now: Duration) {
        let is_missed = |key: &PublicKey| match self.lives.get(key) {
            Some(life) => !life.alive,
            None => self.choice.contacts.contains(key),
        };
        let dead = self.lives.iter().filter(|(_, life)| !life.alive && now >= life.since + MISSED_AFTER);
        let dead = dead.map(|(key, _)| *key);
        let unknown = self.choice.contacts.iter().filter(|key| !self.lives.contains_key(key)).copied();
        let mut candidates: Vec<PublicKey> = dead.chain(unknown).collect();
        let mut wishes = self.choice.wishes.clone();
        wishes.retain(|key, until| is_missed(key) && *until > now);
        candidates.retain(|key| !wishes.contains_key(key));
        // Everyone looks, so that each does it seldom: one that comes back is found by a few, and not made a neighbour by all.
        let lookers = 1 + self.lives.values().filter(|life| life.alive).count();
        let first = self.chance.below(candidates.len());
        candidates.rotate_left(first);
        for key in candidates {
            if wishes.len() < WISHES && self.chance.below(lookers) < LOOKED_FOR {
                wishes.insert(key, now + WISH_LASTS);
            }
        }
        self.choice.wishes = wishes;
    }

    /// Forgets members that have been gone for long, and what was kept of those that were.
    fn forget(&mut self, now: Duration) {
        let gone = self.lives.iter().filter(|(_, life)| {
            let grace = if life.was_ever_alive { GRACE } else { GRACE_UNSEEN };
            !life.alive && now >= life.since + grace
        });
        let gone: Vec<PublicKey> = gone.map(|(key, _)| *key).collect();
        for key in gone {
            self.store.retire(&key);
            self.choice.forgotten.insert(key, now + RETIRED_LASTS);
            self.left(now, key);
        }
        let over = self.choice.forgotten.iter().filter(|(_, until)| **until <= now).map(|(key, _)| *key);
        for key in over.collect::<Vec<_>>() {
            self.choice.forgotten.remove(&key);
            self.store.unretire(&key);
        }
        self.store.forget_pending(|owner| self.fetches.contains(owner));
        self.origins.retain(|owner, _| self.lives.contains_key(owner) || self.fetches.contains(owner));
        self.choice.warned.retain(|(a, b, _)| [a, b].into_iter().all(|key| self.store.get(key).is_some()));
        let unix = self.unix(now);
        let has_expired = |expires: Option<Duration>| expires.is_some_and(|expires| expires <= unix);
        if self.store.replicas().any(|(_, replica)| has_expired(replica.standing.expires)) {
            let changed = self.store.rejudge(&self.policy, unix);
            changed.into_iter().filter(|(_, is_member)| !is_member).for_each(|(key, _)| self.left(now, key));
        }
    }

    /// Warns of members that have one name or one tunnel address.
    fn compare_names(&mut self) {
        let mut warnings = Vec::new();
        let (mut names, mut addresses) = (BTreeMap::new(), BTreeMap::new());
        for (key, replica) in self.store.replicas() {
            let (facts, standing) = (&replica.document.facts, &replica.standing);
            let name = standing.name.as_deref().unwrap_or(&facts.name);
            let address = standing.tunnel_address.unwrap_or(facts.tunnel_address);
            let same_name = names.insert(name, (*key, name)).filter(|_| !name.is_empty());
            let same_address = addresses.insert(address, (*key, name)).filter(|_| !address.is_unspecified());
            let both = |other: PublicKey, is_name| (*key, other, is_name);
            if let Some((other, _)) = same_name {
                let warning = format!("two members are called \"{name}\": {other} and {key}; give one another name");
                warnings.push((both(other, true), warning));
            }
            if let Some((other, other_name)) = same_address {
                let warning = format!(
                    "two members have the tunnel address {address}: \"{other_name}\" ({other}) and \"{name}\" ({key}); \
                     set tunnel_address in the file of one"
                );
                warnings.push((both(other, false), warning));
            }
        }
        for (pair, warning) in warnings {
            if self.choice.warned.len() < MAX_WARNED && self.choice.warned.insert(pair) {
                self.warn(warning);
            }
        }
    }
}

fn facts(store: &crate::mesh::store::Store) -> impl Iterator<Item = (&PublicKey, &Facts)> {
    store.replicas().map(|(key, replica)| (key, &replica.document.facts))
}
