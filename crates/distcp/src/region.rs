//! Whether chunks tile their tensor.
//!
//! The sum of the chunks' indicator functions is 1 everywhere in the tensor and 0 outside exactly
//! when the signed corners of all chunks add up to the signed corners of the tensor: a function
//! that vanishes far below is determined by its mixed difference, and that of a box is ±1 at its
//! corners. So instead of comparing boxes with each other, corners are sorted and summed, which
//! costs `n log n` for any layout of shards, and the first corner that does not cancel is the
//! first element that is stored twice or not at all.

use ckptkit_core::{Error, Result, shape};

const MISSING: &str = "a part of the checkpoint is missing: copy every rank's files again, \
    or save again; allow_partial reads what is missing as zeros";

/// Offsets and sizes of a box.
pub(crate) type BoxRef<'a> = (&'a [u64], &'a [u64]);

/// The most corners that are sorted at once.
const MAX_CORNERS: u64 = 1 << 26;
/// The most boxes that are compared with each other, where corners are too many.
const MAX_PAIRWISE: usize = 4096;

/// Checks that `boxes` lie inside a tensor of shape `size`, do not overlap and leave no gap. Boxes
/// without elements are only checked to lie inside.
pub(crate) fn check_tiling(size: &[u64], boxes: &[BoxRef<'_>]) -> Result<()> {
    check_tiling_with(size, boxes, &[])
}

/// The same where `filled` stands in for what no box holds.
pub(crate) fn check_tiling_with(
    size: &[u64],
    boxes: &[BoxRef<'_>],
    filled: &[BoxRef<'_>],
) -> Result<()> {
    let whole = shape::numel(size)?;
    for &b in boxes {
        check_inside(size, b)?;
    }
    if whole == 0 {
        return Ok(());
    }
    let mut live: Vec<BoxRef<'_>> =
        boxes.iter().copied().filter(|(_, sizes)| !sizes.contains(&0)).collect();
    let volume = |boxes: &[BoxRef<'_>]| -> u128 {
        boxes.iter().map(|(_, s)| s.iter().map(|&n| u128::from(n)).product::<u128>()).sum()
    };
    let held = Held { stored: volume(&live), filled: volume(filled), whole };
    live.extend_from_slice(filled);
    if live.is_empty() {
        return Err(held.gap(&vec![0; size.len()]));
    }
    // Only dimensions that some chunk does not span have corners to compare.
    let cut: Vec<usize> =
        (0..size.len()).filter(|&d| live.iter().any(|(_, s)| s[d] != size[d])).collect();
    if cut.is_empty() {
        return if live.len() == 1 {
            Ok(())
        } else {
            Err(held.overlap(&vec![0; size.len()], live.len() as u64))
        };
    }
    if let [d] = cut[..] {
        if is_run(&live, d, size[d]) {
            return Ok(());
        }
    }
    let corners = 1_u64
        .checked_shl(u32::try_from(cut.len()).unwrap_or(u32::MAX))
        .and_then(|c| c.checked_mul(live.len() as u64 + 1))
        .filter(|&c| c <= MAX_CORNERS);
    if corners.is_some() {
        if let Some(grid) = Grid::new(size, &live, &cut) {
            return by_corners(size, &live, &cut, &grid, &held);
        }
    }
    pairwise(size, &live, &held)
}

/// Whether boxes that are cut in dimension `d` only follow each other from 0 to `size`, as nearly
/// every writer lists them.
fn is_run(live: &[BoxRef<'_>], d: usize, size: u64) -> bool {
    let mut at = 0;
    live.iter().all(|(offsets, sizes)| {
        let follows = offsets[d] == at;
        at = offsets[d] + sizes[d];
        follows
    }) && at == size
}

/// Checks that a box has the tensor's dimensions and lies in it.
pub(crate) fn check_inside(size: &[u64], (offsets, sizes): BoxRef<'_>) -> Result<()> {
    if offsets.len() != size.len() || sizes.len() != size.len() {
        return Err(Error::malformed(format!(
            "the chunk at {offsets:?} of sizes {sizes:?} has another number of dimensions than the tensor's shape {size:?}"
        )));
    }
    let inside =
        (0..size.len()).all(|d| offsets[d].checked_add(sizes[d]).is_some_and(|end| end <= size[d]));
    if inside {
        Ok(())
    } else {
        Err(Error::malformed(format!(
            "the chunk at {offsets:?} of sizes {sizes:?} reaches outside the tensor's shape {size:?}"
        )))
    }
}

struct Held {
    stored: u128,
    filled: u128,
    whole: u64,
}

impl Held {
    fn gap(&self, at: &[u64]) -> Error {
        Error::malformed(format!(
            "no chunk holds the element at {at:?}: the chunks hold {} of {} elements",
            self.stored, self.whole
        ))
        .hint(MISSING)
    }

    fn overlap(&self, at: &[u64], times: u64) -> Error {
        Error::malformed(format!(
            "chunks overlap: {times} of them hold the element at {at:?}, {} elements are stored for {}",
            self.stored, self.whole
        ))
    }
}

/// The distinct boundaries of the boxes in every dimension that is cut, so that a corner is a
/// number.
struct Grid {
    edges: Vec<Vec<u64>>,
}

impl Grid {
    fn new(size: &[u64], live: &[BoxRef<'_>], cut: &[usize]) -> Option<Self> {
        let mut edges = Vec::with_capacity(cut.len());
        let mut cells: u64 = 1;
        for &d in cut {
            let mut at: Vec<u64> = Vec::with_capacity(2 * live.len() + 2);
            at.extend([0, size[d]]);
            for (offsets, sizes) in live {
                at.extend([offsets[d], offsets[d] + sizes[d]]);
            }
            at.sort_unstable();
            at.dedup();
            cells = cells.checked_mul(at.len() as u64)?;
            edges.push(at);
        }
        Some(Self { edges })
    }

    fn index(&self, k: usize, value: u64) -> u64 {
        self.edges[k].binary_search(&value).unwrap_or(0) as u64
    }

    fn locate(&self, mut key: u64, cut: &[usize], rank: usize) -> Vec<u64> {
        let mut at = vec![0; rank];
        for k in (0..cut.len()).rev() {
            let n = self.edges[k].len() as u64;
            at[cut[k]] = self.edges[k].get(to_usize(key % n)).copied().unwrap_or(0);
            key /= n;
        }
        at
    }
}

fn by_corners(
    size: &[u64],
    live: &[BoxRef<'_>],
    cut: &[usize],
    grid: &Grid,
    held: &Held,
) -> Result<()> {
    let each = 1_usize << cut.len();
    let mut corners: Vec<(u64, i64)> = Vec::with_capacity(each * (live.len() + 1));
    let zeros = vec![0; size.len()];
    let whole: [BoxRef<'_>; 1] = [(&zeros, size)];
    let mut keys = Vec::with_capacity(each);
    for (boxes, weight) in [(live, 1), (&whole[..], -1)] {
        for (offsets, sizes) in boxes {
            keys.clear();
            keys.push((0_u64, weight));
            for (k, &d) in cut.iter().enumerate() {
                let n = grid.edges[k].len() as u64;
                let (low, high) = (grid.index(k, offsets[d]), grid.index(k, offsets[d] + sizes[d]));
                for i in 0..keys.len() {
                    let (key, sign) = keys[i];
                    keys[i].0 = key * n + low;
                    keys.push((key * n + high, -sign));
                }
            }
            corners.extend_from_slice(&keys);
        }
    }
    corners.sort_unstable_by_key(|c| c.0);
    for run in corners.chunk_by(|a, b| a.0 == b.0) {
        // All corners below this one cancel, so the sum here is what covers it, less 1.
        let sum: i64 = run.iter().map(|c| c.1).sum();
        if sum != 0 {
            let at = grid.locate(run[0].0, cut, size.len());
            return Err(match u64::try_from(sum) {
                Ok(more) => held.overlap(&at, more + 1),
                Err(_) => held.gap(&at),
            });
        }
    }
    Ok(())
}

fn pairwise(size: &[u64], live: &[BoxRef<'_>], held: &Held) -> Result<()> {
    if live.len() > MAX_PAIRWISE {
        return Err(Error::limit(format!(
            "{} chunks of shape {size:?} are cut in too many ways to be checked",
            live.len()
        )));
    }
    for (i, (ao, asz)) in live.iter().enumerate() {
        for (bo, bsz) in &live[..i] {
            let common: Vec<u64> = ao.iter().zip(*bo).map(|(&a, &b)| a.max(b)).collect();
            let meet = (0..size.len()).all(|d| common[d] < (ao[d] + asz[d]).min(bo[d] + bsz[d]));
            if meet {
                return Err(held.overlap(&common, 2));
            }
        }
    }
    if held.stored + held.filled < u128::from(held.whole) {
        return Err(Error::malformed(format!(
            "the chunks hold {} of {} elements",
            held.stored, held.whole
        ))
        .hint(MISSING));
    }
    Ok(())
}

fn to_usize(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::cast_possible_truncation, reason = "small numbers")]
    use super::*;
    use proptest::prelude::*;

    fn check(size: &[u64], boxes: &[(Vec<u64>, Vec<u64>)]) -> Result<()> {
        let refs: Vec<BoxRef<'_>> = boxes.iter().map(|(o, s)| (&o[..], &s[..])).collect();
        check_tiling(size, &refs)
    }

    fn refused(size: &[u64], boxes: &[(Vec<u64>, Vec<u64>)]) -> String {
        check(size, boxes).unwrap_err().to_string()
    }

    #[test]
    fn faults_are_located() {
        let rows = |o: u64, n: u64| (vec![o, 0], vec![n, 3]);
        assert!(check(&[4, 3], &[rows(2, 2), rows(0, 2)]).is_ok());
        assert!(
            refused(&[4, 3], &[rows(0, 2)]).contains("element at [2, 0]: the chunks hold 6 of 12")
        );
        assert!(
            refused(&[4, 3], &[rows(0, 3), rows(2, 2)])
                .contains("2 of them hold the element at [2, 0]")
        );
        assert!(refused(&[4, 3], &[rows(0, 4), rows(0, 4)]).contains("2 of them"));
        assert!(refused(&[4, 3], &[rows(2, 3)]).contains("reaches outside"));
        assert!(refused(&[4, 3], &[(vec![0], vec![4])]).contains("number of dimensions"));
        assert!(refused(&[4, 3], &[(vec![u64::MAX, 0], vec![2, 3])]).contains("reaches outside"));
        assert!(refused(&[4, 3], &[]).contains("hold 0 of 12"));
    }

    #[test]
    fn boxes_without_elements() {
        assert!(check(&[], &[(vec![], vec![])]).is_ok());
        assert!(check(&[0, 3], &[]).is_ok());
        assert!(check(&[0, 3], &[(vec![0, 0], vec![0, 3])]).is_ok());
        assert!(check(&[2, 3], &[(vec![0, 0], vec![2, 3]), (vec![2, 0], vec![0, 3])]).is_ok());
        assert!(check(&[2, 3], &[(vec![0, 0], vec![2, 3]), (vec![3, 0], vec![0, 3])]).is_err());
    }

    #[test]
    fn equal_volume_does_not_deceive() {
        // Overlap and gap of the same size.
        let b = |o: u64, n: u64| (vec![o], vec![n]);
        assert!(refused(&[6], &[b(0, 3), b(2, 3)]).contains("at [2]"));
        // A pinwheel is no grid, and tiles.
        let wheel: Vec<_> = [
            ([0, 0], [1, 2]),
            ([0, 2], [2, 1]),
            ([2, 1], [1, 2]),
            ([1, 0], [2, 1]),
            ([1, 1], [1, 1]),
        ]
        .map(|(o, s)| (o.to_vec(), s.to_vec()))
        .into();
        assert!(check(&[3, 3], &wheel).is_ok());
    }

    #[test]
    fn many_dimensions_fall_back_to_pairs() {
        let size = vec![2; 40];
        let half = |at: u64| {
            let mut o = vec![0; 40];
            o[0] = at;
            let mut s = size.clone();
            s[0] = 1;
            (o, s)
        };
        assert!(check(&size, &[half(0), half(1)]).is_ok());
        let one = |at: u64| (vec![at; 40], vec![1; 40]);
        assert!(refused(&size, &[one(0), one(1)]).contains("hold 2 of"));
        assert!(refused(&size, &[one(1), one(1)]).contains("overlap"));
    }

    #[test]
    fn a_million_chunks_are_checked_quickly() {
        let n = 1 << 18;
        let boxes: Vec<_> = (0..n).rev().map(|i| (vec![i, 0], vec![1, 7])).collect();
        assert!(check(&[n, 7], &boxes).is_ok());
    }

    proptest! {
        /// Against counting every element.
        #[test]
        fn agrees_with_counting(
            size in prop::collection::vec(1u64..5, 1..4),
            raw in prop::collection::vec((prop::collection::vec(0u64..4, 3), prop::collection::vec(0u64..5, 3)), 0..5),
        ) {
            let boxes: Vec<(Vec<u64>, Vec<u64>)> = raw.iter().map(|(o, s)| {
                let o: Vec<u64> = size.iter().zip(o).map(|(&n, &o)| o.min(n)).collect();
                let s = size.iter().zip(s).zip(&o).map(|((&n, &s), &o)| s.min(n - o)).collect();
                (o, s)
            }).collect();
            let n = shape::numel(&size).unwrap();
            let strides = shape::row_major_strides(&size);
            let mut count = vec![0; n as usize];
            for (o, s) in &boxes {
                for i in 0..n {
                    let at = |d: usize| i / strides[d] % size[d];
                    if (0..size.len()).all(|d| o[d] <= at(d) && at(d) < o[d] + s[d]) {
                        count[i as usize] += 1;
                    }
                }
            }
            prop_assert_eq!(check(&size, &boxes).is_ok(), count.iter().all(|&c| c == 1));
        }

        /// Any way of halving boxes again and again tiles; without one of them it does not.
        #[test]
        fn any_cut_tiles(size in prop::collection::vec(1u64..9, 1..4), cuts in prop::collection::vec((0usize..64, 0usize..3, 1u64..8), 0..12), drop in 0usize..64) {
            let mut boxes = vec![(vec![0; size.len()], size.clone())];
            for (which, d, at) in cuts {
                let (i, d) = (which % boxes.len(), d % size.len());
                let (o, s) = boxes[i].clone();
                if at < s[d] {
                    let (mut high_o, mut high_s) = (o.clone(), s.clone());
                    high_o[d] += at;
                    high_s[d] -= at;
                    boxes[i].1[d] = at;
                    boxes.push((high_o, high_s));
                }
            }
            prop_assert!(check(&size, &boxes).is_ok());
            let lost = drop % boxes.len();
            boxes.remove(lost);
            prop_assert!(check(&size, &boxes).is_err());
        }
    }
}
