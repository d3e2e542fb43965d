//! A Lightning checkpoint of a model's weights.

use torch_save::pickle::{Builder, NodeId};

/// The key of the weights.
pub const STATE_DICT: &str = "state_dict";

/// The release whose layout is written. Newer ones read it as it is, since nothing that concerns a
/// model's weights has changed after it (`lightning/pytorch/utilities/migration/migration.py`).
const VERSION: &str = "2.0.0";

/// What `load_from_checkpoint` asks for, beside what it can do without.
///
/// ```
/// use lightning_ckpt::{LightningCkpt, NewCkpt};
/// use torch_save::{Document, TorchFile, WriteOptions};
/// use ckptkit_core::{CopyOptions, Existing, Layout};
///
/// # fn main() -> ckptkit_core::Result<()> {
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("new.ckpt");
/// let mut document = Document::new();
/// let state_dict = document.state_dict(&[])?;
/// let root = NewCkpt::new(state_dict).build(document.builder());
/// document.set_root(root);
/// let layout = Layout::file(document.layout(&WriteOptions::new())?);
/// layout.write(&path, Existing::Refuse, &CopyOptions::default())?;
/// assert_eq!(LightningCkpt::open(&path)?.epoch(), Some(0));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NewCkpt {
    /// The epoch that was running, from 0.
    pub epoch: i64,
    /// Calls of optimizers.
    pub global_step: i64,
    /// The state dict's node.
    pub state_dict: NodeId,
    /// The node of a dict of the arguments that the model is made with.
    pub hyper_parameters: Option<NodeId>,
}

impl NewCkpt {
    /// Of these weights, from before the first step.
    #[must_use]
    pub fn new(state_dict: NodeId) -> Self {
        Self { epoch: 0, global_step: 0, state_dict, hyper_parameters: None }
    }

    /// The node of the checkpoint.
    pub fn build(self, b: &mut Builder) -> NodeId {
        let root = b.dict();
        let epoch = b.int(self.epoch);
        let global_step = b.int(self.global_step);
        let version = b.str(VERSION);
        let mut pairs = vec![
            ("epoch", epoch),
            ("global_step", global_step),
            ("pytorch-lightning_version", version),
            (STATE_DICT, self.state_dict),
        ];
        if let Some(hyper_parameters) = self.hyper_parameters {
            // Each is passed as the argument of its name, if the model takes one.
            let name = b.str("kwargs");
            pairs.extend([("hparams_name", name), ("hyper_parameters", hyper_parameters)]);
        }
        let pairs: Vec<_> = pairs.into_iter().map(|(key, value)| (b.str(key), value)).collect();
        b.set_items(root, &pairs);
        root
    }
}
