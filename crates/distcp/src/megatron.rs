//! What Megatron-Core keeps differently: optimizer state as flattened blocks, and the backend's
//! name in `metadata.json`.

use std::sync::Arc;

use ckptkit_core::{
    Chunk, Deferred, Error, Region, Resolve, Result, Section, Tensor, TensorBytes, TensorInfo,
    Transform, shape,
};

use crate::metadata::ChunkRef;

/// The most boxes that one tensor's flattened shards may be cut into.
const MAX_BLOCKS: u64 = 1 << 22;

/// Chunks of a tensor of `shape` from those of its reformulation: a grid of blocks, each flattened
/// to one vector. `size` is `[g0, …, gk, n]`; the block at `(i0, …, ik)` has `shape[d] / g[d]`
/// elements in dimension `d`, `n` in all, and a stored chunk holds some range of them.
///
/// Source of truth: `nd_flattened_tensor_reformulated_global_shape` in
/// `megatron/core/dist_checkpointing/strategies/resharding.py` (0.12.3).
pub(crate) fn blocks(
    size: &[u64],
    shape: &[u64],
    parts: Vec<(ChunkRef<'_>, Tensor)>,
) -> Result<Vec<Chunk>> {
    let block = block_shape(size, shape)?;
    let rank = block.len();
    let mut out = Vec::new();
    for (c, base) in parts {
        let (first, len) = (c.offsets[rank], c.sizes[rank]);
        let cells = shape::numel(&c.sizes[..rank])?;
        let pieces = shape::boxes_of_range(&block, first, first + len);
        if (out.len() as u64).saturating_add(cells.saturating_mul(pieces.len() as u64)) > MAX_BLOCKS
        {
            return Err(Error::limit(format!(
                "its flattened shards are cut into more than {MAX_BLOCKS} pieces"
            )));
        }
        let strides = shape::row_major_strides(&c.sizes[..rank]);
        for cell in 0..cells {
            let mut start = cell * len;
            let mut rest = cell;
            let corner: Vec<u64> = (0..rank)
                .map(|d| {
                    let at = rest / strides[d];
                    rest %= strides[d];
                    (c.offsets[d] + at) * block[d]
                })
                .collect();
            for piece in &pieces {
                let offsets = corner.iter().zip(&piece.offsets).map(|(a, b)| a + b).collect();
                let region = Region { offsets, sizes: piece.sizes.clone() };
                let info = TensorInfo::new(base.name(), base.dtype(), piece.sizes.clone())?;
                let numel = info.numel();
                let slice: Arc<dyn Resolve> = Arc::new(Slice { base: base.clone(), start });
                let tensor = Tensor::new(info, TensorBytes::Deferred(Deferred::new(slice)))?;
                out.push(Chunk { region, tensor });
                start += numel;
            }
        }
    }
    Ok(out)
}

fn block_shape(size: &[u64], shape: &[u64]) -> Result<Vec<u64>> {
    let refuse = || {
        Error::malformed(format!(
            "a grid of flattened blocks {size:?} does not make a tensor of shape {shape:?}"
        ))
    };
    let (n, grid) = size.split_last().ok_or_else(refuse)?;
    if grid.len() != shape.len() {
        return Err(refuse());
    }
    let mut block = Vec::with_capacity(grid.len());
    for (&g, &s) in grid.iter().zip(shape) {
        if g == 0 || s % g != 0 {
            return Err(refuse());
        }
        block.push(s / g);
    }
    if shape::numel(&block)? == *n { Ok(block) } else { Err(refuse()) }
}

/// A run of elements of a stored vector.
struct Slice {
    base: Tensor,
    start: u64,
}

impl Resolve for Slice {
    fn resolve(&self, info: &TensorInfo) -> Result<(TensorBytes, Transform)> {
        let base = self.base.resolve()?;
        let at = base
            .dtype()
            .byte_len(self.start)
            .filter(|_| base.dtype().element_bytes().is_some())
            .ok_or_else(|| Error::unsupported("flattened blocks of packed elements"))?;
        if let TensorBytes::Range(section) = base.bytes() {
            let part = section.slice(at, info.byte_len())?;
            return Ok((TensorBytes::Range(part), base.transform()));
        }
        // No writer is known to leave a flattened shard strided.
        let len = usize::try_from(info.byte_len())
            .map_err(|_| Error::limit("a block is larger than this machine's memory can be"))?;
        let mut bytes = vec![0; len];
        base.read_into(at, &mut bytes)?;
        let part = Section::from_bytes(bytes, base.name());
        Ok((TensorBytes::Range(part), Transform::default()))
    }
}

/// The value of `"sharded_backend"` in a `metadata.json`: a flat object of strings and numbers,
/// so that a search for the key is enough.
pub(crate) fn sharded_backend(json: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(json).ok()?;
    let (_, after) = text.split_once("\"sharded_backend\"")?;
    let value = after.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?;
    Some(value.split_once('"')?.0.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ckptkit_core::Dtype;

    fn vector(values: &[u8], sizes: &[u64]) -> Tensor {
        let info = TensorInfo::new("t", Dtype::U8, sizes).unwrap();
        let bytes = TensorBytes::Range(Section::from_bytes(values, "t"));
        Tensor::new(info, bytes).unwrap()
    }

    fn whole(size: &[u64], shape: &[u64], parts: &[(&[u64], &[u64], &[u8])]) -> Result<Vec<u8>> {
        let parts = parts
            .iter()
            .map(|&(offsets, sizes, values)| {
                let item = crate::metadata::ItemAt::NONE;
                (ChunkRef { offsets, sizes, item }, vector(values, sizes))
            })
            .collect();
        let chunks = blocks(size, shape, parts)?;
        let info = TensorInfo::new("t", Dtype::U8, shape)?;
        Tensor::new(info, TensorBytes::Chunks(chunks.into()))?.read()
    }

    #[test]
    fn blocks_are_laid_side_by_side() {
        // Two column blocks of 4 x 3 each, flattened, make 4 x 6.
        let left: Vec<u8> = (0..12).map(|i| i / 3 * 6 + i % 3).collect();
        let right: Vec<u8> = left.iter().map(|v| v + 3).collect();
        let all: Vec<u8> = (0..24).collect();
        let got = whole(
            &[1, 2, 12],
            &[4, 6],
            &[(&[0, 0, 0], &[1, 1, 12], &left), (&[0, 1, 0], &[1, 1, 12], &right)],
        );
        assert_eq!(got.unwrap(), all);
        // The same with the right block cut in the middle of a row, and both grid cells in one.
        let got = whole(
            &[1, 2, 12],
            &[4, 6],
            &[
                (&[0, 0, 0], &[1, 1, 12], &left),
                (&[0, 1, 0], &[1, 1, 5], &right[..5]),
                (&[0, 1, 5], &[1, 1, 7], &right[5..]),
            ],
        );
        assert_eq!(got.unwrap(), all);
        let both = [left, right].concat();
        let got = whole(&[1, 2, 12], &[4, 6], &[(&[0, 0, 0], &[1, 2, 12], &both)]);
        assert_eq!(got.unwrap(), all);
    }

    #[test]
    fn one_dimension_is_cut_straight() {
        let got = whole(&[1, 4], &[4], &[(&[0, 0], &[1, 3], &[1, 2, 3]), (&[0, 3], &[1, 1], &[4])]);
        assert_eq!(got.unwrap(), [1, 2, 3, 4]);
    }

    #[test]
    fn a_grid_that_does_not_fit_is_refused() {
        for (size, shape) in [
            (&[1, 2, 12][..], &[4, 7][..]),
            (&[1, 2, 11], &[4, 6]),
            (&[2, 12], &[4, 6]),
            (&[], &[]),
            (&[0, 4], &[4]),
        ] {
            let e = block_shape(size, shape).unwrap_err().to_string();
            assert!(e.contains("does not make"), "{e}");
        }
    }

    #[test]
    fn backend() {
        assert_eq!(sharded_backend(br#"{"sharded_backend" : "zarr", "x": 1}"#).unwrap(), "zarr");
        assert_eq!(sharded_backend(b"{}"), None);
    }
}
