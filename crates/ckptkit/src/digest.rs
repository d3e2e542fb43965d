//! SHA-256 of tensors, equal across formats where names and tensors are equal.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use ckptkit_core::{Error, Result, Tensor};
use rayon::prelude::*;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

/// What one tensor hashes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TensorDigest {
    /// The dtype's name.
    pub dtype: &'static str,
    /// Elements in every dimension.
    pub shape: Vec<u64>,
    /// SHA-256, in hex, of the contiguous, row-major, little-endian bytes; `None` for an entry
    /// without bytes of its own.
    pub sha256: Option<String>,
}

/// What a set of tensors hashes to.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct Digest {
    /// `sha256:` and the hash of the lines `SHA256 DTYPE 2x3 NAME`, sorted by name; `None` when a
    /// tensor could not be read.
    pub digest: Option<String>,
    /// Each tensor by its name.
    pub tensors: BTreeMap<String, TensorDigest>,
    /// The tensors that could not be read, and why.
    #[serde(skip)]
    pub failures: Vec<(String, Error)>,
}

impl Digest {
    /// The lines that the whole digest is made of, sorted by name: `-` stands for a hash that is
    /// null and for a scalar's shape.
    #[must_use]
    pub fn lines(&self) -> String {
        let mut out = String::new();
        for (name, t) in &self.tensors {
            let dims: Vec<String> = t.shape.iter().map(u64::to_string).collect();
            let shape = if dims.is_empty() { "-".to_owned() } else { dims.join("x") };
            let _ =
                writeln!(out, "{} {} {shape} {name}", t.sha256.as_deref().unwrap_or("-"), t.dtype);
        }
        out
    }
}

/// Reads and hashes tensors, several at a time, each a few MiB at a time. `progress` is told the
/// bytes of every finished tensor and may stop the work by answering `false`.
///
/// # Errors
/// [`Cancelled`](ckptkit_core::ErrorKind::Cancelled) only; tensors that cannot be read are in
/// [`Digest::failures`].
pub fn digest<'a>(
    tensors: impl Iterator<Item = &'a Tensor>,
    progress: &(dyn Fn(u64) -> bool + Sync),
) -> Result<Digest> {
    let tensors: Vec<&Tensor> = tensors.collect();
    let hashed: Vec<(String, Result<TensorDigest>)> = tensors
        .par_iter()
        .map(|t| {
            let hash = hash(t).map(|sha256| TensorDigest {
                dtype: t.dtype().name(),
                shape: t.shape().to_vec(),
                sha256,
            });
            if progress(t.byte_len()) {
                Ok((t.name().to_owned(), hash))
            } else {
                Err(Error::cancelled())
            }
        })
        .collect::<Result<_>>()?;
    let mut out = Digest { digest: None, tensors: BTreeMap::new(), failures: Vec::new() };
    for (name, hash) in hashed {
        match hash {
            Ok(hash) => {
                out.tensors.insert(name, hash);
            }
            Err(e) => out.failures.push((name, e)),
        }
    }
    if out.failures.is_empty() {
        out.digest = Some(format!("sha256:{}", hex(&Sha256::digest(out.lines()))));
    }
    Ok(out)
}

fn hash(tensor: &Tensor) -> Result<Option<String>> {
    let tensor = tensor.resolve()?;
    if matches!(tensor.bytes(), ckptkit_core::TensorBytes::None(_)) {
        return Ok(None);
    }
    let mut hasher = Sha256::new();
    tensor.copy_to(&mut hasher)?;
    Ok(Some(hex(&hasher.finalize())))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, b| {
        let _ = write!(out, "{b:02x}");
        out
    })
}
