//! The program `ckptkit`.

mod args;
mod dtype;
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

/// Bytes from which glibc, as it comes, always maps an array by itself.
const ALWAYS_MAPPED: usize = 32 << 20;

/// Lets one large array have the pages of another that was freed, where the allocator is glibc's: it
/// maps large ones and unmaps them when they are freed, so that a listing would pay again and again
/// for pages that the kernel fills with zeros, which is a quarter of its time. What counts as large
/// is what the largest freed array had. Nothing is written here, so it costs nothing elsewhere.
fn keep_freed_pages() {
    let mut array = Vec::<u8>::new();
    let _ = array.try_reserve_exact(ALWAYS_MAPPED - (64 << 10));
    drop(std::hint::black_box(array));
}

fn main() -> ExitCode {
    progress::begin();
    keep_freed_pages();
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
