//! Other weights for a model, compared with those that it has.

use std::collections::HashMap;

use ckptkit_core::{Dtype, EntryPath, Error, OutputFile, Result, TensorInfo};

use super::{Editor, infos, refuse_other_layouts};
use crate::write::members::{Content, Member, Role};
use crate::write::{Change, WEIGHTS};

/// Where two state dicts differ, other than in values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WeightsDifference {
    /// Names that only the old one has: NeMo fails on one.
    pub missing: Vec<String>,
    /// Names that only the new one has: NeMo fails on one.
    pub unexpected: Vec<String>,
    /// Names with the old shape and the new one: NeMo fails on one.
    pub shapes: Vec<(String, Vec<u64>, Vec<u64>)>,
    /// Names with the old dtype and the new one, which NeMo casts as it loads.
    pub dtypes: Vec<(String, Dtype, Dtype)>,
}

impl WeightsDifference {
    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Refuses a difference, in words.
    ///
    /// # Errors
    /// [`InvalidArgument`](ckptkit_core::ErrorKind::InvalidArgument) unless there is none.
    pub fn refuse(&self) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        Err(Error::invalid(format!("the new weights are not like the old ones: {self}")))
    }
}

impl std::fmt::Display for WeightsDifference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shape =
            |(name, old, new): &(String, Vec<u64>, Vec<u64>)| format!("{name} {old:?} and {new:?}");
        let dtype = |(name, old, new): &(String, Dtype, Dtype)| format!("{name} {old} and {new}");
        let parts = [
            part("missing", self.missing.iter().cloned(), self.missing.len()),
            part("not expected", self.unexpected.iter().cloned(), self.unexpected.len()),
            part("of other shapes", self.shapes.iter().map(shape), self.shapes.len()),
            part("of other dtypes", self.dtypes.iter().map(dtype), self.dtypes.len()),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        f.write_str(if parts.is_empty() { "no difference" } else { "" })?;
        f.write_str(&parts.join("; "))
    }
}

fn part(what: &str, names: impl Iterator<Item = String>, len: usize) -> Option<String> {
    const SHOWN: usize = 3;
    let shown: Vec<String> = names.take(SHOWN).collect();
    let more = if len > SHOWN { ", …" } else { "" };
    (len > 0).then(|| format!("{len} {what} ({}{more})", shown.join(", ")))
}

/// Compares names, shapes and dtypes; order means nothing.
///
/// ```
/// use ckptkit_core::{Dtype, TensorInfo};
/// use nemo_archive::compare_weights;
///
/// # fn main() -> ckptkit_core::Result<()> {
/// let old = [TensorInfo::new("w", Dtype::F32, [2, 3])?];
/// let new = [TensorInfo::new("w", Dtype::F32, [3, 3])?, TensorInfo::new("b", Dtype::F32, [3])?];
/// let difference = compare_weights(&old, &new);
/// assert_eq!(difference.unexpected, ["b"]);
/// assert_eq!(difference.shapes, [("w".into(), vec![2, 3], vec![3, 3])]);
/// assert!(difference.refuse().is_err());
/// # Ok(())
/// # }
/// ```
#[must_use]
pub fn compare_weights(old: &[TensorInfo], new: &[TensorInfo]) -> WeightsDifference {
    let by_name: HashMap<&str, &TensorInfo> = new.iter().map(|t| (t.name(), t)).collect();
    let mut difference = WeightsDifference::default();
    for tensor in old {
        let name = tensor.name().to_owned();
        let Some(other) = by_name.get(tensor.name()) else {
            difference.missing.push(name);
            continue;
        };
        if tensor.dtype() != other.dtype() {
            difference.dtypes.push((name.clone(), tensor.dtype(), other.dtype()));
        }
        if tensor.shape() != other.shape() {
            difference.shapes.push((name, tensor.shape().to_vec(), other.shape().to_vec()));
        }
    }
    let known: std::collections::HashSet<&str> = old.iter().map(TensorInfo::name).collect();
    let unexpected = new.iter().map(TensorInfo::name).filter(|name| !known.contains(name));
    difference.unexpected.extend(unexpected.map(str::to_owned));
    difference
}

impl Editor {
    /// Takes other weights: a torch checkpoint of one flat state dict, its inner folder called
    /// `model_weights` as NeMo calls it. What is in it is not looked at; see
    /// [`Editor::difference`].
    ///
    /// # Errors
    /// [`Unsupported`](ckptkit_core::ErrorKind::Unsupported) for an archive whose weights are not
    /// one file: ranks, a distributed checkpoint, models inside.
    pub fn weights(&mut self, file: OutputFile) -> Result<()> {
        refuse_other_layouts(&self.archive)?;
        let bytes = file.len();
        let (path, content) = (EntryPath::new(WEIGHTS)?, Content::New(file));
        match self.members.position(&path) {
            Some(at) => self.members.0[at].content = content,
            None => self.members.0.push(Member { path, role: Role::Weights, content }),
        }
        self.changes.push(Change::Weights { bytes });
        Ok(())
    }

    /// The names of the archive's tensors, in their order.
    ///
    /// # Errors
    /// Those of [`NemoArchive::weights`](crate::NemoArchive::weights).
    pub fn weight_names(&self) -> Result<Vec<String>> {
        Ok(infos(&self.archive)?.iter().map(|t| t.name().to_owned()).collect())
    }

    /// How tensors differ from those of the archive, other than in values.
    ///
    /// # Errors
    /// Those of [`NemoArchive::weights`](crate::NemoArchive::weights).
    pub fn difference(&self, new: &[TensorInfo]) -> Result<WeightsDifference> {
        Ok(compare_weights(&infos(&self.archive)?, new))
    }
}
