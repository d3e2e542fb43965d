//! The readers of the formats behind the one [`Checkpoint`](crate::Checkpoint).

use std::path::Path;

use ckptkit_core::{Error, Result};

use crate::format::{Detected, Format};
use crate::opened::{OpenOptions, Opened};

#[cfg(feature = "distcp")]
mod distributed;
#[cfg(all(feature = "torch", any(feature = "safetensors", feature = "distcp")))]
mod kept;
#[cfg(feature = "nemo")]
mod nemo;
#[cfg(feature = "safetensors")]
mod safetensors;
#[cfg(feature = "torch")]
mod torch;

#[cfg(feature = "distcp")]
pub(crate) use distributed::KEPT_CONFIG;

pub(crate) fn open(path: &Path, detected: Detected, options: &OpenOptions) -> Result<Opened> {
    match detected {
        #[cfg(feature = "safetensors")]
        Detected::File(Format::Safetensors, section) => {
            safetensors::open_file(path, section, options)
        }
        #[cfg(feature = "safetensors")]
        Detected::Directory(Format::Safetensors) => safetensors::open_path(path, options),
        #[cfg(feature = "torch")]
        Detected::File(Format::Torch, section) => torch::open(&section, options),
        #[cfg(feature = "nemo")]
        Detected::File(Format::Nemo, section) => nemo::open_file(section, options),
        #[cfg(feature = "nemo")]
        Detected::Directory(Format::Nemo) => nemo::open_directory(path, options),
        #[cfg(feature = "distcp")]
        Detected::Directory(Format::Distcp) => distributed::open(path, options),
        #[allow(unreachable_patterns, reason = "which formats are left depends on the features")]
        other => Err(left_out(other.format())),
    }
}

pub(crate) fn left_out(format: Format) -> Error {
    Error::unsupported(format!("this build leaves the format {format} out"))
        .hint(format!("build ckptkit with the feature for {format}"))
}
