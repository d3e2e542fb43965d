//! The data files: items one after the other, each an archive of `torch.save`.
//!
//! An item costs a position and an offset until it is written: what it holds is found again then.

use std::sync::Arc;

use ckptkit_core::{Error, OutputFile, Parts, Result, ResultExt, Segment};
use torch_save::TensorArchives;

use super::Planned;
use super::deal::Share;
use super::entry::EntryKind;
use super::options::WriteOptions;

/// The data files of all ranks.
pub(super) struct Data {
    pub(super) files: Vec<DataFile>,
    archives: Archives,
}

/// A data file, and the items in the order in which they lie in it.
pub(super) struct DataFile {
    pub(super) name: String,
    pub(super) items: Vec<Item>,
    len: u64,
}

/// Where an item came to lie.
#[derive(Clone, Copy, Debug)]
pub(super) struct Item {
    pub(super) share: Share,
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// Makes the archives of items.
struct Archives {
    planned: Arc<Planned>,
    tensors: TensorArchives,
}

impl Archives {
    /// Gets ready for an item; gives its bytes.
    fn prepare(&mut self, share: Share) -> Result<u64> {
        match &self.planned.kinds[share.entry()] {
            EntryKind::Bytes(archive) if archive.is_empty() => {
                Err(Error::invalid("an object of no bytes, expected an archive of torch.save"))
            }
            EntryKind::Bytes(archive) => Ok(archive.len()),
            EntryKind::Tensor(tensor) => self.tensors.prepare(&self.planned.chunk(share, tensor)?),
        }
    }

    fn layout(&self, share: Share) -> Result<OutputFile> {
        match &self.planned.kinds[share.entry()] {
            EntryKind::Bytes(archive) => Ok((**archive).clone()),
            EntryKind::Tensor(tensor) => self.tensors.layout(&self.planned.chunk(share, tensor)?),
        }
    }
}

/// The shares of every rank as files.
pub(super) fn lay_out(
    planned: &Arc<Planned>,
    shares: Vec<Vec<Share>>,
    options: &WriteOptions,
) -> Result<Data> {
    let mut archive_options = torch_save::WriteOptions::new();
    archive_options.align = options.align;
    let tensors = TensorArchives::new(archive_options);
    let mut data =
        Data { files: Vec::new(), archives: Archives { planned: Arc::clone(planned), tensors } };
    for (rank, shares) in shares.into_iter().enumerate() {
        let per_file = if options.file_per_item { 1 } else { shares.len().max(1) };
        let ordered = in_file_order(planned, shares, options);
        for (number, shares) in ordered.chunks(per_file).enumerate() {
            let name = format!("__{rank}_{number}.distcp");
            data.files.push(file(name, shares, &mut data.archives, options.align)?);
        }
    }
    Ok(data)
}

/// Objects come first in a file that holds several items, as torch writes them.
fn in_file_order(planned: &Planned, shares: Vec<Share>, options: &WriteOptions) -> Vec<Share> {
    if options.file_per_item {
        return shares;
    }
    let (mut objects, tensors): (Vec<Share>, Vec<Share>) =
        shares.into_iter().partition(|share| planned.is_object(*share));
    objects.extend(tensors);
    objects
}

fn file(name: String, shares: &[Share], archives: &mut Archives, align: u64) -> Result<DataFile> {
    let too_long = || Error::limit("the output would be longer than a file can be");
    let (mut items, mut len) = (Vec::with_capacity(shares.len()), 0_u64);
    for &share in shares {
        let length = archives
            .prepare(share)
            .within(|| format!("entry {}", archives.planned.names[share.entry()]))?;
        // Gaps between items are legal, and an item of odd length would leave the next one
        // unaligned.
        let offset = len.checked_next_multiple_of(align).ok_or_else(too_long)?;
        len = offset.checked_add(length).ok_or_else(too_long)?;
        items.push(Item { share, offset, length });
    }
    Ok(DataFile { name, items, len })
}

impl Data {
    /// The files under their names.
    pub(super) fn into_files(self) -> Result<Vec<(String, OutputFile)>> {
        let archives = Arc::new(self.archives);
        let files = self.files.into_iter().map(|file| {
            let items = Items {
                archives: Arc::clone(&archives),
                items: file.items.into_iter().map(|i| (i.offset, i.share)).collect(),
                len: file.len,
            };
            let mut out = OutputFile::default();
            out.push(Segment::Parts(Arc::new(items)))?;
            Ok((file.name, out))
        });
        files.collect()
    }
}

/// The items of a data file, to be laid out when they are written.
struct Items {
    archives: Arc<Archives>,
    /// Each with its offset in the file.
    items: Box<[(u64, Share)]>,
    len: u64,
}

impl std::fmt::Debug for Items {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Items({} in {} bytes)", self.items.len(), self.len)
    }
}

impl Parts for Items {
    fn total_bytes(&self) -> u64 {
        self.len
    }

    fn part_at(&self, at: u64) -> Result<(u64, OutputFile)> {
        let next = self.items.partition_point(|(offset, _)| *offset <= at);
        let item = next.checked_sub(1).and_then(|i| self.items.get(i));
        let &(offset, share) =
            item.ok_or_else(|| Error::invalid(format!("no item holds byte {at}")))?;
        let end = self.items.get(next).map_or(self.len, |(offset, _)| *offset);
        let name = || format!("entry {}", self.archives.planned.names[share.entry()]);
        let mut file = self.archives.layout(share).within(name)?;
        // Up to the next item.
        file.push(Segment::Fill { byte: 0, len: (end - offset).saturating_sub(file.len()) })?;
        Ok((offset, file))
    }
}
