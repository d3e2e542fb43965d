//! Writes a distributed checkpoint again for another number of ranks:
//!
//! ```text
//! cargo run --example reshard -- SOURCE DESTINATION RANKS [MESH…] [items] [safetensors] [align=N]
//! ```

use std::process::ExitCode;

use ckptkit_core::{CopyOptions, EntryPath, Error, Existing, OutputFile, Result, Section, Segment};
use distcp::{DistCheckpoint, Form, WriteOptions};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("{e}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<()> {
    let [source, destination, words @ ..] = args else {
        return Err(Error::invalid("usage: reshard SOURCE DESTINATION RANKS [MESH…] [OPTION…]"));
    };
    let checkpoint = DistCheckpoint::open(source)?;
    let mut plan = distcp::plan(&checkpoint.entries()?, &options(words)?)?;
    // What Lightning keeps beside the tensors.
    if let Some(dir) = checkpoint.dir().filter(|dir| dir.join("meta.pt").exists()) {
        let mut file = OutputFile::default();
        file.push(Segment::Section(Section::open(dir.join("meta.pt"))?))?;
        plan.layout.add(EntryPath::new("meta.pt")?, file)?;
    }
    for (name, bytes) in &plan.files {
        println!("{bytes:>14}  {name}");
    }
    plan.notes.iter().for_each(|note| println!("{note}"));
    plan.layout.write(destination, Existing::Refuse, &CopyOptions::default())?;
    Ok(())
}

fn options(words: &[String]) -> Result<WriteOptions> {
    let number =
        |n: &str| n.parse().map_err(|_| Error::invalid(format!("{n:?} is not understood")));
    let mut options = WriteOptions::new();
    let mut numbers = Vec::new();
    for word in words {
        match (word.as_str(), word.split_once('=')) {
            ("items", _) => options.file_per_item = true,
            ("safetensors", _) => options.form = Form::Safetensors,
            (_, Some(("align", n))) => options.align = u64::from(number(n)?),
            (word, _) => numbers.push(number(word)?),
        }
    }
    options.ranks = numbers.first().copied().unwrap_or(1);
    options.mesh = numbers.get(1..).unwrap_or_default().to_vec();
    Ok(options)
}
