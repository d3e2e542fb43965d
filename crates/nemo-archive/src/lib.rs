//! stub
mod archive;
mod artifact;
mod config;
mod detect;
mod directory;
mod entry;
#[cfg(feature = "gzip")]
mod gzip;
mod index;
mod limits;
mod notes;
mod options;
mod tar_walk;
mod weights;

pub use archive::NemoArchive;
pub use artifact::Artifact;
pub use config::{Config, Value};
pub use entry::Entry;
pub use index::Variant;
pub use limits::ArchiveLimits;
pub use options::OpenOptions;
pub use weights::{Weights, WeightsFile, WeightsLayout};
