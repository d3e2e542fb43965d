//! What a checkpoint says of the training run that wrote it.

use serde::Serialize;

/// The state of the training run, where a format has one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Training {
    /// Epochs begun.
    pub epoch: Option<i64>,
    /// Optimizer steps done.
    pub global_step: Option<i64>,
    /// Optimizers whose state is there.
    pub optimizers: usize,
    /// Learning-rate schedulers whose state is there.
    pub lr_schedulers: usize,
}
