//! Converting: choose tensors, lay out the destination, report what happens, then write.

#[cfg(feature = "distcp")]
mod beside;
mod choose;
#[cfg(feature = "distcp")]
mod distributed;
#[cfg(feature = "distcp")]
mod flatten;
mod foreign;
mod job;
#[cfg(feature = "torch")]
mod model_config;
#[cfg(feature = "nemo")]
mod nemo;
#[cfg(feature = "lightning")]
mod optimizer;
#[cfg(feature = "torch")]
mod places;
mod plan;
mod report;
#[cfg(feature = "safetensors")]
mod safetensors;
#[cfg(feature = "safetensors")]
mod side;
#[cfg(all(feature = "safetensors", feature = "torch"))]
mod speechlm2;
mod target;
#[cfg(feature = "torch")]
mod torch;
mod untie;
mod verify;
#[cfg(feature = "torch")]
mod whole;
mod wish;

pub use plan::Plan;
pub use report::{Kind, LeftOut, Report};
pub use target::Target;
pub use wish::{Aliases, Convert, Scope};
