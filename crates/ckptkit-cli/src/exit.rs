//! Exit codes, and how failures are told.

use std::io::{self, Write};
use std::process::ExitCode;

use ckptkit::Error;

use crate::text::plain;

/// How a run ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It did what was asked.
    Done,
    /// Wrong usage, bad input, or a failure.
    Failure,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Done => Self::SUCCESS,
            Exit::Failure => Self::from(2),
        }
    }
}

/// Why a run failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The library says why.
    Library(Error),
    /// The output could not be written.
    Output(io::Error),
}

impl From<Error> for Failure {
    fn from(e: Error) -> Self {
        Self::Library(e)
    }
}

impl From<io::Error> for Failure {
    fn from(e: io::Error) -> Self {
        Self::Output(e)
    }
}

/// Tells a failure on stderr. A reader that closed the pipe early (`| head`) has had enough, which
/// is nothing to tell.
pub(crate) fn report(failure: &Failure) {
    match failure {
        Failure::Library(e) => warn(&format!("error: {e}")),
        Failure::Output(e) if e.kind() == io::ErrorKind::BrokenPipe => {}
        Failure::Output(e) => warn(&format!("error: cannot write the output: {e}")),
    }
}

/// A line on stderr, which may hold text from a file; nobody can be told when that fails.
pub(crate) fn warn(line: &str) {
    let _ = writeln!(io::stderr(), "{}", plain(line));
}

/// What every verb gives.
pub(crate) type Run = Result<Exit, Failure>;
