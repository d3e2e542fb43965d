//! `ckptkit digest`.

use std::io::{self, IsTerminal, Write};

use super::{print_json, tensors};
use crate::args::Digest;
use crate::exit::{Exit, Run, warn};
use crate::progress::Bar;
use crate::text::plain_lines;

pub(crate) fn run(args: &Digest, quiet: bool) -> Run {
    let checkpoint = args.open.checkpoint(&args.path)?;
    let tensors = tensors(checkpoint, args.weights, args.weights_key.as_deref())?;
    let bar = Bar::new("hashing", tensors.iter().map(|t| t.byte_len()).sum(), quiet);
    let digest = ckptkit::digest(tensors.into_iter(), &|bytes| bar.advance(bytes))?;
    drop(bar);
    if args.json {
        print_json(&digest)?;
    } else {
        let mut out = io::stdout().lock();
        let lines = digest.lines();
        if out.is_terminal() {
            out.write_all(plain_lines(&lines).as_bytes())?;
        } else {
            out.write_all(lines.as_bytes())?;
        }
        if let Some(whole) = &digest.digest {
            writeln!(out, "{whole}")?;
        }
    }
    for (_, e) in &digest.failures {
        warn(&format!("error: {e}"));
    }
    let unlisted: Vec<_> = if args.weights || args.weights_key.is_some() {
        Vec::new()
    } else {
        checkpoint.failures().to_vec()
    };
    for (_, e) in &unlisted {
        warn(&format!("error: {e}"));
    }
    Ok(if digest.failures.is_empty() && unlisted.is_empty() { Exit::Done } else { Exit::Failure })
}
