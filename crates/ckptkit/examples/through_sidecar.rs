//! Takes a torch.save file apart into a safetensors file and a sidecar, and puts it together again:
//! `cargo run --example through_sidecar -- SOURCE DIRECTORY DESTINATION`.

use std::collections::BTreeMap;
use std::path::Path;

use ckptkit::core::Layout;
use ckptkit::safetensors::{StFile, WriteOptions as StOptions, layout_file};
use ckptkit::sidecar::{self, Header};
use ckptkit::torch::{TorchFile, WriteOptions};
use ckptkit::{CopyOptions, Error, Existing, Limits, Result, Tensor, TensorSource};

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [source, directory, destination] = &args[..] else {
        eprintln!("usage: through_sidecar SOURCE DIRECTORY DESTINATION");
        std::process::exit(2);
    };
    let directory = Path::new(directory);
    std::fs::create_dir_all(directory)
        .map_err(|e| Error::io("make the directory", e).in_file(directory))?;
    let (tensors, json) = (directory.join("model.safetensors"), directory.join(sidecar::FILE_NAME));
    take_apart(source, &tensors, &json)?;
    put_together(&tensors, &json, destination)
}

fn take_apart(source: &str, tensors: &Path, json: &Path) -> Result<()> {
    let file = TorchFile::open(source)?;
    let document = file.edit()?;
    let mut names = sidecar::names(&document, &file);
    // What safetensors lacks goes along as raw bytes.
    names.retain(|(name, _)| {
        file.tensor(name).is_ok_and(|t| t.dtype().safetensors_name().is_some())
    });
    let encoded = sidecar::encode(&document, &names, &Header::new("torch"), &Limits::default())?;
    let mut kept: Vec<Tensor> = encoded.extra.clone();
    for name in &encoded.tensors {
        if !encoded.extra.iter().any(|extra| extra.name() == name) {
            kept.push(file.tensor(name)?.unshared());
        }
    }
    let layout = layout_file(&kept, &BTreeMap::new(), &StOptions::default())?;
    layout.write(tensors, Existing::Refuse, &CopyOptions::default())?;
    std::fs::write(json, encoded.json).map_err(|e| Error::io("write the file", e).in_file(json))
}

fn put_together(tensors: &Path, json: &Path, destination: &str) -> Result<()> {
    let tensors = StFile::open(tensors)?;
    let text = std::fs::read(json).map_err(|e| Error::io("read the file", e).in_file(json))?;
    let document = sidecar::decode(&text, &|name| tensors.tensor(name).ok(), &Limits::default())?;
    let layout = Layout::file(document.layout(&WriteOptions::default())?);
    let report = layout.write(destination, Existing::Refuse, &CopyOptions::default())?;
    println!("{destination}: {} bytes", report.bytes);
    Ok(())
}
