//! Typed access to the checkpoints of PyTorch Lightning, of every release since 0.7.
//!
//! # The format
//! A Lightning checkpoint is one dict that `torch.save` has written, in whichever container torch
//! used at the time; [`torch_save`] reads those. What makes it Lightning's is the keys at its top:
//!
//! ```text
//! pytorch-lightning_version   "2.6.1"
//! epoch, global_step          how far training was
//! state_dict                  name → tensor: the weights
//! optimizer_states            [{state: {0: {exp_avg: tensor, …}}, param_groups: […]}, …]
//! lr_schedulers               [{last_epoch: …, …}, …]
//! callbacks                   name of the callback → its state
//! loops                       progress of the fit, validate, test and predict loops
//! MixedPrecision              state of the gradient scaler, where there was one
//! hyper_parameters            what save_hyperparameters() saw, with hparams_name, hparams_type
//! datamodule_hyper_parameters the same of the data module; its state under its class's name
//! …                           whatever on_save_checkpoint() added
//! ```
//!
//! # What is supported
//! * Every key above, under the spelling of any release: [`LightningCkpt::hyper_parameters`] finds
//!   `hparams`, [`LightningCkpt::precision`] finds `native_amp_scaling_state`, and
//!   [`LightningCkpt::callbacks`] the top-level `checkpoint_callback_best`. The list is in the
//!   page on the format (`docs/formats/lightning.md` of the repository).
//! * Hyper-parameters of any class: an `argparse.Namespace`, a dataclass, an OmegaConf config give
//!   their plain form, by [`Value::into_plain`](torch_save::Value::into_plain) or, with the feature
//!   `serde`, in a type of yours.
//! * All tensors as a [`TensorSource`](ckptkit_core::TensorSource), optimizer states included.
//! * Smaller and plainer copies, planned with a report before anything is written:
//!   [`LightningCkpt::slim`] keeps weights and hyper-parameters, and casts weights where asked;
//!   [`LightningCkpt::sanitize`] makes plain what `weights_only=True` refuses.
//! * Optimizer states by the names of the parameters, and back: [`optimizer`].
//! * Not here: directories that sharded strategies write; the crate `distcp` reads them.
//!
//! # Example
//! ```
//! use lightning_ckpt::LightningCkpt;
//!
//! # fn main() -> ckptkit_core::Result<()> {
//! // pickle.dumps({"epoch": 3, "global_step": 120, "state_dict": {}, …}, protocol=0)
//! let bytes = b"(dVepoch\nI3\nsVglobal_step\nI120\nsVstate_dict\n(ds\
//!               Vpytorch-lightning_version\nV2.6.1\nsVhyper_parameters\n(dVlr\nF0.001\nss.";
//! let section = ckptkit_core::Section::from_bytes(*bytes, "last.ckpt");
//! let ckpt = LightningCkpt::from_section(&section)?; // from a path: LightningCkpt::open(path)
//! assert_eq!(ckpt.lightning_version(), Some("2.6.1"));
//! assert_eq!((ckpt.epoch(), ckpt.global_step()), (Some(3), Some(120)));
//! let lr = ckpt.hyper_parameters()?.and_then(|h| h.get("lr")?.as_f64());
//! assert_eq!(lr, Some(0.001));
//! for (name, tensor) in ckpt.state_dict() {
//!     println!("{name} {} {:?}", tensor.dtype(), tensor.shape());
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Limits and safety
//! Those of [`torch_save`]: opening reads the pickle and no tensor, nothing that a pickle names is
//! imported or called, and what a hostile file may cost is bounded by
//! [`Limits`](ckptkit_core::Limits). No `unsafe`.
//!
//! # Source of truth
//! `lightning/pytorch/trainer/connectors/checkpoint_connector.py` (`dump_checkpoint`) of Lightning
//! 2.6, and `utilities/migration/migration.py` there for what older releases wrote.
#![cfg_attr(docsrs, feature(doc_auto_cfg))]

mod ckpt;
mod new;
pub mod optimizer;
mod sanitize;
mod sharded;
mod slim;
mod state;
mod version;

pub use ckpt::LightningCkpt;
pub use new::{NewCkpt, STATE_DICT};
pub use sharded::from_sharded;
pub use slim::{Part, SlimOptions, SlimPlan, SlimReport};
pub use state::{Precision, Training};
pub use version::Version;
