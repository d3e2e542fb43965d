//! Packed elements (4 and 6 bits) that are not one run of bytes, by way of the bytes that hold
//! them.

use std::io;
use std::sync::Arc;

use ckptkit_core::{Dtype, Error, ReadAt, Result, Section, Tensor, TensorBytes, TensorInfo};

/// The bytes of a tensor as a source, so that a tensor of another dtype can lie in them.
struct TensorSourceBytes(Tensor);

impl ReadAt for TensorSourceBytes {
    fn size(&self) -> u64 {
        self.0.byte_len()
    }
    fn read_exact_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_into(offset, out).map_err(io::Error::other)
    }
    fn as_slice(&self, range: std::ops::Range<u64>) -> Option<&[u8]> {
        let bytes = self.0.as_slice()?;
        bytes.get(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?)
    }
    fn name(&self) -> &str {
        self.0.name()
    }
}

/// A length along the last dimension of a packed tensor, in bytes.
pub(crate) fn last_dim_bytes(dtype: Dtype, elements: u64) -> Result<u64> {
    let bits = u128::from(elements) * u128::from(dtype.bits());
    match u64::try_from(bits / 8) {
        Ok(bytes) if bits % 8 == 0 => Ok(bytes),
        _ => Err(Error::invalid(format!(
            "{elements} elements of {dtype} along the last dimension do not end on a byte boundary"
        ))
        .hint(format!("packed {dtype} can be cut at whole bytes only"))),
    }
}

/// `shape` with its last dimension counted in bytes.
pub(crate) fn byte_shape(dtype: Dtype, shape: &[u64]) -> Result<Vec<u64>> {
    let mut shape = shape.to_vec();
    if let Some(last) = shape.last_mut() {
        *last = last_dim_bytes(dtype, *last)?;
    }
    Ok(shape)
}

/// A tensor of `info` whose bytes are those of the `U8` tensor `bytes`.
pub(crate) fn over_bytes(info: TensorInfo, bytes: Tensor) -> Result<Tensor> {
    Tensor::new(info, TensorBytes::Range(Section::new(Arc::new(TensorSourceBytes(bytes)))))
}
