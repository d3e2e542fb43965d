//! New archives: what they are made of, laid out before a byte is written.

mod archive;
mod builder;
#[cfg(feature = "gzip")]
mod gzip;
mod header;
pub(crate) mod members;
mod mtime;
pub(crate) mod names;
mod options;
pub(crate) mod report;
mod tar;

pub use archive::NewArchive;
pub use builder::Builder;
pub(crate) use builder::{CONFIG, WEIGHTS, refuse_unresolved};
pub use mtime::source_date_epoch;
pub use options::WriteOptions;
pub use report::Change;
pub use tar::TarLayout;
