//! What is gathered, held against elements taken one by one.

use super::*;
use crate::shape::{Region, numel};
use crate::tensor::{Strided, TensorInfo};
use proptest::prelude::*;

/// Element by element, with nothing shared with the code under test.
fn slow(storage: &[u8], unit: usize, shape: &[u64], offset: u64, strides: &[u64]) -> Vec<u8> {
    let mut out = Vec::new();
    let n = numel(shape).unwrap();
    for i in 0..n {
        let (mut rest, mut at) = (i, offset);
        for d in (0..shape.len()).rev() {
            at += rest % shape[d] * strides[d];
            rest /= shape[d];
        }
        let at = at as usize * unit;
        out.extend_from_slice(&storage[at..at + unit]);
    }
    out
}

fn dtype_of(unit: usize) -> Dtype {
    [Dtype::U8, Dtype::I16, Dtype::F32, Dtype::F64, Dtype::C128][unit.trailing_zeros() as usize]
}

proptest! {
    #[test]
    fn any_cut_of_a_view_gives_its_elements(
        dims in prop::collection::vec((1u64..5, 0u64..40), 0..4),
        offset in 0u64..9,
        log in 0usize..5,
        cuts in prop::collection::vec(0u64..4000, 2),
    ) {
        let (shape, strides): (Vec<u64>, Vec<u64>) = dims.into_iter().unzip();
        let unit = 1 << log;
        let extent = crate::shape::view_extent(offset, &shape, &strides).unwrap() as usize;
        let storage: Vec<u8> = (0..extent * unit + 5).map(|i| (i * 31 % 251) as u8).collect();
        let expected = slow(&storage, unit, &shape, offset, &strides);
        let view = Strided { storage: Section::from_bytes(storage, "s"), offset, strides };
        let t = Tensor::new(TensorInfo::new("t", dtype_of(unit), shape).unwrap(), TensorBytes::Strided(view)).unwrap();
        let len = t.byte_len();
        let (a, b) = (cuts[0].min(cuts[1]).min(len), cuts[0].max(cuts[1]).min(len));
        let mut out = vec![0; (b - a) as usize];
        t.read_into(a, &mut out).unwrap();
        prop_assert_eq!(out, &expected[a as usize..b as usize]);
    }

    #[test]
    fn chunks_of_a_grid_make_the_whole(rows in 1u64..9, cols in 1u64..9, r in 1u64..9, c in 1u64..9, cuts in prop::collection::vec(0u64..400, 2)) {
        let whole: Vec<u8> = (0..rows * cols * 2).map(|i| (i * 7 % 256) as u8).collect();
        let mut chunks = Vec::new();
        for r0 in (0..rows).step_by(r as usize) {
            for c0 in (0..cols).step_by(c as usize) {
                let sizes = vec![r.min(rows - r0), c.min(cols - c0)];
                let bytes = slow(&whole, 2, &sizes, r0 * cols + c0, &[cols, 1]);
                let info = TensorInfo::new("c", Dtype::F16, sizes.clone()).unwrap();
                let tensor = Tensor::new(info, TensorBytes::Range(Section::from_bytes(bytes, "c"))).unwrap();
                chunks.push(Chunk { region: Region { offsets: vec![r0, c0], sizes }, tensor });
            }
        }
        let t = Tensor::new(TensorInfo::new("t", Dtype::F16, vec![rows, cols]).unwrap(), TensorBytes::Chunks(chunks.into())).unwrap();
        prop_assert_eq!(t.read().unwrap(), whole.clone());
        let len = t.byte_len();
        let (a, b) = (cuts[0].min(cuts[1]).min(len), cuts[0].max(cuts[1]).min(len));
        let mut out = vec![0; (b - a) as usize];
        t.read_into(a, &mut out).unwrap();
        prop_assert_eq!(out, &whole[a as usize..b as usize]);
    }
}

#[test]
fn a_large_transposed_matrix_is_halved() {
    let n: u64 = 1200;
    let storage: Vec<u8> = (0..n * n).flat_map(|i| (i as u32).to_le_bytes()).collect();
    let expected = slow(&storage, 4, &[n, n], 0, &[1, n]);
    let view =
        Strided { storage: Section::from_bytes(storage, "s"), offset: 0, strides: vec![1, n] };
    let t = Tensor::new(
        TensorInfo::new("t", Dtype::F32, vec![n, n]).unwrap(),
        TensorBytes::Strided(view),
    )
    .unwrap();
    assert!(t.read().unwrap() == expected);
}

#[test]
fn runs_that_lie_far_apart_are_turned_in_tiles() {
    // Rows of 40 000 bytes, of which a few columns are read at a time; and a middle dimension
    // that comes last.
    let cases: [(&[u64], &[u64]); 3] =
        [(&[300, 90], &[1, 10_000]), (&[7, 300, 40], &[1, 7, 9000]), (&[2, 6000], &[1, 2100])];
    for (shape, strides) in cases {
        let extent = crate::shape::view_extent(3, shape, strides).unwrap();
        let storage: Vec<u8> = (0..extent).flat_map(|i| (i as u32).to_le_bytes()).collect();
        let expected = slow(&storage, 4, shape, 3, strides);
        let view = Strided {
            storage: Section::from_bytes(storage, "s"),
            offset: 3,
            strides: strides.to_vec(),
        };
        let info = TensorInfo::new("t", Dtype::F32, shape).unwrap();
        let t = Tensor::new(info, TensorBytes::Strided(view)).unwrap();
        assert!(t.read().unwrap() == expected, "{shape:?}");
        let mut part = vec![0; 40_001];
        t.read_into(1234, &mut part).unwrap();
        assert!(part == expected[1234..1234 + 40_001], "{shape:?}");
    }
}

#[test]
fn packed_chunks_are_put_together_by_bytes() {
    // Rows of four 4-bit elements, cut into columns of two: one byte each.
    let chunk = |column: u64, bytes: [u8; 2]| {
        let region = Region { offsets: vec![0, column], sizes: vec![2, 2] };
        let info = TensorInfo::new("c", Dtype::F4, vec![2, 2]).unwrap();
        let tensor =
            Tensor::new(info, TensorBytes::Range(Section::from_bytes(bytes, "c"))).unwrap();
        Chunk { region, tensor }
    };
    let whole = |chunks: Vec<Chunk>| {
        Tensor::new(
            TensorInfo::new("t", Dtype::F4, vec![2, 4]).unwrap(),
            TensorBytes::Chunks(chunks.into()),
        )
    };
    let t = whole(vec![chunk(2, [0x21, 0x43]), chunk(0, [0x65, 0x87])]).unwrap();
    assert_eq!(t.read().unwrap(), [0x65, 0x21, 0x87, 0x43]);
    assert!(whole(vec![chunk(1, [0, 0])]).is_err());
}

#[test]
fn conjugate_negative_and_big_endian() {
    let value = |re: f32, im: f32| [re.to_le_bytes(), im.to_le_bytes()].concat();
    let big = [1.5f32.to_be_bytes(), 2.5f32.to_be_bytes()].concat();
    let read = |dtype, bytes: Vec<u8>, transform| {
        let info =
            TensorInfo::new("t", dtype, vec![bytes.len() as u64 * 8 / u64::from(dtype.bits())])
                .unwrap();
        Tensor::with_transform(info, TensorBytes::Range(Section::from_bytes(bytes, "s")), transform)
            .unwrap()
            .read()
            .unwrap()
    };
    assert_eq!(
        read(Dtype::C64, big, Transform { swap: true, conj: true, neg: false }),
        value(1.5, -2.5)
    );
    assert_eq!(
        read(Dtype::F32, value(1.0, -0.0), Transform { neg: true, ..Default::default() }),
        value(-1.0, 0.0)
    );
    let ints = [5i16.to_le_bytes(), (-300i16).to_le_bytes()].concat();
    let negated = [(-5i16).to_le_bytes(), 300i16.to_le_bytes()].concat();
    assert_eq!(read(Dtype::I16, ints, Transform { neg: true, ..Default::default() }), negated);
}
