//! Finding what lies in a list by its hash, without a second copy of it.

/// No position.
const EMPTY: u32 = u32::MAX;

/// A hash table of positions in a list that the caller keeps: eight to sixteen bytes for each.
///
/// It knows neither the items nor how they are hashed, so it suits names that lie in one text, in
/// structs, or that are compared without regard to case. The hashes should come from a seeded
/// hasher ([`hash::RandomState`](crate::hash::RandomState)) where the items come from a file.
///
/// ```
/// use std::hash::BuildHasher;
/// use ckptkit_core::Positions;
/// use ckptkit_core::hash::RandomState;
///
/// let (names, hasher) = (["a", "b", "a"], RandomState::default());
/// let mut positions = Positions::with_capacity(names.len());
/// for (i, name) in (0..).zip(names) {
///     let twin = positions.insert(hasher.hash_one(name), i, |other| names[other as usize] == name);
///     assert_eq!(twin, (i == 2).then_some(0));
/// }
/// assert_eq!(positions.find(hasher.hash_one("b"), |i| names[i as usize] == "b"), Some(1));
/// ```
#[derive(Clone, Debug)]
pub struct Positions {
    /// Each position where its hash says, or in the next free slot after that; at least half are
    /// empty, so every walk ends.
    slots: Box<[u32]>,
    /// How many may still be put in.
    left: usize,
}

impl Positions {
    /// A table for `count` positions; it does not grow.
    #[must_use]
    pub fn with_capacity(count: usize) -> Self {
        let slots = count.saturating_mul(2).next_power_of_two();
        Self { slots: vec![EMPTY; slots].into(), left: count }
    }

    /// Puts in position `i` of an item with this hash, or gives the position put in earlier for
    /// which `same` says that its item is equal. Past the capacity nothing more is put in, and
    /// only the looking remains. Position `u32::MAX` cannot be kept either.
    pub fn insert(&mut self, hash: u64, i: u32, same: impl FnMut(u32) -> bool) -> Option<u32> {
        let (found, end) = self.walk(hash, same);
        if let (None, Some(slot), Some(left)) =
            (found, self.slots.get_mut(end), self.left.checked_sub(1))
        {
            *slot = i;
            self.left = left;
        }
        found
    }

    /// The position with this hash for which `same` says that its item is the one wanted.
    pub fn find(&self, hash: u64, same: impl FnMut(u32) -> bool) -> Option<u32> {
        self.walk(hash, same).0
    }

    /// What was found, and the slot where the walk ended.
    fn walk(&self, hash: u64, mut same: impl FnMut(u32) -> bool) -> (Option<u32>, usize) {
        let mask = self.slots.len() - 1;
        let mut at = usize::try_from(hash & mask as u64).unwrap_or(0);
        loop {
            match self.slots[at] {
                EMPTY => return (None, at),
                i if same(i) => return (Some(i), at),
                _ => at = (at + 1) & mask,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hashes that all differ, that collide in part, and that are all one, at either end.
    #[test]
    fn finds_what_was_put_in_whatever_the_hashes() {
        let hashes: [fn(u32) -> u64; 5] = [
            |i| u64::from(i).wrapping_mul(0x9E37_79B9_7F4A_7C15),
            |i| u64::from(i / 7),
            |i| u64::from(i) << 40,
            |_| 0,
            |_| u64::MAX,
        ];
        for hash in hashes {
            for count in [0, 1, 2, 3, 8, 200] {
                let mut table = Positions::with_capacity(count as usize);
                for i in 0..count {
                    assert_eq!(table.find(hash(i), |j| j == i), None);
                    assert_eq!(table.insert(hash(i), i, |j| j == i), None);
                    assert_eq!(table.insert(hash(i), u32::MAX, |j| j == i), Some(i));
                }
                for i in 0..count {
                    assert_eq!(table.find(hash(i), |j| j == i), Some(i));
                }
                assert_eq!(table.find(hash(count), |j| j == count), None);
            }
        }
    }

    #[test]
    fn gives_the_earlier_of_two() {
        let names = ["a", "b", "A"];
        let mut table = Positions::with_capacity(3);
        let found = [0, 1, 2].map(|i| {
            let name = names[i as usize];
            table.insert(7, i, |j| names[j as usize].eq_ignore_ascii_case(name))
        });
        assert_eq!(found, [None, None, Some(0)]);
    }

    #[test]
    fn a_full_table_still_ends_its_walks() {
        for count in 0..5 {
            let mut table = Positions::with_capacity(count as usize);
            for i in 0..20 {
                assert_eq!(table.insert(3, i, |j| j == i), None);
            }
            for i in 0..20 {
                assert_eq!(table.find(3, |j| j == i), (i < count).then_some(i));
            }
        }
    }
}
