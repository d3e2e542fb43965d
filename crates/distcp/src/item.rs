//! Items: a byte range of a data file that is a `torch.save` archive of its own.

use std::sync::{Arc, OnceLock};

use ckptkit_core::{
    Dtype, Error, Limits, Resolve, Result, ResultExt, Section, TensorBytes, TensorInfo, Transform,
};
use torch_save::{Container, OpenOptions, TorchFile};

use crate::metadata::ItemAt;
use crate::safetensors::{self, Blob};
use crate::storage::Files;
use crate::transform;

/// What an archive may weigh besides its tensor: headers, directory and pickle of the richest
/// item that torch writes are below 4 KiB; a megabyte leaves room for every stranger.
const OVERHEAD: u64 = (64 << 10) + (1 << 20);

/// Byte items up to this many bytes are read whole.
const SMALL: u64 = 16 << 10;

/// The data files and how items are read from them.
#[derive(Debug)]
pub(crate) struct Items {
    pub(crate) files: Files,
    pub(crate) transforms: Vec<Vec<String>>,
    pub(crate) limits: Limits,
    /// Where the last byte item of each file ends: a safetensors blob would start there.
    pub(crate) behind_bytes: Vec<u64>,
    pub(crate) blobs: Vec<OnceLock<Result<Option<Blob>>>>,
    /// Files from this one on hold one object each, beside the data files.
    pub(crate) first_object: u32,
}

/// What a byte item turned out to be.
#[derive(Clone, Debug)]
pub(crate) enum ByteItem {
    /// What torch.save wrote.
    Torch(TorchFile),
    /// What a custom planner wrote.
    Raw(Section),
}

impl Items {
    pub(crate) fn transforms_of(&self, at: ItemAt) -> &[String] {
        self.transforms.get(at.transform as usize).map_or(&[], Vec::as_slice)
    }

    /// The item's bytes, decoded to at most `most` bytes.
    pub(crate) fn section(&self, at: ItemAt, most: u64) -> Result<Section> {
        if !at.is_stored() {
            return Err(Error::malformed("storage_data has no place for it")
                .hint("the metadata belongs to another save, or the save did not finish"));
        }
        let file = self.files.open(at.file)?;
        let name = file.name().to_owned();
        transform::undo(file.slice(at.offset, at.length)?, self.transforms_of(at), most)
            .in_file(name)
    }

    /// Opens a tensor item. `info` says what its one tensor must be.
    ///
    /// # Errors
    /// `Malformed` where the item holds anything else.
    pub(crate) fn tensor(
        &self,
        at: ItemAt,
        offsets: &[u64],
        info: &TensorInfo,
    ) -> Result<(TensorBytes, Transform)> {
        self.tensor_inner(at, offsets, info).within(|| self.place(at))
    }

    fn tensor_inner(
        &self,
        at: ItemAt,
        offsets: &[u64],
        info: &TensorInfo,
    ) -> Result<(TensorBytes, Transform)> {
        if let Some(blob) = self.blob(at)? {
            return blob.tensor(info, offsets);
        }
        let file = self.archive(at, info)?;
        self.fitting(&file, info).in_file(file.section().name())
    }

    /// The safetensors blob that the item's file is, where it is one.
    pub(crate) fn blob(&self, at: ItemAt) -> Result<Option<Blob>> {
        let (Some(&start), Some(slot)) =
            (self.behind_bytes.get(at.file as usize), self.blobs.get(at.file as usize))
        else {
            return Ok(None);
        };
        // Such a writer gives every tensor offset 0 and applies no transform to it.
        if at.offset != 0 || at.transform != 0 {
            return Ok(None);
        }
        let open = || {
            let file = self.files.open(at.file)?;
            let rest = file.slice(start.min(file.len()), file.len().saturating_sub(start))?;
            if safetensors::detect(&rest) { Blob::open(rest).map(Some) } else { Ok(None) }
        };
        slot.get_or_init(open).clone()
    }

    /// The bytes of the one tensor in an item, if it is the one that `info` describes.
    pub(crate) fn fitting(
        &self,
        file: &TorchFile,
        info: &TensorInfo,
    ) -> Result<(TensorBytes, Transform)> {
        let tensor = only_tensor(file)?;
        if tensor.shape() != info.shape() {
            return Err(Error::malformed(format!(
                "the item holds a tensor of shape {:?}, its chunk has sizes {:?}",
                tensor.shape(),
                info.shape()
            )));
        }
        if tensor.dtype() != info.dtype() {
            return Err(Error::malformed(format!(
                "the item holds {} elements, the metadata says {}",
                tensor.dtype(),
                info.dtype()
            ))
            .hint("torch would load and cast it without a word; item_dtypes believes the items"));
        }
        tensor.check_expansion(&self.limits)?;
        let tensor = tensor.resolve()?;
        match tensor.bytes() {
            TensorBytes::Broken(e) => Err(e.clone()),
            bytes => Ok((bytes.clone(), tensor.transform())),
        }
    }

    /// The dtype of the one tensor in an item; `info` says what it should be.
    pub(crate) fn dtype(&self, at: ItemAt, info: &TensorInfo) -> Result<Dtype> {
        if let Some(blob) = self.blob(at)? {
            return blob.dtype(info.name());
        }
        // The largest elements there are, since it is not known yet which it has.
        let most = TensorInfo::new(info.name(), Dtype::C128, info.shape())?;
        let file = self.archive(at, &most)?;
        Ok(only_tensor(&file)?.dtype())
    }

    /// Opens a tensor item's archive.
    pub(crate) fn archive(&self, at: ItemAt, info: &TensorInfo) -> Result<TorchFile> {
        let section = self.section(at, info.byte_len().saturating_add(OVERHEAD))?;
        let file = OpenOptions::default().limits(self.limits.clone()).open(&section)?;
        if file.container() != Container::Zip {
            return Err(Error::malformed(format!(
                "the item is no zip archive ({}), as torch writes tensors",
                file.container().name()
            )));
        }
        Ok(file)
    }

    /// Opens a byte item.
    ///
    /// # Errors
    /// `Malformed` for a damaged archive; what is no archive is raw.
    pub(crate) fn bytes(&self, at: ItemAt) -> Result<ByteItem> {
        let open = || {
            let mut section = self.section(at, self.limits.decompressed_bytes)?;
            // One read instead of one for each member of a small archive.
            if section.len() <= SMALL && section.as_slice().is_none() {
                section = Section::from_bytes(section.read(SMALL)?, section.name());
            }
            let opened = OpenOptions::default().limits(self.limits.clone()).open(&section);
            match opened {
                Ok(file) => Ok(ByteItem::Torch(file)),
                Err(e) if at.file >= self.first_object => Err(e),
                Err(e) if section.head::<2>()? == b"PK" => Err(e),
                Err(_) => Ok(ByteItem::Raw(section)),
            }
        };
        open().within(|| self.place(at))
    }

    /// Where an item lies, for messages.
    pub(crate) fn place(&self, at: ItemAt) -> String {
        if !at.is_stored() {
            return "item".to_owned();
        }
        format!(
            "item of {} bytes at offset {} of {}",
            at.length,
            at.offset,
            self.files.name(at.file)
        )
    }
}

/// The tensor that is the whole file.
fn only_tensor(file: &TorchFile) -> Result<&ckptkit_core::Tensor> {
    if let Some((_, e)) = file.failures().first() {
        return Err(e.clone());
    }
    let whole = file.tensor_at(file.root().id()).is_some();
    match file.tensors() {
        [entry] if whole => match (entry.class(), entry.tensor().bytes()) {
            (Some(class), _) => Err(Error::unsupported(format!(
                "the item holds a tensor of class {class}, whose layout only that class knows"
            ))),
            (None, TensorBytes::None(why)) => {
                Err(Error::unsupported(format!("the item's tensor has no bytes: {why}")))
            }
            (None, _) => Ok(entry.tensor()),
        },
        [entry, ..] if whole => Err(Error::unsupported(format!(
            "the item holds a {} tensor{}, expected a plain one",
            entry.kind().name(),
            entry.class().map(|c| format!(" of class {c}")).unwrap_or_default()
        ))),
        [] => {
            Err(Error::malformed("the item holds an object without tensors, expected one tensor"))
        }
        entries => Err(Error::malformed(format!(
            "the item holds an object with {} in it, expected one tensor",
            if entries.len() == 1 {
                "a tensor".into()
            } else {
                format!("{} tensors", entries.len())
            }
        ))),
    }
}

/// Finds a chunk's bytes when they are first wanted.
pub(crate) struct ChunkItem {
    pub(crate) items: Arc<Items>,
    pub(crate) at: ItemAt,
    pub(crate) offsets: Box<[u64]>,
}

impl Resolve for ChunkItem {
    fn resolve(&self, info: &TensorInfo) -> Result<(TensorBytes, Transform)> {
        self.items.tensor(self.at, &self.offsets, info)
    }
}
