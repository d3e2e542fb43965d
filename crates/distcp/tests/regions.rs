//! Any cut of a tensor into chunks, and any box read from it, give the whole's elements.
#![allow(clippy::unwrap_used, clippy::panic, clippy::cast_possible_truncation, reason = "tests")]

mod support;

use ckptkit_core::{Region, TensorSource};
use distcp::DistCheckpoint;
use proptest::prelude::*;
use support::item::floats;
use support::{Memory, Metadata};

/// The values of a box of a tensor that counts its elements.
fn values(dims: &[i64], offsets: &[i64], sizes: &[i64]) -> Vec<f32> {
    let count: i64 = sizes.iter().product();
    (0..count)
        .map(|i| {
            let (mut rest, mut linear, mut step) = (i, 0, 1);
            for d in (0..dims.len()).rev() {
                linear += (offsets[d] + rest % sizes[d]) * step;
                rest /= sizes[d];
                step *= dims[d];
            }
            linear as f32
        })
        .collect()
}

/// Cuts every dimension at the given places; chunks in any order, in three files.
fn grid(dims: &[i64], cuts: &[Vec<i64>], turn: usize) -> DistCheckpoint {
    let mut boxes: Vec<(Vec<i64>, Vec<i64>)> = vec![(vec![], vec![])];
    for (d, &n) in dims.iter().enumerate() {
        let mut edges: Vec<i64> = cuts[d].iter().map(|c| c % n).chain([0, n]).collect();
        edges.sort_unstable();
        edges.dedup();
        boxes = boxes
            .into_iter()
            .flat_map(|(o, s)| {
                edges
                    .windows(2)
                    .map(move |e| ([&o[..], &[e[0]]].concat(), [&s[..], &[e[1] - e[0]]].concat()))
                    .collect::<Vec<_>>()
            })
            .collect();
    }
    let n = boxes.len();
    boxes.rotate_left(turn % n);
    let (mut files, mut m) = (Memory::default(), Metadata::default());
    let refs: Vec<(&[i64], &[i64])> = boxes.iter().map(|(o, s)| (&o[..], &s[..])).collect();
    m.tensor("t", "float32", dims, &refs);
    for (i, (offsets, sizes)) in boxes.iter().enumerate() {
        let file = format!("__{}_0.distcp", i % 3);
        let (at, len) = files.item(&file, &floats(sizes, &values(dims, offsets, sizes)));
        m.place("t", Some(offsets), &file, at, len);
    }
    files.open(&m).unwrap()
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_grid_is_the_whole(
        dims in prop::collection::vec(1i64..7, 0..4),
        cuts in prop::collection::vec(prop::collection::vec(0i64..7, 0..3), 3),
        turn in 0usize..20,
        part in prop::collection::vec((0i64..7, 0i64..7), 3),
    ) {
        let checkpoint = grid(&dims, &cuts, turn);
        let whole = bytes(&values(&dims, &vec![0; dims.len()], &dims));
        prop_assert_eq!(checkpoint.tensor("t").unwrap().read().unwrap(), whole);
        prop_assert!(checkpoint.verify().unwrap().is_ok());

        let offsets: Vec<i64> = dims.iter().zip(&part).map(|(&n, p)| p.0 % n).collect();
        let sizes: Vec<i64> =
            dims.iter().zip(&part).zip(&offsets).map(|((&n, p), &o)| p.1 % (n - o + 1)).collect();
        let expected = bytes(&values(&dims, &offsets, &sizes));
        let unsigned = |v: &[i64]| v.iter().map(|&n| n as u64).collect::<Vec<_>>();
        let mut out = vec![0xAA; expected.len()];
        checkpoint.read_region("t", &unsigned(&offsets), &unsigned(&sizes), &mut out).unwrap();
        prop_assert_eq!(out, expected);
    }
}

#[test]
fn boxes_that_leave_the_tensor() {
    let checkpoint = grid(&[4, 4], &[vec![2], vec![]], 0);
    for (offsets, sizes, len) in [
        (&[0, 0][..], &[5, 4][..], 80),
        (&[4, 0], &[1, 1], 4),
        (&[0], &[1], 4),
        (&[0, 0], &[1, 1], 5),
        (&[u64::MAX, 0], &[2, 1], 8),
    ] {
        let e = checkpoint.read_region("t", offsets, sizes, &mut vec![0; len]).unwrap_err();
        assert_eq!(e.kind(), ckptkit_core::ErrorKind::InvalidArgument, "{e}");
    }
    assert!(checkpoint.read_region("nothing", &[], &[], &mut []).is_err());
}

#[test]
fn chunks_say_where_they_lie() {
    let checkpoint = grid(&[4, 3], &[vec![2], vec![]], 1);
    let chunks = checkpoint.chunks("t").unwrap();
    assert_eq!(chunks.len(), 2);
    assert_eq!(chunks[0].region, Region { offsets: vec![2, 0], sizes: vec![2, 3] });
    assert_eq!((chunks[0].file.as_str(), chunks[0].offset), ("__0_0.distcp", 0));
    assert_eq!(chunks[1].file, "__1_0.distcp");
    assert!(chunks[1].length > 24);
}
