//! Prints the names of every optimizer's parameters, as far as they can be told:
//! `cargo run --example name_optimizers -- last.ckpt`.

use lightning_ckpt::LightningCkpt;
use lightning_ckpt::optimizer::{NameSource, ParameterNames};

fn main() -> ckptkit_core::Result<()> {
    let Some(path) = std::env::args_os().nth(1) else {
        return Err(ckptkit_core::Error::invalid("usage: name_optimizers CHECKPOINT"));
    };
    for optimizer in LightningCkpt::open(path)?.optimizers(&ParameterNames::Find)? {
        println!("optimizer {}", optimizer.index());
        if let NameSource::Ambiguous { ways, examples } = optimizer.source() {
            println!("  {ways:?} ways to name its parameters, among them {examples:?}");
        }
        for parameter in optimizer.parameters() {
            let name = parameter.name.as_deref().unwrap_or("?");
            println!("  {} {name} {:?}", parameter.integer, parameter.shape);
        }
    }
    Ok(())
}
