//! Whether boxes cover a larger box exactly.

use ckptkit_core::{Error, Region, Result};

/// The smallest box from the origin that holds all boxes: the shape that torch's HF writer does
/// not store. `None` when the arithmetic overflows.
pub(crate) fn hull(boxes: &[Region]) -> Option<Vec<u64>> {
    let mut hull = vec![0; boxes.first()?.offsets.len()];
    for b in boxes {
        for ((max, o), s) in hull.iter_mut().zip(&b.offsets).zip(&b.sizes) {
            *max = o.checked_add(*s)?.max(*max);
        }
    }
    Some(hull)
}

/// Checks that `boxes` (of the rank of `shape`, all inside it) cover it once and everywhere.
/// `names` says which file each box is from.
pub(crate) fn check(shape: &[u64], boxes: &[Region], name: impl Fn(usize) -> String) -> Result<()> {
    let volume =
        |sizes: &[u64]| sizes.iter().try_fold(1_u128, |v, s| v.checked_mul(u128::from(*s)));
    let mut order: Vec<usize> = (0..boxes.len()).filter(|i| !boxes[*i].is_empty()).collect();
    // Sweep along the dimension that is cut into most parts, so that few boxes are open at once.
    let widest = (0..shape.len()).max_by_key(|&d| {
        let mut starts: Vec<u64> = order.iter().map(|i| boxes[*i].offsets[d]).collect();
        starts.sort_unstable();
        starts.dedup();
        starts.len()
    });
    let span = |i: usize| {
        let at = |d: usize| (boxes[i].offsets[d], boxes[i].offsets[d] + boxes[i].sizes[d]);
        widest.map_or((0, 1), at)
    };
    order.sort_unstable_by_key(|i| span(*i));
    let mut open: Vec<usize> = Vec::new();
    for &i in &order {
        let (start, _) = span(i);
        open.retain(|o| span(*o).1 > start);
        if let Some(&other) = open.iter().find(|o| boxes[i].intersect(&boxes[**o]).is_some()) {
            return Err(Error::malformed(format!(
                "the pieces of {} and {} overlap: {:?} from {:?} and {:?} from {:?}",
                name(other),
                name(i),
                boxes[other].sizes,
                boxes[other].offsets,
                boxes[i].sizes,
                boxes[i].offsets
            )));
        }
        open.push(i);
    }
    let covered =
        order.iter().try_fold(0_u128, |sum, i| sum.checked_add(volume(&boxes[*i].sizes)?));
    match (covered, volume(shape)) {
        (Some(covered), Some(whole)) if covered == whole => Ok(()),
        (Some(covered), Some(whole)) => Err(Error::malformed(format!(
            "{} pieces hold {covered} of the {whole} elements of shape {shape:?}",
            order.len()
        ))
        .hint("the file of some rank is missing or is of another save")),
        _ => Err(Error::malformed(format!("shape {shape:?} has too many elements to count"))),
    }
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "a few cells")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn boxes(list: &[(&[u64], &[u64])]) -> Vec<Region> {
        list.iter().map(|(o, s)| Region { offsets: o.to_vec(), sizes: s.to_vec() }).collect()
    }

    fn verdict(list: &[(&[u64], &[u64])]) -> bool {
        let b = boxes(list);
        let shape = hull(&b).unwrap();
        check(&shape, &b, |i| i.to_string()).is_ok()
    }

    #[test]
    fn tilings() {
        assert!(verdict(&[(&[], &[])]));
        assert!(!verdict(&[(&[], &[]), (&[], &[])]));
        assert!(verdict(&[(&[0, 0], &[3, 2]), (&[3, 0], &[2, 2])]));
        assert!(verdict(&[(&[0, 0], &[2, 2]), (&[2, 0], &[2, 2]), (&[4, 0], &[0, 2])]));
        assert!(!verdict(&[(&[0, 0], &[3, 2]), (&[4, 0], &[2, 2])]));
        assert!(!verdict(&[(&[0, 0], &[3, 2]), (&[2, 0], &[2, 2])]));
        // Equal volume, yet one place twice and another never.
        assert!(!verdict(&[(&[0, 0], &[2, 1]), (&[0, 0], &[1, 2]), (&[1, 1], &[0, 1])]));
        // A pinwheel: no cut goes through.
        assert!(verdict(&[
            (&[0, 0], &[1, 2]),
            (&[0, 2], &[2, 1]),
            (&[2, 1], &[1, 2]),
            (&[1, 0], &[2, 1]),
            (&[1, 1], &[1, 1]),
        ]));
        assert!(hull(&boxes(&[(&[u64::MAX], &[1])])).is_none());
    }

    proptest! {
        /// Against counting every cell.
        #[test]
        fn agrees_with_painting(list in prop::collection::vec(((0u64..4, 0u64..4), (0u64..4, 0u64..4)), 1..6)) {
            let b: Vec<Region> = list.iter()
                .map(|((o0, o1), (s0, s1))| Region { offsets: vec![*o0, *o1], sizes: vec![*s0, *s1] })
                .collect();
            let shape = hull(&b).unwrap();
            let mut painted = vec![0; (shape[0] * shape[1]) as usize];
            for r in &b {
                for i in r.offsets[0]..r.offsets[0] + r.sizes[0] {
                    for j in r.offsets[1]..r.offsets[1] + r.sizes[1] {
                        painted[(i * shape[1] + j) as usize] += 1;
                    }
                }
            }
            let expected = painted.iter().all(|n| *n == 1);
            prop_assert_eq!(check(&shape, &b, |i| i.to_string()).is_ok(), expected);
        }
    }
}
