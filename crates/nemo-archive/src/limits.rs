//! Bounds on what an archive may ask of its reader.

/// Bounds that keep hostile archives from costing more than they are worth. The defaults let every
/// archive pass that a release of NeMo has written.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ArchiveLimits {
    /// Members of one archive or files of one directory. Default 10 000.
    pub members: usize,
    /// Bytes of the config. Default 64 MiB.
    pub config_bytes: u64,
    /// How deep lists and mappings of the config may nest, aliases included. Default 64.
    pub yaml_depth: usize,
    /// Nodes that aliases and merge keys of the config may add when they are written out.
    /// Default 100 000.
    pub yaml_expansion: u64,
    /// Steps that one value of the config may take through `${…}`. Default 64.
    pub interpolation_depth: usize,
    /// How many times larger than its compressed bytes a gzip stream may become, once it is larger
    /// than [`ArchiveLimits::gzip_floor`]. Default 200.
    pub gzip_ratio: u64,
    /// Bytes up to which any ratio is allowed. Default 64 MiB.
    pub gzip_floor: u64,
    /// Bytes of one extension header (PAX records, GNU long name). Default 1 MiB.
    pub extension_bytes: u64,
    /// How many archives may lie inside each other, the outermost not counted. Default 2.
    pub nesting: u32,
}

impl Default for ArchiveLimits {
    fn default() -> Self {
        Self {
            members: 10_000,
            config_bytes: 64 << 20,
            yaml_depth: 64,
            yaml_expansion: 100_000,
            interpolation_depth: 64,
            gzip_ratio: 200,
            gzip_floor: 64 << 20,
            extension_bytes: 1 << 20,
            nesting: 2,
        }
    }
}
