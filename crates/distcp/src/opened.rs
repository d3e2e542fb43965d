//! What opening finds: the metadata as tables, and the files that it speaks of.

use std::sync::{Arc, OnceLock};

use ckptkit_core::{Error, Limits, Result, ResultExt};
use torch_save::{OpenOptions as TorchOptions, TorchFile};

use crate::item::Items;
use crate::layout;
use crate::metadata::Tables;
use crate::rules::Rules;
use crate::storage::StorageReader;
use crate::variant::Variant;

pub(crate) struct Opened {
    pub(crate) tables: Tables,
    pub(crate) items: Arc<Items>,
    pub(crate) storage: Arc<dyn StorageReader>,
    pub(crate) limits: Limits,
    pub(crate) rules: Rules,
    /// Why objects in files of their own are not listed.
    pub(crate) objects_fault: Option<Error>,
    pub(crate) variant: Variant,
    pub(crate) notes: Vec<String>,
    pub(crate) found: Option<layout::Found>,
    pub(crate) names: Vec<String>,
    pub(crate) metadata_ranks: usize,
    pub(crate) meta: OnceLock<Result<Option<TorchFile>>>,
    pub(crate) common: OnceLock<Result<Option<TorchFile>>>,
}

impl Opened {
    /// Lightning's `meta.pt`, opened once.
    pub(crate) fn meta(&self) -> Result<Option<TorchFile>> {
        self.side_file(&self.meta, "meta.pt")
    }

    /// Megatron's `common.pt`, opened once.
    pub(crate) fn common(&self) -> Result<Option<TorchFile>> {
        self.side_file(&self.common, "common.pt")
    }

    fn side_file(
        &self,
        slot: &OnceLock<Result<Option<TorchFile>>>,
        name: &str,
    ) -> Result<Option<TorchFile>> {
        let open = || {
            if !self.names.iter().any(|n| n == name) {
                return Ok(None);
            }
            let section = self.storage.open(name)?;
            TorchOptions::default().limits(self.limits.clone()).open(&section).map(Some)
        };
        slot.get_or_init(|| open().within(|| name.to_owned()).in_file(self.storage.name())).clone()
    }
}
