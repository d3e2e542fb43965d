//! New archives: what they are made of, laid out before a byte is written.

mod header;
mod mtime;
mod tar;

pub use mtime::source_date_epoch;
pub use tar::TarLayout;
