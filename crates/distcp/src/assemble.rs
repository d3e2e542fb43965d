//! Chunks to tensors.

use std::sync::Arc;

use ckptkit_core::{
    Chunk, Deferred, Dtype, Error, Limits, Region, Resolve, Result, Section, Tensor, TensorBytes,
    TensorInfo, Transform,
};

use crate::item::{ChunkItem, Items};
use crate::metadata::{ChunkRef, Entry, EntryKind, ItemAt, Tables, TensorRow};
use crate::opened::Opened;
use crate::region::{self, BoxRef};
use crate::rules::Rules;
use crate::{holes, megatron, zeros};

/// How far zstd shrinks weights at most; what claims more is looked into.
const PLAUSIBLE_RATIO: u64 = 256;

/// The tensor that an entry's chunks make; nothing of it is read, unless an item is so short that
/// only looking into it can tell whether it holds its chunk. What keeps it from being read is kept
/// in it, as [`TensorBytes::Broken`].
pub(crate) fn tensor(
    opened: &Arc<Opened>,
    index: u32,
    row: &TensorRow,
    info: &TensorInfo,
) -> Result<Tensor> {
    let entry = &opened.tables.entries[index as usize];
    let bytes = match &entry.fault {
        Some(e) => Err(e.clone()),
        None => bytes(opened, index, row, info),
    };
    let bytes = bytes.unwrap_or_else(|e| {
        TensorBytes::Broken(
            e.within(format_args!("tensor {}", entry.fqn)).in_file(opened.items.files.root()),
        )
    });
    Tensor::new(info.clone(), bytes)
}

fn bytes(
    opened: &Arc<Opened>,
    index: u32,
    row: &TensorRow,
    info: &TensorInfo,
) -> Result<TensorBytes> {
    let (tables, items, dtype) = (&opened.tables, &opened.items, info.dtype());
    let entry = &tables.entries[index as usize];
    let size = tables.size(row);
    if let (Some(whole), None) = (tables.whole(row), &row.reformulated) {
        return chunk_bytes(items, info, whole);
    }
    let missing = check(tables, row, opened.rules)?;
    if size.contains(&0) {
        return Ok(TensorBytes::Range(Section::from_bytes([], "no elements")));
    }
    if missing.is_empty() && row.reformulated.is_none() && are_long_enough(tables, row, dtype) {
        let boxes = Boxes { opened: Arc::clone(opened), index };
        return Ok(TensorBytes::Deferred(Deferred::new(Arc::new(boxes))));
    }
    let mut live = live(tables, row);
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
    Ok(placed(&live, parts))
}

/// The chunks with elements.
fn live<'a>(tables: &'a Tables, row: &TensorRow) -> Vec<ChunkRef<'a>> {
    tables.chunks(row).filter(|c| !c.sizes.contains(&0)).collect()
}

/// Chunks where they lie in their tensor.
fn placed(live: &[ChunkRef<'_>], parts: Vec<Tensor>) -> TensorBytes {
    if let [whole] = &parts[..] {
        return whole.bytes().clone();
    }
    let chunks = live.iter().zip(parts).map(|(c, tensor)| Chunk {
        region: Region { offsets: c.offsets.to_vec(), sizes: c.sizes.to_vec() },
        tensor,
    });
    TensorBytes::Chunks(chunks.collect())
}

/// The boxes of a tensor that is known to be whole: made when they are first wanted, since listing
/// a checkpoint of a thousand ranks wants none of a million.
struct Boxes {
    opened: Arc<Opened>,
    index: u32,
}

impl Resolve for Boxes {
    fn resolve(&self, info: &TensorInfo) -> Result<(TensorBytes, Transform)> {
        let Opened { tables, items, .. } = &*self.opened;
        let entry = &tables.entries[self.index as usize];
        let EntryKind::Tensor(row) = &entry.kind else {
            return Err(Error::invalid("it is no tensor"));
        };
        let live = live(tables, row);
        let parts = live.iter().map(|&c| chunk(items, entry, info.dtype(), c));
        let parts = parts.collect::<Result<Vec<_>>>()?;
        Ok((placed(&live, parts), Transform::default()))
    }
}

/// The dtype of a tensor whose items are believed, where they are, and what is said of it.
pub(crate) fn believed(opened: &Opened, entry: &Entry) -> Option<(Dtype, String)> {
    let EntryKind::Tensor(row) = &entry.kind else { return None };
    if !opened.rules.item_dtypes || entry.fault.is_some() {
        return None;
    }
    let dtype = dtype_of_items(&opened.tables, &opened.items, entry)?;
    let note = format!(
        "{}: its items hold {dtype} elements, the metadata says {}; the items are believed",
        entry.fqn, row.dtype
    );
    Some((dtype, note))
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
    let bytes = chunk_bytes(items, &info, c)?;
    Tensor::new(info, bytes)
}

/// Where a chunk's bytes lie, which `info` describes.
fn chunk_bytes(items: &Arc<Items>, info: &TensorInfo, c: ChunkRef<'_>) -> Result<TensorBytes> {
    let resolver: Arc<dyn Resolve> =
        Arc::new(ChunkItem { items: Arc::clone(items), at: c.item, offsets: c.offsets.into() });
    let bytes = TensorBytes::Deferred(Deferred::new(resolver));
    if !is_long_enough(c.item, info.byte_len()) {
        Tensor::new(info.clone(), bytes.clone())?.resolve()?;
    }
    Ok(bytes)
}

/// Whether there are several chunks, and no item needs to be looked into.
fn are_long_enough(tables: &Tables, row: &TensorRow, dtype: Dtype) -> bool {
    let mut several = 0;
    let mut live = tables.chunks(row).filter(|c| !c.sizes.contains(&0));
    let all = live.all(|c| {
        several += 1;
        let bytes = dtype.byte_len(c.sizes.iter().product());
        bytes.is_some_and(|n| is_long_enough(c.item, n))
    });
    all && several > 1
}

/// Whether an item may hold so many bytes as far as its length tells. Before anyone allocates by a
/// number of the metadata alone: one that is shorter than its chunk must be one that is compressed.
fn is_long_enough(item: ItemAt, bytes: u64) -> bool {
    let most = match item.transform {
        0 => item.length,
        _ => item.length.saturating_mul(PLAUSIBLE_RATIO),
    };
    most >= bytes
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
