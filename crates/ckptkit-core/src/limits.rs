//! Bounds on what a file may ask of its reader.

/// Bounds that keep hostile files from costing more than they are worth. The defaults let real
/// checkpoints of a million tensors pass.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of one pickle. Default 1 GiB.
    pub pickle_bytes: u64,
    /// Nodes of one pickle's object graph. Default 50 million.
    pub nodes: usize,
    /// Entries on a pickle machine's stack, and marks on it. Default 1 million.
    pub stack: usize,
    /// Bytes of one header or index: a safetensors header, a shard index, a zip directory.
    /// Default 100 MB for headers, which is the safetensors format's own bound.
    pub header_bytes: u64,
    /// Members of one zip or tar archive. Default 4 million.
    pub members: u64,
    /// Bytes that one compressed text or index may grow to in memory. Default 256 MiB.
    pub decompressed_bytes: u64,
    /// How many times larger than its stored bytes a tensor may become when it is made
    /// contiguous, once it is larger than [`Limits::expansion_floor`]. Default 64.
    pub expansion: u64,
    /// Bytes up to which any expansion is allowed. Default 1 GiB.
    pub expansion_floor: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            pickle_bytes: 1 << 30,
            nodes: 50_000_000,
            stack: 1_000_000,
            header_bytes: 100_000_000,
            members: 4_000_000,
            decompressed_bytes: 256 << 20,
            expansion: 64,
            expansion_floor: 1 << 30,
        }
    }
}
