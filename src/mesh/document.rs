//! All that a member says of itself, as one document: a signed *head* and *pages* of records.
//!
//! ```text
//!  head   owner's key (32) | incarnation (8) | version (8) | pages (1) | hash of each page (16) | signature (64)
//!  page   records, see `facts`
//! ```
//!
//! The head names its pages by hash, so one signature stands for everything and a page needs none: it may come from anyone. A record
//! goes to the page that the hash of its name says; so a change touches one page, and the others, known by their hashes,
//! need not be sent again. The number of pages is a power of two and grows with what there is to say.
//!
//! **Which document is newer** is a total order: the higher version, and of two with one version (its owner signed both,
//! which it should not) the one with the larger hash. So any two members that have heard the same have kept the same,
//! whatever came in which order and how often. Versions are unix milliseconds when a member starts and go up by one with each change;
//! [`MAX_VERSION`] is far beyond any clock, so that nobody can be driven to the end of the numbers.
//!
//! [`Archive`] remembers what was checked, so that a head is verified once, whoever sends it how often. Members simulated in
//! one process share one, and with it the memory of their replicas.

use super::facts::{Facts, Record};
use crate::trust::sign::{self, SIGNATURE_LEN, Signer};
use crate::wire::Malformed;
use crate::wire::bytes::{Reader, Writer};
use crate::wire::key::PublicKey;
use blake2::digest::{Update, VariableOutput};
use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Pages of a document. With 450 bytes each they hold a thousand attachments, with [`MAX_PAGE`] what [`super::facts`] allows.
pub const MAX_PAGES: usize = 128;
/// What a page should not exceed. A change sends a page and the head, which has 16 bytes for each page: for a member with twenty
/// attachments this is about where the two together are smallest.
pub const PAGE_TARGET: usize = 450;
/// What no page exceeds: the largest record, a certificate, beside others that its hash puts there.
pub const MAX_PAGE: usize = 2048;
/// The highest version. Unix milliseconds come there in the year 10889; a clock that is beyond half of it is not believed.
pub const MAX_VERSION: u64 = (1 << 48) - 1;
/// Heads and documents that an archive remembers before it looks for those that nobody holds any more.
const ARCHIVE_SWEEP: usize = 1024;

const CONTEXT: &str = "weft document v1";

/// BLAKE2s with a digest of 16 bytes. Only a page's owner could find two with one hash, and it may say two things anyway.
pub type Hash = [u8; 16];

/// A page's bytes, shared by all documents that have it.
pub type Page = Arc<[u8]>;

/// The hash of some bytes.
pub fn hash(bytes: &[u8]) -> Hash {
    let mut digest = Hash::default();
    if let Ok(mut hash) = blake2::Blake2sVar::new(digest.len()) {
        hash.update(bytes);
        // The length is the one the hash was made with, so this cannot fail.
        let _ = hash.finalize_variable(&mut digest);
    }
    digest
}

/// The signed part of a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Who says it.
    pub owner: PublicKey,
    /// Which of its lives.
    pub incarnation: u64,
    /// How new it is.
    pub version: u64,
    /// The hashes of its pages.
    pub pages: Vec<Hash>,
    /// The hash of all of that.
    pub hash: Hash,
    /// As it travels.
    pub bytes: Box<[u8]>,
}

/// A complete document.
#[derive(Debug, PartialEq, Eq)]
pub struct Document {
    /// Its head.
    pub head: Arc<Head>,
    /// Its pages.
    pub pages: Box<[Page]>,
    /// What they say.
    pub facts: Facts,
    /// Records that were no good.
    pub skipped: usize,
}

impl Head {
    /// Reads a head, whoever signed it.
    ///
    /// # Errors
    /// It is none, or its version is beyond [`MAX_VERSION`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader(bytes);
        let (owner, incarnation, version) = (PublicKey(reader.array()?), reader.u64()?, reader.u64()?);
        let count = usize::from(reader.u8()?);
        if version > MAX_VERSION || !count.is_power_of_two() || count > MAX_PAGES {
            return Err(Malformed);
        }
        let pages = (0..count).map(|_| reader.array()).collect::<Result<_, _>>()?;
        reader.array::<SIGNATURE_LEN>()?;
        if !reader.is_empty() {
            return Err(Malformed);
        }
        let signed = &bytes[..bytes.len() - SIGNATURE_LEN];
        Ok(Self { owner, incarnation, version, pages, hash: hash(signed), bytes: bytes.into() })
    }

    /// Whether its owner signed it.
    pub fn verify(&self) -> bool {
        let Some((signed, signature)) = self.bytes.split_last_chunk() else { return false };
        sign::verify(&self.owner, CONTEXT, signed, signature)
    }

    /// Which of two heads of one owner is the newer one.
    pub fn age(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }

    /// What [`Head::age`] compares.
    pub fn rank(&self) -> (u64, Hash) {
        (self.version, self.hash)
    }
}

impl Document {
    /// Reads the pages that belong to a head; the caller has checked their hashes.
    pub fn new(head: Arc<Head>, pages: Vec<Page>) -> Self {
        let mut facts = Facts { incarnation: head.incarnation, ..Facts::default() };
        let skipped = pages.iter().map(|page| facts.absorb(page)).sum::<usize>() + facts.settle();
        Self { head, pages: pages.into(), facts, skipped }
    }

    /// Writes and signs a document. `pages` are those of [`paginate`].
    pub fn sign(signer: &Signer, incarnation: u64, version: u64, pages: Vec<Page>) -> Self {
        let mut head = Writer::default();
        head.bytes(&signer.public_key().0).u64(incarnation).u64(version);
        head.u8(u8::try_from(pages.len()).unwrap_or(u8::MAX));
        let hashes: Vec<Hash> = pages.iter().map(|page| hash(page)).collect();
        head.bytes(hashes.as_flattened());
        let signature = signer.sign(CONTEXT, &head.0);
        let hash = hash(&head.0);
        head.bytes(&signature);
        let owner = signer.public_key();
        let head = Head { owner, incarnation, version, pages: hashes, hash, bytes: head.0.into() };
        Self::new(Arc::new(head), pages)
    }

    /// Bytes that it keeps in memory, about.
    pub fn size(&self) -> usize {
        let facts: usize =
            self.facts.attachments.iter().map(|a| size_of_val(a) + a.name.len() + 17 * a.addresses.len()).sum();
        let facts = facts
            + 34 * self.facts.links.len()
            + 80 * self.facts.names.len()
            + 4 * self.facts.networks.len()
            + 32 * self.facts.endpoints.len();
        let certificate = self.facts.certificate.as_ref().map_or(0, Vec::len);
        let pages: usize = self.pages.iter().map(|page| page.len() + 32).sum();
        pages + 2 * self.head.bytes.len() + facts + certificate + size_of::<Self>()
    }
}

/// Puts records into pages, as many as `before` where that still fits well. Also returns how many records found no room.
pub fn paginate(records: &[Record], before: usize) -> (Vec<Page>, usize) {
    let total: usize = records.iter().map(|record| record.bytes.len()).sum();
    let mut count = before.clamp(1, MAX_PAGES).next_power_of_two();
    // Half as many would be filled to less than a half on average: so a count is left only for good.
    while count > 1 && total / (count / 2) < PAGE_TARGET / 2 {
        count /= 2;
    }
    loop {
        let mut pages: Vec<Vec<&Record>> = vec![Vec::new(); count];
        for record in records {
            let [first, ..] = hash(&record.name);
            pages[usize::from(first) % count].push(record);
        }
        let size = |page: &Vec<&Record>| page.iter().map(|record| record.bytes.len()).sum::<usize>();
        if count < MAX_PAGES && pages.iter().any(|page| page.len() > 1 && size(page) > PAGE_TARGET) {
            count *= 2;
            continue;
        }
        let mut left_out = 0;
        let pages = pages.iter_mut().map(|page| {
            page.sort_by(|a, b| a.name.cmp(&b.name));
            let mut bytes = Vec::new();
            for record in page {
                if bytes.len() + record.bytes.len() <= MAX_PAGE {
                    bytes.extend_from_slice(&record.bytes);
                } else {
                    left_out += 1;
                }
            }
            bytes.into()
        });
        return (pages.collect(), left_out);
    }
}

/// What was checked, and may be found again. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Archive(Arc<Mutex<Shelves>>);

#[derive(Debug, Default)]
struct Shelves {
    heads: HashMap<Hash, Weak<Head>>,
    documents: HashMap<Hash, Weak<Document>>,
    verified: u64,
}

impl Archive {
    /// Signatures that had to be verified so far.
    pub fn verified(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).verified
    }

    /// The head that was parsed, if its owner signed it.
    pub fn head(&self, head: Head) -> Option<Arc<Head>> {
        let mut shelves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // The signature counts too: one that was forged says nothing about another with the same content.
        let key = hash(&head.bytes);
        if let Some(known) = shelves.heads.get(&key).and_then(Weak::upgrade) {
            return Some(known);
        }
        shelves.verified += 1;
        if !head.verify() {
            return None;
        }
        let head = Arc::new(head);
        sweep(&mut shelves.heads);
        shelves.heads.insert(key, Arc::downgrade(&head));
        Some(head)
    }

    /// The document of this head and these pages.
    pub fn document(&self, head: &Arc<Head>, pages: Vec<Page>) -> Arc<Document> {
        let mut shelves = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = shelves.documents.get(&head.hash).and_then(Weak::upgrade) {
            return known;
        }
        let document = Arc::new(Document::new(head.clone(), pages));
        sweep(&mut shelves.documents);
        shelves.documents.insert(head.hash, Arc::downgrade(&document));
        document
    }
}

/// Before the table would grow, what nobody holds any more is thrown out; so it stays within twice what is held.
fn sweep<T>(shelf: &mut HashMap<Hash, Weak<T>>) {
    if shelf.len() >= ARCHIVE_SWEEP && shelf.len() == shelf.capacity() {
        shelf.retain(|_, held| held.strong_count() > 0);
        if shelf.len() > shelf.capacity() / 2 {
            shelf.reserve(shelf.capacity());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::mesh::facts::{Attachment, Name, Named, records};
    use crate::wire::ethernet::Mac;
    use crate::wire::key::Secret;

    fn with_attachments(count: u16) -> Facts {
        let mut facts = Facts { name: "alpha".to_owned(), ..Facts::default() };
        for n in 0..count {
            let [a, b] = n.to_be_bytes();
            let addresses = vec![[10, 0, a, b].into()];
            let name = format!("container-{n}");
            facts.attachments.push(Attachment { vni: 7, mac: Mac([2, 0, 0, 0, a, b]), addresses, sequence: 0, name });
        }
        facts
    }

    fn signer(n: u8) -> Signer {
        Signer::new(&Secret::private([n; 32]))
    }

    #[test]
    fn a_change_touches_one_page() {
        let mut facts = with_attachments(200);
        let (before, _) = paginate(&records(&facts), 1);
        assert!(before.len() >= 8 && before.iter().all(|page| page.len() <= PAGE_TARGET), "{}", before.len());
        facts.attachments[77].sequence = 1;
        let (after, _) = paginate(&records(&facts), before.len());
        assert_eq!(before.iter().zip(&after).filter(|(a, b)| a != b).count(), 1);
        facts.attachments.truncate(10);
        assert!(paginate(&records(&facts), after.len()).0.len() <= 4, "it shrinks again");
        let (pages, left_out) = paginate(&records(&with_attachments(1024)), 1);
        assert_eq!(left_out, 0);
        let document = Document::sign(&signer(1), 5, 9, pages);
        assert_eq!(document.facts, Facts { incarnation: 5, ..with_attachments(1024) });
        let mut all = with_attachments(1024);
        all.names = (0..2048)
            .map(|n| Name { vni: 7, name: format!("alias-{n}"), of: Named::Attachment(Mac([2; 6])) })
            .collect();
        assert_eq!((all.tidy(), paginate(&records(&all), 1).1), (None, 0), "every attachment with two names fits");
    }

    #[test]
    fn a_head_is_its_owners_or_nothing() {
        let (pages, _) = paginate(&records(&with_attachments(40)), 1);
        let document = Document::sign(&signer(1), 5, 9, pages);
        let archive = Archive::default();
        let head = Head::parse(&document.head.bytes).unwrap();
        assert_eq!(&head, &*document.head);
        let kept = archive.head(head.clone()).unwrap();
        assert!(archive.head(head).is_some());
        assert_eq!(archive.verified(), 1, "verified once");
        drop(kept);
        for at in 0..document.head.bytes.len() {
            let mut bytes = document.head.bytes.to_vec();
            bytes[at] ^= 4;
            assert!(Head::parse(&bytes).ok().and_then(|head| archive.head(head)).is_none(), "byte {at}");
            assert!(Head::parse(&document.head.bytes[..at]).is_err());
        }
        let absurd = Document::sign(&signer(1), 5, MAX_VERSION + 1, document.pages.to_vec());
        assert!(Head::parse(&absurd.head.bytes).is_err());
    }

    #[test]
    fn an_archive_forgets_what_nobody_holds() {
        let archive = Archive::default();
        for version in 0..3000 {
            let document = Document::sign(&signer(1), 0, version, vec![[].into()]);
            archive.document(&document.head, vec![[].into()]);
        }
        assert!(archive.0.lock().unwrap().documents.capacity() < 4000);
    }
}
