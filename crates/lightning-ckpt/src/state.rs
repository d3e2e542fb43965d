//! What a checkpoint holds beside its weights.

use ckptkit_core::Result;
use torch_save::Value;

use crate::LightningCkpt;
use crate::version::{self, MOVED_TO_CALLBACKS};

/// How far training was, in short.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Training {
    /// See [`LightningCkpt::epoch`].
    pub epoch: Option<u64>,
    /// See [`LightningCkpt::global_step`].
    pub global_step: Option<u64>,
    /// Optimizers with a state.
    pub optimizers: usize,
    /// Learning rate schedulers with a state.
    pub lr_schedulers: usize,
}

/// The state of a precision plugin: a gradient scaler's, mostly.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Precision {
    /// The key that it stands under, which says which plugin it was.
    pub key: String,
    /// The state: `scale`, `growth_factor`, …
    pub state: Value,
}

impl LightningCkpt {
    /// Epoch, steps and the number of optimizers and schedulers. Costs no conversion of values.
    #[must_use]
    pub fn training(&self) -> Training {
        let count = |key| self.node(key).map_or(0, |node| node.iter_items().count());
        Training {
            epoch: self.epoch(),
            global_step: self.global_step(),
            optimizers: count(version::OPTIMIZER_STATES),
            lr_schedulers: count(version::LR_SCHEDULERS),
        }
    }

    fn list(&self, key: &str) -> Result<Vec<Value>> {
        Ok(match self.value(key)? {
            None => Vec::new(),
            Some(Value::List(items) | Value::Tuple(items)) => items,
            Some(other) => vec![other],
        })
    }

    /// The state of every optimizer, `{state, param_groups}`; tensors in it by their names. Empty
    /// where only weights were saved.
    ///
    /// # Errors
    /// As [`torch_save::TorchFile::value`].
    pub fn optimizer_states(&self) -> Result<Vec<Value>> {
        self.list(version::OPTIMIZER_STATES)
    }

    /// The state of every learning rate scheduler.
    ///
    /// # Errors
    /// As [`torch_save::TorchFile::value`].
    pub fn lr_schedulers(&self) -> Result<Vec<Value>> {
        self.list(version::LR_SCHEDULERS)
    }

    /// The callbacks with a state, in the order of the file: what the callback calls itself
    /// (`EarlyStopping{'monitor': 'val_loss', …}`; the path of its class before 1.5), and the state.
    /// What releases before 0.10 kept at the top stands under `ModelCheckpoint` and
    /// `EarlyStopping`, by the names that it has had since.
    ///
    /// # Errors
    /// As [`torch_save::TorchFile::value`].
    pub fn callbacks(&self) -> Result<Vec<(String, Value)>> {
        let mut out: Vec<(String, Value)> = match self.value(version::CALLBACKS)? {
            Some(value) => match value.into_pairs() {
                Some(pairs) => pairs.into_iter().map(|(k, v)| (k.key_text(), v)).collect(),
                None => Vec::new(),
            },
            None => Vec::new(),
        };
        for (key, callback, name) in MOVED_TO_CALLBACKS {
            let Some(value) = self.value(key)? else { continue };
            let field = (Value::Str(name.into()), value);
            match out.iter_mut().find(|(known, _)| known == callback) {
                Some((_, Value::Dict(fields))) => {
                    if !fields.iter().any(|(k, _)| k.as_str() == Some(name)) {
                        fields.push(field);
                    }
                }
                _ => out.push((callback.into(), Value::Dict(vec![field]))),
            }
        }
        Ok(out)
    }

    /// The progress of the loops, `{fit_loop: {epoch_progress: …}, …}`; since 1.5.
    ///
    /// # Errors
    /// As [`torch_save::TorchFile::value`].
    pub fn loops(&self) -> Result<Option<Value>> {
        self.value(version::LOOPS)
    }

    /// The state of the precision plugin, where it has one (16-bit training; not bfloat16).
    ///
    /// # Errors
    /// As [`torch_save::TorchFile::value`].
    pub fn precision(&self) -> Result<Option<Precision>> {
        for key in version::PRECISION {
            if let Some(state) = self.value(key)? {
                return Ok(Some(Precision { key: key.into(), state }));
            }
        }
        Ok(None)
    }

    /// What `save_hyperparameters()` saw, as the object that it was; [`Value::into_plain`] makes
    /// dicts of configurations and namespaces.
    ///
    /// # Errors
    /// As [`torch_save::TorchFile::value`].
    pub fn hyper_parameters(&self) -> Result<Option<Value>> {
        for key in version::HYPER_PARAMETERS {
            if let Some(value) = self.value(key)? {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }

    /// The hyper-parameters in a type of the caller's.
    ///
    /// ```
    /// # fn main() -> ckptkit_core::Result<()> {
    /// #[derive(serde::Deserialize)]
    /// struct Hparams {
    ///     lr: f64,
    /// }
    /// let bytes = b"(dVepoch\nI3\nsVglobal_step\nI9\nsVstate_dict\n(dsVhyper_parameters\n(dVlr\nF0.001\nss.";
    /// let section = ckptkit_core::Section::from_bytes(*bytes, "last.ckpt");
    /// let ckpt = lightning_ckpt::LightningCkpt::from_section(&section)?;
    /// assert_eq!(ckpt.hyper_parameters_as::<Hparams>()?.lr, 0.001);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`NotFound`](ckptkit_core::ErrorKind::NotFound) when there are none;
    /// [`InvalidArgument`](ckptkit_core::ErrorKind::InvalidArgument) where they do not fit the
    /// type, with the keys that lead there; as [`torch_save::TorchFile::value`].
    #[cfg(feature = "serde")]
    pub fn hyper_parameters_as<T: serde::de::DeserializeOwned>(&self) -> Result<T> {
        use ckptkit_core::{Error, ResultExt};
        let file = self.torch().section().name();
        let value = self.hyper_parameters()?.ok_or_else(|| {
            Error::not_found("the checkpoint holds no hyper-parameters")
                .hint("the model was saved without save_hyperparameters()")
                .in_file(file)
        })?;
        value.deserialize().within(|| version::HYPER_PARAMETERS[0]).in_file(file)
    }

    /// How the model's constructor takes its hyper-parameters: `kwargs`, or the name of the one
    /// argument that they are.
    #[must_use]
    pub fn hparams_name(&self) -> Option<&str> {
        self.text(version::HPARAMS_NAME)
    }

    /// The class that the hyper-parameters were of, where it was recorded.
    #[must_use]
    pub fn hparams_type(&self) -> Option<String> {
        let node = self.node(version::HPARAMS_TYPE)?;
        node.as_str().map(str::to_owned).or_else(|| node.as_global().map(|g| g.to_string()))
    }

    /// The hyper-parameters of the data module.
    ///
    /// # Errors
    /// As [`torch_save::TorchFile::value`].
    pub fn datamodule_hyper_parameters(&self) -> Result<Option<Value>> {
        self.value(version::DATAMODULE_HYPER_PARAMETERS)
    }

    /// As [`LightningCkpt::hparams_name`], of the data module.
    #[must_use]
    pub fn datamodule_hparams_name(&self) -> Option<&str> {
        self.text(version::DATAMODULE_HPARAMS_NAME)
    }

    /// The keys at the top that are not Lightning's own: the state of a data module under its
    /// class's name, and what `on_save_checkpoint()` added. [`LightningCkpt::value`] gives each.
    #[must_use]
    pub fn extra_keys(&self) -> Vec<&str> {
        let keys = self.torch().root().pairs().into_iter().filter_map(|(key, _)| key.as_str());
        keys.filter(|key| !version::is_own_key(key)).collect()
    }
}
