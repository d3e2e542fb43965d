//! What every reader offers.

use crate::error::{Error, Result};
use crate::tensor::{Tensor, TensorInfo};

/// A checkpoint as a list of lazy tensors, in the order of its file.
pub trait TensorSource: Send + Sync {
    /// What the tensors are; nothing of them is read.
    fn infos(&self) -> Box<dyn Iterator<Item = &TensorInfo> + '_>;

    /// Looks a tensor up by its name.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound).
    fn tensor(&self, name: &str) -> Result<Tensor>;
}

/// The error of a look-up that found nothing, with the nearest names as its hint.
#[must_use]
pub fn no_such_tensor<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Error {
    let error = Error::not_found(format!("there is no tensor {name:?}"));
    let tail = name.rsplit('.').next().unwrap_or(name);
    let near: Vec<&str> =
        names.filter(|n| n.ends_with(name) || n.ends_with(tail)).take(3).collect();
    if near.is_empty() {
        error.hint("list the tensors to see their names")
    } else {
        error.hint(format!("did you mean {}?", near.join(", ")))
    }
}
