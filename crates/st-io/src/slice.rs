//! Parts of tensors, without reading the rest.

use std::ops::Range;

use ckptkit_core::{Error, Region, Result, Tensor};

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
/// `region.sizes`: [`Tensor::region`]. Reads nothing.
///
/// # Errors
/// As [`slice_rows`].
pub fn slice_region(tensor: &Tensor, region: &Region) -> Result<Tensor> {
    tensor.region(region)
}
