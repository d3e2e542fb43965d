//! Who writes what.
//!
//! Source of truth: `dedup_save_plans` of `torch/distributed/checkpoint/_dedup_save_plans.py`, as
//! torch has it since 2.3: of the ranks that hold the same, the one with the fewest planned bytes
//! writes it. Bytes are those of whole tensors, and plans are gone through rank by rank.

use std::sync::Arc;

use super::split::Split;

/// An entry as far as dealing it out goes.
pub(super) struct Part {
    pub(super) split: Arc<Split>,
    /// Bytes of the whole tensor; 0 for an object, which torch does not weigh either.
    pub(super) bytes: u64,
}

/// A chunk of an entry, by position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Share {
    entry: u32,
    chunk: u32,
}

impl Share {
    /// Nothing for what is beyond the number of entries and ranks that there may be.
    fn new(entry: usize, chunk: usize) -> Option<Self> {
        Some(Self { entry: u32::try_from(entry).ok()?, chunk: u32::try_from(chunk).ok()? })
    }

    pub(super) fn entry(self) -> usize {
        self.entry as usize
    }

    pub(super) fn chunk(self) -> usize {
        self.chunk as usize
    }
}

/// The chunks of an entry.
fn shares(entry: usize, part: &Part) -> impl Iterator<Item = Share> {
    (0..part.split.chunks.len()).filter_map(move |chunk| Share::new(entry, chunk))
}

/// What each rank writes, in the order of the entries.
pub(super) fn deal(parts: &[Part], ranks: u32) -> Vec<Vec<Share>> {
    let mut firsts: Vec<Vec<Share>> = vec![Vec::new(); ranks as usize];
    // Where the writers of an entry's chunks begin.
    let mut begin = Vec::with_capacity(parts.len());
    let mut chunks = 0;
    for (entry, part) in parts.iter().enumerate() {
        begin.push(chunks);
        chunks += part.split.chunks.len();
        for share in shares(entry, part) {
            firsts[part.split.chunks[share.chunk()].ranks[0] as usize].push(share);
        }
    }
    let mut planned = vec![0_u64; ranks as usize];
    let mut writers = vec![0_u32; chunks];
    for share in firsts.into_iter().flatten() {
        let part = &parts[share.entry()];
        let holders = &part.split.chunks[share.chunk()].ranks;
        let writer =
            holders.iter().copied().min_by_key(|&r| planned[r as usize]).unwrap_or_default();
        let load = &mut planned[writer as usize];
        *load = load.saturating_add(part.bytes.max(1));
        writers[begin[share.entry()] + share.chunk()] = writer;
    }
    let mut out: Vec<Vec<Share>> = vec![Vec::new(); ranks as usize];
    let mut writers = writers.into_iter();
    for (entry, part) in parts.iter().enumerate() {
        for (share, writer) in shares(entry, part).zip(writers.by_ref()) {
            out[writer as usize].push(share);
        }
    }
    out
}
