//! The classes and functions that a pickle names, each once.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use ckptkit_core::hash::{HashMap, HashMapExt};
use ckptkit_core::{Error, Result};

use super::super::graph::{GlobalName, Repr, narrow};

pub(super) struct Globals {
    /// Those met last, by what is cheap to tell of their names.
    recent: [u32; RECENT],
    names: Vec<GlobalName>,
    /// From the hash of a name, or the next free number after it, to its position.
    by_hash: HashMap<u64, u32>,
    hasher: RandomState,
}

const RECENT: usize = 64;

impl Default for Globals {
    fn default() -> Self {
        Self {
            recent: [u32::MAX; RECENT],
            names: Vec::new(),
            by_hash: HashMap::new(),
            hasher: RandomState::new(),
        }
    }
}

impl Globals {
    /// The global with a module and a name.
    #[inline]
    pub(super) fn named(&mut self, names: [&[u8]; 2]) -> Result<Repr> {
        let [module, name] = names;
        let cheap = module.len() + 4 * name.len() + 16 * usize::from(*name.last().unwrap_or(&0));
        let slot = cheap % RECENT;
        let recent = self.recent[slot];
        let known = self.names.get(recent as usize).map(|known| &known.spelled);
        if known.is_some_and(|(m, n)| n.as_bytes() == name && m.as_bytes() == module) {
            return Ok(Repr::Global(recent));
        }
        let index = self.find(names)?;
        self.recent[slot] = index;
        Ok(Repr::Global(index))
    }

    fn find(&mut self, names: [&[u8]; 2]) -> Result<u32> {
        let [Ok(module), Ok(name)] = names.map(std::str::from_utf8) else {
            return Err(Error::malformed("a global's name is not UTF-8"));
        };
        let mut hash = self.hasher.hash_one((module, name));
        while let Some(&index) = self.by_hash.get(&hash) {
            let (known_module, known_name) = &self.names[index as usize].spelled;
            if (&**known_module, &**known_name) == (module, name) {
                return Ok(index);
            }
            hash = hash.wrapping_add(1);
        }
        let index = narrow(self.names.len());
        self.by_hash.insert(hash, index);
        self.names.push(GlobalName::new(module, name));
        Ok(index)
    }

    pub(super) fn into_names(self) -> Vec<GlobalName> {
        self.names
    }
}
