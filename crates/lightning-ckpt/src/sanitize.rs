//! Checkpoints that `weights_only=True` refuses, made plain.

use ckptkit_core::Result;
use torch_save::sanitize::{SanitizeOptions, Sanitized};

use crate::LightningCkpt;

impl LightningCkpt {
    /// Plans a copy that `torch.load(weights_only=True)` loads, and with it Lightning 2.6, whose
    /// default that is. What torch accepts stays as it is; what it refuses becomes plain, as
    /// [`torch_save::sanitize`] says, and the report tells of every change. Reads no tensor.
    ///
    /// Of what Lightning itself writes this concerns hyper-parameters of any class, which become
    /// dicts (`load_from_checkpoint` gives the model a dict then, or an `AttributeDict` where
    /// `hparams_type` was recorded), and the callbacks of releases before 1.5, which are keyed by
    /// classes: by their paths afterwards.
    ///
    /// ```
    /// use lightning_ckpt::LightningCkpt;
    /// use torch_save::sanitize::SanitizeOptions;
    ///
    /// # fn main() -> ckptkit_core::Result<()> {
    /// # let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures");
    /// let ckpt = LightningCkpt::open(format!("{fixtures}/lightning/hparams_omegaconf.ckpt"))?;
    /// let plan = ckpt.sanitize(&SanitizeOptions::new())?;
    /// let change = &plan.report.changes[0];
    /// assert_eq!(change.path, "hyper_parameters");
    /// assert_eq!((change.was.as_str(), &*change.became), ("omegaconf.dictconfig.DictConfig", "dict"));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`torch_save::TorchFile::sanitize`].
    pub fn sanitize(&self, options: &SanitizeOptions) -> Result<Sanitized> {
        self.file.sanitize(options)
    }
}
