//! Which box of a tensor each rank holds.
//!
//! Source of truth: `compute_local_shape_and_global_offset` of `torch/distributed/tensor/_utils.py`
//! in torch 2.15, which the planner of a save asks.

use std::collections::HashMap;
use std::sync::Arc;

use ckptkit_core::{Dtype, Error, Region, Result, Tensor};

use super::entry::{Entry, EntryKind, Placement};
use super::options::WriteOptions;

/// Names of data files stay short, and plans linear.
const MAX_RANKS: u32 = 1 << 16;

/// The ranks and how they are arranged.
pub(super) struct Mesh {
    ranks: u32,
    dims: Vec<u32>,
}

impl Mesh {
    pub(super) fn new(options: &WriteOptions) -> Result<Self> {
        let ranks = options.ranks;
        if ranks == 0 || ranks > MAX_RANKS {
            return Err(Error::invalid(format!(
                "a checkpoint of {ranks} ranks, expected 1 to {MAX_RANKS}"
            )));
        }
        let dims = if options.mesh.is_empty() { vec![ranks] } else { options.mesh.clone() };
        let product = dims.iter().try_fold(1_u32, |n, &d| n.checked_mul(d));
        if product != Some(ranks) {
            return Err(Error::invalid(format!("a mesh of {dims:?} has not {ranks} ranks"))
                .hint("the product of its dimensions is the number of ranks"));
        }
        Ok(Self { ranks, dims })
    }

    pub(super) fn ranks(&self) -> u32 {
        self.ranks
    }

    /// Where a rank stands in the mesh; the last dimension varies fastest.
    fn coordinates(&self, rank: u32) -> Vec<u32> {
        let mut rest = rank;
        let mut at = vec![0; self.dims.len()];
        for (slot, &dim) in at.iter_mut().zip(&self.dims).rev() {
            *slot = rest % dim;
            rest /= dim;
        }
        at
    }

    /// The rule for tensors of which nothing else is said.
    fn placements(&self, rank_of_tensor: usize) -> Vec<Placement> {
        let place = |d| if d < rank_of_tensor { Placement::Shard(d) } else { Placement::Replicate };
        (0..self.dims.len()).map(place).collect()
    }

    fn check(&self, placements: &[Placement], shape: &[u64]) -> Result<()> {
        if placements.len() != self.dims.len() {
            return Err(Error::invalid(format!(
                "{} placements are given for a mesh of {} dimensions",
                placements.len(),
                self.dims.len()
            )));
        }
        for placement in placements {
            if let Placement::Shard(d) = *placement {
                if d >= shape.len() {
                    return Err(Error::invalid(format!(
                        "dimension {d} of shape {shape:?} is to be split, and is not there"
                    )));
                }
            }
        }
        Ok(())
    }
}

/// The distinct boxes of a tensor, ordered by the first rank that holds each.
pub(super) struct Split {
    pub(super) chunks: Vec<Held>,
}

/// A box, counted as torch counts (pairs of 4-bit floats), and who holds it.
pub(super) struct Held {
    pub(super) region: Region,
    /// Ascending.
    pub(super) ranks: Vec<u32>,
}

/// Splits tensors; those of one shape are split once.
pub(super) struct Splitter<'m> {
    mesh: &'m Mesh,
    known: HashMap<(Vec<u64>, Vec<Placement>), Arc<Split>>,
}

impl<'m> Splitter<'m> {
    pub(super) fn new(mesh: &'m Mesh) -> Self {
        Self { mesh, known: HashMap::new() }
    }

    /// The boxes of an entry; an object is one that all ranks hold.
    pub(super) fn split(&mut self, entry: &Entry) -> Result<Arc<Split>> {
        let (shape, placements) = match (entry.kind(), entry.placements()) {
            (EntryKind::Tensor(tensor), given) => {
                let shape = torch_shape(tensor);
                let placements = match given {
                    Some(given) => {
                        self.mesh.check(given, &shape)?;
                        given.to_vec()
                    }
                    None => self.mesh.placements(shape.len()),
                };
                (shape, placements)
            }
            (EntryKind::Bytes(_), None) => (Vec::new(), self.mesh.placements(0)),
            (EntryKind::Bytes(_), Some(_)) => {
                return Err(Error::invalid("an object has no placement, it is written whole"));
            }
        };
        let key = (shape, placements);
        if let Some(known) = self.known.get(&key) {
            return Ok(Arc::clone(known));
        }
        let split = Arc::new(cut(self.mesh, &key.0, &key.1));
        self.known.insert(key, Arc::clone(&split));
        Ok(split)
    }
}

fn cut(mesh: &Mesh, shape: &[u64], placements: &[Placement]) -> Split {
    let mut chunks: Vec<Held> = Vec::new();
    let mut by_offsets: HashMap<Vec<u64>, usize> = HashMap::new();
    for rank in 0..mesh.ranks {
        let region = region_of(mesh, shape, placements, &mesh.coordinates(rank));
        // Where nothing is held, several ranks are at the same offsets, and one of them stores it.
        let next = chunks.len();
        let at = *by_offsets.entry(region.offsets.clone()).or_insert(next);
        if at == next {
            chunks.push(Held { region, ranks: Vec::new() });
        }
        chunks[at].ranks.push(rank);
    }
    Split { chunks }
}

fn region_of(mesh: &Mesh, shape: &[u64], placements: &[Placement], at: &[u32]) -> Region {
    let mut region = Region::whole(shape);
    for ((placement, &parts), &part) in placements.iter().zip(&mesh.dims).zip(at) {
        let Placement::Shard(d) = *placement else { continue };
        let (start, len) = part_of(region.sizes[d], u64::from(parts), u64::from(part));
        region.sizes[d] = len;
        region.offsets[d] = if len == 0 { shape[d] } else { region.offsets[d] + start };
    }
    region
}

/// Where a part of `size` rows begins and how many it has, as `torch.chunk` cuts.
fn part_of(size: u64, parts: u64, part: u64) -> (u64, u64) {
    let rows = size.div_ceil(parts);
    let start = (rows * part).min(size);
    (start, rows.min(size - start))
}

/// The shape that torch shows: it counts pairs of 4-bit floats.
pub(super) fn torch_shape(tensor: &Tensor) -> Vec<u64> {
    let mut shape = tensor.shape().to_vec();
    if let (Dtype::F4, Some(last)) = (tensor.dtype(), shape.last_mut()) {
        *last /= 2;
    }
    shape
}

/// A box that torch counts, in elements of the tensor.
pub(super) fn in_elements(dtype: Dtype, region: &Region) -> Region {
    let mut region = region.clone();
    if dtype == Dtype::F4 {
        for last in [region.offsets.last_mut(), region.sizes.last_mut()].into_iter().flatten() {
            *last *= 2;
        }
    }
    region
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_those_of_torch_chunk() {
        let all = |n, parts| (0..parts).map(|p| part_of(n, parts, p)).collect::<Vec<_>>();
        assert_eq!(all(5, 4), [(0, 2), (2, 2), (4, 1), (5, 0)]);
        assert_eq!(all(7, 4), [(0, 2), (2, 2), (4, 2), (6, 1)]);
        assert_eq!(all(1, 3), [(0, 1), (1, 0), (1, 0)]);
        assert_eq!(all(0, 2), [(0, 0), (0, 0)]);
        assert_eq!(part_of(i64::MAX.unsigned_abs(), 65_536, 65_535).1, (1 << 47) - 1);
    }

    #[test]
    fn the_last_dimension_of_a_mesh_varies_fastest() {
        let mut options = WriteOptions::new();
        (options.ranks, options.mesh) = (6, vec![2, 3]);
        let mesh = Mesh::new(&options).unwrap();
        let at: Vec<_> = (0..6).map(|r| mesh.coordinates(r)).collect();
        assert_eq!(at, [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]);
    }

    #[test]
    fn meshes_that_are_none() {
        let refused = |ranks, mesh: &[u32]| {
            let mut options = WriteOptions::new();
            (options.ranks, options.mesh) = (ranks, mesh.to_vec());
            Mesh::new(&options).err().unwrap().to_string()
        };
        assert!(refused(0, &[]).contains("0 ranks"));
        assert!(refused(65_537, &[]).contains("65537 ranks"));
        assert!(refused(4, &[2, 3]).contains("[2, 3] has not 4 ranks"));
        assert!(refused(4, &[u32::MAX, u32::MAX]).contains("has not 4"));
        assert!(refused(4, &[0, 4]).contains("has not 4"));
    }
}
