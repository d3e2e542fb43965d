//! Boxes of tensors as tensors of their own. Nothing is read, and what is deferred stays so.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use crate::dtype::Dtype;
use crate::error::{Error, Result, ResultExt};
use crate::read_at::ReadAt;
use crate::section::Section;
use crate::shape::{Region, row_major_strides};
use crate::tensor::{
    Chunk, Deferred, Resolve, Strided, Tensor, TensorBytes, TensorInfo, Transform,
};

impl Tensor {
    /// The box `region` (in elements) of this tensor as a lazy tensor of the same name and of shape
    /// `region.sizes`. One run of bytes stays one. Nothing is read or opened: a box of what is
    /// deferred is deferred, and one of chunks keeps those that it meets.
    ///
    /// Packed elements (below 8 bits) can be cut where whole bytes are on both sides.
    ///
    /// ```
    /// use ckptkit_core::{Dtype, Region, Section, Tensor, TensorBytes, TensorInfo};
    ///
    /// # fn main() -> ckptkit_core::Result<()> {
    /// let bytes = Section::from_bytes([0, 1, 2, 3, 4, 5], "memory");
    /// let info = TensorInfo::new("t", Dtype::U8, [2, 3])?;
    /// let whole = Tensor::new(info, TensorBytes::Range(bytes))?;
    /// let columns = whole.region(&Region { offsets: vec![0, 1], sizes: vec![2, 2] })?;
    /// assert_eq!(columns.read()?, [1, 2, 4, 5]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`InvalidArgument`](crate::ErrorKind::InvalidArgument) for a box that does not lie in the
    /// tensor, and where packed elements would be cut inside a byte.
    pub fn region(&self, region: &Region) -> Result<Self> {
        cut(self, region).within(|| format!("tensor {}", self.name()))
    }
}

fn cut(tensor: &Tensor, region: &Region) -> Result<Tensor> {
    let (shape, dtype) = (tensor.shape(), tensor.dtype());
    let inside = region.offsets.len() == shape.len()
        && region.sizes.len() == shape.len()
        && (region.offsets.iter().zip(&region.sizes).zip(shape))
            .all(|((&o, &s), &dim)| o.checked_add(s).is_some_and(|end| end <= dim));
    if !inside {
        return Err(Error::invalid(format!(
            "the box of {:?} elements from {:?} does not lie in shape {shape:?}",
            region.sizes, region.offsets
        )));
    }
    if region.sizes == shape {
        return Ok(tensor.clone());
    }
    let info = tensor.info().reshaped(region.sizes.as_slice())?;
    let packed = dtype.element_bytes().is_none();
    if packed && !region.is_empty() {
        check_packed(dtype, shape, region)?;
    }
    let bytes = match tensor.bytes() {
        bytes @ (TensorBytes::None(_) | TensorBytes::Broken(_)) => bytes.clone(),
        _ if region.is_empty() => TensorBytes::Range(Section::from_bytes([], "no elements")),
        TensorBytes::Deferred(_) => deferred(tensor, region.clone()),
        TensorBytes::Cast(source) => TensorBytes::Cast(Box::new(cut(source, region)?)),
        TensorBytes::Chunks(chunks) => return of_chunks(info, tensor, chunks, region),
        TensorBytes::Range(section) if packed => {
            TensorBytes::Range(of_packed(section, dtype, shape, region)?)
        }
        TensorBytes::Range(section) => {
            let strides = row_major_strides(shape);
            view(&Strided { storage: section.clone(), offset: 0, strides }, region)?
        }
        TensorBytes::Strided(strided) => view(strided, region)?,
    };
    Tensor::with_transform(info, bytes, tensor.transform())
}

fn view(of: &Strided, region: &Region) -> Result<TensorBytes> {
    let offset = region
        .offsets
        .iter()
        .zip(&of.strides)
        .try_fold(of.offset, |at, (&o, &s)| at.checked_add(o.checked_mul(s)?))
        .ok_or_else(|| Error::malformed("the offset of the view overflows"))?;
    Ok(TensorBytes::Strided(Strided { offset, ..of.clone() }))
}

/// What lies in the box of each chunk, placed in it.
fn of_chunks(
    info: TensorInfo,
    tensor: &Tensor,
    chunks: &[Chunk],
    region: &Region,
) -> Result<Tensor> {
    let minus = |a: &[u64], b: &[u64]| a.iter().zip(b).map(|(x, y)| x - y).collect::<Vec<u64>>();
    let inner = |chunk: &Chunk, shared: &Region| Region {
        offsets: minus(&shared.offsets, &chunk.region.offsets),
        sizes: shared.sizes.clone(),
    };
    let place = |chunk: &Chunk| format!("chunk at {:?}", chunk.region.offsets);
    let met: Vec<(&Chunk, Region)> = chunks
        .iter()
        .filter(|chunk| meet(&chunk.region, region))
        .filter_map(|chunk| Some((chunk, chunk.region.intersect(region)?)))
        .collect();
    if let [(chunk, shared)] = &met[..] {
        if shared.sizes == region.sizes {
            let inner = inner(chunk, shared);
            if matches!(chunk.tensor.bytes(), TensorBytes::Deferred(_)) {
                return Tensor::new(info, deferred(&chunk.tensor, inner));
            }
            let part = cut(&chunk.tensor, &inner).within(|| place(chunk))?;
            return Tensor::with_transform(info, part.bytes().clone(), part.transform());
        }
    }
    let parts = met.into_iter().map(|(chunk, shared)| {
        let tensor = cut(&chunk.tensor, &inner(chunk, &shared)).within(|| place(chunk))?;
        let region =
            Region { offsets: minus(&shared.offsets, &region.offsets), sizes: shared.sizes };
        Ok(Chunk { region, tensor })
    });
    let parts = TensorBytes::Chunks(parts.collect::<Result<_>>()?);
    Tensor::with_transform(info, parts, tensor.transform())
}

/// Whether two boxes of equal rank share an element; allocates nothing.
fn meet(a: &Region, b: &Region) -> bool {
    (0..a.offsets.len()).all(|d| {
        a.offsets[d].max(b.offsets[d]) < (a.offsets[d] + a.sizes[d]).min(b.offsets[d] + b.sizes[d])
    })
}

/// A box of a tensor that is deferred, which is found by its own description.
pub(crate) fn deferred(whole: &Tensor, region: Region) -> TensorBytes {
    TensorBytes::Deferred(Deferred::new(Arc::new(Part { whole: whole.clone(), region })))
}

struct Part {
    whole: Tensor,
    region: Region,
}

impl Resolve for Part {
    fn resolve(&self, _: &TensorInfo) -> Result<(TensorBytes, Transform)> {
        let part = cut(&self.whole.resolve()?, &self.region)?.resolve()?;
        Ok((part.bytes().clone(), part.transform()))
    }
}

/// The bytes of a tensor as a source, so that packed elements can lie in them.
struct BytesOf(Tensor);

impl ReadAt for BytesOf {
    fn size(&self) -> u64 {
        self.0.byte_len()
    }

    fn read_exact_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_into(offset, out).map_err(io::Error::other)
    }

    fn as_slice(&self, range: Range<u64>) -> Option<&[u8]> {
        let bytes = self.0.as_slice()?;
        bytes.get(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?)
    }

    fn name(&self) -> &str {
        self.0.name()
    }
}

/// Whole rows as runs of elements: where the box starts and its length; `None` for other boxes.
fn rows(shape: &[u64], region: &Region) -> Option<(u64, u64)> {
    let row: u64 = shape.iter().skip(1).product();
    let whole = region.sizes.iter().zip(shape).skip(1).all(|(s, d)| s == d);
    Some((region.offsets.first()? * row, region.sizes.first()? * row)).filter(|_| whole)
}

/// Checks that whole bytes hold a box of packed elements: along the last dimension, or as rows that
/// are one run of bits.
fn check_packed(dtype: Dtype, shape: &[u64], region: &Region) -> Result<()> {
    if rows(shape, region).is_some_and(|(at, n)| dtype.fills_bytes(at) && dtype.fills_bytes(n)) {
        return Ok(());
    }
    for dims in [shape, &region.offsets, &region.sizes] {
        byte_shape(dtype, dims)?;
    }
    Ok(())
}

/// `shape` with its last dimension counted in bytes.
fn byte_shape(dtype: Dtype, shape: &[u64]) -> Result<Vec<u64>> {
    let mut shape = shape.to_vec();
    if let Some(last) = shape.last_mut() {
        let bytes = dtype.byte_len(*last).filter(|_| dtype.fills_bytes(*last));
        *last = bytes.ok_or_else(|| {
            Error::invalid(format!(
                "{last} elements of {dtype} along the last dimension do not end on a byte boundary"
            ))
            .hint(format!("packed {dtype} can be cut at whole bytes only"))
        })?;
    }
    Ok(shape)
}

/// The box of a run of packed elements, which passed [`check_packed`].
fn of_packed(section: &Section, dtype: Dtype, shape: &[u64], region: &Region) -> Result<Section> {
    if let Some((at, n)) = rows(shape, region) {
        if let (Some(at), Some(n), true) =
            (dtype.byte_len(at), dtype.byte_len(n), dtype.fills_bytes(at))
        {
            return section.slice(at, n);
        }
    }
    let info = TensorInfo::new("packed", Dtype::U8, byte_shape(dtype, shape)?)?;
    let whole = Tensor::new(info, TensorBytes::Range(section.clone()))?;
    let bytes = Region {
        offsets: byte_shape(dtype, &region.offsets)?,
        sizes: byte_shape(dtype, &region.sizes)?,
    };
    let part = cut(&whole, &bytes)?;
    match part.contiguous() {
        Some(run) => Ok(run.clone()),
        None => Ok(Section::new(Arc::new(BytesOf(part)))),
    }
}
