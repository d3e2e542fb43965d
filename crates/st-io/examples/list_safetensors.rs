//! Lists what a safetensors file, index or directory holds.
//!
//! ```text
//! cargo run -p st-io --example list_safetensors -- model.safetensors
//! ```

use std::process::ExitCode;

use st_io::StCheckpoint;

fn main() -> ExitCode {
    let Some(path) = std::env::args_os().nth(1) else {
        eprintln!("usage: list PATH");
        return ExitCode::from(2);
    };
    match list(path.as_ref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

fn list(path: &std::path::Path) -> ckptkit_core::Result<()> {
    let checkpoint = StCheckpoint::open(path)?;
    for shard in checkpoint.shards() {
        println!("{} {}: {} bytes", checkpoint.variant(), shard.path.display(), shard.bytes);
    }
    for (key, value) in checkpoint.metadata() {
        println!("metadata {key} = {value}");
    }
    for (removed, kept) in checkpoint.aliases() {
        println!("alias {removed} = {kept}");
    }
    for info in checkpoint.infos() {
        println!("{:12} {:20} {}", info.dtype(), format!("{:?}", info.shape()), info.name());
    }
    for note in checkpoint.notes() {
        eprintln!("note: {note}");
    }
    checkpoint.verify()
}
