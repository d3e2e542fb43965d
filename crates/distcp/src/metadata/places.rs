//! `storage_data`: where the item of each chunk and object lies.

use std::collections::hash_map::Entry as Slot;

use ckptkit_core::hash::{HashMap, HashMapExt};
use ckptkit_core::{EntryPath, Error, Result, ResultExt};
use torch_save::pickle::{Kind, NodeRef};

use super::decode::{Decoder, narrow};
use super::walk::{self, Class};
use super::{Entry, EntryKind, ItemAt, Tables};

struct Place {
    tensor: u32,
    /// Where the offset's numbers start in the scratch array.
    offset: Option<usize>,
    rank: u8,
    item: ItemAt,
    fault: Option<Error>,
}

impl Decoder {
    /// Gives every chunk and bytes item of this file its place.
    pub(super) fn storage(&mut self, storage: NodeRef<'_>, first_row: usize) -> Result<()> {
        let mut places = Vec::new();
        walk::each_pair(storage, "storage_data", &mut |key, value, _| {
            let place = self.place(key, value)?;
            places.extend(place);
            Ok(())
        })?;
        let Tables { chunks, items, dims, entries, .. } = &mut self.tables;
        let rank_of = |entry: &Entry| match &entry.kind {
            EntryKind::Tensor(row) => Some(row.size.rank as usize),
            _ => None,
        };
        // One map for the whole file; chunks without elements give way to those with some.
        let mut by_offset: HashMap<(u32, &[u64]), usize> =
            HashMap::with_capacity(chunks.len() - first_row);
        for (i, row) in chunks.iter().enumerate().skip(first_row) {
            let Some(rank) = rank_of(&entries[row.tensor as usize]) else { continue };
            let at = row.dims as usize;
            let empty = dims[at + rank..at + 2 * rank].contains(&0);
            match by_offset.entry((row.tensor, &dims[at..at + rank])) {
                Slot::Vacant(slot) => {
                    slot.insert(i);
                }
                Slot::Occupied(mut slot) if !empty => {
                    let other = chunks[*slot.get()].dims as usize;
                    if dims[other + rank..other + 2 * rank].contains(&0) {
                        slot.insert(i);
                    }
                }
                Slot::Occupied(_) => {}
            }
        }
        let twice = |offset: Option<&[u64]>| {
            Error::malformed(match offset {
                Some(offset) => format!("storage_data has two places for the chunk at {offset:?}"),
                None => "storage_data has two places for it".to_owned(),
            })
        };
        let mut faults = Vec::new();
        for Place { tensor, offset, rank, item, fault } in places {
            if let Some(e) = fault {
                faults.push((tensor, e));
                continue;
            }
            let offset = offset.map(|at| &self.scratch[at..at + rank as usize]);
            match (&mut entries[tensor as usize].kind, offset) {
                (EntryKind::Tensor(_), Some(offset)) => match by_offset.get(&(tensor, offset)) {
                    Some(&row) if items[row].is_stored() => {
                        faults.push((tensor, twice(Some(offset))));
                    }
                    Some(&row) => items[row] = item,
                    None => self.strays += 1,
                },
                (EntryKind::Bytes(slot), None) if !slot.is_stored() => *slot = item,
                // A replica of an object that a lower rank has too.
                (EntryKind::Bytes(_), None) if self.absorbed.len() > 1 => {}
                (EntryKind::Bytes(_), None) => faults.push((tensor, twice(None))),
                _ => self.strays += 1,
            }
        }
        for (tensor, e) in faults {
            self.fault(tensor, e);
        }
        self.scratch.clear();
        Ok(())
    }

    fn place(&mut self, key: NodeRef<'_>, value: NodeRef<'_>) -> Result<Option<Place>> {
        if walk::class(key, "a key of storage_data")? != Class::Index {
            return Err(walk::unknown_global(key, "a key of storage_data"));
        }
        let [fqn, offset] = walk::fields(key, ["fqn", "offset"]);
        let Some(Kind::Str(raw) | Kind::Bytes(raw)) = fqn.map(NodeRef::kind) else {
            return Err(Error::malformed("a key of storage_data has no name"));
        };
        let Some(&tensor) = self.tables.by_fqn.get(raw) else {
            self.strays += 1;
            return Ok(None);
        };
        let at = self.scratch.len();
        let rank = offset.map(|o| walk::dims(o, "an offset in storage_data", &mut self.scratch));
        if self.scratch.len() > self.budget {
            return Err(Error::limit(
                "storage_data repeats its offsets more often than its length can hold",
            ));
        }
        let (rank, bad_offset) = match rank.transpose() {
            Ok(rank) => (rank, None),
            Err(e) => (None, Some(e)),
        };
        let item = match self.item(value, raw) {
            Err(e) if e.kind() == ckptkit_core::ErrorKind::Denied => return Err(e),
            other => other,
        };
        let (item, bad_item) = match item {
            Ok(item) => (item, None),
            Err(e) => (ItemAt::NONE, Some(e)),
        };
        Ok(Some(Place {
            tensor,
            offset: rank.map(|_| at),
            rank: rank.unwrap_or(0),
            item,
            fault: bad_offset.or(bad_item),
        }))
    }

    fn item(&mut self, value: NodeRef<'_>, fqn: &[u8]) -> Result<ItemAt> {
        if walk::class(value, "a place in storage")? != Class::StorageInfo {
            return Err(walk::unknown_global(value, "a place in storage"));
        }
        let [path, offset, length, transforms] =
            walk::fields(value, ["relative_path", "offset", "length", "transform_descriptors"]);
        let (Some(path), Some(offset), Some(length)) = (path, offset, length) else {
            return Err(Error::malformed("a place in storage has no path, no offset or no length"));
        };
        let offset = walk::count(offset, "an item's offset")?;
        let length = walk::count(length, "an item's length")?;
        offset.checked_add(length).filter(|&end| i64::try_from(end).is_ok()).ok_or_else(|| {
            Error::malformed(format!("an item of {length} bytes at offset {offset} ends past 2^63"))
        })?;
        let path = path.as_str().ok_or_else(|| {
            Error::denied(format!("{} stands for a file's relative path", walk::describe(path)))
                .within(format_args!("entry {}", walk::escaped(fqn)))
        })?;
        let file = match self.by_file.get(path) {
            Some(&file) => file,
            None => {
                EntryPath::new(path)
                    .within(|| format!("entry {}", walk::escaped(fqn)))
                    .map_err(|e| e.hint("its data would lie outside the checkpoint"))?;
                let file = narrow(self.tables.files.len());
                self.tables.files.push(path.to_owned());
                self.by_file.insert(path.to_owned(), file);
                file
            }
        };
        let transform = match transforms {
            None => 0,
            Some(list) => self.transform(list)?,
        };
        Ok(ItemAt { file, transform, offset, length })
    }

    fn transform(&mut self, list: NodeRef<'_>) -> Result<u32> {
        let mut names = Vec::new();
        for item in walk::items(list, "the list of transforms")? {
            let name = item.as_str().ok_or_else(|| {
                Error::malformed(format!("{} stands for a transform", walk::describe(item)))
            })?;
            names.push(name.to_owned());
            if names.len() > 16 {
                return Err(Error::limit("more than 16 transforms of one item"));
            }
        }
        let next = narrow(self.tables.transforms.len());
        if let Some(&known) = self.by_transforms.get(&names) {
            return Ok(known);
        }
        self.tables.transforms.push(names.clone());
        self.by_transforms.insert(names, next);
        Ok(next)
    }
}
