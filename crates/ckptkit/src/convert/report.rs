//! What a conversion did, and what it left out.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

/// What was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Kind {
    /// A tensor.
    Tensor,
    /// A value that is no tensor.
    Value,
    /// A file that the checkpoint carries.
    Artifact,
}

/// One thing that the destination does not have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LeftOut {
    /// Its name or key in the source.
    pub path: String,
    /// What it is.
    pub kind: Kind,
    /// Why it was left out.
    pub why: String,
}

/// The report of a conversion; as JSON the answer of `ckptkit convert --json`.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// The source, as it was given.
    pub source: PathBuf,
    /// The destination, as it was given.
    pub destination: PathBuf,
    /// The destination's format.
    pub format: &'static str,
    /// Files written.
    pub files: usize,
    /// Tensors written.
    pub tensors: usize,
    /// Bytes of the tensors written.
    pub bytes: u64,
    /// Old name → new name of every tensor whose name changed.
    pub renamed: BTreeMap<String, String>,
    /// Name → (dtype before, dtype after).
    pub cast: BTreeMap<String, (String, String)>,
    /// Removed name → the name that its tensor is kept under.
    pub aliases: BTreeMap<String, String>,
    /// Name → elements that are stored nowhere in the source and were written as zeros, with
    /// [`OpenOptions::allow_partial`](crate::OpenOptions::allow_partial).
    pub filled: BTreeMap<String, u64>,
    /// What the destination does not have.
    pub left_out: Vec<LeftOut>,
    /// What else is worth knowing.
    pub notes: Vec<String>,
}
