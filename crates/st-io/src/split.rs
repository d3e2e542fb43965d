//! Which tensor goes into which shard: the rule of `huggingface_hub`
//! (`split_state_dict_into_shards_factory`), which transformers, diffusers and accelerate use.

use std::collections::HashMap;

use ckptkit_core::{StorageId, Tensor};

/// Deals tensors to shards of at most `limit` bytes of data each; gives the positions in each
/// shard. The rule keeps the order and packs nothing: a tensor that is larger than the limit gets
/// a shard of its own at that point of the list while the open shard stays open, and a tensor that
/// does not fit closes the open shard. Tensors of one storage go where the first of them is, and
/// only that one counts.
///
/// Sizes 6, 6, 2, 6, 2, 2 with a limit of 10 give `[6] [6, 2] [6, 2, 2]`.
#[must_use]
pub fn split(tensors: &[Tensor], limit: u64) -> Vec<Vec<usize>> {
    let mut shards: Vec<Vec<usize>> = Vec::new();
    let mut open: Vec<usize> = Vec::new();
    let mut open_bytes = 0_u64;
    // The first of each storage, and who shares it.
    let mut firsts: HashMap<StorageId, usize> = HashMap::new();
    let mut followers: Vec<(usize, usize)> = Vec::new();
    for (i, tensor) in tensors.iter().enumerate() {
        if let Some(id) = tensor.info().storage() {
            let first = *firsts.entry(id).or_insert(i);
            if first != i {
                followers.push((first, i));
                continue;
            }
        }
        let bytes = tensor.byte_len();
        if bytes > limit {
            shards.push(vec![i]);
            continue;
        }
        if open_bytes.saturating_add(bytes) > limit {
            shards.push(std::mem::take(&mut open));
            open_bytes = 0;
        }
        open.push(i);
        open_bytes += bytes;
    }
    if !open.is_empty() {
        shards.push(open);
    }
    if !followers.is_empty() {
        let mut place = HashMap::with_capacity(tensors.len());
        for (shard, members) in shards.iter().enumerate() {
            place.extend(members.iter().map(|i| (*i, shard)));
        }
        for (first, follower) in followers {
            if let Some(shard) = place.get(&first) {
                shards[*shard].push(follower);
            }
        }
    }
    shards
}

#[cfg(test)]
mod tests {
    use super::*;
    use ckptkit_core::{Dtype, Section, TensorBytes, TensorInfo};

    fn tensors(sizes: &[(u64, Option<u32>)]) -> Vec<Tensor> {
        let make = |(i, &(size, storage)): (usize, &(u64, Option<u32>))| {
            let mut info = TensorInfo::new(format!("t{i}"), Dtype::U8, [size]).unwrap();
            if let Some(index) = storage {
                info = info.in_storage(StorageId { container: 0, index });
            }
            let bytes = Section::from_bytes(vec![0; usize::try_from(size).unwrap()], "m");
            Tensor::new(info, TensorBytes::Range(bytes)).unwrap()
        };
        sizes.iter().enumerate().map(make).collect()
    }

    #[test]
    fn the_rule_by_hand() {
        let plain = |sizes: &[u64]| tensors(&sizes.iter().map(|s| (*s, None)).collect::<Vec<_>>());
        // The example of the rule itself.
        assert_eq!(split(&plain(&[6, 6, 2, 6, 2, 2]), 10), [vec![0], vec![1, 2], vec![3, 4, 5]]);
        // A giant comes before the shard that was open when it was met.
        assert_eq!(split(&plain(&[2, 11, 3, 10]), 10), [vec![1], vec![0, 2], vec![3]]);
        // Equal to the limit fits; nothing is packed back.
        assert_eq!(split(&plain(&[5, 5, 1, 9, 1]), 10), [vec![0, 1], vec![2, 3], vec![4]]);
        assert_eq!(split(&plain(&[0, 0]), 1), [vec![0, 1]]);
        assert!(split(&[], 1).is_empty());
    }

    #[test]
    fn one_storage_stays_together() {
        let tied = tensors(&[(6, Some(1)), (6, None), (6, Some(1)), (4, None), (6, Some(2))]);
        assert_eq!(split(&tied, 10), [vec![0, 2], vec![1, 3], vec![4]]);
    }

    #[test]
    fn six_tensors_under_every_limit() {
        // Worked out by hand from the rule, sizes 3 1 4 1 5 9.
        let t = tensors(&[(3, None), (1, None), (4, None), (1, None), (5, None), (9, None)]);
        let expected: [(u64, &[&[usize]]); 24] = [
            (1, &[&[0], &[2], &[1], &[4], &[5], &[3]]),
            (2, &[&[0], &[2], &[4], &[5], &[1, 3]]),
            (3, &[&[0], &[2], &[4], &[5], &[1, 3]]),
            (4, &[&[0, 1], &[2], &[4], &[5], &[3]]),
            (5, &[&[0, 1], &[2, 3], &[5], &[4]]),
            (6, &[&[0, 1], &[2, 3], &[5], &[4]]),
            (7, &[&[0, 1], &[2, 3], &[5], &[4]]),
            (8, &[&[0, 1, 2], &[5], &[3, 4]]),
            (9, &[&[0, 1, 2, 3], &[4], &[5]]),
            (10, &[&[0, 1, 2, 3], &[4], &[5]]),
            (11, &[&[0, 1, 2, 3], &[4], &[5]]),
            (12, &[&[0, 1, 2, 3], &[4], &[5]]),
            (13, &[&[0, 1, 2, 3], &[4], &[5]]),
            (14, &[&[0, 1, 2, 3, 4], &[5]]),
            (15, &[&[0, 1, 2, 3, 4], &[5]]),
            (16, &[&[0, 1, 2, 3, 4], &[5]]),
            (17, &[&[0, 1, 2, 3, 4], &[5]]),
            (18, &[&[0, 1, 2, 3, 4], &[5]]),
            (19, &[&[0, 1, 2, 3, 4], &[5]]),
            (20, &[&[0, 1, 2, 3, 4], &[5]]),
            (21, &[&[0, 1, 2, 3, 4], &[5]]),
            (22, &[&[0, 1, 2, 3, 4], &[5]]),
            (23, &[&[0, 1, 2, 3, 4, 5]]),
            (u64::MAX, &[&[0, 1, 2, 3, 4, 5]]),
        ];
        for (limit, shards) in expected {
            assert_eq!(split(&t, limit), shards, "limit {limit}");
        }
    }
}
