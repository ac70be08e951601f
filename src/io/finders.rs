//! Two threads that look for what may take long to find: the targets of waiting ports, and the addresses behind names.
//!
//! Each is given a list that replaces the one before ([`Latest`]), looks through it again and again, and reports what
//! is news. With each fresh list everything is news: control may have forgotten meanwhile what it was told.

use super::ports::{self, Located, PortError};
use crate::config::Target;
use crate::control::Lookup;
use crate::control::docker::Heard;
use crate::control::ports::Missing;
use crossbeam::channel::Sender;
use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often a waiting port's target is looked for, and the list of names is looked through.
const SEEK_INTERVAL: Duration = Duration::from_secs(1);
/// How often a name that resolved is asked for again: most dynamic DNS has a TTL of a minute.
const RESOLVE_INTERVAL: Duration = Duration::from_secs(60);
/// How soon a name is asked for again that did not resolve, or whose peer does not answer where the name led: as often
/// as WireGuard tries a handshake.
const RESOLVE_RETRY: Duration = Duration::from_secs(5);
/// Addresses taken of one name.
const MAX_ADDRESSES: usize = 8;

/// What a finder found.
pub enum Found {
    /// The namespace of the waiting port with this name, or why there is none yet.
    Place(String, Result<Located, Missing>),
    /// The addresses of a name and port.
    Addresses((String, u16), Vec<SocketAddr>),
    /// Whether each of these instances answers.
    Health(Vec<(SocketAddr, bool)>),
    /// What Docker says of its containers and networks.
    Docker(Heard),
}

/// A target to be looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sought {
    /// The waiting port's name.
    pub port: String,
    /// The target.
    pub target: Target,
    /// The engine that had the container: when it has none of that name any more, the container was removed. An engine that
    /// does not answer removed nothing.
    pub engine: Option<String>,
}

/// Where the newest value waits for one thread; it takes the place of an older one that was not taken yet.
pub struct Latest<T>(Arc<(Mutex<Option<T>>, Condvar)>);

impl<T> Clone for Latest<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Default for Latest<T> {
    fn default() -> Self {
        Self(Arc::new((Mutex::new(None), Condvar::new())))
    }
}

impl<T> Latest<T> {
    /// Leaves a value. Never waits.
    pub fn put(&self, value: T) {
        let (slot, filled) = &*self.0;
        *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
        filled.notify_one();
    }

    /// Takes the value, waiting for one as long as `patience` lasts; without one, for ever.
    pub(super) fn take(&self, patience: Option<Duration>) -> Option<T> {
        let (slot, filled) = &*self.0;
        let slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        let empty = |slot: &mut Option<T>| slot.is_none();
        let mut slot = match patience {
            None => filled.wait_while(slot, empty).unwrap_or_else(PoisonError::into_inner),
            Some(limit) => filled.wait_timeout_while(slot, limit, empty).unwrap_or_else(PoisonError::into_inner).0,
        };
        slot.take()
    }
}

/// Starts the thread that looks for targets; returns where to put the list of them.
///
/// # Errors
/// The kernel refused a thread.
pub fn seek_targets(found: Sender<Found>, sockets: Vec<PathBuf>) -> io::Result<Latest<Vec<Sought>>> {
    let lists = Latest::<Vec<Sought>>::default();
    let incoming = lists.clone();
    let run = move || {
        let mut list = Vec::new();
        let mut told: HashMap<String, Missing> = HashMap::new();
        loop {
            if next_list(&incoming, &mut list) {
                told.clear();
            }
            for Sought { port: name, target, engine } in &list {
                let place = ports::locate(target, &sockets).map_err(|error| Missing {
                    removed: matches!((&error, engine), (PortError::Container(error), Some(engine)) if error.is_unknown_to(engine)),
                    reason: error.to_string(),
                });
                // The same reason again is no news; a place is, until control has taken it.
                match &place {
                    Err(missing) if told.insert(name.clone(), missing.clone()).as_ref() == Some(missing) => continue,
                    Err(_) => {}
                    Ok(_) => drop(told.remove(name)),
                }
                if found.send(Found::Place(name.clone(), place)).is_err() {
                    return;
                }
            }
        }
    };
    std::thread::Builder::new().name("weft-seek".to_owned()).spawn(run)?;
    Ok(lists)
}

/// What is known of a name.
struct Known {
    asked: Instant,
    failed: bool,
    addresses: Vec<SocketAddr>,
    told: bool,
}

/// Starts the thread that resolves names; returns where to put the list of names and ports.
///
/// # Errors
/// The kernel refused a thread.
pub fn resolve_names(found: Sender<Found>) -> io::Result<Latest<Vec<Lookup>>> {
    let lists = Latest::default();
    let incoming = lists.clone();
    let run = move || {
        let mut list: Vec<Lookup> = Vec::new();
        let mut known: HashMap<(String, u16), Known> = HashMap::new();
        loop {
            if next_list(&incoming, &mut list) {
                known.retain(|name, _| list.iter().any(|lookup| lookup.name == *name));
                known.values_mut().for_each(|known| known.told = false);
            }
            for lookup in &list {
                let before = known.remove(&lookup.name);
                let mut now = match before {
                    Some(known) if known.asked.elapsed() < interval(lookup, &known) => known,
                    before => ask(lookup, before),
                };
                let news = !std::mem::replace(&mut now.told, true) && !now.addresses.is_empty();
                let addresses = now.addresses.clone();
                known.insert(lookup.name.clone(), now);
                if news && found.send(Found::Addresses(lookup.name.clone(), addresses)).is_err() {
                    return;
                }
            }
        }
    };
    std::thread::Builder::new().name("weft-resolve".to_owned()).spawn(run)?;
    Ok(lists)
}

fn interval(lookup: &Lookup, known: &Known) -> Duration {
    if lookup.pressing || known.failed { RESOLVE_RETRY } else { RESOLVE_INTERVAL }
}

/// Asks the system's resolver. A name that does not resolve any more keeps the addresses it had.
fn ask(lookup: &Lookup, before: Option<Known>) -> Known {
    let (name, port) = &lookup.name;
    let answer = (name.as_str(), *port).to_socket_addrs();
    let before =
        before.unwrap_or_else(|| Known { asked: Instant::now(), failed: false, addresses: Vec::new(), told: true });
    let (failed, addresses) = match answer {
        Ok(addresses) => {
            let mut addresses: Vec<_> = addresses.take(MAX_ADDRESSES).collect();
            addresses.sort();
            addresses.dedup();
            (false, addresses)
        }
        Err(error) => {
            if !before.failed {
                tracing::warn!("cannot resolve {name}: {error}");
            }
            (true, before.addresses.clone())
        }
    };
    let told = before.told && addresses == before.addresses;
    Known { asked: Instant::now(), failed, addresses, told }
}

/// Takes over a fresh list, or lets a moment pass; with nothing to do, waits for a list. Says whether there was one.
fn next_list<T>(incoming: &Latest<Vec<T>>, list: &mut Vec<T>) -> bool {
    let patience = (!list.is_empty()).then_some(SEEK_INTERVAL);
    incoming.take(patience).map(|next| *list = next).is_some()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crossbeam::channel::unbounded;

    #[test]
    fn the_newest_value_takes_the_place_of_the_older_ones() {
        let latest = Latest::default();
        assert_eq!(latest.take(Some(Duration::ZERO)), None);
        (0..100).for_each(|n| latest.put(n));
        assert_eq!(latest.take(None), Some(99));
        let putter = latest.clone();
        let thread = std::thread::spawn(move || putter.put(7));
        assert_eq!(latest.take(None), Some(7));
        thread.join().unwrap();
    }

    #[test]
    fn every_fresh_list_is_answered_though_nothing_changed() {
        let (sender, found) = unbounded();
        let lists = seek_targets(sender, Vec::new()).unwrap();
        let list = vec![Sought { port: "p".to_owned(), target: Target::Netns("/no/such".into()), engine: None }];
        for _ in 0..2 {
            lists.put(list.clone());
            match found.recv_timeout(Duration::from_secs(20)).unwrap() {
                Found::Place(name, Err(Missing { reason, removed: false })) => {
                    assert!(name == "p" && reason.contains("/no/such"), "{reason}");
                }
                _ => panic!("found a place that is not there"),
            }
        }
        let (sender, found) = unbounded();
        let lists = resolve_names(sender).unwrap();
        let lookup = |pressing| Lookup { name: ("127.0.0.7".to_owned(), 5), pressing };
        for pressing in [false, true] {
            lists.put(vec![lookup(pressing)]);
            match found.recv_timeout(Duration::from_secs(20)).unwrap() {
                Found::Addresses(name, addresses) => {
                    assert_eq!((name, addresses), (lookup(false).name, vec!["127.0.0.7:5".parse().unwrap()]));
                }
                _ => panic!("nobody asked"),
            }
        }
    }

    #[test]
    fn a_name_is_asked_for_sooner_where_it_matters() {
        let known = |failed| Known { asked: Instant::now(), failed, addresses: Vec::new(), told: true };
        let lookup = |pressing| Lookup { name: ("x".to_owned(), 1), pressing };
        assert_eq!(interval(&lookup(false), &known(false)), RESOLVE_INTERVAL);
        assert_eq!(interval(&lookup(true), &known(false)), RESOLVE_RETRY);
        assert_eq!(interval(&lookup(false), &known(true)), RESOLVE_RETRY);
    }
}
