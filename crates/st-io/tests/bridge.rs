//! Conversions to and from the `safetensors` crate.
#![cfg(feature = "safetensors")]
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "helpers of tests")]

mod common;

use ckptkit_core::{Dtype, ErrorKind};
use common::{bytes_of, contents, pattern, tensor};
use safetensors::{SafeTensors, View};
use st_io::bridge::{TensorAdapter, from_dtype, tensor as from_view, to_dtype, view};
use st_io::{WriteOptions, layout_file};

#[test]
fn dtypes_have_the_same_names_and_widths() {
    for dtype in Dtype::all() {
        let theirs = to_dtype(dtype);
        assert_eq!(theirs.is_some(), dtype.safetensors_name().is_some());
        if let Some(theirs) = theirs {
            assert_eq!(theirs.to_string(), dtype.name());
            assert_eq!(theirs.bitsize() as u32, dtype.bits());
            assert_eq!(from_dtype(theirs), Some(dtype));
        }
    }
}

#[test]
fn tensors_there_and_back() {
    let ours = [
        tensor("a", Dtype::Bf16, &[2, 3], pattern(1, 12)),
        tensor("b", Dtype::F4, &[4], pattern(2, 2)),
        tensor("c", Dtype::I64, &[], pattern(3, 8)),
    ];
    let adapters = ours.iter().map(|t| (t.name(), TensorAdapter::new(t).unwrap()));
    let theirs = safetensors::serialize(adapters, None).unwrap();
    let layout = layout_file(&ours, &Default::default(), &WriteOptions::new()).unwrap();
    assert_eq!(theirs, bytes_of(&layout));
    let read = SafeTensors::deserialize(&theirs).unwrap();
    let back = read.iter().map(|(name, v)| from_view(name, &v));
    assert_eq!(contents(back), contents(ours.iter().cloned().map(Ok)));
    let seen = view(&ours[0]).unwrap().unwrap();
    assert_eq!((seen.shape(), View::data(&seen).len()), (&[2, 3][..], 12));
    let q = tensor("q", Dtype::Qint8, &[1], vec![0]);
    assert_eq!(TensorAdapter::new(&q).unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(view(&q).unwrap_err().kind(), ErrorKind::Unsupported);
}
