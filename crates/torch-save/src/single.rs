//! Many archives of one tensor each: the items of distributed checkpoints.

use std::collections::HashMap;

use ckptkit_core::{Dtype, OutputFile, Result, Section, Segment, Tensor};

use crate::document::Document;
use crate::write::WriteOptions;

/// Lays out archives whose object is one tensor, as `torch.save(tensor)` makes them.
///
/// What surrounds the bytes depends on dtype and shape alone. It is made once for each pair that
/// occurs and shared, so that an archive costs some hundred bytes of memory.
///
/// ```
/// use ckptkit_core::{CopyOptions, Dtype, Existing, Layout, Section, Tensor, TensorBytes, TensorInfo};
/// use ckptkit_core::TensorSource;
/// use torch_save::{TensorArchives, TorchFile, WriteOptions};
///
/// # fn main() -> ckptkit_core::Result<()> {
/// let info = TensorInfo::new("w", Dtype::U8, [2])?;
/// let w = Tensor::new(info, TensorBytes::Range(Section::from_bytes([7, 9], "memory")))?;
/// let mut archives = TensorArchives::new(WriteOptions::new());
/// let bytes = archives.prepare(&w)?;
/// let layout = Layout::file(archives.layout(&w)?);
/// assert_eq!(layout.total_bytes(), bytes);
///
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("w.pt");
/// layout.write(&path, Existing::Refuse, &CopyOptions::default())?;
/// assert_eq!(TorchFile::open(&path)?.tensor("tensor")?.read()?, [7, 9]);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct TensorArchives {
    options: WriteOptions,
    known: HashMap<Dtype, HashMap<Vec<u64>, OutputFile>>,
}

impl TensorArchives {
    /// With nothing laid out yet.
    #[must_use]
    pub fn new(options: WriteOptions) -> Self {
        Self { options, known: HashMap::new() }
    }

    /// Makes what surrounds the bytes of such a tensor, where it is not there; gives the bytes of
    /// the archive.
    ///
    /// # Errors
    /// As [`Document::tensors`] and [`Document::layout`].
    pub fn prepare(&mut self, tensor: &Tensor) -> Result<u64> {
        if let Some(known) = self.known(tensor) {
            return Ok(known.len());
        }
        let file = self.make(tensor)?;
        let len = file.len();
        self.known.entry(tensor.dtype()).or_default().insert(tensor.shape().to_vec(), file);
        Ok(len)
    }

    /// The archive of a tensor, made contiguous whatever it is a view of. Reads nothing of it, and
    /// costs little where one of its dtype and shape was [prepared](Self::prepare).
    ///
    /// # Errors
    /// As [`Document::tensors`] and [`Document::layout`].
    pub fn layout(&self, tensor: &Tensor) -> Result<OutputFile> {
        let Some(known) = self.known(tensor) else { return self.make(tensor) };
        known.clone().map(|segment| {
            Ok(match segment {
                Segment::Tensor(_) => Segment::Tensor(tensor.clone()),
                shared => shared,
            })
        })
    }

    fn known(&self, tensor: &Tensor) -> Option<&OutputFile> {
        let known = self.known.get(&tensor.dtype())?.get(tensor.shape())?;
        tensor.has_bytes().then_some(known)
    }

    fn make(&self, tensor: &Tensor) -> Result<OutputFile> {
        let mut document = Document::new();
        // Without its storage a view is written as what it sees.
        let root = document.tensor(&tensor.clone().unshared())?;
        document.set_root(root);
        document.layout(&self.options)?.map(|segment| {
            Ok(match segment {
                Segment::Literal(bytes) => {
                    Segment::Section(Section::from_bytes(bytes, "an archive's members"))
                }
                _ => Segment::Tensor(tensor.clone()),
            })
        })
    }
}
