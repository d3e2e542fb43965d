//! `ckptkit completions`.

use std::io::{self, Write};

use clap::CommandFactory;

use crate::args::{Args, Completions};
use crate::exit::{Exit, Run};

pub(crate) fn run(args: &Completions) -> Run {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "ckptkit", &mut script);
    io::stdout().lock().write_all(&script)?;
    Ok(Exit::Done)
}
