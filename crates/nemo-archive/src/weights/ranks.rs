//! One state dict for each model-parallel rank.

use std::collections::BTreeSet;

use ckptkit_core::{Error, Result};

use super::config_int;
use crate::config::Config;
use crate::entry::Entry;
use crate::index::Index;

/// The weights of one rank.
pub(super) struct Rank<'a> {
    pub(super) folder: String,
    /// Tensor-parallel rank, and the pipeline's where the folder names one.
    tensor: u64,
    pipeline: Option<u64>,
    pub(super) entry: &'a Entry,
}

/// The rank that a member's name says it belongs to.
pub(super) fn of_member(name: &str) -> Option<(&str, u64, Option<u64>)> {
    let folder = name.strip_suffix("/model_weights.ckpt")?;
    let number = |s: &str, digits: usize| -> Option<u64> {
        (s.len() >= digits && s.bytes().all(|b| b.is_ascii_digit())).then(|| s.parse().ok())?
    };
    if let Some(rank) = folder.strip_prefix("mp_rank_") {
        return Some((folder, number(rank, 2)?, None));
    }
    let (tensor, pipeline) = folder.strip_prefix("tp_rank_")?.split_once("_pp_rank_")?;
    Some((folder, number(tensor, 2)?, Some(number(pipeline, 3)?)))
}

/// All ranks, in their order.
pub(super) fn find(index: &Index) -> Vec<Rank<'_>> {
    let mut ranks: Vec<Rank<'_>> = index
        .files()
        .filter_map(|entry| {
            let (folder, tensor, pipeline) = of_member(entry.path().as_str())?;
            Some(Rank { folder: folder.to_owned(), tensor, pipeline, entry })
        })
        .collect();
    ranks.sort_by_key(|r| (r.pipeline, r.tensor));
    ranks
}

fn sizes(ranks: &[Rank<'_>]) -> (u64, u64) {
    let tensor = ranks.iter().map(|r| r.tensor).max().unwrap_or(0);
    let pipeline = ranks.iter().filter_map(|r| r.pipeline).max().unwrap_or(0);
    (tensor.saturating_add(1), pipeline.saturating_add(1))
}

/// Every rank must be there: a model with a hole loads nowhere.
pub(super) fn check(ranks: &[Rank<'_>]) -> Result<()> {
    let kinds: BTreeSet<bool> = ranks.iter().map(|r| r.pipeline.is_some()).collect();
    if kinds.len() > 1 {
        return Err(Error::malformed(
            "rank directories with and without a pipeline rank lie side by side",
        ));
    }
    let (tensor, pipeline) = sizes(ranks);
    let wanted = tensor.checked_mul(pipeline);
    let present: BTreeSet<(u64, u64)> =
        ranks.iter().map(|r| (r.pipeline.unwrap_or(0), r.tensor)).collect();
    if present.len() != ranks.len() {
        return Err(Error::malformed("two rank directories are of one rank"));
    }
    if wanted == Some(present.len() as u64) {
        return Ok(());
    }
    // The first hole lies among the first few, however large the numbers are.
    let hole = (0..pipeline)
        .flat_map(|p| (0..tensor).map(move |t| (p, t)))
        .find(|rank| !present.contains(rank));
    let (p, t) = hole.unwrap_or_default();
    let name = match ranks.first().and_then(|r| r.pipeline) {
        Some(_) => format!("tp_rank_{t:02}_pp_rank_{p:03}"),
        None => format!("mp_rank_{t:02}"),
    };
    Err(Error::malformed(format!(
        "the weights of rank directory {name} are not there, {} of {} are",
        present.len(),
        wanted.map_or("very many".into(), |w| w.to_string())
    ))
    .hint("the archive is incomplete: save it again from all ranks"))
}

/// Where the config says something else than the folders.
pub(super) fn disagreements(ranks: &[Rank<'_>], config: &Config) -> Vec<String> {
    let (tensor, pipeline) = sizes(ranks);
    let mut out = Vec::new();
    for (key, found) in
        [("tensor_model_parallel_size", tensor), ("pipeline_model_parallel_size", pipeline)]
    {
        if let Some(said) = config_int(config, key).filter(|&said| said != found) {
            out.push(format!("the config says {key} is {said}, the rank directories {found}"));
        }
    }
    out
}
