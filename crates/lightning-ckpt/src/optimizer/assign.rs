//! Which of a model's parameters an optimizer has, when only shapes are known.
//!
//! An optimizer numbers its parameters in the order in which it was given them, group by group.
//! Models give them in one order, so within a group they stand in the model's order; between the
//! groups (a split by weight decay) there is none, and what stands between them in the model
//! (buffers, frozen parameters) is in no group. So every group is a subsequence of the model's
//! parameters, and no two groups share one.
//!
//! Of one group the leftmost and the rightmost subsequence are found in one pass each: every other
//! one lies between them, so that there is exactly one where they are equal. Of several groups the
//! states "so much of every group is placed" are counted from parameter to parameter, each between
//! the bounds that its group alone has. In the usual case there is one state at a time.

use std::collections::HashMap;

use super::groups::Groups;
use super::placement::{Assignment, Bounds, fits};

/// Cells of a count that are looked at; more are not counted.
const MAX_CELLS: usize = 100_000_000;

/// Finds the ways to give every parameter of every group one of the candidates: of the same shape
/// (`None`: any), in the order of the candidates within each group, and no candidate twice.
///
/// ```
/// use lightning_ckpt::optimizer::{Assignment, assign};
///
/// let model: [&[u64]; 4] = [&[8, 4], &[8], &[2, 8], &[2]];
/// let (decay, rest) = (vec![Some(&[8, 4][..]), Some(&[2, 8])], vec![Some(&[8][..]), Some(&[2])]);
/// let found = assign(&model, &[decay, rest]);
/// assert_eq!(found, Assignment::Unique(vec![vec![0, 2], vec![1, 3]]));
///
/// let twins: [&[u64]; 2] = [&[4], &[4]];
/// let Assignment::Ambiguous { count, .. } = assign(&twins, &[vec![Some(&[4])]]) else { panic!() };
/// assert_eq!(count, Some(2));
/// ```
#[must_use]
pub fn assign(candidates: &[&[u64]], groups: &[Vec<Option<&[u64]>>]) -> Assignment {
    let mut classes: HashMap<&[u64], u32> = HashMap::new();
    let mut class = |shape| {
        let next = u32::try_from(classes.len()).unwrap_or(u32::MAX);
        *classes.entry(shape).or_insert(next)
    };
    let candidates: Vec<u32> = candidates.iter().map(|&shape| class(shape)).collect();
    let groups: Vec<Vec<Option<u32>>> =
        groups.iter().map(|g| g.iter().map(|s| s.map(&mut class)).collect()).collect();
    let places = Places::of(&candidates);
    let bounds: Option<Vec<Bounds>> = groups.iter().map(|group| places.bounds(group)).collect();
    let Some(bounds) = bounds else { return Assignment::Impossible };
    if let ([group], [bounds]) = (&groups[..], &bounds[..]) {
        return one_group(&candidates, group, bounds);
    }
    Groups { candidates, groups, bounds }.assignment()
}

/// Where the candidates of every shape are.
struct Places {
    by_class: HashMap<u32, Vec<usize>>,
    count: usize,
}

impl Places {
    fn of(candidates: &[u32]) -> Self {
        let mut by_class: HashMap<u32, Vec<usize>> = HashMap::new();
        for (at, &class) in candidates.iter().enumerate() {
            by_class.entry(class).or_default().push(at);
        }
        Self { by_class, count: candidates.len() }
    }

    fn bounds(&self, group: &[Option<u32>]) -> Option<Bounds> {
        Some(Bounds { first: self.leftmost(group)?, last: self.rightmost(group)? })
    }

    /// Every parameter as early as the ones before it allow.
    fn leftmost(&self, group: &[Option<u32>]) -> Option<Vec<usize>> {
        let mut from = 0;
        let place = |parameter: &Option<u32>| {
            let at = match parameter {
                None => Some(from).filter(|at| *at < self.count)?,
                Some(class) => {
                    let places = self.by_class.get(class)?;
                    *places.get(places.partition_point(|at| *at < from))?
                }
            };
            from = at + 1;
            Some(at)
        };
        group.iter().map(place).collect()
    }

    /// Every parameter as late as the ones behind it allow.
    fn rightmost(&self, group: &[Option<u32>]) -> Option<Vec<usize>> {
        let mut to = self.count;
        let place = |parameter: &Option<u32>| {
            let at = match parameter {
                None => to.checked_sub(1)?,
                Some(class) => {
                    let places = self.by_class.get(class)?;
                    *places.get(places.partition_point(|at| *at < to).checked_sub(1)?)?
                }
            };
            to = at;
            Some(at)
        };
        let mut out: Vec<usize> = group.iter().rev().map(place).collect::<Option<_>>()?;
        out.reverse();
        Some(out)
    }
}

fn one_group(candidates: &[u32], group: &[Option<u32>], bounds: &Bounds) -> Assignment {
    let Bounds { first, last } = bounds;
    if first == last {
        return Assignment::Unique(vec![first.clone()]);
    }
    let cells = first.iter().zip(last).map(|(a, b)| b - a + 1);
    let cells = cells.fold(0_usize, usize::saturating_add);
    let count = (cells <= MAX_CELLS).then(|| count_one(candidates, group, bounds));
    Assignment::Ambiguous { count, examples: vec![vec![first.clone()], vec![last.clone()]] }
}

/// The number of subsequences: of every parameter and place, how many ways lead there.
fn count_one(candidates: &[u32], group: &[Option<u32>], bounds: &Bounds) -> u64 {
    // The ways that end before the places from `start` on, summed up.
    let (mut start, mut sums) = (0, vec![1_u64]);
    for (i, &parameter) in group.iter().enumerate() {
        let (from, to) = (bounds.first[i], bounds.last[i]);
        let mut next = Vec::with_capacity(to - from + 2);
        let mut sum = 0_u64;
        next.push(0);
        for (at, &candidate) in candidates.iter().enumerate().take(to + 1).skip(from) {
            // Sums are those of all places before this one.
            let before = sums[at.saturating_sub(start).min(sums.len() - 1)];
            let ways = if fits(parameter, candidate) { before } else { 0 };
            sum = sum.saturating_add(ways);
            next.push(sum);
        }
        (start, sums) = (from, next);
    }
    sums.last().copied().unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::placement::Placement;
    use super::*;

    /// Every placement, by trying all of them.
    fn all(candidates: &[u64], groups: &[Vec<Option<u64>>]) -> Vec<Placement> {
        fn go(
            at: usize,
            candidates: &[u64],
            groups: &[Vec<Option<u64>>],
            placed: &mut Placement,
            out: &mut Vec<Placement>,
        ) {
            if at == candidates.len() {
                if groups.iter().zip(placed.iter()).all(|(g, p)| g.len() == p.len()) {
                    out.push(placed.clone());
                }
                return;
            }
            go(at + 1, candidates, groups, placed, out);
            for g in 0..groups.len() {
                let next = groups[g].get(placed[g].len());
                if next.is_some_and(|p| p.is_none_or(|shape| shape == candidates[at])) {
                    placed[g].push(at);
                    go(at + 1, candidates, groups, placed, out);
                    placed[g].pop();
                }
            }
        }
        let mut out = Vec::new();
        go(0, candidates, groups, &mut vec![Vec::new(); groups.len()], &mut out);
        out
    }

    fn check(candidates: &[u64], groups: &[Vec<Option<u64>>]) {
        let shapes: Vec<[u64; 1]> = candidates.iter().map(|&n| [n]).collect();
        let shapes: Vec<&[u64]> = shapes.iter().map(|s| &s[..]).collect();
        let wanted: Vec<Vec<Option<[u64; 1]>>> =
            groups.iter().map(|g| g.iter().map(|s| s.map(|n| [n])).collect()).collect();
        let wanted: Vec<Vec<Option<&[u64]>>> =
            wanted.iter().map(|g| g.iter().map(|s| s.as_ref().map(|n| &n[..])).collect()).collect();
        let expected = all(candidates, groups);
        match (assign(&shapes, &wanted), expected.len()) {
            (Assignment::Impossible, 0) => {}
            (Assignment::Unique(found), 1) => assert_eq!(found, expected[0]),
            (Assignment::Ambiguous { count, examples }, n @ 2..) => {
                assert_eq!(count, Some(n as u64), "{candidates:?} {groups:?}");
                assert!(examples.len() >= 2);
                for (i, example) in examples.iter().enumerate() {
                    assert!(expected.contains(example), "{example:?}");
                    assert!(!examples[..i].contains(example));
                }
            }
            (found, n) => panic!("{candidates:?} {groups:?}: {found:?}, {n} ways"),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn as_trying_all_of_them(
            candidates in prop::collection::vec(0_u64..3, 0..9),
            groups in prop::collection::vec(
                prop::collection::vec(prop::option::weighted(0.8, 0_u64..3), 0..5), 1..4
            ),
        ) {
            check(&candidates, &groups);
        }

        /// Groups that were taken out of the candidates: there is always a way.
        #[test]
        fn what_was_split_is_found(
            candidates in prop::collection::vec((0_u64..4, 0_usize..4), 0..10),
        ) {
            let mut groups = vec![Vec::new(); 3];
            for &(shape, group) in &candidates {
                if let Some(group) = groups.get_mut(group) {
                    group.push(Some(shape));
                }
            }
            let shapes: Vec<u64> = candidates.iter().map(|(shape, _)| *shape).collect();
            check(&shapes, &groups);
        }
    }

    #[test]
    fn no_groups_and_no_parameters() {
        check(&[1, 2], &[]);
        check(&[1, 2], &[vec![]]);
        check(&[], &[vec![Some(1)]]);
    }
}
