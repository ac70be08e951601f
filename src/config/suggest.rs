//! What somebody who mistyped a word probably meant.

/// The candidate that `name` is probably a slip of the pen for.
pub(super) fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Nobody mistypes a key into something this long, and the distance takes time in its length.
    const LONGEST: usize = 40;
    if name.len() > LONGEST {
        return None;
    }
    let tolerated = 1 + name.chars().count() / 4;
    // Half a word is no slip of the pen, and still a good guess.
    let begins = |candidate: &&str| name.len() >= 3 && candidate.starts_with(name);
    let candidates: Vec<&str> = candidates.collect();
    candidates
        .iter()
        .map(|&candidate| (edits(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= tolerated && *distance < candidate.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
        .or_else(|| candidates.iter().find(|&candidate| begins(candidate)).copied())
}

/// How many letters must be inserted, removed, replaced or swapped with their neighbour to make `a` from `b`
/// (optimal string alignment).
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.to_lowercase().chars().collect(), b.to_lowercase().chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys::PEER;

    #[test]
    fn a_slip_of_the_pen_is_recognised_and_a_different_word_is_not() {
        let keys = || PEER.keys.iter().map(|key| key.name);
        assert_eq!(nearest("endpoint", keys()), Some("endpoints"));
        assert_eq!(nearest("pubilc_key", keys()), Some("public_key"));
        assert_eq!(nearest("Keep_alive", keys()), Some("keepalive"));
        assert_eq!(nearest("keep", keys()), Some("keepalive"));
        assert_eq!(nearest("colour", keys()), None);
        assert_eq!(nearest(&"x".repeat(100_000), keys()), None);
    }

    #[test]
    fn edits_count_swapped_neighbours_once() {
        for (a, b, distance) in [("", "abc", 3), ("abc", "abc", 0), ("abc", "acb", 1), ("abcd", "bcd", 1)] {
            assert_eq!((edits(a, b), edits(b, a)), (distance, distance), "{a} {b}");
        }
    }
}
