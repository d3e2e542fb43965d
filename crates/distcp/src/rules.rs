//! What the caller allows that torch would do without a word.

/// Off unless asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rules {
    /// What no chunk holds is read as zeros.
    pub(crate) partial: bool,
    /// Where all items of a tensor hold the same other dtype than the metadata says, it is theirs.
    pub(crate) item_dtypes: bool,
}
