//! How a checkpoint is laid out.

/// Into how many parts, and in which form.
///
/// A tensor is cut as `torch.distributed.tensor` cuts it: a dimension of `n` rows over `r` ranks
/// gives `ceil(n / r)` rows to each, fewer to the last that still gets some, and none to those
/// behind it, which store a chunk without elements at the end. Dimension `d` of the mesh cuts
/// dimension `d` of the tensor, where the tensor has it: with one dimension (the default) that is
/// FSDP2's split of rows, with two it is FSDP2 by rows and tensor parallelism by columns.
/// [`Entry::placed`](crate::Entry::placed) asks for another split of one tensor. Loaders take any
/// split into any other.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WriteOptions {
    /// The number of ranks, each of which has files of its own. Default 1.
    pub ranks: u32,
    /// The mesh that the ranks make, outermost dimension first; its product is `ranks`. Empty (the
    /// default) is one dimension of all ranks.
    pub mesh: Vec<u32>,
    /// What is written.
    pub form: Form,
    /// Items, and the tensors in them, start at a multiple of this many bytes in the file: a power
    /// of two up to 32768. Default 64, as the archives of torch; with 4096 file systems can share
    /// blocks between files, and an item has some 24 KiB more.
    pub align: u64,
    /// One file for each item instead of one for each rank (`single_file_per_rank=False`).
    pub file_per_item: bool,
}

/// The form of a checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Form {
    /// `.metadata` and `.distcp` files of `torch.save` archives, which torch 2.3 and later load.
    #[default]
    TorchSave,
    /// The shards of torch's `HuggingFaceStorageWriter`, one safetensors file a rank: tensors
    /// only, no nesting, no `.metadata`. Needs the feature `safetensors`.
    Safetensors,
}

impl Default for WriteOptions {
    fn default() -> Self {
        Self { ranks: 1, mesh: Vec::new(), form: Form::default(), align: 64, file_per_item: false }
    }
}

impl WriteOptions {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}
