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

/// Which counters were seen.
#[derive(Debug)]
pub(super) struct Window {
    /// The highest counter seen, plus one.
    next: u64,
    words: [u64; WORDS],
}

impl Window {
    pub(super) fn new() -> Self {
        Self { next: 0, words: [0; WORDS] }
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
        let (word, bit) = (&mut self.words[(counter / BITS) as usize % WORDS], 1 << (counter % BITS));
        let first = *word & bit == 0;
        *word |= bit;
        first
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
                prop_assert_eq!(window.accept(counter), model.accept(counter), "{}", counter);
            }
        }
    }
}
