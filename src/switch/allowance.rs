//! How much one peer or port may say to control in a second: the queue to control is shared, and nobody can fill it so that
//! another is not heard.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A count that begins anew each second: the second in its upper half, the number in its lower.
#[derive(Debug, Default)]
pub struct Allowance(AtomicU64);

impl Allowance {
    /// Whether there may be one more in this second, of which at most `most` pass.
    pub fn take(&self, second: u32, most: u32) -> bool {
        let count = |before: u64| match before >> 32 == u64::from(second) {
            true => (before as u32).saturating_add(1),
            false => 1,
        };
        let counted = |before| Some(u64::from(second) << 32 | u64::from(count(before)));
        self.0.fetch_update(Relaxed, Relaxed, counted).is_ok_and(|before| count(before) <= most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_pass_in_a_second_and_again_in_the_next() {
        let allowance = Allowance::default();
        for second in [0, 1, 5] {
            assert_eq!((0..10_000).filter(|_| allowance.take(second, 128)).count(), 128);
        }
    }
}
