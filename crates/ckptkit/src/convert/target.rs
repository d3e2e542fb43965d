//! What a conversion writes.

use std::path::Path;

use ckptkit_core::Dtype;

use crate::format::Format;

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Target {
    /// One safetensors file.
    SafetensorsFile,
    /// A Hugging Face directory: one file, or shards and their index; the config and the artifacts
    /// beside them.
    SafetensorsDirectory,
    /// A Lightning checkpoint.
    LightningCkpt,
    /// A file as `torch.save` writes it: the bare state dict, or the whole object.
    Torch,
    /// A NeMo archive.
    Nemo,
    /// A directory as `torch.distributed.checkpoint` writes it.
    Distcp,
}

impl Target {
    /// The target that a destination's name asks for: `.nemo`, `.ckpt`, `.safetensors`, `.pt`,
    /// `.pth` or `.bin`; any other name is a safetensors directory.
    #[must_use]
    pub fn of(destination: &Path) -> Self {
        let name = destination.file_name().map(|n| n.to_string_lossy().to_ascii_lowercase());
        match name.as_deref().and_then(|n| n.rsplit_once('.')).map(|(_, suffix)| suffix) {
            Some("safetensors") => Self::SafetensorsFile,
            Some("ckpt") => Self::LightningCkpt,
            Some("nemo") => Self::Nemo,
            Some("pt" | "pth" | "bin") => Self::Torch,
            _ => Self::SafetensorsDirectory,
        }
    }

    /// The format that it is a form of.
    #[must_use]
    pub fn format(self) -> Format {
        match self {
            Self::SafetensorsFile | Self::SafetensorsDirectory => Format::Safetensors,
            Self::LightningCkpt => Format::LightningCkpt,
            Self::Torch => Format::Torch,
            Self::Nemo => Format::Nemo,
            Self::Distcp => Format::Distcp,
        }
    }

    /// Whether each name is written, tied or not: as one tensor, or as torch writes it to a
    /// distributed checkpoint, by itself.
    pub(super) fn keeps_names(self) -> bool {
        matches!(self, Self::LightningCkpt | Self::Torch | Self::Nemo | Self::Distcp)
    }

    /// Whether it holds objects that are made of tensors: sparse, quantized, of a class.
    pub(super) fn holds_objects(self) -> bool {
        matches!(self, Self::LightningCkpt | Self::Torch | Self::Nemo | Self::Distcp)
    }

    /// Whether it has the dtype, and what does not.
    pub(super) fn lacks(self, dtype: Dtype) -> Option<&'static str> {
        match self {
            Self::SafetensorsFile | Self::SafetensorsDirectory => {
                dtype.safetensors_name().is_none().then_some("safetensors")
            }
            Self::LightningCkpt | Self::Torch | Self::Nemo | Self::Distcp => {
                dtype.torch_name().is_none().then_some("torch")
            }
        }
    }
}
