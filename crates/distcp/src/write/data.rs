//! The data files: items one after the other, each an archive of `torch.save`.

use ckptkit_core::{Error, OutputFile, Result, ResultExt, Segment, Tensor};
use torch_save::TensorArchives;

use super::Planned;
use super::deal::Share;
use super::entry::EntryKind;
use super::options::WriteOptions;
use super::split::in_elements;

/// Where an item came to lie.
pub(super) struct Placed {
    pub(super) share: Share,
    /// Position of its file.
    pub(super) file: usize,
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// The data files of all ranks, and the items in the order in which they lie in them.
pub(super) struct Data {
    pub(super) files: Vec<(String, OutputFile)>,
    pub(super) items: Vec<Placed>,
}

pub(super) fn lay_out(planned: &Planned<'_>, options: &WriteOptions) -> Result<Data> {
    let mut archive_options = torch_save::WriteOptions::new();
    archive_options.align = options.align;
    let mut archives = TensorArchives::new(archive_options);
    let mut data = Data { files: Vec::new(), items: Vec::new() };
    for (rank, shares) in planned.shares.iter().enumerate() {
        let mut number = 0;
        let mut open = None;
        for share in in_file_order(planned, shares, options) {
            let file = match open.filter(|_| !options.file_per_item) {
                Some(file) => file,
                None => {
                    data.files.push((format!("__{rank}_{number}.distcp"), OutputFile::default()));
                    number += 1;
                    *open.insert(data.files.len() - 1)
                }
            };
            let item = item(planned, share, &mut archives)
                .within(|| format!("entry {}", planned.names[share.entry]))?;
            let out = &mut data.files[file].1;
            pad(out, options.align)?;
            let (offset, length) = (out.len(), item.len());
            out.append(item)?;
            data.items.push(Placed { share, file, offset, length });
        }
    }
    Ok(data)
}

/// Objects come first in a file that holds several items, as torch writes them.
fn in_file_order<'a>(
    planned: &'a Planned<'_>,
    shares: &'a [Share],
    options: &WriteOptions,
) -> impl Iterator<Item = Share> + 'a {
    let is_object = |s: &Share| matches!(planned.entries[s.entry].kind(), EntryKind::Bytes(_));
    let together = options.file_per_item;
    let first = shares.iter().copied().filter(move |s| together || is_object(s));
    first.chain(shares.iter().copied().filter(move |s| !together && !is_object(s)))
}

fn item(planned: &Planned<'_>, share: Share, archives: &mut TensorArchives) -> Result<OutputFile> {
    match planned.entries[share.entry].kind() {
        EntryKind::Bytes(archive) => Ok(archive.clone()),
        EntryKind::Tensor(tensor) => archives.layout(&chunk(planned, share, tensor)?),
    }
}

/// The box that a share is.
pub(super) fn chunk(planned: &Planned<'_>, share: Share, tensor: &Tensor) -> Result<Tensor> {
    let held = &planned.parts[share.entry].split.chunks[share.chunk];
    tensor.region(&in_elements(tensor.dtype(), &held.region))
}

/// Gaps between items are legal, and an item of odd length would leave the next one unaligned.
fn pad(file: &mut OutputFile, align: u64) -> Result<()> {
    let end = file.len().checked_next_multiple_of(align);
    let end = end.ok_or_else(|| Error::limit("the output would be longer than a file can be"))?;
    file.push(Segment::Fill { byte: 0, len: end - file.len() })
}
