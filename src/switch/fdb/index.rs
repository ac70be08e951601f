//! The index: in which slot a station is. A hash table of slots that touches as little memory as it can.
//!
//! With a million stations nothing but the few that talk is in a cache, and a look-up costs what it touches. Here that is
//! one cell and one station: two cache lines. A cell is eight bytes, 32 bits of the station's hash and its slot, so eight
//! cells share a line; it is found by open addressing with linear probing, at most half of the cells are in use, and only a
//! cell whose hash agrees sends us to its station.
//!
//! ```text
//!   hash ─► home cell ─► next ─► … until the hash agrees and so does the station, or a cell is empty
//! ```
//!
//! What stays true: between a station's home and its cell no cell is empty. So a removal moves those behind it up
//! (Knuth, The Art of Computer Programming 6.4, Algorithm R) and leaves no marks that later look-ups would have to pass.

use super::table::Slot;

/// Cells before the first station comes.
const FEWEST: usize = 16;

/// A cell that is in use: the hash in the upper half, the slot plus one in the lower. Zero is an empty one.
type Cell = u64;

const EMPTY: Cell = 0;

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Index {
    /// A power of two of them.
    cells: Vec<Cell>,
    used: usize,
}

impl Index {
    pub(super) fn new() -> Self {
        Self { cells: vec![EMPTY; FEWEST], used: 0 }
    }

    /// The slot with this hash that `is_it` says yes to.
    pub(super) fn find(&self, hash: u32, is_it: impl Fn(Slot) -> bool) -> Option<Slot> {
        let mut at = self.home(hash);
        loop {
            let cell = *self.cells.get(at)?;
            if cell == EMPTY {
                return None;
            }
            if hash_of(cell) == hash && is_it(slot_of(cell)) {
                return Some(slot_of(cell));
            }
            at = self.behind(at);
        }
    }

    /// Takes in a slot that is not there yet.
    pub(super) fn insert(&mut self, hash: u32, slot: Slot) {
        if (self.used + 1) * 2 > self.cells.len() {
            self.grow();
        }
        self.put(u64::from(hash) << 32 | (u64::from(slot) + 1));
        self.used += 1;
    }

    /// Takes out a slot that went in with this hash.
    pub(super) fn remove(&mut self, hash: u32, slot: Slot) {
        let mut hole = self.home(hash);
        while self.cells[hole] != EMPTY && slot_of(self.cells[hole]) != slot {
            hole = self.behind(hole);
        }
        if self.cells[hole] == EMPTY {
            return;
        }
        let mut at = hole;
        loop {
            at = self.behind(at);
            let cell = self.cells[at];
            if cell == EMPTY {
                break;
            }
            // It may move into the hole unless its home lies behind that: steps from home to it reach over the hole.
            let mask = self.cells.len() - 1;
            let from_home = at.wrapping_sub(self.home(hash_of(cell))) & mask;
            if from_home >= at.wrapping_sub(hole) & mask {
                self.cells[hole] = cell;
                hole = at;
            }
        }
        self.cells[hole] = EMPTY;
        self.used -= 1;
    }

    /// Twice as many cells. The hashes are in the cells: no station is looked at.
    fn grow(&mut self) {
        let more = vec![EMPTY; self.cells.len() * 2];
        for cell in std::mem::replace(&mut self.cells, more) {
            if cell != EMPTY {
                self.put(cell);
            }
        }
    }

    fn put(&mut self, cell: Cell) {
        let mut at = self.home(hash_of(cell));
        while self.cells[at] != EMPTY {
            at = self.behind(at);
        }
        self.cells[at] = cell;
    }

    fn home(&self, hash: u32) -> usize {
        hash as usize & (self.cells.len() - 1)
    }

    fn behind(&self, at: usize) -> usize {
        (at + 1) & (self.cells.len() - 1)
    }
}

fn hash_of(cell: Cell) -> u32 {
    (cell >> 32) as u32
}

fn slot_of(cell: Cell) -> Slot {
    (cell as u32).wrapping_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        /// Few homes and many that share them, in a table that grows: runs that wrap round the end among them.
        #[test]
        fn it_finds_what_a_map_finds(steps in proptest::collection::vec((0..60_u32, any::<bool>()), 1..400)) {
            // Hash by number: runs of equal hashes, neighbours, and some at the very end of the table.
            let hash_of = |number: u32| [u32::MAX - number % 3, number / 7, number % 5][number as usize % 3];
            let (mut index, mut map) = (Index::new(), BTreeMap::new());
            for (number, insert) in steps {
                let hash = hash_of(number);
                if insert && !map.contains_key(&number) {
                    index.insert(hash, number);
                    map.insert(number, ());
                } else if !insert {
                    index.remove(hash, number);
                    map.remove(&number);
                }
                for number in 0..60 {
                    let found = index.find(hash_of(number), |slot| slot == number);
                    prop_assert_eq!(found.is_some(), map.contains_key(&number));
                }
            }
        }
    }

    #[test]
    fn a_look_up_meets_one_cell_and_a_half_on_average() {
        let mut index = Index::new();
        let hash = |n: u32| n.wrapping_mul(0x9e37_79b9).rotate_left(13).wrapping_mul(0x85eb_ca6b);
        (0..65_536).for_each(|n| index.insert(hash(n), n));
        let looks: usize = (0..65_536)
            .map(|n| {
                let home = index.home(hash(n));
                (0..).take_while(|&step| slot_of(index.cells[(home + step) & (index.cells.len() - 1)]) != n).count()
                    + 1
            })
            .sum();
        // (1 + 1/(1 - 1/2))/2 at half load (Knuth 6.4).
        assert!(looks < 65_536 * 16 / 10, "{looks}");
    }
}
