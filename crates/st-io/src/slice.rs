//! Parts of tensors, without reading the rest.

use std::ops::Range;
use std::sync::Arc;

use ckptkit_core::shape::row_major_strides;
use ckptkit_core::{
    Chunk, Dtype, Error, Region, Result, ResultExt, Strided, Tensor, TensorBytes, TensorInfo,
};

use crate::packed::{byte_shape, last_dim_bytes, over_bytes};

/// Rows `rows` of `tensor` along its first dimension, as a lazy tensor of the same name. Reads
/// nothing; one run of bytes stays one.
///
/// # Errors
/// [`InvalidArgument`](ckptkit_core::ErrorKind::InvalidArgument) for a scalar, for rows that are
/// not there, and where packed elements would be cut inside a byte.
pub fn slice_rows(tensor: &Tensor, rows: Range<u64>) -> Result<Tensor> {
    let Some((_, rest)) = tensor.shape().split_first() else {
        return Err(
            Error::invalid("a scalar has no rows").within(format_args!("tensor {}", tensor.name()))
        );
    };
    let Some(count) = rows.end.checked_sub(rows.start) else {
        return Err(Error::invalid(format!("rows {rows:?} end before they begin"))
            .within(format_args!("tensor {}", tensor.name())));
    };
    let mut region = Region { offsets: vec![0; rest.len() + 1], sizes: vec![count] };
    region.offsets[0] = rows.start;
    region.sizes.extend_from_slice(rest);
    slice_region(tensor, &region)
}

/// The box `region` (in elements) of `tensor`, as a lazy tensor of the same name and of shape
/// `region.sizes`. Reads nothing, unless the tensor's bytes were deferred.
///
/// # Errors
/// As [`slice_rows`].
pub fn slice_region(tensor: &Tensor, region: &Region) -> Result<Tensor> {
    cut(tensor, region).within(|| format!("tensor {}", tensor.name()))
}

fn cut(tensor: &Tensor, region: &Region) -> Result<Tensor> {
    let shape = tensor.shape();
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
    let tensor = tensor.resolve()?;
    if tensor.dtype().element_bytes().is_none() {
        return packed(&tensor, region);
    }
    let info = TensorInfo::new(tensor.name(), tensor.dtype(), region.sizes.clone())?;
    let bytes = match tensor.bytes() {
        TensorBytes::Range(storage) => strided(
            &Strided { storage: storage.clone(), offset: 0, strides: row_major_strides(shape) },
            region,
        )?,
        TensorBytes::Strided(view) => strided(view, region)?,
        TensorBytes::Chunks(chunks) => TensorBytes::Chunks(parts(chunks, region)?),
        other => other.clone(),
    };
    Tensor::with_transform(info, bytes, tensor.transform())
}

fn strided(view: &Strided, region: &Region) -> Result<TensorBytes> {
    let moved = region
        .offsets
        .iter()
        .zip(&view.strides)
        .try_fold(view.offset, |at, (&o, &s)| at.checked_add(o.checked_mul(s)?))
        .ok_or_else(|| Error::malformed("the offset of the view overflows"))?;
    Ok(TensorBytes::Strided(Strided {
        storage: view.storage.clone(),
        offset: moved,
        strides: view.strides.clone(),
    }))
}

/// What lies of each chunk in `region`, placed in it.
fn parts(chunks: &[Chunk], region: &Region) -> Result<Arc<[Chunk]>> {
    let minus = |a: &[u64], b: &[u64]| a.iter().zip(b).map(|(x, y)| x - y).collect::<Vec<u64>>();
    chunks
        .iter()
        .filter_map(|chunk| Some((chunk, chunk.region.intersect(region)?)))
        .map(|(chunk, shared)| {
            let inner = Region {
                offsets: minus(&shared.offsets, &chunk.region.offsets),
                sizes: shared.sizes.clone(),
            };
            let placed =
                Region { offsets: minus(&shared.offsets, &region.offsets), sizes: shared.sizes };
            Ok(Chunk { region: placed, tensor: cut(&chunk.tensor, &inner)? })
        })
        .collect()
}

/// Cuts packed elements as the bytes that hold them.
fn packed(tensor: &Tensor, region: &Region) -> Result<Tensor> {
    let dtype = tensor.dtype();
    let info = TensorInfo::new(tensor.name(), dtype, region.sizes.clone())?;
    let TensorBytes::Range(section) = tensor.bytes() else {
        return Err(Error::unsupported(format!("a view of packed {dtype} cannot be cut")));
    };
    if region.sizes == tensor.shape() {
        return Ok(tensor.clone());
    }
    // Whole rows are a run of bits, which may start and end at bytes though one row does not.
    let row: u64 = tensor.shape().iter().skip(1).product();
    let whole_rows = region.sizes.iter().zip(tensor.shape()).skip(1).all(|(s, d)| s == d);
    if let (true, Some(&from), Some(&count)) =
        (whole_rows, region.offsets.first(), region.sizes.first())
    {
        let start = last_dim_bytes(dtype, from * row)?;
        let len = last_dim_bytes(dtype, count * row)?;
        return Tensor::new(info, TensorBytes::Range(section.slice(start, len)?));
    }
    let whole = TensorInfo::new(tensor.name(), Dtype::U8, byte_shape(dtype, tensor.shape())?)?;
    let whole = Tensor::new(whole, TensorBytes::Range(section.clone()))?;
    let bytes = Region {
        offsets: byte_shape(dtype, &region.offsets)?,
        sizes: byte_shape(dtype, &region.sizes)?,
    };
    over_bytes(info, cut(&whole, &bytes)?)
}
