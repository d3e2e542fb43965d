//! Shapes, strides and boxes, in checked arithmetic.

use crate::error::{Error, Result};

/// The most dimensions that a tensor of a checkpoint may have (torch's own bound).
pub const MAX_DIMS: usize = 64;

/// The number of elements of `shape`: 1 for a scalar (`[]`).
///
/// # Errors
/// [`Malformed`](crate::ErrorKind::Malformed) when there are more than [`MAX_DIMS`] dimensions, or
/// when a dimension or the product of the non-zero ones does not fit an `i64`: every framework
/// needs that, and it makes the answer independent of the order of multiplication.
pub fn numel(shape: &[u64]) -> Result<u64> {
    if shape.len() > MAX_DIMS {
        return Err(Error::malformed(format!(
            "shape has {} dimensions, at most {MAX_DIMS} are possible",
            shape.len()
        )));
    }
    let overflow =
        || Error::malformed(format!("shape {shape:?} has more elements than an i64 can count"));
    let mut product: u64 = 1;
    let mut empty = false;
    for &dim in shape {
        if dim == 0 {
            empty = true;
            continue;
        }
        product =
            product.checked_mul(dim).filter(|p| i64::try_from(*p).is_ok()).ok_or_else(overflow)?;
    }
    Ok(if empty { 0 } else { product })
}

/// Row-major strides of `shape`, in elements. The shape must have passed [`numel`].
#[must_use]
pub fn row_major_strides(shape: &[u64]) -> Vec<u64> {
    let mut strides = vec![1_u64; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i].saturating_mul(shape[i].max(1));
    }
    strides
}

/// Whether elements with these strides lie row-major without gaps. Strides of dimensions of size 1
/// do not matter, and a tensor without elements is contiguous.
#[must_use]
pub fn is_row_major(shape: &[u64], strides: &[u64]) -> bool {
    if shape.contains(&0) {
        return true;
    }
    let mut expected = 1;
    for (&dim, &stride) in shape.iter().zip(strides).rev() {
        if dim != 1 {
            if stride != expected {
                return false;
            }
            expected *= dim;
        }
    }
    true
}

/// The number of elements that a storage must have for a view: one past the highest element used.
/// Zero when the view has no elements, whatever the offset.
///
/// # Errors
/// `Malformed` when ranks differ or the arithmetic leaves `u64`.
pub fn view_extent(offset: u64, shape: &[u64], strides: &[u64]) -> Result<u64> {
    if shape.len() != strides.len() {
        return Err(Error::malformed(format!(
            "shape {shape:?} and strides {strides:?} have different numbers of dimensions"
        )));
    }
    if numel(shape)? == 0 {
        return Ok(0);
    }
    shape
        .iter()
        .zip(strides)
        .try_fold(offset, |end, (&dim, &stride)| end.checked_add((dim - 1).checked_mul(stride)?))
        .and_then(|end| end.checked_add(1))
        .ok_or_else(|| {
            Error::malformed(format!(
                "view of shape {shape:?}, strides {strides:?}, offset {offset} overflows"
            ))
        })
}

/// A box inside a tensor: where it starts and how far it reaches in every dimension, in elements.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Region {
    /// The first element, one index a dimension.
    pub offsets: Vec<u64>,
    /// The number of elements, one count a dimension.
    pub sizes: Vec<u64>,
}

impl Region {
    /// All of a tensor of this shape.
    #[must_use]
    pub fn whole(shape: &[u64]) -> Self {
        Self { offsets: vec![0; shape.len()], sizes: shape.to_vec() }
    }

    /// Whether the box holds no element.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sizes.contains(&0)
    }

    /// What two boxes of equal rank share, or `None` when that is nothing.
    #[must_use]
    pub fn intersect(&self, other: &Self) -> Option<Self> {
        let mut offsets = Vec::with_capacity(self.offsets.len());
        let mut sizes = Vec::with_capacity(self.offsets.len());
        for i in 0..self.offsets.len() {
            let start = self.offsets[i].max(other.offsets[i]);
            let end = (self.offsets[i] + self.sizes[i]).min(other.offsets[i] + other.sizes[i]);
            if start >= end {
                return None;
            }
            offsets.push(start);
            sizes.push(end - start);
        }
        Some(Self { offsets, sizes })
    }
}

/// Cuts the elements `start..end` of a row-major tensor into at most `2 × rank` boxes, in order.
#[must_use]
pub fn boxes_of_range(shape: &[u64], start: u64, end: u64) -> Vec<Region> {
    let mut out = Vec::new();
    if start >= end {
        return out;
    }
    let strides = row_major_strides(shape);
    let rank = shape.len();
    let coords = |mut linear: u64| -> Vec<u64> {
        strides
            .iter()
            .map(|&s| {
                let c = linear / s;
                linear %= s;
                c
            })
            .collect()
    };
    let mut at = start;
    while at < end {
        // The largest dimension `d` such that `at` starts a whole row of it and one row fits.
        let here = coords(at);
        let mut d = rank;
        while d > 0 && strides[d - 1] <= end - at && here[d..].iter().all(|&c| c == 0) {
            d -= 1;
        }
        let mut offsets = here.clone();
        let mut sizes = vec![1; rank];
        if d == rank {
            // A scalar: nothing to count.
            out.push(Region { offsets, sizes });
            at += 1;
            continue;
        }
        let rows = ((end - at) / strides[d]).min(shape[d] - here[d]).max(1);
        sizes[d] = rows;
        for k in d + 1..rank {
            offsets[k] = 0;
            sizes[k] = shape[k];
        }
        out.push(Region { offsets, sizes });
        at += rows * strides[d];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn element_counts() {
        assert_eq!(numel(&[]).unwrap(), 1);
        assert_eq!(numel(&[2, 0, 3]).unwrap(), 0);
        assert!(numel(&[1 << 63, 1 << 63, 0]).is_err());
        assert!(numel(&[0, 1 << 63, 1 << 63]).is_err());
        assert!(numel(&[1; 65]).is_err());
    }

    #[test]
    fn extents() {
        assert_eq!(view_extent(3, &[2, 2], &[4, 1]).unwrap(), 9);
        assert_eq!(view_extent(u64::MAX, &[0], &[1]).unwrap(), 0);
        assert!(view_extent(0, &[2], &[u64::MAX]).is_err());
        assert!(view_extent(0, &[2], &[1, 1]).is_err());
    }

    #[test]
    fn contiguity_ignores_dimensions_of_one() {
        assert!(is_row_major(&[2, 1, 3], &[3, 99, 1]));
        assert!(!is_row_major(&[2, 3], &[1, 2]));
        assert!(is_row_major(&[0, 3], &[7, 7]));
    }

    proptest! {
        #[test]
        fn boxes_cover_the_range_in_order(shape in prop::collection::vec(1u64..5, 0..4), a in 0u64..200, b in 0u64..200) {
            let n = numel(&shape).unwrap();
            let (start, end) = (a.min(b).min(n), a.max(b).min(n));
            let strides = row_major_strides(&shape);
            let mut seen = Vec::new();
            let boxes = boxes_of_range(&shape, start, end);
            prop_assert!(boxes.len() <= 2 * shape.len() + 1);
            for b in boxes {
                let count = numel(&b.sizes).unwrap();
                let inner = row_major_strides(&b.sizes);
                for i in 0..count {
                    let mut rest = i;
                    let mut linear = 0;
                    for d in 0..shape.len() {
                        linear += (b.offsets[d] + rest / inner[d]) * strides[d];
                        rest %= inner[d];
                    }
                    seen.push(linear);
                }
            }
            prop_assert_eq!(seen, (start..end).collect::<Vec<_>>());
        }
    }
}
