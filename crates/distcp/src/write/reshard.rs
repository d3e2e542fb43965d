//! The entries of an opened checkpoint, to be written again.

use ckptkit_core::{Error, OutputFile, Result, ResultExt, Segment, TensorInfo};

use super::entry::Entry;
use crate::assemble;
use crate::metadata::EntryKind;
use crate::read::DistCheckpoint;

impl DistCheckpoint {
    /// Everything that the metadata lists, as [`layout`](crate::layout) takes it, to be written for
    /// other ranks: tensors put together from their chunks, objects as the bytes that they are.
    /// Opens none of their items; `meta.pt` and `common.pt` are no entries.
    ///
    /// ```
    /// use distcp::{DistCheckpoint, WriteOptions};
    ///
    /// # fn main() -> ckptkit_core::Result<()> {
    /// # let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/distcp");
    /// let four = DistCheckpoint::open(format!("{fixtures}/fsdp2_4"))?;
    /// let mut options = WriteOptions::new();
    /// options.ranks = 3;
    /// let plan = distcp::plan(&four.entries()?, &options)?;
    /// assert_eq!(plan.files.len(), 3);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// That of the first entry of which not even a shape or a place is known. A tensor that cannot
    /// be read is an entry, which `layout` refuses.
    pub fn entries(&self) -> Result<Vec<Entry>> {
        let (tables, items) = (&self.opened.tables, &self.opened.items);
        let entry = |entry: &crate::metadata::Entry, index: u32| {
            let path = tables.path(entry);
            match &entry.kind {
                EntryKind::Tensor(row) => {
                    let shape = row.reformulated.as_deref().unwrap_or(tables.size(row));
                    let info = TensorInfo::new(entry.fqn.as_str(), row.dtype, shape)?;
                    let tensor = assemble::tensor(&self.opened, index, row, &info)?;
                    Ok(Entry::tensor(path, tensor))
                }
                EntryKind::Bytes(at) => {
                    if let Some(fault) = &entry.fault {
                        return Err(fault.clone());
                    }
                    let mut archive = OutputFile::default();
                    let section = items.section(*at, self.opened.limits.decompressed_bytes)?;
                    archive.push(Segment::Section(section))?;
                    Ok(Entry::bytes(path, archive))
                }
                EntryKind::Unknown => Err(entry
                    .fault
                    .clone()
                    .unwrap_or_else(|| Error::malformed("nothing is known of it"))),
            }
        };
        let all = tables.entries.iter().zip(0..);
        let all = all.map(|(e, index)| entry(e, index).within(|| format!("entry {}", e.fqn)));
        all.collect::<Result<_>>().in_file(self.opened.storage.name())
    }
}
