//! The typed tables that a `.metadata` pickle becomes.
//!
//! A checkpoint of a thousand ranks has a million chunks, so a chunk here is a row of 32 bytes and
//! its numbers in one array; nothing is allocated for it alone.

mod decode;
mod merge;
mod names;
mod paths;
mod places;
mod rows;
mod walk;

use std::ops::Range;

use ckptkit_core::{Dtype, Error, Key, Result};

pub(crate) use decode::{Decoder, narrow};
use names::Names;
pub(crate) use paths::most_positions;

/// No file: the item of a chunk that storage has no entry for.
pub(crate) const NO_FILE: u32 = u32::MAX;

/// Everything that `.metadata` says, or all `__N.metadata` together.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    /// In the order in which they are first mentioned.
    pub(crate) entries: Vec<Entry>,
    names: Names,
    chunks: Vec<ChunkRow>,
    items: Vec<ItemAt>,
    dims: Vec<u64>,
    parts: Vec<u32>,
    own_paths: Vec<Vec<Key>>,
    /// Relative paths of the data files, as written.
    pub(crate) files: Vec<String>,
    /// Distinct lists of transforms; the first is empty.
    pub(crate) transforms: Vec<Vec<String>>,
    pub(crate) notes: Vec<String>,
    pub(crate) traits: Traits,
}

/// What tells the writer's version.
#[derive(Clone, Debug, Default)]
pub(crate) struct Traits {
    pub(crate) version: Option<String>,
    pub(crate) storage_meta: bool,
    pub(crate) modules: bool,
    pub(crate) shard_names: bool,
    pub(crate) strides: bool,
    pub(crate) planner_data: bool,
    pub(crate) megatron: bool,
}

/// One key of the flattened state dict.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Its fully qualified name; lone surrogates are escaped.
    pub(crate) fqn: String,
    pub(crate) kind: EntryKind,
    path: PathAt,
    /// What is wrong with it, where something is.
    pub(crate) fault: Option<Error>,
}

impl Entry {
    /// Whether a name that is UTF-8 is its own.
    fn is_called(&self, raw: &[u8]) -> bool {
        self.fqn.as_bytes() == raw
    }
}

#[derive(Debug)]
pub(crate) enum EntryKind {
    Tensor(TensorRow),
    Bytes(ItemAt),
    /// Neither can be made of it; [`Entry::fault`] says why.
    Unknown,
}

#[derive(Debug)]
pub(crate) struct TensorRow {
    pub(crate) dtype: Dtype,
    size: DimsAt,
    chunks: Range<u32>,
    /// Megatron's flattened optimizer shards: the shape that the blocks make.
    pub(crate) reformulated: Option<Vec<u64>>,
}

impl TensorRow {
    pub(crate) fn chunk_count(&self) -> usize {
        self.chunks.len()
    }
}

#[derive(Clone, Copy, Debug)]
struct DimsAt {
    start: u32,
    rank: u8,
}

#[derive(Clone, Copy, Debug)]
enum PathAt {
    /// There is none: the FQN is the key.
    Absent,
    /// Lengths of the FQN's parts, from `start`.
    Parts { start: u32, len: u32 },
    /// A path that is not the FQN cut at dots.
    Own(u32),
}

/// Marks a list position among [`Tables::parts`].
const INDEX_PART: u32 = 1 << 31;

#[derive(Clone, Copy, Debug)]
struct ChunkRow {
    tensor: u32,
    /// Offsets, then sizes.
    dims: u32,
}

/// Where an item lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ItemAt {
    pub(crate) file: u32,
    pub(crate) transform: u32,
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

impl ItemAt {
    pub(crate) const NONE: Self = Self { file: NO_FILE, transform: 0, offset: 0, length: 0 };

    pub(crate) fn is_stored(self) -> bool {
        self.file != NO_FILE
    }
}

/// One chunk as the tables have it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ChunkRef<'a> {
    pub(crate) offsets: &'a [u64],
    pub(crate) sizes: &'a [u64],
    pub(crate) item: ItemAt,
}

impl Tables {
    /// The tensor's stored shape, in elements.
    pub(crate) fn size(&self, row: &TensorRow) -> &[u64] {
        let start = row.size.start as usize;
        &self.dims[start..start + row.size.rank as usize]
    }

    /// The tensor's chunks, in file order.
    pub(crate) fn chunks(&self, row: &TensorRow) -> impl ExactSizeIterator<Item = ChunkRef<'_>> {
        let rank = row.size.rank as usize;
        (row.chunks.start as usize..row.chunks.end as usize).map(move |i| {
            let at = self.chunks[i].dims as usize;
            ChunkRef {
                offsets: &self.dims[at..at + rank],
                sizes: &self.dims[at + rank..at + 2 * rank],
                item: self.items[i],
            }
        })
    }

    /// The only chunk of a tensor, where it is all of it, with elements, and is stored.
    pub(crate) fn whole(&self, row: &TensorRow) -> Option<ChunkRef<'_>> {
        let chunk = (row.chunk_count() == 1).then(|| self.chunks(row).next()).flatten()?;
        let all = chunk.sizes == self.size(row) && chunk.offsets.iter().all(|&o| o == 0);
        (all && !chunk.sizes.contains(&0) && chunk.item.is_stored()).then_some(chunk)
    }

    /// Every item that is stored.
    pub(crate) fn items(&self) -> impl Iterator<Item = (&Entry, ItemAt)> {
        let chunks = (self.chunks.iter().zip(&self.items))
            .map(|(row, &item)| (&self.entries[row.tensor as usize], item));
        let bytes = self.entries.iter().filter_map(|e| match e.kind {
            EntryKind::Bytes(item) => Some((e, item)),
            _ => None,
        });
        chunks.chain(bytes).filter(|(_, item)| item.is_stored())
    }

    /// Adds an object that is a file of its own, or why it cannot be read.
    pub(crate) fn add_object(&mut self, fqn: String, file: &str, length: Result<u64>) {
        let (at, fault) = match length {
            Ok(length) => {
                let at = narrow(self.files.len());
                self.files.push(file.to_owned());
                (ItemAt { file: at, transform: 0, offset: 0, length }, None)
            }
            Err(e) => (ItemAt::NONE, Some(e)),
        };
        let kind = EntryKind::Bytes(at);
        let index = narrow(self.entries.len());
        self.names.insert(fqn.as_bytes(), &fqn, index, &self.entries);
        self.entries.push(Entry { fqn, kind, path: PathAt::Absent, fault });
    }

    pub(crate) fn chunk_count(&self) -> usize {
        self.chunks.len()
    }

    /// The position of the entry with a name; with one that is escaped where it is no UTF-8.
    pub(crate) fn index_of(&self, fqn: &str) -> Option<u32> {
        self.names.find(fqn.as_bytes(), &self.entries).or_else(|| self.names.escaped(fqn))
    }

    /// Whether the name joined from the entry's path is its FQN.
    pub(crate) fn is_named_by_fqn(&self, entry: &Entry) -> bool {
        !matches!(entry.path, PathAt::Own(_))
    }

    /// The entry's place in the tree.
    pub(crate) fn path(&self, entry: &Entry) -> Vec<Key> {
        match entry.path {
            PathAt::Absent => vec![Key::Str(entry.fqn.as_str().into())],
            PathAt::Own(i) => self.own_paths[i as usize].clone(),
            PathAt::Parts { start, len } => {
                let mut at = 0;
                let parts = &self.parts[start as usize..start as usize + len as usize];
                let keys = parts.iter().map(|&part| {
                    let n = (part & !INDEX_PART) as usize;
                    let text = entry.fqn.get(at..at + n).unwrap_or_default();
                    at += n + 1;
                    match (part & INDEX_PART != 0).then(|| text.parse()) {
                        Some(Ok(i)) => Key::Index(i),
                        _ => Key::Str(text.into()),
                    }
                });
                keys.collect()
            }
        }
    }
}
