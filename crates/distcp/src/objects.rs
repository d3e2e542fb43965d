//! Megatron's objects in files of their own: `KEY/shard_OFFSET_SHAPE.pt` beside the data files.
//!
//! Where a strategy handles no objects itself, Megatron-Core leaves them to its common strategy,
//! which saves each with `torch.save`. No index names them, so these, and these alone, are found by
//! listing. Offset and shape are numbers joined with dots; releases before 0.8 lost the shape's
//! last number where there were several (`shard_0.1_2.pt` for offset `[0, 1]` of `[2, 4]`), and it
//! is what the largest offset in the folder says.
//!
//! Source of truth: `save_sharded_objects` and `load_sharded_metadata` in
//! `megatron/core/dist_checkpointing/strategies/common.py` (0.16.1),
//! `_extract_and_save_sharded_objects` in `dist_checkpointing/serialization.py` (0.7.0).

use std::collections::{BTreeMap, HashSet};

use ckptkit_core::{EntryPath, Error, ErrorKind, Result, shape};

use crate::metadata::Tables;
use crate::storage::StorageReader;

/// The most files that are looked through.
const MOST_FILES: usize = 100_000;
/// The most notes about objects, and names in one of them.
const MOST_NOTES: usize = 50;
const NAMED: usize = 5;

/// Whether there may be such files: they come with what else Megatron's common strategy writes.
pub(crate) fn expected(names: &[String], tables: &Tables) -> bool {
    tables.traits.megatron || names.iter().any(|n| n == "common.pt" || n == "metadata.json")
}

/// Adds an entry for each object.
///
/// # Errors
/// Those of listing; `LimitExceeded` for more files than any checkpoint has.
pub(crate) fn add(
    storage: &dyn StorageReader,
    names: &[String],
    tables: &mut Tables,
    notes: &mut Vec<String>,
) -> Result<()> {
    let files = storage.list_all(MOST_FILES)?;
    if files.len() > MOST_FILES {
        return Err(Error::limit(format!("there are more than {MOST_FILES} files")));
    }
    let mut found = Notes { notes, more: 0 };
    refused_links(storage, names, &files, &mut found);
    let mut taken: HashSet<String> = tables.entries.iter().map(|e| e.fqn.clone()).collect();
    for (key, mut shards) in by_key(&files) {
        complete(&mut shards);
        // Of two files of one name, that which has it in full comes first.
        shards.sort_by(|a, b| a.order().cmp(&b.order()));
        missing(key, &shards, &mut found);
        for shard in &shards {
            if shard.at.is_none() {
                found.add(format!(
                    "{} is not named as Megatron names an object's shard (shard_OFFSET_SHAPE.pt)",
                    shard.file
                ));
            }
            let free = |stem: &str| {
                let name = format!("{key}/{stem}");
                (!taken.contains(&name)).then_some(name)
            };
            let whole = shard.full.as_deref().unwrap_or(shard.stem);
            let name = match (free(whole), free(shard.stem)) {
                (Some(name), _) => name,
                (None, Some(name)) => {
                    found.add(format!("{} is of an older save: there is {whole} too", shard.file));
                    name
                }
                (None, None) => {
                    found.add(format!(
                        "{} is not read: the metadata has an entry of that name",
                        shard.file
                    ));
                    continue;
                }
            };
            taken.insert(name.clone());
            let length = EntryPath::new(shard.file)
                .and_then(|_| storage.size(shard.file))
                .and_then(|size| size.ok_or_else(|| Error::not_found("there is no such file")));
            tables.add_object(name, shard.file, length);
        }
    }
    found.finish();
    Ok(())
}

/// One file.
struct Shard<'a> {
    file: &'a str,
    /// Its name without `.pt`.
    stem: &'a str,
    /// Offset and shape, where its name gives them.
    at: Option<(Vec<u64>, Vec<u64>)>,
    /// Its name with the whole shape, where that is another.
    full: Option<String>,
}

impl Shard<'_> {
    fn order(&self) -> impl Ord + '_ {
        (&self.at, self.full.is_some(), self.stem)
    }
}

fn by_key(files: &[String]) -> BTreeMap<&str, Vec<Shard<'_>>> {
    let mut keys: BTreeMap<&str, Vec<Shard<'_>>> = BTreeMap::new();
    for file in files {
        let Some((key, name)) = file.rsplit_once('/') else { continue };
        let Some(stem) = name.strip_suffix(".pt") else { continue };
        let Some(numbers) = stem.strip_prefix("shard_") else { continue };
        let at = place(numbers);
        keys.entry(key).or_default().push(Shard { file, stem, at, full: None });
    }
    keys
}

/// `0.1_2.4` as offset and shape.
fn place(text: &str) -> Option<(Vec<u64>, Vec<u64>)> {
    let (offset, shape) = text.split_once('_')?;
    let (offset, shape) = (numbers(offset)?, numbers(shape)?);
    let known = shape.len() == offset.len() || shape.len() + 1 == offset.len();
    known.then_some((offset, shape))
}

fn numbers(text: &str) -> Option<Vec<u64>> {
    if text.is_empty() {
        return Some(Vec::new());
    }
    let number =
        |part: &str| part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok()).flatten();
    let numbers: Option<Vec<u64>> = text.split('.').map(number).collect();
    numbers.filter(|n| n.len() <= shape::MAX_DIMS)
}

fn dotted(numbers: &[u64]) -> String {
    numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(".")
}

/// Gives shapes their last number, where an old release lost it.
fn complete(shards: &mut [Shard<'_>]) {
    let cut = |at: &(Vec<u64>, Vec<u64>)| at.1.len() < at.0.len();
    let last = shards.iter().filter_map(|s| s.at.as_ref()).filter(|at| cut(at));
    let last = last.filter_map(|at| at.0.last()?.checked_add(1)).max();
    for shard in shards {
        let Some(at) = shard.at.as_mut().filter(|at| cut(at)) else { continue };
        // An offset so large that nothing can be counted up to it is none.
        match last.filter(|last| at.0.last().is_some_and(|o| o < last)) {
            Some(last) => {
                at.1.push(last);
                shard.full = Some(format!("shard_{}_{}", dotted(&at.0), dotted(&at.1)));
            }
            None => shard.at = None,
        }
    }
}

/// Says which shards of an object there are none of.
fn missing(key: &str, shards: &[Shard<'_>], notes: &mut Notes<'_>) {
    let mut by_shape: BTreeMap<&[u64], HashSet<&[u64]>> = BTreeMap::new();
    for (offset, shape) in shards.iter().filter_map(|s| s.at.as_ref()) {
        if offset.iter().zip(shape).all(|(o, n)| o < n) {
            by_shape.entry(shape).or_default().insert(offset);
        } else {
            notes.add(format!(
                "object {key}: a shard at {offset:?} lies outside of the shape {shape:?}"
            ));
        }
    }
    for (shape, present) in by_shape {
        let Ok(all) = shape::numel(shape) else {
            notes.add(format!("object {key}: nobody has as many shards as the shape {shape:?}"));
            continue;
        };
        let absent = all.saturating_sub(present.len() as u64);
        if absent == 0 {
            continue;
        }
        let strides = shape::row_major_strides(shape);
        let offset = |i: u64| -> Vec<u64> {
            shape.iter().zip(&strides).map(|(n, stride)| i / stride % n).collect()
        };
        // Ends after as many steps as there are shards, and some.
        let named: Vec<String> = (0..all)
            .map(offset)
            .filter(|o| !present.contains(&o[..]))
            .take(NAMED)
            .map(|o| format!("shard_{}_{}", dotted(&o), dotted(shape)))
            .collect();
        let more = if absent > NAMED as u64 { ", …" } else { "" };
        notes.add(format!(
            "object {key}: {absent} of {all} shards are missing: {}{more}",
            named.join(", ")
        ));
    }
}

/// Folders that are links out of the checkpoint.
fn refused_links(
    storage: &dyn StorageReader,
    names: &[String],
    files: &[String],
    notes: &mut Notes<'_>,
) {
    let files: HashSet<&str> = files.iter().map(String::as_str).collect();
    for name in names.iter().filter(|n| !files.contains(n.as_str())) {
        match storage.size(name) {
            Err(e) if e.kind() == ErrorKind::Denied => {
                notes.add(format!("not looked through for objects: {e}"));
            }
            _ => {}
        }
    }
}

/// Notes, not too many of them.
struct Notes<'a> {
    notes: &'a mut Vec<String>,
    more: usize,
}

impl Notes<'_> {
    fn add(&mut self, note: String) {
        if self.notes.len() < MOST_NOTES {
            self.notes.push(note);
        } else {
            self.more += 1;
        }
    }

    fn finish(self) {
        if self.more > 0 {
            self.notes.push(format!("and {} more notes about objects", self.more));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(place("0_2"), Some((vec![0], vec![2])));
        assert_eq!(place("0.1_2.4"), Some((vec![0, 1], vec![2, 4])));
        assert_eq!(place("0.1_2"), Some((vec![0, 1], vec![2])));
        assert_eq!(place("_"), Some((vec![], vec![])));
        for bad in ["", "0", "0_1_2", "0_1.2", "0.0.0_1", "+0_1", "0x_1", "0._1.", "a_b", "-1_2"] {
            assert_eq!(place(bad), None, "{bad}");
        }
        assert_eq!(place("18446744073709551616_1"), None);
        assert_eq!(place(&format!("{0}_{0}", vec!["0"; 65].join("."))), None);
    }

    fn noted(files: &[&str]) -> (Vec<String>, Vec<String>) {
        let files: Vec<String> = files.iter().map(|f| (*f).to_owned()).collect();
        let (mut notes, mut names) = (Vec::new(), Vec::new());
        let mut found = Notes { notes: &mut notes, more: 0 };
        for (key, mut shards) in by_key(&files) {
            complete(&mut shards);
            missing(key, &shards, &mut found);
            let full = |s: &Shard<'_>| s.full.clone().unwrap_or_else(|| s.stem.to_owned());
            names.extend(shards.iter().map(full));
        }
        found.finish();
        (names, notes)
    }

    #[test]
    fn lost_numbers_come_from_the_largest_offset() {
        let (names, notes) = noted(&["k/shard_0.0_1.pt", "k/shard_0.2_1.pt"]);
        assert_eq!(names, ["shard_0.0_1.3", "shard_0.2_1.3"]);
        assert_eq!(notes, ["object k: 1 of 3 shards are missing: shard_0.1_1.3"]);
        // One that cannot be counted up to is no offset.
        let huge = format!("k/shard_0.{}_1.pt", u64::MAX);
        let (names, notes) = noted(&[&huge, "k/shard_0.0_1.pt"]);
        assert_eq!(names, [&huge[2..huge.len() - 3], "shard_0.0_1.1"]);
        assert!(notes.is_empty(), "{notes:?}");
    }

    #[test]
    fn shards_beyond_counting() {
        let (_, notes) = noted(&["k/shard_1_9000000000000000000.pt"]);
        assert_eq!(
            notes,
            ["object k: 8999999999999999999 of 9000000000000000000 shards are missing: \
              shard_0_9000000000000000000, shard_2_9000000000000000000, \
              shard_3_9000000000000000000, shard_4_9000000000000000000, \
              shard_5_9000000000000000000, …"]
        );
        let (_, notes) = noted(&["k/shard_0.0_9000000000000000000.9000000000000000000.pt"]);
        assert!(notes[0].contains("nobody has as many"), "{notes:?}");
        let (_, notes) = noted(&["k/shard_7_2.pt"]);
        assert!(notes[0].contains("outside of the shape [2]"), "{notes:?}");
    }

    #[test]
    fn other_files_are_none() {
        let (names, _) = noted(&["common.pt", "shard_0_1.pt", "k/other.pt", "k/shard_0_1.bin"]);
        assert!(names.is_empty(), "{names:?}");
    }
}
