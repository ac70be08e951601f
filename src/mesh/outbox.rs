//! What one neighbour is to be told of documents: pushes until they are heard, what was heard from it, and news.
//!
//! A push is a head with the pages that came with it. It is repeated until the neighbour says that it heard the head, soon at first, since a
//! link may lose a third of everything and a container that moved is waited for; a page that was lost on the way is then asked for by the
//! neighbour itself. After [`MOST_TRIES`] it is given up: the digests will tell.

use super::document::Document;
use super::gossip::{Entry, FULL, Heard, Message, Part};
use super::store::{Replica, Store};
use crate::wire::key::PublicKey;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How often a push is repeated: for seven seconds, in which the link is noticed to be dead.
const MOST_TRIES: u32 = 14;
/// Pushes that are repeated without a longer pause each time.
const QUICK_TRIES: u32 = 8;
/// How long to wait beyond a round trip for the answer to a push.
const ANSWER_TAKES: Duration = Duration::from_millis(40);
/// The longest pause between two.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// What was heard is collected for so long, to be told in one message.
const HEARD_WAITS: Duration = Duration::from_millis(5);
/// What is forwarded is collected for so long; with what is heard in the meantime it makes fewer messages.
pub const FORWARD_WAITS: Duration = Duration::from_millis(5);
/// Messages of pushes at one moment, and the pause until there may be more: 3 MB/s.
const BURST: usize = 32;
const BURST_PAUSE: Duration = Duration::from_millis(10);
/// News in one heartbeat. What is beyond it shows in the digests.
pub const MOST_NEWS: usize = 24;

/// See the head of this file.
#[derive(Debug, Default)]
pub struct Outbox {
    pushes: BTreeMap<PublicKey, Push>,
    /// The same in the order in which they are due: while a mesh comes together there are as many as members.
    queue: BTreeSet<(Duration, PublicKey)>,
    /// No push goes before this: see [`BURST_PAUSE`].
    paused: Duration,
    heard: Vec<Heard>,
    heard_due: Option<Duration>,
    news: BTreeMap<PublicKey, u64>,
}

#[derive(Debug)]
struct Push {
    /// The version that the neighbour has, as far as we know: pages that came later go with the head.
    above: u64,
    due: Duration,
    tries: u32,
}

impl Outbox {
    /// Tells the neighbour of an owner's document at the time `due`; it has version `above` of it.
    pub fn push(&mut self, due: Duration, owner: PublicKey, above: u64) {
        let push = self.pushes.entry(owner).or_insert(Push { above, due, tries: 0 });
        self.queue.remove(&(push.due, owner));
        *push = Push { above: push.above.min(above), due: push.due.min(due), tries: 0 };
        self.queue.insert((push.due, owner));
    }

    /// The same, where the neighbour showed that it has only version `above`: what is on its way to it already is not sent again.
    pub fn push_unless_sent(&mut self, due: Duration, owner: PublicKey, above: u64) {
        match self.pushes.get_mut(&owner).filter(|push| push.tries > 0) {
            Some(push) => push.above = push.above.min(above),
            None => self.push(due, owner, above),
        }
    }

    /// Lets the next heartbeat name a document.
    pub fn announce(&mut self, owner: PublicKey, version: u64) {
        if self.news.len() < MOST_NEWS {
            self.news.insert(owner, version);
        }
    }

    /// The neighbour has this version, or said so: no need to tell it.
    pub fn is_known(&mut self, owner: &PublicKey, version: u64, newest: u64) {
        if version >= newest {
            if let Some(push) = self.pushes.remove(owner) {
                self.queue.remove(&(push.due, *owner));
            }
            self.news.remove(owner);
        }
    }

    /// A head came from the neighbour, which wants to know.
    pub fn acknowledge(&mut self, now: Duration, heard: Heard) {
        self.heard.push(heard);
        self.heard_due.get_or_insert(now + HEARD_WAITS);
    }

    /// What the next heartbeat names.
    pub fn take_news(&mut self) -> Vec<Entry> {
        std::mem::take(&mut self.news).into_iter().collect()
    }

    /// When there is something to send.
    pub fn next_deadline(&self) -> Option<Duration> {
        [self.pushes_due(), self.heard_due].into_iter().flatten().min()
    }

    /// The payloads that are due.
    pub fn poll(&mut self, now: Duration, round_trip: Option<Duration>, store: &Store) -> Vec<Vec<u8>> {
        let mut messages = Vec::new();
        if self.heard_due.is_some_and(|due| due <= now) {
            self.heard_due = None;
            // An owner and a version are 41 bytes.
            messages.extend(
                std::mem::take(&mut self.heard).chunks(FULL / 41).map(|some| Message::Heard(some.to_vec()).write()),
            );
        }
        if self.pushes_due().is_none_or(|due| now < due) {
            return messages;
        }
        let mut packer = Packer::new(true);
        let wait = (round_trip.unwrap_or(Duration::from_millis(100)) * 3 / 2 + ANSWER_TAKES).min(LONGEST_PAUSE);
        while let Some((due, owner)) = self.queue.first().copied().filter(|(due, _)| *due <= now) {
            if packer.messages.len() >= BURST {
                self.paused = now + BURST_PAUSE;
                break;
            }
            self.queue.remove(&(due, owner));
            let Some(push) = self.pushes.get_mut(&owner) else { continue };
            let Some(replica) = store.get(&owner).filter(|_| push.tries < MOST_TRIES) else {
                self.pushes.remove(&owner);
                continue;
            };
            packer.add(replica, push.above);
            push.tries += 1;
            let pause = wait * 2u32.pow(push.tries.saturating_sub(QUICK_TRIES).min(5));
            push.due = now + pause.min(LONGEST_PAUSE.max(wait));
            self.queue.insert((push.due, owner));
        }
        messages.extend(packer.finish());
        messages
    }
}

impl Outbox {
    fn pushes_due(&self) -> Option<Duration> {
        self.queue.first().map(|(due, _)| self.paused.max(*due))
    }
}

/// Puts heads and pages into as few messages as there must be.
pub struct Packer<'a> {
    is_pushed: bool,
    messages: Vec<Vec<u8>>,
    parts: Vec<Part<'a>>,
    length: usize,
    named: Option<PublicKey>,
}

impl<'a> Packer<'a> {
    /// Begins the first message.
    pub fn new(is_pushed: bool) -> Self {
        Self { is_pushed, messages: Vec::new(), parts: Vec::new(), length: 5, named: None }
    }

    /// A head and the pages that came after version `above`.
    pub fn add(&mut self, replica: &'a Replica, above: u64) {
        let document = &replica.document;
        let pages = document.pages.iter().zip(&replica.since).filter(|(_, since)| **since > above);
        let pages: Vec<&'a [u8]> = pages.map(|(page, _)| &**page).collect();
        self.make_room(document.head.bytes.len() + 3 + pages.iter().map(|page| page.len() + 3).sum::<usize>());
        self.part(Part::Head(&document.head.bytes), document.head.bytes.len());
        self.named = Some(document.head.owner);
        pages.into_iter().for_each(|page| self.page(document.head.owner, page));
    }

    /// The pages in a mask.
    pub fn add_pages(&mut self, document: &'a Document, mask: u128) {
        for (n, page) in document.pages.iter().enumerate() {
            if mask >> n & 1 == 1 {
                self.page(document.head.owner, page);
            }
        }
    }

    /// All the messages.
    pub fn finish(mut self) -> Vec<Vec<u8>> {
        self.flush();
        self.messages
    }

    fn page(&mut self, owner: PublicKey, page: &'a [u8]) {
        self.make_room(page.len() + 3);
        if self.named != Some(owner) {
            self.part(Part::Owner(owner), 32);
            self.named = Some(owner);
        }
        self.part(Part::Page(page), page.len());
    }

    fn part(&mut self, part: Part<'a>, length: usize) {
        self.length += length + 3;
        self.parts.push(part);
    }

    fn make_room(&mut self, length: usize) {
        if self.length + length > FULL {
            self.flush();
        }
    }

    fn flush(&mut self) {
        let parts = std::mem::take(&mut self.parts);
        if !parts.is_empty() {
            self.messages.push(Message::Documents { is_pushed: self.is_pushed, parts }.write());
        }
        (self.length, self.named) = (5, None);
    }
}
