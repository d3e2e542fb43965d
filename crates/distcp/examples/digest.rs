//! Prints a line for each tensor of a distributed checkpoint: SHA-256, dtype, shape, name.
//!
//! ```text
//! cargo run --example digest -- path/to/checkpoint
//! ```

use std::io::{self, Write};

use ckptkit_core::TensorSource;
use distcp::DistCheckpoint;
use sha2::{Digest, Sha256};

/// Hashes what is written to it.
struct Hasher(Sha256);

impl Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args().nth(1).ok_or("give the path of a checkpoint")?;
    let checkpoint = DistCheckpoint::open(&dir)?;
    println!(
        "# {} by {}, {} ranks, {} files, {} chunks",
        checkpoint.variant(),
        checkpoint.writer(),
        checkpoint.ranks(),
        checkpoint.files().len(),
        checkpoint.chunk_count()
    );
    for note in checkpoint.notes() {
        println!("# note: {note}");
    }
    for info in checkpoint.infos() {
        let mut hasher = Hasher(Sha256::new());
        let read = checkpoint.tensor(info.name()).and_then(|t| t.copy_to(&mut hasher));
        let hash = match read {
            Ok(()) => hasher.0.finalize().iter().map(|b| format!("{b:02x}")).collect(),
            Err(e) => format!("# {e}\n-"),
        };
        println!("{hash} {} {:?} {}", info.dtype(), info.shape(), info.name());
    }
    Ok(())
}
