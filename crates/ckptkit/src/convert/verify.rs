//! Reading back what was written.

use ckptkit_core::{CopyOptions, Error, ErrorKind, Existing, Progress, Result, Tensor};

use super::plan::Plan;
use super::report::Report;
use crate::checkpoint::Checkpoint;

/// Bytes compared at a time.
const BLOCK: u64 = 4 << 20;

impl Plan {
    /// Writes, then reads the output back and compares every tensor with the source, byte for
    /// byte, in bounded memory; the observer is told of both passes, one after the other.
    ///
    /// # Errors
    /// As [`Plan::write`]; [`Io`](ErrorKind::Io) naming the tensor that differs. The output is
    /// then there, for whoever looks into it.
    pub fn write_verified(&self, existing: Existing, options: &CopyOptions<'_>) -> Result<Report> {
        let report = self.write(existing, options)?;
        let written = Checkpoint::open(self.destination())?;
        let mut done = 0;
        for tensor in self.tensors() {
            let found = written.tensor(tensor.name())?;
            compare(tensor, &found, |bytes| {
                done += bytes;
                let progress = Progress::new(done, report.bytes);
                match options.observer.on_progress(progress).is_break() {
                    true => Err(Error::cancelled()),
                    false => Ok(()),
                }
            })
            .map_err(|e| e.in_file(self.destination()))?;
        }
        Ok(report)
    }
}

fn differs(source: &Tensor, what: String) -> Error {
    Error::new(ErrorKind::Io, what)
        .within(format_args!("tensor {}", source.name()))
        .hint("the disk or the memory of this machine may be failing: write it again")
}

fn compare(
    source: &Tensor,
    written: &Tensor,
    mut step: impl FnMut(u64) -> Result<()>,
) -> Result<()> {
    if (source.dtype(), source.shape()) != (written.dtype(), written.shape()) {
        let of = |t: &Tensor| format!("{} {:?}", t.dtype(), t.shape());
        return Err(differs(source, format!("{} was written as {}", of(source), of(written))));
    }
    let (mut a, mut b) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < source.byte_len() {
        let len = BLOCK.min(source.byte_len() - at);
        let n = usize::try_from(len).unwrap_or(0);
        a.resize(n, 0);
        b.resize(n, 0);
        source.read_into(at, &mut a)?;
        written.read_into(at, &mut b)?;
        if let Some(i) = a.iter().zip(&b).position(|(x, y)| x != y) {
            return Err(differs(source, format!("byte {} differs from the source", at + i as u64)));
        }
        at += len;
        step(len)?;
    }
    Ok(())
}
