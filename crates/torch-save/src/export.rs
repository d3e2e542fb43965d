//! torch.export archives (`.pt2`).

use ckptkit_core::{Error, Limits, Result, Section};

use crate::container::Opened;
use crate::zip::Archive;

pub(crate) fn open(section: &Section, archive: Archive, _limits: &Limits) -> Result<Opened> {
    let _ = (section, archive);
    Err(Error::unsupported("a torch.export archive"))
}
