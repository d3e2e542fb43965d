//! The program `ckptkit`.

mod args;
mod elements;
mod exit;
mod progress;
mod table;
mod text;
mod verbs;

use std::process::ExitCode;

use clap::Parser;

use args::{Args, Verb};
use exit::Exit;

fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(e) => {
            // Help and version are answers, not failures.
            let exit = if e.use_stderr() { Exit::Failure } else { Exit::Done };
            let _ = e.print();
            return exit.into();
        }
    };
    let done = match args.verb {
        Verb::Inspect(v) => verbs::inspect::run(&v),
        Verb::Ls(v) => verbs::ls::run(&v),
        Verb::Show(v) => verbs::show::run(&v),
        Verb::Digest(v) => verbs::digest::run(&v, args.quiet),
        Verb::Convert(v) => verbs::convert::run(&v, args.quiet),
        Verb::Lightning(v) => verbs::lightning::run(&v, args.quiet),
        Verb::Nemo(v) => verbs::nemo::run(&v, args.quiet),
        Verb::Completions(v) => verbs::completions::run(&v),
        Verb::Man => verbs::man::run(),
    };
    match done {
        Ok(exit) => exit.into(),
        Err(e) => {
            exit::report(&e);
            Exit::Failure.into()
        }
    }
}
