//! Which tensors of the checkpoint hold the bytes of which storages.

use std::collections::HashMap;

use ckptkit_core::{Error, Result, shape};
use torch_save::{Document, NodeId, View};

/// A tensor of the checkpoint that is a run of a storage.
pub(super) struct Piece {
    pub(super) name: String,
    pub(super) view: View,
}

/// The tensors that make up storages, one after the other.
#[derive(Default)]
pub(super) struct Covers {
    /// By the number of the storage.
    pieces: HashMap<usize, Vec<Piece>>,
    /// By the number of the storage and the first byte: the position among its pieces.
    starts: HashMap<(usize, u64), usize>,
}

impl Covers {
    /// Finds for each storage the first tensor in `names` that is all of it; where there is none,
    /// tensors that make it up together, without gaps or overlaps.
    pub(super) fn find(document: &Document, names: &[(String, NodeId)]) -> Result<Self> {
        let mut seen: HashMap<&str, NodeId> = HashMap::with_capacity(names.len());
        let mut runs: HashMap<usize, Vec<(u64, u64, &str, View)>> = HashMap::new();
        let mut order = Vec::new();
        for (name, node) in names {
            match seen.insert(name, *node) {
                Some(other) if other != *node => {
                    return Err(Error::invalid("two tensors have this name")
                        .within(format_args!("tensor {name}")));
                }
                Some(_) => continue,
                None => {}
            }
            let Some(view) = document.view(*node) else { continue };
            let (Some(run), Some(storage)) = (view.run(), document.storage(view.storage)) else {
                continue;
            };
            let of_storage = runs.entry(storage.index()).or_insert_with(|| {
                order.push((storage.index(), view.storage));
                Vec::new()
            });
            of_storage.push((run.start, run.end, name, view));
        }
        let mut found = Self::default();
        for (index, node) in order {
            let Some(Ok(len)) = document.storage(node).map(|s| s.byte_len()) else { continue };
            let Some(runs) = runs.remove(&index) else { continue };
            if let Some(pieces) = tile(runs, len) {
                for (i, (start, piece)) in pieces.iter().enumerate() {
                    debug_assert!(piece.view.run().is_some_and(|run| run.start == *start));
                    found.starts.insert((index, *start), i);
                }
                found.pieces.insert(index, pieces.into_iter().map(|(_, piece)| piece).collect());
            }
        }
        Ok(found)
    }

    /// The tensors that make up a storage.
    pub(super) fn of(&self, storage: usize) -> Option<&[Piece]> {
        self.pieces.get(&storage).map(Vec::as_slice)
    }

    /// The name of the tensor that is this very view, row-major.
    pub(super) fn name_of(&self, storage: usize, view: &View) -> Option<&str> {
        let run = view.run()?;
        let piece = &self.pieces.get(&storage)?[*self.starts.get(&(storage, run.start))?];
        let same = piece.view.dtype == view.dtype
            && piece.view.size == view.size
            && piece.view.offset == view.offset
            && shape::row_major_strides(&view.size) == view.strides;
        same.then_some(piece.name.as_str())
    }
}

/// Runs `(start, end, name, view)` that make up `len` bytes.
fn tile(mut runs: Vec<(u64, u64, &str, View)>, len: u64) -> Option<Vec<(u64, Piece)>> {
    let piece = |name: &str, view| Piece { name: name.to_owned(), view };
    if let Some(i) = runs.iter().position(|(start, end, ..)| (*start, *end) == (0, len)) {
        let (start, _, name, view) = runs.swap_remove(i);
        return Some(vec![(start, piece(name, view))]);
    }
    // Stable: of those that start at one byte the first stays first.
    runs.sort_by_key(|(start, ..)| *start);
    let mut pieces = Vec::new();
    let mut at = 0;
    for (start, end, name, view) in runs {
        if start == at && end > start {
            pieces.push((start, piece(name, view)));
            at = end;
        }
    }
    (at == len && !pieces.is_empty()).then_some(pieces)
}
