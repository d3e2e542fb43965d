//! Looking names up without keeping a second copy of them.

use std::hash::{BuildHasher, RandomState};

/// Positions by the hash of the name; 16 bytes a name. The hasher is seeded at random, so a file
/// cannot choose names that collide.
pub(crate) struct NameIndex {
    hasher: RandomState,
    /// (hash, position), sorted.
    slots: Vec<(u64, u32)>,
}

impl NameIndex {
    /// Indexes names by their position; `Err` gives the positions of two that are equal.
    pub(crate) fn new<'a>(
        names: impl ExactSizeIterator<Item = &'a str>,
        at: impl Fn(u32) -> &'a str,
    ) -> Result<Self, (u32, u32)> {
        let hasher = RandomState::new();
        let mut slots: Vec<(u64, u32)> =
            (0..).zip(names).map(|(i, n)| (hasher.hash_one(n), i)).collect();
        slots.sort_unstable();
        for (i, &(hash, a)) in slots.iter().enumerate() {
            let twins = slots[i + 1..].iter().take_while(|(h, _)| *h == hash);
            if let Some(&(_, b)) = twins.into_iter().find(|(_, b)| at(a) == at(*b)) {
                return Err((a, b));
            }
        }
        Ok(Self { hasher, slots })
    }

    /// The position of `name`, where `at` gives the name at a position.
    pub(crate) fn find<'a>(&self, name: &str, at: impl Fn(u32) -> &'a str) -> Option<u32> {
        let hash = self.hasher.hash_one(name);
        let start = self.slots.partition_point(|(h, _)| *h < hash);
        let same = self.slots[start..].iter().take_while(|(h, _)| *h == hash);
        same.map(|(_, i)| *i).find(|i| at(*i) == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_names_and_twins() {
        let names: Vec<String> = (0..1000).map(|i| format!("n{i}")).collect();
        let at = |i: u32| names[i as usize].as_str();
        let index = NameIndex::new(names.iter().map(String::as_str), at).ok().unwrap();
        assert_eq!(index.find("n567", at), Some(567));
        assert_eq!(index.find("n1000", at), None);
        let twins = ["a", "b", "a"];
        let found = NameIndex::new(twins.into_iter(), |i| twins[i as usize]);
        assert_eq!(found.err(), Some((0, 2)));
    }
}
