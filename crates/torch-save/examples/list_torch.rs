//! Lists the tensors of a file and what else it says: `cargo run --example list_torch -- model.pt`.

use ckptkit_core::{Error, Result};
use torch_save::TorchFile;

fn main() -> Result<()> {
    let Some(path) = std::env::args_os().nth(1) else {
        return Err(Error::invalid("usage: list FILE"));
    };
    let file = TorchFile::open(path)?;
    println!("{} file, pickle protocol {}", file.container().name(), file.graph().protocol());
    for entry in file.tensors() {
        let tensor = entry.tensor();
        let kind = entry.kind().name();
        println!("{:9} {:12} {:?} {}", tensor.dtype(), kind, tensor.shape(), tensor.name());
    }
    for (name, error) in file.failures() {
        println!("{name} cannot be listed: {error}");
    }
    for note in file.notes() {
        println!("note: {note}");
    }
    let globals: Vec<String> = file.graph().globals().map(|g| g.to_string()).collect();
    println!("the pickle names {}", globals.join(", "));
    Ok(())
}
