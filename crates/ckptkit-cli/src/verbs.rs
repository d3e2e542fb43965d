//! One module a verb.

pub(crate) mod completions;
pub(crate) mod convert;
pub(crate) mod digest;
pub(crate) mod inspect;
pub(crate) mod lightning;
pub(crate) mod ls;
pub(crate) mod man;
pub(crate) mod nemo;
pub(crate) mod new_file;
pub(crate) mod show;

use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

use ckptkit::{Checkpoint, Tensor};
use serde::Serialize;

use crate::exit::Failure;
use crate::text::plain_lines;

/// Standard output through a buffer that a listing fills many times over, to be flushed at the end:
/// by itself it passes on every line that ends.
pub(crate) fn stdout() -> BufWriter<StdoutLock<'static>> {
    BufWriter::with_capacity(64 << 10, io::stdout().lock())
}

/// Prints a value as indented JSON.
pub(crate) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let mut out = stdout();
    serde_json::to_writer_pretty(&mut out, value).map_err(io::Error::from)?;
    writeln!(out)?;
    out.flush()?;
    Ok(())
}

/// Prints a text as it is, for programs to take; a terminal gets no codes.
pub(crate) fn print_text(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let terminal = out.is_terminal();
    let shown = if terminal { &plain_lines(text) } else { text };
    out.write_all(shown.as_bytes())?;
    if !text.ends_with('\n') && (terminal || !text.contains('\n')) {
        writeln!(out)?;
    }
    Ok(())
}

/// The tensors that a verb works on: all, or the weights, which then live as long as the process,
/// as the checkpoint does.
pub(crate) fn tensors(
    checkpoint: &'static Checkpoint,
    weights: bool,
    key: Option<&str>,
) -> Result<Vec<&'static Tensor>, Failure> {
    let found = match (weights, key) {
        (_, Some(key)) => checkpoint.weights_under(key)?,
        (true, None) => checkpoint.weights()?,
        (false, None) => return Ok(checkpoint.tensors().collect()),
    };
    Ok(found.tensors.leak().iter().collect())
}
