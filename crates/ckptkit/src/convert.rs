//! Converting: choose tensors, lay out the destination, report what happens, then write.

mod foreign;
mod plan;
mod report;
mod side;
mod verify;

pub use plan::{Aliases, Convert, Plan, Target};
pub use report::{Kind, LeftOut, Report};
