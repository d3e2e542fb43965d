//! The strict check: every item opened, every checksum computed.

use ckptkit_core::{Error, Result, ResultExt, TensorInfo};
use torch_save::TorchFile;

use crate::assemble;
use crate::item::ByteItem;
use crate::metadata::{EntryKind, TensorRow};
use crate::read::DistCheckpoint;

/// The most problems that a report lists.
const MOST: usize = 1000;

/// What [`DistCheckpoint::verify`] found.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Report {
    /// Tensors whose chunks were checked to tile them.
    pub tensors: usize,
    /// Items that were opened.
    pub items: usize,
    /// Bytes of these items.
    pub bytes: u64,
    /// Archive members whose checksum was right.
    pub checksums: usize,
    /// Archive members without a checksum: their bytes cannot be checked.
    pub unchecked: usize,
    /// What is wrong; each error names the entry and the item. At most a thousand are kept.
    pub problems: Vec<Error>,
    /// What is strange without being wrong.
    pub notes: Vec<String>,
}

impl Report {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.problems.is_empty()
    }

    fn add(&mut self, checked: Result<()>) {
        if let Err(e) = checked {
            if self.problems.len() < MOST {
                self.problems.push(e);
            }
        }
    }

    fn file(&mut self, file: &TorchFile, entry: &str) -> Result<()> {
        let verified = file.verify()?;
        self.checksums += verified.checksums;
        self.unchecked += verified.unchecked;
        let room = MOST.saturating_sub(self.notes.len());
        self.notes.extend(file.notes().iter().take(room).map(|n| format!("{entry}: {n}")));
        Ok(())
    }
}

impl DistCheckpoint {
    /// Checks everything that can be checked without a reference: that chunks tile their tensors,
    /// that every item is a sound archive of one tensor of its chunk's shape and dtype, and every
    /// recorded checksum. Reads the whole checkpoint once. (Reading a tensor checks all of this but
    /// the checksums, which would need every byte of an item where only some are wanted.)
    ///
    /// # Errors
    /// What is wrong with the checkpoint is in the report; an error is only what keeps from
    /// looking.
    ///
    /// ```
    /// use distcp::DistCheckpoint;
    /// # fn main() -> ckptkit_core::Result<()> {
    /// # let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/distcp");
    /// let checkpoint = DistCheckpoint::open(format!("{fixtures}/tp_2"))?;
    /// let report = checkpoint.verify()?;
    /// assert!(report.is_ok());
    /// assert_eq!(report.tensors, 11);
    /// # Ok(())
    /// # }
    /// ```
    pub fn verify(&self) -> Result<Report> {
        let mut report = Report { notes: self.opened.notes.clone(), ..Report::default() };
        for (entry, index) in self.opened.tables.entries.iter().zip(0..) {
            let checked = match (&entry.kind, &entry.fault) {
                (_, Some(e)) => Err(e.clone()),
                (EntryKind::Tensor(row), None) => self.verify_tensor(index, row, &mut report),
                (EntryKind::Bytes(at), None) => {
                    report.items += 1;
                    report.bytes += at.length;
                    self.opened.items.bytes(*at).and_then(|item| match item {
                        ByteItem::Torch(file) => {
                            report.file(&file, &entry.fqn).within(|| self.opened.items.place(*at))
                        }
                        ByteItem::Raw(_) => Ok(()),
                    })
                }
                (EntryKind::Unknown, None) => Err(Error::malformed("nothing is known of it")),
            };
            report.add(
                checked
                    .within(|| format!("entry {}", entry.fqn))
                    .in_file(self.opened.storage.name()),
            );
        }
        for (file, name) in [(self.meta(), "meta.pt"), (self.common(), "common.pt")] {
            let checked = match file {
                Ok(Some(file)) => report.file(&file, name),
                Ok(None) => Ok(()),
                Err(e) => Err(e),
            };
            report.add(checked);
        }
        report.notes.extend_from_slice(self.partial_notes());
        report.add(self.opened.objects_fault.clone().map_or(Ok(()), Err));
        if report.checksums == 0 && report.unchecked > 0 {
            report.notes.push(
                "the items have no checksums (saved with set_crc32_options(False)): damage to tensor bytes cannot be seen".into(),
            );
        }
        Ok(report)
    }

    fn verify_tensor(&self, index: u32, row: &TensorRow, report: &mut Report) -> Result<()> {
        let inner = &self.opened;
        let entry = &inner.tables.entries[index as usize];
        report.tensors += 1;
        assemble::check(&inner.tables, row, inner.rules)?;
        let dtype = if inner.rules.item_dtypes {
            self.entry_info(entry).map_or(row.dtype, TensorInfo::dtype)
        } else {
            row.dtype
        };
        for c in inner.tables.chunks(row).filter(|c| c.item.is_stored()) {
            report.items += 1;
            report.bytes += c.item.length;
            let info = TensorInfo::new(entry.fqn.as_str(), dtype, c.sizes)?;
            let mut check = || {
                if let Some(blob) = inner.items.blob(c.item)? {
                    return blob.tensor(&info, c.offsets).map(|_| ());
                }
                let file = inner.items.archive(c.item, &info)?;
                inner.items.fitting(&file, &info)?;
                report.file(&file, &entry.fqn)
            };
            let checked = check()
                .within(|| inner.items.place(c.item))
                .within(|| format!("chunk at {:?}", c.offsets))
                .within(|| format!("entry {}", entry.fqn))
                .in_file(inner.storage.name());
            report.add(checked);
        }
        if let (Some(_), Some(info)) = (&row.reformulated, self.entry_info(entry)) {
            // Blocks of flattened shards must fit the shape that they make.
            let tensor = assemble::tensor(inner, index, row, info)?;
            if let ckptkit_core::TensorBytes::Broken(e) = tensor.bytes() {
                return Err(e.clone());
            }
        }
        Ok(())
    }
}
