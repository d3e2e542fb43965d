//! The config as the model's own loader wants it.

use crate::Value;
use crate::opened::Config;

/// The one argument of NeMo's models, under which Lightning keeps their whole config.
pub(super) const ARGUMENT: &str = "cfg";

/// The config of the model itself: hyper-parameters that are only the one argument of a NeMo model
/// are what was given for it.
pub(super) fn of_model(mut config: Config) -> Config {
    if let Value::Dict(pairs) = &mut config.value {
        let wraps = matches!(
            pairs.as_slice(),
            [(Value::Str(key), Value::Dict(_))] if key == ARGUMENT
        );
        if config.text.is_none() && wraps {
            if let Some((_, inner)) = pairs.pop() {
                config.value = inner;
            }
        }
    }
    config
}

/// Whether the model is one that takes its config as one argument: a NeMo model, which names its
/// class as `target`, or one of SpeechLM2. Hyper-parameters are the arguments already.
pub(super) fn is_argument(config: &Config) -> bool {
    let names_nemo = || {
        let target = config.value.get("target").and_then(Value::as_str);
        target.is_some_and(|class| class.starts_with("nemo."))
    };
    let arguments = matches!(config.origin.as_str(), "hyper_parameters" | "hparams" | ARGUMENT);
    !arguments
        && (config.origin == "model_config.yaml" || names_nemo() || is_speechlm2(&config.value))
}

/// Whether it is the config of a SpeechLM2 model: a language model, by the keys that their loader
/// looks for, with a perception module before it.
pub(super) fn is_speechlm2(config: &Value) -> bool {
    let names_model = ["pretrained_llm", "pretrained_lm_name"]
        .iter()
        .any(|key| matches!(config.get(key), Some(Value::Str(_))));
    names_model && matches!(config.get("perception"), Some(Value::Dict(_)))
}

/// The value of a key of a mapping, made where there is none; nothing for what is no mapping.
pub(super) fn entry<'a>(value: &'a mut Value, key: &str) -> Option<&'a mut Value> {
    let Value::Dict(pairs) = value else { return None };
    let at = match pairs.iter().position(|(k, _)| k.as_str() == Some(key)) {
        Some(at) => at,
        None => {
            pairs.push((Value::Str(key.into()), Value::None));
            pairs.len() - 1
        }
    };
    Some(&mut pairs[at].1)
}
