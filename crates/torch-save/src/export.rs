//! torch.export archives (`.pt2`): tensors as raw members, and JSON that says which is which.
//!
//! Source of truth: `torch/export/pt2_archive/_package.py` (`_load_state_dict`, `_load_constants`)
//! and `torch/_export/serde/schema.py`, as of torch 2.15.

#[cfg(feature = "export")]
mod archive;
#[cfg(feature = "export")]
mod config;

#[cfg(feature = "export")]
pub(crate) use archive::open;

#[cfg(not(feature = "export"))]
pub(crate) fn open(
    _: &ckptkit_core::Section,
    _: crate::zip::Archive,
    _: &ckptkit_core::Limits,
) -> ckptkit_core::Result<crate::container::Opened> {
    Err(ckptkit_core::Error::unsupported(
        "this is a torch.export archive, which this build does not read",
    )
    .hint("build with the feature `export`"))
}
