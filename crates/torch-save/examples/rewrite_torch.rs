//! Writes a file's object and storages into a new archive, without the keys that are named:
//! `cargo run --example rewrite_torch -- SOURCE DESTINATION [KEY…]`.

use ckptkit_core::{CopyOptions, Existing, Layout, Result};
use torch_save::{TorchFile, WriteOptions};

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [source, destination, drop @ ..] = &args[..] else {
        eprintln!("usage: rewrite_torch SOURCE DESTINATION [KEY…]");
        std::process::exit(2);
    };
    let mut document = TorchFile::open(source)?.edit()?;
    // Even where nothing is dropped, the pickle is written anew and not copied.
    document.builder();
    for key in drop {
        document.remove(key)?;
    }
    let layout = Layout::file(document.layout(&WriteOptions::default())?);
    let report = layout.write(destination, Existing::Refuse, &CopyOptions::default())?;
    println!("{destination}: {} bytes", report.bytes);
    Ok(())
}
