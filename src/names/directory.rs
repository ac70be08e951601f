//! Who is called what: the names of all members that are there, by network, to be looked up by name or by address.
//!
//! ```text
//!   control (one thread)                                     the workers, if the lock is free; the service thread
//!   set_member(key, all its names) ─► difference ─► book ──► lookups, under a read lock
//! ```
//!
//! Control says what a member's names are whenever it hears of the member; only the difference to what was known is
//! applied, a few entries at a time, so that a member with thousands of names does not hold up an answer. A member that is gone
//! has none.
//!
//! A name is in lower case, without its network's domain: `web`, or `api.web`. A name that is only the end of others
//! (`web`, where there is `api.web`) exists too, with nothing of its own (RFC 4592 §2.2.2).

use super::forward::Counters;
use super::zone::Settings;
use crate::wire::key::PublicKey;
use crate::wire::service::Service;
use arc_swap::ArcSwap;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, RwLock, TryLockError};

/// Addresses and services of all names that are known: those of 100,000 names with two addresses each, and some more. It takes
/// some 50 MiB, and only members that we trust can fill it. What is beyond is not known here, which is counted.
pub const MAX_ROWS: usize = 1 << 18;
/// Changes that are applied without letting a question in between: some 50 µs.
const AT_ONCE: usize = 64;

/// How a name came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A port has it.
    Attachment,
    /// A person added it.
    Added,
}

/// A name as its member says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The network.
    pub vni: u32,
    /// The name, in lower case, below the network's domain.
    pub name: &'a str,
    /// How it came to be.
    pub kind: Kind,
    /// Its addresses.
    pub addresses: &'a [IpAddr],
    /// What it offers.
    pub services: &'a [Service],
}

impl Entry<'_> {
    fn key(&self) -> (u32, &str, Kind) {
        (self.vni, self.name, self.kind)
    }

    fn rows(&self) -> usize {
        1 + self.addresses.len() + self.services.len()
    }
}

/// The same, kept.
#[derive(Debug)]
struct Kept {
    vni: u32,
    name: Arc<str>,
    kind: Kind,
    addresses: Box<[IpAddr]>,
    services: Box<[Service]>,
}

impl Kept {
    fn entry(&self) -> Entry<'_> {
        let Self { vni, name, kind, addresses, services } = self;
        Entry { vni: *vni, name, kind: *kind, addresses, services }
    }
}

/// What members say, to be compared with what they say next. By member, with how much of it was too much.
#[derive(Debug, Default)]
struct Said {
    members: HashMap<PublicKey, (Vec<Arc<Kept>>, usize)>,
    rows: usize,
}

/// The names of one network.
#[derive(Debug, Default)]
pub(super) struct Book {
    names: HashMap<Arc<str>, Node>,
    addresses: HashMap<IpAddr, Vec<Arc<str>>>,
}

/// A name, or the end of one.
#[derive(Debug, Default)]
pub(super) struct Node {
    /// Its addresses, ascending, each as often as somebody says it, and whether they are on this host.
    pub(super) instances: Vec<(IpAddr, bool)>,
    /// What is offered under it, likewise.
    pub(super) services: Vec<Service>,
    /// How often it is a name of its own.
    entries: u32,
    /// How often it is the end of a longer one.
    longer: u32,
}

impl Node {
    /// Whether it is more than the end of another.
    pub(super) fn is_name(&self) -> bool {
        self.entries > 0
    }
}

/// The names of all networks. Shared: control writes, whoever answers questions reads.
#[derive(Debug, Default)]
pub struct Directory {
    books: RwLock<HashMap<u32, Book>>,
    said: Mutex<Said>,
    settings: ArcSwap<Settings>,
    version: AtomicU32,
    forwarded: Mutex<Counters>,
}

impl Directory {
    /// What the file says.
    pub fn settings(&self) -> Arc<Settings> {
        self.settings.load_full()
    }

    /// The file says this from now on.
    pub fn set_settings(&self, settings: Settings) {
        self.settings.store(Arc::new(settings));
        self.version.fetch_add(1, Relaxed);
    }

    /// A number that goes up with each change, and around.
    pub fn version(&self) -> u32 {
        self.version.load(Relaxed)
    }

    /// What became of questions for other names, as whoever asks resolvers has told last.
    pub fn forwarded(&self) -> Counters {
        *self.forwarded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// See [`Directory::forwarded`].
    pub fn set_forwarded(&self, counters: Counters) {
        *self.forwarded.lock().unwrap_or_else(PoisonError::into_inner) = counters;
    }

    /// A member has these names and no others; none when it is gone. `is_local` if it is this host. Of entries with one name,
    /// network and kind one counts.
    pub fn set_member<'a>(&self, member: PublicKey, is_local: bool, entries: impl IntoIterator<Item = Entry<'a>>) {
        let mut wanted: Vec<Entry<'a>> = entries.into_iter().collect();
        wanted.sort_unstable_by(|a, b| a.key().cmp(&b.key()));
        wanted.dedup_by(|a, b| a.key() == b.key());
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let Said { members, rows } = &mut *said;
        let (before, refused) = members.remove(&member).unwrap_or_default();
        if refused == 0 && before.len() == wanted.len() && before.iter().zip(&wanted).all(|(a, b)| a.entry() == *b) {
            if !before.is_empty() {
                members.insert(member, (before, 0));
            }
            return;
        }
        let (mut after, mut gone) = (Vec::with_capacity(wanted.len()), Vec::new());
        let mut fresh = wanted.into_iter().peekable();
        let mut missing = Vec::new();
        for kept in before {
            let is_before = |entry: &Entry<'_>| entry.key() < kept.entry().key();
            while let Some(entry) = fresh.next_if(is_before) {
                missing.push(entry);
            }
            match fresh.next_if(|entry| entry.key() == kept.entry().key()) {
                Some(entry) if entry == kept.entry() => after.push(kept),
                other => {
                    missing.extend(other);
                    *rows -= kept.entry().rows();
                    gone.push(kept);
                }
            }
        }
        missing.extend(fresh);
        let (mut refused, mut come) = (0, Vec::with_capacity(missing.len()));
        for entry in missing {
            if *rows + entry.rows() > MAX_ROWS {
                refused += 1;
                continue;
            }
            *rows += entry.rows();
            let Entry { vni, name, kind, addresses, services } = entry;
            let (addresses, services) = (addresses.into(), services.into());
            come.push(Arc::new(Kept { vni, name: name.into(), kind, addresses, services }));
        }
        // What comes is there before what it takes the place of goes.
        for some in come.chunks(AT_ONCE) {
            let mut books = self.books.write().unwrap_or_else(PoisonError::into_inner);
            some.iter().for_each(|kept| books.entry(kept.vni).or_default().add(kept, is_local));
        }
        for some in gone.chunks(AT_ONCE) {
            let mut books = self.books.write().unwrap_or_else(PoisonError::into_inner);
            for kept in some {
                if books.get_mut(&kept.vni).is_some_and(|book| book.remove(kept, is_local)) {
                    books.remove(&kept.vni);
                }
            }
        }
        after.extend(come);
        after.sort_unstable_by(|a, b| a.entry().key().cmp(&b.entry().key()));
        if !after.is_empty() || refused > 0 {
            members.insert(member, (after, refused));
        }
        self.version.fetch_add(1, Relaxed);
    }

    /// How many names are not known here because there are too many.
    pub fn refused(&self) -> usize {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.members.values().map(|(_, refused)| refused).sum()
    }

    /// The addresses of a name in a network, those on this host marked; `None` if there is no such name.
    pub fn addresses_of(&self, vni: u32, name: &str) -> Option<Vec<(IpAddr, bool)>> {
        self.in_network(vni, |book| {
            let node = book?.name(name).filter(|node| node.is_name())?;
            let mut addresses = node.instances.clone();
            addresses.sort_unstable_by_key(|&(address, is_local)| (address, !is_local));
            addresses.dedup_by_key(|(address, _)| *address);
            Some(addresses)
        })
    }

    /// Looks something up in a network, if it has names.
    pub(super) fn in_network<T>(&self, vni: u32, look: impl FnOnce(Option<&Book>) -> T) -> T {
        look(self.books.read().unwrap_or_else(PoisonError::into_inner).get(&vni))
    }

    /// The same, unless names are being changed at this moment.
    pub(super) fn try_in_network<T>(&self, vni: u32, look: impl FnOnce(Option<&Book>) -> T) -> Option<T> {
        match self.books.try_read() {
            Ok(books) => Some(look(books.get(&vni))),
            Err(TryLockError::Poisoned(poisoned)) => Some(look(poisoned.into_inner().get(&vni))),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

impl Book {
    /// What is known of a name in lower case.
    pub(super) fn name(&self, name: &str) -> Option<&Node> {
        self.names.get(name)
    }

    /// The names of an address, each as often as somebody says so.
    pub(super) fn names_of(&self, address: IpAddr) -> &[Arc<str>] {
        self.addresses.get(&address).map_or(&[], Vec::as_slice)
    }

    fn add(&mut self, kept: &Kept, is_local: bool) {
        let node = self.names.entry(kept.name.clone()).or_default();
        node.entries += 1;
        kept.addresses.iter().for_each(|&address| put(&mut node.instances, (address, is_local)));
        kept.services.iter().for_each(|service| put(&mut node.services, service.clone()));
        for end in ends(&kept.name) {
            match self.names.get_mut(end) {
                Some(node) => node.longer += 1,
                None => {
                    self.names.insert(end.into(), Node { longer: 1, ..Node::default() });
                }
            }
        }
        for address in &kept.addresses {
            put(self.addresses.entry(*address).or_default(), kept.name.clone());
        }
    }

    /// Undoes [`Book::add`]. Whether nothing is left.
    fn remove(&mut self, kept: &Kept, is_local: bool) -> bool {
        if let Some(node) = self.names.get_mut(&kept.name) {
            node.entries = node.entries.saturating_sub(1);
            for address in &kept.addresses {
                take(&mut node.instances, &(*address, is_local));
            }
            for service in &kept.services {
                take(&mut node.services, service);
            }
        }
        for end in ends(&kept.name) {
            if let Some(node) = self.names.get_mut(end) {
                node.longer = node.longer.saturating_sub(1);
            }
        }
        for name in std::iter::once(&*kept.name).chain(ends(&kept.name)) {
            if self.names.get(name).is_some_and(|node| node.entries == 0 && node.longer == 0) {
                self.names.remove(name);
            }
        }
        for address in &kept.addresses {
            if let Some(names) = self.addresses.get_mut(address) {
                take(names, &kept.name);
                if names.is_empty() {
                    self.addresses.remove(address);
                }
            }
        }
        self.names.is_empty()
    }
}

/// The names that a name ends in: of `a.b.c`, `b.c` and `c`.
fn ends(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices('.').map(|(at, _)| &name[at + 1..])
}

/// Puts one more into an ascending list. Most have one or two; a name of thousands of containers is still moved in a microsecond.
fn put<T: Ord>(list: &mut Vec<T>, item: T) {
    list.insert(list.partition_point(|known| *known < item), item);
}

/// Takes one out of an ascending list.
fn take<T: Ord>(list: &mut Vec<T>, item: &T) {
    if let Ok(at) = list.binary_search(item) {
        list.remove(at);
    }
}

#[cfg(test)]
mod tests;
