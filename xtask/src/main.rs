//! The workspace's own chores: `cargo xtask VERB`.

use std::path::PathBuf;
use std::process::ExitCode;

#[cfg(target_os = "linux")]
mod bench;
mod count;
mod fixtures;
mod interop;
mod python;
mod tidy;

/// What a chore returns: nothing, or what went wrong and what to do about it.
type Outcome = Result<(), String>;

type Verb = (&'static str, fn(&[String]) -> Outcome, &'static str);

const VERBS: &[Verb] = &[
    (
        "fixtures",
        fixtures::run,
        "[--check] [--only NAME…]   make tests/fixtures with the real libraries",
    ),
    ("interop", interop::run, "[JUDGE…]   let the real libraries load what the program writes"),
    ("bench", bench, "[scaling] [--bytes SIZE] …   time conversions beside cp and other programs"),
    ("count", count::run, "[--write]   count the instructions of the parsers"),
    ("tidy", tidy::run, "check dependency edges and house rules"),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let Some(name) = args.first() else {
        help();
        return ExitCode::from(2);
    };
    let Some((_, run, _)) = VERBS.iter().find(|(verb, ..)| verb == name) else {
        help();
        let asked = matches!(name.as_str(), "help" | "--help" | "-h");
        return if asked { ExitCode::SUCCESS } else { ExitCode::from(2) };
    };
    match run(&args[1..]) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{name}: {message}");
            ExitCode::FAILURE
        }
    }
}

fn help() {
    eprintln!("usage: cargo xtask VERB");
    for (verb, _, about) in VERBS {
        eprintln!("  {verb:<10} {about}");
    }
}

#[cfg(target_os = "linux")]
fn bench(args: &[String]) -> Outcome {
    bench::run(args)
}

#[cfg(not(target_os = "linux"))]
fn bench(_: &[String]) -> Outcome {
    Err("memory and the page cache are looked at as Linux shows them: run it there".to_owned())
}

/// The workspace's root.
fn root() -> PathBuf {
    let mut here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.pop();
    here
}
