//! Boxes of tensors of every kind, against slices of what the whole tensor reads as.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, reason = "helpers of tests")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ckptkit_core::shape::{numel, row_major_strides, view_extent};
use ckptkit_core::{
    Chunk, Deferred, Dtype, Error, ErrorKind, Region, Resolve, Result, Section, Strided, Tensor,
    TensorBytes, TensorInfo, Transform,
};
use proptest::prelude::*;

fn pattern(len: u64) -> Vec<u8> {
    (0..len).map(|i| (i * 37 % 251) as u8).collect()
}

fn region(offsets: &[u64], sizes: &[u64]) -> Region {
    Region { offsets: offsets.to_vec(), sizes: sizes.to_vec() }
}

fn info(dtype: Dtype, shape: &[u64]) -> TensorInfo {
    TensorInfo::new("t", dtype, shape).unwrap()
}

fn range(dtype: Dtype, shape: &[u64]) -> Tensor {
    let info = info(dtype, shape);
    let bytes = Section::from_bytes(pattern(info.byte_len()), "range");
    Tensor::new(info, TensorBytes::Range(bytes)).unwrap()
}

/// Gives what it was given, and counts how often it was asked.
struct Found(Tensor, Arc<AtomicUsize>);

impl Resolve for Found {
    fn resolve(&self, _: &TensorInfo) -> Result<(TensorBytes, Transform)> {
        self.1.fetch_add(1, Ordering::Relaxed);
        Ok((self.0.bytes().clone(), self.0.transform()))
    }
}

fn deferred(tensor: Tensor, asked: &Arc<AtomicUsize>) -> Tensor {
    let found = Arc::new(Found(tensor.clone(), Arc::clone(asked)));
    Tensor::new(tensor.info().clone(), TensorBytes::Deferred(Deferred::new(found))).unwrap()
}

/// How a tensor comes to be.
#[derive(Clone, Debug)]
enum Made {
    Range,
    Strided { offset: u64, strides: Vec<u64> },
    Chunks { cuts: Vec<(usize, usize, u64)>, of: Box<Made> },
    Deferred(Box<Made>),
    Cast(Box<Made>),
    Transformed(Box<Made>),
}

fn made() -> impl Strategy<Value = Made> {
    let strides = prop::collection::vec(0_u64..30, 4);
    let leaf = prop_oneof![
        Just(Made::Range),
        (0_u64..9, strides).prop_map(|(offset, strides)| Made::Strided { offset, strides }),
    ];
    let cuts = prop::collection::vec((0_usize..9, 0_usize..4, 1_u64..4), 0..5);
    leaf.prop_recursive(3, 4, 1, move |inner| {
        prop_oneof![
            (cuts.clone(), inner.clone())
                .prop_map(|(cuts, of)| Made::Chunks { cuts, of: Box::new(of) }),
            inner.clone().prop_map(|of| Made::Deferred(Box::new(of))),
            inner.clone().prop_map(|of| Made::Cast(Box::new(of))),
            inner.prop_map(|of| Made::Transformed(Box::new(of))),
        ]
    })
}

/// `cast` says whether casts are possible here: chunks hold none.
fn make(how: &Made, dtype: Dtype, shape: &[u64], cast: bool, asked: &Arc<AtomicUsize>) -> Tensor {
    match how {
        Made::Range => range(dtype, shape),
        Made::Strided { offset, strides } => {
            let strides = strides[..shape.len()].to_vec();
            let unit = dtype.element_bytes().unwrap();
            let extent = view_extent(*offset, shape, &strides).unwrap() * unit;
            let storage = Section::from_bytes(pattern(extent + 3), "view");
            let view = Strided { storage, offset: *offset, strides };
            Tensor::new(info(dtype, shape), TensorBytes::Strided(view)).unwrap()
        }
        Made::Chunks { cuts, of } => {
            let mut boxes = vec![region(&vec![0; shape.len()], shape)];
            for &(which, d, at) in cuts {
                let i = which % boxes.len();
                if shape.is_empty() || at >= boxes[i].sizes[d % shape.len()] {
                    continue;
                }
                let mut high = boxes[i].clone();
                let d = d % shape.len();
                high.offsets[d] += at;
                high.sizes[d] -= at;
                boxes[i].sizes[d] = at;
                boxes.push(high);
            }
            let chunks = boxes.into_iter().map(|region| {
                let tensor = make(of, dtype, &region.sizes, false, asked);
                Chunk { region, tensor }
            });
            let chunks = TensorBytes::Chunks(chunks.collect());
            Tensor::new(info(dtype, shape), chunks).unwrap()
        }
        Made::Deferred(of) => {
            let inner = make(of, dtype, shape, cast, asked);
            if matches!(inner.bytes(), TensorBytes::Deferred(_)) {
                return inner;
            }
            deferred(inner, asked)
        }
        Made::Cast(of) if cast && dtype == Dtype::F32 => {
            make(of, Dtype::F16, shape, true, asked).cast(dtype).unwrap()
        }
        Made::Transformed(of) => {
            let inner = make(of, dtype, shape, cast, asked);
            let (swap, neg) = (dtype.swap_bytes() > 1, true);
            match inner.bytes() {
                TensorBytes::Range(_) | TensorBytes::Strided(_) => Tensor::with_transform(
                    inner.info().clone(),
                    inner.bytes().clone(),
                    Transform { swap, neg, conj: dtype == Dtype::C64 },
                )
                .unwrap(),
                _ => inner,
            }
        }
        Made::Cast(of) => make(of, dtype, shape, cast, asked),
    }
}

/// The box of a row-major tensor, element by element.
fn slice(bytes: &[u8], unit: usize, shape: &[u64], wanted: &Region) -> Vec<u8> {
    let (outer, inner) = (row_major_strides(shape), row_major_strides(&wanted.sizes));
    let mut out = Vec::new();
    for i in 0..numel(&wanted.sizes).unwrap() {
        let mut rest = i;
        let mut at = 0;
        for d in 0..shape.len() {
            at += (wanted.offsets[d] + rest / inner[d]) * outer[d];
            rest %= inner[d];
        }
        out.extend_from_slice(&bytes[at as usize * unit..(at as usize + 1) * unit]);
    }
    out
}

/// A box in a shape, from numbers that know nothing of it.
fn fit(shape: &[u64], raw: &[(u64, u64)]) -> Region {
    let offsets: Vec<u64> = shape.iter().zip(raw).map(|(&n, &(o, _))| o.min(n)).collect();
    let sizes = shape.iter().zip(raw).zip(&offsets).map(|((&n, &(_, s)), &o)| s.min(n - o));
    Region { sizes: sizes.collect(), offsets }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_box_reads_as_the_slice(
        shape in prop::collection::vec(0_u64..6, 0..4),
        how in made(),
        dtype in prop::sample::select(vec![Dtype::U8, Dtype::I16, Dtype::F32, Dtype::C64]),
        raw in prop::collection::vec((0_u64..6, 0_u64..6), 4),
        again in prop::collection::vec((0_u64..4, 0_u64..6), 4),
    ) {
        let asked = Arc::default();
        let tensor = make(&how, dtype, &shape, true, &asked);
        let unit = dtype.element_bytes().unwrap() as usize;
        let wanted = fit(&shape, &raw);
        let part = tensor.region(&wanted).unwrap();
        let inner = fit(&wanted.sizes, &again);
        let part_of_part = part.region(&inner).unwrap();
        prop_assert_eq!(asked.load(Ordering::Relaxed), 0, "nothing is opened for a box");
        let whole = tensor.read().unwrap();
        let expected = slice(&whole, unit, &shape, &wanted);
        prop_assert_eq!(part.read().unwrap(), &expected[..]);
        prop_assert_eq!((part.name(), part.dtype(), part.shape()), ("t", dtype, &wanted.sizes[..]));
        let expected = slice(&expected, unit, &wanted.sizes, &inner);
        prop_assert_eq!(part_of_part.read().unwrap(), expected);
    }

    /// Elements of 4 and 6 bits, in boxes that start and end at bytes, whole or in chunks.
    #[test]
    fn packed_boxes_are_slices_of_bytes(
        rows in 1_u64..5, columns in 1_u64..5, depth in 1_u64..4,
        raw in prop::collection::vec((0_u64..5, 0_u64..5), 3),
        six in any::<bool>(), chunked in 0_u64..4,
    ) {
        let (dtype, per, bytes) = if six { (Dtype::F6E2M3, 4, 3) } else { (Dtype::F4, 2, 1) };
        let groups = [rows, columns, depth];
        let elements = |g: &[u64]| vec![g[0], g[1], g[2] * per];
        let shape = elements(&groups);
        let plain = range(dtype, &shape);
        let whole = plain.read().unwrap();
        let tensor = if (1..rows).contains(&chunked) {
            let parts = [(0, chunked), (chunked, rows - chunked)].map(|(at, n)| {
                let region = region(&[at, 0, 0], &[n, columns, depth * per]);
                Chunk { tensor: plain.region(&region).unwrap(), region }
            });
            Tensor::new(info(dtype, &shape), TensorBytes::Chunks(parts.into())).unwrap()
        } else {
            deferred(plain, &Arc::default())
        };
        let wanted = fit(&groups, &raw);
        let part = tensor
            .region(&region(&elements(&wanted.offsets), &elements(&wanted.sizes)))
            .unwrap();
        prop_assert_eq!(part.read().unwrap(), slice(&whole, bytes, &groups, &wanted));
    }
}

#[test]
fn runs_stay_runs() {
    let t = range(Dtype::I16, &[4, 3]);
    let rows = t.region(&region(&[1, 0], &[2, 3])).unwrap();
    assert_eq!(rows.contiguous().map(|s| (s.offset(), s.len())), Some((6, 12)));
    let columns = t.region(&region(&[0, 1], &[4, 2])).unwrap();
    assert!(matches!(columns.bytes(), TensorBytes::Strided(v) if v.offset == 1));
    // Of chunks, the one that holds the box.
    let parts = [0, 2].map(|at| {
        let region = region(&[at, 0], &[2, 3]);
        Chunk { tensor: t.region(&region).unwrap(), region }
    });
    let chunks = TensorBytes::Chunks(parts.into());
    let chunked = Tensor::new(info(Dtype::I16, &[4, 3]), chunks).unwrap();
    let row = chunked.region(&region(&[3, 0], &[1, 3])).unwrap();
    assert_eq!(row.contiguous().map(|s| (s.offset(), s.len())), Some((18, 6)));
    assert!(matches!(
        chunked.region(&region(&[1, 0], &[2, 3])).unwrap().bytes(),
        TensorBytes::Chunks(parts) if parts.len() == 2
    ));
}

#[test]
fn odd_packed_rows_are_cut_at_bytes() {
    // Five elements a row: two rows are five bytes, one is none.
    let t = range(Dtype::F4, &[4, 5]);
    let rows = t.region(&region(&[2, 0], &[2, 5])).unwrap();
    assert_eq!(rows.read().unwrap(), pattern(10)[5..]);
    let refused = |wanted| t.region(&wanted).unwrap_err();
    for wanted in [region(&[1, 0], &[1, 5]), region(&[0, 1], &[4, 2]), region(&[0, 0], &[4, 3])] {
        let e = refused(wanted);
        assert_eq!(e.kind(), ErrorKind::InvalidArgument);
        assert!(e.to_string().contains("tensor t") && e.to_string().contains("byte"), "{e}");
    }
    // Deferred ones are refused at once, too.
    assert!(
        deferred(t.clone(), &Arc::default()).region(&region(&[1, 0], &[1, 5])).is_err(),
        "before anything is opened"
    );
}

#[test]
fn boxes_outside_are_refused() {
    let t = range(Dtype::U8, &[4, 3]);
    for wanted in [
        region(&[3, 0], &[2, 3]),
        region(&[5, 0], &[0, 3]),
        region(&[u64::MAX, 0], &[1, 1]),
        region(&[0], &[1]),
        region(&[0, 0], &[1]),
        region(&[0, 0, 0], &[1, 1, 1]),
    ] {
        let e = t.region(&wanted).unwrap_err();
        assert_eq!(e.kind(), ErrorKind::InvalidArgument, "{wanted:?}");
        assert!(e.to_string().contains("tensor t"), "{e}");
    }
}

#[test]
fn what_cannot_be_read_says_so_in_its_boxes() {
    let broken = TensorBytes::Broken(Error::malformed("torn"));
    for bytes in [broken, TensorBytes::None("on the meta device".into())] {
        let t = Tensor::new(info(Dtype::U8, &[4]), bytes).unwrap();
        for sizes in [0, 2, 4] {
            let part = t.region(&region(&[0], &[sizes])).unwrap();
            assert!(!part.has_bytes());
            assert!(part.read().is_err());
        }
    }
}
