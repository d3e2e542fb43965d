//! What conversions of whole checkpoints share.

use std::collections::HashMap;
use std::sync::Arc;

use ckptkit_core::{Result, Tensor};

use super::job::Job;

impl Job<'_> {
    /// The weights that are cast, under their full names; noted in the report.
    pub(super) fn cast_weights(&mut self) -> Result<HashMap<String, Tensor>> {
        let mut cast = HashMap::new();
        let Some(dtype) = self.wish.dtype else { return Ok(cast) };
        let weights = match &self.wish.weights_key {
            Some(key) => self.checkpoint.weights_under(key)?,
            None => self.checkpoint.weights()?,
        };
        for (tensor, full) in weights.tensors.iter().zip(&weights.full_names) {
            if tensor.dtype().is_castable() && tensor.has_bytes() && tensor.dtype() != dtype {
                // As it is in the object, where what is tied shares a storage.
                let tensor = self.checkpoint.tensor_of_whole(full).unwrap_or(tensor.clone());
                cast.insert(full.to_string(), tensor.cast(dtype)?.renamed(Arc::clone(full)));
                let dtypes = [tensor.dtype(), dtype].map(|d| d.name().to_owned());
                self.report.cast.insert(full.to_string(), dtypes.into());
            }
        }
        Ok(cast)
    }
}
