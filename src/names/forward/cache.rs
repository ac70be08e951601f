//! Answers of resolvers, kept for as long as they are true and there is room.

use super::relay::Key;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

/// Answers that are kept.
const MAX_ANSWERS: usize = 4096;
/// Bytes of all of them: those of 4,096 answers of the usual size, a few times over.
const MAX_BYTES: usize = 4 << 20;
/// The longest one that is kept.
const MAX_BYTES_OF_ONE: usize = 16 << 10;

#[derive(Debug)]
struct Answer {
    bytes: Vec<u8>,
    since: Duration,
    /// Its place among those that end.
    end: (Duration, u64),
}

/// See the head of the file.
#[derive(Debug, Default)]
pub(super) struct Cache {
    answers: HashMap<Key, Answer>,
    ends: BTreeMap<(Duration, u64), Key>,
    bytes: usize,
    count: u64,
}

impl Cache {
    /// An answer that is true still, and its age.
    pub(super) fn get(&self, now: Duration, key: &Key) -> Option<(&[u8], Duration)> {
        let answer = self.answers.get(key).filter(|answer| now < answer.end.0)?;
        Some((&answer.bytes, now.saturating_sub(answer.since)))
    }

    /// Keeps an answer for some time. The one whose time is over first gives way.
    pub(super) fn put(&mut self, now: Duration, key: Key, bytes: Vec<u8>, lasts: Duration) {
        if lasts.is_zero() || bytes.len() > MAX_BYTES_OF_ONE {
            return;
        }
        self.remove(&key);
        self.bytes += bytes.len();
        self.count += 1;
        let end = (now + lasts, self.count);
        self.ends.insert(end, key.clone());
        self.answers.insert(key, Answer { bytes, since: now, end });
        while let Some((&(end, _), first)) = self.ends.first_key_value() {
            if end > now && self.answers.len() <= MAX_ANSWERS && self.bytes <= MAX_BYTES {
                break;
            }
            let first = first.clone();
            self.remove(&first);
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn remove(&mut self, key: &Key) {
        if let Some(answer) = self.answers.remove(key) {
            self.bytes -= answer.bytes.len();
            self.ends.remove(&answer.end);
        }
    }
}
