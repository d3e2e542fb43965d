//! What no chunk holds, as boxes.

use ckptkit_core::{Error, Region, Result};

use crate::region::BoxRef;

/// The most comparisons that finding the holes of one tensor may take.
const MAX_WORK: u64 = 1 << 23;

/// The boxes of a tensor of shape `size` that none of `boxes` covers, in order of their corners.
/// The boxes must lie inside; they may overlap.
///
/// The tensor is cut where a box begins or ends, one dimension after the other: between two cuts
/// the same boxes are open, and where none is, there is a hole.
///
/// # Errors
/// `LimitExceeded` where boxes are cut in so many ways that this would take minutes.
pub(crate) fn find(size: &[u64], boxes: &[BoxRef<'_>]) -> Result<Vec<Region>> {
    find_within(size, boxes, MAX_WORK)
}

fn find_within(size: &[u64], boxes: &[BoxRef<'_>], most: u64) -> Result<Vec<Region>> {
    if size.contains(&0) {
        return Ok(Vec::new());
    }
    let live: Vec<BoxRef<'_>> =
        boxes.iter().copied().filter(|(_, sizes)| !sizes.contains(&0)).collect();
    let cut: Vec<usize> =
        (0..size.len()).filter(|&d| live.iter().any(|(_, s)| s[d] != size[d])).collect();
    let mut sweep = Sweep {
        whole: Region { offsets: vec![0; size.len()], sizes: size.to_vec() },
        found: Vec::new(),
        work_left: most,
    };
    sweep.along(&cut, live)?;
    Ok(sweep.found)
}

struct Sweep {
    /// What is looked at now: between two cuts in the dimensions that were cut so far.
    whole: Region,
    found: Vec<Region>,
    work_left: u64,
}

impl Sweep {
    fn along(&mut self, cut: &[usize], mut open: Vec<BoxRef<'_>>) -> Result<()> {
        if open.is_empty() {
            self.found.push(self.whole.clone());
            return Ok(());
        }
        let Some((&d, rest)) = cut.split_first() else { return Ok(()) };
        let full = self.whole.sizes[d];
        let mut edges: Vec<u64> =
            open.iter().flat_map(|(o, s)| [o[d], o[d] + s[d]]).chain([0, full]).collect();
        edges.sort_unstable();
        edges.dedup();
        open.sort_by_key(|(o, _)| o[d]);
        let mut waiting = open.into_iter().peekable();
        let mut here: Vec<BoxRef<'_>> = Vec::new();
        for pair in edges.windows(2) {
            let (start, end) = (pair[0], pair[1]);
            here.retain(|(o, s)| o[d] + s[d] > start);
            while let Some(b) = waiting.next_if(|(o, _)| o[d] <= start) {
                here.push(b);
            }
            self.work_left =
                self.work_left.checked_sub(here.len() as u64 + 1).ok_or_else(|| {
                    Error::limit("its chunks are cut in too many ways to tell what is missing")
                })?;
            (self.whole.offsets[d], self.whole.sizes[d]) = (start, end - start);
            self.along(rest, here.clone())?;
        }
        (self.whole.offsets[d], self.whole.sizes[d]) = (0, full);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::region::check_tiling;
    use proptest::prelude::*;

    type Owned = (Vec<u64>, Vec<u64>);

    fn holes(size: &[u64], boxes: &[Owned]) -> Vec<Owned> {
        let refs: Vec<BoxRef<'_>> = boxes.iter().map(|(o, s)| (&o[..], &s[..])).collect();
        find(size, &refs).unwrap().into_iter().map(|r| (r.offsets, r.sizes)).collect()
    }

    fn b<const N: usize>(offsets: [u64; N], sizes: [u64; N]) -> Owned {
        (offsets.to_vec(), sizes.to_vec())
    }

    #[test]
    fn rows_columns_and_nothing_at_all() {
        assert_eq!(holes(&[4, 3], &[b([0, 0], [2, 3])]), [b([2, 0], [2, 3])]);
        assert_eq!(holes(&[4, 3], &[b([0, 1], [4, 1])]), [b([0, 0], [4, 1]), b([0, 2], [4, 1])]);
        assert_eq!(
            holes(&[4, 3], &[b([1, 1], [1, 1])]),
            [b([0, 0], [1, 3]), b([1, 0], [1, 1]), b([1, 2], [1, 1]), b([2, 0], [2, 3])]
        );
        assert_eq!(holes(&[4, 3], &[]), [b([0, 0], [4, 3])]);
        assert_eq!(holes(&[], &[]), [b([], [])]);
        assert_eq!(holes(&[], &[b([], [])]), []);
        assert_eq!(holes(&[0, 3], &[]), []);
        assert_eq!(holes(&[4, 3], &[b([0, 0], [4, 3])]), []);
        assert_eq!(holes(&[2], &[b([2], [0])]), [b([0], [2])]);
    }

    #[test]
    fn a_million_chunks_with_gaps() {
        let n = 1_u64 << 19;
        let boxes: Vec<Owned> = (0..n).rev().map(|i| (vec![2 * i, 0], vec![1, 7])).collect();
        assert_eq!(holes(&[2 * n, 7], &boxes).len() as u64, n);
    }

    #[test]
    fn what_would_take_minutes_is_refused() {
        // Every box spans all the cuts of the others.
        let n = 500;
        let boxes: Vec<Owned> = (0..n).map(|i| (vec![i, i], vec![n, 1])).collect();
        let refs: Vec<BoxRef<'_>> = boxes.iter().map(|(o, s)| (&o[..], &s[..])).collect();
        assert!(find_within(&[2 * n, n + 1], &refs, n * n * n).is_ok());
        let e = find_within(&[2 * n, n + 1], &refs, n * n).unwrap_err();
        assert_eq!(e.kind(), ckptkit_core::ErrorKind::LimitExceeded);
    }

    proptest! {
        /// Boxes that do not overlap tile the tensor together with their holes.
        #[test]
        fn holes_complete_the_tiling(
            size in prop::collection::vec(1u64..7, 0..4),
            cuts in prop::collection::vec((0usize..64, 0usize..3, 1u64..6), 0..10),
            kept in prop::collection::vec(any::<bool>(), 64),
        ) {
            let mut boxes = vec![(vec![0; size.len()], size.clone())];
            for (which, d, at) in cuts {
                let i = which % boxes.len();
                let (o, s) = boxes[i].clone();
                if d < size.len() && at < s[d] {
                    let (mut high_o, mut high_s) = (o.clone(), s.clone());
                    high_o[d] += at;
                    high_s[d] -= at;
                    boxes[i].1[d] = at;
                    boxes.push((high_o, high_s));
                }
            }
            let mut all: Vec<Owned> =
                boxes.into_iter().zip(&kept).filter(|(_, kept)| **kept).map(|(b, _)| b).collect();
            all.extend(holes(&size, &all));
            let refs: Vec<BoxRef<'_>> = all.iter().map(|(o, s)| (&o[..], &s[..])).collect();
            prop_assert!(check_tiling(&size, &refs).is_ok());
        }
    }
}
