//! Who wrote a checkpoint, and in which of the kinds.

use crate::metadata::{Tables, Traits};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variant {
    Dcp,
    RankLocal,
    Lightning,
    Megatron,
}

impl Variant {
    pub(crate) fn of(names: &[String], tables: &Tables, rank_local: bool) -> Self {
        let has = |name: &str| names.iter().any(|n| n == name);
        if has("common.pt") || tables.traits.megatron {
            Self::Megatron
        } else if has("meta.pt") {
            Self::Lightning
        } else if rank_local {
            Self::RankLocal
        } else {
            Self::Dcp
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Dcp => "dcp",
            Self::RankLocal => "rank-local",
            Self::Lightning => "lightning",
            Self::Megatron => "megatron",
        }
    }
}

/// What each release added to the metadata, newest first.
pub(crate) fn writer(traits: &Traits) -> &'static str {
    match traits {
        t if t.strides => "torch 2.15 or later",
        t if t.version.is_some() => "torch 2.9 to 2.14",
        t if t.modules => "torch 2.7 or 2.8",
        t if t.storage_meta => "torch 2.4 to 2.6",
        t if t.shard_names => "torch 2.2 or earlier",
        _ => "torch 2.3, or another writer",
    }
}
