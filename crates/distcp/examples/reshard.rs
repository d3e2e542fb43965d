//! Writes a distributed checkpoint again for another number of ranks:
//! `cargo run --example reshard -- SOURCE DESTINATION RANKS [MESH…]`.

use std::process::ExitCode;

use ckptkit_core::{CopyOptions, Error, Existing, Result};
use distcp::{DistCheckpoint, WriteOptions};

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
    let [source, destination, numbers @ ..] = args else {
        return Err(Error::invalid("usage: reshard SOURCE DESTINATION RANKS [MESH…]"));
    };
    let number =
        |n: &String| n.parse().map_err(|_| Error::invalid(format!("{n:?} is no number of ranks")));
    let numbers = numbers.iter().map(number).collect::<Result<Vec<u32>>>()?;
    let mut options = WriteOptions::new();
    options.ranks = numbers.first().copied().unwrap_or(1);
    options.mesh = numbers.get(1..).unwrap_or_default().to_vec();

    let checkpoint = DistCheckpoint::open(source)?;
    let plan = distcp::plan(&checkpoint.entries()?, &options)?;
    for (name, bytes) in &plan.files {
        println!("{bytes:>14}  {name}");
    }
    plan.notes.iter().for_each(|note| println!("{note}"));
    plan.layout.write(destination, Existing::Refuse, &CopyOptions::default())?;
    Ok(())
}
