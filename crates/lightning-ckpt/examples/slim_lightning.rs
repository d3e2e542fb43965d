//! Writes a checkpoint's weights and hyper-parameters alone, its floats cast where a type is named:
//! `cargo run --example slim_lightning -- SOURCE DESTINATION [F16|BF16|…]`.

use ckptkit_core::{CopyOptions, Dtype, Error, Existing, Layout, Result};
use lightning_ckpt::{LightningCkpt, SlimOptions};

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [source, destination, dtype @ ..] = &args[..] else {
        return Err(Error::invalid("usage: slim_lightning SOURCE DESTINATION [DTYPE]"));
    };
    let mut options = SlimOptions::new();
    if let Some(name) = dtype.first() {
        let dtype = Dtype::from_name(name);
        options.dtype = Some(dtype.ok_or_else(|| Error::invalid("no such dtype"))?);
    }
    let plan = LightningCkpt::open(source)?.slim(&options)?;
    for part in &plan.report.removed {
        println!("without {}: {} tensors of {} bytes", part.key, part.tensors, part.bytes);
    }
    println!("{} bytes become {}", plan.report.bytes.0, plan.report.bytes.1);
    Layout::file(plan.layout).write(destination, Existing::Replace, &CopyOptions::default())?;
    Ok(())
}
