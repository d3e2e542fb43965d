//! Reading back what was written.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use ckptkit_core::{CopyOptions, Error, ErrorKind, Existing, Progress, Result, Tensor};

use super::plan::Plan;
use super::report::Report;
use crate::checkpoint::Checkpoint;

/// Bytes compared at a time: both sides stay in the cache of a core.
const BLOCK: u64 = 256 << 10;
/// The same where one side is gathered from far apart.
const GATHERED_BLOCK: u64 = 4 << 20;
/// What a thread takes at a time, in bytes.
const PIECE: u64 = 16 << 20;

impl Plan {
    /// Writes, then reads the output back and compares every tensor with the source, byte for
    /// byte, in bounded memory and by as many threads; the observer is told of both passes, one
    /// after the other.
    ///
    /// # Errors
    /// As [`Plan::write`]; [`Io`](ErrorKind::Io) naming the tensor that differs. The output is
    /// then there, for whoever looks into it.
    pub fn write_verified(&self, existing: Existing, options: &CopyOptions<'_>) -> Result<Report> {
        let report = self.write(existing, options)?;
        let written = Checkpoint::open(self.destination())?;
        let pairs: Vec<(&Tensor, Tensor)> = self
            .tensors()
            .map(|(name, tensor)| {
                let found = written.tensor(&name)?;
                same_kind(tensor, &found).map_err(|e| e.in_file(self.destination()))?;
                Ok((tensor, found))
            })
            .collect::<Result<_>>()?;
        Comparison::new(&pairs, report.bytes, options)
            .run()
            .map_err(|e| e.in_file(self.destination()))?;
        Ok(report)
    }
}

fn same_kind(source: &Tensor, written: &Tensor) -> Result<()> {
    if (source.dtype(), source.shape()) == (written.dtype(), written.shape()) {
        return Ok(());
    }
    let of = |t: &Tensor| format!("{} {:?}", t.dtype(), t.shape());
    Err(differs(source, format!("{} was written as {}", of(source), of(written))))
}

fn differs(source: &Tensor, what: String) -> Error {
    Error::new(ErrorKind::Io, what)
        .within(format_args!("tensor {}", source.name()))
        .hint("the disk or the memory of this machine may be failing: write it again")
}

/// Tensors that are to be equal, cut into pieces that threads take.
struct Comparison<'a> {
    pairs: &'a [(&'a Tensor, Tensor)],
    /// (position among the pairs, bytes of the tensor).
    pieces: Vec<(usize, Range<u64>)>,
    next: AtomicUsize,
    stop: AtomicBool,
    done: AtomicU64,
    total: u64,
    /// That of the first tensor that has one, among those that were looked at.
    failure: Mutex<Option<(usize, Error)>>,
    options: &'a CopyOptions<'a>,
}

impl<'a> Comparison<'a> {
    fn new(pairs: &'a [(&'a Tensor, Tensor)], total: u64, options: &'a CopyOptions<'a>) -> Self {
        let mut pieces = Vec::with_capacity(pairs.len());
        for (i, (tensor, _)) in pairs.iter().enumerate() {
            let mut start = 0;
            while start < tensor.byte_len() {
                let end = tensor.byte_len().min(start + PIECE);
                pieces.push((i, start..end));
                start = end;
            }
        }
        Self {
            pairs,
            pieces,
            next: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            done: AtomicU64::new(0),
            total,
            failure: Mutex::new(None),
            options,
        }
    }

    fn run(&self) -> Result<()> {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get().min(4));
        let threads = if self.options.threads == 0 { cores } else { self.options.threads.min(64) };
        std::thread::scope(|scope| {
            for _ in 1..threads.min(self.pieces.len()) {
                scope.spawn(|| self.work());
            }
            self.work();
        });
        match self.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some((_, error)) => Err(error),
            None => Ok(()),
        }
    }

    fn work(&self) {
        let mut buffers = (Vec::new(), Vec::new());
        while !self.stop.load(Ordering::Relaxed) {
            let Some((pair, range)) = self.pieces.get(self.next.fetch_add(1, Ordering::Relaxed))
            else {
                return;
            };
            if let Err(error) = self.piece(*pair, range.clone(), &mut buffers) {
                self.stop.store(true, Ordering::Relaxed);
                let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
                if failure.as_ref().is_none_or(|(known, _)| pair < known) {
                    *failure = Some((*pair, error));
                }
            }
        }
    }

    fn piece(&self, pair: usize, range: Range<u64>, (a, b): &mut (Vec<u8>, Vec<u8>)) -> Result<()> {
        let (source, written) = &self.pairs[pair];
        let (source, written) = (source.resolve()?, written.resolve()?);
        let runs = source.contiguous().is_some() && written.contiguous().is_some();
        let block = if runs { BLOCK } else { GATHERED_BLOCK };
        let mut at = range.start;
        while at < range.end {
            let len = block.min(range.end - at);
            let n = usize::try_from(len).unwrap_or(0);
            if a.len() < n {
                a.resize(n, 0);
                b.resize(n, 0);
            }
            let (a, b) = (&mut a[..n], &mut b[..n]);
            source.read_into(at, a)?;
            written.read_into(at, b)?;
            if a != b {
                let i = a.iter().zip(b.iter()).position(|(x, y)| x != y).unwrap_or(0);
                return Err(differs(
                    &source,
                    format!("byte {} differs from the source", at + i as u64),
                ));
            }
            at += len;
            let done = self.done.fetch_add(len, Ordering::Relaxed) + len;
            if self.options.observer.on_progress(Progress::new(done, self.total)).is_break() {
                return Err(Error::cancelled());
            }
        }
        Ok(())
    }
}
