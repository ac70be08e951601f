//! Sets of addresses of one family, as spans of their numbers: a /64 is one span and not 2^64 addresses.

/// A set of numbers: spans with both ends included, ascending, that neither overlap nor touch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Spans(Vec<(u128, u128)>);

impl Spans {
    /// The set of all numbers in these spans, which may overlap.
    pub fn new(spans: impl IntoIterator<Item = (u128, u128)>) -> Self {
        let mut spans: Vec<_> = spans.into_iter().filter(|(first, last)| first <= last).collect();
        spans.sort_unstable();
        let mut merged: Vec<(u128, u128)> = Vec::with_capacity(spans.len());
        for (first, last) in spans {
            match merged.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => merged.push((first, last)),
            }
        }
        Self(merged)
    }

    /// What is in both sets.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let pairs = self.0.iter().flat_map(|a| other.0.iter().map(move |b| (a.0.max(b.0), a.1.min(b.1))));
        Self::new(pairs)
    }

    /// What is in this set and not in the other.
    #[must_use]
    pub fn without(&self, other: &Self) -> Self {
        let mut left = Vec::new();
        for &(first, last) in &self.0 {
            let mut from = Some(first);
            for &(hole, end) in other.0.iter().filter(|(hole, end)| *hole <= last && *end >= first) {
                let Some(start) = from else { break };
                if start < hole {
                    left.push((start, hole - 1));
                }
                from = end.checked_add(1);
            }
            left.extend(from.filter(|start| *start <= last).map(|start| (start, last)));
        }
        Self::new(left)
    }

    /// Whether a number is in it.
    pub fn contains(&self, number: u128) -> bool {
        let at = self.0.partition_point(|(_, last)| *last < number);
        self.0.get(at).is_some_and(|(first, _)| *first <= number)
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many numbers are in it; all that there are count as one less.
    pub fn len(&self) -> u128 {
        self.0.iter().fold(0, |sum, (first, last)| sum.saturating_add((last - first).saturating_add(1)))
    }

    /// The lowest number in it that `is_taken` does not hold for. It is asked for one number after the other, so at most once more
    /// than it holds.
    pub fn lowest(&self, mut is_taken: impl FnMut(u128) -> bool) -> Option<u128> {
        self.0.iter().flat_map(|(first, last)| *first..=*last).find(|number| !is_taken(*number))
    }
}
