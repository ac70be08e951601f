//! The replay window: which counters of a session were seen (RFC 6479).
//!
//! A ring of words, one bit per counter. The highest counter seen stands in the newest word; moving ahead clears the words
//! that come into view. A counter more than [`SIZE`] behind the highest is refused, seen or not.

/// Bits in a word.
const BITS: u64 = u64::BITS as u64;
/// Words in the ring.
const WORDS: usize = 128;
/// How far behind the highest counter one may still arrive: all the ring but the word that is being filled. As in
/// Linux and wireguard-go.
pub const SIZE: u64 = (WORDS as u64 - 1) * BITS;

/// What became of a peer's data messages, as the gaps in their counters tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reception {
    /// Those that arrived.
    pub received: u64,
    /// Those that did not arrive, though later ones did. One that is only late is taken out again when it comes.
    pub lost: u64,
    /// Those that arrived after later ones.
    pub reordered: u64,
}

impl Reception {
    /// Both together.
    pub(super) fn and(self, other: Self) -> Self {
        Self {
            received: self.received.saturating_add(other.received),
            lost: self.lost.saturating_add(other.lost),
            reordered: self.reordered.saturating_add(other.reordered),
        }
    }
}

/// Which counters were seen.
#[derive(Debug)]
pub(super) struct Window {
    /// The highest counter seen, plus one.
    next: u64,
    /// How many were accepted, and how many of them behind the highest.
    received: u64,
    reordered: u64,
    words: [u64; WORDS],
}

impl Window {
    pub(super) fn new() -> Self {
        Self { next: 0, received: 0, reordered: 0, words: [0; WORDS] }
    }

    /// Marks `counter` as seen; returns whether it is seen for the first time and not too old.
    pub(super) fn accept(&mut self, counter: u64) -> bool {
        if counter >= self.next {
            let (last, word) = (self.next.saturating_sub(1) / BITS, counter / BITS);
            for fresh in 1..=(word - last).min(WORDS as u64) {
                self.words[((last + fresh) as usize) % WORDS] = 0;
            }
            self.next = counter.saturating_add(1);
        } else if self.next - 1 - counter > SIZE {
            return false;
        }
        let late = counter + 1 < self.next;
        let (word, bit) = (&mut self.words[(counter / BITS) as usize % WORDS], 1 << (counter % BITS));
        let first = *word & bit == 0;
        *word |= bit;
        self.received += u64::from(first);
        self.reordered += u64::from(first && late);
        first
    }

    /// What became of the counters up to the highest.
    pub(super) fn reception(&self) -> Reception {
        let &Self { next, received, reordered, .. } = self;
        Reception { received, lost: next - received, reordered }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    /// What the window is for, at any cost.
    #[derive(Default)]
    struct Model {
        highest: u64,
        seen: HashSet<u64>,
    }

    impl Model {
        fn accept(&mut self, counter: u64) -> bool {
            self.highest = self.highest.max(counter);
            self.highest - counter <= SIZE && self.seen.insert(counter)
        }
    }

    #[test]
    fn the_edges_are_where_they_should_be() {
        let mut window = Window::new();
        assert!(window.accept(SIZE));
        assert!(window.accept(0) && !window.accept(0));
        assert!(window.accept(SIZE + 1));
        assert!(!window.accept(0), "too old by one");
        assert!(window.accept(1) && !window.accept(1));
        assert!(window.accept(u64::MAX - 1) && !window.accept(SIZE + 2));
        assert!(window.accept(u64::MAX - 1 - SIZE) && !window.accept(u64::MAX - 2 - SIZE));
    }

    proptest! {
        /// Small steps, jumps over the whole ring, and returns to what was.
        #[test]
        fn it_accepts_what_a_set_of_all_counters_would(
            steps in proptest::collection::vec((0u8..6, 0u64..20_000), 1..600), start in 0u64..1 << 40,
        ) {
            let (mut highest, mut expected) = (None, Reception::default());
            let (mut window, mut model, mut at) = (Window::new(), Model::default(), start);
            for (kind, by) in steps {
                let counter = match kind {
                    0 | 1 => at + by % 3,
                    2 => at + by % 200,
                    3 => at + by,
                    4 => at.saturating_sub(by % 200),
                    _ => at.saturating_sub(by),
                };
                at = at.max(counter);
                let before = highest;
                let is_accepted = model.accept(counter);
                prop_assert_eq!(window.accept(counter), is_accepted, "{}", counter);
                if is_accepted {
                    expected.received += 1;
                    expected.reordered += u64::from(before.is_some_and(|before| counter < before));
                    highest = highest.max(Some(counter));
                }
                expected.lost = highest.map_or(0, |highest| highest + 1) - expected.received;
                prop_assert_eq!(window.reception(), expected);
            }
        }
    }
}
