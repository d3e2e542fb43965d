//! Quantized exports for TensorRT-LLM: one safetensors file a rank, read where it lies.

use ckptkit_core::{Error, Result};

use crate::entry::Entry;
use crate::index::Index;

/// The weights of one rank.
pub(super) struct Shard<'a> {
    rank: u32,
    #[cfg_attr(not(feature = "safetensors"), allow(dead_code, reason = "its feature reads it"))]
    entry: &'a Entry,
}

/// The rank that `rank0.safetensors` holds; nothing for other names.
pub(crate) fn rank_of_file(name: &str) -> Option<u32> {
    let digits = name.strip_prefix("rank")?.strip_suffix(".safetensors")?;
    let plain =
        digits.bytes().all(|b| b.is_ascii_digit()) && (digits == "0" || !digits.starts_with('0'));
    plain.then(|| digits.parse().ok())?
}

/// All ranks in their order; every one must be there.
pub(super) fn find(index: &Index) -> Result<Vec<Shard<'_>>> {
    let shard = |entry| Some(Shard { rank: rank_of_file(Entry::path(entry).as_str())?, entry });
    let mut shards: Vec<Shard<'_>> = index.files().filter_map(shard).collect();
    shards.sort_by_key(|s| s.rank);
    let hole = shards.iter().zip(0..).find(|(shard, rank)| shard.rank != *rank);
    if let Some((_, rank)) = hole {
        let last = shards.last().map_or(0, |s| s.rank);
        return Err(Error::malformed(format!(
            "rank{rank}.safetensors is not there, rank{last}.safetensors is"
        ))
        .hint("the export is incomplete: make it again, or copy it again"));
    }
    Ok(shards)
}

#[cfg(not(feature = "safetensors"))]
pub(super) fn left_out(shards: &[Shard<'_>]) -> Error {
    Error::unsupported(format!(
        "is a quantized export for TensorRT-LLM ({} safetensors files), which this build does not read",
        shards.len()
    ))
    .hint("build with the feature safetensors")
}

#[cfg(feature = "safetensors")]
pub(super) use reading::load;

#[cfg(feature = "safetensors")]
mod reading {
    use std::collections::HashMap;

    use ckptkit_core::{Error, Result, ResultExt};
    use st_io::StFile;

    use super::super::{Weights, config_int, in_part};
    use super::Shard;
    use crate::config::Config;
    use crate::options::OpenOptions;

    pub(in super::super) fn load(
        weights: &mut Weights,
        shards: &[Shard<'_>],
        config: &Config,
        options: &OpenOptions,
    ) -> Result<()> {
        let said = ranks_of(config);
        let found = shards.len() as u64;
        if let Some(said) = said.filter(|&said| said != found) {
            weights.notes.push(format!(
                "the config says mapping.world_size is {said}, the archive has the files of {found}"
            ));
        }
        // One rank's names are the model's own; those of several are told apart.
        let whole = found == 1 && said.unwrap_or(1) == 1;
        for shard in shards {
            let member = shard.entry.path().as_str();
            let prefix = (!whole).then(|| format!("rank{}", shard.rank));
            let open = |section| StFile::from_section_with(section, &options.torch_limits);
            let file =
                shard.entry.section().and_then(open).within(|| format!("member {member}"))?;
            add(weights, &file, prefix.as_deref(), shard.rank)?;
            weights.notes.extend(file.notes().iter().map(|n| format!("member {member}: {n}")));
            weights.safetensors.push((member.to_owned(), file));
        }
        Ok(())
    }

    fn add(weights: &mut Weights, file: &StFile, prefix: Option<&str>, rank: u32) -> Result<()> {
        let named = |name: &str| prefix.map_or(name.to_owned(), |p| format!("{p}/{name}"));
        let mut containers = HashMap::new();
        for (info, tensor) in file.infos().zip(file.tensors()) {
            match (tensor, prefix) {
                (Ok(tensor), None) => weights.tensors.push(tensor),
                (Ok(tensor), Some(prefix)) => {
                    weights.tensors.push(in_part(&tensor, prefix, rank, &mut containers)?);
                }
                (Err(error), _) => weights.fail(named(info.name()), error),
            }
        }
        for entry in file.entries().iter().filter(|e| e.info().is_none()) {
            let why = Error::unsupported(format!("its dtype {} is not known", entry.dtype()))
                .within(format_args!("tensor {}", entry.name()));
            weights.fail(named(entry.name()), why);
        }
        Ok(())
    }

    /// How many ranks the export was made for.
    fn ranks_of(config: &Config) -> Option<u64> {
        let int = |key: &str| config_int(config, key);
        int("mapping.world_size")
            .or_else(|| int("mapping.tp_size")?.checked_mul(int("mapping.pp_size").unwrap_or(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::rank_of_file;

    #[test]
    fn only_ranks_are_ranks() {
        assert_eq!(rank_of_file("rank0.safetensors"), Some(0));
        assert_eq!(rank_of_file("rank12.safetensors"), Some(12));
        for not in [
            "rank.safetensors",
            "rank00.safetensors",
            "rank-1.safetensors",
            "rank1",
            "a/rank0.safetensors",
        ] {
            assert_eq!(rank_of_file(not), None, "{not}");
        }
    }
}
