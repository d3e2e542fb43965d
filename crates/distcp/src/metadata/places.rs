//! `storage_data`: where the item of each chunk and object lies.

use ckptkit_core::{EntryPath, Error, ErrorKind, Result, ResultExt};
use torch_save::pickle::{Kind, NodeRef};

use super::decode::{Decoder, narrow};
use super::rows::Rows;
use super::walk::{self, Class};
use super::{EntryKind, ItemAt};

impl Decoder {
    /// Gives every chunk and bytes item of this file its place.
    pub(super) fn storage(&mut self, storage: NodeRef<'_>, first_row: usize) -> Result<()> {
        let mut rows = Rows::new(&self.tables, first_row);
        let mut offsets = 0;
        let mut faults = Vec::new();
        walk::each_pair(storage, "storage_data", &mut |key, value, _| {
            if let Some((tensor, e)) = self.place(key, value, &mut rows, &mut offsets)? {
                faults.push((tensor, e));
            }
            Ok(())
        })?;
        for (tensor, e) in faults {
            self.fault(tensor, e);
        }
        Ok(())
    }

    /// Takes in one pair; the entry that it is wrong for, and why, where it is.
    fn place(
        &mut self,
        key: NodeRef<'_>,
        value: NodeRef<'_>,
        rows: &mut Rows,
        offsets: &mut usize,
    ) -> Result<Option<(u32, Error)>> {
        if walk::class(key, "a key of storage_data")? != Class::Index {
            return Err(walk::unknown_global(key, "a key of storage_data"));
        }
        let [fqn, offset] = walk::fields(key, ["fqn", "offset"]);
        let Some(Kind::Str(raw) | Kind::Bytes(raw)) = fqn.map(NodeRef::kind) else {
            return Err(Error::malformed("a key of storage_data has no name"));
        };
        let Some(tensor) = self.named(raw) else {
            self.strays += 1;
            return Ok(None);
        };
        self.scratch.clear();
        let rank = offset.map(|o| walk::dims(o, "an offset in storage_data", &mut self.scratch));
        *offsets += self.scratch.len();
        if *offsets > self.budget {
            return Err(Error::limit(
                "storage_data repeats its offsets more often than its length can hold",
            ));
        }
        let item = match self.item(value, raw) {
            Err(e) if e.kind() == ErrorKind::Denied => return Err(e),
            other => other,
        };
        let (has_offset, item) = match (rank.transpose(), item) {
            (Err(e), _) | (Ok(_), Err(e)) => return Ok(Some((tensor, e))),
            (Ok(rank), Ok(item)) => (rank.is_some(), item),
        };
        let twice = |what: &str| {
            let e = Error::malformed(format!("storage_data has two places for {what}"));
            Some((tensor, e))
        };
        match (&mut self.tables.entries[tensor as usize].kind, has_offset) {
            (EntryKind::Tensor(_), true) => match rows.find(&self.tables, tensor, &self.scratch) {
                Some(row) if self.tables.items[row].is_stored() => {
                    return Ok(twice(&format!("the chunk at {:?}", self.scratch)));
                }
                Some(row) => self.tables.items[row] = item,
                None => self.strays += 1,
            },
            (EntryKind::Bytes(slot), false) if !slot.is_stored() => *slot = item,
            // A replica of an object that a lower rank has too.
            (EntryKind::Bytes(_), false) if self.absorbed.len() > 1 => {}
            (EntryKind::Bytes(_), false) => return Ok(twice("it")),
            _ => self.strays += 1,
        }
        Ok(None)
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
        let last = self.last_file;
        let is_last = self.tables.files.get(last as usize).is_some_and(|known| known == path);
        let file = match is_last.then_some(last).or_else(|| self.by_file.get(path).copied()) {
            Some(file) => file,
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
        self.last_file = file;
        let transform = match transforms {
            None => 0,
            Some(list) => self.transform(list)?,
        };
        Ok(ItemAt { file, transform, offset, length })
    }

    fn transform(&mut self, list: NodeRef<'_>) -> Result<u32> {
        let mut names = Vec::new();
        for item in walk::items(list, "the list of transforms")?.iter().map(|&id| list.other(id)) {
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
