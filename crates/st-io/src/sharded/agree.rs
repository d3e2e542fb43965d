//! Whether an index and its shards are of one checkpoint.

use std::collections::BTreeSet;

use ckptkit_core::{Error, Result};

use crate::directory::{Directory, numbered, some};
use crate::file::StFile;
use crate::index::Index;

/// The error of a tensor that two shards hold.
pub(super) fn claimed_twice(name: &str, a: &str, b: &str) -> Error {
    Error::malformed(format!("tensor {name:?} is in both {a} and {b}"))
        .hint("frameworks keep whichever they load last: write the checkpoint again")
}

/// Numbered shards without an index: 1 to N of one N, each there.
pub(super) fn check_numbers(directory: &Directory, names: &[String]) -> Result<()> {
    let found: Vec<_> = names.iter().filter_map(|n| numbered(n)).collect();
    let of: BTreeSet<u64> = found.iter().map(|n| n.of).collect();
    let numbers: BTreeSet<u64> = found.iter().map(|n| n.number).collect();
    let refuse = |why: String| Err(Error::not_found(why).in_file(directory.path()));
    match (of.first(), of.len()) {
        (Some(&n), 1) => {
            let n = n.min(1 << 20);
            let missing: Vec<String> =
                (1..=n).filter(|k| !numbers.contains(k)).map(|k| k.to_string()).collect();
            if missing.is_empty() && numbers.len() as u64 == n {
                return Ok(());
            }
            refuse(format!(
                "of {n} numbered shards, {} are there; missing numbers: {}",
                numbers.len(),
                some(missing.iter().map(String::as_str))
            ))
        }
        _ => refuse(format!(
            "shards of several checkpoints lie here: {}",
            some(names.iter().map(String::as_str))
        )),
    }
}

/// Checks that index and shards list the same tensors in the same places; gives the (shard, entry)
/// of each tensor of the index.
pub(super) fn match_names(index: &Index, shards: &[(String, StFile)]) -> Result<Vec<(u32, u32)>> {
    let mut order = Vec::with_capacity(index.weight_map.len());
    for (name, shard) in &index.weight_map {
        let (shard_name, file) = &shards[*shard as usize];
        let Some(entry) = file.header().position(name) else {
            let other = shards.iter().find(|(_, f)| f.header().position(name).is_some());
            let error = Error::malformed(match other {
                Some((other, _)) => format!(
                    "the index says that tensor {name:?} is in {shard_name}, it is in {other}"
                ),
                None => format!(
                    "the index says that tensor {name:?} is in {shard_name}, which does not have it"
                ),
            });
            return Err(
                error.hint("index and shards are of different checkpoints, or one is stale")
            );
        };
        order.push((*shard, entry));
    }
    let listed: usize = shards.iter().map(|(_, f)| f.entries().len()).sum();
    if listed == order.len() {
        return Ok(order);
    }
    // Names are unique in the index and in each shard: something is in a shard that the index
    // does not place there.
    for (shard, (shard_name, file)) in (0..).zip(shards) {
        for entry in file.entries() {
            let at = |i: u32| index.weight_map[i as usize].0.as_str();
            match index.names.find(entry.name(), at).map(|i| index.weight_map[i as usize].1) {
                Some(named) if named == shard => {}
                Some(named) => {
                    let named = &shards[named as usize].0;
                    return Err(claimed_twice(entry.name(), named, shard_name));
                }
                None => {
                    return Err(Error::malformed(format!(
                        "tensor {:?} of {shard_name} is not in the index",
                        entry.name()
                    ))
                    .hint("index and shards are of different checkpoints, or one is stale"));
                }
            }
        }
    }
    Ok(order)
}
