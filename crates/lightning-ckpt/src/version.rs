//! What changed between releases of Lightning: how each spelled its keys.

pub(crate) const VERSION: &str = "pytorch-lightning_version";
pub(crate) const EPOCH: &str = "epoch";
pub(crate) const GLOBAL_STEP: &str = "global_step";
pub(crate) const STATE_DICT: &str = "state_dict";
pub(crate) const OPTIMIZER_STATES: &str = "optimizer_states";
pub(crate) const LR_SCHEDULERS: &str = "lr_schedulers";
/// Keyed by the callback's class until 1.4, by its `state_key` since 1.5.
pub(crate) const CALLBACKS: &str = "callbacks";
/// Since 1.5.
pub(crate) const LOOPS: &str = "loops";
pub(crate) const HPARAMS_NAME: &str = "hparams_name";
pub(crate) const HPARAMS_TYPE: &str = "hparams_type";
pub(crate) const DATAMODULE_HYPER_PARAMETERS: &str = "datamodule_hyper_parameters";
pub(crate) const DATAMODULE_HPARAMS_NAME: &str = "datamodule_hparams_name";
const DATAMODULE_HPARAMS_TYPE: &str = "datamodule_hparams_type";

/// Today's key, and those that releases up to 0.8 used (`CHECKPOINT_PAST_HPARAMS_KEYS`).
pub(crate) const HYPER_PARAMETERS: [&str; 3] = ["hyper_parameters", "hparams", "module_arguments"];

/// The state of the precision plugin: under its class's name since 1.6; before that under a key of
/// torch's own scaler, or of apex (until 2.0).
pub(crate) const PRECISION: [&str; 6] = [
    "MixedPrecision",
    "MixedPrecisionPlugin",
    "NativeMixedPrecisionPlugin",
    "ApexMixedPrecisionPlugin",
    "native_amp_scaling_state",
    "amp_scaling_state",
];

/// Keys at the top before 0.10, the callback that has the value since, and its name there
/// (`_migrate_model_checkpoint_early_stopping`).
pub(crate) const MOVED_TO_CALLBACKS: [(&str, &str, &str); 5] = [
    ("checkpoint_callback_best_model_score", "ModelCheckpoint", "best_model_score"),
    ("checkpoint_callback_best_model_path", "ModelCheckpoint", "best_model_path"),
    ("checkpoint_callback_best", "ModelCheckpoint", "best_model_score"),
    ("early_stop_callback_wait", "EarlyStopping", "wait_count"),
    ("early_stop_callback_patience", "EarlyStopping", "patience"),
];

/// What `WeightAveraging` adds to the top: the weights that the averaged ones stand in for.
const AVERAGING: [&str; 2] = ["current_model_state", "averaging_state"];

/// What a key at the top belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// Without it Lightning loads no checkpoint.
    Base,
    Loops,
    HyperParameters,
    Callbacks,
    /// Optimizers, schedulers and the precision plugin.
    Training,
    /// Not Lightning's own.
    Extra,
}

/// What Lightning, of any release, writes under this key.
pub(crate) fn family(key: &str) -> Family {
    match key {
        VERSION | EPOCH | GLOBAL_STEP | STATE_DICT => Family::Base,
        LOOPS => Family::Loops,
        OPTIMIZER_STATES | LR_SCHEDULERS => Family::Training,
        HPARAMS_NAME
        | HPARAMS_TYPE
        | DATAMODULE_HYPER_PARAMETERS
        | DATAMODULE_HPARAMS_NAME
        | DATAMODULE_HPARAMS_TYPE => Family::HyperParameters,
        CALLBACKS => Family::Callbacks,
        key if HYPER_PARAMETERS.contains(&key) => Family::HyperParameters,
        key if PRECISION.contains(&key) => Family::Training,
        key if AVERAGING.contains(&key) => Family::Callbacks,
        key if MOVED_TO_CALLBACKS.iter().any(|(old, ..)| *old == key) => Family::Callbacks,
        _ => Family::Extra,
    }
}

/// Whether Lightning itself, of any release, writes this key at the top.
pub(crate) fn is_own_key(key: &str) -> bool {
    family(key) != Family::Extra && !AVERAGING.contains(&key)
}

/// A release of Lightning. Later ones are greater; what follows the numbers (`rc1`, `.dev0`,
/// `+cu118`) does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Version {
    /// The first number.
    pub major: u32,
    /// The second number.
    pub minor: u32,
    /// The third number, 0 where it is missing.
    pub patch: u32,
}

impl Version {
    /// Reads `2.6.1`, `1.9.0rc1`, `2.0.0.post0`; `None` for what does not start with two numbers.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.trim().split('.').map(|part| {
            let digits = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            part[..digits].parse().ok()
        });
        let (major, minor) = (numbers.next()??, numbers.next()??);
        Some(Self { major, minor, patch: numbers.next().flatten().unwrap_or(0) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        let v = |text| Version::parse(text).map(|v| (v.major, v.minor, v.patch));
        assert_eq!(v("2.6.1"), Some((2, 6, 1)));
        assert_eq!(v("1.9.0rc1"), Some((1, 9, 0)));
        assert_eq!(v("2.0.0.post0"), Some((2, 0, 0)));
        assert_eq!(v("1.10"), Some((1, 10, 0)));
        assert_eq!(v("2"), None);
        assert_eq!(v("main"), None);
        assert!(Version::parse("1.10.0") > Version::parse("1.9.5"));
    }
}
