//! Chunks to tensors.

use std::sync::Arc;

use ckptkit_core::{
    Chunk, Deferred, Error, Region, Resolve, Result, Section, Tensor, TensorBytes, TensorInfo,
};

use crate::item::{ChunkItem, Items};
use crate::megatron;
use crate::metadata::{ChunkRef, Entry, Tables, TensorRow};
use crate::region::{self, BoxRef};

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
) -> Result<Tensor> {
    let bytes = match &entry.fault {
        Some(e) => Err(e.clone()),
        None => bytes(tables, items, entry, row),
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
) -> Result<TensorBytes> {
    check(tables, row)?;
    let size = tables.size(row);
    if size.contains(&0) {
        return Ok(TensorBytes::Range(Section::from_bytes([], "no elements")));
    }
    let live: Vec<ChunkRef<'_>> = tables.chunks(row).filter(|c| !c.sizes.contains(&0)).collect();
    let parts = live.iter().map(|&c| chunk(items, entry, row, c)).collect::<Result<Vec<_>>>()?;
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

/// Checks that the chunks tile the tensor and that each is stored.
pub(crate) fn check(tables: &Tables, row: &TensorRow) -> Result<()> {
    let boxes: Vec<BoxRef<'_>> = tables.chunks(row).map(|c| (c.offsets, c.sizes)).collect();
    region::check_tiling(tables.size(row), &boxes)?;
    for c in tables.chunks(row) {
        if !c.item.is_stored() && !c.sizes.contains(&0) {
            return Err(Error::malformed(format!(
                "storage_data has no place for the chunk at {:?}",
                c.offsets
            ))
            .hint("the metadata belongs to another save, or the save did not finish"));
        }
    }
    Ok(())
}

fn chunk(items: &Arc<Items>, entry: &Entry, row: &TensorRow, c: ChunkRef<'_>) -> Result<Tensor> {
    let info = TensorInfo::new(entry.fqn.as_str(), row.dtype, c.sizes)?;
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
