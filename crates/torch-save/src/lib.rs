//! Reads what torch.save has written, in every form, without Python and without running code.

pub mod pickle;
