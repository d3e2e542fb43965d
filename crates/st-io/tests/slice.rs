//! Parts of tensors, against the slices of the reference crate.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "helpers of tests")]

mod common;

use ckptkit_core::{Chunk, Dtype, ErrorKind, Region, Tensor, TensorBytes, TensorInfo};
use common::{pattern, tensor};
use proptest::prelude::*;
use safetensors::slice::IndexOp;
use safetensors::tensor::{Dtype as RefDtype, TensorView};
use st_io::{slice_region, slice_rows};

fn region(offsets: &[u64], sizes: &[u64]) -> Region {
    Region { offsets: offsets.to_vec(), sizes: sizes.to_vec() }
}

proptest! {
    #[test]
    fn boxes_agree_with_the_reference(
        (rows, from, to) in cut(), (columns, left, right) in cut(), packed in any::<bool>(), chunked in any::<bool>(),
    ) {
        // Packed columns count pairs, so that every cut is at a whole byte.
        let unit = if packed { 2 } else { 1 };
        let (dtype, theirs) = if packed { (Dtype::F4, RefDtype::F4) } else { (Dtype::I16, RefDtype::I16) };
        let (columns, left, right) = (columns * unit, left * unit, right * unit);
        let len = dtype.byte_len(rows * columns).unwrap();
        let bytes = pattern(5, len);
        let view = TensorView::new(theirs, vec![rows as usize, columns as usize], &bytes).unwrap();
        let slices = view.slice((from as usize..to as usize, left as usize..right as usize)).unwrap();
        let expected: Vec<u8> = slices.flatten().copied().collect();
        let mut whole = tensor("t", dtype, &[rows, columns], bytes.clone());
        if chunked && !packed && rows > 1 {
            // The same values as two pieces, cut between rows.
            let middle = rows / 2;
            let at = (middle * columns * 2) as usize;
            let top = tensor("t", dtype, &[middle, columns], bytes[..at].to_vec());
            let bottom = tensor("t", dtype, &[rows - middle, columns], bytes[at..].to_vec());
            let chunks = [
                Chunk { region: region(&[0, 0], &[middle, columns]), tensor: top },
                Chunk { region: region(&[middle, 0], &[rows - middle, columns]), tensor: bottom },
            ];
            let info = TensorInfo::new("t", dtype, [rows, columns]).unwrap();
            whole = Tensor::new(info, TensorBytes::Chunks(chunks.into())).unwrap();
        }
        let part = slice_region(&whole, &region(&[from, left], &[to - from, right - left])).unwrap();
        prop_assert_eq!(part.shape(), [to - from, right - left]);
        prop_assert_eq!(part.read().unwrap(), expected);
        // A part of a part.
        let again = slice_rows(&part, 1..to - from).unwrap();
        let row = dtype.byte_len(right - left).unwrap() as usize;
        prop_assert_eq!(again.read().unwrap(), &part.read().unwrap()[row..]);
    }
}

/// A length, and a part of it that is not empty.
fn cut() -> impl Strategy<Value = (u64, u64, u64)> {
    (1_u64..7)
        .prop_flat_map(|n| (Just(n), 0..n))
        .prop_flat_map(|(n, a)| (Just(n), Just(a), a + 1..=n))
}

#[test]
fn rows_stay_one_run() {
    let t = tensor("t", Dtype::F32, &[4, 2], pattern(1, 32));
    let rows = slice_rows(&t, 1..3).unwrap();
    assert_eq!(rows.as_slice(), Some(&pattern(1, 32)[8..24]));
    assert!(slice_rows(&t, 4..4).unwrap().read().unwrap().is_empty());
    let scalar = tensor("s", Dtype::F32, &[], pattern(1, 4));
    assert_eq!(slice_region(&scalar, &region(&[], &[])).unwrap().read().unwrap(), pattern(1, 4));
}

#[test]
fn packed_cuts_are_at_whole_bytes() {
    let t = tensor("t", Dtype::F4, &[4, 4], (0..8).collect());
    assert_eq!(slice_rows(&t, 1..3).unwrap().as_slice(), Some(&[2, 3, 4, 5][..]));
    let columns = |from, len| slice_region(&t, &region(&[0, from], &[4, len]));
    assert_eq!(columns(2, 2).unwrap().read().unwrap(), [1, 3, 5, 7]);
    assert_eq!(columns(1, 1).unwrap_err().kind(), ErrorKind::InvalidArgument);
    assert_eq!(columns(0, 1).unwrap_err().kind(), ErrorKind::InvalidArgument);
    // Two rows of three fill three bytes, one row does not.
    let odd = tensor("t", Dtype::F4, &[4, 3], (0..6).collect());
    assert_eq!(slice_rows(&odd, 2..4).unwrap().read().unwrap(), [3, 4, 5]);
    assert!(slice_rows(&odd, 1..2).unwrap_err().to_string().contains("tensor t"));
}

#[test]
fn refusals() {
    let t = tensor("t", Dtype::U8, &[4, 2], vec![0; 8]);
    let scalar = tensor("s", Dtype::U8, &[], vec![0]);
    #[allow(clippy::reversed_empty_ranges, reason = "that is the mistake")]
    for error in [
        slice_rows(&t, 3..5).unwrap_err(),
        slice_rows(&t, 3..2).unwrap_err(),
        slice_rows(&scalar, 0..1).unwrap_err(),
        slice_region(&t, &region(&[0], &[1])).unwrap_err(),
        slice_region(&t, &region(&[u64::MAX, 0], &[1, 1])).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    }
}
