//! Looking names up without keeping a second copy of them.

use std::hash::BuildHasher;

use ckptkit_core::Positions;
use ckptkit_core::hash::RandomState;

/// Positions by the hash of the name. The hasher is seeded at random, so a file cannot choose names
/// that collide.
pub(crate) struct NameIndex {
    hasher: RandomState,
    positions: Positions,
}

impl NameIndex {
    /// Indexes names by their position; `Err` gives the positions of the first two that are equal.
    pub(crate) fn new<'a>(
        names: impl ExactSizeIterator<Item = &'a str>,
        at: impl Fn(u32) -> &'a str,
    ) -> Result<Self, (u32, u32)> {
        let hasher = RandomState::default();
        let mut positions = Positions::with_capacity(names.len());
        for (i, name) in (0..).zip(names) {
            let twin = positions.insert(hasher.hash_one(name), i, |other| at(other) == name);
            if let Some(first) = twin {
                return Err((first, i));
            }
        }
        Ok(Self { hasher, positions })
    }

    /// The position of `name`, where `at` gives the name at a position.
    pub(crate) fn find<'a>(&self, name: &str, at: impl Fn(u32) -> &'a str) -> Option<u32> {
        self.positions.find(self.hasher.hash_one(name), |i| at(i) == name)
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
        let twins = ["a", "b", "b", "a"];
        let found = NameIndex::new(twins.into_iter(), |i| twins[i as usize]);
        assert_eq!(found.err(), Some((1, 2)));
    }
}
