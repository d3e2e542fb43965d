//! Lightning checkpoints, and whatever else torch.save has written.

use std::collections::BTreeMap;

use ckptkit_core::{Result, Section};
use torch_save::pickle::Kind;
use torch_save::{Container, TorchFile};

use crate::Value;
use crate::format::Format;
use crate::opened::{Config, Entry, OpenOptions, Opened, Rule, Values, Whole, is_absent};
use crate::training::Training;

pub(super) fn open(section: &Section, options: &OpenOptions) -> Result<Opened> {
    let file = torch_save::OpenOptions::default().limits(options.limits.clone()).open(section)?;
    let lightning = is_lightning(&file);
    let format = if lightning { Format::LightningCkpt } else { Format::Torch };
    let training = lightning.then(|| training(&file));
    let writer = file
        .root()
        .get("pytorch-lightning_version")
        .and_then(|v| v.as_str())
        .map(|v| format!("Lightning {v}"));
    Ok(Opened {
        format,
        variant: file.container().name().to_owned(),
        entries: entries(&file),
        failures: file.failures().to_vec(),
        notes: file.notes().to_vec(),
        artifacts: Vec::new(),
        metadata: BTreeMap::new(),
        shards: 1,
        training,
        weights: rule(&file, lightning),
        writer,
        kept: None,
        sidecar: None,
        torch: Some(file.clone()),
        #[cfg(feature = "nemo")]
        nemo: None,
        #[cfg(feature = "distcp")]
        distributed: None,
        values: Box::new(TorchValues::new(file)),
    })
}

pub(super) fn entries(file: &TorchFile) -> Vec<Entry> {
    file.tensors().iter().map(|e| Entry::nested(e.shared_path(), e.tensor().clone())).collect()
}

/// A build without Lightning's crate sees its files as what torch.save has written.
pub(super) fn is_lightning(file: &TorchFile) -> bool {
    #[cfg(feature = "lightning")]
    return lightning_ckpt::LightningCkpt::detect(file);
    #[cfg(not(feature = "lightning"))]
    false
}

fn rule(file: &TorchFile, lightning: bool) -> Rule {
    if file.container() == Container::TorchExport {
        return Rule::Root;
    }
    if lightning && file.root().get("state_dict").is_some() {
        return Rule::Key("state_dict".into());
    }
    let root = file.root();
    let object = match root.kind() {
        Kind::Dict | Kind::List | Kind::Tuple(_) => false,
        _ => root.class().is_some_and(|g| g.module != "collections"),
    };
    Rule::Search { object }
}

/// What the keys at the root say of the run; optimizers are where a single file keeps them, or
/// where a sharded one does.
pub(super) fn training(file: &TorchFile) -> Training {
    let root = file.root();
    let int = |key: &str| root.get(key).and_then(|n| n.as_int());
    let count = |key: &str| root.get(key).map_or(0, |n| n.items().len());
    let keys = root.pairs();
    let sharded = keys.iter().filter_map(|(key, _)| key.as_str()).filter(|key| is_optimizer(key));
    Training {
        epoch: int("epoch"),
        global_step: int("global_step"),
        optimizers: count("optimizer_states").max(sharded.count()),
        lr_schedulers: count("lr_schedulers"),
    }
}

/// Whether a sharded checkpoint of Lightning's holds an optimizer under a key.
pub(super) fn is_optimizer(key: &str) -> bool {
    key.strip_prefix("optimizer_").is_some_and(|n| n.parse::<u32>().is_ok())
}

pub(super) struct TorchValues {
    file: TorchFile,
    lightning: bool,
}

impl TorchValues {
    pub(super) fn new(file: TorchFile) -> Self {
        Self { lightning: is_lightning(&file), file }
    }
}

/// Where Lightning and its users keep the configuration, newest first.
const CONFIG_KEYS: [&str; 3] = ["hyper_parameters", "hparams", "cfg"];

impl Values for TorchValues {
    fn lookup(&self, path: &str) -> Result<Value> {
        let direct = self.file.lookup(path);
        match (direct, self.lightning) {
            // A hyper-parameter by its own name.
            (Err(e), true) if is_absent(&e) => {
                let found =
                    CONFIG_KEYS.iter().find_map(|k| self.file.lookup(&format!("{k}.{path}")).ok());
                found.ok_or(e)
            }
            (found, _) => found,
        }
    }

    fn top(&self) -> Vec<String> {
        top_keys(&self.file)
    }

    fn whole(&self) -> Result<Option<Whole>> {
        whole(&self.file).map(Some)
    }

    fn config(&self) -> Result<Option<Config>> {
        for key in CONFIG_KEYS {
            // A look-up that finds nothing makes the whole root plain to say what is there.
            if self.file.root().get(key).is_none() {
                continue;
            }
            match self.file.lookup(key) {
                Ok(value) => {
                    return Ok(Some(Config {
                        origin: key.into(),
                        value: value.into_plain(),
                        text: None,
                    }));
                }
                Err(e) if is_absent(&e) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(None)
    }
}

/// The object of a file, and the nodes of the tensors that are no part of another one.
pub(super) fn whole(file: &TorchFile) -> Result<Whole> {
    let document = file.edit()?;
    let entries = file.tensors().iter().filter(|e| e.part_of().is_none());
    let nodes = entries
        .filter_map(|e| Some((e.tensor().name().to_owned(), document.imported(file, e.node())?)))
        .collect();
    Ok(Whole { document, nodes })
}

/// The keys at the root under which something stands that is no tensor.
pub(super) fn top_keys(file: &TorchFile) -> Vec<String> {
    let root = file.root();
    let names: std::collections::HashSet<_> =
        file.tensors().iter().map(torch_save::TensorEntry::node).collect();
    let is_tensor_dict = |node: torch_save::NodeRef<'_>| {
        let pairs = node.pairs();
        !pairs.is_empty() && pairs.iter().all(|(_, v)| names.contains(&v.id()))
    };
    root.pairs()
        .into_iter()
        .filter(|(_, v)| !names.contains(&v.id()) && !is_tensor_dict(*v))
        .map(|(k, _)| k.as_str().map_or_else(|| ckptkit_core::join(&[k.as_key()]), str::to_owned))
        .collect()
}
