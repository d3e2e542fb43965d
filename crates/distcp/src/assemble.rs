//! Chunks to tensors.

use std::sync::Arc;

use ckptkit_core::{
    Chunk, Deferred, Dtype, Error, Limits, Region, Resolve, Result, Section, Tensor, TensorBytes,
    TensorInfo,
};

use crate::item::{ChunkItem, Items};
use crate::metadata::{ChunkRef, Entry, EntryKind, ItemAt, Tables, TensorRow};
use crate::region::{self, BoxRef};
use crate::rules::Rules;
use crate::{holes, megatron, zeros};

/// How far zstd shrinks weights at most; what claims more is looked into.
const PLAUSIBLE_RATIO: u64 = 256;

/// The tensor that an entry's chunks make; nothing of it is read, unless an item is so short that
/// only looking into it can tell whether it holds its chunk. What keeps it from being read is kept
/// in it, as [`TensorBytes::Broken`].
pub(crate) fn tensor(
    tables: &Tables,
    items: &Arc<Items>,
    entry: &Entry,
    row: &TensorRow,
    info: &TensorInfo,
    rules: Rules,
) -> Result<Tensor> {
    let bytes = match &entry.fault {
        Some(e) => Err(e.clone()),
        None => bytes(tables, items, entry, row, info.dtype(), rules),
    };
    let bytes = bytes.unwrap_or_else(|e| {
        TensorBytes::Broken(
            e.within(format_args!("tensor {}", entry.fqn)).in_file(items.files.root()),
        )
    });
    Tensor::new(info.clone(), bytes)
}

fn bytes(
    tables: &Tables,
    items: &Arc<Items>,
    entry: &Entry,
    row: &TensorRow,
    dtype: Dtype,
    rules: Rules,
) -> Result<TensorBytes> {
    let missing = check(tables, row, rules)?;
    let size = tables.size(row);
    if size.contains(&0) {
        return Ok(TensorBytes::Range(Section::from_bytes([], "no elements")));
    }
    let mut live: Vec<ChunkRef<'_>> =
        tables.chunks(row).filter(|c| !c.sizes.contains(&0)).collect();
    let mut parts =
        live.iter().map(|&c| chunk(items, entry, dtype, c)).collect::<Result<Vec<_>>>()?;
    if !missing.is_empty() {
        let whole = TensorInfo::new(entry.fqn.as_str(), dtype, size)?.byte_len();
        let stored = live.iter().fold(0, |sum: u64, c| sum.saturating_add(c.item.length));
        plausible(stored, whole, &items.limits)?;
        for Region { offsets, sizes } in &missing {
            let info = TensorInfo::new(entry.fqn.as_str(), dtype, sizes.clone())?;
            parts.push(zeros::tensor(info)?);
            live.push(ChunkRef { offsets, sizes, item: ItemAt::NONE });
        }
    }
    if let Some(shape) = &row.reformulated {
        let parts = live.into_iter().zip(parts).collect();
        return Ok(TensorBytes::Chunks(megatron::blocks(size, shape, parts)?.into()));
    }
    if let [whole] = &parts[..] {
        return Ok(whole.bytes().clone());
    }
    let chunks = live.iter().zip(parts).map(|(c, tensor)| Chunk {
        region: Region { offsets: c.offsets.to_vec(), sizes: c.sizes.to_vec() },
        tensor,
    });
    Ok(TensorBytes::Chunks(chunks.collect()))
}

/// Checks that the chunks tile the tensor and that each is stored. Gives what none of them holds,
/// where that is allowed.
pub(crate) fn check(tables: &Tables, row: &TensorRow, rules: Rules) -> Result<Vec<Region>> {
    let boxes: Vec<BoxRef<'_>> = tables.chunks(row).map(|c| (c.offsets, c.sizes)).collect();
    let size = tables.size(row);
    let mut missing = Vec::new();
    match region::check_tiling(size, &boxes) {
        Err(_) if rules.partial => {
            for &b in &boxes {
                region::check_inside(size, b)?;
            }
            missing = holes::find(size, &boxes)?;
            let filled: Vec<BoxRef<'_>> =
                missing.iter().map(|r| (&r.offsets[..], &r.sizes[..])).collect();
            region::check_tiling_with(size, &boxes, &filled)?;
        }
        checked => checked?,
    }
    for c in tables.chunks(row) {
        if !c.item.is_stored() && !c.sizes.contains(&0) {
            return Err(Error::malformed(format!(
                "storage_data has no place for the chunk at {:?}",
                c.offsets
            ))
            .hint("the metadata belongs to another save, or the save did not finish"));
        }
    }
    Ok(missing)
}

/// Refuses a tensor that would be little else than zeros, and many of them: a size that only the
/// metadata claims.
fn plausible(stored: u64, whole: u64, limits: &Limits) -> Result<()> {
    if whole > limits.expansion_floor && whole / limits.expansion.max(1) > stored {
        return Err(Error::limit(format!(
            "{stored} bytes are stored of a tensor of {whole}: it would be filled with zeros"
        ))
        .hint("leave it out, or raise the limit on expansion"));
    }
    Ok(())
}

fn chunk(items: &Arc<Items>, entry: &Entry, dtype: Dtype, c: ChunkRef<'_>) -> Result<Tensor> {
    let info = TensorInfo::new(entry.fqn.as_str(), dtype, c.sizes)?;
    let resolver: Arc<dyn Resolve> =
        Arc::new(ChunkItem { items: Arc::clone(items), at: c.item, offsets: c.offsets.into() });
    let tensor = Tensor::new(info, TensorBytes::Deferred(Deferred::new(resolver)))?;
    // Before anyone allocates by a number of the metadata alone: an item shorter than its chunk
    // must be one that is compressed.
    let stored = if c.item.transform == 0 {
        c.item.length
    } else {
        c.item.length.saturating_mul(PLAUSIBLE_RATIO)
    };
    if stored < tensor.byte_len() {
        tensor.resolve()?;
    }
    Ok(tensor)
}

/// The dtype of all items of a tensor, where it is not the one that the metadata gives.
///
/// Opens every item. Where one cannot be opened, reading the tensor will say why.
pub(crate) fn dtype_of_items(tables: &Tables, items: &Items, entry: &Entry) -> Option<Dtype> {
    let EntryKind::Tensor(row) = &entry.kind else { return None };
    let mut agreed = None;
    for c in tables.chunks(row).filter(|c| c.item.is_stored() && !c.sizes.contains(&0)) {
        let info = TensorInfo::new(entry.fqn.as_str(), row.dtype, c.sizes).ok()?;
        let dtype = items.dtype(c.item, &info).ok()?;
        if *agreed.get_or_insert(dtype) != dtype {
            return None;
        }
    }
    // Pairs of 4-bit floats are counted in torch, so that the shapes would mean something else.
    agreed.filter(|&d| d != row.dtype && d != Dtype::F4 && row.dtype != Dtype::F4)
}
