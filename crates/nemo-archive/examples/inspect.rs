//! Prints what a NeMo archive holds: `cargo run --example inspect -- model.nemo`.

use ckptkit_core::{Result, TensorSource};
use nemo_archive::NemoArchive;

fn main() -> Result<()> {
    for path in std::env::args_os().skip(1) {
        let archive = NemoArchive::open(&path)?;
        let config = archive.config()?;
        println!("{} ({})", archive.name(), archive.variant());
        println!("  target   {}", config.target().unwrap_or("-"));
        println!("  version  {}", config.nemo_version().unwrap_or("-"));
        for artifact in archive.artifacts()? {
            let keys = artifact.keys().join(", ");
            println!("  artifact {} ({} bytes) <- {keys}", artifact.base_name(), artifact.size());
        }
        for info in archive.infos() {
            println!("  tensor   {} {} {:?}", info.name(), info.dtype(), info.shape());
        }
        for note in archive.notes() {
            println!("  note     {note}");
        }
    }
    Ok(())
}
