//! Joining the metadata of ranks that saved without talking to each other.
//!
//! Every rank describes the whole tensor but lists its own chunks only; what is replicated is in
//! every file. The union is the checkpoint, and of equal boxes the lowest rank's is read.

use super::decode::Decoder;
use super::{EntryKind, Tables};

impl Decoder {
    /// Brings the chunks of each tensor together and drops replicas.
    pub(super) fn merge(&mut self) {
        if self.absorbed.len() > 1 {
            self.join_ranks();
        }
    }

    fn join_ranks(&mut self) {
        let tables = &mut self.tables;
        let rank_of: Vec<usize> = tables
            .entries
            .iter()
            .map(|e| match &e.kind {
                EntryKind::Tensor(row) => row.size.rank as usize,
                _ => 0,
            })
            .collect();
        let key = |i: usize, tables: &Tables| {
            let row = tables.chunks[i];
            let at = row.dims as usize;
            (row.tensor, at..at + 2 * rank_of[row.tensor as usize])
        };
        let mut order: Vec<usize> = (0..tables.chunks.len()).collect();
        // Stable: of equal boxes the lowest rank's stays in front.
        order.sort_by(|&a, &b| {
            let ((ta, ra), (tb, rb)) = (key(a, tables), key(b, tables));
            ta.cmp(&tb).then_with(|| tables.dims[ra].cmp(&tables.dims[rb]))
        });
        let before = order.len();
        order.dedup_by(|&mut b, &mut a| {
            let ((ta, ra), (tb, rb)) = (key(a, tables), key(b, tables));
            ta == tb && tables.dims[ra] == tables.dims[rb] && tables.items[a].is_stored()
        });
        if order.len() < before {
            tables.notes.push(format!(
                "{} chunks are stored by several ranks; the lowest rank's are read",
                before - order.len()
            ));
        }
        tables.chunks = order.iter().map(|&i| tables.chunks[i]).collect();
        tables.items = order.iter().map(|&i| tables.items[i]).collect();
        let mut at = 0;
        for (index, entry) in tables.entries.iter_mut().enumerate() {
            let start = at;
            while tables.chunks.get(at).is_some_and(|row| row.tensor as usize == index) {
                at += 1;
            }
            if let EntryKind::Tensor(row) = &mut entry.kind {
                let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
                row.chunks = narrow(start)..narrow(at);
            }
        }
    }
}
