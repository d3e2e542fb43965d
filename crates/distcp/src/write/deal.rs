//! Who writes what.
//!
//! Source of truth: `dedup_save_plans` of `torch/distributed/checkpoint/_dedup_save_plans.py`, as
//! torch has it since 2.3: of the ranks that hold the same, the one with the fewest planned bytes
//! writes it. Bytes are those of whole tensors, and plans are gone through rank by rank.

use std::rc::Rc;

use super::split::Split;

/// An entry as far as dealing it out goes.
pub(super) struct Part {
    pub(super) split: Rc<Split>,
    /// Bytes of the whole tensor; 0 for an object, which torch does not weigh either.
    pub(super) bytes: u64,
}

/// A chunk of an entry, by position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) entry: usize,
    pub(super) chunk: usize,
}

/// What each rank writes, in the order of the entries.
pub(super) fn deal(parts: &[Part], ranks: u32) -> Vec<Vec<Share>> {
    let mut firsts: Vec<Vec<Share>> = vec![Vec::new(); ranks as usize];
    for (entry, part) in parts.iter().enumerate() {
        for (chunk, held) in part.split.chunks.iter().enumerate() {
            firsts[held.ranks[0] as usize].push(Share { entry, chunk });
        }
    }
    let mut planned = vec![0_u64; ranks as usize];
    let mut writers: Vec<Vec<u32>> =
        parts.iter().map(|part| vec![0; part.split.chunks.len()]).collect();
    for share in firsts.iter().flatten() {
        let part = &parts[share.entry];
        let holders = &part.split.chunks[share.chunk].ranks;
        let writer =
            holders.iter().copied().min_by_key(|&r| planned[r as usize]).unwrap_or_default();
        let load = &mut planned[writer as usize];
        *load = load.saturating_add(part.bytes.max(1));
        writers[share.entry][share.chunk] = writer;
    }
    let mut out: Vec<Vec<Share>> = vec![Vec::new(); ranks as usize];
    for (entry, writers) in writers.into_iter().enumerate() {
        for (chunk, writer) in writers.into_iter().enumerate() {
            out[writer as usize].push(Share { entry, chunk });
        }
    }
    out
}
