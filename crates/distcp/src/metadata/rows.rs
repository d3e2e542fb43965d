//! Which row is the chunk that `storage_data` speaks of.

use super::decode::narrow;
use super::{EntryKind, Tables};

/// The rows of one metadata file by tensor and offsets. Of equal boxes those without elements give
/// way, then the later ones.
pub(super) struct Rows {
    first: usize,
    /// Rows in order of tensor and offsets; `None` where they stand so already.
    sorted: Option<Vec<u32>>,
    /// Where to look next: places mostly come in the order of the rows.
    next: usize,
}

impl Rows {
    pub(super) fn new(tables: &Tables, first: usize) -> Self {
        let last = tables.chunks.len();
        let is_sorted = (first + 1..last).all(|i| tables.key(i - 1) < tables.key(i));
        let sorted = (!is_sorted).then(|| {
            let mut rows: Vec<u32> = (first..last).map(narrow).collect();
            rows.sort_by_key(|&i| {
                let i = i as usize;
                (tables.key(i), tables.sizes(i).contains(&0))
            });
            rows.dedup_by(|b, a| tables.key(*a as usize) == tables.key(*b as usize));
            rows
        });
        Self { first, sorted, next: 0 }
    }

    pub(super) fn find(&mut self, tables: &Tables, tensor: u32, offsets: &[u64]) -> Option<usize> {
        let wanted = (tensor, offsets);
        let len = self.sorted.as_ref().map_or(tables.chunks.len() - self.first, Vec::len);
        let row = |at: usize| match &self.sorted {
            Some(rows) => rows[at] as usize,
            None => self.first + at,
        };
        if self.next >= len || tables.key(row(self.next)) != wanted {
            let (mut low, mut high) = self.range(tables, tensor).unwrap_or((0, len));
            while low < high {
                let middle = low + (high - low) / 2;
                if tables.key(row(middle)) < wanted {
                    low = middle + 1;
                } else {
                    high = middle;
                }
            }
            if low >= len || tables.key(row(low)) != wanted {
                return None;
            }
            self.next = low;
        }
        let found = row(self.next);
        self.next += 1;
        Some(found)
    }

    /// Where the rows of a tensor stand, where that is known without looking.
    fn range(&self, tables: &Tables, tensor: u32) -> Option<(usize, usize)> {
        let EntryKind::Tensor(row) = &tables.entries[tensor as usize].kind else { return None };
        let (start, end) = (row.chunks.start as usize, row.chunks.end as usize);
        (self.sorted.is_none() && start >= self.first)
            .then(|| (start - self.first, end - self.first))
    }
}

impl Tables {
    /// What a row is told by.
    fn key(&self, row: usize) -> (u32, &[u64]) {
        let (tensor, at) = (self.chunks[row].tensor, self.chunks[row].dims as usize);
        (tensor, &self.dims[at..at + self.rank_of(tensor)])
    }

    fn sizes(&self, row: usize) -> &[u64] {
        let (at, rank) = (self.chunks[row].dims as usize, self.rank_of(self.chunks[row].tensor));
        &self.dims[at + rank..at + 2 * rank]
    }

    fn rank_of(&self, tensor: u32) -> usize {
        match &self.entries[tensor as usize].kind {
            EntryKind::Tensor(row) => row.size.rank as usize,
            _ => 0,
        }
    }
}
